"""Results A against results B: made-up records whose differences are known."""

import io
import json
import math

import numpy as np
import pytest
from rich.console import Console

from textgym.differences import mean_difference
from textgym_agents.bench.compare import BETTER, NOT_SHOWN, WORSE, compare
from textgym_agents.bench.records import read_results
from textgym_agents.cli.comparison_view import sentence, show

# Normalised scores of five seeds on three tasks.
TASKS = ("story", "wordle", "lock")
SCORES = np.array(
    [
        [0.50, 0.30, 0.90],
        [0.55, 0.40, 0.80],
        [0.45, 0.35, 0.85],
        [0.52, 0.28, 0.88],
        [0.48, 0.37, 0.82],
    ]
)
NOISE = np.array([0.01, -0.01, 0.02, -0.02, 0.0])[:, None]
# Returns of random tokens and of the oracle.
ANCHORS = {"story": (0.1, 1.0), "wordle": (0.0, 0.5), "lock": (-1.0, 3.0)}


def record(task, agent, seed, mean=None, **changes):
    """A record whose returns have that mean; failed where it is None."""
    ok = mean is not None
    found = {
        "schema": 1,
        "suite": "core",
        "suite_hash": "0123456789abcdef",
        "task": task,
        "env_id": f"textgym/{task.title()}-v0",
        "kwargs": {},
        "agent": agent,
        "agent_import": None,
        "seed": seed,
        "status": "ok" if ok else "timeout",
        "error": None if ok else "took too long",
        "attempts": 1,
        "budget": 1000,
        "tokens": 1000 if ok else None,
        "train_seconds": 10.0 if ok else None,
        "cpu_seconds": 9.0 if ok else None,
        "eval_seconds": 1.0 if ok else None,
        "peak_mb": 400.0 if ok else None,
        "returns": [mean - 0.125, mean + 0.125] if ok else None,
        "greedy_returns": None,
        "exact": None,
        "curve": [],
        "samples": [],
        "pictures": [],
        "deterministic": {"expected": True, "why_not": None},
        "provenance": {"versions": {"numpy": "2.0"}, "cpu": "fast", "cores": 2, "threads": 1},
    }
    assert not changes.keys() - found.keys()
    return found | changes


def cells(agent, scores, tasks=TASKS, first_seed=0, **changes):
    """Records of `[n_seeds, n_tasks]` normalised scores; NaN is a cell that failed."""
    found = []
    for column, task in enumerate(tasks):
        low, high = ANCHORS[task]
        for row, score in enumerate(np.asarray(scores)[:, column]):
            mean = None if math.isnan(score) else low + float(score) * (high - low)
            found.append(record(task, agent, first_seed + row, mean, **changes))
    return found


def anchors(tasks=TASKS, shift=0.0):
    return [
        record(task, agent, 0, ANCHORS[task][place] + shift, tokens=0, train_seconds=0.0)
        for task in tasks
        for place, agent in enumerate(("random", "oracle"))
    ]


@pytest.fixture
def written(tmp_path):
    """Writes records as a folder of results."""

    def write(name, *parts):
        folder = tmp_path / name
        folder.mkdir()
        lines = [json.dumps(record) + "\n" for part in parts for record in part]
        (folder / "results.jsonl").write_text("".join(lines))
        return folder

    return write


def printed(found, width=100):
    out = io.StringIO()
    show(found, Console(file=out, width=width, highlight=False))
    return out.getvalue()


# ---------------------------------------------------------------------- better and worse
def test_the_same_is_not_worse(written):
    a = written("a", anchors(), cells("ppo", SCORES))
    found = compare(a, a)
    (pair,) = found.pairs
    assert (pair.result, found.exit_code, found.notes) == (NOT_SHOWN, 0, ())
    assert [row.difference.value for row in pair.rows] == [0.0] * 4
    assert [row.task for row in pair.rows] == [*TASKS, None]
    assert pair.overall.difference.before == pytest.approx(SCORES.mean())


def test_figures_are_those_of_normalised_scores(written):
    after = SCORES + NOISE + [0.1, -0.1, 0.0]
    a = written("a", anchors(), cells("ppo", SCORES))
    b = written("b", anchors(), cells("ppo", after))
    (pair,) = compare(a, b).pairs
    raw = []
    for column, row in enumerate(pair.tasks):
        expected = mean_difference(
            SCORES[:, [column]], after[:, [column]], np.random.default_rng(0)
        )
        assert row.difference.value == pytest.approx([0.1, -0.1, 0.0][column])
        assert row.difference.after == pytest.approx(after[:, column].mean())
        assert row.difference.p_value == pytest.approx(expected.p_value)
        assert row.difference.paired
        raw.append(expected.p_value)
    # Holm: of p, p and 1, the lowest two count threefold.
    assert [row.p_value for row in pair.tasks] == pytest.approx([3 * raw[0], 3 * raw[1], 1.0])
    assert [row.result for row in pair.tasks] == [BETTER, WORSE, NOT_SHOWN]
    assert pair.overall.result == NOT_SHOWN
    assert pair.result == WORSE
    words = sentence(pair)
    assert words.startswith("ppo: worse. 0.56 in A, 0.56 in B: +0.00 [-0.0")
    assert words.endswith("with 5 seeds, paired. Worse on wordle. Better on story.")


@pytest.mark.parametrize(("change", "result", "code"), [(0.1, BETTER, 0), (-0.1, WORSE, 1)])
def test_overall(written, change, result, code):
    a = written("a", anchors(), cells("ppo", SCORES))
    b = written("b", anchors(), cells("ppo", SCORES + NOISE + change))
    found = compare(a, b)
    assert found.pairs[0].overall.result == result
    assert found.pairs[0].overall.difference.value == pytest.approx(change)
    assert found.exit_code == code


def test_what_one_task_shows_is_not_enough_among_many(written):
    """A p-value of 0.024 on a task: below 0.05 alone, not among three."""
    change = np.zeros((5, 3))
    change[:, 1] = [-0.04, -0.01, -0.03, -0.05, -0.01]
    a = written("a", anchors(), cells("ppo", SCORES))
    b = written("b", anchors(), cells("ppo", SCORES + change))
    alone = compare(a, b, only=["wordle"])
    assert 0.02 < alone.pairs[0].tasks[0].p_value < 0.05
    assert alone.exit_code == 1
    row = compare(a, b).pairs[0].tasks[1]
    assert row.p_value == pytest.approx(3 * alone.pairs[0].tasks[0].p_value)
    assert row.result == NOT_SHOWN


def test_more_agents_are_more_tests(written):
    change = np.zeros((5, 3))
    change[:, 0] = [-0.1, -0.11, -0.09, -0.1, -0.1]
    a = written("a", anchors(), cells("ppo", SCORES), cells("grpo", SCORES))
    b = written("b", anchors(), cells("ppo", SCORES), cells("grpo", SCORES + change))
    found = compare(a, b)
    assert [pair.names for pair in found.pairs] == [("ppo", "ppo"), ("grpo", "grpo")]
    row = found.pairs[1].tasks[0]
    assert row.p_value == pytest.approx(6 * row.difference.p_value)
    assert [pair.result for pair in found.pairs] == [NOT_SHOWN, WORSE]
    assert found.exit_code == 1
    words = " ".join(printed(found).split())
    assert "tasks corrected for 6 tests, those of all for 2 (Holm)" in words


def test_of_one_seed_nothing_is_shown(written):
    a = written("a", anchors(), cells("ppo", SCORES[:1]))
    b = written("b", anchors(), cells("ppo", SCORES[:1] - 0.3))
    found = compare(a, b)
    assert found.exit_code == 0
    assert math.isnan(found.pairs[0].overall.p_value)
    assert "A single seed says nothing of chance" in sentence(found.pairs[0])
    assert "nan" not in printed(found)


def test_other_seeds_are_not_paired(written):
    a = written("a", anchors(), cells("ppo", SCORES))
    b = written("b", anchors(), cells("ppo", SCORES - 0.3, first_seed=5))
    (pair,) = compare(a, b).pairs
    assert not pair.overall.difference.paired
    assert pair.overall.difference.value == pytest.approx(-0.3)
    assert pair.result == WORSE
    assert "with 5 seeds. Worse" in sentence(pair)


def test_seeds_that_both_have_are_paired(written):
    """B lacks the best seeds of A: among those that both have, nothing has changed."""
    order = np.argsort(-SCORES[:, 0])
    a = written("a", anchors(), cells("ppo", SCORES[order]))
    b = written("b", anchors(), cells("ppo", SCORES[order][2:], first_seed=2))
    found = compare(a, b)
    assert [row.difference.value for row in found.pairs[0].rows] == [0.0] * 4
    assert found.pairs[0].overall.difference.seeds == 3
    assert found.exit_code == 0


# ---------------------------------------------------------------------- names
def test_agents_of_other_names(written):
    a = written("a", anchors(), cells("ppo", SCORES), cells("mine", SCORES - 0.2))
    b = written("b", anchors(), cells("ppo", SCORES), cells("yours", SCORES))
    found = compare(a, b)
    assert [pair.names for pair in found.pairs] == [("ppo", "ppo")]
    assert found.notes == ("Only A has mine: not compared.", "Only B has yours: not compared.")
    found = compare(a, b, agent_a="mine", agent_b="yours")
    assert found.pairs[0].names == ("mine", "yours")
    assert found.pairs[0].result == BETTER
    assert sentence(found.pairs[0]).startswith("mine (A) against yours (B): better.")
    within = compare(a, a, agent_a="ppo", agent_b="mine")
    assert within.pairs[0].result == WORSE
    assert compare(a, b, agent_b="ppo").pairs[0].names == ("ppo", "ppo")


def test_unknown_names(written):
    a = written("a", anchors(), cells("ppo", SCORES))
    b = written("b", anchors(), cells("grpo", SCORES))
    with pytest.raises(ValueError, match="share no agent: A has ppo, B has grpo"):
        compare(a, b)
    with pytest.raises(TypeError, match=r"unknown agent of B `ppo`.*Known: grpo, oracle, random"):
        compare(a, b, agent_a="ppo")
    with pytest.raises(TypeError, match="unknown task `stroy`; did you mean `story`"):
        compare(a, a, only=["stroy"])


# ---------------------------------------------------------------------- failures
def test_a_cell_that_fails_is_worse(written):
    after = SCORES.copy()
    after[3, 0] = math.nan
    a = written("a", anchors(), cells("ppo", SCORES))
    b = written("b", anchors(), cells("ppo", after))
    found = compare(a, b)
    (pair,) = found.pairs
    assert [row.result for row in pair.rows] == [NOT_SHOWN] * 4
    assert pair.tasks[0].difference.seeds == 4
    assert (pair.result, found.exit_code) == (WORSE, 1)
    assert sentence(pair).endswith("Failed in B: story seed 3 (timeout).")
    assert "Failed in B: story seed 3 (timeout)." in printed(found, 300)


def test_what_failed_before_is_not_worse(written):
    before = SCORES.copy()
    before[3, 0] = math.nan
    a = written("a", anchors(), cells("ppo", before))
    b = written("b", anchors(), cells("ppo", before))
    found = compare(a, b)
    assert found.exit_code == 0
    assert found.notes[0].startswith("Failed in A: story seed 3 (timeout). Where it failed in B")
    repaired = compare(a, written("c", anchors(), cells("ppo", SCORES)))
    assert repaired.exit_code == 0


def test_a_task_on_which_all_fail(written):
    after = SCORES.copy()
    after[:, 1] = math.nan
    a = written("a", anchors(), cells("ppo", SCORES))
    b = written("b", anchors(), cells("ppo", after))
    found = compare(a, b)
    (pair,) = found.pairs
    assert pair.tasks[1].difference is None
    assert pair.overall.difference.before == pytest.approx(SCORES[:, [0, 2]].mean())
    assert found.exit_code == 1
    assert "nan" not in printed(found)
    nothing = written("c", anchors(), cells("ppo", SCORES * math.nan))
    found = compare(a, nothing)
    assert found.pairs[0].overall.difference is None
    assert found.exit_code == 1
    assert "No task has a run that is ok in both." in sentence(found.pairs[0])
    printed(found)


# ---------------------------------------------------------------------- refused
def test_another_suite_is_refused(written):
    other = {"suite_hash": "f" * 16}
    changed = cells("ppo", SCORES[:, :2], TASKS[:2], budget=500, **other)
    changed[-1]["returns"] = [0.0]
    a = written("a", anchors(), cells("ppo", SCORES))
    b = written("b", changed)
    with pytest.raises(ValueError, match="0123456789abcdef and ffffffffffffffff") as caught:
        compare(a, b)
    assert "tokens to learn from of story (1000 and 500)" in str(caught.value)
    assert "held-out episodes of wordle (2 and 1)" in str(caught.value)
    assert "the task lock (only in A)" in str(caught.value)
    assert "held-out episodes of story" not in str(caught.value)
    c = written("c", anchors(), cells("ppo", SCORES, **other)[:0], [record("lock", "ppo", 0, 1.0)])
    with pytest.raises(ValueError, match="B has no cell of ppo on story, wordle, which the other"):
        compare(a, c)


def test_a_run_that_is_not_finished_is_refused(written):
    a = written("a", anchors(), cells("ppo", SCORES))
    b = written("b", anchors(), cells("ppo", SCORES[:, :2], TASKS[:2]))
    with pytest.raises(ValueError, match=r"B has no cell of ppo on lock, .*--only story --only wo"):
        compare(a, b)
    with pytest.raises(ValueError, match="A has no cell of ppo on lock, "):
        compare(b, a)
    assert compare(a, b, only=["story", "wordle"]).exit_code == 0


def test_bad_folders(written, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        compare(tmp_path / "nowhere", tmp_path / "nowhere")
    a = written("a", cells("ppo", SCORES))
    with pytest.raises(ValueError, match="neither A nor B has both anchors"):
        compare(a, a)


# ---------------------------------------------------------------------- anchors
def test_one_side_has_the_anchors_of_both(written):
    a = written("a", cells("ppo", SCORES))
    b = written("b", anchors(), cells("ppo", SCORES + NOISE - 0.1))
    found = compare(a, b)
    assert found.pairs[0].overall.difference.value == pytest.approx(-0.1)
    assert found.notes == ()


def test_anchors_that_moved_are_told(written):
    """The environment pays 0.2 more to all: on the scale of A, the agent of B is better."""
    after = cells("ppo", SCORES)
    for cell in after:
        cell["returns"] = [value + 0.2 for value in cell["returns"]]
    a = written("a", anchors(), cells("ppo", SCORES))
    b = written("b", anchors(shift=0.2), after)
    found = compare(a, b)
    assert found.notes[0].startswith(
        "The anchors of story differ: 0 and 1 were 0.1 and 1 in A, and are 0.3 and 1.2 in B."
    )
    assert len(found.notes) == 3
    values = [row.difference.value for row in found.pairs[0].tasks]
    assert values == pytest.approx([0.2 / 0.9, 0.2 / 0.5, 0.2 / 4.0])
    assert found.pairs[0].overall.difference.before == pytest.approx(SCORES.mean())


def test_a_task_without_anchors_is_left_out(written):
    parts = [anchors(TASKS[:2]), cells("ppo", SCORES)]
    a, b = written("a", *parts), written("b", *parts)
    found = compare(a, b)
    assert [row.task for row in found.pairs[0].tasks] == ["story", "wordle"]
    assert found.notes == ("Without anchors in A or B, not compared: lock.",)


# ---------------------------------------------------------------------- costs, notes, print
def test_costs(written):
    faster = {"train_seconds": 8.0, "peak_mb": 500.0}
    a = written("a", anchors(), cells("ppo", SCORES))
    b = written("b", anchors(), cells("ppo", SCORES, **faster))
    found = compare(a, b)
    before, after = found.pairs[0].overall.costs
    assert (before.tokens_per_second, after.tokens_per_second) == (100.0, 125.0)
    assert (before.peak_mb, after.peak_mb) == (400.0, 500.0)
    assert found.exit_code == 0
    text = printed(found)
    assert text.count("+25%") == 8  # speed and memory, of three tasks and all
    # An agent that does not learn has no speed.
    idle = {"tokens": 0, "train_seconds": 0.0, "peak_mb": None}
    c = written("c", anchors(), cells("ppo", SCORES, **idle))
    costs = compare(c, b).pairs[0].overall.costs[0]
    assert (costs.tokens_per_second, costs.peak_mb) == (None, None)
    printed(compare(c, b))


def test_versions_and_machines_are_told(written):
    other = {"versions": {"numpy": "2.1"}, "cpu": "slow", "cores": 2, "threads": 1}
    a = written("a", anchors(), cells("ppo", SCORES))
    b = written("b", cells("ppo", SCORES, provenance=other))
    assert compare(a, b).notes == (
        "A and B differ in numpy 2.0 and 2.1; cpu fast and slow.",
        "Speed and memory compare only on like machines.",
    )


def test_the_table(written):
    after = SCORES + NOISE + [0.1, -0.1, 0.0]
    a = written("a", anchors(), cells("ppo", SCORES))
    b = written("b", anchors(), cells("ppo", after))
    text = printed(compare(a, b))
    row = next(line for line in text.splitlines() if line.split()[:1] == ["wordle"])
    assert row.split()[:4] == ["wordle", "0.34", "0.24", "-0.10"]
    assert row.split()[-1] == "worse"
    assert "corrected for 3 tests (Holm)" in " ".join(text.split())
    assert printed(compare(a, b), 40)  # narrow, without an error


def test_names_are_not_markup(written):
    name = "[bold]x[/]\x1b[2J\n"
    a = written("a", anchors(), cells(name, SCORES))
    text = printed(compare(a, a))
    assert "[bold]x[/]" in text
    assert "\x1b" not in text


def test_results_are_taken_and_repeat(written):
    a = read_results(written("a", anchors(), cells("ppo", SCORES)))
    b = read_results(written("b", anchors(), cells("ppo", SCORES + NOISE)))
    assert compare(a, b) == compare(a, b)
    assert compare(a, b) != compare(a, b, seed=1)
