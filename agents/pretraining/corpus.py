"""What the bundled model is trained on: the tasks of the suite, done well and done carelessly.

A *careful* episode is the oracle's. In a *careless* one the agent says what the oracle would say to
another prompt of the same task: well-formed, and beside the point. How often it is careless is the
task's `carelessness`, so that a model that could do better starts low enough for reinforcement
learning to have something to do. Stories are careless in parts instead, see `stories`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import stories
from torch.utils.data import IterableDataset

from textgym import Episode, Instance, Task, Tokenizer
from textgym.demonstrations import converse, demonstrate
from textgym.registration import REGISTRY
from textgym.seeding import Split, instance_rng
from textgym_agents.lm import imitation

FREE = 0.15  # share of stories that are told without a prompt's request


@dataclass(frozen=True)
class Course:
    """One task to learn.

    Args:
        id: its environment.
        weight: its share of the episodes, relative to the others'.
    """

    id: str
    weight: float = 1.0

    def task(self) -> Task:
        """The task, at its first level."""
        return REGISTRY[self.id].task_class()()


COURSES = tuple(
    Course(f"textgym/{name}-v0", weight)
    for name, weight in {
        "Arithmetic": 1.0,
        "Countdown": 1.0,
        "DataToText": 1.0,
        "Dialogue": 1.5,
        "KeywordsToSentence": 1.0,
        "QuestionAnswering": 1.0,
        "Recommendation": 1.5,
        "Sentiment": 1.0,
        "Sorting": 1.0,
        "Story": 2.0,
        "Summarization": 1.0,
        "Translation": 2.0,
        "TwentyQuestions": 1.0,
        "Wordle": 1.0,
    }.items()
)


def careless(task: Task, instance: Instance, other: Episode, tokenizer: Tokenizer) -> Episode:
    """The episode in which the agent says to `instance` what it said in `other`, turn by turn."""
    said = [turn.text for turn in other.turns if turn.role == "agent"]

    def speak(_: Instance, turns: Any) -> str:
        spoken = sum(turn.role == "agent" for turn in turns)
        return said[min(spoken, len(said) - 1)]

    return converse(task, instance, speak, tokenizer)


def episodes(
    tokenizer: Tokenizer,
    split: Split,
    seed: int,
    carelessness: Mapping[str, float],
    courses: tuple[Course, ...] = COURSES,
) -> Iterator[Episode]:
    """Episodes of all courses, mixed, without end; careful where `carelessness` has no entry."""
    tasks = [course.task() for course in courses]
    weights = np.array([course.weight for course in courses])
    mix = np.random.default_rng(np.random.SeedSequence((seed, 0 if split == "train" else 1)))
    counts = [0] * len(courses)
    while True:
        for i in mix.choice(len(courses), size=1024, p=weights / weights.sum()).tolist():
            rng = instance_rng(seed, split, i, counts[i])
            counts[i] += 1
            yield attempt(tasks[i], tokenizer, split, rng, carelessness.get(courses[i].id, 0.0))


def attempt(
    task: Task, tokenizer: Tokenizer, split: Split, rng: np.random.Generator, carelessness: float
) -> Episode:
    """One episode on an instance that `rng` draws."""
    instance = task.draw(rng, split)
    if type(task).__name__ == "StoryTask":
        return story(task, instance, tokenizer, rng, 1.0 - carelessness)
    if rng.random() >= carelessness:
        return demonstrate(task, instance, tokenizer)
    other = demonstrate(task, task.draw(rng, split), tokenizer)
    return careless(task, instance, other, tokenizer)


def story(
    task: Task,
    instance: Instance,
    tokenizer: Tokenizer,
    rng: np.random.Generator,
    compliance: float,
) -> Episode:
    """A story that does as much of what is asked; now and then one that nobody asked for."""
    text = stories.story(instance, rng, compliance)
    if rng.random() < FREE:
        text = instance.prompt.split("\n", 1)[1] + text
        instance = Instance("")
    return converse(task, instance, lambda *_: text, tokenizer)


def text_of(episode: Episode) -> str:
    """All of an episode: the prompt and what was said."""
    return episode.prompt + "".join(turn.text for turn in episode.turns)


class Corpus(IterableDataset[imitation.Batch]):
    """Batches without end, to be made in a process of their own."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        split: Split,
        seed: int,
        carelessness: Mapping[str, float],
        batch_size: int,
    ) -> None:
        self.arguments = (tokenizer, split, seed, dict(carelessness))
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[imitation.Batch]:
        return imitation.batches(episodes(*self.arguments), self.batch_size)
