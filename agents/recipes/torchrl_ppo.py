"""PPO of TorchRL (its collector, its loss, its advantages) on a text environment.

    python agents/recipes/torchrl_ppo.py --steps 8000

Needs `pip install "textgym[recipes]"`. About 10 s on one CPU core. What TorchRL needs:

- `GymWrapper` around the vector of `gym.make_vec` in `DISABLED` mode, which is how TorchRL itself
  resets: the rows that ended, by a mask. It refuses `NEXT_STEP`.
- Each key of the observation becomes a key of the tensordict, with its dtype; the network reads
  them by name. `categorical_action_encoding=True` keeps actions ids; otherwise they are one-hot.
- Where masks apply (`min_new_tokens`, `banned_tokens`), TorchRL looks for them in the observation,
  as bool: put `MaskObservation` around the vector (in `DISABLED` mode); append the transforms
  `DTypeCastTransform(torch.int8, torch.bool, in_keys=["action_mask"])` and `ActionMask()`; and give
  `ProbabilisticActor` the distribution `MaskedCategorical`, with
  `in_keys={"logits": "logits", "mask": "action_mask"}`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import gymnasium as gym
import torch
from torch import Tensor, nn
from torch.distributions import Categorical
from torch.nn import functional

import textgym  # noqa: F401  # registers the environments

try:
    from tensordict.nn import TensorDictModule
    from torchrl.collectors import Collector
    from torchrl.envs import GymWrapper
    from torchrl.envs.utils import ExplorationType, set_exploration_type
    from torchrl.modules import ProbabilisticActor, ValueOperator
    from torchrl.objectives import ClipPPOLoss
    from torchrl.objectives.value import GAE
except ImportError:
    print('this recipe needs TorchRL: pip install "textgym[recipes]"', file=sys.stderr)
    sys.exit(2)

# A small lock, so that some thousand tokens are enough; without these it is that of the benchmark.
# The best that one text earns for all prompts is 0.29: more takes an agent that reads them.
LOCK = {"keys": 4, "pins": 2, "max_new_tokens": 3, "prompt_length": 1, "reward": "dense"}
KEYS = ["input_ids", "attention_mask", "remaining"]


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=8_000, help="tokens to learn from")
    parser.add_argument("--num-envs", type=int, default=16)
    parser.add_argument("--batch", type=int, default=256, help="tokens an update")
    parser.add_argument("--minibatches", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=1e-2)
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
        self.vocab_size, self.budget = int(ids.high.max()) + 1, int(space["remaining"].high[0])
        features = ids.shape[0] * self.vocab_size + 1
        self.layers = nn.Sequential(nn.Linear(features, 256), nn.ReLU(), nn.Linear(256, outputs))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, remaining: Tensor) -> Tensor:
        """`[..., outputs] float32` of `[..., C]`, `[..., C]` and `[..., 1]` integers."""
        tokens = functional.one_hot(input_ids, self.vocab_size) * attention_mask[..., None]
        return self.layers(torch.cat([tokens.flatten(-2).float(), remaining / self.budget], -1))


def make_env(num_envs: int, split: str, seed: int) -> GymWrapper:
    """A batch of environments as TorchRL has them."""
    envs = gym.make_vec(
        "textgym/TokenLock-v0", num_envs, split=split, autoreset_mode="DISABLED", **LOCK
    )
    made = GymWrapper(envs, categorical_action_encoding=True)
    made.set_seed(seed)
    return made


@torch.no_grad()
def mean_return(env: GymWrapper, policy: nn.Module | None, budget: int) -> float:
    """The mean return of one episode of every row; None is the random policy."""
    env.set_seed(1)
    with set_exploration_type(ExplorationType.RANDOM):  # a policy's mode is taken otherwise
        steps = env.rollout(budget, policy, break_when_any_done=False)
    reward, done = steps["next", "reward"][..., 0], steps["next", "done"][..., 0]
    before_the_end = done.cumsum(1) - done.long() == 0
    return float((reward * before_the_end).sum(1).mean())


def main(argv: Sequence[str] | None = None) -> int:
    """Score, train, score again. Returns 0 if the agent beats the random policy."""
    options = arguments(argv)
    torch.manual_seed(options.seed)
    env = make_env(options.num_envs, "train", options.seed)
    held_out = make_env(options.episodes, "test", 1)
    space, vocab_size = env.single_observation_space, int(env.single_action_space.n)
    budget = int(space["remaining"].high[0])
    actor = ProbabilisticActor(
        TensorDictModule(Network(space, vocab_size), in_keys=KEYS, out_keys=["logits"]),
        in_keys=["logits"],
        distribution_class=Categorical,
        spec=env.action_spec,
        return_log_prob=True,
    )
    critic = ValueOperator(Network(space, 1), in_keys=KEYS)
    loss_module = ClipPPOLoss(actor, critic, entropy_coeff=0.003, critic_coeff=0.5)
    # A gamma of 0.99 would reward stopping early.
    advantages = GAE(gamma=1.0, lmbda=0.95, value_network=critic)
    optimizer = torch.optim.Adam(loss_module.parameters(), lr=options.learning_rate)

    random = mean_return(held_out, None, budget)
    before = mean_return(held_out, actor, budget)
    collector = Collector(
        env,
        actor,
        frames_per_batch=options.batch,
        total_frames=max(1, options.steps // options.batch) * options.batch,
        auto_register_policy_transforms=False,  # those are for recurrent policies
    )
    for batch in collector:
        for _epoch in range(options.epochs):
            advantages(batch)
            flat = batch.reshape(-1)
            for rows in torch.randperm(len(flat)).chunk(options.minibatches):
                losses = loss_module(flat[rows])
                optimizer.zero_grad()
                parts = ("loss_objective", "loss_critic", "loss_entropy")
                sum(losses[part] for part in parts).backward()
                nn.utils.clip_grad_norm_(loss_module.parameters(), 0.5)
                optimizer.step()
    collector.shutdown()
    after = mean_return(held_out, actor, budget)
    better = after > random
    print(f"mean return: {before:.3f} before, {after:.3f} after, {random:.3f} of a random policy")
    print("It beats the random policy." if better else "It does not beat the random policy.")
    return 0 if better else 1


if __name__ == "__main__":
    sys.exit(main())
