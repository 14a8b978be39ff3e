"""The page as text: whole, safe, small, and the same whenever it is written."""

import base64
import hashlib
import html
import re
import time
from html.parser import HTMLParser

import pytest

from textgym_agents.bench.records import Results
from textgym_agents.bench.report import write_report
from textgym_agents.bench.report.data import Report
from textgym_agents.bench.report.markup import number, shown, visible
from textgym_agents.bench.report.page import page

VOID = {"meta", "input", "br"}
# Elements whose end tag HTML lets one leave out, as the tables of tokens do.
OPTIONAL = {"tr", "th", "td", "thead", "tbody"}


class Checker(HTMLParser):
    """Checks that tags are closed, and gathers what would run or be fetched."""

    def __init__(self):
        super().__init__()
        self.open, self.bad, self.ids, self.levels, self.text = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name.startswith("on") or name in ("style", "src", "srcset", "action"):
                self.bad.append((tag, name))
            if name == "href" and not value.startswith("#"):
                self.bad.append((tag, value))
            if name == "id":
                self.ids.append(value)
        if tag in ("link", "img", "iframe", "object", "embed", "base", "use", "image"):
            self.bad.append((tag, ""))
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open[-1] != tag and self.open[-1] in OPTIONAL:
            self.open.pop()
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def written(results, tmp_path_factory):
    folder = results["save"](results["full"](), tmp_path_factory.mktemp("run") / "results")
    return write_report(folder)


def checked(text):
    checker = Checker()
    checker.feed(text)
    checker.close()
    assert checker.open == []
    assert checker.bad == []
    assert len(set(checker.ids)) == len(checker.ids)
    assert all(
        after <= before + 1
        for before, after in zip(checker.levels, checker.levels[1:], strict=False)
    )
    return checker


def test_the_page_is_whole_and_fetches_nothing(written):
    assert written.name == "report.html"
    checked(written.read_text("utf-8"))
    names = {"report.html", "report.md", "report-cells.csv", "report-agents.csv", "results.jsonl"}
    assert {path.name for path in written.parent.iterdir()} == names


def test_only_its_own_script_and_style_may_run(written):
    text = written.read_text("utf-8")
    policy = re.search('http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1]
    for tag in ("style", "script"):
        (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_hostile_texts_are_shown_as_they_are(written, results):
    text = written.read_text("utf-8")
    shown_as = "<script>window.hacked = 1</script> </script> <img src=x onerror='window.hacked=2'>"
    assert text.count(html.escape(shown_as)) > 8
    assert "\u202e" not in text
    assert "\x1b" not in text
    assert "".join(checked(text).text).count(shown_as) > 8


def test_it_is_the_same_page_when_it_is_written_again(written, tmp_path):
    again = write_report(written.parent, tmp_path / "new" / "again.html", against="grpo")
    assert again.read_bytes() == written.read_bytes()  # grpo is the best
    assert (tmp_path / "new" / "again-cells.csv").is_file()


def test_an_unknown_agent_to_compare_with_is_refused(written):
    with pytest.raises(TypeError, match="did you mean `grpo`"):
        write_report(written.parent, against="grop")


def test_what_is_told_of_the_run(written):
    text = " ".join(checked(written.read_text("utf-8")).text)
    for words in (
        "0123456789abcdef",
        "Example CPU @ 2.50GHz, x86_64, 2 cores, 1 thread a run",
        "textgym bench run --suite core",
        "161 of 168 ended well",
        "grpo (GPU kernels add in any order)",
        "stopped after 600 s",
        "ran out of memory",
        "2 cells without a record",
        "rloo on arithmetic, seed 2",
        "is not ranked: no run of translation ended well",
        "has another hash",
    ):
        assert words in text, words


@pytest.mark.parametrize(("agents", "tasks", "seeds"), [(12, 5, 5), (38, 8, 1)])
def test_300_cells_fit_into_three_megabytes_and_some_seconds(results, agents, tasks, seeds):
    agents = {f"agent-{i}": (0.4 + 0.01 * i, 2.0) for i in range(agents)}
    tasks = ["story", "summarization", "datatotext", "translation", "wordle", "a", "b", "c"][:tasks]
    long = [
        sample | {"prompt": "p" * 1_000, "completion": "c" * 2_000}
        for sample in results["record"]("story", "ppo", 0)["samples"]
    ]
    picture = results["record"]("story", "ppo", 0)["pictures"][0]
    pictures = [
        {key: value if key == "prompt" else value * 8 for key, value in picture.items()}
    ] * 2
    records = results["records"](agents, tasks, range(seeds))
    for record in records:
        if record["agent"] in agents:
            record |= {"samples": long} | ({"pictures": pictures} if record["seed"] == 0 else {})
    began = time.process_time()
    text = page(Report(Results(tuple(records))))
    assert len(text.encode()) < 3_000_000
    assert time.process_time() - began < 20


@pytest.mark.parametrize("agents", [{}, {"only": (0.5, 2.0)}])
def test_a_page_of_next_to_nothing(results, agents):
    records = results["records"](agents, ["story"], (0,), pictures=[], samples=[], curve=[])
    text = page(Report(Results(tuple(records))))
    checked(text)
    assert (
        "nan"
        not in re.sub("<style>.*?</style>|<script>.*?</script>", "", text, flags=re.DOTALL).lower()
    )


def test_a_page_of_failures_alone(results):
    records = results["records"]({"ppo": (0.5, 2.0)}, ["story"])
    records = [results["failed"](record, "killed", None) for record in records]
    text = " ".join(checked(page(Report(Results(tuple(records))))).text)
    assert "no reason was recorded" in text
    assert "was killed" in text


def test_tokens_carry_their_figures_and_colours(results):
    picture = {
        "prompt": "p",
        "tokens": ["a", "b", "\n"],
        "rewards": [0.0, 0.0, 1.0],
        "values": [0.2, 0.6, 1.0],
        "advantages": [-2.0, 0.0, 2.0],
        "log_probs": [-1.0, -1.0, -1.0],
        "ref_log_probs": [-1.5, -1.0, None],
    }
    records = results["records"]({"ppo": (0.5, 2.0)}, ["story"], (0,))
    records[-1]["pictures"] = [picture]
    text = page(Report(Results(tuple(records))))
    spans = re.findall('<span class="([^"]*)" title="([^"]*)">([^<]*)</span>', text)
    found = {inside: (css, title) for css, title, inside in spans if "advantage" in title}
    assert found["a"][0] == "a0 v0 l8 r4"
    assert found["b"][0] == "a4 v4 l4 r4"
    assert found["\u21b5\n"][0] == "a8 v8 r8"
    told = found["a"][1].replace("\N{MINUS SIGN}", "-")
    assert "advantage -2.0000; value 0.2000; log-prob against the reference 0.5000" in told
    assert "log-prob -1.0000; the reference's -1.5000" in told


def test_numbers_and_texts():
    assert number(-0.0001) == "0.00"
    assert number(float("nan")) == number(None) == "\N{EN DASH}"
    assert visible("a" * 10, 3) == "aaa ..."
    assert shown("\u202e&\ud800\x00") == "\ufffd&amp;?\ufffd"
