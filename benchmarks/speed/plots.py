"""The pictures of `docs/performance.md`. Needs matplotlib (`pip install -e ".[docs]"`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "textgym"  # the same bytes for the same figures
from matplotlib import pyplot  # noqa: E402  # after the choice of a backend

_LABELS = {
    "context": "tokens of context",
    "rows": "rows (number of envs)",
    "vocabulary": "tokens of the vocabulary",
    "width": "width of the model",
}


def growth_picture(found: Mapping[str, Any], out: Path) -> None:
    """The cost of a token against each of the sizes, both logarithmic."""
    sweeps = found["sweeps"]
    figure, every = pyplot.subplots(1, len(sweeps), figsize=(3 * len(sweeps), 3), squeeze=False)
    for axes, (name, sweep) in zip(every[0], sweeps.items(), strict=True):
        values, costs = zip(*sweep["points"], strict=True)
        axes.loglog(values, costs, marker="o", color="#1f6feb")
        axes.set_xticks(values, [f"{value:,}" for value in values], fontsize=7)
        axes.minorticks_off()
        axes.set_xlabel(_LABELS[name])
        axes.set_title(f"exponent {sweep['exponent']:.2f}", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        low, high = min(costs), max(costs)
        axes.set_ylim(low / 2, high * 2)
    every[0][0].set_ylabel("µs a generated token")
    _save(figure, out)


def stages_picture(profiles: Mapping[str, Any], out: Path) -> None:
    """Shares of a token's time, a bar for each model."""
    names = list(dict.fromkeys(name for p in profiles.values() for name in p["parts"]))
    shades = pyplot.get_cmap("tab20")
    figure, axes = pyplot.subplots(figsize=(9, 1.2 + 0.5 * len(profiles)))
    for row, profile in enumerate(profiles.values()):
        left = 0.0
        for i, name in enumerate(names):
            share = profile["parts"].get(name, {"share": 0.0})["share"]
            label = name if row == 0 else None
            axes.barh(row, share, left=left, color=shades(i % 20), label=label, height=0.7)
            left += share
    axes.set_yticks(range(len(profiles)), list(profiles))
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of a token's time, written and learnt from once")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    _save(figure, out)


def _save(figure: Any, out: Path) -> None:
    figure.tight_layout()
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, metadata={"Date": None})
    pyplot.close(figure)
