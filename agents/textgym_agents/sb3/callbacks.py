"""Callbacks that record what text needs recorded, for TensorBoard and any other SB3 logger."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from textgym_agents.sb3.vec_env import TextVecEnv


class TextMetrics(BaseCallback):
    """Records scores, reward components, lengths, texts and KL of each rollout.

    Scalars `rollout/score`, `rollout/reward/<name>`, `rollout/completion_tokens` (means over the
    episodes that ended), `kl/per_token`, `kl/per_sequence`, `kl/k3_per_token` (nats) and `kl/coef`,
    and what rewards have to tell besides (failures, a multiplier) under `reward/<name>/`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._figures: dict[str, list[float]] = defaultdict(list)
        self._rewards: list[dict[str, float]] = []

    def _on_rollout_start(self) -> None:
        self._figures.clear()
        self._rewards.clear()

    def _on_step(self) -> bool:
        for row in np.flatnonzero(self.locals["dones"]):
            info = self.locals["infos"][row]
            if "episode_record" not in info:
                continue  # only truncated: no score, no text
            if "score" in info:
                self._figures["rollout/score"].append(info["score"])
            self._rewards.append(info["rewards"])  # read later: `AsyncScoring` may fill them in
            for name, value in info.get("metrics", {}).items():
                self._figures[f"rollout/metric/{name}"].append(value)
            tokens = int(info["episode_record"].completion_mask.sum())
            self._figures["rollout/completion_tokens"].append(tokens)
        return True

    def _on_rollout_end(self) -> None:
        for rewards in self._rewards:
            for name, value in rewards.items():
                self._figures[f"rollout/reward/{name}"].append(value)
        for name, values in self._figures.items():
            self.logger.record(name, float(np.mean(values)))
        for name, value in getattr(self.model.policy, "kl_stats", {}).items():
            self.logger.record(f"kl/{name}", value)
        if isinstance(self.training_env, TextVecEnv):
            for term in self.training_env.reward_terms:
                for name, value in term.reward.figures().items():
                    self.logger.record(f"reward/{term.name}/{name}", value)
