"""LoRA through peft: small trainable matrices beside frozen weights, which are also the reference.

Source: Hu et al. 2021, https://arxiv.org/abs/2106.09685.
"""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from textgym.errors import check_known

if TYPE_CHECKING:
    from textgym_agents.lm.language_model import LanguageModel

LoraOptions = Mapping[str, Any]

# Adapters start at zero and are of low rank: they take a greater learning rate than whole models.
LORA_RATE = 10.0
# What the policy decides itself, and what would train the weights the reference is made of.
_DECIDED = {
    "task_type": "it follows from the model",
    "peft_type": "it is LoRA",
    "auto_mapping": "peft fills it in",
    "peft_version": "peft fills it in",
    "base_model_name_or_path": "it follows from the model",
    "inference_mode": "the adapter is there to be trained",
    "modules_to_save": "whole modules are trained by leaving `lora` out",
    "trainable_token_indices": "embeddings are trained by leaving `lora` out",
    "layer_replication": "it changes the model the adapter is for",
}


class Adapter:
    """A LoRA adapter, put into a model in place; everything else in the model is frozen.

    Args:
        model: of `transformers`. Its linear layers are replaced by layers that hold them.
        options: as `peft.LoraConfig` takes them. ``target_modules`` is what peft knows to suit the
            architecture, and all linear layers where it knows none. Dropout is always 0: with it
            the log-probs at rollout and at update differ before anything was learnt.

    Raises:
        ImportError: peft is not installed.
        TypeError: an option that `peft.LoraConfig` does not have.
        ValueError: one that does not go with a reference model made by switching the adapter off.
    """

    def __init__(self, model: nn.Module, options: LoraOptions) -> None:
        peft = _peft()
        config = _config(peft, model, options)
        self._layer_class = peft.tuners.tuners_utils.BaseTunerLayer
        with warnings.catch_warnings():
            # Two layouts of a linear layer's weights; peft sees which it is and says so.
            warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
            try:
                self.peft_model = peft.get_peft_model(model, config)
            except ValueError as error:
                first = str(error).splitlines()[0]
                raise ValueError(f"`lora` does not fit {type(model).__name__}: {first}") from error
        self._layers = [m for m in model.modules() if isinstance(m, self._layer_class)]
        head = model.get_output_embeddings().weight
        if any(p is head for layer in self._layers for p in layer.parameters()):
            raise ValueError(
                "`lora` cannot adapt the head, from which log-probs are made in chunks, nor "
                "embeddings it shares its weights with. Leave their names out of `target_modules`."
            )

    @property
    def active(self) -> bool:
        """Whether the model computes with the adapter now."""
        return not self._layers[0].disable_adapters

    def switch(self, on: bool) -> None:
        """Compute with the adapter or without it from now on."""
        (self.peft_model.enable_adapter_layers if on else self.peft_model.disable_adapter_layers)()

    @contextmanager
    def off(self) -> Iterator[None]:
        """Compute without the adapter meanwhile."""
        was_active = self.active
        self.switch(False)
        try:
            yield
        finally:
            if was_active:
                self.switch(True)

    @contextmanager
    def disturbed(self) -> Iterator[None]:
        """Adapter weights as training may make them, for checks: at first they change nothing."""
        rng = np.random.default_rng(0)  # our own, so that no global generator is touched
        trained = [p for p in self.peft_model.parameters() if p.requires_grad]
        before = [p.detach().clone() for p in trained]
        with torch.no_grad():
            for p in trained:
                p.add_(torch.from_numpy(rng.normal(0.0, 0.05, tuple(p.shape))).to(p))
        try:
            yield
        finally:
            with torch.no_grad():
                for p, value in zip(trained, before, strict=True):
                    p.copy_(value)

    def merged(self) -> nn.Module:
        """A copy of the model with the adapter in its weights, of the class it had without one."""
        merged = copy.deepcopy(self.peft_model)
        for layer in merged.modules():
            if isinstance(layer, self._layer_class):
                layer.enable_adapters(True)
        return merged.merge_and_unload()

    def save(self, folder: str | Path) -> None:
        """Write the adapter alone, as `peft.PeftModel.from_pretrained` reads it."""
        # "auto" would ask the hub about the base model's vocabulary.
        self.peft_model.save_pretrained(str(folder), save_embedding_layers=False)


class WithoutAdapter:
    """`lm` with its adapter switched off: the reference model, in no memory of its own.

    Args:
        lm: with an adapter.
    """

    def __init__(self, lm: LanguageModel) -> None:
        self._lm = lm

    @property
    def head(self) -> Any:
        """As of `lm`: the head has no adapter."""
        return self._lm.head

    @property
    def device(self) -> torch.device:
        """As of `lm`."""
        return self._lm.device

    def hidden_states(self, *args: Any, **kwargs: Any) -> Tensor:
        """As of `lm`, without its adapter."""
        with self._lm.adapter.off():
            return self._lm.hidden_states(*args, **kwargs)

    def states(self, *args: Any, **kwargs: Any) -> Tensor:
        """As of `lm`, without its adapter."""
        with self._lm.adapter.off():
            return self._lm.states(*args, **kwargs)

    def last_hidden(self, *args: Any, **kwargs: Any) -> Tensor:
        """As of `lm`, without its adapter."""
        with self._lm.adapter.off():
            return self._lm.last_hidden(*args, **kwargs)


def lora_options(given: LoraOptions | bool | None) -> dict[str, Any] | None:
    """`given` as options: True is peft's defaults, None and False are no adapter.

    Raises:
        TypeError: neither a mapping nor a bool.
    """
    if given is None or given is False:
        return None
    if given is True:
        return {}
    if isinstance(given, Mapping):
        return dict(given)
    raise TypeError(
        "`lora` must be True or a dict of what `peft.LoraConfig` takes, such as "
        f'{{"r": 8, "lora_alpha": 16}}, got {type(given).__name__}.'
    )


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ImportError(
            '`lora` needs peft. Install it with `pip install "textgym[lora]"`.'
        ) from error
    return peft


def _config(peft: Any, model: nn.Module, options: LoraOptions) -> Any:
    names = [f.name for f in dataclasses.fields(peft.LoraConfig)]
    check_known("option of `lora`", options, [n for n in names if n not in _DECIDED] + [*_DECIDED])
    for name, why in _DECIDED.items():
        if options.get(name) is not None:
            raise ValueError(f"`lora`: leave `{name}` out; {why}.")
    if options.get("bias", "none") != "none":
        raise ValueError(
            f"`lora`: `bias` must be 'none', got {options['bias']!r}. Biases that were trained "
            "would stay in the reference model, which is this model with the adapter off."
        )
    keywords = {**options, "lora_dropout": 0.0}
    kind = getattr(model.config, "model_type", "")
    known = peft.utils.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
    if (
        keywords.get("target_modules") is None
        and keywords.get("target_parameters") is None
        and kind not in known
    ):
        keywords["target_modules"] = "all-linear"
    encoder_decoder = getattr(model.config, "is_encoder_decoder", False)
    task = "SEQ_2_SEQ_LM" if encoder_decoder else "CAUSAL_LM"
    return peft.LoraConfig(task_type=task, **keywords)
