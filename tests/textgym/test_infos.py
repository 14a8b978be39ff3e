"""Infos of the vector env equal those of Gymnasium's `sync` mode, in all three autoreset modes."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from textgym.envs.token_env import TokenEnv
from textgym.envs.token_vector_env import TokenVectorEnv
from textgym.rewards import FunctionReward, Length, Reward
from textgym.wrappers import ended


class Digits(Reward):
    """Pays 1 for each digit as it is written, and takes half back if the episode runs out."""

    name = "digits"
    per_token = True

    def __call__(self, episodes):
        return np.array([a.sum() for a in self.per_token_rewards(episodes)], np.float32)

    def per_token_rewards(self, episodes):
        result = []
        for episode in episodes:
            paid = np.zeros(len(episode.completion_ids), np.float32)
            if len(paid):
                paid[0] = sum(c.isdigit() for c in episode.completion_text)
                paid[-1] -= 0.5 * (episode.finish_reason == "length")
            result.append(paid)
        return result


VARIANTS = {
    "plain": {},
    "rewards": {
        "rewards": [Length(target=2), (FunctionReward(lambda es: [1.5] * len(es), "c"), 2)]
    },
    "per token": {"rewards": [Digits()], "score_weight": 0.0},
    "masks": {"banned_tokens": [5]},
    "time limit": {"max_episode_steps": 4, "rewards": [Digits()], "min_new_tokens": 0},
}


@pytest.mark.parametrize("kwargs", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("mode", list(AutoresetMode), ids=lambda mode: mode.name)
def test_vector_steps_equal_sync_mode(task, tokenizer, random_actions, same, mode, kwargs):
    seeds = list(range(6))
    limit = kwargs.get("max_episode_steps")
    rest = {k: v for k, v in kwargs.items() if k != "max_episode_steps"}

    def make():
        env = TokenEnv(task, tokenizer=tokenizer, **rest)
        return gym.wrappers.TimeLimit(env, limit) if limit else env

    sync = SyncVectorEnv([make] * 6, autoreset_mode=mode)
    ours = TokenVectorEnv(task, 6, tokenizer=tokenizer, autoreset_mode=mode, **kwargs)
    assert same(ours.reset(seed=seeds), sync.reset(seed=seeds))
    kinds = set()
    for actions in random_actions(0, (80, 6)):
        expected, got = sync.step(actions), ours.step(actions)
        assert same(got[0], expected[0])
        assert np.allclose(got[1], expected[1], atol=1e-12)
        assert same(got[2:], expected[2:])
        kinds |= {(bool(t), bool(c)) for t, c in zip(got[2], got[3], strict=True)}
        over = got[2] | got[3]
        if mode is AutoresetMode.DISABLED and over.any():
            reset = ours.reset(options={"reset_mask": over})
            assert same(reset, sync.reset(options={"reset_mask": over}))
    assert (True, False) in kinds
    assert ((False, True) in kinds) == (limit is not None)


def test_ordinary_steps_have_empty_infos(copy_task, tokenizer):
    envs = TokenVectorEnv(copy_task, 3, tokenizer=tokenizer)
    envs.reset()
    assert envs.step(np.array([70, 71, 72]))[4] == {}


@pytest.mark.parametrize("mode", list(AutoresetMode), ids=lambda mode: mode.name)
def test_ended_finds_the_records(copy_task, tokenizer, mode):
    envs = TokenVectorEnv(
        copy_task, 3, tokenizer=tokenizer, autoreset_mode=mode, max_episode_steps=1
    )
    envs.reset(options={"prompt": "Copy 1:"})
    infos = envs.step(np.array([70, tokenizer.eos_token_id, 71]))[4]
    where, rows = ended(infos, mode)
    assert rows == [1]  # the others were only truncated
    assert where["episode_record"][1].finish_reason == "stop"
    assert where["score"].dtype == np.float64
