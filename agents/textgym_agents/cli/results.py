"""What a training run shows when it ends: texts before and after, and the figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from textgym_agents.cli.display import Sample, before_and_after, figures_table
from textgym_agents.cli.run_folder import RunFolder
from textgym_agents.sb3.evaluation import EvaluationResult

SAMPLES = 4


def sample_rows(result: EvaluationResult, stage: str, step: int) -> list[dict[str, Any]]:
    """The first texts of `result`, as rows of `samples.jsonl`."""
    return [
        {
            "stage": stage,
            "timesteps": step,
            "number": number,
            "prompt": episode.prompt,
            "completion": episode.completion_text,
            "reward": float(reward),
        }
        for number, (episode, reward) in enumerate(
            zip(result.episodes[:SAMPLES], result.returns, strict=False)
        )
    ]


def show_results(folder: RunFolder, console: Console) -> None:
    """Texts before and after, the figures, and where everything is."""
    record = folder.record
    before, after = (
        {row["number"]: row for row in folder.samples() if row["stage"] == stage}
        for stage in ("before", "after")
    )
    samples = [
        Sample(
            prompt=row["prompt"],
            before=row["completion"],
            after=after[number]["completion"],
            reward_before=row["reward"],
            reward_after=after[number]["reward"],
        )
        for number, row in sorted(before.items())
        if number in after and after[number]["prompt"] == row["prompt"]
    ]
    console.print(before_and_after(samples))
    rows = [
        (title, record.get(f"{key}_before"), record.get(f"{key}_after"))
        for title, key in (
            ("score, sampled", "score"),
            ("score, greedy", "score_greedy"),
            ("reward, sampled", "reward"),
        )
    ]
    console.print(figures_table([row for row in rows if row[1] is not None]))
    console.print(
        f"{record['timesteps']:,} tokens in {record['train_seconds']:.0f} s of training "
        f"({record['tokens_per_s']:,.0f} tokens/s); KL to the base model "
        f"{record['kl_per_token']:.3f} nats a token.\n"
        f"{_alarms_line(record)}"
        f"Model: {folder.model}\nCurves: tensorboard --logdir {folder.tensorboard}",
        soft_wrap=True,
    )


def _alarms_line(record: Mapping[str, Any]) -> str:
    names = list(dict.fromkeys(alarm["name"] for alarm in record.get("alarms", ())))
    if not names:
        return ""
    return (
        f"Alarms: {', '.join(names)}. Read the texts above before you trust the reward; what each "
        f"alarm means is in run.json under `alarms`.\n"
    )
