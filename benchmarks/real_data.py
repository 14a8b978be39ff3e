"""Real data, end to end: imitation of real texts, then reinforcement learning on their score.

    python benchmarks/real_data.py --multi30k FOLDER --sst2 FOLDER --runs runs/real

`textgym sft` first fits the bundled model to the data's train part, then `textgym train` goes on
from there. All figures are of held-out rows, sampled at temperature 1 (greedy where it says so).
Writes benchmarks/results/real_data.json; a step that is done is not run again.

- `Translation`: Multi30k captions, English to German, of at most 12 words; chrF and BLEU. Rewarded
  by chrF, of which a weak translation has some: of BLEU it has next to nothing.
- `Sentiment`: SST-2, the rest of a review from its first six words; the classifier's tone, fluency.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results" / "real_data.json"
SFT = ("--demonstrations", "60000", "--batch-size", "64", "--eval-episodes", "512")
RL = (
    *("--timesteps", "200000", "--learning-rate", "5e-4"),
    *("--eval-episodes", "512", "--resume"),
)
# Scores of weak translations are small, and so must be what a nat of KL costs.
OF_ONE = {
    "textgym/Sentiment-v0": ("--kl-coef", "0.02"),
    "textgym/Translation-v0": ("--env", "metric=chrf", "--kl-coef", "0.0005"),
}
KEPT = (
    *("score", "score_greedy", "metrics", "loss"),
    *("kl_per_token", "train_seconds", "demonstrations", "timesteps", "versions", "threads"),
)


def step(name: str, arguments: list[str], folder: Path, threads: int) -> dict[str, Any]:
    """One `textgym` command into `folder`; what it measured."""
    typed = ["textgym", name, *arguments, "--threads", str(threads), "--out", str(folder)]
    if not _is_finished(folder):
        if name == "sft":  # which starts again where it was cut short
            shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "textgym_agents.cli", *typed[1:]], check=True)
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    kept = {
        key: value
        for key, value in record.items()
        if key.removesuffix("_before").removesuffix("_after") in KEPT
    }
    return {"command": " ".join(typed), **kept}


def _is_finished(folder: Path) -> bool:
    file = folder / "run.json"
    return file.is_file() and json.loads(file.read_text(encoding="utf-8"))["status"] == "finished"


def measure(id: str, env: list[str], runs: Path, threads: int) -> dict[str, Any]:
    """Imitation, then reinforcement learning."""
    name = id.removeprefix("textgym/").removesuffix("-v0").lower()
    options = [id, *(part for pair in env for part in ("--env", pair))]
    fitted = runs / f"{name}-sft"
    sft = step("sft", [*options, "--model", "bundled", *SFT], fitted, threads)
    options += ["--model", str(fitted / "model"), *RL, *OF_ONE[id]]
    return {"sft": sft, "rl": step("train", options, runs / f"{name}-rl", threads)}


def show(id: str, found: dict[str, Any]) -> None:
    """A table of one data set, for a person."""
    print(f"\n{id}")
    stages = (
        ("bundled", found["sft"], "before"),
        ("after sft", found["sft"], "after"),
        ("after rl", found["rl"], "after"),
    )
    for title, record, stage in stages:
        figures = {
            "score": record[f"score_{stage}"],
            "greedy": record[f"score_greedy_{stage}"],
            **record[f"metrics_{stage}"],
        }
        print(f"  {title:10}", "  ".join(f"{name} {value:.3f}" for name, value in figures.items()))


def main() -> None:
    """Run what data is given for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--multi30k", type=Path, help="folder of Multi30k's .en.gz and .de.gz")
    parser.add_argument("--sst2", type=Path, help="folder of SST-2's .tsv files")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the run folders")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if not (arguments.multi30k or arguments.sst2):
        parser.error("give --multi30k or --sst2, or both")
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    wanted = {}
    if arguments.sst2:
        wanted["textgym/Sentiment-v0"] = [f"dataset={arguments.sst2}"]
    if arguments.multi30k:
        wanted["textgym/Translation-v0"] = [f"dataset={arguments.multi30k}", "max_words=12"]
    before = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    report = before.get("results", {})
    about = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    for id, env in wanted.items():
        report[id] = measure(id, env, arguments.runs, arguments.threads)
        text = json.dumps({"about": about, "results": report}, indent=2) + "\n"
        RESULTS.write_text(text, encoding="utf-8")
        show(id, report[id])


if __name__ == "__main__":
    main()
