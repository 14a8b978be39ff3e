"""`textgym audit-reward`: what a reward pays for, before an agent finds out."""

from __future__ import annotations

from pathlib import Path

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from textgym.audit import Audit, audit
from textgym.rewards import from_spec
from textgym_agents.cli.audit_page import page
from textgym_agents.cli.building import build_envs, build_policy
from textgym_agents.cli.display import printable
from textgym_agents.cli.errors import CommandError
from textgym_agents.cli.options import EnvOptions, ModelOptions
from textgym_agents.sb3.evaluation import evaluate

_SHOWN = 160
_ROWS = 64


def audit_reward(
    spec: str, env: EnvOptions, model: ModelOptions, *, samples: int, seed: int
) -> Audit:
    """Let `model` write `samples` texts in `env`, and examine the reward that `spec` names."""
    torch.set_num_threads(1)
    reward, _ = from_spec(spec)
    envs = build_envs(env, model, n_envs=min(samples, _ROWS), seed=seed, split="train")
    try:
        policy = build_policy(env, model)
        episodes = evaluate(policy, envs, samples, seed=seed).episodes
        reward.bind(envs.tokenizer, envs.envs.unwrapped.task.score_batch)
        return audit(reward, episodes, envs.tokenizer, seed=seed)
    finally:
        envs.close()


def show(report: Audit, spec: str, env_id: str, console: Console) -> None:
    """The report in the terminal."""
    spread = "  ".join(f"{name} {value:.3f}" for name, value in report.spread.items())
    console.print(f"{spec} on {len(report.rewards)} texts of {env_id}: {spread}", soft_wrap=True)
    low, high = report.range
    console.print(
        f"Declared range [{low:g}, {high:g}]; {report.on_length}.",
        soft_wrap=True,
    )
    for problem in report.problems:
        console.print(Text(f"! {problem}", style="bold red"), soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, title="What it pays for worthless texts")
    for heading in ("text", "mean", "most", "above", ""):
        table.add_column(heading, justify="left" if heading in ("text", "") else "right")
    for finding in report.findings:
        table.add_row(
            finding.probe,
            f"{finding.mean:.3f}",
            f"{finding.best:.3f}",
            f"{finding.percentile:.0%}",
            Text(f"! {finding.means}", style="bold red") if finding.suspicious else Text(""),
        )
    console.print(table)
    for title, rows in (("Best paid", report.best), ("Worst paid", report.worst)):
        table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
        table.add_column("reward", justify="right")
        table.add_column("prompt", style="dim", ratio=1)
        table.add_column("text", ratio=2)
        for value, episode in rows:
            table.add_row(
                f"{value:.3f}",
                Text(shortened(episode.prompt)),
                Text(shortened(episode.completion_text)),
            )
        console.print(table)
    found = [finding for finding in report.findings if finding.suspicious]
    console.print(
        f"{len(found)} of {len(report.findings)} kinds of worthless text are paid like good ones"
        + (f": {', '.join(f.probe for f in found)}. An agent will find them." if found else "."),
        soft_wrap=True,
    )


def write_page(report: Audit, spec: str, env_id: str, out: str) -> Path:
    """The report as a page of HTML that needs nothing else.

    Raises:
        CommandError: where it cannot be written.
    """
    path = Path(out)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(report, spec, env_id), encoding="utf-8")
    except OSError as error:
        raise CommandError(f"--out: {out} cannot be written: {error.strerror}") from error
    return path


def shortened(text: str) -> str:
    """`text` on one line, safe to print, cut to what fits."""
    text = printable(" ".join(text.split()))
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "\N{HORIZONTAL ELLIPSIS}"
