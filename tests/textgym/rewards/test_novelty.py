"""`Novelty`: shares worked out by hand, short texts, and hostile ones."""

import time

import numpy as np
import pytest

from textgym.episode import Episode, Instance, Turn
from textgym.rewards.novelty import MAX_CHARACTERS, Novelty

PROMPT = "The red fox ran home. The owl slept."


def episode(text, prompt=PROMPT, target=None, **data):
    ids = np.arange(3)
    instance = Instance(prompt, target, data)
    return Episode(instance, ids, ids > 0, text, (Turn("agent", text),), "stop")


@pytest.mark.parametrize(
    ("n", "text", "expected"),
    [
        (3, "the red fox ran home", 0),
        (3, "a blue fox ran off", 1),
        # the red fox | red fox slept | fox slept well: two of three are new.
        (3, "the red fox slept well", 2 / 3),
        (2, "the red fox slept well", 1 / 2),
        (1, "the red fox slept well", 1 / 5),
        # Case and punctuation make nothing new, nor do full stops end a phrase.
        (3, "THE, red_fox -- ran!", 0),
        (2, "home the owl", 0),
        # the red | red the | the red ...: what is said again counts once.
        (2, "the red the red the red", 1 / 2),
        (1, "blue blue blue red", 1 / 2),
        # Shorter than n: one phrase of as many words.
        (3, "red fox", 0),
        (3, "fox red", 1),
        (3, "owl", 0),
        (3, "wolf", 1),
        (9, "The red fox ran home. The owl slept.", 0),
        (9, "the owl slept the red fox ran home", 1),
        # Nothing is worth nothing.
        (3, "", 0),
        (3, " \n", 0),
        (3, "?! ... _", 0),
        (3, "\ud800\x00�\u202e", 0),
        (3, "赤い狐", 1),
    ],
)
def test_shares_worked_out_by_hand(n, text, expected):
    reward = Novelty(n)
    assert reward.value(text, PROMPT) == pytest.approx(expected)
    assert reward([episode(text)])[0] == pytest.approx(expected)


def test_against_the_targets_and_all_of_them():
    reward = Novelty(2, "target")
    assert reward([episode("the red fox", target="a red fox")])[0] == pytest.approx(1 / 2)
    assert reward([episode(PROMPT, target="owls sleep")]) == 1
    both = episode("the red fox slept", target="red fox", targets=["red fox", "the red"])
    assert reward([both])[0] == pytest.approx(1 / 3)
    assert Novelty()([episode("any text will do", prompt="")]) == 1
    with pytest.raises(ValueError, match=r"`novelty` compares with a target.*has none"):
        reward([episode("a")])


def test_a_batch_is_as_one_by_one_and_in_range():
    rng = np.random.default_rng(0)
    words = [*PROMPT.split(), "blue", ",", "\ud800"]
    texts = [" ".join(rng.choice(words, rng.integers(12))) for _ in range(200)]
    for n in (1, 2, 3, 30):
        reward = Novelty(n)
        values = reward([episode(text) for text in texts])
        assert values.dtype == np.float32
        assert values.min() == 0
        assert values.max() == 1
        assert values.tolist() == [float(reward([episode(text)])[0]) for text in texts]
    assert reward([]).shape == (0,)


def test_a_long_completion_does_not_stall():
    reward = Novelty()
    copied = (PROMPT + " ") * (MAX_CHARACTERS // len(PROMPT) + 1)
    for text in (
        "a" * 1_000_000,
        "a b " * 250_000,
        "_ " * 500_000,
        copied[:MAX_CHARACTERS] + "new",
    ):
        start = time.process_time()
        reward([episode(text)] * 8)
        assert time.process_time() - start < 2
    # What follows is not read.
    read = reward([episode(copied[:MAX_CHARACTERS])])
    assert reward([episode(copied[:MAX_CHARACTERS] + " something new " * 99)]) == read


def test_specs_and_bad_arguments():
    reward = Novelty.from_arguments("2,target,name=fresh")
    assert (reward.n, reward.against, reward.name) == (2, "target", "fresh")
    reward = Novelty.from_arguments("")
    assert (reward.n, reward.against, reward.name, reward.range) == (3, "prompt", "novelty", (0, 1))
    assert Novelty.from_arguments("against=target").against == "target"
    with pytest.raises(ValueError, match="did you mean `prompt`"):
        Novelty(against="prompts")
    with pytest.raises(ValueError, match="did you mean `target`"):
        Novelty.from_arguments("against=targets")
    with pytest.raises(ValueError, match="`n` must be a positive int"):
        Novelty(0)
    with pytest.raises(TypeError, match="`n` must be a positive int"):
        Novelty(1.5)
