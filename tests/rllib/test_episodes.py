from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from textgym_agents.rllib import TextPPO
from textgym_agents.rllib.episodes import (
    ADVANTAGES,
    RETURNS,
    WEIGHT,
    PackEpisodes,
    gae,
    record_of,
    spread,
    whitened,
)
from textgym_agents.rllib.module import COMPLETION_MASK, INPUT_IDS, LOG_PROBS


@pytest.fixture
def sampled(config):
    """Calls of `sample`, and the runner."""

    def make(calls, **changes):
        chosen = config(**{"steps_per_env": 17, **changes})
        runner = SingleAgentEnvRunner(config=chosen, worker_index=0)
        return [runner.sample() for _ in range(calls)], runner

    return make


def test_episodes_are_whole_and_every_step_is_used_once(sampled):
    calls, runner = sampled(4)
    episodes = [episode for call in calls for episode in call]
    assert len({episode.id_ for episode in episodes}) == len(episodes)
    for episode in episodes:
        record = record_of(episode)  # checks the tokens
        assert episode.is_terminated
        assert episode.t_started == 0
        assert len(episode) == int(record.completion_mask.sum())
    callback = runner._callbacks[0]
    still_open = sum(len(chunk) for chunk in callback._open.values())
    assert still_open > 0  # else this test shows little
    sampled_steps = 4 * 17 * 8
    trained = sum(map(len, episodes))
    # Some steps more than asked for: all rows step together.
    assert sampled_steps <= trained + still_open < sampled_steps + 4 * 8


def test_no_context_is_kept_in_an_episode(sampled):
    (episodes,), _ = sampled(1)
    assert set(episodes[0].get_observations(-1)) == {"remaining"}


def test_short_episodes_are_not_over_represented(config):
    # Half of the texts end at once. Complete-episodes mode would see far more of those.
    chosen = config(envs_per_runner=16, steps_per_env=64, model="bundled")
    runner = SingleAgentEnvRunner(config=chosen, worker_index=0)
    rng = torch.Generator().manual_seed(0)
    eos = runner.env.unwrapped.tokenizer.eos_token_id
    forward, lasting = runner.module.forward_exploration, torch.zeros(16, dtype=torch.bool)

    def write(batch, **kwargs):
        out = forward(batch, **kwargs)
        lengths = batch["obs"]["remaining"][:, 0]
        fresh = lengths == 12
        lasting[fresh] = torch.rand(int(fresh.sum()), generator=rng) < 0.5
        out["actions"] = torch.where(lasting, (eos + 1) * torch.ones(16, dtype=torch.int64), eos)
        return out

    runner.module.forward_exploration = write
    episodes = [episode for _ in range(3) for episode in runner.sample()]
    lengths = np.array([len(episode) for episode in episodes])
    assert set(lengths) == {1, 12}
    assert np.mean(lengths == 12) == pytest.approx(0.5, abs=0.09)


def test_every_episode_goes_whole_to_one_learner(sampled):
    (episodes,), _ = sampled(1)
    shares = TextPPO.shares(SimpleNamespace(_log=lambda found: None), episodes, 3)
    ids = [episode.id_ for share in shares for episode in share]
    assert sorted(ids) == sorted(episode.id_ for episode in episodes)
    tokens = [sum(map(len, share)) for share in shares]
    assert max(tokens) - min(tokens) <= 12


def test_gae_of_whole_episodes():
    rewards = torch.tensor([0.0, 0.0, 1.0, 2.0, 0.5, -1.0])
    values = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    counts = torch.tensor([3, 1, 2])
    monte_carlo = torch.tensor([1.0, 1.0, 1.0, 2.0, -0.5, -1.0]) - values
    torch.testing.assert_close(gae(rewards, values, counts, 1.0, 1.0), monte_carlo)
    gamma, lambda_ = 0.9, 0.7
    delta = torch.tensor(
        [0.9 * 0.2 - 0.1, 0.9 * 0.3 - 0.2, 1 - 0.3, 2 - 0.4, 0.5 + 0.9 * 0.6 - 0.5, -1 - 0.6]
    )
    k = gamma * lambda_
    expected = [
        delta[0] + k * delta[1] + k * k * delta[2],
        delta[1] + k * delta[2],
        delta[2],
        delta[3],
        delta[4] + k * delta[5],
        delta[5],
    ]
    torch.testing.assert_close(gae(rewards, values, counts, gamma, lambda_), torch.stack(expected))


def test_spread_and_whitened():
    sizes = np.array([9, 1, 1, 5, 4, 4, 8, 2])
    groups = spread(sizes, 3)
    assert sorted(i for group in groups for i in group) == list(range(8))
    totals = [sizes[group].sum() for group in groups]
    assert max(totals) - min(totals) <= 2
    assert all(spread(np.ones(4), 4))
    white = whitened(torch.tensor([3.0, 5.0, 7.0, 9.0]))
    assert white.mean() == pytest.approx(0, abs=1e-6)
    assert white.std(unbiased=False) == pytest.approx(1, abs=1e-6)


def pack(module, episodes, **changes):
    settings = {"minibatch_tokens": 10**9, "gamma": 1.0, "lambda_": 1.0, "kl_target": None}
    connector = PackEpisodes(**{**settings, **changes})
    modules = {DEFAULT_MODULE_ID: SimpleNamespace(unwrapped=lambda: module)}
    metrics = MetricsLogger(root=True)
    batch = connector(rl_module=modules, episodes=episodes, metrics=metrics)[DEFAULT_MODULE_ID]
    return batch, metrics


def test_packing_gives_every_token_its_own_numbers(sampled, module):
    (episodes,), _ = sampled(1, kl_coef=0.5)
    _, learner = module(kl_coef=0.5)
    with torch.no_grad():
        learner.value_head.bias.fill_(0.25)
        for weight in learner.reference.parameters():
            weight.mul_(0.97)
    batch, _ = pack(learner, episodes, minibatch_tokens=60)
    count = batch[INPUT_IDS].shape[0]
    tokens = sum(map(len, episodes))
    assert count == round(tokens / 60)
    mask = batch[COMPLETION_MASK]
    assert int(mask.sum()) == tokens
    per_minibatch = mask.flatten(1).sum(1)
    assert per_minibatch.max() - per_minibatch.min() <= 12
    torch.testing.assert_close(batch[WEIGHT], 1.0 / per_minibatch)

    rows = {}  # of each text, in the packed batch
    for m, s in np.ndindex(*batch[INPUT_IDS].shape[:2]):
        if mask[m, s].any():
            rows[tuple(batch[INPUT_IDS][m, s].tolist())] = (m, s)
    width = batch[INPUT_IDS].shape[-1]
    advantages = []
    for episode in episodes:
        record = record_of(episode)
        key = (*record.input_ids.tolist(), *[0] * (width - len(record.input_ids)))
        where = rows[key]
        old = np.asarray(episode.get_extra_model_outputs("action_logp"))
        np.testing.assert_array_equal(batch[LOG_PROBS][where][mask[where]].numpy(), old)
        reference = learner.reference.model(torch.tensor(record.input_ids[None])).logits[0]
        reference = reference.log_softmax(-1)[:-1].gather(
            1, torch.tensor(record.input_ids[1:, None])
        )
        at = torch.tensor(np.flatnonzero(record.completion_mask) - 1)
        paid = torch.tensor(np.asarray(episode.get_rewards()), dtype=torch.float32)
        rewards = paid - 0.5 * (torch.tensor(old) - reference[at, 0])
        returns = rewards.flip(0).cumsum(0).flip(0).detach()
        torch.testing.assert_close(
            batch[RETURNS][where][mask[where]], returns, atol=1e-3, rtol=1e-4
        )
        advantages.append((where, returns - 0.25))
    flat = torch.cat([a for _, a in advantages])
    for where, expected in advantages:
        white = (expected - flat.mean()) / flat.std(unbiased=False)
        torch.testing.assert_close(
            batch[ADVANTAGES][where][mask[where]], white, atol=1e-3, rtol=1e-3
        )


def test_the_kl_target_moves_its_weight(sampled, module):
    (episodes,), _ = sampled(1)
    _, learner = module(kl_coef=0.1)
    with torch.no_grad():
        for weight in learner.reference.parameters():
            weight.mul_(0.9)
    pack(learner, episodes, kl_target=1e-3)  # far above the target
    assert float(learner.kl_coef) == pytest.approx(0.11)
    pack(learner, episodes, kl_target=1e6)
    assert float(learner.kl_coef) == pytest.approx(0.099)
    _, metrics = pack(learner, episodes)
    assert float(learner.kl_coef) == pytest.approx(0.099)
    assert metrics.peek((DEFAULT_MODULE_ID, "kl_per_token")) > 0


def test_an_episode_without_its_record_is_refused(sampled):
    (episodes,), _ = sampled(1)
    episodes[0].infos.data[-1] = {}
    with pytest.raises(ValueError, match="without a record"):
        record_of(episodes[0])
    episodes[1].actions.data[0] += 1
    with pytest.raises(ValueError, match="other tokens"):
        record_of(episodes[1])
