"""Agents of Stable-Baselines3 and sb3-contrib on a small lock."""

from __future__ import annotations

import numpy as np
import pytest

TIMESTEPS = {
    "trpo": 12_000,
    "maskable-ppo": 24_000,
    "recurrent-ppo": 6_000,
    "qr-dqn": 10_000,
    "dqn": 6_000,
    "a2c": 32_000,
    "ppo": 16_000,
}


@pytest.mark.parametrize("algo", TIMESTEPS)
def test_it_learns_to_read_prompts(scores, blind, algo):
    """A run in six or so gets stuck, on which seed depends on the machine: not two of two."""
    steps, bar = str(TIMESTEPS[algo]), blind("sb3_contrib_agents")
    for seed in ("0", "1"):
        before, after, random = scores(
            "sb3_contrib_agents", "--algo", algo, "--timesteps", steps, "--seed", seed
        )
        assert bar > 0.1 > max(before, random)
        if after > bar:
            return
    pytest.fail(f"{after:.3f} after training, and {bar:.3f} without reading prompts")


def test_it_says_what_to_install(refused):
    assert 'pip install "textgym[recipes]"' in refused("sb3_contrib_agents", "sb3_contrib")


def test_it_says_when_it_has_not_learned(load_recipe, monkeypatch, capsys):
    recipe = load_recipe("sb3_contrib_agents")
    monkeypatch.setattr(recipe, "mean_return", lambda *_: 0.5)
    assert recipe.main(["--algo", "a2c", "--timesteps", "1"]) == 1
    printed = capsys.readouterr().out
    assert "0.500 after" in printed
    assert "does not beat" in printed


def test_the_algorithms_on_offer_are_those_that_are_built(load_recipe, capsys):
    recipe = load_recipe("sb3_contrib_agents")
    with pytest.raises(SystemExit):
        recipe.arguments(["--algo", "sac"])
    printed = capsys.readouterr().err
    assert all(name in printed for name in recipe.AGENTS)


def test_a_random_policy_keeps_to_the_mask(load_recipe):
    recipe = load_recipe("sb3_contrib_agents")
    act = recipe.random_policy(4)
    masks = np.array([[True, False, True, False], [False, False, False, True]])
    observation = {"remaining": np.ones((2, 1), int)}
    drawn = np.stack([act(observation, action_masks=masks)[0] for _ in range(200)])
    assert np.mean(drawn[:, 0] == 2) == pytest.approx(0.5, abs=0.1)
    assert set(drawn[:, 0]) == {0, 2}
    assert set(drawn[:, 1]) == {3}
    free = np.stack([act(observation)[0] for _ in range(200)])
    assert set(free.ravel()) == {0, 1, 2, 3}


def test_every_row_plays_equally_many_episodes(load_recipe):
    """One row stops at once and scores 0, the other opens the lock: neither counts for more."""
    recipe = load_recipe("sb3_contrib_agents")
    envs = recipe.make_vec_env("textgym/TokenLock-v0", 2, split="test", **recipe.LOCK)
    task = envs.envs.unwrapped.task

    def act(observation, **_):
        rows = zip(observation["input_ids"], observation["attention_mask"], strict=True)
        actions = []
        for row, (ids, mask) in enumerate(rows):
            prompt, *written = ids[: mask.sum()].tolist()
            text = envs.tokenizer.decode([prompt])
            key = envs.tokenizer.encode(task.solve(task.from_prompt(text)), special_tokens=False)
            actions.append(0 if row == 0 or len(written) == len(key) else key[len(written)])
        return np.array(actions), None

    assert recipe.mean_return(act, envs, 8) == pytest.approx(0.5)
