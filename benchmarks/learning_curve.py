"""Draw the learning curve of a run folder as SVG.

    python benchmarks/learning_curve.py runs/demo --out docs/images/demo.svg

Needs matplotlib (`pip install -e ".[docs]" -c constraints.txt`).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

SERIES = {
    "heldout/score": ("held-out prompts", "#1f6feb", 2.0),
    "rollout/score": ("training prompts", "#8b949e", 1.0),
    "heldout/reward": ("held-out prompts", "#1f6feb", 2.0),
    "rollout/ep_rew_mean": ("training prompts", "#8b949e", 1.0),
}


def scalars(folder: Path, tag: str) -> tuple[list[int], list[float]]:
    """Steps and values of `tag` over all event files of `folder`."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    if tag not in events.Tags()["scalars"]:
        return [], []
    found = events.Scalars(tag)
    return [e.step for e in found], [e.value for e in found]


def draw(run: Path, out: Path) -> None:
    """Write the picture."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "textgym"  # the same bytes for the same run
    from matplotlib import pyplot

    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    kind = "score" if record.get("score_before") is not None else "reward"
    tags = [t for t in SERIES if (kind == "score") == t.endswith("score")]
    figure, axes = pyplot.subplots(figsize=(7, 3.2))
    for tag in reversed(tags):
        steps, values = scalars(run / "tensorboard", tag)
        label, colour, width = SERIES[tag]
        axes.plot(steps, values, color=colour, linewidth=width, label=label)
    greedy = record.get(f"{kind}_greedy_before")
    if greedy is not None:
        axes.axhline(greedy, color="#d29922", linestyle=":", label="base model, greedy")
    axes.set_xlabel("tokens written")
    axes.set_ylabel(f"mean {kind}")
    axes.set_title(f"PPO on {record['options']['env']['id']}: {record['train_seconds']:.0f} s")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.tight_layout()
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, metadata={"Date": None})


def main() -> None:
    """Read the arguments and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder that `textgym train` left")
    parser.add_argument("--out", type=Path, required=True, help="the SVG to write")
    arguments = parser.parse_args()
    draw(arguments.run, arguments.out)


if __name__ == "__main__":
    main()
