"""Benchmark suites: which tasks, with how many tokens to learn from, and how they are scored.

A suite is plain data, and its `hash` names all of it that determines numbers: results of one hash
compare, on every machine.

    >>> from textgym.suites import find_suite
    >>> suite = find_suite("exact")
    >>> task = suite.tasks[0]
    >>> task.exact_returns()["optimum"]
    1.0
    >>> suite.quick().name
    'exact-quick'
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Self

import gymnasium as gym
import numpy as np
import tokenizers
from gymnasium.vector import AutoresetMode
from tokenizers import Regex, decoders, models, pre_tokenizers

import textgym  # registers the environments
from textgym.envs.token_env import TokenEnv
from textgym.envs.token_vector_env import TokenVectorEnv
from textgym.episode import Instance
from textgym.errors import check_known, check_positive_int
from textgym.exact import evaluate, lock_graph, optimum
from textgym.registration import REGISTRY
from textgym.seeding import Split, instance_rng
from textgym.tasks.token_lock import EOS, LETTERS, TokenLockTask
from textgym.tokenization import Tokenizer

# Every agent, of every seed, is scored on the instances that this one draws.
HELD_OUT_SEED = 20_261
# Of what `hash` covers; to be raised when evaluation itself changes.
_VERSION = 1
# The argument of a suite's lock that asks for more actions than it has letters.
_ACTIONS = "actions"
# The suffix of a quick suite.
QUICK = "-quick"


@dataclass(frozen=True)
class SuiteTask:
    """One environment, a budget to learn from, and held-out episodes to be scored on.

    Args:
        name: unique in its suite.
        env_id: registered, version included.
        kwargs: of the environment, JSON values. A lock's ``{"tokenizer": {"actions": V}}`` is
            that of `synonyms`.
        tokens: that an agent may learn from: its own, all rows together.
        episodes: held-out instances it is scored on.
        num_envs: rows of the vector environment.

    Raises:
        TypeError: an unknown id; lists near matches.
        ValueError: a number that is not positive.
    """

    name: str
    env_id: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    tokens: int = 100_000
    episodes: int = 256
    num_envs: int = 32

    def __post_init__(self) -> None:
        check_known("id", [self.env_id], REGISTRY)
        for name in ("tokens", "episodes", "num_envs"):
            check_positive_int(name, getattr(self, name))

    def to_json(self) -> dict[str, Any]:
        """Plain values, which `from_json` reads."""
        return {**vars(self), "kwargs": dict(self.kwargs)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """The task that `to_json` wrote; `TypeError` for what is unknown."""
        check_known("field", record, [field.name for field in dataclasses.fields(cls)])
        return cls(**record)

    # ------------------------------------------------------------------ environments
    def make_envs(self, split: Split = "train") -> TokenVectorEnv:
        """`num_envs` rows, in `SAME_STEP` mode."""
        envs: Any = gym.make_vec(
            self.env_id,
            num_envs=self.num_envs,
            vectorization_mode="vector_entry_point",
            autoreset_mode=AutoresetMode.SAME_STEP,
            split=split,
            **self._env_kwargs(),
        )
        found: TokenVectorEnv = envs
        return found

    def make_env(self, split: Split = "train") -> TokenEnv:
        """A single row, without Gymnasium's wrappers: for searches that go back and forth."""
        env: Any = gym.make(
            self.env_id, disable_env_checker=True, split=split, **self._env_kwargs()
        ).unwrapped
        found: TokenEnv = env
        return found

    def instances(self, task: textgym.Task) -> list[Instance]:
        """The held-out instances that `task`, that of an environment made here, draws.

        They are the same for every agent and seed, and for any number of rows.
        """
        return [
            task.draw(instance_rng(HELD_OUT_SEED, "test", 0, i), "test")
            for i in range(self.episodes)
        ]

    def _env_kwargs(self) -> dict[str, Any]:
        asked = self.kwargs.get("tokenizer")
        if not isinstance(asked, Mapping):
            return dict(self.kwargs)
        check_known("field of `tokenizer`", asked, [_ACTIONS])
        letters = LETTERS[: int(self.kwargs["vocab_size"]) - 1]
        return {**self.kwargs, "tokenizer": synonyms(letters, asked[_ACTIONS])}

    # ------------------------------------------------------------------ known exactly
    def exact_returns(self) -> dict[str, float] | None:
        """``{"random": ..., "optimum": ...}`` of a lock, computed; None where neither is known."""
        rest = dict(self.kwargs)
        if self.env_id != "textgym/TokenLock-v0":
            return None
        asked = rest.pop("tokenizer", None)
        if rest.get("score_weight") == 0.0 and _pays_the_score(rest.get("rewards")):
            del rest["score_weight"], rest["rewards"]
        if not (asked is None or isinstance(asked, Mapping)):
            return None
        try:
            task = TokenLockTask(**rest)
        except TypeError:  # arguments of the environment, which may change what is paid
            return None
        try:
            instances = task.prompts("test")
        except ValueError:  # too many to list: any letter may be the last one
            instances = None
        graph = lock_graph(task, instances, limit=10_000_000)
        counts = np.ones(task.vocab_size)
        if asked is not None:
            counts[1:] = np.bincount(np.arange(asked[_ACTIONS] - 1) % len(task.letters))
        log_probs = np.log(counts / counts.sum())
        uniform = [np.tile(log_probs, (len(layer), 1)) for layer in graph.layers]
        return {
            "random": evaluate(graph, uniform).expected_return,
            "optimum": optimum(graph).expected_return,
        }


def _pays_the_score(rewards: Any) -> bool:
    """Whether `rewards` is the task's score alone, paid in pieces."""
    return (
        isinstance(rewards, list)
        and len(rewards) == 1
        and str(rewards[0]).startswith("redistribute(task-score")
        and ":" not in str(rewards[0])
    )


def synonyms(letters: str, actions: int) -> Tokenizer:
    """A lock's tokenizer of `actions` tokens: each letter has several that read as it does.

    So that the number of actions can grow and the lock stay what it is: token 0 ends the text, and
    of the others each ``len(letters)``-th is the same letter. Prompts are written with the first.

    Args:
        letters: of the lock.
        actions: V, more than there are letters.

    Raises:
        ValueError: too few.

    >>> tokenizer = synonyms("abc", 64)
    >>> tokenizer.vocab_size, tokenizer.decode([1, 4, 2, 62])
    (64, 'a a b b')
    """
    if check_positive_int("actions", actions) <= len(letters):
        raise ValueError(
            f"`actions` must be above {len(letters)}, one for each letter and one to end the text, "
            f"got {actions}."
        )
    return _synonyms(letters, actions)


@lru_cache(maxsize=8)
def _synonyms(letters: str, actions: int) -> Tokenizer:
    count = len(letters)
    words = [f"{letters[i % count]}{i // count or ''}" for i in range(actions - 1)]
    vocabulary = {EOS: 0} | {word: i for i, word in enumerate(words, 1)}
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=words[count - 1]))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.decoder = decoders.Sequence(
        # `WordPiece` joins by spaces what does not begin with a prefix that none has.
        [decoders.Replace(Regex("[0-9]+"), ""), decoders.WordPiece("##", cleanup=False)]
    )
    backend.add_special_tokens([EOS])
    return Tokenizer(backend, eos_token=EOS, name=f"{actions} words for {letters}")


@dataclass(frozen=True)
class Suite:
    """Tasks whose scores are told together.

    Args:
        name: what it is asked for by.
        description: one line.
        tasks: at least one, of different names.
        seeds: of the agents, each of which learns every task with each.
        quick_share: of the tokens that is left in `quick`.
        quick_episodes: held-out episodes in `quick`.
    """

    name: str
    description: str
    tasks: tuple[SuiteTask, ...]
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    quick_share: float = 0.2
    quick_episodes: int = 128

    def __post_init__(self) -> None:
        names = [task.name for task in self.tasks]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"`tasks` must be at least one, of different names, got {names}.")

    @property
    def hash(self) -> str:
        """16 hex digits of all that determines numbers: not of its name, description and seeds."""
        told = {
            "version": _VERSION,
            "held_out_seed": HELD_OUT_SEED,
            "tasks": [task.to_json() for task in self.tasks],
        }
        text = json.dumps(told, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def task(self, name: str) -> SuiteTask:
        """The task of that name; `TypeError` lists near matches."""
        tasks = {task.name: task for task in self.tasks}
        check_known("task", [name], tasks)
        return tasks[name]

    def quick(self) -> Suite:
        """The same with less to learn from: to try things out; another hash."""
        if self.name.endswith(QUICK):
            return self
        tasks = tuple(
            dataclasses.replace(
                task,
                tokens=max(1, round(task.tokens * self.quick_share)),
                episodes=min(task.episodes, self.quick_episodes),
            )
            for task in self.tasks
        )
        return dataclasses.replace(self, name=self.name + QUICK, tasks=tasks, seeds=self.seeds[:3])

    def check_installed(self) -> None:
        """Raise `ImportError` where a package that its environments need is not installed."""
        for extra in sorted({REGISTRY[task.env_id].extra or "" for task in self.tasks} - {""}):
            if importlib.util.find_spec(extra.replace("-", "_")) is None:
                raise ImportError(
                    f"the suite {self.name} needs {extra}, which is not installed. Run "
                    f'`pip install "textgym[{extra}]"`.'
                )


def find_suite(name: str) -> Suite:
    """The suite of that name; ``"core-quick"`` is the quick form of ``"core"``.

    Raises:
        TypeError: no such suite; lists near matches.
    """
    check_known("suite", [name.removesuffix(QUICK)], SUITES)
    found = SUITES[name.removesuffix(QUICK)]
    return found.quick() if name.endswith(QUICK) else found


# ---------------------------------------------------------------- the suites
_LOCK = "textgym/TokenLock-v0"
# Two pins and the end, a prompt for each key: what one text earns for all of them is 0.3 at most.
_SMALL = {"vocab_size": 5, "keys": 4, "pins": 2, "max_new_tokens": 3, "prompt_length": 1}
# Three pins, and room to make good a slip.
_LARGE = {"vocab_size": 6, "keys": 4, "pins": 3, "max_new_tokens": 6, "prompt_length": 1}
# More would leave those that learn from an episode a row at a time few updates.
_ROWS = 128


def _lock_task(name: str, tokens: int, **kwargs: Any) -> SuiteTask:
    return SuiteTask(name, _LOCK, kwargs, tokens, num_envs=_ROWS)


def _exact() -> Suite:
    return Suite(
        "exact",
        "Small locks whose best return is computed: how near does an agent come?",
        (
            _lock_task("small-dense", 200_000, **_SMALL, reward="dense"),
            _lock_task("small-sparse", 200_000, **_SMALL, reward="sparse"),
            _lock_task("slips-dense", 200_000, **(_SMALL | {"max_new_tokens": 5}), reward="dense"),
            _lock_task("large-dense", 300_000, **_LARGE, reward="dense"),
        ),
        quick_share=0.3,
    )


def _core() -> Suite:
    budgets: dict[int, tuple[str, ...]] = {
        100_000: ("Story", "Summarization", "DataToText", "Translation"),
        60_000: ("Arithmetic", "Dialogue"),
        40_000: ("Recommendation", "Wordle"),
    }
    return Suite(
        "core",
        "Eight tasks: stories, summaries, translation, dialogues and puzzles.",
        tuple(
            SuiteTask(name.lower(), f"textgym/{name}-v0", {}, budget)
            for budget, names in budgets.items()
            for name in names
        ),
    )


def _credit() -> Suite:
    pieces = {"score_weight": 0.0, "rewards": ["redistribute(task-score; over=gain; every=3)"]}
    rewards: dict[str, dict[str, Any]] = {
        "terminal": {"reward": "sparse"},
        "per-turn": {"reward": "sparse", **pieces},
        "per-token": {"reward": "dense"},
        "delayed": {"reward": "delayed", "delay": 2},
        "shaped": {"reward": "shaped"},
    }
    return Suite(
        "credit",
        "One lock, whose reward comes at the end, every third token, with each, late, or shaped.",
        tuple(_lock_task(name, 200_000, **_LARGE, **kwargs) for name, kwargs in rewards.items()),
    )


def _vocab() -> Suite:
    lock = {**_SMALL, "max_new_tokens": 4, "reward": "dense"}
    return Suite(
        "vocab",
        "One lock, with ever more tokens that read as the same letters.",
        tuple(
            _lock_task(f"actions-{actions}", 200_000, **lock, tokenizer={_ACTIONS: actions})
            for actions in (64, 512, 4_096, 50_257)
        ),
    )


def _horizon() -> Suite:
    budgets = {8: 200_000, 32: 300_000, 128: 400_000, 512: 400_000}
    lock = {"vocab_size": 3, "keys": 1, "prompt_length": 1, "reward": "dense"}
    return Suite(
        "horizon",
        "Locks that take 8 to 512 tokens to open, one pin a token.",
        tuple(
            SuiteTask(
                f"tokens-{length}",
                _LOCK,
                {**lock, "pins": length - 1, "max_new_tokens": length},
                budget,
            )
            for length, budget in budgets.items()
        ),
    )


def _reasoning() -> Suite:
    names = ("chain_sum", "leg_counting", "letter_counting", "spell_backward")
    tasks = (
        SuiteTask(name.replace("_", "-"), f"textgym/ReasoningGym.{name}-v0", {}, 60_000)
        for name in names
    )
    return Suite("reasoning", "Questions of reasoning-gym.", tuple(tasks))


_ALL = (_exact(), _core(), _credit(), _vocab(), _horizon(), _reasoning())
SUITES: Mapping[str, Suite] = MappingProxyType({suite.name: suite for suite in _ALL})
