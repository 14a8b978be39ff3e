"""`DatasetTask`: prompts and targets of the user's own, scored by a metric."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from textgym.data import as_texts, read_rows, split_texts
from textgym.episode import Episode, Instance
from textgym.metrics import Metric, find_metric
from textgym.seeding import SPLITS, Split
from textgym.tasks.base import Task, TokenCounter

_DEFAULT = """\
What do cows eat?|grass
Where do fish live?|water
What do bees make?|honey
What falls from clouds?|rain
What shines at night?|the moon
What shines by day?|the sun
What is the opposite of hot?|cold
What is the opposite of big?|small
What is the opposite of up?|down
What comes after two?|three
What comes after nine?|ten
How many legs has a dog?|four
How many legs has a bird?|two
What colour is snow?|white
What colour is coal?|black
What colour is a ripe banana?|yellow
What do you call a young cat?|a kitten
What do you call a young dog?|a puppy
What do you call a young cow?|a calf
What do you read?|a book
What opens a lock?|a key
What tells the time?|a clock
What keeps the rain off?|an umbrella
What do birds build?|a nest
What do birds lay?|eggs
What do hens say?|cluck
What do cats say?|meow
What do you sleep in?|a bed
What do apples grow on?|trees
What do you wear on your feet?|shoes
What do you wear on your head?|a hat
What season follows winter?|spring
What day follows Monday?|Tuesday
What month follows May?|June
Who bakes bread?|a baker
Who grows corn?|a farmer"""
DEFAULT_ROWS = tuple(
    {"prompt": f"Question: {question}\nAnswer:", "target": answer}
    for question, answer in (line.split("|") for line in _DEFAULT.split("\n"))
)


class DatasetTask(Task):
    """Answer the prompts of a dataset; a metric says how close the answer is to the target.

    ## Description
    A prompt is a row's prompt, put into `template`; what the agent writes is compared with the
    row's target. Rows with the same prompt are one question with several right answers, of which
    the closest counts. By default, a few little questions:

    > Question: What do cows eat?
    > Answer:

    ## Rewards
    On the last step, `metric(text, target)`, in [0, 1]: `text` is what the agent wrote, without
    white space at its ends.

    ## Episode End
    When the agent writes the end-of-sequence token or has spent `max_new_tokens`.

    ## Arguments
    Args:
        dataset: a list of mappings; a `.jsonl`, `.csv`, `.tsv` or `.parquet` file; a Hugging Face
            dataset, or the hub id of one (its `train` part is read).
        test_dataset: the rows of the test split, given alike. By default one prompt in eight,
            chosen by a hash of its text; with fewer than 16 prompts both splits ask all of them.
        prompt_column: the column that holds the prompt.
        target_column: the column that holds the target.
        metric: one of `textgym.metrics.METRICS` by name (`token_f1`, `exact_match`, `chrf`, ...),
            or a function of (text, target) that gives a number in [0, 1].
        template: the text around a prompt, with `{prompt}` where it goes.

    ## Version History
    - v0: first version.

    Example:
        >>> task = DatasetTask([{"q": "1 + 1 =", "a": "2"}], prompt_column="q", target_column="a")
        >>> instance = task.draw(np.random.default_rng(0), "train")
        >>> instance.prompt, instance.target, task.solve(instance)
        ('1 + 1 =', '2', ' 2')
    """

    has_oracle = False

    def __init__(
        self,
        dataset: Any = DEFAULT_ROWS,
        *,
        test_dataset: Any = None,
        prompt_column: str = "prompt",
        target_column: str = "target",
        metric: str | Metric = "token_f1",
        template: str = "{prompt}",
    ) -> None:
        if "{prompt}" not in template:
            raise ValueError(
                f"`template` must hold {{prompt}}, where the prompt goes, got {template!r}. "
                'Use for instance `template="Question: {prompt} Answer:"`.'
            )
        if not isinstance(metric, str) and not callable(metric):
            raise TypeError(
                "`metric` must be a name or a function of (text, target), got "
                f"{type(metric).__name__}."
            )
        self.metric = find_metric(metric) if isinstance(metric, str) else metric
        self._metric_name = metric if isinstance(metric, str) else repr(metric)
        columns = (prompt_column, target_column)
        self.targets = _read(dataset, columns, template, "dataset")
        if test_dataset is None:
            self.prompts = split_texts(tuple(self.targets))
            return
        test = _read(test_dataset, columns, template, "test_dataset")
        both = self.targets.keys() & test.keys()
        if both:
            raise ValueError(
                f"{len(both)} prompts of `test_dataset` are in `dataset` too, such as "
                f"{min(both)!r}. Take them out of one."
            )
        self.prompts = {"train": tuple(self.targets), "test": tuple(test)}
        self.targets |= test

    def sample(self, rng: np.random.Generator) -> Instance:
        """Draw an instance of the train split."""
        return self.draw(rng, "train")

    def draw(self, rng: np.random.Generator, split: Split) -> Instance:
        """Draw an instance of `split`, all prompts equally likely."""
        prompts = self.prompts[split]
        return self.from_prompt(prompts[rng.integers(len(prompts))])

    def from_prompt(self, prompt: str) -> Instance:
        """The instance of `prompt`.

        Raises:
            ValueError: where no row has it.
        """
        targets = self.targets.get(prompt)
        if targets is None:
            raise ValueError(
                f"no row of the dataset has the prompt {prompt[:200]!r}. Give one of its own, the "
                'template included, or `options={"instance": Instance(prompt, target)}`.'
            )
        return Instance(prompt, targets[0], {"targets": targets})

    def score(self, episode: Episode) -> float:
        """The metric's value for the target that is closest to the completion."""
        instance = episode.instance
        targets = instance.data.get("targets", (instance.target,))
        return max(self._compare(episode.completion_text.strip(), target) for target in targets)

    def _compare(self, text: str, target: str | None) -> float:
        if target is None:
            raise ValueError(
                "this instance has no target to compare with. Give one: `Instance(prompt, target)`."
            )
        value = float(self.metric(text, target))
        if not math.isfinite(value) or not 0 <= value <= 1:
            raise ValueError(
                f"metric {self._metric_name} must give a number in [0, 1], got {value} for the "
                f"text {text[:80]!r} and the target {target[:80]!r}. Scale or clip it."
            )
        return value

    def solve(self, instance: Instance) -> str:
        """The target, set off by a space where the prompt ends without one.

        What it scores is for the metric to say, so this counts as no oracle (`has_oracle`).
        """
        if instance.target is None:
            raise NotImplementedError("DatasetTask has no answer to an instance without a target")
        apart = instance.prompt[-1:].isspace() or instance.target[:1].isspace()
        return instance.target if apart else " " + instance.target

    def prompt_bound(self, count_tokens: TokenCounter) -> int:
        """The length of the longest prompt."""
        return max(count_tokens(prompt) for split in SPLITS for prompt in self.prompts[split])


def _read(
    source: Any, columns: tuple[str, str], template: str, name: str
) -> dict[str, tuple[str, ...]]:
    """The targets of each prompt of `source`, in order."""
    remedy = "Rename it, or name it with `prompt_column=` and `target_column=`."
    rows = read_rows(source, columns, name=name, remedy=remedy)
    found: dict[str, tuple[str, ...]] = {}
    for prompt, target in zip(*(as_texts(rows, column) for column in columns), strict=True):
        # Not `format`: the texts may hold braces of their own.
        text = template.replace("{prompt}", prompt)
        known = found.get(text, ())
        if target not in known:
            found[text] = (*known, target)
    return found
