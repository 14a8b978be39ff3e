"""A classifier as the reward: what it does to a story teller, with and without the KL term.

    python benchmarks/reward_hacking.py --sst2 FOLDER --model FOLDER --runs runs/hacking \\
        --json benchmarks/results/reward_hacking.json

`textgym fit-reward` fits a small classifier to SST-2 (unless `--classifier` names one), then
`textgym train textgym/Continuation-v0 --reward classifier:...` runs with three seeds and the KL
term, and once without it. Of each: the classifier's positive probability of held-out texts and
their perplexity under the base model, before and after; the alarms; texts. At last
`textgym audit-reward`.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

ENV = "textgym/Continuation-v0"
SEEDS = (0, 1, 2)
PACKAGES = ("textgym", "torch", "transformers", "stable-baselines3", "gymnasium", "numpy")


def textgym(*arguments: str) -> str:
    """Run a command; its standard output."""
    print("$ textgym", shlex.join(arguments), flush=True)
    command = [sys.executable, "-m", "textgym_agents.cli", *arguments]
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout


def figures(model: str, base: str, classifier: str, episodes: int) -> dict[str, float]:
    """Of held-out texts: the classifier's probability, and the base model's perplexity."""
    rewards = ("--reward", f"classifier:{classifier}", "--reward", f"log_prob:{base}")
    asked = ("evaluate", ENV, "--model", model, "--episodes", str(episodes), "--json", *rewards)
    found = json.loads(textgym(*asked))["rewards"]
    return {"positive": found["classifier"], "perplexity": math.exp(-found["log_prob"])}


def one_run(folder: Path, options: argparse.Namespace, seed: int, *, kl: bool) -> dict[str, Any]:
    """Train with one seed; figures after it."""
    if not (folder / "run.json").is_file():
        textgym(
            *(
                "train",
                ENV,
                "--model",
                options.model,
                "--reward",
                f"classifier:{options.classifier}",
            ),
            *("--timesteps", str(options.timesteps), "--seed", str(seed), "--threads", "1"),
            *("--out", str(folder)),
            *(() if kl else ("--kl-coef", "0", "--learning-rate", "1e-3")),
        )
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    samples = (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    after = figures(str(folder / "model"), options.model, options.classifier, options.episodes)
    return {
        "seed": seed,
        "kl": kl,
        "command": run["command"],
        "tokens": run["timesteps"],
        "seconds": run["train_seconds"],
        "kl_per_token": run["kl_per_token"],
        **{f"{name}_after": value for name, value in after.items()},
        "alarms": [(a["name"], a["timesteps"]) for a in run["alarms"]],
        "texts": [row for row in map(json.loads, samples) if row["stage"] == "after"],
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sst2", help="folder of train.tsv and dev.tsv")
    parser.add_argument("--classifier", help="folder of one fitted already")
    parser.add_argument("--model", required=True, help="folder of the language model")
    parser.add_argument("--runs", type=Path, default=Path("runs/hacking"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--timesteps", type=int, default=150_000)
    parser.add_argument("--episodes", type=int, default=256)
    options = parser.parse_args()
    result: dict[str, Any] = {}
    if options.classifier is None:
        options.classifier = str(options.runs / "classifier")
        if not Path(options.classifier).is_dir():
            sst2 = Path(options.sst2)
            files = ("--train", str(sst2 / "train.tsv"), "--dev", str(sst2 / "dev.tsv"))
            textgym("fit-reward", *files, "--out", options.classifier, "--threads", "1")
    fitted = Path(options.classifier) / "fit_reward.json"
    result["fit_reward"] = json.loads(fitted.read_text(encoding="utf-8"))
    before = figures(options.model, options.model, options.classifier, options.episodes)
    result["before"] = before
    runs = [(seed, True) for seed in SEEDS] + [(0, False)]
    result["runs"] = [
        one_run(options.runs / f"{'kl' if kl else 'free'}-{seed}", options, seed, kl=kl)
        for seed, kl in runs
    ]
    print(f"\n{'run':10}{'positive':>18}{'perplexity':>20}{'times':>8}{'KL':>7}  alarms")
    for run in result["runs"]:
        times = run["perplexity_after"] / before["perplexity"]
        names = ", ".join(dict.fromkeys(name for name, _ in run["alarms"])) or "none"
        print(
            f"{'with KL' if run['kl'] else 'without':8}{run['seed']:2}"
            f"{before['positive']:9.3f} -> {run['positive_after']:.3f}"
            f"{before['perplexity']:11.2f} -> {run['perplexity_after']:.2f}{times:8.2f}"
            f"{run['kl_per_token']:7.3f}  {names}"
        )
        for row in run["texts"][:3]:
            print(f"    {row['prompt']}{row['completion']!r}")
    free = str(options.runs / "free-0" / "model")
    page = str(options.runs / "audit.html")
    audited = ("audit-reward", f"classifier:{options.classifier}", "--env", ENV, "--out", page)
    result["audit"] = textgym(*audited, "--model", options.model)
    result["audit_after_hacking"] = textgym(*audited, "--model", free)
    print(result["audit"].splitlines()[-2])
    result["about"] = {
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
