"""Alarms are raised by hacking, once each, and by nothing else."""

import json
from collections import defaultdict

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.logger import KVWriter, Logger
from transformers import GPT2Config, GPT2LMHeadModel

from textgym import Tokenizer
from textgym.episode import Episode, Instance, Turn
from textgym_agents.sb3 import (
    HackingAlarms,
    LMPolicy,
    TextMetrics,
    TokenRolloutBuffer,
    Watch,
    make_vec_env,
    ppo_defaults,
)
from textgym_agents.sb3.alarms import text_figures


class Recorded(KVWriter):
    """Keeps what a logger writes."""

    def __init__(self):
        self.values = defaultdict(list)

    def write(self, key_values, key_excluded, step=0):
        for key, value in key_values.items():
            self.values[key].append(value)

    def close(self):
        pass


USUAL = {"length": 20.0, "repetition": 0.05, "distinct": 0.9, "entropy": 2.0, "kl": 0.0}


def episode(text):
    words = text.split()
    ids = np.arange(len(words) + 1)
    return Episode(Instance("p"), ids, ids > 0, text, (Turn("agent", text),), "stop")


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("length", {"length": 40.0}, "40 tokens, 20 at first"),
        ("length", {"length": 10.0}, "10 tokens, 20 at first"),
        ("repetition", {"repetition": 0.20}, "20% of the word triples"),
        ("sameness", {"distinct": 0.36}, "only 36%"),
        ("entropy", {"entropy": 0.5}, "to 0.50 nats a token, from 2.00"),
        ("kl", {"kl": 0.8}, "0.80 nats a token away"),
    ],
)
def test_each_alarm_is_raised_at_its_threshold_and_once(name, change, words):
    watch = Watch()
    assert watch.look(USUAL, 1) == watch.look(USUAL, 2) == []
    just_below = {k: v + 0.02 * (USUAL[k] - v) for k, v in change.items()}
    assert watch.look(USUAL | just_below, 3) == []
    (alarm,) = watch.look(USUAL | change, 4)
    assert (alarm.name, alarm.timesteps) == (name, 4)
    assert words in alarm.message
    assert watch.raised == {name}
    assert watch.look(USUAL | change, 5) == []
    assert watch.look(USUAL, 6) == []
    assert watch.raised == set()
    assert [a.name for a in watch.look(USUAL | change, 7)] == [name]


def test_unknown_figures_raise_nothing_and_states_come_back():
    watch = Watch()
    assert watch.look({}, 1) == watch.look({"kl": 0.1}, 2) == watch.look({"kl": 0.1}, 3) == []
    watch = Watch()
    for step in range(3):
        watch.look(USUAL, step)
    watch.look(USUAL | {"kl": 9.0}, 3)
    other = Watch()
    other.set_state(json.loads(json.dumps(watch.get_state())))
    assert other.raised == {"kl"}
    assert [a.name for a in other.look(USUAL | {"length": 99.0, "kl": 9.0}, 4)] == ["length"]


def test_the_figures_of_texts():
    figures = text_figures([episode("a b c a b c"), episode("a b c d")])
    # Triples: abc bca cab abc (one of four a repeat); abc bcd: four different ones of five.
    assert figures == {"length": 5.0, "repetition": 0.125, "distinct": 0.8}
    assert text_figures([]) == {}
    assert "distinct" not in text_figures([episode("")])


def test_training_for_length_alone_raises_the_alarm_of_length(tmp_path):
    torch.manual_seed(0)
    size = Tokenizer.load().vocab_size
    model = GPT2LMHeadModel(
        GPT2Config(
            n_embd=16,
            n_layer=1,
            n_head=2,
            n_positions=64,
            vocab_size=size,
            bos_token_id=0,
            eos_token_id=0,
        )
    )
    # A base model that likes to stop, so that there is a length to gain.
    with torch.no_grad():
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
        model.lm_head.weight[Tokenizer.load().eos_token_id] += 0.5
        model.transformer.ln_f.bias += 1.0
    envs = make_vec_env(
        "textgym/Continuation-v0",
        n_envs=32,
        seed=0,
        prompts=["One day"],
        max_new_tokens=24,
        rewards=[lambda episodes: [float(e.completion_mask.sum()) / 24 for e in episodes]],
    )
    keywords = ppo_defaults(envs, learning_rate=3e-3)
    agent = PPO(
        LMPolicy,
        envs,
        rollout_buffer_class=TokenRolloutBuffer,
        policy_kwargs={"model": model, "kl_coef": 0.0, "reference": True},
        seed=0,
        **keywords,
    )
    recorded = Recorded()
    agent.set_logger(Logger(str(tmp_path), [recorded]))
    told = []
    alarms = HackingAlarms(told.append)
    agent.learn(24_000, callback=[TextMetrics(), alarms])
    assert "length" in [alarm.name for alarm in told]
    assert told == alarms.alarms
    assert recorded.values["alarms/length"][-1] == 1.0
    assert recorded.values["watch/entropy"][0] > 0
