"""Ray RLlib's PPO trains a language model on a text environment, on one machine or many.

    python agents/recipes/rllib_ppo.py --runners 1 --timesteps 40000

Needs `pip install "textgym[agents,rllib]"`, best in an environment of its own: RLlib 2.60 wants
Gymnasium 1.2.2. A minute or two on two CPU cores. On a cluster that `ray start` has made, add
`--address auto` and the numbers of runners and learners. What RLlib needs:

- A vector environment in `NEXT_STEP` mode, one for each runner (`gym_env_vectorize_mode=
  "vector_entry_point"`); in `SAME_STEP` mode it learns from wrong observations without a word.
- An `RLModule`: here `LMModule`, which writes with a key-value cache. Runners batch over their own
  rows only, so few runners with many rows each.
- Logical CPUs for all runners and learners, or it waits for ever: `connected` looks first.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from textgym_agents.lm import load_model, parameter_count

try:
    from textgym_agents.rllib import connected, rllib_config, train
except ModuleNotFoundError as error:
    if error.name != "ray":
        raise
    print(f"{Path(__file__).name}: {error}", file=sys.stderr)
    sys.exit(2)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="textgym/Story-v0")
    parser.add_argument("--model", default="bundled", help="a folder or a hub id")
    parser.add_argument("--reward", action="append", default=[], help='such as "length:max=40"')
    parser.add_argument("--timesteps", type=int, default=40_000, help="tokens to sample")
    parser.add_argument("--runners", type=int, default=1, help="processes that write")
    parser.add_argument("--rows", type=int, default=64, help="texts each writes at once")
    parser.add_argument("--learners", type=int, default=0, help="processes that learn")
    parser.add_argument("--gpus-per-runner", type=float, default=0)
    parser.add_argument("--gpus-per-learner", type=float, default=0)
    parser.add_argument("--kl-coef", type=float, default=0.02)
    parser.add_argument("--address", help="of a running cluster, such as auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--out", type=Path, default=Path("runs/rllib_ppo"))
    return parser.parse_args(argv)


def random_return(env_id: str, env_config: Mapping[str, Any], seed: int) -> float:
    """The mean return of random tokens in 256 episodes, of the prompts that are trained on."""
    envs = gym.make_vec(env_id, num_envs=256, **env_config)
    envs.reset(seed=seed)
    envs.action_space.seed(seed)
    returns, running = np.zeros(envs.num_envs), np.ones(envs.num_envs, bool)
    while running.any():
        _, rewards, terminated, truncated, _ = envs.step(envs.action_space.sample())
        returns += rewards * running
        running &= ~(terminated | truncated)
    return float(returns.mean())


def main(argv: Sequence[str] | None = None) -> int:
    """Train, save. Returns 0 if the return has risen."""
    options = arguments(argv)
    config = rllib_config(
        options.env,
        model=options.model,
        runners=options.runners,
        learners=options.learners,
        envs_per_runner=options.rows,
        env_config={"rewards": options.reward},
        kl_coef=options.kl_coef,
        gpus_per_runner=options.gpus_per_runner,
        gpus_per_learner=options.gpus_per_learner,
        seed=options.seed,
    )
    returns = []

    def show(figures: Mapping[str, float], done: int) -> None:
        returns.append(figures["rollout/ep_rew_mean"])
        print(
            f"{done:,} tokens  return {returns[-1]:.3f}  {figures['time/fps']:,.0f} tokens/s",
            flush=True,
        )

    size = parameter_count(load_model(options.model))
    with connected(config, options.address, parameters=size):
        run = train(
            config, options.out, options.timesteps, resume=options.resume, on_iteration=show
        )
    print(f"model: {run.model}; curves: tensorboard --logdir {options.out / 'tensorboard'}")
    if not returns:
        return 0
    random = random_return(options.env, config.env_config, options.seed)
    before, after = returns[0], returns[-1]
    print(f"mean return: {before:.3f} before, {after:.3f} after, {random:.3f} of a random policy")
    return 0 if after > before else 1


if __name__ == "__main__":
    sys.exit(main())
