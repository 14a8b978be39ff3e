"""`Length` in each of its units."""

import numpy as np
import pytest

from textgym.envs.token_env import TokenEnv
from textgym.episode import Episode, Instance, Turn
from textgym.rewards.length import Length, count_tokens


def episode(text, tokens=3, reason="stop", turns=None):
    ids = np.arange(tokens + 2)
    turns = (Turn("agent", text),) if turns is None else turns
    return Episode(Instance("p"), ids, ids > 1, text, turns, reason)


@pytest.mark.parametrize(
    ("unit", "expected"),
    # Of 10: "ab cd" has 2 words, 5 characters and, its end left out, 2 tokens.
    [("words", 0.2), ("characters", 0.5), ("tokens", 0.2)],
)
def test_units(unit, expected):
    reward = Length(10, unit=unit)
    values = reward([episode(" ab cd\n"), episode("", tokens=0)])
    assert values.dtype == np.float32
    assert values.tolist() == [np.float32(expected), 0.0]


def test_the_band_and_what_lies_beyond():
    reward = Length(min=4, max=8, unit="characters")
    texts = {"": 0, "a": 0.25, "abcd": 1, "abcdefgh": 1, "a" * 10: 0.75, "a" * 16: 0, "a" * 99: 0}
    assert reward([episode(text) for text in texts]).tolist() == list(texts.values())


@pytest.mark.parametrize(
    ("turns", "reason", "expected"),
    [
        ("a", "stop", 4),
        ("a", "length", 5),
        ("a", None, 5),  # being written
        ("ata", "stop", 3),
        ("ata", "length", 4),
        ("at", "task", 4),
        ("at", "length", 4),  # ended, and no token was left after the reply
        ("at", None, 4),
        ("", None, 5),
    ],
)
def test_ends_of_turns_are_no_tokens(turns, reason, expected):
    roles = {"a": "agent", "t": "task"}
    turns = tuple(Turn(roles[letter], "x") for letter in turns)
    assert count_tokens(episode("x", 5, reason, turns)) == expected


@pytest.mark.parametrize("number", [3, 7])
def test_tokens_of_an_environment_are_those_that_were_written(guess_task, tokenizer, number):
    env = TokenEnv(guess_task, tokenizer=tokenizer)
    env.reset(seed=0)
    # Two wrong guesses with ends of their own, then tokens until the budget of 12 is spent or,
    # where the third is right, until the episode ends.
    x = tokenizer.encode("x", special_tokens=False)
    end = [tokenizer.eos_token_id]
    tokens = [*x * 2, *end, *x, *end, *x * (number - 1), *(end if number == 3 else [])]
    for token in tokens:
        _, _, terminated, _, info = env.step(token)
    assert len(x) == 1
    if number == 3:
        assert terminated
        assert count_tokens(info["episode_record"]) == 5
    else:
        assert not terminated
        _, _, terminated, _, info = env.step(x[0])
        assert (terminated, info["finish_reason"]) == (True, "length")
        assert count_tokens(info["episode_record"]) == 10


def test_specs():
    reward = Length.from_arguments("min=3,max=40,unit=tokens")
    assert (reward.min, reward.max, reward.unit) == (3, 40, "tokens")
    with pytest.raises(ValueError, match="`unit` cannot be 'token'; did you mean `tokens`"):
        Length.from_arguments("40,unit=token")
    with pytest.raises(ValueError, match="did you mean `words`"):
        Length(40, unit="word")
