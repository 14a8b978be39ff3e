"""BERTScore against loops in numpy."""

import numpy as np
import pytest
import torch

from textgym import Episode, Instance
from textgym_agents.rewards.embedding import EmbeddingSimilarity, f1

WORDS = ["the", "fox", "and", "owl", "river", "12", "cat", "é", "zq", "mats!"]


def episode(text, target):
    return Episode(
        Instance("p", target=target), np.zeros(1, np.int64), np.ones(1, bool), text, (), "stop"
    )


def pairs(count):
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield tuple(" ".join(rng.choice(WORDS, rng.integers(1, 7))) for _ in range(2))


def vectors(model, tokenizer, text, layer):
    ids = tokenizer(text).input_ids
    with torch.no_grad():
        states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[layer][0]
    special = set(tokenizer.all_special_ids)
    return [v.double().numpy() for v, i in zip(states, ids, strict=True) if i not in special]


def brute_force(model, tokenizer, text, target, layer):
    a, b = (vectors(model, tokenizer, t, layer) for t in (text, target))

    def cosine(x, y):
        return float(x @ y / np.sqrt((x @ x) * (y @ y)))

    precision = np.mean([max(cosine(x, y) for y in b) for x in a])
    recall = np.mean([max(cosine(x, y) for x in a) for y in b])
    precision, recall = max(0.0, precision), max(0.0, recall)
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("layer", [-1, 0, 1])
@pytest.mark.parametrize("which", ["encoder", "judge"])
def test_it_is_greedy_matching(which, layer, request):
    judge = request.getfixturevalue(which)
    asked = list(pairs(30))
    values = EmbeddingSimilarity(judge, layer)([episode(*pair) for pair in asked])
    assert values.dtype == np.float32
    expected = [brute_force(*judge, *pair, layer) for pair in asked]
    assert values == pytest.approx(expected, abs=1e-5)
    assert max(expected) - min(expected) > 0.1


def test_f1_by_hand():
    half = 0.5**0.5
    target = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert f1(torch.tensor([[1.0, 0.0]]), target) == pytest.approx(2 * 1 * 0.5 / 1.5)
    assert f1(torch.tensor([[half, half]]), target) == pytest.approx(half)
    assert f1(-target, target) == 0.0  # P = R = 0
    assert f1(torch.tensor([[-half, -half]]), target) == 0.0  # negative


def test_the_target_is_best_and_the_measure_symmetric(encoder):
    reward = EmbeddingSimilarity(encoder)
    for a, b in pairs(20):
        assert reward.value(a, a) == pytest.approx(1.0, abs=1e-6)
        assert reward.value(a, b) == pytest.approx(reward.value(b, a), abs=1e-6)
        assert reward.value(a, b) <= 1.0


def test_batched_is_single(encoder):
    episodes = [episode(*pair) for pair in pairs(20)]
    batched = EmbeddingSimilarity(encoder)(episodes)
    single = [EmbeddingSimilarity(encoder)([e])[0] for e in episodes]
    assert batched == pytest.approx(single, abs=1e-5)


def test_a_baseline_counts_as_nothing(encoder):
    episodes = [episode(*pair) for pair in pairs(31)]
    raw = EmbeddingSimilarity(encoder)(episodes).astype(np.float64)
    b = float(np.median(raw))
    scaled = EmbeddingSimilarity(encoder, baseline=b)(episodes)
    assert scaled == pytest.approx(np.maximum(0.0, (raw - b) / (1 - b)), abs=1e-6)
    assert (scaled > 0).sum() == 15


def test_empty_text_is_like_empty_text_alone(encoder):
    reward = EmbeddingSimilarity(encoder)
    assert reward.value("", "the fox") == reward.value("the fox", "") == 0.0
    assert reward.value("", "") == 1.0


def test_garbage_is_data(encoder, judge, garbage):
    for which in (encoder, judge):
        values = EmbeddingSimilarity(which)([episode(text, "the fox") for text in garbage])
        assert np.isfinite(values).all()
        assert ((values >= 0) & (values <= 1)).all()


def test_bad_arguments(encoder):
    with pytest.raises(ValueError, match="`layer` must be from -3 to 2, got 3"):
        EmbeddingSimilarity(encoder, 3)
    with pytest.raises(ValueError, match="`baseline` must be from 0 to below 1, got 1"):
        EmbeddingSimilarity(encoder, baseline=1.0)
    with pytest.raises(ValueError, match="compares with a target"):
        EmbeddingSimilarity(encoder)([episode("the fox", None)])


def test_specifications():
    reward = EmbeddingSimilarity.from_arguments("bundled, layer=0, baseline=0.25, name=alike")
    assert (reward.layer, reward.baseline, reward.name) == (0, 0.25, "alike")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        EmbeddingSimilarity.from_arguments("/nowhere")
