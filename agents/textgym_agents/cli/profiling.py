"""Where the time of `textgym train --profile` went."""

from __future__ import annotations

import time
from typing import Any

import torch
from rich import box
from rich.table import Table

from textgym.wrappers import reward_payers_of
from textgym_agents.lm.seq2seq_slots import Seq2SeqSlots
from textgym_agents.lm.slot_cache import SlotCache
from textgym_agents.sb3 import AsyncScoring, checkpoint
from textgym_agents.stopwatch import OTHER, Stopwatch

MODEL, CHOICE, CACHE = (
    f"generation: {part}" for part in ("model forward", "head and sampling", "slot cache")
)
ENVIRONMENT, DECODING, REWARD = "environment", "text decoding", "reward: "
BUFFER, WAITING = "rollout buffer", "waiting for scores"
REFERENCE, ADVANTAGES = "reference KL", "advantages"
FORWARD, BACKWARD, OPTIMIZER, REST = (
    f"update: {part}" for part in ("forward", "backward", "optimizer", "rest")
)
EVALUATION, SAVING = "evaluation", "checkpoints"
_ORDER = (
    *(MODEL, CHOICE, CACHE, ENVIRONMENT, DECODING, REWARD, BUFFER, WAITING, REFERENCE, ADVANTAGES),
    *(FORWARD, BACKWARD, OPTIMIZER, REST, EVALUATION, SAVING, OTHER),
)


def watch_agent(watch: Stopwatch, agent: Any) -> None:
    """Count what SB3's PPO or A2C on a `TextVecEnv` does, by parts.

    Only what no checkpoint saves is wrapped by itself; of the rest the class is.
    """
    policy, envs, buffer = agent.policy, agent.env, agent.rollout_buffer
    watch.wrap(policy, "forward", CHOICE)
    watch.wrap(policy, "predict_values", CHOICE)
    watch.wrap(policy, "_hidden", CACHE)
    for owner, name in (
        *((SlotCache, "_body"), (Seq2SeqSlots, "_step"), (Seq2SeqSlots, "_read")),
        (policy.lm, "last_hidden"),
    ):
        watch.wrap(owner, name, MODEL)
    watch.wrap(envs, "step_wait", ENVIRONMENT)
    watch.wrap(type(envs.tokenizer), "decode_completions", DECODING)
    watch.wrap(type(envs.envs.unwrapped.task), "score_batch", f"{REWARD}score")
    for payer in reward_payers_of(envs.envs):
        watch.wrap(payer, "pay", f"{REWARD}{payer.term.name}")
    watch.wrap(AsyncScoring, "fill", WAITING)
    watch.wrap(buffer, "add", BUFFER)
    watch.wrap(buffer, "compute_returns_and_advantage", ADVANTAGES)
    watch.wrap(buffer, "_kl_rewards", REFERENCE)
    watch.wrap(type(agent), "train", REST)
    watch.wrap(policy, "evaluate_actions", FORWARD)
    watch.wrap(torch.Tensor, "backward", BACKWARD)
    watch.wrap(policy.optimizer, "step", OPTIMIZER)


def watch_run(watch: Stopwatch, run: Any) -> None:
    """Count what a `TrainingRun` does, by parts; its agent is there already."""
    watch_agent(watch, run.agent)
    for owner, name, section in (
        (run, "_evaluate", EVALUATION),
        (run, "_live_figures", EVALUATION),
        (run, "_checkpoint", SAVING),
        (checkpoint, "save_checkpoint", SAVING),
        (run.folder, "save_model", SAVING),
    ):
        watch.wrap(owner, name, section, whole=True)


def clock_of(device: torch.device) -> Any:
    """The clock for work on `device`: an accelerator's is waited for, or others would pay."""
    if device.type != "cuda":
        return time.perf_counter

    def synchronised() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return synchronised


def to_json(watch: Stopwatch, tokens: int) -> dict[str, Any]:
    """Seconds, share and microseconds a token of each part, as plain data."""
    total = sum(watch.seconds.values())
    parts = {
        name: {
            "seconds": round(seconds, 6),
            "share": round(seconds / total, 6),
            "us_per_token": round(1e6 * seconds / tokens, 3) if tokens else None,
        }
        for name, seconds in sorted(watch.seconds.items(), key=lambda item: _place(item[0]))
    }
    return {"seconds": round(total, 6), "tokens": tokens, "parts": parts}


def _place(section: str) -> int:
    return _ORDER.index(REWARD if section.startswith(REWARD) else section)


def table(profile: dict[str, Any]) -> Table:
    """What `to_json` gave, for a person."""
    shown = Table(box=box.SIMPLE_HEAD, title="Where the time went", title_justify="left")
    shown.add_column("")
    for title in ("seconds", "share", "µs a token"):
        shown.add_column(title, justify="right")
    tokens = profile["tokens"]
    whole = {
        "seconds": profile["seconds"],
        "share": 1.0,
        "us_per_token": 1e6 * profile["seconds"] / tokens if tokens else None,
    }
    for name, part in (*profile["parts"].items(), ("all", whole)):
        if name == "all":
            shown.add_section()
        each = part["us_per_token"]
        shown.add_row(
            name,
            f"{part['seconds']:.2f}",
            f"{part['share']:.1%}",
            "-" if each is None else f"{each:.1f}",
        )
    return shown
