"""Action masks: `MaskableLMPolicy` and its buffer, for sb3_contrib's own MaskablePPO.

MaskablePPO asks the environments for `action_masks()` before every step. The policy takes a mask as
one more bound on what it samples from, as top-k and top-p are: log-probs, entropies and the KL to
the reference model are those of the distribution within it. Source: Huang and Ontañón 2020,
https://arxiv.org/abs/2006.14171.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from textgym_agents.sb3.defaults import ppo_defaults
from textgym_agents.sb3.packed import PackedBatch
from textgym_agents.sb3.policy import LMPolicy
from textgym_agents.sb3.rollout_buffer import TokenRolloutBuffer

try:
    from sb3_contrib.common.maskable.buffers import (
        MaskableDictRolloutBufferSamples,
        MaskableRolloutBuffer,
    )
    from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
except ImportError as error:
    raise ImportError(
        "`textgym_agents.sb3.maskable` needs sb3-contrib, which is not installed. "
        'Run `pip install "textgym[recipes]"`.'
    ) from error

_UNMASKED = "no action mask applies in these environments, so there is nothing to mask: use PPO."


class MaskableLMPolicy(LMPolicy, MaskableActorCriticPolicy):
    """`LMPolicy` whose methods take `action_masks` as well, `[B, V] bool`; None allows all.

    Args: those of `LMPolicy`.

    Raises:
        ValueError: as `LMPolicy`, and where no mask applies in the environments.

    Example:
        >>> from textgym_agents.sb3 import make_vec_env
        >>> envs = make_vec_env("textgym/TokenLock-v0", n_envs=64, min_new_tokens=5)
        >>> buffer = {"rollout_buffer_class": MaskableTokenRolloutBuffer}
        >>> arguments = {**buffer, **maskable_ppo_defaults(envs)}
        >>> # MaskablePPO(MaskableLMPolicy, envs, **arguments, policy_kwargs={"model": ...})
    """

    takes_action_masks = True

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        if getattr(action_space, "masked", None) is False:
            raise ValueError(_UNMASKED)
        super().__init__(observation_space, action_space, lr_schedule, *args, **kwargs)

    def forward(
        self,
        obs: PyTorchObs,
        deterministic: bool = False,
        action_masks: NDArray[np.bool_] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Sample a token for each row, of those allowed; see `LMPolicy.forward`."""
        return super().forward(_masked(obs, action_masks), deterministic)

    def _predict(
        self,
        observation: PyTorchObs,
        deterministic: bool = False,
        action_masks: NDArray[np.bool_] | None = None,
    ) -> Tensor:
        return super()._predict(_masked(observation, action_masks), deterministic)

    def predict(
        self,
        observation: NDArray[Any] | dict[str, NDArray[Any]],
        state: tuple[NDArray[Any], ...] | None = None,
        episode_start: NDArray[Any] | None = None,
        deterministic: bool = False,
        action_masks: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[Any], tuple[NDArray[Any], ...] | None]:
        """A token for each row, of those allowed; as in sb3_contrib."""
        return MaskableActorCriticPolicy.predict(
            self, observation, state, episode_start, deterministic, action_masks
        )

    def get_distribution(
        self, obs: PyTorchObs, action_masks: NDArray[np.bool_] | None = None
    ) -> Any:
        """SB3's categorical distribution over the V tokens, 0 for those not allowed."""
        return super().get_distribution(_masked(obs, action_masks))

    def evaluate_actions(
        self,
        obs: PyTorchObs | PackedBatch,
        actions: Tensor,
        action_masks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Values, log-probs and entropies, with gradients; see `LMPolicy.evaluate_actions`.

        Args:
            obs: whole segments from `MaskableTokenRolloutBuffer`, which bring their masks, or n
                padded contexts as sb3_contrib's own buffer yields them.
            actions: `[n]`, tokens.
            action_masks: `[n, V]`, nonzero where a token was allowed, with padded contexts.
        """
        if not isinstance(obs, PackedBatch):
            obs = _masked(obs, action_masks)
        return super().evaluate_actions(obs, actions)


class MaskableTokenRolloutBuffer(TokenRolloutBuffer, MaskableRolloutBuffer):
    """`TokenRolloutBuffer` for MaskablePPO: a mask takes V / 8 bytes a token.

    sb3_contrib's own keeps V float32 numbers. What a token was chosen among, mask and top-k and
    top-p together, comes with its log-prob as packed bits; `PackedBatch` hands it to the policy.

    Args: those of `TokenRolloutBuffer`.
    """

    def add(self, *args: Any, action_masks: NDArray[np.bool_] | None = None, **kwargs: Any) -> None:
        """As in `TokenRolloutBuffer`; the log-probs of `MaskableLMPolicy` carry the masks."""
        super().add(*args, **kwargs)
        if action_masks is not None and self.support[self.pos - 1] is None:
            raise ValueError(
                "the log-probs do not carry the masks they were made with. Use `MaskableLMPolicy` "
                "with this buffer, or sb3_contrib's `MaskableDictRolloutBuffer`."
            )

    def get(
        self, batch_size: int | None = None
    ) -> Generator[MaskableDictRolloutBufferSamples, None, None]:
        """Minibatches of whole segments, as in `TokenRolloutBuffer`."""
        for samples in TokenRolloutBuffer.get(self, batch_size):
            yield MaskableDictRolloutBufferSamples(*samples, action_masks=None)

    def _packed_support(self, where: NDArray[np.int64]) -> Tensor | None:
        """Only the rows asked for: all at once they would be there twice."""
        first = next((s for s in self.support if s is not None), None)
        if first is None:
            return None
        found = np.full((len(where), first.shape[1]), 255, dtype=np.uint8)
        steps, rows = np.divmod(where, self.n_envs)
        for i, (step, row) in enumerate(zip(steps.tolist(), rows.tolist(), strict=True)):
            if self.support[step] is not None:
                found[i] = self.support[step][row]
        return torch.from_numpy(found)


def maskable_ppo_defaults(envs: VecEnv, *, learning_rate: float | None = None) -> dict[str, Any]:
    """Keyword arguments for sb3_contrib's `MaskablePPO`; see `ppo_defaults`.

    Args:
        envs: the environments.
        learning_rate: None chooses by the model's size, with a warm-up.

    Raises:
        ValueError: no mask applies in `envs`.
    """
    if not envs.has_attr("action_masks"):
        raise ValueError(_UNMASKED)
    return ppo_defaults(envs, learning_rate=learning_rate)


def _masked(obs: PyTorchObs, action_masks: Any) -> PyTorchObs:
    """`obs` with the masks where `LMPolicy` looks for them."""
    if action_masks is None:
        return obs
    ids = obs["input_ids"]
    masks = torch.as_tensor(action_masks, dtype=torch.bool, device=ids.device)
    return {**obs, "action_mask": masks.reshape(len(ids), -1)}
