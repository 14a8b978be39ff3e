"""A causal language model as a policy: loading, incremental decoding, exact log-probs.

Imports torch and transformers; knows nothing of any agent library.
"""

from textgym_agents.lm.causal_lm import CausalLM
from textgym_agents.lm.loading import (
    BUNDLED,
    ModelSource,
    ModelSpec,
    load_model,
    load_tokenizer,
    model_path,
    parameter_count,
)
from textgym_agents.lm.log_probs import Head, pack_support, token_log_probs, unpack_support
from textgym_agents.lm.sampling import SamplingRule, sample
from textgym_agents.lm.slot_cache import SlotCache

__all__ = [
    "BUNDLED",
    "CausalLM",
    "Head",
    "ModelSource",
    "ModelSpec",
    "SamplingRule",
    "SlotCache",
    "load_model",
    "load_tokenizer",
    "model_path",
    "pack_support",
    "parameter_count",
    "sample",
    "token_log_probs",
    "unpack_support",
]
