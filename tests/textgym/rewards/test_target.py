"""`Target`: the metrics themselves, several targets, none, and hostile text."""

import pickle
import sys
import time

import numpy as np
import pytest

from textgym.episode import Episode, Instance, Turn
from textgym.metrics import METRICS
from textgym.rewards import from_spec, known_rewards
from textgym.rewards.target import Target

TARGET = "The red fox ran home, and slept."
TEXTS = [
    "",
    " ",
    "\n" + TARGET + " ",
    "the red fox slept",
    "slept, and the red fox ran home.",
    "home " * 100,
    "x" * 1_000_000,
    "the red " * 125_000,
    "y \ud800 \x00 � " * 100_000,
    "赤い狐\u202e\u0301",
]


def episode(text, target=TARGET, **data):
    ids = np.arange(3)
    instance = Instance("Say it.", target, data)
    return Episode(instance, ids, ids > 0, text, (Turn("agent", text),), "stop")


def test_every_metric_is_a_reward_by_its_name_alone():
    assert METRICS.keys() <= set(known_rewards())
    reward, weight = from_spec("rouge_l:name=close*0.5")
    assert (type(reward), reward.metric, reward.name, weight) == (
        Target,
        METRICS["rouge_l"],
        "close",
        0.5,
    )


@pytest.mark.parametrize("name", METRICS)
def test_it_pays_the_metric_in_a_batch_as_alone(name):
    expected = np.array([METRICS[name](text.strip(), TARGET) for text in TEXTS], np.float32)
    for reward in (Target(name), from_spec(name)[0]):
        values = reward([episode(text) for text in TEXTS])
        assert values.dtype == np.float32
        assert np.array_equal(values, expected)
        assert [reward([episode(text)])[0] for text in TEXTS] == values.tolist()
        assert (values >= 0).all()
        assert (values <= 1).all()
        assert values.argmax() == 2
        assert values[2] == pytest.approx(1 if name != "meteor" else 1 - 1 / (2 * 9**3))
        assert values[:2].tolist() == [0, 0]
        assert reward([]).shape == (0,)


@pytest.mark.parametrize("name", METRICS)
def test_a_long_completion_does_not_stall(name):
    reward = Target(name)
    batch = [episode(text) for text in TEXTS]
    start = time.process_time()
    reward(batch)
    assert time.process_time() - start < 2


@pytest.mark.parametrize("name", METRICS)
def test_names_and_specs(name):
    assert Target.from_arguments(name).name == name
    reward = Target.from_arguments(f"{name},name=close")
    assert (reward.name, reward.metric, reward.range) == ("close", METRICS[name], (0.0, 1.0))
    reward, _ = from_spec(name)
    assert (type(reward), reward.metric, reward.name) == (Target, METRICS[name], name)
    assert from_spec(f"{name}:name=close")[0].name == "close"
    assert pickle.loads(pickle.dumps(reward))([episode("red")]) == reward([episode("red")])


def test_of_several_targets_the_closest_counts():
    reward = Target("token_f1")
    texts = ["red fox", "owl", "red owl", "wolf"]
    # F1 of each against "red fox" and "owl": the greater.
    values = reward([episode(t, "red fox", targets=("red fox", "owl")) for t in texts])
    assert np.allclose(values, [1, 1, 2 / 3, 0])
    # What a task calls its targets but is no list of texts is not ours.
    for other in ((), "owl", (3, 4), None, 7):
        assert reward([episode("owl", "red fox", targets=other)]) == 0
    assert reward([episode("owl", None, targets=["owl"])]) == 1


@pytest.mark.parametrize("name", METRICS)
def test_an_episode_without_a_target_is_an_error(name):
    match = rf"`{name}` compares with a target.*'Say it.' has none.*Instance\(prompt, target\)"
    with pytest.raises(ValueError, match=match):
        Target(name)([episode("a"), episode("a", None)])


def test_bad_arguments_are_named():
    with pytest.raises(TypeError, match="unknown metric `rougel`; did you mean `rouge_l`"):
        Target("rougel")
    with pytest.raises(ValueError, match="needs `metric`"):
        Target.from_arguments("")
    with pytest.raises(ValueError, match="one argument too many"):
        from_spec("chrf:chrf")


@pytest.mark.parametrize(
    ("name", "library"),
    [
        ("meteor", "nltk.translate.meteor_score"),
        ("edit_similarity", "rapidfuzz.distance.Levenshtein"),
    ],
)
def test_a_missing_library_is_told_when_the_reward_is_made(name, library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=r"pip install \"textgym\[rewards\]\""):
        Target(name)
