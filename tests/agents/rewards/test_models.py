"""Models loaded once, batches within bounds, a cache that forgets."""

import copy
import pickle

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM

from textgym_agents.rewards.models import (
    TextCache,
    batches_by_length,
    padded,
    reading_limit,
    shared_model,
    sound,
)
from textgym_agents.rewards.perplexity import LogProb


@pytest.fixture
def folder(judge, tmp_path):
    for part in judge:
        part.save_pretrained(tmp_path)
    return tmp_path


def test_a_model_is_loaded_once_for_each_kind(folder, monkeypatch):
    model, tokenizer = shared_model(AutoModelForCausalLM, folder, "cpu")
    monkeypatch.chdir(folder.parent)
    again = shared_model(AutoModelForCausalLM, f"./{folder.name}", "cpu")
    assert again[0] is model
    assert again[1] is tokenizer
    other, _ = shared_model(AutoModel, folder, "cpu")
    assert other is not model
    assert type(other).__name__ == "GPT2Model"


def test_a_model_is_ready_to_judge(folder, judge):
    model, _ = shared_model(AutoModelForCausalLM, folder, "cpu")
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    ids = torch.arange(12)[None]
    assert torch.equal(model(ids).logits, judge[0](ids).logits)


def test_a_pair_is_used_as_it_is(judge):
    assert shared_model(AutoModelForCausalLM, judge) is judge


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such folder: \./nowhere"):
        shared_model(AutoModel, "./nowhere")
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        shared_model(AutoModel, tmp_path)


def test_a_folder_without_weights_is_named(judge, tmp_path):
    judge[1].save_pretrained(tmp_path)
    judge[0].config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"{tmp_path.name} cannot be loaded .*AutoModel"):
        shared_model(AutoModel, tmp_path)


def test_rewards_share_a_folder_even_if_copied_or_sent_away(folder, judge):
    reward = LogProb(str(folder), device="cpu")
    kept = len(pickle.dumps(reward))
    assert kept < 10_000
    for other in (copy.deepcopy(reward), pickle.loads(pickle.dumps(reward))):
        assert other._judge()[0] is reward._judge()[0]
        assert other.value("the fox") == reward.value("the fox") == LogProb(judge).value("the fox")


def test_batches_hold_every_index_once_within_bounds():
    rng = np.random.default_rng(0)
    for _ in range(100):
        lengths = rng.integers(0, 300, rng.integers(0, 60)).tolist()
        bound = int(rng.integers(1, 2000))
        batches = batches_by_length(lengths, bound)
        assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
        for batch in batches:
            longest, shortest = max(lengths[i] for i in batch), min(lengths[i] for i in batch)
            assert len(batch) == 1 or len(batch) * longest <= bound
            assert longest <= 2 * shortest + 16


def test_the_cache_asks_once_and_forgets_the_least_recently_used():
    asked = []

    def compute(new):
        asked.append(list(new))
        return [float(len(text)) for text in new]

    cache = TextCache(size=3)
    assert cache.lookup(["a", "bb", "a", "ccc"], compute).tolist() == [1, 2, 1, 3]
    assert cache.lookup(["a"], compute).tolist() == [1]
    assert cache.lookup(["dddd"], compute).tolist() == [4]  # "bb" goes
    assert cache.lookup(["bb", "a", "\ud800"], compute).tolist() == [2, 1, 1]
    assert asked == [["a", "bb", "ccc"], ["dddd"], ["bb", "\ud800"]]
    assert len(cache) == 3
    many = [str(i) for i in range(10)]
    assert cache.lookup(many, compute).tolist() == [1.0] * 10  # more than it holds
    assert cache.lookup([], compute).shape == (0,)


def test_the_cache_tells_texts_and_tuples_apart_and_keeps_no_failures():
    cache = TextCache()
    keys = ["a", ("a",), ("a", ""), ("", "a"), "('a',)"]
    values = np.arange(5.0)
    assert cache.lookup(keys, lambda new: values).tolist() == values.tolist()
    with pytest.raises(ZeroDivisionError):
        cache.lookup(["b"], lambda new: 1 / 0)
    with pytest.raises(ValueError, match="shorter"):
        cache.lookup(["b"], lambda new: [])
    assert cache.lookup(["b"], lambda new: [7.0]).tolist() == [7.0]
    with pytest.raises(ValueError, match="at least 1, got 0"):
        TextCache(size=0)


def test_padding_and_limits(judge):
    ids, mask = padded([[5, 6, 7], [8]], "cpu")
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert reading_limit(*judge, 50) == 50
    assert reading_limit(*judge, 5000) == 128
    with pytest.raises(ValueError, match="at least 2, got 1"):
        reading_limit(*judge, 1)


def test_lone_surrogates_are_replaced():
    assert sound("a\ud800é\x00") == "a?é\x00"
