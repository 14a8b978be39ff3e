"""`textgym audit-reward`: the terminal, the page, and clear errors."""

from html.parser import HTMLParser

import pytest

from textgym_agents.cli.audit_page import page
from textgym_agents.cli.entry import run

AUDIT = ["audit-reward", "keywords:happy,the", "--env", "textgym/Continuation-v0"]


class Checker(HTMLParser):
    """Counts what would run or be fetched, and checks that tags are closed."""

    def __init__(self):
        super().__init__()
        self.open, self.bad = [], []

    def handle_starttag(self, tag, attrs):
        if tag in ("script", "link", "img", "iframe") or any(
            k in ("src", "href") for k, _ in attrs
        ):
            self.bad.append(tag)
        if tag not in ("meta", "br", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag != "rect":
            assert self.open.pop() == tag


def test_the_report_is_printed_and_written(tmp_path, capsys):
    out = tmp_path / "new" / "audit.html"
    status = run(
        [
            *AUDIT,
            "--prompt",
            "One day",
            "--max-new-tokens",
            "12",
            "--samples",
            "24",
            "--out",
            str(out),
        ]
    )
    assert status == 0
    screen = capsys.readouterr().out
    assert "24 texts of textgym/Continuation-v0" in screen
    assert "words of all samples" in screen
    assert "kinds of worthless text are paid like good ones" in screen
    checker = Checker()
    checker.feed(out.read_text(encoding="utf-8"))
    assert (checker.open, checker.bad) == ([], [])


def test_hostile_texts_are_shown_and_never_run():
    from textgym.audit import audit
    from textgym.episode import Episode, Instance
    from textgym.rewards import Length
    from textgym.tokenization import Tokenizer

    tokenizer = Tokenizer.load()
    texts = ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\x1b[31m\x00 \ud800 fox"]
    samples = [Episode.written(Instance(t), t, tokenizer) for t in texts]
    made = page(audit(Length(max=3), samples, tokenizer), "length:max=3", "<b>id</b>")
    checker = Checker()
    checker.feed(made)
    assert checker.bad == []
    assert "&lt;script&gt;" in made
    assert "\x1b" not in made
    assert "\x00" not in made
    made.encode("utf-8")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["audit-reward", "keyword:happy", *AUDIT[2:]], "did you mean `keywords`"),
        ([*AUDIT[:3], "textgym/Stroy-v0"], "Story-v0"),
        ([*AUDIT, "--model", "./no/such"], "no such folder"),
    ],
)
def test_errors_are_one_line(change, words, capsys):
    assert run(change) != 0
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error
