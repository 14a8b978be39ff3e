"""Reading results: which records count, what is refused, and scores worked out by hand."""

import json
import re

import numpy as np
import pytest

from textgym_agents.bench.records import (
    STATUSES,
    Results,
    check_record,
    parse_line,
    read_lines,
    read_results,
)


def record(task="story", agent="ppo", seed=0, returns=(0.5, 0.7), **more):
    ok = more.get("status", "ok") == "ok"
    return {
        "schema": 1,
        "suite": "core",
        "suite_hash": "0123456789abcdef",
        "task": task,
        "env_id": "textgym/Story-v0",
        "kwargs": {},
        "agent": agent,
        "agent_import": None,
        "seed": seed,
        "status": "ok",
        "error": None,
        "attempts": 1,
        "budget": 1_000,
        "tokens": 1_024,
        "train_seconds": 2.5,
        "cpu_seconds": 2,
        "eval_seconds": 0.5,
        "peak_mb": 300.0,
        "returns": list(returns) if ok else None,
        "greedy_returns": None,
        "exact": None,
        "curve": [{"tokens": 10, "seconds": 0.1, "episodes": 2, "mean_return": 0.5}],
        "samples": [{"stage": "end", "tokens": 9, "prompt": "", "completion": "", "return": 0.1}],
        "pictures": [{"prompt": "p", "tokens": ["a"], "rewards": [1.0], "values": None}],
        "deterministic": {"expected": True, "why_not": None},
        "provenance": {"command": "textgym bench run", "started": "2026-01-01T00:00:00+00:00"},
    } | more


def anchors(task, random, oracle):
    return [
        record(task, "random", returns=[random] * 2),
        record(task, "oracle", returns=[oracle] * 2),
    ]


@pytest.fixture
def written(tmp_path):
    """Write records, a line each, and what else is given; the folder."""

    def write(*records, end=""):
        lines = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records)
        (tmp_path / "results.jsonl").write_text(lines + end, encoding="utf-8")
        return tmp_path

    return write


# ---------------------------------------------------------------------- one record
def test_a_whole_record_is_accepted_with_fields_of_later_versions():
    given = record(more_than_that=1)
    assert check_record(given) is given
    for status in STATUSES:
        failed = {"tokens": None, "train_seconds": None, "curve": None, "deterministic": None}
        assert check_record(
            record(status=status) if status == "ok" else record(status=status, **failed)
        )


@pytest.mark.parametrize("name", sorted(record()))
def test_every_field_is_asked_for(name):
    given = record()
    del given[name]
    with pytest.raises(ValueError, match=rf"`{name}`"):
        check_record(given)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": 2}, "`schema` must be 1, got 2"),
        ({"status": "fine"}, "`status` must be one of ok, crashed"),
        ({"seed": "0"}, "`seed` must be int, got '0'"),
        ({"seed": True}, "`seed` must be int"),
        ({"returns": []}, "`returns` must hold at least 1 number"),
        ({"returns": None}, "`returns` must be list, got"),
        ({"returns": [0.1, "b"]}, "`returns` must hold finite numbers, got 'b' at place 1"),
        ({"returns": [float("nan")]}, "finite numbers, got nan at place 0"),
        ({"greedy_returns": [None]}, "`greedy_returns` must hold finite numbers"),
        ({"train_seconds": float("inf")}, "`train_seconds` must be finite, got inf"),
        ({"exact": {"random": 0.1}}, "`exact` must hold finite numbers, got None at place 1"),
        ({"curve": [{"tokens": 1}]}, "each of `curve` must have `seconds`"),
        ({"samples": ["text"]}, "each of `samples` must have `stage`"),
        (
            {"pictures": [{"prompt": "", "tokens": ["a", "b"], "rewards": [1.0]}]},
            "the lists of a picture must be equally long",
        ),
    ],
)
def test_what_is_wrong_is_named(change, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        check_record(record() | change)


def test_what_is_no_object_is_refused():
    with pytest.raises(ValueError, match="a record must be a JSON object"):
        check_record([1])
    with pytest.raises(ValueError, match="NaN is not a JSON number"):
        parse_line(json.dumps(record(returns=[float("nan")])).encode())
    with pytest.raises(ValueError, match="not valid JSON"):
        parse_line(b"\xff{}")


# ---------------------------------------------------------------------- the file
def test_the_newest_record_of_a_cell_counts_and_its_place_stays(written):
    folder = written(
        record(status="crashed", error="no luck"),
        record(seed=1),
        record(returns=[0.9], attempts=3),
    )
    found = read_results(folder)
    assert [(r["seed"], r["status"], r["attempts"]) for r in found.records] == [
        (0, "ok", 3),
        (1, "ok", 1),
    ]
    assert read_results(folder / "results.jsonl") == found


def test_a_last_line_without_its_end_is_left(written):
    whole = json.dumps(record(seed=1))
    assert len(read_results(written(record(), end=whole)).records) == 1
    assert len(read_results(written(record(), end=whole[:40])).records) == 1


def test_text_with_line_separators_of_unicode_is_one_line(written):
    texts = [{"stage": "end", "tokens": 0, "prompt": "a\u2028b\x85c\x0c", "completion": "\n"}]
    given = record(samples=[texts[0] | {"return": 0.0}])
    assert read_lines(written(given) / "results.jsonl") == [given]


def test_lines_that_are_no_records_are_named(written):
    bad = record(seed=3) | {"status": "odd"}
    with pytest.raises(ValueError, match=r"results.jsonl, line 2: `status` must be .* Delete"):
        read_results(written(record(), bad))


def test_two_suites_in_a_file_are_refused(written):
    other = record(seed=1, suite="exact", suite_hash="f" * 16)
    with pytest.raises(ValueError, match=r"line 2: a record of suite exact \(f+\) in a file of"):
        read_results(written(record(), other))


def test_what_is_missing_is_told_with_the_command_that_makes_it(tmp_path, written):
    with pytest.raises(FileNotFoundError, match=r"does not exist.*textgym bench run"):
        read_results(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no record yet"):
        read_results(written())


# ---------------------------------------------------------------------- scores
def test_scores_by_hand():
    results = Results(
        (
            *anchors("story", 0.2, 1.0),
            *anchors("lock", 0.0, 0.5),
            record("story", "ppo", 0, [0.5, 0.7]),  # mean 0.6: (0.6 - 0.2) / 0.8
            record("story", "ppo", 2, [0.2]),
            record("lock", "ppo", 2, [0.0, 0.5]),
            record("lock", "ppo", 0, status="crashed"),
            record("lock", "a2c", 5, [0.75]),
        )
    )
    assert results.tasks == ("story", "lock")
    assert results.agents == ("ppo", "a2c")
    assert results.seeds("ppo") == (0, 2)
    expected = [[0.5, np.nan], [0.0, 0.5]]
    np.testing.assert_allclose(results.scores("ppo"), expected, rtol=1e-12)
    np.testing.assert_allclose(results.scores("a2c"), [[np.nan, 1.5]], rtol=1e-12)
    np.testing.assert_allclose(results.scores("random"), [[0.0, 0.0]])
    np.testing.assert_allclose(results.scores("oracle"), [[1.0, 1.0]])
    assert [r["agent"] for r in results.failed] == ["ppo"]
    with pytest.raises(TypeError, match="did you mean `ppo`"):
        results.scores("pp")


def test_what_is_known_exactly_takes_the_place_of_what_was_measured():
    exact = {"random": 0.1, "optimum": 0.6}
    ppo = record("lock", "ppo", returns=[0.35], greedy_returns=[0.6], exact=exact)
    results = Results((*anchors("lock", 0.3, 0.9), ppo))
    found = results.anchors("lock")
    assert (found.random, found.oracle, found.exact) == (0.1, 0.6, True)
    assert results.score(ppo) == pytest.approx(0.5)
    assert results.score(ppo, greedy=True) == pytest.approx(1.0)
    assert results.score(results.records[0]) == pytest.approx(0.4)  # a measured random: not 0


def test_what_is_known_of_one_task_is_not_taken_for_another():
    known = {"random": 0.0, "optimum": 2.0}
    results = Results(
        (
            record("lock", "random", returns=[0.0], exact=known),
            record("story", returns=[0.75]),
            *anchors("story", 0.5, 1.0),
        )
    )
    assert results.scores("ppo")[0].tolist() == pytest.approx([np.nan, 0.5], nan_ok=True)


def test_without_both_anchors_apart_there_is_no_score():
    ppo = record()
    lone = Results((anchors("story", 0.2, 1.0)[0], ppo))
    equal = Results((*anchors("story", 0.5, 0.5), ppo))
    for results in (lone, equal):
        assert results.anchors("story") is None
        assert results.score(ppo) is None
        assert np.isnan(results.scores("ppo")).all()
    whole = Results((*anchors("story", 0.0, 1.0), ppo))
    assert whole.score(ppo) == pytest.approx(0.6)
    assert whole.score(ppo, greedy=True) is None  # not measured
