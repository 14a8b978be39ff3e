"""`Distinct`: within a completion, across completions, and what it remembers."""

import dataclasses
import pickle
import random

import numpy as np
import pytest

from textgym.episode import Episode, Instance, Turn
from textgym.rewards.distinct import Distinct


def episode(text):
    ids = np.arange(3)
    return Episode(Instance("p"), ids, ids > 0, text, (Turn("agent", text),), "stop")


@pytest.mark.parametrize(
    ("n", "text", "expected"),
    [
        (1, "", 0),
        (2, "one", 0),
        (2, "one two", 1),
        (1, "a A b", 2 / 3),
        (2, "a b a b", 2 / 3),
        (2, "a a a a", 1 / 3),
        (3, "a b c a b c", 3 / 4),
    ],
)
def test_within_a_completion(n, text, expected):
    assert Distinct(n).value(text) == pytest.approx(expected)


def test_across_completions():
    reward = Distinct(1, window=2)
    texts = ["a b c", "a b c", "a x", "a y y", "b", "z", "a"]
    # "b" and "c" were last used in the second; "a" in the fourth, two before the sixth.
    expected = [1, 0, 1 / 2, 1 / 3, 1, 1, 1]
    assert np.allclose(reward([episode(text) for text in texts]), expected)
    assert reward.value("z a q") == pytest.approx(1 / 3)
    assert reward.value("z a q") == pytest.approx(1 / 3)  # a look alone changes nothing


def by_definition(texts, n, window):
    past = []
    for text in texts:
        words = text.split()
        grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        seen = set().union(*past[max(len(past) - window, 0) :]) if window else set()
        yield len(set(grams) - seen) / len(grams) if grams else 0.0
        past.append(set(grams))


@pytest.mark.parametrize("window", [0, 1, 3, 50])
def test_it_agrees_with_its_definition_in_batches_of_any_size(window):
    rng = random.Random(window)
    texts = [" ".join(rng.choices("abcdef", k=rng.randrange(6))) for _ in range(120)]
    expected = list(by_definition(texts, 2, window))
    for size in (1, 7, 120):
        reward = Distinct(window=window)
        batches = [texts[i : i + size] for i in range(0, 120, size)]
        values = np.concatenate([reward([episode(t) for t in batch]) for batch in batches])
        assert values.dtype == np.float32
        assert np.allclose(values, expected)


def test_nothing_is_learnt_from_held_out_or_unfinished_texts():
    reward = Distinct(1, window=4)
    reward([episode("a")])
    reward.set_learning(False)
    assert reward([episode("b a"), episode("b a")]).tolist() == [0.5, 0.5]
    reward.set_learning(True)
    unfinished = dataclasses.replace(episode("b"), finish_reason=None)
    assert reward([unfinished, unfinished]).tolist() == [1.0, 1.0]
    assert reward([episode("b a")]).tolist() == [0.5]


def test_what_it_has_learnt_can_be_saved_and_restored():
    reward, other = Distinct(1, window=2), Distinct(1, window=2)
    reward([episode("a"), episode("b"), episode("c")])
    state = pickle.loads(pickle.dumps(reward.get_state()))
    after = [episode(text) for text in ("a b c", "a b c", "d")]
    expected = reward(after)
    other.set_state(state)
    assert other(after).tolist() == expected.tolist() != Distinct(1, window=2)(after).tolist()
    assert other.get_state() == reward.get_state()
    # The state was copied: what came after has not changed it.
    other.set_state(state)
    assert other(after).tolist() == expected.tolist()


def test_memory_is_bounded_by_two_windows():
    reward = Distinct(1, window=5)
    for i in range(100):
        reward([episode(f"{i}")])
        assert len(reward.own_state()["last"]) <= 10
    assert Distinct().own_state()["last"] == {}


def test_specs_and_bad_arguments():
    reward = Distinct.from_arguments("3,window=256")
    assert (reward.n, reward.window, reward.range) == (3, 256, (0.0, 1.0))
    for window in (-1, -5):
        with pytest.raises(ValueError, match="`window` must be a positive int"):
            Distinct(window=window)
    with pytest.raises(TypeError, match="`window`"):
        Distinct(window=None)
    with pytest.raises(ValueError, match="`n` must be a positive int"):
        Distinct(0)
