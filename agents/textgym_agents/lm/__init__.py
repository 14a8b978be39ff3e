"""A language model as a policy: loading, incremental decoding, exact log-probs.

Imports torch and transformers; knows nothing of any agent library.
"""

from textgym_agents.lm.build import build_language_model
from textgym_agents.lm.causal_lm import CausalLM
from textgym_agents.lm.language_model import LanguageModel
from textgym_agents.lm.loading import (
    BUNDLED,
    ModelSource,
    ModelSpec,
    load_model,
    load_tokenizer,
    model_path,
    parameter_count,
    suggested_learning_rate,
)
from textgym_agents.lm.log_probs import Head, pack_support, token_log_probs, unpack_support
from textgym_agents.lm.lora import LORA_RATE, Adapter, WithoutAdapter, lora_options
from textgym_agents.lm.sampling import SamplingRule, sample
from textgym_agents.lm.seq2seq import Seq2SeqLM
from textgym_agents.lm.seq2seq_slots import Seq2SeqSlots
from textgym_agents.lm.slot_cache import SlotCache

__all__ = [
    "BUNDLED",
    "LORA_RATE",
    "Adapter",
    "CausalLM",
    "Head",
    "LanguageModel",
    "ModelSource",
    "ModelSpec",
    "SamplingRule",
    "Seq2SeqLM",
    "Seq2SeqSlots",
    "SlotCache",
    "WithoutAdapter",
    "build_language_model",
    "load_model",
    "load_tokenizer",
    "lora_options",
    "model_path",
    "pack_support",
    "parameter_count",
    "sample",
    "suggested_learning_rate",
    "token_log_probs",
    "unpack_support",
]
