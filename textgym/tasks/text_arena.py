"""`TextArenaTask`: the single-player games of the TextArena package, turn by turn.

`textgym.tasks.text_arena:Sokoban` is the class of the game `Sokoban`, made when asked for.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import math
import random
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from textgym.episode import Episode, Instance, Turn
from textgym.errors import check_positive_int, near_matches
from textgym.tasks.base import Reply, Task, TokenCounter
from textgym.tasks.text_arena_games import GAMES, NEED_WORDS, NEEDS, SIZES, TOKENS_PER_TURN

CUE = "\nPlayer:"
# What no game takes for a move; two in a row end every game.
NO_MOVE = "[?]"

_SEEDS = 2**31
_TRIES = 200
_KEPT = 256
# A longer text is no move: a copy of the rules holds examples of some.
_MOVE_CHARACTERS = 80


class TextArenaTask(Task):
    """Play a single-player game of the TextArena package, a move a turn.

    ## Description
    The prompt is the game's own, with its rules, and `Player:`. The agent writes a move, as a rule
    in square brackets (which are put around a turn that has none), and ends its turn; the game
    answers. A game is drawn by a seed and played anew from its moves wherever it must be. Needs
    `pip install "textgym[textarena]"`; some games need more, and say so when they are made.

    ## Rewards
    On the last step, what the game pays, clipped to [0, 1], less what it pays who makes no valid
    move at all, stretched to [0, 1] again. A game that the agent leaves unfinished is ended by
    moves that are none, and pays what it then pays: for many, how far one has come. A game that
    raises, or pays what is no number, pays 0.

    ## Episode End
    When the game ends, after `max_turns` turns, or when the agent has spent `max_new_tokens`.

    ## Arguments
    Args:
        variant: one of the game's own, such as `"hard"`; the empty one is the game itself.
        max_turns: the most turns the agent has; None is the game's own, or fewer.
        max_prompt_bytes: the longest prompt, in bytes of UTF-8; longer games are drawn again.
        max_reply_bytes: the longest reply, alike; longer ones are cut.

    ## Version History
    - v0: first version, made for TextArena 0.7.4.
    """

    has_oracle = False
    game: ClassVar[str] = ""

    def __init__(
        self,
        variant: str = "",
        *,
        max_turns: int | None = None,
        max_prompt_bytes: int | None = None,
        max_reply_bytes: int | None = None,
    ) -> None:
        if not self.game:
            raise TypeError(
                "`TextArenaTask` is the base of one class for each game: take that of one, such "
                "as `textgym.tasks.text_arena.Sokoban`."
            )
        turns, prompt, reply = SIZES[self.game]
        self.max_turns = check_positive_int("max_turns", max_turns or turns)
        self.max_prompt_bytes = check_positive_int("max_prompt_bytes", max_prompt_bytes or prompt)
        self.max_reply_bytes = check_positive_int("max_reply_bytes", max_reply_bytes or reply)
        self.max_new_tokens = TOKENS_PER_TURN * self.max_turns
        self.variant = variant
        self._id = _find(self.game, variant)
        # Games under way, by seed and moves: each turn then costs one move, not all of them.
        self._plays: OrderedDict[tuple[int, tuple[str, ...]], _Play] = OrderedDict()

    def sample(self, rng: np.random.Generator) -> Instance:
        """Draw a game.

        Raises:
            ValueError: where none of many has a prompt short enough.
        """
        for _ in range(_TRIES):
            seed = int(rng.integers(_SEEDS))
            play = _Play(self._id, seed)
            prompt = play.heard + CUE
            if _size(prompt) <= self.max_prompt_bytes:
                return Instance(prompt, data={"seed": seed, "floor": play.give_up()})
        raise ValueError(
            f"TextArena's {self._id}: none of {_TRIES} games has a prompt of at most "
            f"{self.max_prompt_bytes} bytes. Give a greater `max_prompt_bytes`."
        )

    def split_key(self, instance: Instance) -> str:
        """The seed: many games have one prompt for all."""
        return str(instance.data["seed"])

    def reply(self, instance: Instance, turns: Sequence[Turn]) -> Reply:
        """What the game says to the agent's latest move."""
        play = self._play(instance, turns)
        text, end = f"\nGame: {play.heard}", "" if play.over else CUE
        kept = text.encode("utf-8", "replace")[: self.max_reply_bytes - len(end)]
        return Reply(kept.decode("utf-8", "ignore") + end, terminated=play.over)

    def score(self, episode: Episode) -> float:
        """What the game pays for the moves, less what it pays for none."""
        play = self._play(episode.instance, episode.turns)
        self._plays.pop(_key(episode.instance, episode.turns), None)  # it is ended here
        floor = episode.instance.data["floor"]
        return max(0.0, (play.give_up() - floor) / (1.0 - floor)) if floor < 1.0 else 0.0

    def prompt_bound(self, count_tokens: TokenCounter) -> int:
        """Every byte a token, special tokens, and a space that some tokenizers put in front."""
        return self.max_prompt_bytes + count_tokens("") + 1

    def reply_bound(self, count_tokens: TokenCounter) -> int:
        """Every reply at its longest."""
        return self.max_turns * (self.max_reply_bytes + 1)

    def _play(self, instance: Instance, turns: Sequence[Turn]) -> _Play:
        """The game of `instance` after the agent's `turns`: the same whatever was kept."""
        seed, moves = _key(instance, turns)
        play = self._plays.pop((seed, moves), None)
        if play is None:
            play = self._plays.pop((seed, moves[:-1]), None)
            rest = moves if play is None else moves[-1:]
            play = play or _Play(self._id, seed)
            for move in rest:
                play.move(move)
        self._plays[seed, moves] = play
        if len(self._plays) > _KEPT:
            self._plays.popitem(last=False)
        return play

    def __getstate__(self) -> dict[str, Any]:
        names = ("variant", "max_turns", "max_prompt_bytes", "max_reply_bytes")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # games under way are not pickled


class _Play:
    """A game under way.

    Attributes:
        heard: what the game said last.
        over: True once it has ended, or raised.
    """

    def __init__(self, id: str, seed: int) -> None:
        self._failed = False
        random_states = _seeded(seed)
        with self._inside(random_states):
            self._env = importlib.import_module("textarena").make(f"{id}-raw")
            self._env.reset(num_players=1, seed=seed)
            self.heard = self._listen()

    @property
    def over(self) -> bool:
        return self._failed or bool(self._env.state.done)

    def move(self, text: str) -> None:
        """Make a move; one after the end changes nothing."""
        if self.over:
            return
        move = text.strip()
        move = move if len(move) <= _MOVE_CHARACTERS else NO_MOVE
        with self._inside(self._random):
            try:
                self._env.step(move if "[" in move else f"[{move}]")
                self.heard = self._listen()
            except Exception:  # whatever it stumbles over: the game cannot go on
                self.heard, self._failed = "The game cannot read this move.", True

    def give_up(self) -> float:
        """End the game, if it has not ended, and return what it pays, in [0, 1]."""
        for _ in range(4):
            self.move(NO_MOVE)
        state = self._env.state
        # Some games give the reason in place of the reward, and the other way round.
        given = ((state.rewards or {}).get(0), state.game_info[0].get("reason"))
        paid = next((float(n) for n in given if isinstance(n, int | float)), 0.0)
        return min(max(paid, 0.0), 1.0) if math.isfinite(paid) and not self._failed else 0.0

    def _listen(self) -> str:
        """What the game, and not the player, has said since last time."""
        state = self._env.state
        said = []
        for parts in self._env.get_observation()[1]:
            # (speaker, text, kind); some games give them in another order.
            speaker = next((part for part in parts if isinstance(part, int)), -1)
            said += [part for part in parts if isinstance(part, str)] if speaker < 0 else []
        if state.done:
            said.append(str(state.game_info[0].get("reason", "")))
        return "\n".join(text.strip() for text in said if text.strip()) or "The game is over."

    @contextlib.contextmanager
    def _inside(self, states: tuple[Any, Any]) -> Iterator[None]:
        """Games draw from the global generators, and print: give them their own, and silence."""
        outside = random.getstate(), np.random.get_state()  # noqa: NPY002
        _set(states)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                yield
        finally:
            self._random = random.getstate(), np.random.get_state()  # noqa: NPY002
            _set(outside)


def _seeded(seed: int) -> tuple[Any, Any]:
    return random.Random(seed).getstate(), np.random.RandomState(seed).get_state()


def _set(states: tuple[Any, Any]) -> None:
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002


def _key(instance: Instance, turns: Sequence[Turn]) -> tuple[int, tuple[str, ...]]:
    return instance.data["seed"], tuple(turn.text for turn in turns if turn.role == "agent")


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _find(game: str, variant: str) -> str:
    """The package's id of `variant` of `game`, which can be made."""
    try:
        importlib.import_module("textarena")
    except ImportError as error:
        raise ImportError(
            f"textgym/TextArena.{game}-v0 needs the TextArena package: "
            '`pip install "textgym[textarena]"`.'
        ) from error
    registry = importlib.import_module("textarena.envs.registration").ENV_REGISTRY
    start = f"{game}-v0"
    variants = [
        id.removeprefix(start).removeprefix("-")
        for id in registry
        if (id == start or id.startswith(f"{start}-")) and not id.endswith(("-raw", "-train"))
    ]
    if variant not in variants:
        raise ValueError(
            f"TextArena's {game} has no variant {variant!r}; "
            f"{near_matches(variant, filter(None, variants))}"
        )
    id = f"{start}-{variant}" if variant else start
    try:
        if game in NEED_WORDS:  # the package would try to download it, and then fail elsewhere
            importlib.import_module("nltk").data.find("corpora/words")
        _Play(id, 0)
    except Exception as error:
        raise ImportError(
            f"TextArena cannot make {id}: {NEEDS.get(game, 'Try another version of it.')} "
            f"({type(error).__name__})"
        ) from error
    return id


def __getattr__(name: str) -> type[TextArenaTask]:
    """The task class of game `name`, made the first time; pickle finds it here too."""
    if name not in GAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    members = {
        "__doc__": TextArenaTask.__doc__,
        "__module__": __name__,
        "__qualname__": name,
        "game": name,
    }
    globals()[name] = made = type(name, (TextArenaTask,), members)
    return made
