"""`TopPMask`: only tokens in the nucleus of a frozen language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from textgym.envs.contexts import Observation
from textgym.wrappers.masking import MaskRule, SingleMasking, VectorMasking
from textgym_agents.lm import SamplingRule
from textgym_agents.wrappers.reader import Reader, reader_of
from textgym_agents.wrappers.reference_log_prob import ModelLike


def TopPMask(  # named as the class it makes
    env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any],
    model: ModelLike = "bundled",
    p: float = 0.9,
    *,
    device: str = "auto",
) -> SingleTopPMask | VectorTopPMask:
    """Allow only the nucleus of a frozen language model: the fewest tokens that hold p of it.

    The masks of NLPO, for any agent that heeds masks; one that does not is refused by `step`. They
    are where `MaskedActions` has its own, and taken from the tokens that `env` allows. (NLPO renews
    its masking model as the policy learns; this one stays as it is.)

    Args:
        env: a token environment, single or vector, that observes `input_ids`.
        model: as for `HiddenStateObservation`; a wrapper inside with the same model reads for both.
        p: above 0, up to 1; the most probable token is always allowed.
        device: ``"cpu"``, ``"cuda"``, or ``"auto"``: a GPU where there is one.

    Raises:
        TypeError: `env` does not observe `input_ids`.
        ValueError: a `p` out of range, and as for `HiddenStateObservation`.

    Source: Ramamurthy et al. 2023, https://arxiv.org/abs/2210.01241 (NLPO).

    Example:
        >>> import gymnasium as gym, textgym
        >>> env = TopPMask(gym.make("textgym/Story-v0"), "bundled", p=0.5)
        >>> _, info = env.reset(seed=0)
        >>> 1 <= info["action_mask"].sum() < 50
        np.True_
    """
    cls = VectorTopPMask if isinstance(env, VectorEnv) else SingleTopPMask
    return cls(env, model, p, device=device)


class SingleTopPMask(SingleMasking, RecordConstructorArgs):
    """Masks a single environment's actions by a nucleus; see `TopPMask`."""

    def __init__(
        self,
        env: gym.Env[Any, Any],
        model: ModelLike = "bundled",
        p: float = 0.9,
        *,
        device: str = "auto",
    ) -> None:
        RecordConstructorArgs.__init__(
            self, model=model, p=p, device=device, _disable_deepcopy=True
        )
        reader = reader_of(env, model, device, "TopPMask")
        self.read_with = (model, device, reader)
        SingleMasking.__init__(self, env, _Nucleus(reader, p), "TopPMask")


class VectorTopPMask(VectorMasking, RecordConstructorArgs):
    """Masks a vector environment's actions by nuclei; see `TopPMask`."""

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        model: ModelLike = "bundled",
        p: float = 0.9,
        *,
        device: str = "auto",
    ) -> None:
        RecordConstructorArgs.__init__(
            self, model=model, p=p, device=device, _disable_deepcopy=True
        )
        reader = reader_of(env, model, device, "TopPMask")
        self.read_with = (model, device, reader)
        VectorMasking.__init__(self, env, _Nucleus(reader, p), "TopPMask")


class _Nucleus(MaskRule):
    def __init__(self, reader: Reader, p: float) -> None:
        if not 0 < p <= 1:
            raise ValueError(f"`p` must be above 0 and at most 1, got {p!r}.")
        self._reader, self._rule = reader, SamplingRule(top_p=float(p))

    def allowed(
        self, observation: Observation, turns: Any, rows: Sequence[int], own: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        if self._rule.top_p == 1.0:
            return own
        log_probs = self._reader.log_probs(observation, None)[list(rows)]
        allowed = torch.from_numpy(own).to(log_probs.device)
        support = self._rule.support(log_probs, allowed)
        return support.cpu().numpy()
