"""`ReasoningGymTask`: the data sets of the reasoning-gym package, one task class each.

`textgym.tasks.reasoning_gym:chain_sum` is the class of data set `chain_sum`, made when asked for.
"""

from __future__ import annotations

import cmath
import contextlib
import importlib
import io
import json
import math
import random
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from textgym.episode import Episode, Instance
from textgym.errors import check_positive_int
from textgym.tasks.base import Task, TokenCounter
from textgym.tasks.reasoning_gym_sets import (
    DATA_SETS,
    EXAMPLES,
    FUNCTIONS,
    GUARDS,
    HASH_DEPENDENT,
    INTEGRALS,
    MADE_PER_ITEM,
    SIZES,
    USUAL,
    WITHOUT_ORACLE,
)

CUE = "\nAnswer:"
# What `composite`, a mixture of data sets of one's own, mixes here.
MIXTURE = ("chain_sum", "leg_counting", "letter_counting", "spell_backward")

_SEEDS = 2**31
_TRIES = 200
_CACHED = 1024

Entry = Mapping[str, Any]


class ReasoningGymTask(Task):
    """Answer a question of a data set of the reasoning-gym package.

    ## Description
    The prompt is an item's question and `Answer:`. Items are the package's own, in its default
    configuration, drawn by a seed; those longer than the bounds below are drawn again. Needs
    `pip install "textgym[reasoning-gym]"`.

    ## Rewards
    On the last step, the package's own score of the text without the white space around it, in
    [0, 1], and 1.0 for the item's answer. It is guarded (`reasoning_gym_sets.GUARDS`):

    - A scorer that raises, or gives no finite number, has given 0.
    - A text much longer than the item's answer gets 0: some scorers look for the answer anywhere.
      The usual one pays the answer's share of the text, which must be more than half here.
    - A scorer that evaluates the text as code sees only what an answer can consist of; one that
      has an integral simplified, which can take minutes, sees only what is right at a few points.
    - What a scorer pays for any text at all, or for chance hits, is its floor: it pays nothing
      here, and what is above it is stretched to [0, 1].
    - Where a scorer pays in full for texts that say nothing, only the item's own answer pays.

    ## Episode End
    When the agent writes the end-of-sequence token or has spent `max_new_tokens`, by default
    enough for `max_answer_bytes`.

    ## Arguments
    Args:
        max_prompt_bytes: the longest prompt, in bytes of UTF-8; None is the data set's own.
        max_answer_bytes: the longest answer, alike.

    ## Version History
    - v0: first version, made for reasoning-gym 0.1.25.
    """

    data_set: ClassVar[str] = ""

    def __init__(
        self, max_prompt_bytes: int | None = None, max_answer_bytes: int | None = None
    ) -> None:
        if not self.data_set:
            raise TypeError(
                "`ReasoningGymTask` is the base of one class for each data set: take that of one, "
                "such as `textgym.tasks.reasoning_gym.chain_sum`."
            )
        prompt, answer = SIZES[self.data_set]
        self.max_prompt_bytes = check_positive_int("max_prompt_bytes", max_prompt_bytes or prompt)
        self.max_answer_bytes = check_positive_int("max_answer_bytes", max_answer_bytes or answer)
        # No token is shorter than a byte; one more for a space before, one for the end.
        self.max_new_tokens = self.max_answer_bytes + 2
        self._package = _import(self.data_set)
        self._items = self._make()
        self._guard = GUARDS.get(self.data_set, USUAL)
        self._entries: OrderedDict[int, Entry] = OrderedDict()

    def sample(self, rng: np.random.Generator) -> Instance:
        """Draw an item that is no longer than the bounds.

        Raises:
            ValueError: where none of many is.
        """
        for _ in range(_TRIES):
            seed = int(rng.integers(_SEEDS))
            entry = self._entry(seed)
            prompt = entry["question"].rstrip() + CUE
            answer = self._answer(entry)
            example = answer if self.data_set in EXAMPLES else None
            if answer == "" or (example and self._paid(example, entry) < 1.0):
                continue  # the scorers give nothing to no text, nor to some of their examples
            if _size(prompt) <= self.max_prompt_bytes and _size(answer) <= self.max_answer_bytes:
                return Instance(prompt, target=answer, data={"seed": seed})
        raise ValueError(
            f"reasoning-gym's {self.data_set}: none of {_TRIES} items has a prompt of at most "
            f"{self.max_prompt_bytes} bytes and an answer of at most {self.max_answer_bytes}. "
            "Give greater `max_prompt_bytes` and `max_answer_bytes`."
        )

    def score(self, episode: Episode) -> float:
        """The guarded score of the completion."""
        return self.score_text(episode.instance, episode.completion_text)

    def score_text(self, instance: Instance, completion: str) -> float:
        """The guarded score that `completion` has as the answer to `instance`."""
        guard, answer, text = self._guard, instance.target, completion.strip()
        if not text or len(text) > self._longest(answer):
            return 0.0
        if answer is not None and text == answer:
            return 1.0
        if guard.exact or (guard.pattern and not re.fullmatch(guard.pattern, text, re.ASCII)):
            return 0.0
        paid = self._paid(text, self._known(instance))
        return max(0.0, (paid - guard.floor) / (1.0 - guard.floor))

    def _longest(self, answer: str | None) -> int:
        """The most characters of a text that is scored at all."""
        slack = self._guard.slack
        if answer is None:
            return self.max_answer_bytes
        return len(answer) + (max(32, len(answer) // 2) if slack is None else slack)

    def _paid(self, text: str, entry: Entry) -> float:
        """What the package's scorer gives, in [0, 1]."""
        if self.data_set in INTEGRALS and not _differ_by_a_constant(text, entry):
            return 0.0
        with _isolated(0), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                paid = float(self._items.score_answer(text, entry))
            except Exception:  # whatever it stumbles over, the text was no answer
                return 0.0
        return min(max(paid, 0.0), 1.0) if math.isfinite(paid) else 0.0

    def solve(self, instance: Instance) -> str:
        """The item's own answer."""
        if instance.target is None:
            return super().solve(instance)
        return " " + instance.target

    def prompt_bound(self, count_tokens: TokenCounter) -> int:
        """Every byte a token, special tokens, and a space that some tokenizers put in front."""
        return self.max_prompt_bytes + count_tokens("") + 1

    def _known(self, instance: Instance) -> Entry:
        """The item that `instance` asks for, with all its facts."""
        entry = self._entry(instance.data["seed"])
        if entry["question"].rstrip() + CUE != instance.prompt:
            raise ValueError(
                f"reasoning-gym's {self.data_set}: item {instance.data['seed']} is another here "
                "than where it was drawn. "
                + (
                    "Its items depend on the order of sets: run both with PYTHONHASHSEED=0."
                    if self.data_set in HASH_DEPENDENT
                    else "Use the same version of reasoning-gym in both."
                )
            )
        return entry

    def _entry(self, seed: int) -> Entry:
        """Item `seed` of the data set; the latest are kept, as some take long to make."""
        if seed not in self._entries:
            with _isolated(seed), contextlib.redirect_stdout(io.StringIO()):
                anew = self.data_set in MADE_PER_ITEM
                entry = self._make(seed)[0] if anew else self._items[seed]
            self._entries[seed] = entry
            if len(self._entries) > _CACHED:
                self._entries.popitem(last=False)
        return self._entries[seed]

    def _answer(self, entry: Entry) -> str | None:
        answer = entry["answer"]
        if answer is None and self.data_set in EXAMPLES:
            answer = entry["metadata"][EXAMPLES[self.data_set]]
            if isinstance(answer, dict):
                answer = json.dumps({str(key): value for key, value in answer.items()})
        return None if answer is None else str(answer).strip()

    def _make(self, seed: int = 0) -> Any:
        """The package's data set."""
        known: dict[str, Any] = {"size": 1} if self.data_set in MADE_PER_ITEM else {}
        if self.data_set == "composite":
            spec = importlib.import_module("reasoning_gym.composite").DatasetSpec
            known["datasets"] = [spec(name, 1.0, {}) for name in MIXTURE]
        return self._package.create_dataset(self.data_set, seed=seed, **known)

    def __getstate__(self) -> dict[str, Any]:
        return {
            "max_prompt_bytes": self.max_prompt_bytes,
            "max_answer_bytes": self.max_answer_bytes,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # modules and generators are not pickled


@contextlib.contextmanager
def _isolated(seed: int) -> Iterator[None]:
    """Some items and scorers use the global generators: seed them, and put them back."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


# Neither zeros nor poles of what is integrated lie there; roots and logarithms may be complex.
_POINTS = (0.37, 1.91, -5.23, 7.64)
_NAMES = {name: getattr(cmath, name) for name in FUNCTIONS}


def _differ_by_a_constant(text: str, entry: Entry) -> bool:
    """Whether `text` minus the item's answer is the same at all points.

    `text` consists of numbers, letters, functions and operators: its pattern has seen to that.
    """
    try:
        values = []
        for point in _POINTS:
            names = {**_NAMES, entry["metadata"]["variable"]: point, "C": 0.0, "__builtins__": {}}
            values.append(complex(eval(text, names)) - complex(eval(entry["answer"], names)))
        return all(abs(v - values[0]) <= 1e-6 * max(1.0, abs(v)) for v in values)
    except Exception:  # no expression, of other variables, or out of range
        return False


def _size(text: str | None) -> int:
    return len((text or "").encode("utf-8", "surrogatepass"))


def _import(data_set: str) -> Any:
    try:
        package = importlib.import_module("reasoning_gym")
        factory = importlib.import_module("reasoning_gym.factory")
    except ImportError as error:
        raise ImportError(
            f"textgym/ReasoningGym.{data_set}-v0 needs the reasoning-gym package: "
            '`pip install "textgym[reasoning-gym]"`.'
        ) from error
    if data_set not in factory.DATASETS:
        raise ImportError(
            f"this version of reasoning-gym has no data set {data_set!r}: "
            '`pip install -U "textgym[reasoning-gym]"`.'
        )
    return package


def __getattr__(name: str) -> type[ReasoningGymTask]:
    """The task class of data set `name`, made the first time; pickle finds it here too."""
    if name not in DATA_SETS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    made = type(
        name,
        (ReasoningGymTask,),
        {
            "__doc__": ReasoningGymTask.__doc__,
            "__module__": __name__,
            "__qualname__": name,
            "data_set": name,
            "has_oracle": name not in WITHOUT_ORACLE,
        },
    )
    globals()[name] = made
    return made
