"""Markdown and CSV: the same figures, and nothing that a reader of them would run."""

import csv
import re

import pytest

from textgym_agents.bench.records import Results
from textgym_agents.bench.report.data import Report
from textgym_agents.bench.report.export import agents_csv, cells_csv, markdown


@pytest.fixture(scope="module")
def report(results):
    return Report(Results(tuple(results["full"]())))


def rows(text):
    return list(csv.DictReader(text.splitlines()))


def test_a_row_a_cell(report):
    found = rows(cells_csv(report))
    assert len(found) == len(report.results.records)
    ppo = next(r for r in found if (r["agent"], r["task"], r["seed"]) == ("ppo", "wordle", "1"))
    value = report.returns("ppo", "wordle")[1]
    assert float(ppo["mean_return"]) == value
    assert float(ppo["score"]) == pytest.approx((value + 0.05) / 0.95, abs=0.02)
    bad = next(r for r in found if r["status"] == "timeout")
    assert (bad["error"], bad["score"], bad["tokens"]) == ("stopped after 600 s", "", "")


def test_a_row_an_agent(report):
    found = {row["agent"]: row for row in rows(agents_csv(report))}
    assert len(found) == 7
    best = report.standings[0]
    assert float(found[best.agent]["iqm"]) == best.iqm.value
    assert float(found[best.agent]["iqm_high"]) == best.iqm.high
    assert found["reinforce"]["iqm"] == ""
    assert found["reinforce"]["runs"] == "21"


def test_a_spreadsheet_takes_no_text_for_a_formula(results):
    records = results["records"]({"=1+1": (0.5, 2.0)}, ["story"], (0,), error="@SUM(1)\nnext")
    text = cells_csv(Report(Results(tuple(records))))
    assert ",'=1+1," in text
    assert rows(text)[-1]["error"].startswith("'@SUM(1)")
    assert float(rows(text)[-1]["mean_return"]) < 1


def test_markdown_tables_have_as_many_columns_in_every_row(report):
    text = markdown(report, "ppo")
    for table in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1
    assert "better than ppo" in text
    assert "Not told apart by 3 seeds" in text
    assert "- a2c on story, seed 1: ran out of time. stopped after 600 s" in text
    assert "- rloo on arithmetic, seed 2: no record." in text
    assert not re.search(r"(?<!\\)<", text)
