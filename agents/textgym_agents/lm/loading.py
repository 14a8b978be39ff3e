"""Loading a language model and its tokenizer, with errors that say which and what to do."""

from __future__ import annotations

import copy
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
import torch
from torch import nn

from textgym import Tokenizer

BUNDLED = Path(__file__).resolve().parent.parent / "bundled"

# Files of SentencePiece tokenizers, which `tokenizers` does not read.
_PIECES = ("*.spm", "*spiece.model", "sentencepiece*.model")

# Learning rates that work: 3e-4 at 260 thousand parameters, 1e-5 at 124 million.
_RATE, _SIZE = 3e-4, 260e3
_EXPONENT = math.log(30.0) / math.log(124e6 / 260e3)

_HTTP_LIBRARIES = ("httpx", "httpcore", "httpx2", "httpcore2", "requests", "urllib3")


@dataclass(frozen=True)
class ModelSpec:
    """What is needed to build a model again without its folder: plain strings.

    Args:
        config: the model's configuration as JSON.
        generation_config: its generation settings as JSON, or an empty string.
        tokenizer: the tokenizer as the JSON of the `tokenizers` library, or an empty string where
            it is not known.
        eos_token: its end-of-sequence token.
    """

    config: str
    generation_config: str
    tokenizer: str
    eos_token: str

    @classmethod
    def of(cls, model: nn.Module, tokenizer: Tokenizer | None) -> ModelSpec:
        """The specification of `model`."""
        generation = getattr(model, "generation_config", None)
        return cls(
            model.config.to_json_string(use_diff=False),
            generation.to_json_string() if generation is not None else "",
            "" if tokenizer is None else tokenizer.backend.to_str(),
            "" if tokenizer is None else tokenizer.eos_token,
        )

    def build(self) -> tuple[nn.Module, Tokenizer | None]:
        """A model of this configuration, its weights still random, and its tokenizer."""
        from transformers import AutoConfig, GenerationConfig

        data = json.loads(self.config)
        config = AutoConfig.for_model(data.pop("model_type"), **data)
        model = _auto_class(config).from_config(config, dtype=torch.float32)
        if self.generation_config:
            model.generation_config = GenerationConfig.from_dict(json.loads(self.generation_config))
        return model, self.build_tokenizer()

    def build_tokenizer(self) -> Tokenizer | None:
        """The tokenizer, where it is known."""
        if not self.tokenizer:
            return None
        backend = tokenizers.Tokenizer.from_str(self.tokenizer)
        return Tokenizer(backend, eos_token=self.eos_token, name="saved with the agent")


ModelSource = str | os.PathLike[str] | nn.Module | ModelSpec


def model_path(source: str | os.PathLike[str]) -> Path | None:
    """The folder `source` names, or None for a hub id.

    Raises:
        FileNotFoundError: it looks like a folder, and there is none.
    """
    if source == "bundled":
        return BUNDLED
    path = Path(source).expanduser()
    text = os.fspath(source)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise FileNotFoundError(
                f"model: no config.json in {text}. Expected a folder written by "
                "`save_pretrained`, a hub id such as `gpt2`, or `bundled`."
            )
        return path
    if text.startswith((".", "/", "~")) or text.count("/") > 1 or path.exists():
        raise FileNotFoundError(
            f"model: no such folder: {text}. Expected a folder written by `save_pretrained`, "
            "a hub id such as `gpt2`, or `bundled`."
        )
    return None


def load_tokenizer(source: ModelSource) -> Tokenizer | None:
    """The tokenizer of the model `source` names; None where a bare module does not tell."""
    if isinstance(source, nn.Module):
        return None
    if isinstance(source, ModelSpec):
        return source.build_tokenizer()
    path = model_path(source)
    if path is not None and not (path / "tokenizer.json").is_file():
        pieces = sorted(f.name for pattern in _PIECES for f in path.glob(pattern))
        if pieces:
            raise ValueError(
                f"tokenizer: {path} has only {', '.join(pieces)} and no tokenizer.json. Save a "
                "fast tokenizer there with `AutoTokenizer.from_pretrained(...)"
                ".save_pretrained(folder)` (T5, mBART), or take another model where there is none "
                "(Marian)."
            )
    return Tokenizer.load(os.fspath(source) if path is None else path)


def load_model(source: ModelSource, *, trust_remote_code: bool = False) -> nn.Module:
    """The language model that `source` names, causal or encoder-decoder, in float32 on the CPU.

    Args:
        source: ``"bundled"``, a folder, a hub id, a module (copied, not shared) or a `ModelSpec`.
        trust_remote_code: as in `from_pretrained`.

    Raises:
        FileNotFoundError: no such folder, or no such model on the hub.
        ConnectionError: the hub could not be reached.
        ValueError: not a language model that writes, or unreadable files.
    """
    if isinstance(source, nn.Module):
        return copy.deepcopy(source).float()
    if isinstance(source, ModelSpec):
        return source.build()[0]
    if not isinstance(source, str | os.PathLike):
        raise TypeError(
            "`model` must be `bundled`, a folder, a hub id or a module, "
            f"got {type(source).__name__}."
        )
    path = model_path(source)
    from transformers import AutoConfig  # seconds to import: only when needed
    from transformers.utils import logging

    name = os.fspath(source if path is None else path)
    common = {"local_files_only": path is not None, "trust_remote_code": trust_remote_code}
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # a line of noise for a model that loads in no time
    try:
        config = AutoConfig.from_pretrained(name, **common)
        # An update of 1e-5 vanishes in bfloat16: the weights that learn are float32.
        return _auto_class(config).from_pretrained(
            name, config=config, dtype=torch.float32, **common
        )
    except Exception as error:
        raise _explained(error, os.fspath(source), path) from error
    finally:
        if bars:
            logging.enable_progress_bar()


def _auto_class(config: Any) -> Any:
    """The class that loads a model of this configuration."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    encoder_decoder = getattr(config, "is_encoder_decoder", False)
    return AutoModelForSeq2SeqLM if encoder_decoder else AutoModelForCausalLM


def _explained(error: Exception, name: str, path: Path | None) -> Exception:
    """The same failure as one line that says which model and what to do."""
    first = next(iter(str(error).strip().splitlines()), type(error).__name__)
    chain, seen = error, []
    while chain is not None:
        seen.append(chain)
        chain = chain.__cause__ or chain.__context__
    kinds = {type(e).__name__ for e in seen}
    text = " ".join(str(e) for e in seen)
    if "Unrecognized configuration class" in text or "AutoModelFor" in first:
        return ValueError(
            f"model: {name} is not a causal language model, nor an encoder-decoder one. Expected "
            "an architecture that `AutoModelForCausalLM` loads, such as GPT-2 or Llama, or "
            "`AutoModelForSeq2SeqLM`, such as T5."
        )
    if path is not None:
        return ValueError(
            f"model: {name} cannot be loaded: {first} Expected a folder that "
            "`AutoModelForCausalLM.from_pretrained` or `AutoModelForSeq2SeqLM.from_pretrained` "
            "reads."
        )
    if kinds & {"RepositoryNotFoundError", "GatedRepoError"}:
        return FileNotFoundError(
            f"model: the hub has no (public) model {name!r}. Check the spelling, or log in with "
            "`hf auth login` if it is private."
        )
    if kinds & {"HFValidationError"}:
        return ValueError(
            f"model: {name!r} is neither an existing folder nor a hub id (`name` or `owner/name`)."
        )
    offline = {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectionError"}
    http = any(type(e).__module__.split(".")[0] in _HTTP_LIBRARIES for e in seen)
    if kinds & offline or http:
        return ConnectionError(
            f"model: {name!r} is no folder here, and the hub could not be reached to fetch it. "
            "Check the spelling and the network, or give a folder that has it."
        )
    return ValueError(f"model: {name!r} cannot be loaded: {first}")


def parameter_count(model: nn.Module) -> int:
    """Number of parameters, tied ones once."""
    return sum(p.numel() for p in model.parameters())


def suggested_learning_rate(parameters: int) -> float:
    """A learning rate for a model of that many parameters, by a power law between known ones."""
    return float(_RATE * min(1.0, _SIZE / parameters) ** _EXPONENT)
