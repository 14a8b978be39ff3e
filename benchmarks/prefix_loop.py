"""PPO on prefixes, as RL4LMs ran it, made again to be measured against.

Each transition holds its whole padded context and every minibatch reads all of its own again, with
two models that learn (policy and critic), and a third that is the reference. While writing, all
keep their keys and values, as RL4LMs did. Everything else is what TextGym's own policy is made of,
so that the ratio is that of the loops and not of two code bases. One thing counts for more than the
loop, the library that multiplies matrices (`textgym_agents/lm/linear.py`): the old loop is measured
with torch's own, which RL4LMs had, and with TextGym's.

Source: Ramamurthy et al. 2023, https://arxiv.org/abs/2210.01241 (`n_epochs` 5, `batch_size` 64).
"""

from __future__ import annotations

import copy
import statistics
import time
from typing import Any

import torch
from stable_baselines3 import PPO
from torch import Tensor

from textgym_agents.sb3 import LMPolicy, TokenRolloutBuffer, make_vec_env, ppo_defaults

ROWS, EPOCHS, BATCH, ROUNDS = 16, 5, 64, 3


class PrefixPolicy(LMPolicy):
    """`LMPolicy` with a critic that is a model of its own, and a reference that writes along."""

    def _install(self, *arguments: Any) -> None:
        super()._install(*arguments)
        self.critic = copy.deepcopy(self.lm)
        self._make_optimizer()

    def act(
        self, obs: Any, deterministic: bool = False, *, caller: str = "forward"
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As in `LMPolicy`; each of the three models reads the newest token."""
        actions, _, log_probs = super().act(obs, deterministic, caller=caller)
        ids = obs["input_ids"].long()
        lengths = obs["attention_mask"].sum(dim=1).numpy().astype("int64")
        if self._stale_others:
            self._slots = [m.slots(*ids.shape) for m in (self.critic, self.reference)]
            self._stale_others = False
        of_critic, of_reference = (slots.last_hidden(ids, lengths) for slots in self._slots)
        logits = self.reference.head.logits(of_reference)
        logits.log_softmax(dim=-1).gather(1, actions[:, None])  # what the KL reward is made of
        return actions, self._values(of_critic), log_probs

    def set_training_mode(self, mode: bool) -> None:
        """The others' slots are made anew after each update."""
        self._stale_others = True
        super().set_training_mode(mode)

    def evaluate_actions(self, obs: Any, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Every context is read from its start, by both models."""
        _, log_probs, entropies = super().evaluate_actions(obs, actions)
        ids, lengths = obs["input_ids"].long(), obs["attention_mask"].sum(dim=1).long()
        width = int(lengths.max())
        index = torch.arange(len(ids)) * width + lengths - 1
        return self._values(self.critic.states(ids[:, :width], index)), log_probs, entropies


def compare(env: str, tokens: int) -> dict[str, Any]:
    """Both loops in turn over rollouts of `tokens` tokens, with as many epochs each.

    Returns:
        tokens per second of CPU time of each, medians of rounds, and their ratios.
    """
    steps = max(1, tokens // ROWS)
    here, prefixes = _here(env, steps), _prefixes(env, steps)
    agents = {"ppo": here, "prefixes": prefixes, "prefixes_same_products": prefixes}
    speeds: dict[str, list[float]] = {name: [] for name in agents}
    for agent in (here, prefixes):
        agent.learn(1)  # warm: the first call compiles and allocates
    for _ in range(ROUNDS):
        for name, agent in agents.items():
            with torch.backends.mkldnn.flags(enabled=name != "prefixes"):
                began = time.process_time()
                agent.learn(1, reset_num_timesteps=False)
                speeds[name].append(ROWS * steps / (time.process_time() - began))
    medians = {name: statistics.median(found) for name, found in speeds.items()}
    return {
        "tokens": ROWS * steps,
        "epochs": EPOCHS,
        **{f"{name}_tokens_per_cpu_second": round(speed, 1) for name, speed in medians.items()},
        **{
            f"ppo_over_{name}": round(medians["ppo"] / medians[name], 1)
            for name in ("prefixes", "prefixes_same_products")
        },
    }


def _here(env: str, steps: int) -> PPO:
    envs = make_vec_env(env, n_envs=ROWS)
    keywords = ppo_defaults(envs) | {"n_steps": steps, "n_epochs": EPOCHS}
    keywords["batch_size"] = min(1024, ROWS * steps)
    return PPO(LMPolicy, envs, rollout_buffer_class=TokenRolloutBuffer, device="cpu", **keywords)


def _prefixes(env: str, steps: int) -> PPO:
    envs = make_vec_env(env, n_envs=ROWS)
    return PPO(
        PrefixPolicy, envs, n_steps=steps, n_epochs=EPOCHS, batch_size=BATCH, gamma=1.0,
        learning_rate=1e-6, device="cpu",
    )  # fmt: skip
