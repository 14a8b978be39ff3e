"""PPO in one file, in the style of CleanRL, straight on a vector of text environments.

    python agents/recipes/cleanrl_ppo.py --steps 8000

Needs torch (`pip install "textgym[agents]"`). A small network, trained from nothing, reads the
tokens of the context one-hot, which is enough for the few letters of TokenLock. About 5 s on one
CPU core.

CleanRL's own `ppo.py` runs on these environments too, once its network reads tokens, but prints no
returns with a Gymnasium of today: it looks for `infos["final_info"]` as a list of dicts, which was
Gymnasium 0.x. Since 1.0 a vector's infos are a dict of arrays, and `final_info` is there in
`SAME_STEP` mode only. In `NEXT_STEP` mode, the default, it would also learn from a step per episode
whose action is ignored. So the mode is asked for here, and returns are summed by hand.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical
from torch.nn import functional

import textgym  # noqa: F401  # registers the environments

# A small lock, so that some thousand tokens are enough; without these it is that of the benchmark.
# The best that one text earns for all prompts is 0.29: more takes an agent that reads them.
LOCK = {"keys": 4, "pins": 2, "max_new_tokens": 3, "prompt_length": 1, "reward": "dense"}
Act = Callable[[dict[str, np.ndarray]], np.ndarray]


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="textgym/TokenLock-v0", help="one with a small vocabulary")
    parser.add_argument("--steps", type=int, default=8_000, help="tokens to learn from")
    parser.add_argument("--num-envs", type=int, default=16)
    parser.add_argument("--rollout", type=int, default=16, help="steps of each env an update")
    parser.add_argument("--minibatches", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=5e-3)
    parser.add_argument("--gamma", type=float, default=1.0)  # 0.99 would reward stopping early
    parser.add_argument("--gae-lambda", type=float, default=0.95)
    parser.add_argument("--clip", type=float, default=0.2)
    parser.add_argument("--entropy", type=float, default=0.003, help="its coefficient")
    parser.add_argument("--value", type=float, default=0.5, help="coefficient of the value loss")
    parser.add_argument("--max-grad-norm", type=float, default=0.5)
    parser.add_argument("--episodes", type=int, default=256, help="held-out episodes to score")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


class Agent(nn.Module):
    """A policy and a value over the context, one-hot.

    Args:
        space: of a single environment's observations.
        vocab_size: V, the actions.
    """

    def __init__(self, space: gym.spaces.Dict, vocab_size: int) -> None:
        super().__init__()
        self.vocab_size, self.budget = vocab_size, int(space["remaining"].high[0])
        features = space["input_ids"].shape[0] * vocab_size + 1
        self.actor, self.critic = (
            nn.Sequential(nn.Linear(features, 256), nn.ReLU(), nn.Linear(256, outputs))
            for outputs in (vocab_size, 1)
        )

    def features(self, observation: dict[str, np.ndarray]) -> Tensor:
        """`[B, C * V + 1] float32`: padding is all 0; then the fraction left of the budget."""
        tokens = functional.one_hot(torch.as_tensor(observation["input_ids"]), self.vocab_size)
        tokens = tokens * torch.as_tensor(observation["attention_mask"])[..., None]
        left = torch.as_tensor(observation["remaining"]) / self.budget
        return torch.cat([tokens.flatten(1).float(), left.float()], 1)

    def forward(self, features: Tensor) -> tuple[Categorical, Tensor]:
        """The distribution over tokens, and the value `[B]`."""
        return Categorical(logits=self.actor(features)), self.critic(features).squeeze(1)


def mean_return(envs: gym.vector.VectorEnv, act: Act, seed: int) -> float:
    """The mean return of the first episode of every row."""
    observation, _ = envs.reset(seed=seed)
    returns, running = np.zeros(envs.num_envs), np.ones(envs.num_envs, bool)
    while running.any():
        observation, rewards, terminated, truncated, _ = envs.step(act(observation))
        returns += rewards * running
        running &= ~(terminated | truncated)
    return float(returns.mean())


def train(agent: Agent, envs: gym.vector.VectorEnv, options: argparse.Namespace) -> None:
    """PPO (Schulman et al. 2017) for `options.steps` tokens."""
    optimizer = torch.optim.Adam(agent.parameters(), lr=options.learning_rate, eps=1e-5)
    shape = (options.rollout, options.num_envs)
    actions, old_log_probs = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape)
    rewards, values, over = torch.zeros(shape), torch.zeros(shape), torch.zeros(shape)
    observation, _ = envs.reset(seed=options.seed)
    batch_size = options.rollout * options.num_envs
    for _update in range(max(1, options.steps // batch_size)):
        # Roll out. In SAME_STEP mode an ended row's next observation is its next prompt.
        features = []
        for t in range(options.rollout):
            features.append(agent.features(observation))
            with torch.no_grad():
                policy, values[t] = agent(features[t])
            actions[t] = policy.sample()
            old_log_probs[t] = policy.log_prob(actions[t])
            observation, paid, terminated, truncated, _ = envs.step(actions[t].numpy())
            rewards[t] = torch.as_tensor(paid)
            over[t] = torch.as_tensor(terminated | truncated)  # none is truncated without TimeLimit
        # Generalised advantages.
        with torch.no_grad():
            following = agent(agent.features(observation))[1]
        advantages, advantage = torch.zeros(shape), torch.zeros(options.num_envs)
        for t in reversed(range(options.rollout)):
            delta = rewards[t] + options.gamma * (1 - over[t]) * following - values[t]
            advantage = delta + options.gamma * options.gae_lambda * (1 - over[t]) * advantage
            advantages[t], following = advantage, values[t]
        # Update.
        flat = [x.flatten() for x in (actions, old_log_probs, advantages, advantages + values)]
        batch = (torch.cat(features), *flat)
        for _epoch in range(options.epochs):
            for rows in torch.randperm(batch_size).chunk(options.minibatches):
                optimizer.zero_grad()
                loss(agent, *(part[rows] for part in batch), options).backward()
                nn.utils.clip_grad_norm_(agent.parameters(), options.max_grad_norm)
                optimizer.step()


def loss(
    agent: Agent,
    features: Tensor,
    actions: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    returns: Tensor,
    options: argparse.Namespace,
) -> Tensor:
    """PPO's loss on one minibatch."""
    policy, values = agent(features)
    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    ratio = (policy.log_prob(actions) - old_log_probs).exp()
    clipped = ratio.clamp(1 - options.clip, 1 + options.clip)
    policy_loss = -torch.min(ratio * advantages, clipped * advantages).mean()
    value_loss = 0.5 * (values - returns).square().mean()
    return policy_loss + options.value * value_loss - options.entropy * policy.entropy().mean()


def main(argv: Sequence[str] | None = None) -> int:
    """Score, train, score again. Returns 0 if the agent beats the random policy."""
    options = arguments(argv)
    torch.manual_seed(options.seed)
    keywords = LOCK if "TokenLock" in options.env else {}
    envs = gym.make_vec(
        options.env, num_envs=options.num_envs, autoreset_mode="SAME_STEP", **keywords
    )
    held_out = gym.make_vec(options.env, num_envs=options.episodes, split="test", **keywords)
    held_out.action_space.seed(options.seed)
    agent = Agent(envs.single_observation_space, int(envs.single_action_space.n))

    @torch.no_grad()
    def act(observation: dict[str, np.ndarray]) -> np.ndarray:
        return agent(agent.features(observation))[0].sample().numpy()

    random = mean_return(held_out, lambda _: held_out.action_space.sample(), seed=1)
    before = mean_return(held_out, act, seed=1)
    train(agent, envs, options)
    after = mean_return(held_out, act, seed=1)
    better = after > random
    print(f"mean return: {before:.3f} before, {after:.3f} after, {random:.3f} of a random policy")
    print("It beats the random policy." if better else "It does not beat the random policy.")
    return 0 if better else 1


if __name__ == "__main__":
    sys.exit(main())
