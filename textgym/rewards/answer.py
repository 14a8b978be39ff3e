"""`Answer`: is the final answer of a completion the right one? And how it is found."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.errors import check_choice
from textgym.rewards.base import Reward

How = Literal["tag", "boxed", "hash", "last_line", "last_number"]

# A final answer stands at the end: no more than this much of it is read.
MAX_CHARACTERS = 10_000

_BOX = "\\boxed{"
# A brace after a backslash is a sign of its own.
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
# In "5-3" the sign joins two numbers; in "is -3" it belongs to one.
_NUMBER = re.compile(rf"(?:(?<![\w)])[-+\N{{MINUS SIGN}}])?(?:{_DIGITS})")
_WHOLE_NUMBER = re.compile(rf"[-+]?(?:{_DIGITS})")


class Answer(Reward):
    """1 where the final answer of the completion equals that of the target, else 0.

    The answer is found by `extract_answer`, in the target as well, which is taken whole where it
    has no such mark. Two answers are equal if they are the same but for case, white space, a full
    stop at the end, and the way a number is written (``1,000.0`` is ``1000``). Nothing else is
    judged: reasoning may be absent or wrong. Several answers are no hedge, since the last counts.

    Args:
        how: how the answer is marked, see `extract_answer`.
        tag: the name of the tag, where `how` is ``"tag"``.
        name: its name in `info["rewards"]`.

    Raises:
        ValueError: an unknown `how` or an empty `tag`; later, an episode without a target.

    Example:
        >>> Answer("boxed").value(r"So it is \\boxed{1{,}000}, or \\boxed{1,000.}", "1000")
        1.0
        >>> Answer("hash").value("2 + 2 = 4\\n#### 5", "Two and two.\\n#### 4")
        0.0
    """

    range = (0.0, 1.0)

    def __init__(self, how: How = "tag", *, tag: str = "answer", name: str = "answer") -> None:
        _check(how, tag)
        self.how: How = how
        self.tag = tag
        self.name = name

    def value(self, text: str, target: str) -> float:
        """The reward of the completion `text` where `target` is right."""
        answer = extract_answer(text, self.how, tag=self.tag)
        wanted = extract_answer(target, self.how, tag=self.tag) or target
        return float(answer is not None and same_answer(answer, wanted))

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        """`[B] float32`, each 0 or 1."""
        values = []
        for episode in episodes:
            target = episode.instance.target
            if target is None:
                raise ValueError(
                    f"reward `{self.name}` compares with the target, and the instance of the "
                    f"prompt {episode.prompt[:80]!r} has none. Use a task that gives targets."
                )
            values.append(self.value(episode.completion_text, target))
        return np.array(values, np.float32)


def extract_answer(text: str, how: How = "tag", *, tag: str = "answer") -> str | None:
    """The final answer that `text` states, or None where it states none.

    The last one counts, and of a long text only its last 10,000 characters are read.

    Args:
        text: what was written.
        how: ``"tag"``: what stands in the last ``<answer>...</answer>``; ``"boxed"``: in the last
            ``\\boxed{...}``, braces nested; ``"hash"``: after the last ``####``, to the end of
            the line; ``"last_line"``: the last line that is not blank; ``"last_number"``: the last
            decimal number, thousands separators taken out.
        tag: the name of the tag, where `how` is ``"tag"``.

    Raises:
        ValueError: an unknown `how` or an empty `tag`.

    Example:
        >>> extract_answer("<answer>7</answer> or rather <answer> 8 </answer>")
        '8'
        >>> extract_answer("It is \\\\boxed{\\\\frac{1}{2}}.", "boxed")
        '\\\\frac{1}{2}'
        >>> extract_answer("So 3 of the 1,200 are left", "last_number")
        '1200'
    """
    _check(how, tag)
    text = text[-MAX_CHARACTERS:]
    found: str | None
    if how == "tag":
        found = _in_last_tag(text, tag)
    elif how == "boxed":
        found = _in_last_box(text)
    elif how == "hash":
        _, mark, after = text.rpartition("####")
        found = after.partition("\n")[0] if mark else None
    elif how == "last_line":
        found = text.rstrip().rpartition("\n")[2]
    else:
        numbers = _NUMBER.findall(text)
        found = _plain(numbers[-1]) if numbers else None
    return (found.strip() or None) if found is not None else None


def same_answer(one: str, other: str) -> bool:
    """Whether two answers are the same but for case, white space, full stop and number format.

    >>> same_answer(" The  Fox.", "the fox"), same_answer("+1,000", "1000.0"), same_answer("1", "2")
    (True, True, False)
    """
    one, other = _normal(one), _normal(other)
    if one == other:
        return True
    one, other = _plain(one), _plain(other)
    if not (_WHOLE_NUMBER.fullmatch(one) and _WHOLE_NUMBER.fullmatch(other)):
        return False
    return Decimal(one) == Decimal(other)


def _check(how: str, tag: str) -> None:
    check_choice("how", how, get_args(How))
    if not tag or tag != tag.strip("<> \t\n"):
        raise ValueError(f'`tag` must be the name of a tag, got {tag!r}. Use `tag="answer"`.')


def _in_last_tag(text: str, tag: str) -> str | None:
    before, closing, _ = text.rpartition(f"</{tag}>")
    _, opening, inside = before.rpartition(f"<{tag}>")
    return inside if closing and opening else None


def _in_last_box(text: str) -> str | None:
    start = text.rfind(_BOX)
    if start < 0:
        return None
    start += len(_BOX)
    depth = 1
    for match in _BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return text[start : match.start()]
    return None


def _normal(answer: str) -> str:
    return " ".join(answer.casefold().split()).removesuffix(".").rstrip()


def _plain(number: str) -> str:
    """A number without its thousands separators; any other text as it is."""
    number = number.replace("\N{MINUS SIGN}", "-")
    return number.replace(",", "") if _WHOLE_NUMBER.fullmatch(number) else number
