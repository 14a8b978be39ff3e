"""Two processes learn as one would from what they wrote together.

Run by `torchrun` as a script, this file is what each of the processes does: it trains, and keeps
what the tests, in a process of their own, compute anew with SB3 alone.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from textgym_agents.sb3 import (
    GRPO,
    LMPolicy,
    TokenRolloutBuffer,
    distributed,
    make_vec_env,
    ppo_defaults,
)
from textgym_agents.sb3 import policy as policy_module
from textgym_agents.sb3.distributed import Processes, distribute, setup
from textgym_agents.sb3.packed import PackedBatch

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:.*{text}")
    for text in ("a mini-batch size of", "a minibatch of")
]
STEPS, ROWS, MINIBATCH, CLIP = 20, 8, 5, 0.1


def make_agent(rows=ROWS, *, seed=0, cls=PPO, device="cpu", **changes):
    torch.manual_seed(seed)
    size = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
    model = GPT2LMHeadModel(GPT2Config(**size, vocab_size=5, eos_token_id=0, bos_token_id=None))
    # Every fifth token ends an episode, so that they differ in length.
    lock = {"vocab_size": 5, "keys": 2, "pins": 3, "prompt_length": 2, "reward": "dense"}
    envs = make_vec_env("textgym/TokenLock-v0", n_envs=rows, max_new_tokens=20, **lock)
    keywords = ppo_defaults(envs, learning_rate=1e-3)
    keywords |= {"n_steps": STEPS, "n_epochs": 1, "batch_size": MINIBATCH, "max_grad_norm": CLIP}
    policy = {"model": model, "kl_coef": 0.1, "kl_target": 0.5}
    agent = cls(
        LMPolicy,
        envs,
        rollout_buffer_class=TokenRolloutBuffer,
        policy_kwargs=policy,
        seed=seed,
        device=device,
        **keywords | changes,
    )
    with torch.no_grad():  # so that values differ, and policy and reference
        for weight in (*agent.policy.lm.parameters(), agent.policy.value_head.weight):
            weight.add_(torch.randn_like(weight), alpha=0.1)
    return agent


# ---------------------------------------------------------------------- what each process does
def train(processes):
    """Two rollouts; everything that the tests look at."""
    agent = make_agent(seed=processes.seed(0))
    own = copy.deepcopy(agent.policy.state_dict())
    distribute(agent, processes)
    kept = {"own": own, "start": copy.deepcopy(agent.policy.state_dict()), "adds": []}
    buffer, optimizer = agent.rollout_buffer, agent.policy.optimizer
    if processes.rank == 1:
        # One process alone makes its gradients in parts, in another order.
        policy_module._WHOLE_TOKENS, policy_module._PART_TOKENS = 1, 40
    distributed._BUCKET = 1_000  # several messages
    add, compute, get = buffer.add, buffer.compute_returns_and_advantage, buffer.get

    def adding(*step):
        if len(kept["adds"]) < STEPS:
            kept["adds"].append(copy.deepcopy(step))
        add(*step)

    def computing(last_values, dones):
        kept.setdefault("last", (last_values.clone(), dones.copy()))
        compute(last_values, dones)
        kept.setdefault("advantages", buffer.advantages.copy())
        kept.setdefault("kl", (dict(agent.policy.kl_stats), float(agent.policy.kl_coef)))

    def getting(batch_size):
        for samples in get(batch_size):
            kept.setdefault("samples", samples)
            counts[-1] += 1
            yield samples

    def stepping(*_):
        parameters = agent.policy.named_parameters()
        gradients = {n: p.grad.clone() for n, p in parameters if p.requires_grad}
        kept.setdefault("gradients", gradients)

    counts = [0]
    buffer.add, buffer.compute_returns_and_advantage, buffer.get = adding, computing, getting
    optimizer.register_step_pre_hook(stepping)
    agent.learn(STEPS * ROWS)
    # The second rollout asks for more minibatches than there are segments in either process.
    agent.batch_size = 2
    counts.append(0)
    agent.learn(STEPS * ROWS, reset_num_timesteps=False)
    kept |= {"minibatches": counts, "segments": len(buffer.segments)}
    kept["end"] = agent.policy.state_dict()
    return kept


def refused(agent, processes):
    """What `distribute` says in this process."""
    try:
        distribute(agent, processes)
    except ValueError as error:
        return str(error)
    return "nothing"


def work(folder):
    with setup(device="cpu", timeout=60) as processes:
        kept = train(processes)
        seed, first = processes.seed(0), processes.first
        kept["refusals"] = [
            refused(make_agent(seed=seed, target_kl=0.1 if first else None), processes),
            refused(make_agent(seed=seed, n_epochs=2 if first else 1), processes),
            refused(make_agent(seed=3), processes),
        ]
        torch.save(kept, folder / f"{processes.rank}.pt")


# ---------------------------------------------------------------------- what is looked at
@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What the two processes kept."""
    folder = tmp_path_factory.mktemp("ranks")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*launch, "--nproc-per-node", "2", __file__, str(folder)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.fixture(scope="module")
def union(both):
    """One process with twice the rows, in which SB3 has what both wrote in the first rollout."""
    agent = make_agent(2 * ROWS)
    agent.policy.load_state_dict(both[0]["start"])
    agent._setup_learn(10**6)
    buffer = agent.rollout_buffer
    for steps in zip(both[0]["adds"], both[1]["adds"], strict=True):
        first, *others = zip(*steps, strict=True)
        obs = {key: np.concatenate([o[key] for o in first]) for key in first[0]}
        join = [torch.cat if isinstance(o[0], torch.Tensor) else np.concatenate for o in others]
        buffer.add(obs, *(f(o) for f, o in zip(join, others, strict=True)))
    values = torch.cat([kept["last"][0] for kept in both])
    values.lm_policy = agent.policy
    dones = np.concatenate([kept["last"][1] for kept in both])
    buffer.compute_returns_and_advantage(values, dones)
    return agent


def test_all_begin_with_the_weights_of_the_first(both):
    first, second = both
    assert same(first["start"], first["own"])
    assert same(second["start"], first["own"])
    assert not same(second["own"], first["own"])


def test_each_writes_its_own(both):
    ids = [np.stack([step[0]["input_ids"] for step in kept["adds"]]) for kept in both]
    assert (ids[0] != ids[1]).any(axis=(0, 2)).all()


def test_advantages_are_whitened_over_both(both, union):
    together = np.concatenate([kept["advantages"] for kept in both], axis=1)
    np.testing.assert_allclose(together, union.rollout_buffer.advantages, atol=2e-6)
    assert abs(together.mean()) < 1e-6
    assert abs(together.std() - 1) < 1e-5
    assert abs(both[0]["advantages"].mean()) > 1e-3  # it is not each on its own


def test_kl_is_that_of_both(both, union):
    for stats, coef in (kept["kl"] for kept in both):
        assert stats == pytest.approx(union.policy.kl_stats)
        assert coef == pytest.approx(float(union.policy.kl_coef))
    assert coef != 0.1


def test_gradients(both, union):
    """Those of the first minibatch, clipped, are SB3's own of the two minibatches in one."""
    parts = [kept["samples"] for kept in both]
    assert len(parts[0].actions) != len(parts[1].actions)
    fields = list(zip(*parts, strict=True))
    merged = type(parts[0])(joined(*fields[0]), *map(torch.cat, fields[1:]))
    union.rollout_buffer.get = lambda _: iter([merged])
    trained = {n: p for n, p in union.policy.named_parameters() if p.requires_grad}
    expected = {}
    union.policy.optimizer.register_step_pre_hook(
        lambda *_: expected.update({n: p.grad.clone() for n, p in trained.items()})
    )
    union.train()
    norm = torch.cat([g.flatten() for g in expected.values()]).norm()
    assert float(norm) == pytest.approx(CLIP, rel=1e-4)  # so it was greater before
    for kept in both:
        assert kept["gradients"].keys() == expected.keys()
        for name, gradient in kept["gradients"].items():
            torch.testing.assert_close(gradient, expected[name], atol=1e-6, rtol=0)


def test_weights_stay_equal(both):
    first, second = both
    assert same(first["end"], second["end"])
    assert not same(first["start"], first["end"])


def test_as_many_minibatches_in_each(both):
    assert both[0]["segments"] != both[1]["segments"]
    assert both[0]["minibatches"] == both[1]["minibatches"]
    assert both[0]["minibatches"][1] == min(kept["segments"] for kept in both)


def test_refusals_are_made_in_all_processes(both):
    for kept in both:
        target_kl, epochs, seed = kept["refusals"]
        assert "process 0: `target_kl` stops an update" in target_kl
        assert "must agree on the n_epochs, got [2, 1]" in epochs
        assert "the same seed write the same texts, got [3, 3]" in seed


# ---------------------------------------------------------------------- in this process
ALONE = Processes(0, 1, torch.device("cpu"))
TWO = Processes(0, 2, torch.device("cpu"))


def test_alone_nothing_changes(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with setup(device="cpu") as processes:
        assert processes == ALONE
        assert processes.seed(7) == 7
        agent = make_agent()
        distribute(agent, processes)
        agent.learn(STEPS * ROWS)
    plain = make_agent()
    plain.learn(STEPS * ROWS)
    assert same(agent.policy.state_dict(), plain.policy.state_dict())


def test_seeds_of_runs_and_processes_differ():
    seeds = [Processes(rank, 4, torch.device("cpu")).seed(s) for rank in range(4) for s in range(9)]
    assert len(set(seeds)) == 36
    assert max(seeds) < 2**32  # numpy's limit


def test_moments_are_those_of_all_values():
    ours, theirs = np.random.default_rng(0).normal(3, 2, (2, 5, 4)).astype(np.float32)
    theirs = theirs[:3] * 5
    buffer = make_agent(4).rollout_buffer
    rows = [np.array([v.size, v.mean(), v.var()]) for v in (ours, theirs)]
    buffer.gather = lambda row: np.stack([row, rows[1]])
    every = np.concatenate([ours, theirs])
    assert buffer._moments(ours) == pytest.approx((every.mean(), every.var()), rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_kl": 0.1}, "Leave it None"),
        ({"normalize_advantage": True}, "whiten_advantages"),
        ({"seed": None}, "pass `seed=processes.seed"),
    ],
)
def test_what_cannot_be_distributed(changes, message):
    seed = changes.pop("seed", 0)
    agent = make_agent(**changes)
    agent.seed = seed
    assert message in distributed._refusal(agent, TWO)


def test_other_learners_and_devices_are_refused(lock):
    agent = lock.agent(GRPO, group_size=4)
    assert "got GRPO, LMPolicy, EpisodeBuffer" in distributed._refusal(agent, TWO)
    on_gpu = Processes(0, 2, torch.device("cuda", 0))
    assert "device=processes.device" in distributed._refusal(make_agent(), on_gpu)
    with pytest.raises(ValueError, match='"cpu", "cuda" or None'):
        setup(device="tpu")


def test_passes_outside_of_updates_are_left_alone():
    """Nothing is asked of the other processes: there are none here, and it would raise."""
    agent = make_agent()
    parameters = agent.policy.optimizer.param_groups[0]["params"]
    distributed._MeanGradients(parameters, agent.rollout_buffer)
    agent.policy.value_head.weight.sum().backward()
    agent.rollout_buffer.minibatch_size = 5
    with pytest.raises(ValueError, match="process group"):
        agent.policy.value_head.weight.sum().backward()


def joined(first, second):
    """Two packed batches in one."""
    width = max(first.input_ids.shape[1], second.input_ids.shape[1])
    rows, index, above = [], [], 0
    for batch in (first, second):
        num, own = batch.input_ids.shape
        rows.append(nn.functional.pad(batch.input_ids, (0, width - own)))
        index.append((batch.index // own + above) * width + batch.index % own)
        above += num
    return PackedBatch(
        torch.cat(rows),
        torch.cat(index),
        torch.cat([first.actions, second.actions]),
        first.counts + second.counts,
        None,
        torch.cat([first.prompt_lengths, second.prompt_lengths]),
    )


def same(one, other):
    return all(
        torch.equal(value, other[name])
        for name, value in one.items()
        if isinstance(value, torch.Tensor)
    )


if __name__ == "__main__":
    work(Path(sys.argv[1]))
