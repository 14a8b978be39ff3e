"""Registered environments: one row per id, and the functions that make them.

Everything heavier than Gymnasium is named as a string and imported when an environment is made.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import gymnasium as gym

from textgym.errors import check_known
from textgym.tasks.reasoning_gym_sets import DATA_SETS
from textgym.tasks.text_arena_games import GAMES

if TYPE_CHECKING:
    from textgym.envs.token_env import TokenEnv
    from textgym.envs.token_vector_env import TokenVectorEnv
    from textgym.tasks.base import Task


@dataclass(frozen=True)
class EnvRow:
    """A registered environment.

    Args:
        id: what `gym.make` takes.
        task: where its task class is, as ``"module:Class"``.
        summary: one line on what the agent does.
        smoke_kwargs: keyword arguments that make a small one, for tests.
        random_bound: what a policy of random tokens scores at most, on average.
        extra: the optional dependency it needs, a name for `pip install "textgym[...]"`.
        bridged: True for an environment of another package, behind a bridge of ours.
    """

    id: str
    task: str
    summary: str
    smoke_kwargs: Mapping[str, Any] = field(default_factory=dict)
    random_bound: float = 0.05
    extra: str | None = None
    bridged: bool = False

    def task_class(self) -> type[Task]:
        """Import and return the task class."""
        return _task_class(self.task)


def _bridged_rows() -> Iterator[EnvRow]:
    """Those of other packages, registered whether they are installed or not."""
    for name in DATA_SETS:
        yield EnvRow(
            f"textgym/ReasoningGym.{name}-v0",
            f"textgym.tasks.reasoning_gym:{name}",
            f"Answer a question of {name}, a data set of reasoning-gym.",
            extra="reasoning-gym",
            bridged=True,
        )
    for name in GAMES:
        yield EnvRow(
            f"textgym/TextArena.{name}-v0",
            f"textgym.tasks.text_arena:{name}",
            f"Play {name}, a game of TextArena for one player.",
            extra="textarena",
            bridged=True,
        )


REGISTRY: Mapping[str, EnvRow] = MappingProxyType(
    {
        row.id: row
        for row in (
            EnvRow(
                "textgym/Arithmetic-v0",
                "textgym.tasks.arithmetic:ArithmeticTask",
                "Work out a little story of numbers, or an expression.",
            ),
            EnvRow(
                "textgym/Continuation-v0",
                "textgym.tasks.continuation:ContinuationTask",
                "Continue prompts of your own; all reward comes from the rewards you add.",
            ),
            EnvRow(
                "textgym/Countdown-v0",
                "textgym.tasks.countdown:CountdownTask",
                "Make a target out of given numbers by plus, minus, times and divided by.",
            ),
            EnvRow(
                "textgym/DataToText-v0",
                "textgym.tasks.data_to_text:DataToTextTask",
                "Say in sentences what a small table says: all of it, and nothing else.",
            ),
            EnvRow(
                "textgym/Dialogue-v0",
                "textgym.tasks.dialogue:DialogueTask",
                "Find out what a user wants by asking, and book it.",
            ),
            EnvRow(
                "textgym/Dataset-v0",
                "textgym.tasks.dataset:DatasetTask",
                "Answer the prompts of a dataset of your own; a metric compares with its targets.",
            ),
            EnvRow(
                "textgym/KeywordsToSentence-v0",
                "textgym.tasks.keywords_to_sentence:KeywordsToSentenceTask",
                "Write one sensible sentence that has all the words asked for.",
            ),
            EnvRow(
                "textgym/QuestionAnswering-v0",
                "textgym.tasks.question_answering:QuestionAnsweringTask",
                "Answer a question about a short text in a word or two.",
            ),
            EnvRow(
                "textgym/Recommendation-v0",
                "textgym.tasks.recommendation:RecommendationTask",
                "Recommend books, title by title, to a reader whose tastes show in how they react.",
            ),
            EnvRow(
                "textgym/Sentiment-v0",
                "textgym.tasks.sentiment:SentimentTask",
                "Go on with a review so that it becomes positive and keeps to its subject.",
            ),
            EnvRow(
                "textgym/Sorting-v0",
                "textgym.tasks.sorting:SortingTask",
                "Put words or numbers in order.",
            ),
            EnvRow(
                "textgym/Story-v0",
                "textgym.tasks.story:StoryTask",
                "Finish a little story so that it holds, and ends, as its prompt asks.",
            ),
            EnvRow(
                "textgym/Summarization-v0",
                "textgym.tasks.summarization:SummarizationTask",
                "Say in few words what a report comes to; leave out what is beside the point.",
            ),
            EnvRow(
                "textgym/TokenLock-v0",
                "textgym.tasks.token_lock:TokenLockTask",
                "Open a lock, a small automaton over letters whose optimum is known exactly.",
            ),
            EnvRow(
                "textgym/Translation-v0",
                "textgym.tasks.translation:TranslationTask",
                "Translate a sentence from English into German, or back.",
            ),
            EnvRow(
                "textgym/TwentyQuestions-v0",
                "textgym.tasks.twenty_questions:TwentyQuestionsTask",
                "Find out by yes-or-no questions what somebody thinks of, and name it.",
            ),
            EnvRow(
                "textgym/Wordle-v0",
                "textgym.tasks.wordle:WordleTask",
                "Find a secret word by guesses whose letters are marked.",
            ),
            *_bridged_rows(),
        )
    }
)


def list_ids() -> list[str]:
    """The registered ids, sorted."""
    return sorted(REGISTRY)


def register_all() -> None:
    """Register every row with Gymnasium; doing so again changes nothing."""
    for row in REGISTRY.values():
        if row.id not in gym.registry:
            gym.register(
                row.id,
                entry_point="textgym.registration:make_env",
                vector_entry_point="textgym.registration:make_vector_env",
                kwargs={"task": row.task},
            )


def make_env(task: str, **kwargs: Any) -> TokenEnv:
    """A `TokenEnv`, the entry point of every registered id.

    Args:
        task: the task class, as ``"module:Class"``.
        kwargs: arguments of the task class and of `TokenEnv`; each goes where it is known.

    Raises:
        TypeError: for an argument that neither knows, listing near matches.
    """
    from textgym.envs.token_env import TokenEnv

    made, rest = _split_kwargs(task, kwargs, TokenEnv)
    return TokenEnv(made, **rest)


def make_vector_env(task: str, num_envs: int = 1, **kwargs: Any) -> TokenVectorEnv:
    """A `TokenVectorEnv`, the vector entry point of every registered id; see `make_env`."""
    from textgym.envs.token_vector_env import TokenVectorEnv

    made, rest = _split_kwargs(task, kwargs, TokenVectorEnv)
    return TokenVectorEnv(made, num_envs, **rest)


def _task_class(entry: str) -> type[Task]:
    module, _, name = entry.partition(":")
    found: type[Task] = getattr(importlib.import_module(module), name)
    return found


def _split_kwargs(
    entry: str, kwargs: Mapping[str, Any], env_class: type
) -> tuple[Task, dict[str, Any]]:
    task_class = _task_class(entry)
    of_task = _keywords(task_class)
    of_env = _keywords(env_class) - {"task", "num_envs"}
    check_known("argument", kwargs, sorted(of_task | of_env))
    task = task_class(**{k: v for k, v in kwargs.items() if k in of_task})
    return task, {k: v for k, v in kwargs.items() if k not in of_task}


def _keywords(kind: type) -> set[str]:
    parameters = inspect.signature(kind).parameters.values()
    return {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
