"""Code that is run and tested: shares passed, faults of all kinds, nothing that leaks."""

import numpy as np
import pytest

from textgym.envs.token_vector_env import TokenVectorEnv
from textgym.episode import Episode, Instance, Turn
from textgym.errors import RewardWarning
from textgym.rewards.unit_test import UnitTest, code_in, split_tests

TESTS = ["assert f(1) == 2", "assert f(2) == 4", "assert f('a') == 'aa'", "assert f(-1) == -2"]


@pytest.fixture(scope="module")
def reward():
    """With more time than a slow machine takes for anything that ends."""
    reward = UnitTest(timeout=20.0, memory_mb=128, processes=2)
    yield reward
    reward.close()


@pytest.fixture(scope="module")
def impatient():
    reward = UnitTest(timeout=1.0, memory_mb=128, processes=2)
    yield reward
    reward.close()


def episode(text, tests=TESTS):
    ids = np.arange(3)
    instance = Instance("Double it.", data={} if tests is None else {"tests": tests})
    return Episode(instance, ids, ids > 0, text, (Turn("agent", text),), "stop")


SHARES = {
    "def f(x): return x * 2": 1.0,
    "def f(x): return x + 1": 0.25,
    "def f(x): return abs(x) * 2": 0.5,
    "f = lambda x: 2 * x": 1.0,
    "Here it is:\n```python\ndef f(x):\n    return x + x\n```\nIs it right?": 1.0,
    "```\ndef f(x):\n    return x + x": 1.0,  # cut off
    "```python\ndef f(x): return 0\n```\n```python\ndef f(x): return 2 * x\n```": 0.0,  # the first
    "def f(x): return 2 * x\nprint('done')\nif __name__ == '__main__': input()": 1.0,
    "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: 'int'\n"
    "def f(x): return A(2 * x).x": 1.0,
    "import numpy as np\ndef f(x): return x * 2": 1.0,
    "def f(x): return f(x)": 0.0,
    "def f(x):\n    raise SystemExit": 0.0,
    "raise KeyboardInterrupt": 0.0,
    "import sys; sys.exit(0)": 0.0,
    "x = input()": 0.0,
    "def f(x): return bytearray(10**10)": 0.0,
    "def f(x: return": 0.0,
    "": 0.0,
    "I do not know.": 0.0,
    "\x00": 0.0,
    "\ud800": 0.0,
    "(" * 10**6: 0.0,
    "x = 1\n" * 200_000: 0.0,
    "-" * 90_000 + "1": 0.0,
}
HANGS = [
    "while True: pass",
    "def f(x):\n    try:\n        while 1: 1\n    except BaseException: return f(x)",
]
CRASHES = {
    "import os; os._exit(0)": "exit code 0, without a result",
    "import ctypes; ctypes.string_at(0)": "SIGSEGV",
    "import os; os.abort()": "SIGABRT",
}


def test_shares_of_tests_passed_beside_crashes(reward):
    beside = [text for pair in zip(SHARES, CRASHES, strict=False) for text in pair]
    texts = beside + list(SHARES)[len(CRASHES) :]
    expected = [SHARES.get(text, 0.0) for text in texts]
    with pytest.warns(RewardWarning) as told:
        values = reward([episode(text) for text in texts])
    wrong = {text[:60]: v for text, v, e in zip(texts, values, expected, strict=True) if v != e}
    assert not wrong
    assert values.dtype == np.float32
    messages = " ".join(str(warning.message) for warning in told)
    assert "could not judge the completion 'import os; os._exit(0)': its process ended" in messages
    assert reward.failures >= len(CRASHES)  # deep nesting may crash the compiler, too


def test_what_hangs_costs_its_own_episode(impatient):
    texts = ["def f(x): return x * 2", HANGS[0], "def f(x): return abs(x) * 2", HANGS[1], ""]
    with pytest.warns(RewardWarning) as told:
        values = impatient([episode(text) for text in texts])
    assert values.tolist() == [1.0, 0.0, 0.5, 0.0, 0.0]
    assert len(told) == impatient.failures == len(HANGS)
    messages = " ".join(str(warning.message) for warning in told)
    assert "could not judge the completion 'while True: pass': it took longer than" in messages
    with pytest.raises(RuntimeError, match="longer than 1 s"):
        with_tests(impatient).value(HANGS[0])


@pytest.mark.parametrize(("text", "reason"), CRASHES.items())
def test_a_crash_says_so(reward, text, reason):
    with pytest.raises(RuntimeError, match=reason):
        with_tests(reward).value(text)


def with_tests(reward):
    other = UnitTest(TESTS)
    other.sandbox = reward.sandbox
    return other


def test_one_at_a_time_as_in_a_batch(reward):
    episodes = [episode(text) for text in list(SHARES)[:10]]
    alone = np.concatenate([reward([e]) for e in episodes])
    assert np.array_equal(reward(episodes), alone)


def test_nothing_leaks_into_the_next_episode(reward):
    define = episode("import builtins\nbuiltins.f = lambda x: 2 * x\ndef g(): pass")
    use = episode("def g(): pass")
    assert reward([define, use, define, use]).tolist() == [1.0, 0.0, 1.0, 0.0]
    write = episode("open('here', 'w').close()", ["import os\nassert os.listdir() == ['here']"])
    assert reward([write] * 4).tolist() == [1.0] * 4


@pytest.mark.parametrize(
    ("tests", "share"),
    [
        ("assert f(1) == 2\nassert f(1) == 3", 0.5),
        ("import math\nx = f(math.pi)\nassert x > 6\nassert x < 6.2", 0.5),
        ("def check(g):\n    assert g(3) == 6\n\ncheck(f)\ncheck(abs)", 0.5),
        ("for i in range(5):\n    assert f(i) == 2 * i", 1.0),
        ("def test_one(): assert f(1) == 2\ndef test_two(): assert f(1) == 1", 0.5),
        ("def test_one(x): pass\nassert f(1) == 2", 1.0),
        ("x = no_such_name\nassert x", 0.0),
        (["assert f(1) == 2", "x = f(2)\nassert x == 5"], 0.5),
    ],
)
def test_how_tests_are_counted(reward, tests, share):
    assert reward([episode("def f(x): return 2 * x", tests)]).tolist() == [share]


@pytest.mark.parametrize("tests", ["x = 1", "", "assert (", [], [" "], 3, [3], "\x00", {"a": 1}])
def test_bad_tests(tests):
    with pytest.raises(ValueError, match="tests"):
        split_tests(tests)


def test_an_instance_without_tests_is_an_error(reward):
    with pytest.raises(ValueError, match=r"none in data\['tests'\]"):
        reward([episode("x = 1", None)])
    with pytest.raises(ValueError, match="were not given"):
        reward.value("x = 1")


def test_code_in_a_completion():
    assert code_in("x = 1") == "x = 1"
    assert code_in("```py\nx\n```\n```py\ny\n```") == "x\n"
    assert code_in("a string with ``` inside") == "a string with ``` inside"
    assert code_in("```") == ""
    assert len(code_in("x" * 10**6)) == 100_000


def test_from_a_specification():
    reward = UnitTest.from_arguments("key=asserts,timeout=2,fallback=0.5,processes=1")
    assert (reward.key, reward.sandbox.timeout, reward.fallback) == ("asserts", 2.0, 0.5)
    assert (reward.range, reward.name) == ((0.0, 1.0), "unit_test")
    with pytest.raises(ValueError, match="`fallback`"):
        UnitTest(fallback=-1.0)


def test_in_a_vector_env(copy_task, tokenizer):
    runs = UnitTest("assert True", name="runs", processes=1)
    envs = TokenVectorEnv(copy_task, 2, tokenizer=tokenizer, rewards=[runs])
    envs.reset(options={"prompt": "Copy 7:"})
    envs.step(np.array([tokenizer.encode("7")[0], tokenizer.backend.token_to_id("(")]))
    _, _, _, _, infos = envs.step(np.full(2, tokenizer.eos_token_id))
    assert infos["rewards"]["runs"].tolist() == [1.0, 0.0]
    runs.close()
