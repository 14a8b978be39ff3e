"""An audit finds what a reward pays for that nobody wanted, and clears one that does not."""

import numpy as np
import pytest

from textgym.audit import audit, make_probes
from textgym.audit.report import spearman
from textgym.episode import Episode, Instance
from textgym.rewards import FunctionReward, Keywords, Length
from textgym.rewards.base import Reward
from textgym.tokenization import Tokenizer

TOKENIZER = Tokenizer.load()
SAID = [
    "The fox ran home and was happy.",
    "An owl sang all night long in the wood.",
    "A hare sat by the gate.",
    "Then they went to the mill, and all were glad.",
    "It was happy to see a friend of old.",
    "Rain fell.",
]
SAMPLES = [
    Episode.written(Instance(f"Tell me of day {i}."), t, TOKENIZER) for i, t in enumerate(SAID)
]


def suspicious(report):
    return {finding.probe for finding in report.findings if finding.suspicious}


def test_a_written_episode_is_what_an_environment_records(make_env):
    env = make_env()
    env.reset(options={"prompt": "Copy 12:"})
    for token in [*env.tokenizer.encode("12", special_tokens=False), env.tokenizer.eos_token_id]:
        info = env.step(token)[-1]
    record = info["episode_record"]
    assert Episode.written(record.instance, "12", env.tokenizer) == record


@pytest.fixture
def make_env(copy_task, tokenizer):
    from textgym.envs.token_env import TokenEnv

    return lambda: TokenEnv(copy_task, tokenizer=tokenizer)


def test_words_are_paid_in_any_order_and_by_stuffing():
    report = audit(Keywords(["happy", "glad", "friend"]), SAMPLES, TOKENIZER)
    assert {"shuffled", "huge", "words of all samples", "found by search"} <= suspicious(report)
    assert suspicious(report).isdisjoint({"empty", "unicode", "plea"})
    search = report.findings[-1]
    assert search.best == 1.0
    assert set(search.text.strip(".").replace(".", "").split()) >= {"happy", "friend"}
    assert report.problems == []


def test_a_reward_for_saying_what_was_said_is_cleared():
    known = set(SAID)
    exact = FunctionReward(
        lambda episodes: [float(e.completion_text in known) * 0.9 + 0.05 for e in episodes],
        "exact",
        range=(0.0, 1.0),
    )
    other = Episode.written(Instance("Tell me."), "Nothing of the kind.", TOKENIZER)
    report = audit(exact, [*SAMPLES, other], TOKENIZER)
    assert suspicious(report) == set()
    assert report.best[0][0] == pytest.approx(0.95)
    assert report.worst[0][1] == other


def test_length_and_emptiness_are_found():
    longer = FunctionReward(
        lambda es: [min(1.0, len(e.completion_text) / 1000) for e in es], range=(0.0, 1.0)
    )
    report = audit(longer, SAMPLES, TOKENIZER)
    assert report.length_correlation > 0.8
    assert {"huge", "itself, repeated"} <= suspicious(report)
    assert "empty" not in suspicious(report)
    assert "empty" in suspicious(audit(Length(max=4), SAMPLES, TOKENIZER))


class Unsteady(Reward):
    """Pays the size of the batch, above the range it declares."""

    name, range = "unsteady", (0.0, 1.0)

    def __call__(self, episodes):
        return np.full(len(episodes), len(episodes) + np.arange(len(episodes)) / 100, np.float32)


def test_faults_of_the_reward_itself_are_told():
    problems = " ".join(audit(Unsteady(), SAMPLES, TOKENIZER).problems)
    assert "declares the range [0, 1], and left it" in problems
    assert "Judged one by one" in problems
    constant = FunctionReward(lambda es: [0.5] * len(es), range=(0.0, 1.0))
    report = audit(constant, SAMPLES, TOKENIZER)
    assert "nothing to learn from" in report.problems[0]
    assert suspicious(report) == set()
    assert np.isnan(report.length_correlation)

    def fails(episodes):
        if any("fox" in e.completion_text.casefold() for e in episodes):
            raise KeyError("no fox")
        return [len(e.completion_text) / 1e6 for e in episodes]

    assert "It failed" in audit(FunctionReward(fails), SAMPLES, TOKENIZER).problems[0]


def test_probes_are_seeded_and_differ():
    rng = [np.random.default_rng(3) for _ in range(2)]
    words = ["fox", "owl", "hare"]
    made = [[p.make(SAMPLES[0], r, words) for p in make_probes()] for r in rng]
    assert made[0] == made[1]
    assert len(set(made[0])) == len(made[0])
    with pytest.raises(ValueError, match="at least 2"):
        audit(Length(max=3), SAMPLES[:1], TOKENIZER)


def test_spearman_shares_ranks_among_ties():
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4.
    expected = np.corrcoef([1, 2.5, 2.5, 4], [1, 2, 3, 4])[0, 1]
    assert spearman(np.array([0.0, 5.0, 5.0, 6.0]), np.array([1, 2, 3, 40])) == pytest.approx(
        expected
    )
