"""`HindsightRewards`: what an episode was paid at its end, moved to the steps it belongs to."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnvWrapper, unwrap_vec_normalize

from textgym.rewards.redistribute import paid_late
from textgym.wrappers import reward_terms_of
from textgym_agents.sb3.vec_env import TextVecEnv


def pays_late(envs: TextVecEnv) -> bool:
    """Whether a reward of `envs` pays with the last token what belongs to others."""
    return any(paid_late(term.reward, []) is not None for term in envs.reward_terms)


class HindsightRewards(BaseCallback):
    """Moves what `Redistribute` could only pay with the last token to the tokens that earned it.

    An environment pays ``redistribute(...; over=uniform)`` when the episode ends, since nothing is
    known before; with this callback the rollout buffer of an on-policy agent (PPO, A2C) holds each
    token's own share instead. What belongs to steps of an earlier rollout goes to the earliest
    step of the episode that is still in the buffer, so that totals stay what they were, to the
    rounding of float32. `rollout/ep_rew_mean` and `info["rewards"]` do not change either.

    Rewards must reach the agent as the environment pays them: no wrapper may scale them.

    Example:
        >>> from textgym_agents.sb3 import make_vec_env
        >>> envs = make_vec_env(
        ...     "textgym/Story-v0", n_envs=2, rewards=["redistribute(length:40; over=uniform)"]
        ... )  # doctest: +SKIP
        >>> agent.learn(10_000, callback=HindsightRewards())  # doctest: +SKIP
    """

    def _on_training_start(self) -> None:
        if not hasattr(self.model, "rollout_buffer"):
            raise ValueError(
                f"`HindsightRewards` goes with agents that collect rollouts (PPO, A2C), got "
                f"{type(self.model).__name__}."
            )
        envs = self.training_env
        normalised = unwrap_vec_normalize(envs)
        if normalised is not None and normalised.norm_reward:
            raise ValueError(
                "`HindsightRewards` cannot move rewards that `VecNormalize` has scaled. Use "
                "`norm_reward=False`, or the reward `normalize(...)`."
            )
        while isinstance(envs, VecEnvWrapper):
            envs = envs.venv
        if not isinstance(envs, TextVecEnv):
            raise ValueError(
                f"`HindsightRewards` needs a `TextVecEnv`, got {type(envs).__name__}. Use "
                "`make_vec_env`."
            )
        terms = reward_terms_of(envs.envs)
        self.terms = [term for term in terms if paid_late(term.reward, []) is not None]
        if not self.terms:
            names = ", ".join(f"`{term.name}`" for term in terms) or "none"
            raise ValueError(
                "no reward is paid late here, so `HindsightRewards` has nothing to do. Use it with "
                f"`redistribute(...; over=uniform)`, for instance; the rewards are: {names}."
            )

    def _on_step(self) -> bool:
        infos = self.locals["infos"]
        rows = [r for r in np.flatnonzero(self.locals["dones"]) if "episode_record" in infos[r]]
        for term in self.terms:
            # One that `ReplaceReward` has replaced was never paid.
            paid = [row for row in rows if term.name in infos[row]["rewards"]]
            if not paid:
                continue
            arrays = paid_late(term.reward, [infos[row]["episode_record"] for row in paid])
            for row, array in zip(paid, arrays, strict=True):
                self._move(row, term.weight * array)
        return True

    def _move(self, row: int, shares: NDArray[np.float64]) -> None:
        """Take what belongs to earlier tokens from the step of the last one.

        SB3 adds that step to the buffer, at `pos`, only after its callbacks were called.
        """
        buffer: Any = self.locals["rollout_buffer"]
        earlier = shares[:-1]
        inside = min(buffer.pos, len(earlier))
        if not inside:
            return
        added = earlier[len(earlier) - inside :].copy()
        added[0] += earlier[: len(earlier) - inside].sum()  # of steps that are gone
        steps = slice(buffer.pos - inside, buffer.pos)
        before = buffer.rewards[steps, row].astype(np.float64)
        buffer.rewards[steps, row] = before + added
        moved = buffer.rewards[steps, row].astype(np.float64) - before  # after rounding
        self.locals["rewards"][row] -= moved.sum()
