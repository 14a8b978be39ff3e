"""Offline learning: what is read is what happened, and values are those computed by hand."""

from __future__ import annotations

import gymnasium as gym
import minari
import numpy as np
import pytest
import torch

from textgym_agents import offline
from textgym_agents.offline_learning import (
    OfflineEpisodes,
    OfflinePolicy,
    clone,
    ilql,
    ilql_loss,
    small_network,
    split_values,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def written(folder, env_id, episodes, **keywords):
    env = gym.make(env_id, **keywords)
    made = list(offline.trajectories(env.unwrapped, offline.random_source(0), episodes))
    offline.write_minari(iter(made), env, "text/lock-v0", folder=folder, policy="random")
    return made, minari.MinariDataset(folder / "text" / "lock-v0" / "data")


@pytest.mark.parametrize("env_id", ["textgym/TokenLock-v0", "textgym/Wordle-v0"])
def test_what_is_read_is_what_happened(tmp_path, env_id):
    made, dataset = written(tmp_path, env_id, 6)
    data = OfflineEpisodes.from_minari(dataset)
    env = gym.make(env_id).unwrapped
    assert (len(data), data.vocab_size, data.budget) == (
        6,
        env.action_space.n,
        env.max_new_tokens,
    )
    for row, one in enumerate(made):
        ids, own = one.episode.input_ids, np.flatnonzero(one.episode.completion_mask)
        count = len(own)
        assert data.input_ids[row, : len(ids)].tolist() == ids.tolist()
        assert data.taken[row].tolist() == [t < count for t in range(data.taken.shape[1])]
        # Each state's newest token stands right before the token that was written then.
        assert data.places[row, :count].tolist() == (own - 1).tolist()
        assert (data.places[row, count:] == len(ids) - 1).all()
        assert data.actions[row, :count].tolist() == ids[own].tolist() == one.actions
        left = 1 - np.arange(count + 1) / env.max_new_tokens
        assert data.left[row, : count + 1].tolist() == pytest.approx(left.tolist())
        assert data.returns[row].item() == pytest.approx(sum(one.rewards))
        assert data.terminated[row]


def test_other_data_sets_are_refused(tmp_path):
    class Other:
        observation_space = gym.spaces.Box(0, 1, (3,))

    with pytest.raises(ValueError, match="textgym export"):
        OfflineEpisodes.from_minari(Other())


def little(returns=(0.0, 1.0, 0.6, 0.6)) -> OfflineEpisodes:
    """Two letters after a prompt of one; every pair once. (1, 1) pays 0, (1, 2) 1, (2, any) 0.6."""
    actions = torch.tensor([[1, 1], [1, 2], [2, 1], [2, 2]])
    return OfflineEpisodes(
        input_ids=torch.cat([torch.zeros(4, 1, dtype=torch.int64), actions], 1),
        places=torch.arange(3).expand(4, 3),
        left=torch.tensor([1.0, 0.5, 0.0]).expand(4, 3),
        actions=actions,
        rewards=torch.tensor([[0.0, x] for x in returns]),
        taken=torch.ones(4, 2, dtype=torch.bool),
        terminated=torch.ones(4, dtype=torch.bool),
        vocab_size=3,
        budget=2,
    )


START = {
    "input_ids": np.array([[0, 0, 0]]),
    "attention_mask": np.array([[1, 0, 0]]),
    "remaining": np.array([[2]]),
}
# No term but those whose fixed point is known.
EXACTLY = {
    "network": lambda vocab_size, outputs: small_network(vocab_size, outputs, width=16),
    "cql_coef": 0.0,
    "beta": 1.0,
    "batch_size": 512,
    "steps": 1000,
    "learning_rate": 1e-2,
    "target_rate": 0.05,
}
uniform = OfflinePolicy(lambda ids, places, left: torch.zeros(*places.shape, 3), budget=2)


def test_ilql_finds_the_expectiles_that_follow_from_the_data():
    """Of outcomes 0 and 1, equally likely, the expectile is tau: so Q(1) is 0.8, and Q(2) 0.6.

    Of those two it is tau * 0.8 + (1 - tau) * 0.6 = 0.76. Means would be 0.5, 0.6 and 0.55, of
    opposite signs.
    """
    policy = ilql(little(), uniform, expectile=0.8, **EXACTLY)
    advantages = policy.scores(*map(torch.as_tensor, ([[0, 0, 0]], [[0]], [[1.0]])))[0, 0]
    advantages = advantages - uniform.log_probs(START)[0]
    assert advantages[1:].tolist() == pytest.approx([0.8 - 0.76, 0.6 - 0.76], abs=0.04)
    assert policy.act(START, greedy=True).tolist() == [1]


def test_an_expectile_of_a_half_values_the_data_itself():
    policy = ilql(little(), uniform, expectile=0.5, **EXACTLY)
    advantages = policy.log_probs(START)[0, 1:]
    assert (advantages[0] - advantages[1]).item() == pytest.approx(0.5 - 0.6, abs=0.02)
    assert policy.act(START, greedy=True).tolist() == [2]


@pytest.mark.parametrize("terminated", [True, False])
def test_the_loss_is_the_one_computed_step_by_step(terminated):
    data = little()
    taken, cut = data.taken.clone(), data.terminated.clone()
    taken[0, 1], cut[1] = False, terminated  # an episode of one step; one that was cut
    batch = OfflineEpisodes(**{**vars(data), "taken": taken, "terminated": cut})
    random = torch.Generator().manual_seed(0)
    online, target = (split_values(torch.randn(4, 3, 7, generator=random)) for _ in range(2))
    got = ilql_loss(batch, online, target, gamma=0.9, expectile=0.7, cql_coef=0.3)
    (q1, q2), v = online
    (t1, t2), _ = target
    q_losses, v_losses, cql = [], [], []
    for i in range(4):
        steps = int(taken[i].sum())
        for t in range(steps):
            a = int(batch.actions[i, t])
            ends = t == steps - 1 and bool(cut[i])
            aim = float(batch.rewards[i, t]) + (0.0 if ends else 0.9 * float(v[i, t + 1]))
            q_losses.append(sum((float(q[i, t, a]) - aim) ** 2 for q in (q1, q2)))
            error = min(float(t1[i, t, a]), float(t2[i, t, a])) - float(v[i, t])
            v_losses.append((0.7 if error > 0 else 0.3) * error**2)
            for q in (q1, q2):
                row = q[i, t].double().numpy()
                cql.append(np.log(np.exp(row).sum()) - row[a])
    expected = np.mean(q_losses) + np.mean(v_losses) + 0.3 * 2 * np.mean(cql)
    assert got.item() == pytest.approx(expected, rel=1e-4)


def test_cloning_gives_the_frequencies_of_the_data():
    data = little()[torch.tensor([0, 1, 2, 0])]  # token 1 first in three of four
    policy = clone(data, steps=100, batch_size=512)
    assert policy.log_probs(START)[0].exp().tolist() == pytest.approx([0, 0.75, 0.25], abs=0.04)
    drawn = [policy.act(START)[0] for _ in range(300)]
    assert np.mean(np.array(drawn) == 1) == pytest.approx(0.75, abs=0.08)


def test_the_best_are_those_with_the_highest_returns():
    data = little()
    assert data.best(0.25).actions.tolist() == [[1, 2]]
    assert data.best(0.5).returns.tolist() == pytest.approx([1.0, 0.6])
    assert len(data.best(0.001)) == 1
    assert len(data.best(1.0)) == 4


def test_masked_tokens_are_never_drawn():
    masks = np.array([[1, 0, 1]], np.int8)
    assert 1 not in {int(uniform.act(START, masks)[0]) for _ in range(50)}
    assert uniform.log_probs(START, masks)[0].exp().tolist() == pytest.approx([0.5, 0.0, 0.5])


def test_states_do_not_depend_on_what_follows():
    network = small_network(5, 2)
    ids, left = torch.tensor([[1, 2, 3, 4]]), torch.ones(1, 2)
    other = torch.tensor([[1, 2, 0, 0]])
    places = torch.tensor([[0, 1]])
    assert torch.equal(network(ids, places, left), network(other, places, left))
    assert not torch.equal(network(ids, places + 2, left), network(other, places + 2, left))


def test_the_seed_says_it_all_and_torchs_own_state_stays():
    before = torch.random.get_rng_state()
    first, again, other = (
        ilql(little(), clone(little(), steps=2, seed=s), steps=2, seed=s).log_probs(START)
        for s in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_a_share_is_above_0_and_at_most_1(share):
    with pytest.raises(ValueError, match="`share` must be"):
        little().best(share)


@pytest.mark.parametrize("expectile", [0.0, 1.0])
def test_an_expectile_is_between_0_and_1(expectile):
    with pytest.raises(ValueError, match="`expectile` must be"):
        ilql(little(), uniform, expectile=expectile)
