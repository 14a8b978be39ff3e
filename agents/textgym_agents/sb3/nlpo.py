"""`NLPO`: PPO whose tokens are masked by an older copy of the policy."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from textgym import Tokenizer
from textgym_agents.lm import ModelSource, SamplingRule, SlotCache
from textgym_agents.sb3.policy import LMPolicy

# Slots of the mask model kept at once, one pool a shape.
_MAX_POOLS = 2


class NLPOPolicy(LMPolicy):
    """Chooses among the nucleus of a mask model: itself, as it was some updates ago.

    The mask model's smallest set of most probable tokens that holds `mask_top_p` is all that can be
    sampled. What a token was chosen among is stored with it, so that ratios are exact; under plain
    `PPO` the mask model stays the base model, and `NLPO` brings it up to date.

    Args:
        observation_space, action_space, lr_schedule, model: as for `LMPolicy`.
        mask_top_p: in (0, 1].
        mask_interval: updates after which the mask model becomes a copy of the policy.
        **policy: the other arguments of `LMPolicy`, which refuses unknown ones; not `top_k` and
            `top_p`, since the mask truncates.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        model: ModelSource = "bundled",
        *,
        mask_top_p: float = 0.9,
        mask_interval: int = 20,
        **policy: Any,
    ) -> None:
        if policy.get("top_k", 0) != 0 or policy.get("top_p", 1.0) != 1.0:
            raise ValueError("`top_k` and `top_p` do not go with NLPO's mask. Use `mask_top_p`.")
        if mask_interval < 1:
            raise ValueError(f"`mask_interval` must be a positive int, got {mask_interval}.")
        nucleus = SamplingRule(policy.get("temperature", 1.0), top_p=mask_top_p)
        super().__init__(observation_space, action_space, lr_schedule, model, **policy)
        self.nucleus = nucleus
        self.mask_interval = mask_interval
        # A buffer: saved with the weights, so that a resumed run updates its mask when it is due.
        self.register_buffer("mask_age", torch.tensor(0))

    def _install(self, model: nn.Module, tokenizer: Tokenizer | None) -> None:
        super()._install(model, tokenizer)
        self.mask_lm = copy.deepcopy(self.lm).requires_grad_(False).eval()
        self._mask_pools: dict[tuple[int, int], SlotCache] = {}

    def _get_constructor_parameters(self) -> dict[str, Any]:
        own = {"mask_top_p": self.nucleus.top_p, "mask_interval": self.mask_interval}
        return {**super()._get_constructor_parameters(), **own}

    def train(self, mode: bool = True) -> NLPOPolicy:
        """Switch modes; the mask model never trains."""
        super().train(mode)
        if hasattr(self, "mask_lm"):
            self.mask_lm.eval()
        return self

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As in `LMPolicy`; forgets what the mask model has read."""
        result = super().load_state_dict(state_dict, *args, **kwargs)
        self._mask_pools.clear()
        return result

    def age_mask(self) -> None:
        """Count an update; every `mask_interval` of them the mask model becomes the policy."""
        self.mask_age += 1
        if int(self.mask_age) % self.mask_interval == 0:
            self.mask_lm.load_state_dict(self.lm.state_dict())
            self._mask_pools.clear()

    def _action_mask(self, obs: PyTorchObs) -> Tensor | None:
        """`[B, V] bool`, the nucleus of the mask model among what the environment allows."""
        logits = self.mask_lm.head.logits(self._mask_hidden(obs))
        return self.nucleus.support(logits, super()._action_mask(obs))

    @torch.no_grad()
    def _mask_hidden(self, obs: PyTorchObs) -> Tensor:
        """`[B, d]` of the mask model at the last token of each context."""
        ids = obs["input_ids"].long()
        lengths = obs["attention_mask"].sum(dim=1).cpu().numpy().astype(np.int64)
        if not self.mask_lm.incremental or self.training:  # an update's rows come but once
            return self.mask_lm.last_hidden(ids, lengths)
        pool = self._mask_pools.get(ids.shape)
        if pool is None or pool.device != self.mask_lm.device:
            if len(self._mask_pools) >= _MAX_POOLS:
                del self._mask_pools[next(iter(self._mask_pools))]
            pool = self._mask_pools[ids.shape] = SlotCache(self.mask_lm, *ids.shape)
        return pool.last_hidden(ids, lengths)


class NLPO(PPO):
    """SB3's PPO, whose `NLPOPolicy` is told of every update.

    Source: Ramamurthy et al. 2022, https://arxiv.org/abs/2210.01241.

    Example:
        >>> from textgym_agents.sb3 import TokenRolloutBuffer, make_vec_env, ppo_defaults
        >>> envs = make_vec_env("textgym/Story-v0", n_envs=16)
        >>> agent = NLPO(
        ...     NLPOPolicy, envs, rollout_buffer_class=TokenRolloutBuffer,
        ...     policy_kwargs={"mask_top_p": 0.9, "mask_interval": 5}, **ppo_defaults(envs))
    """

    policy: NLPOPolicy

    def _setup_model(self) -> None:
        super()._setup_model()
        if not isinstance(self.policy, NLPOPolicy):
            raise ValueError(
                f"NLPO needs `NLPOPolicy`, got {type(self.policy).__name__}. Use `PPO` with others."
            )

    def train(self) -> None:
        """As PPO, then count the update."""
        super().train()
        self.policy.age_mask()
