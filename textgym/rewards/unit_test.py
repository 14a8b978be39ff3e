"""`UnitTest`: does the Python code of a completion pass its tests?"""

from __future__ import annotations

import ast
import functools
import sys
import types
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.rewards.sandbox import Sandbox, SandboxReward

# Longer code is not read on.
MOST_CHARACTERS = 100_000

_FENCE = "```"
# Statements that only prepare those that test something.
_PREPARATIONS = (
    ast.Import,
    ast.ImportFrom,
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.Assign,
    ast.AnnAssign,
    ast.AugAssign,
)


class UnitTest(SandboxReward):
    """The share of tests that the code in the completion passes.

    The code is what stands in the first fence (three backticks, to the next or to the end), or the
    whole completion where there is none; its first 100,000 characters. Each episode has a process
    of its own, in which the code is run as a module that is not ``"__main__"``, and then the tests
    in its namespace. Code that raises passes none of them; a test is passed if it raises nothing.
    Code or tests that hang, crash or print too much lose the episode all of its reward: it is paid
    `fallback`, with a `RewardWarning`. (Too much memory or too large a file only raise.) See
    `Sandbox` for what code may do: it is **no protection against hostile code**.

    Code that passes the tests maximises it, which need not be what they are meant to test: tests
    run in the same process as the code, and an object that is equal to everything passes many.
    Emptiness and gibberish earn 0.

    Args:
        tests: those of all episodes; by default each instance brings its own, as ``data[key]``. A
            list of str holds one test each. Of one str, each statement that is no import,
            definition or assignment is a test, and each function ``test_...`` without arguments,
            called at the end.
        key: where an instance's data holds its tests.
        timeout: seconds for the code and all its tests.
        memory_mb: MiB that they may take.
        file_mb: MiB that a file they write may have, and all that they print.
        processes: how many episodes are judged at the same time.
        fallback: what an episode is paid that could not be judged; in [0, 1].
        name: its name in `info["rewards"]`.

    Raises:
        ValueError: an argument out of bounds, or tests that are no Python or test nothing; later,
            an instance without tests.

    Example:
        >>> doubles = UnitTest(["assert double(2) == 4", "assert double('a') == 'aa'"])
        >>> doubles.value("def double(x): return x + 2")
        0.5
        >>> doubles.close()
    """

    range = (0.0, 1.0)

    def __init__(
        self,
        tests: str | Sequence[str] | None = None,
        *,
        key: str = "tests",
        timeout: float = 5.0,
        memory_mb: int = 512,
        file_mb: int = 1,
        processes: int = 4,
        fallback: float = 0.0,
        name: str = "unit_test",
    ) -> None:
        if not 0.0 <= fallback <= 1.0:
            raise ValueError(f"`fallback` must be a number from 0 to 1, got {fallback!r}.")
        self.tests = None if tests is None else split_tests(tests)
        self.key = key
        self.fallback = float(fallback)
        self.name = name
        self.sandbox = Sandbox(
            "textgym.rewards.unit_test:share_passed",
            timeout=timeout,
            memory_mb=memory_mb,
            file_mb=file_mb,
            processes=processes,
        )

    def value(self, text: str) -> float:
        """The reward of the completion `text` by the tests of all episodes.

        Raises:
            RuntimeError: where the code could not be judged (an episode is then paid the
                fallback).
            ValueError: where there are no tests of all episodes.
        """
        if self.tests is None:
            raise ValueError("`tests` were not given, and a text has none. Call it with episodes.")
        (outcome,) = self.sandbox.map([(code_in(text), self.tests)])
        if not isinstance(outcome, float):
            raise RuntimeError(f"the code could not be judged: {outcome.reason}.")
        return outcome

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        """`[B] float32`, in [0, 1]."""
        items = [(code_in(e.completion_text), self._tests_of(e)) for e in episodes]
        return self.judged(episodes, items)

    def _tests_of(self, episode: Episode) -> Steps:
        if self.tests is not None:
            return self.tests
        tests = episode.instance.data.get(self.key)
        if not tests:
            raise ValueError(
                f"reward `{self.name}` needs tests, and the instance of the prompt "
                f"{episode.prompt[:80]!r} has none in data[{self.key!r}]. Give `tests`, or `key`."
            )
        return split_tests(tests)


# (whether it is a test, source)
Steps = tuple[tuple[bool, str], ...]


def split_tests(tests: str | Sequence[str]) -> Steps:
    """What is to be run: tests (True) and what prepares them (False), in order.

    Raises:
        ValueError: where they are no Python, or test nothing.

    Example:
        >>> split_tests("x = f(1)\\nassert x == 2")
        ((False, 'x = f(1)'), (True, 'assert x == 2'))
    """
    if isinstance(tests, str):
        steps = _split(tests)
    elif isinstance(tests, Sequence) and all(isinstance(test, str) for test in tests):
        steps = _check(tuple(tests))
    else:
        raise ValueError(f"`tests` must be a str or a list of str, got {tests!r}.")
    if not any(is_test for is_test, _ in steps):
        raise ValueError(f"`tests` test nothing: {str(tests)[:200]!r}. Write `assert f(2) == 4`.")
    return steps


@functools.lru_cache(1024)
def _split(tests: str) -> Steps:
    steps: list[tuple[bool, str]] = []
    functions: list[str] = []
    for statement in _parsed(tests).body:
        source = ast.unparse(statement)
        steps.append((not isinstance(statement, _PREPARATIONS), source))
        if (
            isinstance(statement, ast.FunctionDef)
            and statement.name.startswith("test")
            and not ast.unparse(statement.args)
        ):
            functions.append(statement.name)
    return (*steps, *((True, f"{name}()") for name in functions))


@functools.lru_cache(1024)
def _check(tests: tuple[str, ...]) -> Steps:
    for test in tests:
        _parsed(test)
    return tuple((True, test) for test in tests if test.strip())


def _parsed(tests: str) -> ast.Module:
    try:
        return ast.parse(tests)
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"`tests` are no Python: {error}: {tests[:200]!r}.") from error


def code_in(text: str) -> str:
    """What stands in the first fence of `text`, or all of it.

    Example:
        >>> code_in("Sure:\\n```python\\nx = 1\\n```\\nThat is it.")
        'x = 1\\n'
    """
    text = text[:MOST_CHARACTERS]
    before, fence, after = text.partition(_FENCE)
    if not fence or before.rpartition("\n")[2].strip():
        return text  # none, or not at the beginning of a line
    return after.partition("\n")[2].partition(_FENCE)[0]


# ---------------------------------------------------------------------- in the sandbox
def share_passed(item: tuple[str, Steps]) -> float:
    """The share of tests passed by a source text. Meant for a sandbox."""
    source, steps = item
    # A real module: dataclasses and pickle look theirs up. Not the main one, whose code would
    # read its input and print.
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    space: dict[str, Any] = vars(module)
    if not _runs(source, "solution.py", space):
        return 0.0
    passed = [_runs(step, "tests.py", space) for _, step in steps]
    return float(np.mean([ran for ran, (is_test, _) in zip(passed, steps, strict=True) if is_test]))


def _runs(source: str, file: str, space: dict[str, Any]) -> bool:
    """Whether `source` raises nothing; SystemExit and all others are faults of the code."""
    try:
        exec(compile(source, file, "exec"), space)
    except BaseException:
        return False
    return True
