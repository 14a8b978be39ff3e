"""What the commands build: held-out texts teach a reward nothing."""

from __future__ import annotations

import numpy as np
import pytest

from textgym_agents.cli.building import build_envs
from textgym_agents.cli.options import EnvOptions, ModelOptions

# One that learns by itself, and one within another reward.
REWARDS = ("normalize(length:40)*2", "sum(length:30; normalize(length:20; name=inner))")


def written(split):
    """The rewards' states before and after 24 texts of `split`."""
    options = EnvOptions(
        "textgym/Continuation-v0", prompts=("One day",), rewards=REWARDS, max_new_tokens=3
    )
    envs = build_envs(options, ModelOptions(), n_envs=8, seed=0, split=split)
    rewards = [term.reward for term in envs.reward_terms]
    before = [reward.get_state() for reward in rewards]
    envs.reset()
    ended = 0
    while ended < 24:
        ended += int(envs.step(np.full(8, 70))[2].sum())
    return before, [reward.get_state() for reward in rewards]


@pytest.mark.parametrize(("split", "learns"), [("train", True), ("test", False)])
def test_rewards_learn_from_the_train_split_alone(split, learns):
    before, after = written(split)
    assert len(before) == len(after) == 2
    for first, last in zip(before, after, strict=True):
        assert (first != last) == learns
