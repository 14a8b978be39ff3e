"""Recipes are scripts: each is loaded from its file, and run by its `main`."""

from __future__ import annotations

import importlib.util
import itertools
import re
import sys
from pathlib import Path

import pytest
import torch

from textgym.tasks.token_lock import TokenLockTask

FOLDER = Path(__file__).parents[3] / "agents" / "recipes"


def load(name: str):
    """The recipe `name` as a module."""
    spec = importlib.util.spec_from_file_location(f"recipe_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):  # scripts seed torch
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def scores(capsys):
    """What a recipe prints when it is run with `arguments`: its figures, in their order."""

    def run(name: str, *arguments: str) -> list[float]:
        assert load(name).main(arguments) == 0
        line, verdict = capsys.readouterr().out.strip().splitlines()[-2:]
        assert line.startswith("mean return: ")
        assert " beat" in verdict
        assert " not " not in verdict
        return [float(figure) for figure in re.findall(r"\d\.\d{3}", line)]

    return run


@pytest.fixture
def blind():
    """The most to be earned on a recipe's lock without reading prompts, and two standard errors.

    A policy that does not is a lottery of texts, and the best text is at least as good.
    """

    def best(name: str) -> float:
        lock = TokenLockTask(**load(name).LOCK)
        texts = [
            (" ".join(text), length < lock.max_new_tokens)
            for length in range(lock.max_new_tokens + 1)
            for text in itertools.product(lock.letters, repeat=length)
        ]
        prompts = lock.prompts("test")
        means = [
            sum(lock.score_text(prompt, text, ended=ended) for prompt in prompts) / len(prompts)
            for text, ended in texts
        ]
        return max(means) + 2 * (0.25 / 256) ** 0.5  # of 256 episodes

    return best


@pytest.fixture
def without(monkeypatch):
    """Make a library look as if it were not installed."""

    def hide(library: str) -> None:
        names = [n for n in sys.modules if n.split(".")[0] == library]
        for name in {*names, library}:
            monkeypatch.setitem(sys.modules, name, None)

    return hide


@pytest.fixture
def refused(without, capsys):
    """The one line that a recipe says where its library is missing, before it exits with 2."""

    def run(name: str, library: str) -> str:
        without(library)
        with pytest.raises(SystemExit) as stopped:
            load(name)
        assert stopped.value.code == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        return line

    return run


@pytest.fixture
def one_hot():
    """A single observation as the recipes' networks read it, computed apart from them."""

    def features(observation, vocab_size: int, budget: int) -> list[float]:
        found = []
        for token, there in zip(
            observation["input_ids"], observation["attention_mask"], strict=True
        ):
            found += [float(there and v == token) for v in range(vocab_size)]
        return [*found, float(observation["remaining"][0]) / budget]

    return features


@pytest.fixture
def load_recipe():
    """Load a recipe by its name."""
    return load
