"""`textgym sft`: a model learns from an environment's oracle before it learns from reward."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from stable_baselines3.common.logger import TensorBoardOutputFormat

from textgym_agents.cli.building import build_envs, build_policy
from textgym_agents.cli.catalogue import demonstrates
from textgym_agents.cli.display import TrainingDisplay, figures_table
from textgym_agents.cli.errors import FAILED as EXIT_FAILED
from textgym_agents.cli.errors import CommandError, bad_input, is_disk_full
from textgym_agents.cli.heldout import HeldOut
from textgym_agents.cli.options import EnvOptions, ModelOptions
from textgym_agents.cli.run_folder import FINISHED, INTERRUPTED, RUNNING, RunFolder
from textgym_agents.cli.stopping import StopRequest
from textgym_agents.cli.training import versions
from textgym_agents.lm import imitation, parameter_count, suggested_learning_rate
from textgym_agents.sb3 import LMPolicy

_HELD_OUT_BATCHES = 8
_REPORTS = 50
# What suits imitation, next to what suits reinforcement learning.
_RATE_SCALE = 5.0


@dataclass(frozen=True)
class SftOptions:
    """Everything that determines a fine-tuning run.

    Args:
        env: whose oracle is imitated.
        model: what learns.
        demonstrations: episodes of the oracle to learn from, each drawn anew.
        batch_size: episodes a step.
        learning_rate: None chooses by the model's size.
        seed: of the demonstrations.
        threads: of torch; None is 1 on a CPU.
        eval_episodes: held-out texts scored before and after.
    """

    env: EnvOptions
    model: ModelOptions
    demonstrations: int = 20_000
    batch_size: int = 32
    learning_rate: float | None = None
    seed: int = 0
    threads: int | None = None
    eval_episodes: int = 256


def fine_tune(options: SftOptions, folder: RunFolder, console: Console, command: str) -> bool:
    """Run `options` into `folder`.

    Returns:
        False after a Ctrl-C; the model is saved as far as it came.
    """
    if not demonstrates(options.env.id):
        raise CommandError(
            f"{options.env.id} has no oracle to learn from. Choose another environment; "
            "`textgym list` shows them."
        )
    torch.set_num_threads(options.threads or 1)
    with bad_input():
        policy = build_policy(options.env, options.model)
        run = _Run(options, policy)
        folder.create()
    try:
        folder.update(
            {
                "command": command,
                "versions": versions(),
                "seed": options.seed,
                "threads": torch.get_num_threads(),
                "status": RUNNING,
                "options": dataclasses.asdict(options),
                **run.figures("before"),
            }
        )
        finished = run.learn(folder, console)
        folder.save_model(policy.save_pretrained)
        folder.update({**run.figures("after"), "status": FINISHED if finished else INTERRUPTED})
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise CommandError(
            f"no room left on the disk for {folder.path}. Make some, then start again with "
            "another --out.",
            EXIT_FAILED,
        ) from error
    _show(folder, console)
    return finished


class _Run:
    """One call of `textgym sft`, its model in memory."""

    def __init__(self, options: SftOptions, policy: LMPolicy) -> None:
        self.options = options
        self.policy = policy
        envs = build_envs(options.env, options.model, n_envs=1, seed=0, split="train")
        try:
            self.task, self.tokenizer = envs.envs.unwrapped.task, envs.tokenizer
        finally:
            envs.close()
        held_out = imitation.batches(self._demonstrations("test"), options.batch_size)
        self.held_out = list(itertools.islice(held_out, _HELD_OUT_BATCHES))

    def _demonstrations(self, split: Any) -> Any:
        return imitation.demonstrations(self.task, self.tokenizer, split, self.options.seed)

    def figures(self, stage: str) -> dict[str, Any]:
        """Held-out loss and scores, by the keys of `run.json`."""
        self.policy.invalidate_cache()
        held_out = HeldOut(self.options.env, self.options.model, seed=self.options.seed)
        sampled = held_out(self.policy, self.options.eval_episodes)
        greedy = held_out(self.policy, self.options.eval_episodes, greedy=True)
        return {
            f"loss_{stage}": round(imitation.held_out_loss(self.policy.lm, self.held_out), 4),
            f"score_{stage}": sampled.mean_score,
            f"score_greedy_{stage}": greedy.mean_score,
            f"metrics_{stage}": sampled.metrics,
        }

    def learn(self, folder: RunFolder, console: Console) -> bool:
        """Train on demonstrations; False after a Ctrl-C."""
        options, lm = self.options, self.policy.lm
        rate = options.learning_rate
        if rate is None:
            rate = _RATE_SCALE * suggested_learning_rate(parameter_count(lm.model))
        steps = -(-options.demonstrations // options.batch_size)
        display = TrainingDisplay(console, options.demonstrations, unit="demonstrations")
        board = TensorBoardOutputFormat(str(folder.tensorboard))
        with StopRequest(display.note) as stop, display:
            losses: list[float] = []  # since the last report: batches of short texts differ

            def on_step(done: int, loss: float) -> bool:
                losses.append(loss)
                seen = done * options.batch_size
                display.advance(min(seen, options.demonstrations))
                if done % max(1, steps // _REPORTS) == 0 or done == steps:
                    figures = {"loss": sum(losses) / len(losses)}
                    losses.clear()
                    if done % max(1, 5 * (steps // _REPORTS)) == 0 or done == steps:
                        figures["held-out loss"] = imitation.held_out_loss(lm, self.held_out)
                    display.show({name: f"{value:.3f}" for name, value in figures.items()})
                    scalars = {f"sft/{k.replace(' ', '_')}": v for k, v in figures.items()}
                    board.write(scalars, dict.fromkeys(scalars, ()), seen)
                return not stop.requested

            stream = imitation.batches(self._demonstrations("train"), options.batch_size)
            done = imitation.fit(
                lm, stream, [imitation.adamw(lm, rate)], steps=steps, on_step=on_step
            )
        board.close()
        folder.record |= {
            "demonstrations": min(done * options.batch_size, options.demonstrations),
            "learning_rate": rate,
            "train_seconds": round(display.train_seconds, 3),
        }
        return done == steps


def _show(folder: RunFolder, console: Console) -> None:
    record = folder.record
    titles = {
        "loss": "loss, nats a token",
        "score": "score, sampled",
        "score_greedy": "score, greedy",
    }
    rows = [
        (title, record[f"{key}_before"], record[f"{key}_after"]) for key, title in titles.items()
    ]
    console.print(figures_table(rows))
    console.print(
        f"{record['demonstrations']:,} demonstrations in {record['train_seconds']:.0f} s.\n"
        f"Model: {folder.model}\nTrain it further: "
        f"textgym train {record['options']['env']['id']} --model {folder.model} --out FOLDER",
        soft_wrap=True,
    )
