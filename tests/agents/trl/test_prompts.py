"""The model reads the environment's own prompt tokens."""

from __future__ import annotations

import gymnasium as gym
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing

import textgym  # noqa: F401
from textgym import Tokenizer
from textgym_agents.trl import as_trl_tokenizer, prompts_dataset


def words(template: str | None) -> Tokenizer:
    """A tokenizer of words whose `template` adds to a text."""
    vocabulary = ["</s>", "<s>", "<unk>", "a", "sort", "these"]
    backend = tokenizers.Tokenizer(
        models.WordLevel({w: i for i, w in enumerate(vocabulary)}, unk_token="<unk>")
    )
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece(prefix="", cleanup=False)
    backend.add_special_tokens(["<s>", "</s>"])
    if template:
        backend.post_processor = TemplateProcessing(
            single=template, special_tokens=[("<s>", 1), ("</s>", 0)]
        )
    return Tokenizer(backend, eos_token="</s>", name="words")


def read_by_the_model(env, row) -> list[int]:
    """The context right after reset."""
    observation, info = env.reset(seed=row["seed"], options={"index": row["index"]})
    assert info["prompt"] == row["prompt"]
    return observation["input_ids"][observation["attention_mask"] == 1].tolist()


@pytest.mark.parametrize("env_id", ["Story", "Arithmetic", "Translation", "TokenLock"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_prompt_tokens_are_those_of_the_observation(env_id, split):
    env = gym.make(f"textgym/{env_id}-v0", split=split)
    rows = prompts_dataset(env, 12, seed=5)
    read = as_trl_tokenizer(env)(text=list(rows["prompt"]))["input_ids"]
    for row, ids in zip(rows, read, strict=True):
        assert row["split"] == split
        assert ids == read_by_the_model(env, row)


@pytest.mark.parametrize("template", [None, "<s> $A", "$A </s>", "<s> $A </s>"])
def test_special_tokens_are_the_environments(template):
    tokenizer = words(template)
    texts = ["a", "sort these", "these a sort of"]
    for text, ids in zip(texts, as_trl_tokenizer(tokenizer)(text=texts)["input_ids"], strict=True):
        assert ids == tokenizer.encode(text)
        assert ids[-1] != tokenizer.eos_token_id
        assert (ids[0] == 1) == bool(template and template.startswith("<s>"))


def test_another_tokenizer_is_refused():
    from transformers import PreTrainedTokenizerFast

    tokenizer = words("$A </s>")
    naive = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend, eos_token="</s>")
    with pytest.raises(ValueError, match="as_trl_tokenizer"):
        prompts_dataset(
            gym.make("textgym/Sorting-v0", tokenizer=tokenizer), 2, processing_class=naive
        )


def test_the_tokenizer_keeps_its_vocabulary_and_pads_on_the_left():
    own = Tokenizer.load()
    fast = as_trl_tokenizer()
    assert Tokenizer.load(fast) == own
    assert (len(fast), fast.eos_token_id) == (own.vocab_size, own.eos_token_id)
    assert (fast.padding_side, fast.pad_token_id) == ("left", own.eos_token_id)
    padded = fast(text=["a", "a b c d"], padding=True)
    assert padded["attention_mask"][0][0] == 0
    fast.add_special_tokens({"pad_token": "<|pad|>"})
    assert as_trl_tokenizer(fast).pad_token == "<|pad|>"


def test_rows_are_the_environments_stream():
    env = gym.make("textgym/Story-v0")
    rows = prompts_dataset("textgym/Story-v0", 3, seed=7)
    _, info = env.reset(seed=7)
    assert rows[0]["prompt"] == info["prompt"]
    env.reset()
    assert rows[2]["prompt"] == env.reset()[1]["prompt"]
    other = prompts_dataset("textgym/Story-v0", 3, seed=7, split="test")
    assert not set(rows["prompt"]) & set(other["prompt"])
    levelled = prompts_dataset("textgym/Arithmetic-v0", 3, env_kwargs={"level": 2})
    assert levelled["prompt"] != prompts_dataset("textgym/Arithmetic-v0", 3)["prompt"]


def test_no_rows_are_no_data_set():
    with pytest.raises(ValueError, match="`n` must be a positive int"):
        prompts_dataset("textgym/Story-v0", 0)
    with pytest.raises(ValueError, match="`split` must be"):
        prompts_dataset("textgym/Story-v0", 1, split="validation")
