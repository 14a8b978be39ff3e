"""A user's function in processes of its own: what it costs to fail, and what it does not."""

import pickle
import warnings

import numpy as np
import pytest

from textgym.envs.token_vector_env import TokenVectorEnv
from textgym.episode import Episode, Instance, Turn
from textgym.errors import RewardWarning
from textgym.rewards.code import Code

FILE = """
import os

def judge(episode):
    text = episode.completion_text
    if "q" in text:
        os._exit(1)
    if "loop" in text:
        while True:
            pass
    if text == "nothing":
        return None
    if text == "much":
        return 2
    if text == "huge":
        return 1e39
    print("judging", text.encode("utf-8", "replace"))
    return sum(c == "7" for c in text) / max(1, len(text))

def facts(episode):
    return (
        len(episode.completion_ids) + len(episode.instance.data["a"]) - (episode.prompt == "ask")
        + (episode.instance.target == "t") + (episode.turns[0].role == "agent")
    )
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("code") / "mine.py"
    path.write_text(FILE)
    return path


@pytest.fixture(scope="module")
def code(file):
    reward = Code(f"{file}:judge", timeout=1.0, processes=2, fallback=0.25)
    yield reward
    reward.close()


def episode(text, **facts):
    ids = np.arange(4)
    return Episode(Instance("ask", **facts), ids, ids > 1, text, (Turn("agent", text),), "stop")


def test_good_episodes_keep_their_rewards(code):
    texts = ["77", "q", "7a", "loop", "a", "nothing", "777a", "much", "7"]
    with pytest.warns(RewardWarning) as told:
        values = code([episode(text) for text in texts])
    assert values.dtype == np.float32
    assert values.tolist() == [1.0, 0.25, 0.5, 0.25, 0.0, 0.25, 0.75, 0.25, 1.0]
    messages = [str(warning.message) for warning in told]
    assert len(messages) == 3  # the fourth is only counted
    assert "`code` could not judge the completion 'q': its process ended with" in messages[0]
    assert "'loop': it took longer than 1 s" in messages[1]
    assert "'nothing': TypeError: it returned None, expected a number" in messages[2]
    assert code.figures() == {"failures": 4.0}
    assert code.range == (0.0, 1.0)


def test_one_at_a_time_as_in_a_batch(code):
    texts = ["", "7", "7" * 10**6, "\ud800\0\x1b[0m\ufffd 7", "7\n" * 50, "我爱你。"]
    episodes = [episode(text) for text in texts]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = code(episodes)
        assert np.array_equal(values, np.concatenate([code([e]) for e in episodes]))
    assert values.tolist()[:3] == [0.0, 1.0, 1.0]
    assert code([]).shape == (0,)


def test_a_value_outside_the_range_is_a_failure(file):
    with pytest.warns(RewardWarning, match="returned 2, which is not in its range 0 to 1"):
        assert Code(f"{file}:judge", processes=1)([episode("much")]) == 0.0
    anything = Code.from_arguments(f"{file}:judge,range=-inf|inf,processes=1")
    assert anything([episode("much")]) == 2.0
    with pytest.warns(RewardWarning, match="not in its range -inf to inf"):
        assert anything([episode("huge")]) == 0.0  # float32 has no such number
    assert Code(f"{file}:judge", range=(0.1, 0.3), fallback=0.2).range == (
        float(np.float32(0.1)),
        float(np.float32(0.3)),
    )


def test_the_whole_episode_is_seen(file):
    reward = Code(f"{file}:facts", range=(0, 10), processes=1)
    assert reward([episode("x", target="t", data={"a": [1, 2, 3]})]) == 2 + 3 - 1 + 1 + 1


def test_from_a_specification(file):
    spec = f"{file}:judge,timeout=2.5,memory_mb=64,fallback=-1,range=-1|1,name=mine,processes=1"
    reward = Code.from_arguments(spec)
    assert (reward.sandbox.timeout, reward.sandbox.memory_mb) == (2.5, 64)
    assert (reward.fallback, reward.range, reward.name) == (-1.0, (-1.0, 1.0), "mine")
    assert reward([episode("7")]) == 1.0


def test_a_function_of_a_module():
    from textgym.rewards.code import example

    reward = Code(example, range=(0, 9), processes=1)
    assert reward([episode("three more words")]) == 3.0


def test_it_can_be_pickled(code):
    code([episode("7")])
    other = pickle.loads(pickle.dumps(code))
    assert (other.fallback, other.range, other.sandbox.timeout) == (0.25, (0.0, 1.0), 1.0)
    assert other([episode("7a")]) == 0.5
    other.close()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"range": (1, 0)}, "`range`"),
        ({"range": (1, 2)}, "`fallback` must be a number in"),
        ({"fallback": float("nan")}, "`fallback`"),
        ({"range": (0, 1, 2)}, "`range`"),
        ({"timeout": -1}, "`timeout`"),
        ({"where": "math:no_such_function"}, "no_such_function"),
        ({"where": "no_such_module_here:f"}, "no module"),
        ({"where": "no/such/file.py:f"}, "no such file"),
    ],
)
def test_bad_arguments(arguments, match):
    with pytest.raises(ValueError, match=match):
        Code(**({"where": "math:sqrt"} | arguments))


def test_in_a_vector_env(file, copy_task, tokenizer):
    reward = Code(f"{file}:judge", timeout=2.0, processes=2)
    envs = TokenVectorEnv(copy_task, 3, tokenizer=tokenizer, rewards=[(reward, 4.0)])
    envs.reset(options={"prompt": "Copy 7:"})
    seven = tokenizer.encode("7")[0]
    envs.step(np.array([seven, tokenizer.backend.token_to_id("q"), seven]))
    with pytest.warns(RewardWarning, match="`code` could not judge the completion 'q'"):
        _, rewards, terminated, _, infos = envs.step(np.full(3, tokenizer.eos_token_id))
    assert terminated.all()
    assert rewards.tolist() == [1 + 4.0, 0.0, 1 + 4.0]
    assert infos["rewards"]["code"].tolist() == [4.0, 0.0, 4.0]
    processes = [worker.process for worker in reward.sandbox._workers]
    assert len(processes) == 2
    reward.close()
    assert all(process.returncode is not None for process in processes)
