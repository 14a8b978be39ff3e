"""Reading a text by a grammar of `lark`: whether it is whole, and how far it goes, in bounded time.

No tree is built.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from lark import Lark

# Items that Earley's algorithm may look at in one text.
MAX_STEPS = 2_000_000
# Seconds for one match of a terminal's pattern.
TIME_LIMIT = 0.1

# Number of a rule, how much of it has been found, where it began.
Item = tuple[int, int, int]


class Reader(Protocol):
    """Reads texts by a grammar."""

    def read(self, text: str) -> tuple[bool, int]:
        """Whether `text` is of the language, and how many characters are the beginning of one."""


@cache
def make_reader(parser: str, grammar: str, start: str, path: str | None = None) -> Reader:
    """A reader by `grammar`; it cannot be pickled, another call returns the same one.

    Args:
        parser: ``"earley"`` or ``"lalr"``.
        grammar: a grammar in `lark`'s language.
        start: the rule that derives a whole text.
        path: the file that `grammar` is from: what it imports is looked for beside it.

    Raises:
        ImportError: where `lark` is not installed.
        ValueError: where `grammar` is none, or one that `parser` cannot use.
    """
    lark = _compile(grammar, start, path, parser)
    return LALRReader(lark) if parser == "lalr" else EarleyReader(lark)


class LALRReader:
    """Reads by `lark`'s LALR(1) parser with its contextual lexer."""

    def __init__(self, lark: Lark) -> None:
        self._lark = lark

    def read(self, text: str) -> tuple[bool, int]:
        """See `Reader`."""
        from lark.exceptions import UnexpectedInput

        parser: Any = self._lark.parse_interactive(text)
        lexer = parser.lexer_thread
        reached = 0
        try:
            for token in lexer.lex(parser.parser_state):
                parser.feed_token(token)
                reached = token.end_pos or 0
            reached = len(text)
            parser.feed_eof()
        except (UnexpectedInput, TimeoutError):
            return False, reached
        return True, reached


class EarleyReader:
    """Reads by Earley's algorithm, without a lexer: terminals are matched where they may stand.

    It accepts what `lark`'s Earley parser with its dynamic lexer accepts.
    """

    def __init__(self, lark: Lark) -> None:
        self._start = lark.options.start[0]
        self._patterns = {
            terminal.name: _TimedPattern(terminal.pattern.to_regexp())
            for terminal in lark.terminals
        }
        self._ignored = [self._patterns[name] for name in lark.ignore_tokens]
        self._rules = [
            (str(rule.origin.name), tuple(str(symbol.name) for symbol in rule.expansion))
            for rule in lark.rules
        ]
        self._by_name: dict[str, list[int]] = defaultdict(list)
        for number, (name, _) in enumerate(self._rules):
            self._by_name[name].append(number)
        # Rules that may derive nothing: found until no more are.
        self._nullable: set[str] = set()
        while (
            more := {
                name for name, expansion in self._rules if self._nullable.issuperset(expansion)
            }
            - self._nullable
        ):
            self._nullable |= more

    def read(self, text: str) -> tuple[bool, int]:
        """See `Reader`."""
        # Items to look at, by where they have come to, and those that wait for a rule, by where
        # and for which.
        pending: dict[int, set[Item]] = defaultdict(set)
        pending[0] = {(number, 0, 0) for number in self._by_name[self._start]}
        waiting: dict[int, dict[str, list[Item]]] = {}
        steps_left = MAX_STEPS
        for position in range(len(text) + 1):
            if position not in pending:
                continue
            seen = pending.pop(position)
            scans, done, steps = self._close(seen, position, waiting, steps_left)
            steps_left -= steps
            if position == len(text) or steps_left < 0:
                return done != [] and position == len(text), position
            try:
                self._scan(text, position, scans, done, pending)
            except TimeoutError:
                return False, position
            reached = position if not pending else max(pending)
        return False, reached

    def _close(
        self,
        seen: set[Item],
        position: int,
        waiting: dict[int, dict[str, list[Item]]],
        limit: int,
    ) -> tuple[dict[str, list[Item]], list[Item], int]:
        """All items at `position`: those before a terminal, whole texts, and the steps taken."""
        waits: dict[str, list[Item]] = defaultdict(list)
        waiting[position] = waits
        scans: dict[str, list[Item]] = defaultdict(list)
        done: list[Item] = []
        agenda = list(seen)
        steps = 0
        while agenda and steps <= limit:
            item = number, dot, origin = agenda.pop()
            name, expansion = self._rules[number]
            if dot == len(expansion):
                if name == self._start and origin == 0:
                    done.append(item)
                new = [(n, d + 1, o) for n, d, o in waiting[origin].get(name, ())]
            elif expansion[dot] in self._patterns:
                scans[expansion[dot]].append(item)
                new = []
            else:
                waits[expansion[dot]].append(item)
                new = [(n, 0, position) for n in self._by_name[expansion[dot]]]
                if expansion[dot] in self._nullable:
                    # What derives nothing may be complete before this item waits for it.
                    new.append((number, dot + 1, origin))
            steps += 1 + len(new)
            for found in new:
                if found not in seen:
                    seen.add(found)
                    agenda.append(found)
        return scans, done, steps

    def _scan(
        self,
        text: str,
        position: int,
        scans: dict[str, list[Item]],
        done: list[Item],
        pending: dict[int, set[Item]],
    ) -> None:
        """Move the items before a terminal past what it matches at `position`."""
        for name, items in scans.items():
            if match := self._patterns[name].match(text, position):
                pending[match.end()].update((n, d + 1, o) for n, d, o in items)
        for pattern in self._ignored:
            if match := pattern.match(text, position):
                pending[match.end()].update(*scans.values(), done)


def _compile(grammar: str, start: str, path: str | None, parser: Any) -> Lark:
    import regex

    try:
        import lark
    except ImportError as error:
        raise ImportError(
            'the reward `grammar` needs lark. Install it: pip install "textgym[rewards]"'
        ) from error

    try:
        return lark.Lark(
            grammar,
            start=start,
            parser=parser,
            source_path=path,
            _plugins={"ContextualLexer": _timed_lexer},
        )
    except (lark.exceptions.LarkError, regex.error, ValueError, OSError) as error:
        what = "not a grammar" if parser == "earley" else "not a grammar, or not LALR(1)"
        raise ValueError(f"{path or 'the text given'} is {what}: {error}") from error


def _timed_lexer(conf: Any, *arguments: Any, **options: Any) -> Any:
    from lark.lexer import ContextualLexer

    conf.re_module = _TimedPatterns
    return ContextualLexer(conf, *arguments, **options)


class _TimedPattern:
    """A regular expression that raises `TimeoutError` where a match takes too long."""

    def __init__(self, pattern: str, flags: int = 0) -> None:
        import regex

        try:
            self._pattern = regex.compile(pattern, flags)
        except regex.error as error:
            raise ValueError(f"{pattern!r} is not a regular expression: {error}.") from error

    def match(self, text: str, *bounds: int) -> Any:
        return self._pattern.match(text, *bounds, timeout=TIME_LIMIT)

    def fullmatch(self, text: str) -> Any:
        return self._pattern.fullmatch(text, timeout=TIME_LIMIT)


class _TimedPatterns:
    """As much of the module `re` as `lark` uses."""

    error = ValueError
    compile = _TimedPattern

    @staticmethod
    def match(pattern: str, text: str, flags: int = 0) -> Any:
        return _TimedPattern(pattern, flags).match(text)
