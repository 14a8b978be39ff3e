"""Learn from a fixed data set in Minari's format: cloning, filtered cloning, ILQL.

    python agents/recipes/offline_minari.py --episodes 3000

Needs `pip install "textgym[agents,minari]"`. Writes the episodes of a policy that hardly ever opens
a lock, learns from them alone and plays. About 20 s on one CPU core. A data set of your own, from
`textgym export`, is read in the same way, by `minari.load_dataset`.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import gymnasium as gym
import numpy as np

import textgym  # noqa: F401  # registers the environments
from textgym_agents import offline
from textgym_agents.offline_learning import OfflineEpisodes, OfflinePolicy, clone, ilql

try:
    import minari
except ImportError:
    print('this recipe needs Minari: pip install "textgym[agents,minari]"', file=sys.stderr)
    sys.exit(2)

# A small lock, so that some thousand episodes are enough; without these it is the benchmark's.
# The best that one text earns for all prompts is 0.29: more takes an agent that reads them.
LOCK = {"keys": 4, "pins": 2, "max_new_tokens": 3, "prompt_length": 1, "reward": "dense"}
ENV_ID = "textgym/TokenLock-v0"


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=3_000, help="of the random policy")
    parser.add_argument("--demonstrations", type=int, default=0, help="of the oracle, among them")
    parser.add_argument(
        "--best", type=float, default=0.05, help="share that filtered cloning keeps"
    )
    parser.add_argument("--steps", type=int, default=300, help="gradient steps of each learner")
    parser.add_argument("--evaluate", type=int, default=256, help="held-out episodes to play")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def write(folder: Path, options: argparse.Namespace) -> minari.MinariDataset:
    """Write a data set under `folder`, and read it back."""
    env, name = gym.make(ENV_ID, **LOCK), "textgym/tokenlock/mixed-v0"
    made = itertools.chain(
        offline.trajectories(env.unwrapped, offline.random_source(options.seed), options.episodes),
        offline.trajectories(
            env.unwrapped, offline.oracle_source(options.seed + 1), options.demonstrations
        ),
    )
    offline.write_minari(made, env, name, folder=folder, policy="random and oracle")
    return minari.MinariDataset(folder / name / "data")


def mean_return(policy: OfflinePolicy | None, episodes: int) -> float:
    """The mean return of the first episode of every row; None is the random policy."""
    envs = gym.make_vec(ENV_ID, episodes, split="test", **LOCK)
    envs.action_space.seed(1)
    observation, _ = envs.reset(seed=1)
    returns, running = np.zeros(episodes), np.ones(episodes, bool)
    while running.any():
        actions = envs.action_space.sample() if policy is None else policy.act(observation)
        observation, rewards, terminated, truncated, _ = envs.step(actions)
        returns += rewards * running
        running &= ~(terminated | truncated)
    return float(returns.mean())


def main(argv: Sequence[str] | None = None) -> int:
    """Write, learn, play. Returns 0 if filtered cloning and ILQL beat the data and chance."""
    options = arguments(argv)
    with tempfile.TemporaryDirectory() as folder:
        data = OfflineEpisodes.from_minari(write(Path(folder), options))
    settings = {"steps": options.steps, "seed": options.seed}
    cloned = clone(data, **settings)
    policies = {
        "of a random policy": None,
        "before": clone(data, steps=0, seed=options.seed),
        "cloning": cloned,
        f"cloning of the best {options.best:.0%}": clone(data.best(options.best), **settings),
        "ILQL": ilql(data, cloned, **settings),
    }
    scores = {"in the data": float(data.returns.mean())}
    for name, policy in policies.items():
        scores[name] = mean_return(policy, options.evaluate)
    in_data, random, _, _, *after = scores.values()
    better = min(after) > max(in_data, random)
    print("mean return: " + ", ".join(f"{score:.3f} {name}" for name, score in scores.items()))
    print(f"The last two {'beat' if better else 'do not both beat'} the data and a random policy.")
    return 0 if better else 1


if __name__ == "__main__":
    sys.exit(main())
