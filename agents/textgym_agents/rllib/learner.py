"""`LMLearner`: PPO's loss over packed episodes, without logits for a whole minibatch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core.columns import Columns
from torch import Tensor

from textgym_agents.rllib.episodes import ADVANTAGES, RETURNS, WEIGHT, PackEpisodes
from textgym_agents.rllib.module import COMPLETION_MASK, ENTROPIES, LOG_PROBS


class LMLearner(PPOTorchLearner):
    """RLlib's PPO learner with a loss that takes log-probs instead of logits.

    RLlib's own keeps the logits of every token from rollout to loss (200 kB each for a vocabulary
    of 50,000) to regularise towards the last policy. Here the ratio is clipped, and what keeps the
    model near its start is a reward (see `PackEpisodes`).
    """

    def build(self) -> None:
        """As RLlib's, and the one connector that makes batches of episodes."""
        super().build()
        config = self.config
        if self._learner_connector is not None:
            self._learner_connector.append(
                PackEpisodes(
                    minibatch_tokens=config.minibatch_size or config.train_batch_size_per_learner,
                    gamma=config.gamma,
                    lambda_=config.lambda_,
                    kl_target=config.sequence_kl_target,
                )
            )

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """AdamW without weight decay, on what is trained: the reference is not."""
        module = self._module[module_id]
        params = [p for p in self.get_parameters(module) if p.requires_grad]
        optimizer = torch.optim.AdamW(params, weight_decay=0.0, betas=(0.9, 0.99))
        self.register_optimizer(
            module_id=module_id, optimizer=optimizer, params=params, lr_or_lr_schedule=config.lr
        )

    def compute_loss_for_module(
        self,
        *,
        module_id: str,
        config: Any,
        batch: Mapping[str, Tensor],
        fwd_out: Mapping[str, Tensor],
    ) -> Tensor:
        """The clipped surrogate, the critic's squared error and the entropy, summed over tokens.

        Source: Schulman et al. 2017, https://arxiv.org/abs/1707.06347.
        """
        mask, weight = batch[COMPLETION_MASK].bool(), batch[WEIGHT].sum()
        log_ratio = fwd_out[Columns.ACTION_LOGP] - batch[LOG_PROBS][mask]
        ratio, advantages = log_ratio.exp(), batch[ADVANTAGES][mask]
        clip = config.clip_param
        surrogate = torch.min(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
        errors = (fwd_out[Columns.VF_PREDS] - batch[RETURNS][mask]) ** 2
        entropies = fwd_out[ENTROPIES]
        coefficient = self.entropy_coeff_schedulers_per_module[module_id].get_current_value()
        loss = weight * (-surrogate + config.vf_loss_coeff * errors).sum()
        if coefficient:
            loss = loss - weight * coefficient * entropies.sum()
        with torch.no_grad():
            figures = {
                "policy_loss": -surrogate.mean(),
                "vf_loss": errors.mean(),
                "entropy": entropies.mean(),
                "approx_kl": (ratio - 1 - log_ratio).mean(),
                "clip_fraction": ((ratio - 1).abs() > clip).float().mean(),
            }
        self.metrics.log_dict(figures, key=module_id, window=1)
        return loss
