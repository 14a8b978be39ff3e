"""The rewards themselves, specs, and what becomes of a faulty one."""

import numpy as np
import pytest

from textgym.envs.token_env import TokenEnv
from textgym.envs.token_vector_env import TokenVectorEnv
from textgym.episode import Episode, Instance, Turn
from textgym.errors import RewardError
from textgym.rewards import FunctionReward, Keywords, Length, Repetition, from_spec


def episode(text):
    ids = np.arange(3)
    return Episode(Instance("p"), ids, ids > 0, text, (Turn("agent", text),), "stop")


@pytest.mark.parametrize(
    ("reward", "expected"),
    [
        (Length(target=2), {"": 0.0, "a": 0.5, "a b": 1.0, "a b c": 0.5, "a b c d": 0.0}),
        (Length(min=2), {"": 0.0, "a": 0.5, "a b": 1.0, "a b c d e": 1.0}),
        (Length(max=2), {"": 1.0, "a b": 1.0, "a b c": 0.5, "a b c d e": 0.0}),
        (Length(min=1, max=2), {"": 0.0, "a": 1.0, "a b c": 0.5}),
        (
            Keywords(["happy", "red kite"]),
            {"": 0, "HAPPY!": 0.5, "happy happy": 0.5, "unhappy": 0, "a red\nkite, happy": 1},
        ),
        (Keywords(["C++", "Straße"]), {"c++": 0.5, "c+++": 0.5, "STRASSE c++.": 1.0, "c": 0}),
        (Repetition(1), {"": 0, "a": 0, "a b": 0, "a A": -0.5, "a a a a": -0.75}),
        (Repetition(2), {"a": 0, "a b a b": 2 / 3 - 1}),
    ],
)
def test_values_and_ranges(reward, expected):
    values = reward([episode(text) for text in expected])
    assert values.dtype == np.float32
    assert np.allclose(values, list(expected.values()))
    assert reward.range[0] <= values.min()
    assert values.max() <= reward.range[1]


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: Length(), ValueError),
        (lambda: Length(3, max=4), ValueError),
        (lambda: Length(min=5, max=4), ValueError),
        (lambda: Length(max=0), ValueError),
        (lambda: Keywords([]), ValueError),
        (lambda: Keywords("happy"), TypeError),
        (lambda: Keywords([" "]), TypeError),
        (lambda: Repetition(0), ValueError),
        (lambda: FunctionReward(3), TypeError),
    ],
)
def test_bad_arguments_raise(make, error):
    with pytest.raises(error):
        make()


def test_specs():
    reward, weight = from_spec("keywords:happy, love,red kite")
    assert (reward.words, weight) == (("happy", "love", "red kite"), 1.0)
    reward, weight = from_spec("length:min=3,max=40*0.5")
    assert (reward.min, reward.max, weight) == (3, 40, 0.5)
    assert from_spec("length:40")[0].max == 40
    reward, weight = from_spec("repetition*-2")
    assert (reward.n, weight) == (3, -2.0)
    assert from_spec("python:textgym.rewards.repetition:Repetition")[0].name == "repetition"


def test_a_spec_names_a_function_in_a_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "def shout(episodes):\n    return [e.completion_text.isupper() for e in episodes]\n"
    )
    reward, weight = from_spec(f"python:{file}:shout*3")
    assert (reward.name, weight) == ("shout", 3.0)
    assert reward([episode("HA"), episode("ha")]).tolist() == [1.0, 0.0]
    with pytest.raises(ValueError, match="`shout`"):
        from_spec(f"python:{file}:shuot")
    with pytest.raises(ValueError, match="no such file"):
        from_spec(f"python:{tmp_path}/other.py:shout")


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("keyword:happy", "`keywords`"),
        ("keywords:", "no keyword"),
        ("length", "Length"),
        ("length:maximum=4", "`max`"),
        ("length:max=many", "must be an int"),
        ("length:max=4*much", "weight"),
        ("python:nonsense", "expected `package.module:function`"),
        ("python:no_such_module_here:f", "no module"),
    ],
)
def test_bad_specs_are_named(spec, match):
    with pytest.raises(ValueError, match=match):
        from_spec(spec)


def faulty(kind):
    """A reward that is wrong about completions with a "q" in them, and 1 for others."""

    def judge(episodes):
        values = [1.0] * len(episodes)
        for i, e in enumerate(episodes):
            if "q" in e.completion_text:
                if kind == "raises":
                    raise KeyError("no q, please")
                values[i] = {"nan": float("nan"), "text": "much", "none": None}.get(kind, 1.0)
        if kind == "length" and any("q" in e.completion_text for e in episodes):
            values.append(0.0)
        return values

    return judge


@pytest.mark.parametrize("kind", ["raises", "nan", "text", "none", "length"])
@pytest.mark.parametrize("mode", ["NEXT_STEP", "SAME_STEP", "DISABLED"])
def test_a_faulty_reward_names_the_episode_and_loses_no_other_row(copy_task, tokenizer, kind, mode):
    envs = TokenVectorEnv(
        copy_task,
        3,
        tokenizer=tokenizer,
        rewards=[FunctionReward(faulty(kind), "picky"), Length(min=1)],
        autoreset_mode=mode,
    )
    envs.reset(options={"prompt": "Copy 7:"})
    seven = tokenizer.encode("7")[0]
    envs.step(np.array([seven, tokenizer.backend.token_to_id("q"), seven]))
    with pytest.raises(RewardError, match=r"`picky` .* 'q' of the prompt 'Copy 7:'") as caught:
        envs.step(np.full(3, tokenizer.eos_token_id))
    error = caught.value
    assert (error.reward_name, error.row, error.episode.completion_text) == ("picky", 1, "q")
    _, rewards, terminated, _, _ = error.result
    assert terminated.all()
    assert rewards.tolist() == [3.0, 1.0, 3.0]
    # The step is done: the env goes on.
    if mode == "DISABLED":
        envs.reset()
    envs.step(np.full(3, seven))


def test_a_faulty_reward_in_a_single_env(copy_task, tokenizer, play):
    env = TokenEnv(copy_task, tokenizer=tokenizer, rewards=[faulty("raises")])
    env.reset(options={"prompt": "Copy 7:"})
    with pytest.raises(RewardError, match="KeyError") as caught:
        play(env, "q")
    assert isinstance(caught.value.__cause__, KeyError)
    observation, reward, terminated, truncated, info = caught.value.result
    assert observation["input_ids"].shape == (env.context_size,)
    assert (reward, terminated, truncated, info["rewards"]["judge"]) == (0.0, True, False, 0.0)


def test_a_batch_that_fails_only_as_a_whole_says_so(copy_task, tokenizer):
    envs = TokenVectorEnv(
        copy_task, 2, tokenizer=tokenizer, rewards=[lambda es: [0.0] if len(es) > 1 else [1.0]]
    )
    envs.reset()
    with pytest.raises(RewardError, match=r"2 episodes together.*shape \(1,\) for 2 episodes"):
        envs.step(np.full(2, tokenizer.eos_token_id))


@pytest.mark.parametrize(
    ("rewards", "match"),
    [
        (["length:4", "length:5"], "two rewards are named 'length'"),
        ([FunctionReward(len, "score")], "named 'score'"),
        ([("length:4", float("inf"))], "weight"),
    ],
)
def test_bad_lists_of_rewards_are_named(copy_task, tokenizer, rewards, match):
    with pytest.raises(ValueError, match=match):
        TokenEnv(copy_task, tokenizer=tokenizer, rewards=rewards)
    with pytest.raises(TypeError, match="must be a list"):
        TokenEnv(copy_task, tokenizer=tokenizer, rewards="length:4")
