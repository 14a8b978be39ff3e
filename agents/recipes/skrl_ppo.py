"""PPO of skrl on a text environment.

    python agents/recipes/skrl_ppo.py --steps 8000

Needs `pip install "textgym[recipes]"`. About 10 s on one CPU core. What skrl needs:

- `wrap_env` around the vector of `gym.make_vec`. skrl does not look at the autoreset mode; only
  `SAME_STEP` gives it no steps whose action is ignored. It resets a vector once, with the seed of
  its own `set_seed`.
- A Dict observation reaches a model as one flat vector, keys in alphabetical order, and is made a
  dict again by `unflatten_tensorized_space`. PPO's memory holds it as float32, which is exact for
  ids up to 2**24; the network casts them back.
- It reads no masks: a model that needs them finds them in the observation, by `MaskObservation`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn
from torch.nn import functional

import textgym  # noqa: F401  # registers the environments

try:
    from skrl import logger
    from skrl.agents.torch.ppo import PPO
    from skrl.envs.wrappers.torch import wrap_env
    from skrl.memories.torch import RandomMemory
    from skrl.models.torch import CategoricalMixin, DeterministicMixin, Model
    from skrl.trainers.torch import SequentialTrainer
    from skrl.utils import set_seed
    from skrl.utils.spaces.torch import unflatten_tensorized_space
except ImportError:
    print('this recipe needs skrl: pip install "textgym[recipes]"', file=sys.stderr)
    sys.exit(2)

# A small lock, so that some thousand tokens are enough; without these it is that of the benchmark.
# The best that one text earns for all prompts is 0.29: more takes an agent that reads them.
LOCK = {"keys": 4, "pins": 2, "max_new_tokens": 3, "prompt_length": 1, "reward": "dense"}


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=8_000, help="tokens to learn from")
    parser.add_argument("--num-envs", type=int, default=16)
    parser.add_argument("--rollout", type=int, default=16, help="steps of each env an update")
    parser.add_argument("--minibatches", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--episodes", type=int, default=256, help="held-out episodes to score")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


class Network(nn.Module):
    """A small network on the context, one-hot.

    Args:
        space: of a single environment's observations.
        outputs: how many.
    """

    def __init__(self, space: gym.spaces.Dict, outputs: int) -> None:
        super().__init__()
        ids = space["input_ids"]
        self.space = space
        self.vocab_size, self.budget = int(ids.high.max()) + 1, int(space["remaining"].high[0])
        features = ids.shape[0] * self.vocab_size + 1
        self.layers = nn.Sequential(nn.Linear(features, 256), nn.ReLU(), nn.Linear(256, outputs))

    def forward(self, flat: Tensor) -> Tensor:
        """`[B, outputs] float32` of skrl's flat observations."""
        observation = unflatten_tensorized_space(self.space, flat)
        tokens = functional.one_hot(observation["input_ids"].long(), self.vocab_size)
        tokens = tokens * observation["attention_mask"][..., None]
        left = observation["remaining"] / self.budget
        return self.layers(torch.cat([tokens.flatten(1).float(), left], 1))


class Policy(CategoricalMixin, Model):
    """The distribution over tokens."""

    def __init__(self, observation_space: gym.Space, action_space: gym.Space) -> None:
        Model.__init__(self, observation_space=observation_space, action_space=action_space)
        CategoricalMixin.__init__(self)
        self.network = Network(observation_space, self.num_actions)

    def compute(self, inputs: dict[str, Any], role: str) -> tuple[Tensor, dict[str, Any]]:
        """Logits `[B, V]`."""
        return self.network(inputs["observations"]), {}


class Value(DeterministicMixin, Model):
    """The value of a context."""

    def __init__(self, observation_space: gym.Space, action_space: gym.Space) -> None:
        Model.__init__(self, observation_space=observation_space, action_space=action_space)
        DeterministicMixin.__init__(self)
        self.network = Network(observation_space, 1)

    def compute(self, inputs: dict[str, Any], role: str) -> tuple[Tensor, dict[str, Any]]:
        """Values `[B, 1]`."""
        return self.network(inputs["observations"]), {}


def make_env(num_envs: int, split: str) -> Any:
    """A vector of environments as skrl has them."""
    return wrap_env(
        gym.make_vec(
            "textgym/TokenLock-v0", num_envs, split=split, autoreset_mode="SAME_STEP", **LOCK
        )
    )


@torch.no_grad()
def mean_return(act: Callable[[Tensor], Tensor], episodes: int) -> float:
    """The mean return of `episodes` held-out episodes, the first of every row."""
    env = make_env(episodes, "test")  # anew: skrl resets a vector only once
    observations, _ = env.reset()
    returns, running = torch.zeros(env.num_envs, 1), torch.ones(env.num_envs, 1, dtype=torch.bool)
    while running.any():
        observations, rewards, terminated, truncated, _ = env.step(act(observations))
        returns += rewards * running
        running &= ~(terminated | truncated)
    return float(returns.mean())


def main(argv: Sequence[str] | None = None) -> int:
    """Score, train, score again. Returns 0 if the agent beats the random policy."""
    options = arguments(argv)
    logger.setLevel("WARNING")  # it tells of every environment it wraps
    set_seed(options.seed)
    env = make_env(options.num_envs, "train")
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
    models = {"policy": Policy(**spaces), "value": Value(**spaces)}
    with tempfile.TemporaryDirectory() as folder:
        agent = PPO(
            models=models,
            memory=RandomMemory(memory_size=options.rollout, num_envs=options.num_envs),
            cfg={
                "rollouts": options.rollout,
                "learning_epochs": options.epochs,
                "mini_batches": options.minibatches,
                "learning_rate": options.learning_rate,
                "discount_factor": 1.0,  # 0.99 would reward stopping early
                "entropy_loss_scale": 0.003,
                "value_loss_scale": 0.5,
                "value_clip": 0.0,
                "experiment": {"directory": folder, "write_interval": 0, "checkpoint_interval": 0},
            },
            **spaces,
        )

        def act(observations: Tensor) -> Tensor:
            return models["policy"].act({"observations": observations}, role="policy")[0]

        uniform = torch.ones(options.episodes, env.action_space.n)
        random = mean_return(lambda _: uniform.multinomial(1), options.episodes)
        before = mean_return(act, options.episodes)
        trainer = SequentialTrainer(
            env=env,
            agents=agent,
            cfg={
                "timesteps": options.steps // options.num_envs,
                "headless": True,
                "disable_progressbar": True,
                "close_environment_at_exit": False,
            },
        )
        trainer.train()
    after = mean_return(act, options.episodes)
    better = after > random
    print(f"mean return: {before:.3f} before, {after:.3f} after, {random:.3f} of a random policy")
    print("It beats the random policy." if better else "It does not beat the random policy.")
    return 0 if better else 1


if __name__ == "__main__":
    sys.exit(main())
