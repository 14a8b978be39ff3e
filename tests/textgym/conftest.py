"""A small tokenizer and two small tasks, of which everything is known."""

import re

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from textgym.episode import Instance
from textgym.tasks.base import Reply, Task
from textgym.tokenization import Tokenizer

CORPUS = ["Copy 1234: 1234", "Guess a number. No. Try again. Right!", "the fox and the owl"] * 50


class CopyTask(Task):
    """Repeat the number in the prompt; the score is the fraction of its digits in place."""

    max_new_tokens = 6

    def sample(self, rng):
        return self.from_prompt(f"Copy {rng.integers(10**9)}:")

    def from_prompt(self, prompt):
        return Instance(prompt, target=re.fullmatch(r"Copy (\d+):", prompt).group(1))

    def prompt_bound(self, count_tokens):
        return 20

    def score(self, episode):
        target = episode.instance.target
        text = episode.completion_text
        return sum(a == b for a, b in zip(text, target, strict=False)) / max(len(text), len(target))

    def solve(self, instance):
        return instance.target


class GuessTask(Task):
    """Guess a digit in three turns; a wrong guess costs 0.125, "q" gives up."""

    max_new_tokens = 12
    max_turns = 3

    def sample(self, rng):
        number = int(rng.integers(10))
        return Instance(f"Guess a number. {rng.integers(10**6)}", data={"number": number})

    def prompt_bound(self, count_tokens):
        return 20

    def reply_bound(self, count_tokens):
        return 3 * max(count_tokens(" No. Try again."), count_tokens(" Right!"))

    def reply(self, instance, turns):
        text = turns[-1].text
        if str(instance.data["number"]) in text:
            return Reply(" Right!", reward=0.5, terminated=True)
        if "q" in text:
            return None
        return Reply(" No. Try again.", reward=-0.125)

    def score(self, episode):
        return float(episode.finish_reason == "task")

    def solve(self, instance):
        return str(instance.data["number"])


def _small_tokenizer():
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    return Tokenizer(backend, eos_token="<eos>", name="small")


@pytest.fixture(scope="session")
def tokenizer():
    return _small_tokenizer()


@pytest.fixture(params=[CopyTask, GuessTask], ids=["copy", "guess"])
def task(request):
    return request.param()


@pytest.fixture
def copy_task():
    return CopyTask()


@pytest.fixture
def guess_task():
    return GuessTask()


@pytest.fixture
def play(tokenizer):
    """`play(env, text)`: write `text` in a single env, then end the turn; all step results."""

    def play(env, text, *, stop=True):
        ids = tokenizer.encode(text, special_tokens=False)
        return [env.step(i) for i in [*ids, *([tokenizer.eos_token_id] if stop else [])]]

    return play


@pytest.fixture
def random_actions(tokenizer):
    """`random_actions(seed, shape)`: digits, letters and, one time in four, end-of-sequence."""
    digits = [tokenizer.encode(str(d), special_tokens=False)[0] for d in range(10)]
    some = [*digits, *range(60, 100)]

    def actions(seed, shape):
        rng = np.random.default_rng(seed)
        tokens = rng.choice(some, size=shape)
        return np.where(rng.random(shape) < 0.25, tokenizer.eos_token_id, tokens)

    return actions


def same(a, b):
    """Whether two observations, infos or states are equal: values, types and dtypes."""
    if isinstance(a, dict):
        return (
            isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
        )
    if isinstance(a, np.ndarray):
        if not isinstance(b, np.ndarray) or a.dtype != b.dtype or a.shape != b.shape:
            return False
        if a.dtype == object:
            return all(same(x, y) for x, y in zip(a.ravel(), b.ravel(), strict=True))
        return np.array_equal(a, b)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@pytest.fixture(name="same")
def same_fixture():
    return same
