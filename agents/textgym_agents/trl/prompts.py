"""The prompts of an environment as a `datasets.Dataset`, and its tokenizer as TRL wants it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import tokenizers
from tokenizers.processors import TemplateProcessing

from textgym import TokenEnv, Tokenizer, TokenVectorEnv
from textgym.errors import check_positive_int
from textgym_agents.trl.source import AnyEnv, Source

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast


def prompts_dataset(
    env: AnyEnv,
    n: int,
    *,
    split: str | None = None,
    seed: int = 0,
    env_kwargs: Mapping[str, Any] | None = None,
    processing_class: Any = None,
) -> Dataset:
    """The first `n` questions that an environment reset with `seed` asks.

    A row says which instance its prompt is of, so that `reward_functions` can draw it again; no
    row depends on the others, and data sets of different seeds and splits can be mixed.

    Args:
        env: a registered id, or a single-turn token environment.
        n: rows, at least 1.
        split: ``"train"`` or ``"test"``; None is the environment's own.
        seed: of the environment's stream of instances.
        env_kwargs: keyword arguments of the environment, where `env` is an id.
        processing_class: the tokenizer given to the trainer; None is `as_trl_tokenizer(env)`.

    Returns:
        Columns `prompt` (text: TRL takes no ids), `seed`, `split` and `index`.

    Raises:
        ImportError: `datasets` is missing.
        ValueError: an environment that TRL cannot stand in for, see `Source`; or a
            `processing_class` under which the model would read other tokens than the environment
            gives.

    Example:
        >>> prompts_dataset("textgym/Sorting-v0", 8).column_names
        ['prompt', 'seed', 'split', 'index']
    """
    try:
        from datasets import Dataset
    except ImportError as error:
        raise ImportError(
            'prompts_dataset needs `datasets`. Install it with `pip install "textgym[trl]"`.'
        ) from error
    check_positive_int("n", n)
    source = Source(env, env_kwargs)
    split = source.split if split is None else split
    prompts = [source.draw(seed, split, index).prompt for index in range(n)]
    if processing_class is None:
        processing_class = as_trl_tokenizer(source.tokenizer)
    _check_tokens(source.tokenizer, processing_class, prompts)
    return Dataset.from_dict(
        {"prompt": prompts, "seed": [seed] * n, "split": [split] * n, "index": list(range(n))}
    )


def as_trl_tokenizer(source: Any = None) -> PreTrainedTokenizerFast:
    """The tokenizer of an environment, for a trainer's `processing_class`.

    It gives the environment's own tokens: a template that closes every text with end-of-sequence
    loses that part. Padding is on the left; where the tokenizer names no padding token, it pads
    with end-of-sequence, and no id is added to the vocabulary.

    Args:
        source: an environment, or what `Tokenizer.load` takes; None is the embedded tokenizer.

    Example:
        >>> as_trl_tokenizer().pad_token
        '<|endoftext|>'
    """
    from transformers import PreTrainedTokenizerFast  # seconds to import: only when needed

    base = getattr(source, "unwrapped", source)
    own = base.tokenizer if isinstance(base, TokenEnv | TokenVectorEnv) else Tokenizer.load(source)
    return PreTrainedTokenizerFast(
        tokenizer_object=_prompt_backend(own),
        eos_token=own.eos_token,
        pad_token=getattr(source, "pad_token", None) or own.eos_token,
        padding_side="left",
        truncation_side="left",
        clean_up_tokenization_spaces=False,
    )


def _prompt_backend(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    """A copy of the backend that adds to a prompt what `Tokenizer.encode` does, and no more."""
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    probe = "a"
    wanted, bare = tokenizer.encode(probe), tokenizer.encode(probe, special_tokens=False)
    if backend.encode(probe).ids != wanted:
        opening = [backend.id_to_token(i) for i in wanted[: len(wanted) - len(bare)]]
        backend.post_processor = TemplateProcessing(
            single=[*opening, "$A"],
            special_tokens=[(token, backend.token_to_id(token)) for token in opening],
        )
    return backend


def _check_tokens(tokenizer: Tokenizer, processing_class: Any, prompts: list[str]) -> None:
    read = processing_class(text=prompts)["input_ids"]
    for prompt, ids in zip(prompts, read, strict=True):
        wanted = tokenizer.encode(prompt)
        if list(ids) != wanted:
            raise ValueError(
                f"this `processing_class` reads the prompt {prompt[:60]!r} as {list(ids)}, and the "
                f"environment as {wanted}. Use `processing_class=as_trl_tokenizer(env)`."
            )
