"""Log-probs against one forward a token, by hand."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from textgym import Episode, Instance, Turn
from textgym_agents.rewards.perplexity import LogProb, Perplexity

PIECES = ["the fox", " and", " the owl", " 12", "\n", "zq", " went to", "!", " mats", "riv", "er"]


def episode(prompt, *said, tokens=()):
    """An episode of text alone; `said` alternates between agent and task."""
    turns = tuple(Turn("task" if i % 2 else "agent", text) for i, text in enumerate(said))
    text = "\n".join(turn.text for turn in turns if turn.role == "agent")
    ids = np.array([*tokens, 0], np.int64)
    return Episode(Instance(prompt), ids, np.ones(len(ids), bool), text, turns, "stop")


@torch.no_grad()
def log_prob(model, ids, position):
    """Of one token, from a forward of what comes before it."""
    logits = model(torch.tensor([ids[:position]])).logits[0, -1].double()
    return float(logits.log_softmax(-1)[ids[position]])


def by_hand(judge, prompt, completion):
    model, tokenizer = judge
    ids = tokenizer.backend_tokenizer.encode(prompt + completion).ids
    ends = np.cumsum([len(tokenizer.decode([i])) for i in ids])
    first = int((ends <= len(prompt)).sum())
    if first == 0:
        ids, first = [tokenizer.eos_token_id, *ids], 1
    return np.mean([log_prob(model, ids, at) for at in range(first, len(ids))])


def samples(count):
    rng = np.random.default_rng(0)
    for _ in range(count):
        cut = rng.integers(0, 6)
        words = rng.choice(PIECES, cut + rng.integers(1, 6))
        prompt = "".join(words[:cut])
        # Sometimes in the middle of a word, so that a token holds both prompt and completion.
        if len(prompt) > 2 and rng.random() < 0.3:
            yield prompt[:-1], prompt[-1] + "".join(words[cut:])
        else:
            yield prompt, "".join(words[cut:])


def test_it_is_the_mean_over_the_tokens_that_hold_completion(judge):
    asked = list(samples(40))
    values = LogProb(judge)([episode(*one) for one in asked])
    assert values.dtype == np.float32
    assert values == pytest.approx([by_hand(judge, *one) for one in asked], abs=1e-5)


def test_alone_the_prompt_does_not_matter(judge):
    reward = LogProb(judge, with_prompt=False)
    values = reward([episode("the fox", " and"), episode("12", " and"), episode("", " and")])
    assert values == pytest.approx([by_hand(judge, "", " and")] * 3, abs=1e-6)
    assert LogProb(judge)([episode("the fox", " and")])[0] != pytest.approx(values[0], abs=1e-3)


def test_batched_is_single_and_cached_is_computed(judge):
    episodes = [episode(*one) for one in samples(20)]
    reward = LogProb(judge)
    batched = reward(episodes)
    assert reward(episodes[::-1]).tolist() == batched[::-1].tolist()
    single = [LogProb(judge)([e])[0] for e in episodes]
    assert batched == pytest.approx(single, abs=1e-5)
    e = episodes[0]
    assert reward.value(e.completion_text, e.prompt) == pytest.approx(batched[0], abs=1e-6)


def test_of_a_dialogue_only_the_agent_is_judged(judge):
    model, tokenizer = judge
    parts = ["the fox", "!", "\n", "12", "!"]  # no token goes over a seam here
    ids = [tokenizer.backend_tokenizer.encode(part).ids for part in parts]
    flat = [i for part in ids for i in part]
    assert tokenizer.backend_tokenizer.encode("".join(parts)).ids == flat
    own = np.concatenate([[i in (1, 3)] * len(part) for i, part in enumerate(ids)])
    expected = np.mean([log_prob(model, flat, int(at)) for at in np.flatnonzero(own)])
    assert LogProb(judge)([episode(parts[0], *parts[1:])])[0] == pytest.approx(expected, abs=1e-5)


def test_the_very_ids_are_judged_where_the_tokenizers_are_the_same(kindred_judge, judge):
    model, _ = kindred_judge
    reward = LogProb(kindred_judge)
    env = gym.make("textgym/Continuation-v0", rewards=[reward], max_new_tokens=9)
    rng = np.random.default_rng(0)
    for seed in range(3):
        _, _ = env.reset(seed=seed)
        ended = False
        while not ended:
            _, _, ended, _, info = env.step(int(rng.integers(1, 1000)))
        record = info["episode_record"]
        at = np.flatnonzero(record.completion_mask & (record.input_ids != 0))
        ids = record.input_ids.tolist()
        expected = np.mean([log_prob(model, ids, int(i)) for i in at])
        assert info["rewards"]["log_prob"] == pytest.approx(expected, abs=1e-5)
    # Once an environment with other tokens pays it too, it reads text.
    other = gym.make("textgym/Continuation-v0", rewards=[reward], tokenizer=judge[1])
    assert other.unwrapped.tokenizer != env.unwrapped.tokenizer
    expected = reward.value(record.completion_text, record.prompt)
    assert reward([record])[0] == pytest.approx(expected, abs=1e-6)


def test_end_of_sequence_alone_is_no_text(kindred_judge):
    reward = LogProb(kindred_judge)
    env = gym.make("textgym/Story-v0", rewards=[reward], score_weight=0.0)
    env.reset(seed=0)
    size = env.unwrapped.tokenizer.vocab_size
    value = env.step(env.unwrapped.tokenizer.eos_token_id)[1]
    assert value == pytest.approx(-np.log(size), abs=1e-6)


def test_garbage_is_data(judge, garbage):
    rewards = LogProb(judge), Perplexity(judge), LogProb(judge, with_prompt=False)
    for reward in rewards:
        values = reward([episode("the fox", text) for text in garbage])
        low, high = reward.range
        assert np.isfinite(values).all()
        assert ((low <= values) & (values <= high)).all()
    assert rewards[0].value("") == pytest.approx(-np.log(300))
    assert rewards[1].value("") == pytest.approx(1 / 300)
    assert rewards[0].value("", "the fox") == pytest.approx(-np.log(300))


def test_a_spelt_out_special_token_is_text(judge):
    ids = judge[1].backend_tokenizer
    spelt = [i for c in "<end>" for i in ids.encode(c).ids]
    seen = LogProb(judge)._encoded((("the", False), ("<end>", True)))[0].tolist()
    assert judge[1].eos_token_id not in seen
    assert judge[1].decode(seen) == judge[1].decode([*ids.encode("the").ids, *spelt])


def test_of_a_long_text_the_first_token_and_those_around_the_seam_are_read(judge):
    reward = LogProb(judge, max_tokens=10)

    def read(prompt, completion):
        ids, own = reward._encoded((("x" * prompt, False), ("y" * completion, True)))
        assert len(ids) <= 10
        return int((~own).sum()), int(own.sum())

    assert read(4, 6) == (4, 6)
    assert read(4, 600) == (4, 6)
    assert read(600, 3) == (7, 3)
    assert read(600, 600) == (5, 5)
    assert read(0, 600) == (1, 9)  # the start token
    ids, _ = reward._encoded((("a" + "x" * 600, False), ("y", True)))
    assert judge[1].decode(ids) == "a" + "x" * 8 + "y"


def test_perplexity_is_one_over_it(judge):
    episodes = [episode(*one) for one in samples(10)]
    expected = np.exp(LogProb(judge)(episodes))
    assert Perplexity(judge)(episodes) == pytest.approx(expected, rel=1e-5)


def test_a_model_that_knows_stories_prefers_sense():
    prompt = "Long ago Jack the owl was sad near the market and wished for a golden cup."
    sense = " Jack walked to the hill. By the gate Jack met Finn the hare. Finn told him a secret."
    shuffled = " " + " ".join(np.random.default_rng(0).permutation(sense.split()))
    reward = LogProb("bundled")
    assert reward.value(sense, prompt) > -2.0
    assert reward.value(shuffled, prompt) < -5.0


def test_specifications():
    reward = LogProb.from_arguments("bundled, with_prompt=false, max_tokens=64, name=judge")
    assert (reward.with_prompt, reward._limit, reward.name) == (False, 64, "judge")
    assert Perplexity.from_arguments("bundled").name == "perplexity"
    with pytest.raises(ValueError, match="it needs `model`"):
        Perplexity.from_arguments("")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        LogProb.from_arguments("/nowhere")
    with pytest.raises(ValueError, match="at least 2, got 1"):
        LogProb.from_arguments("bundled,max_tokens=1")
