"""`LMModule`: a causal language model as an RLlib `RLModule`."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI, ValueFunctionAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from textgym import Tokenizer
from textgym_agents.lm import (
    CausalLM,
    SamplingRule,
    SlotCache,
    load_model,
    load_tokenizer,
    pack_support,
    sample,
    token_log_probs,
)

# What `forward_exploration` adds to RLlib's own columns where tokens are truncated or masked:
# `[B, ceil(V / 8)] uint8`, the packed tokens each was chosen among.
SUPPORT = "support"
# Columns of a packed batch, all of shape `[M, S, T]`: see `PackEpisodes`.
INPUT_IDS, COMPLETION_MASK, LOG_PROBS = "input_ids", "completion_mask", "log_probs"
# Entropies of the distributions the tokens came from, `[n]`, nats.
ENTROPIES = "entropies"

# What `model_config` may hold, with its defaults.
DEFAULTS: dict[str, Any] = {
    "model": "bundled",
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "kl_coef": 0.02,
    "chunk_tokens": 128,
    "trust_remote_code": False,
}

# Context tokens in one forward without gradients, and in an update without recomputation.
_WHOLE_TOKENS, _PART_TOKENS = 8_192, 2_048


class LMModule(TorchRLModule, InferenceOnlyAPI, ValueFunctionAPI):
    """Writes with a Hugging Face causal language model, token by token.

    `forward_exploration` samples and `forward_inference` takes the most probable token, both
    through a slot cache that feeds the model only what is new in each row; `forward_train` reads
    whole episodes, once each. The log-probs of the two ways agree to 1e-4.

    RLlib gives it the spaces of a token environment, and as `model_config`:

    Args:
        model: ``"bundled"``, a folder that every machine sees, or a hub id.
        temperature, top_k, top_p: the rule tokens are sampled by, see `SamplingRule`.
        kl_coef: weight of the per-token reward ``-kl_coef * (log pi - log p_ref)``, with the model
            as it was at the start as the reference. 0 keeps none.
        chunk_tokens: tokens whose logits exist at one time in an update.
        trust_remote_code: as in `from_pretrained`.

    Raises:
        ValueError: unknown settings, spaces of another kind of environment, or a model that does
            not fit the environment's tokenizer.
    """

    # ------------------------------------------------------------------ construction
    def setup(self) -> None:
        """Load the model; env runners get neither value head nor reference."""
        settings = {**DEFAULTS, **dict(self.model_config or {})}
        settings.pop("vf_share_layers", None)  # PPO's own, for its default networks
        if unknown := sorted(set(settings) - set(DEFAULTS)):
            raise ValueError(
                f"`model_config` has {unknown}, which LMModule does not know. It takes "
                f"{sorted(DEFAULTS)}."
            )
        _check_spaces(self.observation_space, self.action_space)
        self.rule = SamplingRule(settings["temperature"], settings["top_k"], settings["top_p"])
        self.chunk_tokens = int(settings["chunk_tokens"])
        context_size = int(self.observation_space["input_ids"].shape[0])
        self.tokenizer = load_tokenizer(settings["model"])
        check_tokenizer(self.tokenizer, self.action_space, settings["model"])
        model = load_model(settings["model"], trust_remote_code=settings["trust_remote_code"])
        self.lm = CausalLM(model, int(self.action_space.n), context_size)
        self._weights = tuple(self.lm.parameters())
        self._pool: SlotCache | None = None
        self._versions, self._stale = -1, True
        self.reference: CausalLM | None = None
        if self.inference_only:
            return
        self.value_head = nn.Linear(self.lm.hidden_size, 1)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        # A buffer: saved with the weights, as it changes where a target for the KL is given.
        self.register_buffer("kl_coef", torch.tensor(float(settings["kl_coef"])))
        if settings["kl_coef"] > 0:
            self.reference = copy.deepcopy(self.lm).requires_grad_(False).eval()

    def get_non_inference_attributes(self) -> list[str]:
        """What env runners do without, and what is not sent to them."""
        return ["value_head", "reference", "kl_coef"]

    # ------------------------------------------------------------------ writing
    def _forward_exploration(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return self._write(batch[Columns.OBS], deterministic=False)

    def _forward_inference(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return self._write(batch[Columns.OBS], deterministic=True)

    @torch.no_grad()
    def _write(self, obs: Mapping[str, Tensor], *, deterministic: bool) -> dict[str, Any]:
        """A token `[B]` for each row, and its log-prob `[B]`, nats.

        The token itself rather than logits: RLlib keeps what is returned here for each step.
        """
        logits = self.lm.head.logits(self._last_hidden(obs))
        mask = obs.get("action_mask")
        support = self.rule.support(logits, None if mask is None else mask.bool())
        logits = logits / self.rule.temperature
        if support is not None:
            logits = logits.masked_fill(~support, -torch.inf)
        log_probs = logits.log_softmax(dim=-1)
        actions = log_probs.argmax(dim=-1) if deterministic else sample(log_probs)
        chosen = log_probs.gather(1, actions[:, None])[:, 0]
        out = {Columns.ACTIONS: actions, Columns.ACTION_LOGP: chosen}
        if support is not None:
            out[SUPPORT] = pack_support(support)
        return out

    def _last_hidden(self, obs: Mapping[str, Tensor]) -> Tensor:
        """`[B, d]` at the last token of each context."""
        ids = obs["input_ids"].long()
        lengths = obs["attention_mask"].sum(dim=1).cpu().numpy().astype(np.int64)
        if not self.lm.incremental:
            return self.lm.last_hidden(ids, lengths)
        pool = self._pool
        if pool is None or pool.num_rows != len(ids) or pool.device != self.lm.device:
            pool = self._pool = SlotCache(self.lm, *ids.shape)
        versions = sum(p._version for p in self._weights)
        if self._stale or versions != self._versions:
            pool.clear()
            self._stale, self._versions = False, versions
        return pool.last_hidden(ids, lengths)

    # ------------------------------------------------------------------ learning
    def _forward_train(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Log-probs, entropies and values `[n]` of the agent's own tokens, in their order.

        Args:
            batch: `input_ids` and `completion_mask` of shape `[..., T]`, and `support` where
                tokens were truncated.
        """
        self._stale = True  # a cache of weights that are about to change
        ids, mask, support = _segments(batch)
        hidden = self._trained_hidden(ids, mask)
        log_probs, entropies = self._log_probs(self.lm, hidden, ids[mask], support)
        return {
            Columns.ACTION_LOGP: log_probs,
            ENTROPIES: entropies,
            Columns.VF_PREDS: self._values(hidden),
        }

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Tensor:
        """`[n]`, the values of the states in which the agent's tokens were chosen."""
        ids, mask, _ = _segments(batch)
        return self._values(_states(self.lm, ids, mask))

    @torch.no_grad()
    def score(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor | None]:
        """Values `[n]` and the reference's log-probs `[n]` (None without one), no gradients.

        Args:
            batch: as in `forward_train`.
        """
        ids, mask, support = _segments(batch)
        values, ref_log_probs, done = [], [], 0
        for part in _parts(ids, _WHOLE_TOKENS):
            some_ids, some_mask = ids[part], mask[part]
            values.append(self._values(_states(self.lm, some_ids, some_mask)))
            count = len(values[-1])
            if self.reference is not None:
                hidden = _states(self.reference, some_ids, some_mask)
                among = None if support is None else support[done : done + count]
                chosen = some_ids[some_mask]
                ref_log_probs.append(self._log_probs(self.reference, hidden, chosen, among)[0])
            done += count
        return torch.cat(values), torch.cat(ref_log_probs) if ref_log_probs else None

    def _trained_hidden(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Hidden states for an update, in memory that does not grow with the minibatch."""
        if ids.numel() <= _WHOLE_TOKENS or not torch.is_grad_enabled():
            return _states(self.lm, ids, mask)
        parts = [
            checkpoint(
                _states, self.lm, ids[p], mask[p], use_reentrant=False, preserve_rng_state=False
            )
            for p in _parts(ids, _PART_TOKENS)
        ]
        return torch.cat(parts)

    def _values(self, hidden: Tensor) -> Tensor:
        return self.value_head(hidden.float())[:, 0]

    def _log_probs(
        self, lm: CausalLM, hidden: Tensor, actions: Tensor, support: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        return token_log_probs(
            hidden,
            lm.head,
            actions,
            temperature=self.rule.temperature,
            support=support,
            chunk=self.chunk_tokens,
        )

    # ------------------------------------------------------------------ weights
    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As in torch, and the cache is dropped."""
        self._stale = True
        return super().load_state_dict(state_dict, *args, **kwargs)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model as ordinary Hugging Face files, tokenizer and sampling rule included."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        model = self.lm.model
        settings = getattr(model, "generation_config", None)
        if settings is not None:
            written = copy.deepcopy(settings)
            written.do_sample = True
            written.temperature = self.rule.temperature
            written.top_k, written.top_p = self.rule.top_k, self.rule.top_p
            if (eos_token_id := getattr(self.action_space, "eos_token_id", None)) is not None:
                written.eos_token_id = eos_token_id
            model.generation_config = written
        try:
            model.save_pretrained(path)
        finally:
            if settings is not None:
                model.generation_config = settings
        if self.tokenizer is not None:
            self.tokenizer.save(path)


def _segments(batch: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor | None]:
    """`[S, T]` tokens, `[S, T]` mask, `[n, V / 8]` support, cut to what is not padding."""
    ids = batch[INPUT_IDS].flatten(0, -2)
    mask = batch[COMPLETION_MASK].flatten(0, -2).bool()
    support = batch.get(SUPPORT)
    if support is not None:
        support = support.flatten(0, -3)[mask]
    used = mask.any(dim=1)
    width = int(mask.any(dim=0).nonzero()[-1]) + 1
    return ids[used, :width], mask[used, :width], support


def _states(lm: CausalLM, ids: Tensor, mask: Tensor) -> Tensor:
    """`[n, d]`: where the agent's own tokens were chosen, which is one place before they stand."""
    return lm.hidden_states(ids)[:, :-1][mask[:, 1:]]


def _parts(ids: Tensor, max_tokens: int) -> list[slice]:
    step = max(1, max_tokens // ids.shape[1])
    return [slice(i, i + step) for i in range(0, len(ids), step)]


def _check_spaces(observation_space: spaces.Space, action_space: spaces.Space) -> None:
    keys = getattr(observation_space, "spaces", {})
    if "input_ids" not in keys or "attention_mask" not in keys:
        raise ValueError(
            "LMModule needs observations with `input_ids` and `attention_mask`, got "
            f"{observation_space}. Use a `textgym/...` environment, as `rllib_config` does."
        )
    if not isinstance(action_space, spaces.Discrete):
        raise ValueError(f"LMModule needs a Discrete action space, got {action_space}.")


def check_tokenizer(tokenizer: Tokenizer | None, action_space: spaces.Space, model: str) -> None:
    """Check that the environment's tokens are those of `model`.

    Raises:
        ValueError: they are not.
    """
    expected = getattr(action_space, "tokenizer_hash", None)
    if tokenizer is None or expected in (None, tokenizer.hash):
        return
    raise ValueError(
        f"the model {model} was trained with another tokenizer ({tokenizer.vocab_size} tokens) "
        f"than the environment uses ({action_space.n} tokens). Give the environment the model's: "
        f"`env_config={{'tokenizer': {str(model)!r}}}`."
    )
