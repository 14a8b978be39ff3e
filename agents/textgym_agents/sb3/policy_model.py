"""`ModelPolicy`: the model of `LMPolicy`, how it is built, saved and loaded."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from textgym import Tokenizer
from textgym_agents.lm import (
    LORA_RATE,
    LanguageModel,
    ModelSource,
    ModelSpec,
    SamplingRule,
    WithoutAdapter,
    build_language_model,
    load_model,
    load_tokenizer,
    parameter_count,
    suggested_learning_rate,
)
from textgym_agents.lm.seq2seq_slots import ONE_PROMPT
from textgym_agents.sb3.defaults import WarmedUpRate


class ModelPolicy(ActorCriticPolicy):
    """Holds a language model with a value head, an optimizer and the frozen reference.

    `LMPolicy` sets the attributes below and acts with them.
    """

    lm: LanguageModel
    reference: LanguageModel | WithoutAdapter | None
    rule: SamplingRule
    tokenizer: Tokenizer | None
    kl_target: float | None
    lora: dict[str, Any] | None
    max_new_tokens: int | None
    with_reference: bool
    value_scale: float
    chunk_tokens: int
    trust_remote_code: bool
    context_size: int
    vocab_size: int
    _missing: Exception | None

    # ------------------------------------------------------------------ construction
    def _open(self, source: ModelSource) -> tuple[nn.Module, Tokenizer | None]:
        tokenizer = load_tokenizer(source)
        self._check_tokenizer(tokenizer, source)
        return load_model(source, trust_remote_code=self.trust_remote_code), tokenizer

    def _check_tokenizer(self, tokenizer: Tokenizer | None, source: ModelSource) -> None:
        expected = getattr(self.action_space, "tokenizer_hash", None)
        if tokenizer is None or expected is None or tokenizer.hash == expected:
            return
        name = source if isinstance(source, str) else tokenizer.name
        raise ValueError(
            f"the model {name} was trained with another tokenizer ({tokenizer.vocab_size} tokens) "
            f"than the environment uses ({self.vocab_size} tokens). Give the environment the "
            f"model's: `make_vec_env(..., tokenizer={str(name)!r})`, or on the command line "
            "`--tokenizer`."
        )

    def _install(self, model: nn.Module, tokenizer: Tokenizer | None) -> None:
        size = parameter_count(model)  # before an adapter is added
        self.lm = build_language_model(
            model,
            self.vocab_size,
            self.context_size,
            max_new_tokens=self.max_new_tokens,
            tokenizer=tokenizer,
            lora=self.lora,
        )
        if self.lm.needs_prompt_lengths and getattr(self.action_space, "max_turns", 1) > 1:
            raise ValueError(ONE_PROMPT)
        self.tokenizer = tokenizer
        self.value_head = nn.Linear(self.lm.hidden_size, 1)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        self.reference: LanguageModel | WithoutAdapter | None = None
        if self.with_reference and self.lora is None:
            self.reference = copy.deepcopy(self.lm).requires_grad_(False).eval()
        elif self.with_reference:
            self.reference = WithoutAdapter(self.lm)
        self._missing = None
        self._set_learning_rate(size)
        self._make_optimizer()

    def _set_learning_rate(self, size: int) -> None:
        """Fill in the rate that suits a model of `size` parameters, or warn of a greater one."""
        factor = 1.0 if self.lora is None else LORA_RATE
        usual = factor * suggested_learning_rate(size)
        schedule = getattr(self.lr_schedule, "value_schedule", self.lr_schedule)
        if isinstance(schedule, WarmedUpRate):
            schedule.resolve(size)
            if not schedule.given:
                schedule.rate *= factor
        elif self.lr_schedule(1.0) > 10 * usual:
            warnings.warn(
                f"a learning rate of {self.lr_schedule(1.0):.1e} is likely to destroy a model of "
                f"{size:,} parameters; about {usual:.0e} is usual. "
                "`**ppo_defaults(envs)` sets this and more.",
                stacklevel=5,
            )

    def _make_optimizer(self) -> None:
        # In an order that never depends on how the policy came about: an optimizer's state is
        # saved by position.
        parts = [getattr(self, name) for name in ("lm", "value_head") if hasattr(self, name)]
        trained = [p for part in parts for p in part.parameters() if p.requires_grad]
        rate = self.lr_schedule(1)
        self.optimizer = self.optimizer_class(trained, lr=rate, **self.optimizer_kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "lr_schedule": self.lr_schedule,
            "model": self._spec(),
            "lora": self.lora,
            "temperature": self.rule.temperature,
            "top_k": self.rule.top_k,
            "top_p": self.rule.top_p,
            "kl_coef": float(self.kl_coef),
            "kl_target": self.kl_target,
            "reference": self.with_reference,
            "value_scale": self.value_scale,
            "chunk_tokens": self.chunk_tokens,
            "optimizer_class": self.optimizer_class,
            "optimizer_kwargs": self.optimizer_kwargs,
            "trust_remote_code": self.trust_remote_code,
        }

    # ------------------------------------------------------------------ saving
    def _require_model(self) -> None:
        if self._missing is not None:
            raise self._missing

    def _spec(self) -> ModelSpec:
        """Enough to build the model without its folder."""
        self._require_model()
        return ModelSpec.of(self.lm.model, self.tokenizer)

    def get_extra_state(self) -> dict[str, str]:
        """Configuration and tokenizer, so that loading works when the model's folder is gone."""
        return {} if self._missing is not None else dict(vars(self._spec()))

    def set_extra_state(self, state: dict[str, str]) -> None:
        """Nothing to do: `load_state_dict` reads it before the weights."""

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As in torch; builds the model first where its folder was gone, and drops the cache."""
        if self._missing is not None:
            spec = state_dict.get("_extra_state")
            if not spec:
                raise self._missing
            self._install(*ModelSpec(**spec).build())
        self.invalidate_cache()
        return super().load_state_dict(state_dict, *args, **kwargs)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model as ordinary Hugging Face files, tokenizer and sampling rule included.

        A LoRA adapter is merged into the weights of a copy; the policy itself is left as it is.
        """
        self._require_model()
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        adapter = self.lm.adapter
        model = self.lm.model if adapter is None else adapter.merged()
        settings = getattr(model, "generation_config", None)
        if settings is None:
            model.save_pretrained(path)
        else:
            model.generation_config = self._generation_config(settings)
            try:
                model.save_pretrained(path)
            finally:
                model.generation_config = settings
        if self.tokenizer is not None:
            self.tokenizer.save(path)

    def save_adapter(self, folder: str | Path) -> None:
        """Write the LoRA adapter alone, as `peft.PeftModel.from_pretrained(model, folder)` reads.

        Raises:
            ValueError: this policy has none.
        """
        self._require_model()
        if self.lm.adapter is None:
            raise ValueError(
                "this policy has no adapter to save; use `save_pretrained`, or make the policy "
                "with `lora=True`."
            )
        self.lm.adapter.save(folder)

    def _generation_config(self, settings: Any) -> Any:
        """A copy of `settings` by which `generate` samples as this policy does."""
        settings = copy.deepcopy(settings)
        settings.do_sample = True
        settings.temperature = self.rule.temperature
        settings.top_k = self.rule.top_k
        settings.top_p = self.rule.top_p
        eos_token_id = getattr(self.action_space, "eos_token_id", None)
        if eos_token_id is not None:
            settings.eos_token_id = eos_token_id
        if self.lm.needs_prompt_lengths:
            # Translators and summarisers come with a search and tokens that they force.
            settings.num_beams, settings.early_stopping = 1, False
            settings.min_length = settings.no_repeat_ngram_size = 0
            settings.length_penalty = 1.0
            settings.forced_bos_token_id = settings.forced_eos_token_id = None
            settings.bad_words_ids = None
        return settings


UNHEEDED_MASK = (
    "an action mask applies in these environments, and this agent does not ask for it: use "
    "sb3-contrib's MaskablePPO with `textgym_agents.sb3.maskable.MaskableLMPolicy`, or put "
    "`MaskObservation` around them."
)


def check_spaces(observation_space: spaces.Space, action_space: spaces.Space) -> None:
    """Raise `ValueError` where the spaces are not those of a token environment."""
    keys = getattr(observation_space, "spaces", {})
    if "input_ids" not in keys or "attention_mask" not in keys:
        raise ValueError(
            "LMPolicy needs observations with `input_ids` and `attention_mask`, got "
            f"{observation_space}. Make the environment with `make_vec_env` or `gym.make`."
        )
    if not isinstance(action_space, spaces.Discrete):
        raise ValueError(f"LMPolicy needs a Discrete action space, got {action_space}.")
