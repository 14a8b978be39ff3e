"""One cell: the same twice, the same instances for all, anchors exact, failures told."""

from __future__ import annotations

import copy
import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from textgym import exact
from textgym.suites import SuiteTask
from textgym.tasks.token_lock import TokenLockTask
from textgym_agents.bench.cell import describe, run_cell, run_description
from textgym_agents.bench.counting import InvalidActionError
from textgym_agents.bench.evaluation import play
from textgym_agents.bench.pictures import generalised_advantages
from textgym_agents.bench.records import check_record

LOCK = {"vocab_size": 5, "keys": 4, "pins": 2, "max_new_tokens": 3, "prompt_length": 1}
TASK = SuiteTask("lock", "textgym/TokenLock-v0", LOCK, tokens=256, episodes=24, num_envs=16)

AGENTS = """
import random, sys
import numpy as np

class Agent:
    def __init__(self, act): self.act = act
    def predict(self, observation): return self.act(len(observation["remaining"]))

def wander(envs, budget, act):
    envs.reset(seed=0)
    for _ in range(budget // envs.num_envs): envs.step(act(envs.num_envs))
    return Agent(act)

def crashes(envs, budget):
    wander(envs, budget // 2, lambda n: np.ones(n, int))
    raise KeyError("what  was\\nthat")

def leaves(envs, budget): sys.exit("enough")
def invalid_in_learning(envs, budget): return wander(envs, budget, lambda n: np.full(n, 9))
def invalid_held_out(envs, budget): return Agent(lambda n: np.full(n, -1))
def floats(envs, budget): return Agent(lambda n: np.zeros(n))
def endless(envs, budget): return wander(envs, 10**9, lambda n: np.ones(n, int))
def hungry(envs, budget): raise MemoryError

def noisy(envs, budget):
    print("not JSON {")
    print("neither", file=sys.stderr)
    return wander(envs, budget, lambda n: np.random.randint(5, size=n))

def globally(envs, budget, seed):
    return wander(envs, budget, lambda n: np.array([random.randrange(5) for _ in range(n)]))
"""


@pytest.fixture
def others(tmp_path):
    file = tmp_path / "others_agents.py"
    file.write_text(AGENTS)
    return lambda name: f"{file}:{name}"


def without_times(record):
    record = copy.deepcopy(record)
    for name in ("train_seconds", "cpu_seconds", "eval_seconds", "peak_mb"):
        del record[name]
    for point in record["curve"]:
        del point["seconds"]
    del record["provenance"]["started"]
    return record


# ---------------------------------------------------------------- what is the same
@pytest.mark.parametrize("agent", ["random", "ppo", "grpo", "best-of-n"])
def test_two_runs_are_equal_but_for_times(agent):
    first, second = (without_times(run_cell(TASK, agent, 3)) for _ in range(2))
    assert first == second
    assert first["status"] == "ok"
    assert without_times(run_cell(TASK, agent, 4))["returns"] != first["returns"]


def test_others_agents_are_seeded_too(others):
    first, second = (run_cell(TASK, others("globally"), 1) for _ in range(2))
    assert first["returns"] == second["returns"]
    assert first["samples"] == second["samples"]


def test_instances_are_the_same_for_every_number_of_rows():
    asked = []

    class Spy:
        def predict(self, observation, episode_start):
            for row in np.flatnonzero(episode_start):
                seen.append(observation["input_ids"][row].tolist())
            return np.zeros(len(episode_start), np.int64)

    for rows in (3, 7, 64):
        task = dataclasses.replace(
            TASK, env_id="textgym/Story-v0", kwargs={}, num_envs=rows, episodes=10
        )
        envs, seen = task.make_envs("test"), []
        instances = task.instances(envs.task)
        played = play(Spy(), envs, instances)
        assert [one.instance for one in played] == instances
        asked.append([envs.tokenizer.decode(seen[i]) for i in range(min(rows, 10))])
    assert asked[2][:3] == asked[1][:3] == asked[0]


def test_every_instance_counts_once_however_long_its_text():
    """Even rows stop at once and odd ones write on: none counts twice."""
    task = dataclasses.replace(TASK, num_envs=4, episodes=10)
    envs = task.make_envs("test")

    class Uneven:
        def predict(self, observation):
            return np.array([0, 1, 0, 1])

    played = play(Uneven(), envs, task.instances(envs.task))
    assert [len(one.rewards) for one in played] == [1, 3, 1, 3] * 2 + [1, 3]
    assert [one.total for one in played] == pytest.approx(
        [envs.task.score(one.episode) for one in played]
    )


# ---------------------------------------------------------------- what it is worth
def test_anchors_are_exact_on_locks():
    lock = TokenLockTask(**LOCK)
    tree = exact.lock_tree(lock, lock.prompts("test"))
    task = dataclasses.replace(TASK, episodes=2_000, num_envs=200)
    found = {agent: run_cell(task, agent, 0) for agent in ("random", "oracle")}
    expected = exact.evaluate(tree).expected_return
    for record in found.values():
        assert record["exact"]["random"] == pytest.approx(expected)
        assert record["exact"]["optimum"] == pytest.approx(exact.optimum(tree).expected_return)
        assert record["tokens"] == 0
    assert set(found["oracle"]["returns"]) == {1.0}
    returns = np.array(found["random"]["returns"])
    assert abs(returns.mean() - expected) < 4 * returns.std() / len(returns) ** 0.5


def test_the_oracle_holds_its_turns():
    task = dataclasses.replace(TASK, env_id="textgym/Wordle-v0", kwargs={}, episodes=6, num_envs=4)
    record = run_cell(task, "oracle", 0)
    assert record["returns"] == [1.0] * 6
    assert record["exact"] is None


def test_pictures_are_the_policy_s_own_figures():
    torch = pytest.importorskip("torch")
    from textgym_agents.bench.counting import Counting
    from textgym_agents.bench.learners import ppo
    from textgym_agents.bench.pictures import policy_figures

    envs = Counting(TASK.make_envs("train"), 256)
    agent = ppo(envs, 256, 0)
    held_out = TASK.make_envs("test")
    (one, *_) = play(agent, held_out, TASK.instances(held_out.task)[:1])
    found = policy_figures(agent, one)
    ids = torch.tensor(one.episode.input_ids)[None]
    for lm, name in ((agent.policy.lm, "log_probs"), (agent.policy.reference, "ref_log_probs")):
        log_probs = lm.model(input_ids=ids).logits[0].log_softmax(-1)
        mask = torch.tensor(one.episode.completion_mask)
        own = log_probs[:-1].gather(1, ids[0, 1:, None])[mask[1:], 0]
        assert found[name] == pytest.approx(own.tolist(), abs=1e-4)
    assert found["log_probs"] != found["ref_log_probs"]
    assert len(found["values"]) == len(found["advantages"]) == len(one.rewards)


def test_advantages_by_their_definition():
    rewards, values = np.array([0.0, 1.0, 0.5]), np.array([0.2, 0.4, 0.1])
    errors = [0.0 + 0.9 * 0.4 - 0.2, 1.0 + 0.9 * 0.1 - 0.4, 0.5 - 0.1]
    rate = 0.9 * 0.8
    expected = [errors[0] + rate * errors[1] + rate**2 * errors[2], errors[1] + rate * errors[2]]
    found = generalised_advantages(rewards, values, 0.9, 0.8)
    assert found.tolist() == pytest.approx([*expected, errors[2]])


# ---------------------------------------------------------------- what goes wrong
@pytest.mark.parametrize(
    ("name", "status", "error"),
    [
        ("crashes", "crashed", "KeyError: 'what was\\nthat'"),
        ("leaves", "crashed", "SystemExit: enough"),
        ("nobody", "crashed", "ImportError: "),
        ("invalid_in_learning", "invalid_action", "InvalidActionError: actions must be from 0"),
        ("invalid_held_out", "invalid_action", "got -1 in row 0"),
        ("floats", "invalid_action", "dtype float64"),
        ("endless", "over_budget", "OverBudgetError: 2,3"),
        ("hungry", "memory", "MemoryError"),
    ],
)
def test_failures_are_told(others, name, status, error):
    record = run_cell(TASK, others(name), 0)
    assert check_record(json.loads(json.dumps(record))) == record
    assert record["status"] == status
    assert error in record["error"]
    assert "\n" not in record["error"]
    assert record["returns"] is None
    assert record["agent_import"] == record["agent"] == others(name)
    if name == "crashes":  # what was learnt until then is there
        assert record["tokens"] == 128
        assert record["curve"]


def test_unknown_agents_are_refused_at_once():
    with pytest.raises(TypeError, match="did you mean `oracle`"):
        run_cell(TASK, "orakel", 0)


def test_records_have_the_schema():
    record = run_cell(TASK, "random", 0, suite="mine", suite_hash="ab", command="c", attempts=2)
    assert check_record(record) == record == json.loads(json.dumps(record))
    assert (record["suite"], record["suite_hash"], record["attempts"]) == ("mine", "ab", 2)
    assert record["provenance"]["command"] == "c"
    assert record["greedy_returns"] is None
    assert [text["stage"] for text in record["samples"]] == ["held-out"] * 2


def test_pictures_are_of_the_first_seed_alone():
    assert len(run_cell(TASK, "oracle", 0)["pictures"]) == 2
    assert run_cell(TASK, "oracle", 1)["pictures"] == []


# ---------------------------------------------------------------- a process of its own
def test_a_process_writes_the_record_whatever_is_printed(others, tmp_path):
    described = json.dumps(describe(TASK, others("noisy"), 0, suite="mine"))
    file = tmp_path / "record.json"
    command = [sys.executable, "-m", "textgym_agents.bench.cell"]
    done = subprocess.run(
        [*command, "--record", str(file)],
        input=described,
        capture_output=True,
        text=True,
        check=True,
    )
    record = json.loads(file.read_text())
    assert "not JSON {" in done.stdout
    assert (record["status"], record["suite"]) == ("ok", "mine")
    assert without_times(record) == without_times(run_description(json.loads(described)))
    assert list(tmp_path.glob("*.part")) == []


def test_without_a_file_it_is_the_last_line(tmp_path):
    code = (
        "import sys; from textgym_agents.bench.cell import main; main([]); "
        "sys.exit('torch' in sys.modules)"
    )
    described = json.dumps(describe(TASK, "random", 0))
    done = subprocess.run(
        [sys.executable, "-c", code], input=described, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1])["agent"] == "random"


def test_descriptions_are_checked():
    with pytest.raises(TypeError, match="did you mean `suite`"):
        describe(TASK, "random", 0, suit="mine")
    with pytest.raises(TypeError, match="did you mean `seed`"):
        run_description({**describe(TASK, "random", 0), "sed": 1})


def test_agents_may_ask_for_masks():
    task = dataclasses.replace(TASK, kwargs={**LOCK, "min_new_tokens": 2})
    assert run_cell(task, "random", 0)["status"] == "ok"
    envs = task.make_envs("test")

    class Blind:
        def predict(self, observation):
            return np.zeros(envs.num_envs, np.int64)

    with pytest.raises(InvalidActionError, match="masked"):
        play(Blind(), envs, task.instances(envs.task))
