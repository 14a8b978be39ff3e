"""DQN of Tianshou on a text environment whose actions are masked.

    python agents/recipes/tianshou_dqn.py --steps 4000

Needs Tianshou 2 (`pip install "textgym[tianshou]"`). About 15 s on one CPU core. What Tianshou
needs:

- Its own vector of single environments, which it seeds `seed + i` and resets itself; the native
  vector of `gym.make_vec` is not for it.
- A Dict observation is taken as it is: the network gets a `Batch` with its keys.
- A mask must be a key of the observation called ``"mask"``: `MaskObservation(env, key="mask")`. DQN
  heeds it in the greedy action and in exploration. Here the mask keeps the agent from stopping
  before the lock can be open.
- Infos with the same keys at every step, since its buffer stores them and its trainer refuses gaps.
  Those of text environments come when an episode ends; `WithoutInfos` leaves them out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import textgym  # noqa: F401  # registers the environments
from textgym.wrappers import MaskObservation

try:
    from tianshou.algorithm import DQN
    from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy
    from tianshou.algorithm.optim import AdamOptimizerFactory
    from tianshou.data import Collector, CollectStats, VectorReplayBuffer
    from tianshou.env import DummyVectorEnv
    from tianshou.trainer import OffPolicyTrainerParams
except ImportError:
    print('this recipe needs Tianshou 2: pip install "textgym[tianshou]"', file=sys.stderr)
    sys.exit(2)

# A small lock, so that some thousand tokens are enough; without these it is that of the benchmark.
# The best that one text earns for all prompts is 0.29: more takes an agent that reads them.
LOCK = {"keys": 4, "pins": 2, "max_new_tokens": 3, "prompt_length": 1, "reward": "dense"}


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=4_000, help="tokens to learn from")
    parser.add_argument("--num-envs", type=int, default=8)
    parser.add_argument("--batch", type=int, default=64, help="transitions a gradient step")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--epsilon", type=float, default=0.3, help="share of random tokens")
    parser.add_argument("--episodes", type=int, default=256, help="held-out episodes to score")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


class Network(nn.Module):
    """Action values of a context, one-hot.

    Args:
        space: of the observations.
        outputs: V, how many actions.
    """

    def __init__(self, space: gym.spaces.Dict, outputs: int) -> None:
        super().__init__()
        ids = space["input_ids"]
        self.vocab_size, self.budget = int(ids.high.max()) + 1, int(space["remaining"].high[0])
        features = ids.shape[0] * self.vocab_size + 1
        self.layers = nn.Sequential(nn.Linear(features, 256), nn.ReLU(), nn.Linear(256, outputs))

    def forward(self, obs: Any, state: Any = None, info: Any = None) -> tuple[Tensor, Any]:
        """`[B, V] float32`, and the state that Tianshou asks networks to hand on."""
        tokens = functional.one_hot(torch.as_tensor(obs.input_ids), self.vocab_size)
        tokens = tokens * torch.as_tensor(obs.attention_mask)[..., None]
        left = torch.as_tensor(obs.remaining) / self.budget
        return self.layers(torch.cat([tokens.flatten(1).float(), left.float()], 1)), state


class WithoutInfos(gym.Wrapper):
    """Empty infos, at reset and at every step."""

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Begin a new episode."""
        return self.env.reset(**kwargs)[0], {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step."""
        return *self.env.step(action)[:4], {}


def make_env(split: str) -> gym.Env:
    """One environment; the agent may stop when as many letters are written as there are pins."""
    env = gym.make("textgym/TokenLock-v0", split=split, min_new_tokens=LOCK["pins"], **LOCK)
    return WithoutInfos(MaskObservation(env, key="mask"))


def mean_return(policy: Any, episodes: int, *, random: bool = False) -> float:
    """The mean return of `episodes` held-out episodes."""
    envs = DummyVectorEnv([lambda: make_env("test")] * 8)
    envs.seed(1_000_000)
    # `collect(random=True)` does not heed masks; exploration does.
    policy.set_eps_inference(1.0 if random else 0.0)
    collector = Collector[CollectStats](policy, envs, exploration_noise=True)
    collector.reset()
    return float(collector.collect(n_episode=episodes).returns.mean())


def main(argv: Sequence[str] | None = None) -> int:
    """Score, train, score again. Returns 0 if the agent beats the random policy."""
    options = arguments(argv)
    torch.manual_seed(options.seed)
    np.random.seed(options.seed)  # noqa: NPY002  # by which Tianshou explores and samples
    env = make_env("train")
    policy = DiscreteQLearningPolicy(
        model=Network(env.observation_space, int(env.action_space.n)),
        action_space=env.action_space,
        observation_space=env.observation_space,
        eps_training=options.epsilon,
    )
    algorithm = DQN(
        policy=policy,
        optim=AdamOptimizerFactory(lr=options.learning_rate),
        gamma=1.0,  # 0.99 would reward stopping early
        target_update_freq=100,
    )
    random = mean_return(policy, options.episodes, random=True)
    before = mean_return(policy, options.episodes)
    envs = DummyVectorEnv([lambda: make_env("train")] * options.num_envs)
    envs.seed(options.seed)
    buffer = VectorReplayBuffer(options.steps, options.num_envs)
    algorithm.run_training(
        OffPolicyTrainerParams(
            training_collector=Collector[CollectStats](
                algorithm, envs, buffer, exploration_noise=True
            ),
            max_epochs=1,
            epoch_num_steps=options.steps,
            collection_step_num_env_steps=options.num_envs * 2,
            update_step_num_gradient_steps_per_sample=0.25,
            batch_size=options.batch,
            verbose=False,
            show_progress=False,
        )
    )
    after = mean_return(policy, options.episodes)
    better = after > random
    print(f"mean return: {before:.3f} before, {after:.3f} after, {random:.3f} of a random policy")
    print("It beats the random policy." if better else "It does not beat the random policy.")
    return 0 if better else 1


if __name__ == "__main__":
    sys.exit(main())
