"""`LMPolicy`: a language model as the policy of Stable-Baselines3's own PPO and A2C."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from textgym_agents.lm import (
    LanguageModel,
    ModelSource,
    SamplingRule,
    WithoutAdapter,
    lora_options,
    pack_support,
    sample,
    token_log_probs,
)
from textgym_agents.sb3.packed import PackedBatch
from textgym_agents.sb3.policy_model import UNHEEDED_MASK, ModelPolicy, check_spaces

# Pools of slots kept at once: one for each caller and shape, the least recently used dropped.
_MAX_POOLS = 4
# Context tokens in one forward of a packed pass without gradients.
_SCORE_TOKENS = 8_192
# Minibatches of more context tokens than this run the body in parts that are made again in the
# backward pass: a third more work, and memory that no longer grows with the minibatch.
_WHOLE_TOKENS, _PART_TOKENS = 8_192, 2_048


class LMPolicy(ModelPolicy):
    """Writes with a Hugging Face language model, causal or encoder-decoder, token by token.

    Each observation is the whole context, and the policy is a pure function of it; that it feeds
    the model only what is new is an optimisation (see `SlotCache`) no caller can notice.

    Args:
        observation_space: of a TextGym environment: a Dict with `input_ids` and `attention_mask`,
            and `action_mask` where the mask wrapper is on.
        action_space: `Discrete(V)`.
        lr_schedule: learning rate by remaining progress.
        model: ``"bundled"``, a folder, a hub id, a module (copied) or a `ModelSpec`. An
            encoder-decoder model reads the prompt with its encoder, and wants tasks of a single
            turn.
        lora: train a LoRA adapter instead of the model: a dict of what `peft.LoraConfig` takes,
            or True for peft's defaults (`pip install "textgym[lora]"`). The reference is then the
            model with the adapter off.
        temperature, top_k, top_p: the rule tokens are sampled by, see `SamplingRule`.
        kl_coef: weight of the per-token reward ``-kl_coef * (log pi - log p_ref)``, with the
            model as it was at the start as the reference; 0 for none.
        kl_target: nats a sequence; adapts `kl_coef` towards it after each rollout. None: fixed.
        reference: keep a frozen copy of the model, for the KL; None: only where it is used.
        value_scale: factor on the value head's output. Adam moves every weight by the learning
            rate, so this is the value head's learning rate as a multiple of the model's.
        chunk_tokens: tokens whose logits exist at one time in an update.
        optimizer_class, optimizer_kwargs: AdamW without weight decay unless given.
        use_sde: not for text; there because SB3 passes it.
        trust_remote_code: as in `from_pretrained`.

    Raises:
        ValueError: the spaces are not those of a token environment, or model and tokenizer do not
            fit.
    """

    # Whether the agent asks the environments for masks and hands them to the policy.
    takes_action_masks = False

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        model: ModelSource = "bundled",
        *,
        lora: Mapping[str, Any] | bool | None = None,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        kl_coef: float = 0.02,
        kl_target: float | None = None,
        reference: bool | None = None,
        value_scale: float = 1.0,
        chunk_tokens: int = 128,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.AdamW,
        optimizer_kwargs: Mapping[str, Any] | None = None,
        use_sde: bool = False,
        trust_remote_code: bool = False,
    ) -> None:
        check_spaces(observation_space, action_space)
        masked = getattr(action_space, "masked", False) and not self.takes_action_masks
        if masked and "action_mask" not in observation_space.spaces:
            raise ValueError(UNHEEDED_MASK)
        if use_sde:
            raise ValueError("`use_sde` is for continuous actions; text has none. Leave it False.")
        if kl_coef < 0 or (kl_target is not None and kl_target <= 0):
            raise ValueError(
                f"`kl_coef` must be at least 0 and `kl_target` above 0, got {kl_coef}, {kl_target}."
            )
        if kl_target is not None and kl_coef == 0:
            raise ValueError(
                "`kl_target` adapts `kl_coef` by factors, and `kl_coef` is 0. Start it above 0, "
                "such as 0.02."
            )
        if optimizer_kwargs is None and issubclass(optimizer_class, torch.optim.AdamW):
            optimizer_kwargs = {"weight_decay": 0.0, "betas": (0.9, 0.99), "fused": True}
        # BasePolicy's: ActorCriticPolicy's own would build an MLP.
        BasePolicy.__init__(
            self,
            observation_space,
            action_space,
            optimizer_class=optimizer_class,
            optimizer_kwargs=dict(optimizer_kwargs or {}),
        )
        self.rule = SamplingRule(temperature, top_k, top_p)
        self.lora = lora_options(lora)
        self.kl_target = kl_target
        self.with_reference = reference if reference is not None else kl_coef > 0
        self.value_scale = value_scale
        self.chunk_tokens = chunk_tokens
        self.trust_remote_code = trust_remote_code
        self.lr_schedule = lr_schedule
        self.context_size = int(observation_space["input_ids"].shape[0])
        self.vocab_size = int(action_space.n)
        remaining = observation_space.spaces.get("remaining")
        self.max_new_tokens = None if remaining is None else int(remaining.high.max())
        # A buffer: saved and loaded with the weights, as it changes while learning.
        self.register_buffer("kl_coef", torch.tensor(float(kl_coef), dtype=torch.float64))
        self.kl_stats: dict[str, float] = {}
        self._pools: OrderedDict[tuple[str, int, int], Any] = OrderedDict()
        self._stale = True
        self._seen_state: tuple[int, bool] | None = None
        self._missing: Exception | None = None
        try:
            loaded, tokenizer = self._open(model)
        except (FileNotFoundError, ConnectionError) as error:
            # A saved agent brings its model with it (see `load_state_dict`), whatever became of
            # the folder it once came from. Any other use of this policy raises `error`.
            warnings.warn(f"{error} (Right only while loading a saved agent.)", stacklevel=2)
            self._missing = error
            self.value_head = nn.Linear(1, 1)
            self._make_optimizer()
            return
        self._install(loaded, tokenizer)

    # ------------------------------------------------------------------ acting
    def forward(
        self, obs: PyTorchObs, deterministic: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Sample a token for each row.

        Returns:
            actions `[B] int64`, values `[B, 1]` and log-probs `[B]` of the distribution sampled
            from, in nats.
        """
        return self.act(obs, deterministic)

    def act(
        self, obs: PyTorchObs, deterministic: bool = False, *, caller: str = "forward"
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `forward`; each `caller` has slots of its own, so that none evicts another's."""
        hidden = self._hidden(obs, caller)
        actions, log_probs, support = self._choose(hidden, obs, deterministic)
        if support is not None:
            # The buffer must keep what the token was chosen among: with other weights it changes.
            log_probs.support = pack_support(support)
        return actions, self._values(hidden), log_probs

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        hidden = self._hidden(observation, "predict")
        return self._choose(hidden, observation, deterministic)[0]

    def predict_values(self, obs: PyTorchObs) -> Tensor:
        """`[B, 1]`, the values of `obs`."""
        values = self._values(self._hidden(obs, "forward"))
        # `TokenRolloutBuffer` needs the policy for the KL reward, and is built before it.
        values.lm_policy = self
        return values

    def get_distribution(self, obs: PyTorchObs) -> Any:
        """SB3's categorical distribution over the V tokens."""
        from stable_baselines3.common.distributions import CategoricalDistribution

        logits = self.lm.head.logits(self._hidden(obs, "predict"))
        support = self.rule.support(logits, self._action_mask(obs))
        logits = logits / self.rule.temperature
        if support is not None:
            # Finite: SB3's entropy multiplies by probability, and 0 times infinity is not 0.
            logits = logits.masked_fill(~support, torch.finfo(logits.dtype).min)
        return CategoricalDistribution(self.vocab_size).proba_distribution(logits)

    def _choose(
        self, hidden: Tensor, obs: PyTorchObs, deterministic: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        logits = self.lm.head.logits(hidden)  # [B, V]
        support = self.rule.support(logits, self._action_mask(obs))
        if self.rule.temperature != 1.0:
            logits = logits / self.rule.temperature
        if support is not None:
            logits = logits.masked_fill(~support, -torch.inf)
        log_probs = logits.log_softmax(dim=-1)
        actions = log_probs.argmax(dim=-1) if deterministic else sample(log_probs)
        return actions, log_probs.gather(1, actions[:, None])[:, 0], support

    def _values(self, hidden: Tensor) -> Tensor:
        return self.value_head(hidden.float()) * self.value_scale

    def _action_mask(self, obs: PyTorchObs) -> Tensor | None:
        mask = obs.get("action_mask")
        return None if mask is None else mask.bool()

    def _hidden(self, obs: PyTorchObs, caller: str) -> Tensor:
        """`[B, d]` at the last token of each context."""
        self._require_model()
        if torch.is_grad_enabled():  # a warm cache under autograd gives wrong gradients
            self._stale = True
            return self._full_hidden(obs)
        ids = obs["input_ids"].long()
        lengths = obs["attention_mask"].sum(dim=1).cpu().numpy().astype(np.int64)
        prompts = self._prompt_lengths(obs)
        given = () if prompts is None else (prompts.cpu().numpy(),)
        if not self.lm.incremental:
            return self.lm.last_hidden(ids, lengths, *given)
        state = self.lm.state
        if self._stale or state != self._seen_state:
            for pool in self._pools.values():
                pool.clear()
            self._stale, self._seen_state = False, state
        return self._pool(caller, *ids.shape).last_hidden(ids, lengths, *given)

    def _prompt_lengths(self, obs: PyTorchObs) -> Tensor | None:
        """`[B] int64`, where an encoder stops reading; None for a model without one."""
        if not self.lm.needs_prompt_lengths:
            return None
        written = self.max_new_tokens - obs["remaining"].long().flatten()
        return obs["attention_mask"].sum(dim=1).long() - written

    def _pool(self, caller: str, num_rows: int, context_size: int) -> Any:
        key = (caller, num_rows, context_size)
        pool = self._pools.get(key)
        if pool is None or pool.device != self.lm.device:
            pool = self._pools[key] = self.lm.slots(num_rows, context_size)
        self._pools.move_to_end(key)
        while len(self._pools) > _MAX_POOLS:
            self._pools.popitem(last=False)
        return pool

    # ------------------------------------------------------------------ learning
    def evaluate_actions(
        self, obs: PyTorchObs | PackedBatch, actions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Values `[n, 1]`, log-probs `[n]` and entropies `[n]` of `actions`, with gradients.

        Args:
            obs: whole segments from `TokenRolloutBuffer`, or n padded contexts as SB3's own
                buffer yields them (exact too, at many times the work).
            actions: `[n]`, tokens.
        """
        self._require_model()
        if torch.is_grad_enabled():
            self._stale = True
        actions = actions.long().flatten()
        if isinstance(obs, PackedBatch):
            hidden, support = self._trained_hidden(obs), obs.support
        else:
            hidden = self._full_hidden(obs)
            mask = self._action_mask(obs)
            if self.rule.truncates:
                # What was chosen among at rollout is not in SB3's own buffer, and truncating anew
                # would put sampled tokens outside the support.
                raise ValueError(
                    "`top_k` and `top_p` need `rollout_buffer_class=TokenRolloutBuffer`, which "
                    "keeps what each token was chosen among."
                )
            support = None if mask is None else pack_support(mask)
        log_probs, entropies = self._log_probs(self.lm, hidden, actions, support)
        return self._values(hidden), log_probs, entropies

    def _full_hidden(self, obs: PyTorchObs) -> Tensor:
        ids, lengths = obs["input_ids"].long(), obs["attention_mask"].sum(dim=1).long()
        width = int(lengths.max())
        index = torch.arange(len(ids), device=ids.device) * width + lengths - 1
        return self.lm.states(ids[:, :width], index, self._prompt_lengths(obs))

    def _trained_hidden(self, batch: PackedBatch) -> Tensor:
        """As `_packed_hidden`, for an update: with little padding, and in bounded memory."""
        read = partial(self._packed_hidden, self.lm)
        if sum(batch.lengths) <= _WHOLE_TOKENS or not torch.is_grad_enabled():
            return batch.map(read, _WHOLE_TOKENS)
        again = partial(checkpoint, read, use_reentrant=False, preserve_rng_state=False)
        return batch.map(again, _PART_TOKENS)

    @staticmethod
    def _packed_hidden(lm: LanguageModel | WithoutAdapter, batch: PackedBatch) -> Tensor:
        """`[n, d]` at the n states of `batch`: one forward a segment, gathered before the head."""
        prompts = batch.prompt_lengths
        if prompts is None:
            # Only encoder-decoder models read them: where each segment's first state ends.
            counts = torch.tensor(batch.counts, device=batch.index.device)
            prompts = batch.index[counts.cumsum(0) - counts] % batch.input_ids.shape[1] + 1
        return lm.states(batch.input_ids, batch.index, prompts)

    def _log_probs(
        self,
        lm: LanguageModel | WithoutAdapter,
        hidden: Tensor,
        actions: Tensor,
        support: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        return token_log_probs(
            hidden,
            lm.head,
            actions,
            temperature=self.rule.temperature,
            support=support,
            chunk=self.chunk_tokens,
        )

    @torch.no_grad()
    def packed_log_probs(self, batch: PackedBatch, *, reference: bool = False) -> Tensor:
        """`[n]`, log-probs of `batch.actions` under this model or the frozen reference."""
        self._require_model()
        lm = self.reference if reference else self.lm
        if lm is None:
            raise ValueError("this policy keeps no reference model; pass `reference=True` to it.")

        def score(part: PackedBatch) -> Tensor:
            hidden = self._packed_hidden(lm, part)
            return self._log_probs(lm, hidden, part.actions, part.support)[0]

        return batch.map(score, _SCORE_TOKENS)

    def adapt_kl(self, kl_per_sequence: float) -> None:
        """Move `kl_coef` towards `kl_target`, by at most a tenth a rollout.

        Source: Ziegler et al. 2019, https://arxiv.org/abs/1909.08593, section 2.2.
        """
        if self.kl_target is not None:
            error = float(np.clip(kl_per_sequence / self.kl_target - 1.0, -0.2, 0.2))
            self.kl_coef.mul_(1.0 + 0.5 * error)

    # ------------------------------------------------------------------ when the weights change
    def set_training_mode(self, mode: bool) -> None:
        """As in SB3; going to training drops the key-value cache."""
        if mode:
            self.invalidate_cache()
        self.train(mode)

    def invalidate_cache(self) -> None:
        """Forget cached keys and values. Call it after changing weights by hand."""
        self._stale = True

    def train(self, mode: bool = True) -> LMPolicy:
        """Switch modes; the reference never trains."""
        super().train(mode)
        reference = getattr(self, "reference", None)
        if isinstance(reference, LanguageModel):  # not a copy of its own with an adapter
            reference.eval()
        return self
