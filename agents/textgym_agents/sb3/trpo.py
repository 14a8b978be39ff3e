"""`TRPOPolicy`: a language model as the policy of sb3_contrib's own TRPO.

TRPO moves the policy as far as the mean KL from the old to the new one may go, along the natural
gradient, and fits the value head by gradient descent. Source: Schulman et al. 2015,
https://arxiv.org/abs/1502.05477.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from stable_baselines3.common.distributions import CategoricalDistribution
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn
from torch.func import functional_call

from textgym import Tokenizer
from textgym_agents.lm import unpack_support
from textgym_agents.sb3.defaults import WarmedUpRate, budget_of, ppo_defaults
from textgym_agents.sb3.packed import PackedBatch
from textgym_agents.sb3.policy import LMPolicy


class TRPOPolicy(LMPolicy):
    """`LMPolicy` for TRPO, which wants whole distributions that can be differentiated twice.

    Its model takes plain attention in place of fused kernels, which have no second derivative.
    TRPO's KL is over all tokens: some ten arrays `[transitions of a rollout, V] float32` exist in
    an update, so keep ``n_steps * n_envs`` small where V is large (1,000 transitions of 50,257
    tokens: 2 GB). So do the graphs of two derivatives through the whole rollout, with attention
    written out: 2,048 transitions of Story by the bundled model take 2 GB more than PPO does.
    ``sub_sampling_factor=k`` of TRPO takes every k-th transition, which makes the arrays k times
    smaller; the graphs are of whole segments still.

    TRPO differentiates by one parameter after the other, and each product with the Fisher matrix
    goes through all those graphs. So it is shown a single one: all that learns of the language
    model, in a row. (By `value` in a name it tells the critic from the actor, which some models'
    attention, `query_key_value`, would be taken for; of frozen ones, such as the reference model's,
    it would ask for gradients that there are not.)

    Args: those of `LMPolicy`. The optimizer and its learning rate are for the value head alone.

    Raises:
        ValueError: as `LMPolicy`, and for a model that cannot be differentiated twice.

    Example:
        >>> from textgym_agents.sb3 import TokenRolloutBuffer, make_vec_env
        >>> envs = make_vec_env("textgym/TokenLock-v0", n_envs=64)
        >>> arguments = {"rollout_buffer_class": TokenRolloutBuffer, **trpo_defaults(envs)}
        >>> arguments["target_kl"]  # then TRPO(TRPOPolicy, envs, **arguments, policy_kwargs=...)
        0.03
    """

    # `[parameters]`, what learns of the language model while TRPO updates it; None otherwise.
    _flat: Tensor | None = None

    def _install(self, model: nn.Module, tokenizer: Tokenizer | None) -> None:
        model.set_attn_implementation("eager")
        super()._install(model, tokenizer)
        self._check_second_derivative()

    def _check_second_derivative(self) -> None:
        """Fail now, and not after the first rollout."""
        weights = [p for p in self.lm.parameters() if p.requires_grad]
        with torch.enable_grad():
            ids = torch.zeros((1, 2), dtype=torch.int64, device=self.lm.device)
            logits = self.lm.head.logits(self.lm.hidden_states(ids)[0])
            target = logits.log_softmax(dim=-1)[:, 0].sum()
            first = torch.autograd.grad(target, weights, create_graph=True, allow_unused=True)
            try:
                length = sum(g.pow(2).sum() for g in first if g is not None)
                torch.autograd.grad(length, weights, allow_unused=True)
            except RuntimeError as error:
                raise ValueError(
                    f"{type(self.lm.model).__name__} cannot be differentiated twice, which TRPO "
                    f"needs ({str(error).splitlines()[0][:120]}). Use PPO with `LMPolicy`."
                ) from error

    # ------------------------------------------------------------------ one parameter
    def set_training_mode(self, mode: bool) -> None:
        """As in `LMPolicy`; in training mode `named_parameters` has the weights in a row."""
        super().set_training_mode(mode)
        if mode:
            flat = torch.cat([p.detach().flatten() for _, p in self._learning()])
            self._flat = flat.requires_grad_()
        elif self._flat is not None:
            self._write_back()
            self._flat = None

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """As in torch; in training mode what learns of the language model is one, `lm`."""
        if self._flat is None:
            yield from super().named_parameters(prefix, recurse, remove_duplicate)
        else:
            start = f"{prefix}." if prefix else ""
            yield f"{start}lm", self._flat
            yield from self.value_head.named_parameters(f"{start}value_head")

    def _learning(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, p) for name, p in self.lm.named_parameters() if p.requires_grad]

    def _views(self) -> Iterator[tuple[str, nn.Parameter, Tensor]]:
        """Name, weight of the model, and the same weight in the row."""
        done = 0
        for name, weight in self._learning():
            yield name, weight, self._flat[done : done + weight.numel()].view_as(weight)
            done += weight.numel()

    @torch.no_grad()
    def _write_back(self) -> None:
        for _, weight, new in self._views():
            weight.copy_(new)  # in place, which the slot cache notices too

    # ------------------------------------------------------------------ what TRPO calls
    def get_distribution(self, obs: PyTorchObs | PackedBatch) -> CategoricalDistribution:
        """The distribution over the V tokens in each of n states, with gradients in an update.

        Args:
            obs: whole segments from `TokenRolloutBuffer`, or n padded contexts.
        """
        self._require_model()
        if self._flat is None:
            return super().get_distribution(obs)
        if isinstance(obs, PackedBatch):
            support = obs.support
            support = None if support is None else unpack_support(support, self.vocab_size)
        else:
            support = self._action_mask(obs)
            if self.rule.truncates:
                raise ValueError(
                    "`top_k` and `top_p` need `rollout_buffer_class=TokenRolloutBuffer`, which "
                    "keeps what each token was chosen among."
                )
        weights = {f"policy.lm.{name}": new for name, _, new in self._views()}
        logits = functional_call(_Logits(self), weights, obs) / self.rule.temperature
        if support is not None:
            # Finite: the KL multiplies by probability, and 0 times infinity is not 0.
            logits = logits.masked_fill(~support, torch.finfo(logits.dtype).min)
        return CategoricalDistribution(self.vocab_size).proba_distribution(logits)

    def predict_values(self, obs: PyTorchObs | PackedBatch) -> Tensor:
        """`[n, 1]`, the values of `obs`; in an update with gradients for the value head alone."""
        if self._flat is None:
            return super().predict_values(obs)
        self._write_back()  # the language model is done when the value head's turn comes
        # TRPO throws away what the value loss would do to the language model.
        with torch.no_grad():
            hidden = self._states(obs)
        return self._values(hidden)

    def _states(self, obs: PyTorchObs | PackedBatch) -> Tensor:
        """`[n, d]`, uncached."""
        packed = isinstance(obs, PackedBatch)
        return self._packed_hidden(self.lm, obs) if packed else self._full_hidden(obs)


class _Logits(nn.Module):
    """What `functional_call` computes with other weights: `[n, V] float32`."""

    def __init__(self, policy: TRPOPolicy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, obs: PyTorchObs | PackedBatch) -> Tensor:
        return self.policy.lm.head.logits(self.policy._states(obs))


def trpo_defaults(envs: VecEnv, *, learning_rate: float = 1e-3) -> dict[str, Any]:
    """Keyword arguments for sb3_contrib's `TRPO` with `TRPOPolicy`; see `ppo_defaults`.

    Args:
        envs: the environments.
        learning_rate: of the value head. How far the language model moves is up to `target_kl`,
            the mean KL of a token in nats.

    Returns:
        A dict to change at will and pass on as ``TRPO(TRPOPolicy, envs, **kwargs)``.
    """
    # One update a rollout: many small ones, where PPO takes several minibatches of a larger one.
    n_steps = max(budget_of(envs), -(-512 // envs.num_envs))
    kept = ("gamma", "gae_lambda", "normalize_advantage", "rollout_buffer_kwargs")
    of_ppo = ppo_defaults(envs)
    return {
        "learning_rate": WarmedUpRate(learning_rate, warmup=0.0),
        "n_steps": n_steps,
        "batch_size": n_steps * envs.num_envs,  # of the critic's updates
        **{name: of_ppo[name] for name in kept},
        "target_kl": 0.03,
        "cg_max_steps": 10,
        "cg_damping": 0.01,
        "n_critic_updates": 10,
    }
