"""Charts: the right places, and colours that everybody tells apart."""

import importlib.resources
import re

import numpy as np
import pytest

from textgym_agents.bench.report.charts import (
    BOTTOM,
    COLOURS,
    HEIGHT,
    LEFT,
    MARKERS,
    RIGHT,
    TOP,
    WIDTH,
    Chart,
    Line,
    draw,
    look,
    ticks,
)

# What colours look like to others, on linear RGB. Source: Machado, Oliveira and Fernandes, A
# physiologically-based model for simulation of color vision deficiency, 2009, severity 1.
VISIONS = {
    "usual": np.eye(3),
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def colours(mode):
    style = importlib.resources.files("textgym_agents.bench.report") / "style.css"
    pairs = re.findall(r"--(\w+): light-dark\((#\w{6}), (#\w{6})\)", style.read_text("utf-8"))
    values = {name: both[mode] for name, *both in pairs}
    return {
        n: np.array([int(v[i : i + 2], 16) for i in (1, 3, 5)]) / 255 for n, v in values.items()
    }


def linear(colour):
    return np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    high, low = sorted((float(linear(c) @ XYZ[1]) for c in (one, other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def lab(rgb):
    x = np.clip(rgb, 0, 1) @ XYZ.T / [0.9505, 1.0, 1.089]
    f = np.where(x > 0.008856, np.cbrt(x), 7.787 * x + 16 / 116)
    return np.stack([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_lines_and_texts_stand_out_from_the_paper(mode):
    found = colours(mode)
    lines = [f"c{i}" for i in range(COLOURS)]
    assert min(contrast(found[name], found["paper"]) for name in lines) >= 3.0
    for paper in ("paper", "raised"):
        texts = ("ink", "dim", "accent", "bad")
        assert min(contrast(found[name], found[paper]) for name in texts) >= 4.5
    assert contrast(found["ink"], found["note"]) >= 4.5


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("vision", VISIONS)
def test_any_two_lines_differ_to_every_eye(mode, vision):
    found = colours(mode)
    seen = [lab(np.array(VISIONS[vision]) @ linear(found[f"c{i}"])) for i in range(COLOURS)]
    gaps = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]]
    assert min(gaps) > 20


def test_a_hundred_agents_look_different_but_for_few():
    looks = [(look(i), MARKERS[i % len(MARKERS)]) for i in range(32)]
    assert len(set(looks)) == 32


def test_points_lie_where_they_belong():
    line = Line(3, "<b>", np.array([0.0, 10.0]), np.array([0.0, 1.0]))
    text = draw(Chart("c", "x", "y", [line], y_range=(0.0, 1.0)))
    path = f"M{LEFT}.0 {HEIGHT - BOTTOM}.0 {WIDTH - RIGHT}.0 {TOP}.0"
    assert f'class="line" d="{path}"' in text
    assert "<title>&lt;b&gt;</title>" in text
    assert 'data-agent="3"' in text


def test_a_band_goes_there_and_back():
    x = np.array([0.0, 1.0])
    line = Line(0, "a", x, x, low=x * 0, high=x * 0 + 1)
    text = draw(Chart("c", "x", "y", [line], y_range=(0.0, 1.0)))
    left, right, top, bottom = LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM
    corners = f"M{left}.0 {top}.0 {right}.0 {top}.0 {right}.0 {bottom}.0 {left}.0 {bottom}.0z"
    assert corners in text
    assert "band" not in draw(Chart("c", "x", "y", [Line(0, "a", x, x, x * np.nan, x * np.nan)]))


@pytest.mark.parametrize(("x", "y"), [([5.0], [0.3]), ([0.0, 0.0], [1e9, 1e9]), ([1.0], [-1e-9])])
def test_a_chart_of_one_point_is_drawn(x, y):
    text = draw(Chart("c", "x", "y", [Line(0, "a", np.array(x), np.array(y))]))
    assert "nan" not in text
    assert "inf" not in text


def test_nothing_to_draw_is_said():
    assert "No curve was recorded: c." in draw(Chart("c", "x", "y", []))


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (-0.07, 1.04), (3, 117), (0, 1e6), (0.5, 0.5001)]
)
def test_ticks_are_round_few_and_inside(low, high):
    found = ticks(low, high)
    assert 2 <= len(found) <= 6
    assert low <= found[0] + 1e-9
    assert found[-1] <= high + 1e-9
