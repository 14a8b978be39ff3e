"""The page in a real browser. Skipped, with the reason, where none is installed."""

import pytest

from textgym_agents.bench.report import write_report


@pytest.fixture(scope="module")
def written(results, browser, tmp_path_factory):
    folder = results["save"](results["full"](), tmp_path_factory.mktemp("run") / "results")
    return write_report(folder)


BOARD = "#scores > .scroll:first-of-type table"
DASH = "\N{EN DASH}"
NAMES = f"[...document.querySelectorAll('{BOARD} tbody th')].map(cell => cell.innerText)"


def click(browser, selector):
    browser.run(f"document.querySelector({selector!r}).click()")


def seen(browser, selector):
    """How many of the elements take up room."""
    elements = f"[...document.querySelectorAll({selector!r})]"
    return browser.run(f"{elements}.filter(e => e.getClientRects().length).length")


def test_it_renders_without_a_complaint(browser, written):
    browser.open(written)
    assert browser.complaints() == []
    assert browser.run("document.querySelector('h1').innerText") == "core"
    assert seen(browser, "svg.chart") == 3 + 8
    assert seen(browser, "section.task") == 8


def test_hostile_text_is_text(browser, written):
    browser.open(written)
    assert browser.run("window.hacked === undefined && document.images.length === 0")
    assert browser.run("document.scripts.length") == 1
    assert browser.run("document.body.textContent.split('<img src=x onerror=').length") > 8


def test_no_other_script_runs(browser, written, tmp_path):
    changed = tmp_path / "changed.html"
    text = written.read_text("utf-8").replace(
        "</body>", "<script>window.hacked = 9</script></body>"
    )
    changed.write_text(text, encoding="utf-8")
    browser.open(changed)
    assert browser.run("window.hacked === undefined")
    assert any("Content Security Policy" in str(found) for found in browser.complaints())


def test_a_click_on_a_head_sorts_the_rows(browser, written):
    browser.open(written)
    before = browser.run(NAMES)
    head = f"document.querySelectorAll('{BOARD} thead th')"
    assert browser.run(f"{head}[1].getAttribute('aria-sort')") == "descending"
    browser.run(f"{head}[1].querySelector('button').click()")
    assert browser.run(NAMES) == before[::-1]
    assert browser.run(f"{head}[1].getAttribute('aria-sort')") == "ascending"
    browser.run(f"{head}[0].querySelector('button').click()")
    assert browser.run(NAMES) == sorted(before, key=str.lower)
    assert browser.run(f"{head}[1].getAttribute('aria-sort')") == "none"
    # Less of a gap is better, so that goes first.
    browser.run(f"{head}[5].querySelector('button').click()")
    gaps = (
        f"[...document.querySelectorAll('{BOARD} tbody tr')].map(r => Number(r.cells[5].dataset.v))"
    )
    assert browser.run(gaps) == sorted(browser.run(gaps))
    browser.run(f"{head}[5].querySelector('button').click()")
    assert browser.run(gaps) == sorted(browser.run(gaps), reverse=True)
    # What is missing goes last either way: no agent is better than itself.
    for _ in range(2):
        browser.run(f"{head}[6].querySelector('button').click()")
        assert browser.run(NAMES)[-1] == "grpo"


def test_agents_are_compared_with_the_chosen_one(browser, written):
    browser.open(written)
    shown = f"[...document.querySelectorAll('{BOARD} td.better')].map(cell => cell.innerText)"
    before = browser.run(shown)
    assert before[0] == DASH
    browser.run(
        "const box = document.getElementById('against'); box.value = '1';"
        "box.dispatchEvent(new Event('change', {bubbles: true}))"
    )
    after = browser.run(shown)
    assert after[1] == DASH
    # Won by the one and won by the other make one.
    assert float(before[1].split()[0]) + float(after[0].split()[0]) == pytest.approx(1, abs=0.011)


def test_filters_hide_rows_lines_and_tasks(browser, written):
    browser.open(written)
    assert seen(browser, f"{BOARD} tbody tr") == 6
    lines = seen(browser, "svg.chart g[data-agent='0']")
    assert lines == 3 + 8
    click(browser, "#agents input[value='0']")
    assert seen(browser, f"{BOARD} tbody tr") == 5
    assert seen(browser, "svg.chart g[data-agent='0']") == 0
    assert browser.run("document.getElementById('status').innerText").startswith("Showing 6 of 7")
    browser.run(
        "const box = document.getElementById('task'); box.value = '2';"
        "box.dispatchEvent(new Event('change', {bubbles: true}))"
    )
    assert seen(browser, "section.task") == 1
    assert seen(browser, "#task-2") == 1
    click(browser, ".tools button[type=reset]")
    browser.run("new Promise(done => setTimeout(done))")
    assert seen(browser, "section.task") == 8
    assert seen(browser, f"{BOARD} tbody tr") == 6


def test_tokens_are_coloured_by_what_is_chosen(browser, written):
    browser.open(written)
    browser.run("document.querySelectorAll('details').forEach(part => part.open = true)")
    colour = "getComputedStyle(document.querySelector('#task-1 .tokens .{}')).backgroundColor"
    clear = "rgba(0, 0, 0, 0)"
    assert browser.run(colour.format("a8")) != clear
    assert browser.run(colour.format("r8.a4")) == clear
    click(browser, "#by-1-r")
    assert browser.run(colour.format("r8.a4")) != clear
    assert browser.run(colour.format("r4.a8")) == clear
    assert seen(browser, "#task-1 .key") == 1


def test_dark_and_light(browser, written):
    paper = "getComputedStyle(document.body).backgroundColor"
    browser.open(written, dark=False)
    light = browser.run(paper)
    click(browser, "#theme")
    dark = browser.run(paper)
    assert dark != light
    assert browser.run("document.getElementById('theme').innerText") == "Light"
    browser.open(written, dark=True)
    assert browser.run(paper) == dark
    click(browser, "#theme")
    assert browser.run(paper) == light


@pytest.mark.parametrize("width", [360, 800])
def test_nothing_is_wider_than_the_page(browser, written, width):
    browser.open(written, width=width)
    browser.run("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert browser.run("document.documentElement.scrollWidth") <= width
    # But for what lies in a box that scrolls, is for screen readers, or is to be skipped to.
    wide = browser.run(
        "[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll table, .skip')"
        f" && e.getBoundingClientRect().right > {width} + 0.5).map(e => e.outerHTML.slice(0, 200))"
    )
    assert wide == []


def test_the_keyboard_reaches_what_can_be_used(browser, written):
    browser.open(written)
    browser.run("document.querySelector('.skip').focus()")
    reached = []
    for _ in range(8):
        for kind in ("rawKeyDown", "keyUp"):
            browser.ask(
                "Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9
            )
        reached.append(browser.run("document.activeElement.id || document.activeElement.tagName"))
    assert reached[0] == "theme"
    assert reached[1:6] == ["A"] * 5
    assert reached[6] == "INPUT"
