"""`textgym train`: a run from its options to the folder it leaves behind."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import platform
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from rich.console import Console
from stable_baselines3.common.logger import Logger, TensorBoardOutputFormat

from textgym.errors import RewardError
from textgym_agents.cli import threads
from textgym_agents.cli.building import build_agent, build_envs, device_of
from textgym_agents.cli.display import TrainingDisplay
from textgym_agents.cli.errors import FAILED as EXIT_FAILED
from textgym_agents.cli.errors import CommandError, bad_input, is_disk_full, let_go, one_line
from textgym_agents.cli.heldout import HeldOut
from textgym_agents.cli.options import TrainOptions
from textgym_agents.cli.progress import DisplayWriter, Progress
from textgym_agents.cli.results import sample_rows, show_results
from textgym_agents.cli.run_folder import FAILED, FINISHED, INTERRUPTED, RUNNING, RunFolder
from textgym_agents.cli.stopping import StopRequest
from textgym_agents.sb3.alarms import Alarm, HackingAlarms, Watch
from textgym_agents.sb3.async_scoring import AsyncScoring
from textgym_agents.sb3.callbacks import TextMetrics
from textgym_agents.sb3.checkpoint import (
    CheckpointCallback,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from textgym_agents.sb3.hindsight import HindsightRewards, pays_late

EVALUATIONS = 10
_LIVE_EPISODES = 64
_PACKAGES = (
    "textgym",
    "torch",
    "transformers",
    "stable_baselines3",
    "gymnasium",
    "numpy",
    "tokenizers",
)


class TrainingRun:
    """One call of `textgym train`.

    Args:
        options: what determines the run.
        folder: where it leaves its results; already checked.
        console: where to write.
        command: the command line, for `run.json`.
        profile: show, and put in `run.json`, where the time went.
    """

    def __init__(
        self,
        options: TrainOptions,
        folder: RunFolder,
        console: Console,
        command: str,
        *,
        profile: bool = False,
    ) -> None:
        self.options = options
        self.folder = folder
        self.console = console
        self.command = command
        self.profile = profile
        self.held_out = HeldOut(options.env, options.model, seed=options.seed)

    def run(self) -> bool:
        """Train, evaluate and save.

        Returns:
            False after a Ctrl-C that left everything needed to resume.
        """
        with bad_input():
            self.envs = build_envs(
                self.options.env,
                self.options.model,
                n_envs=self.options.n_envs,
                seed=self.options.seed,
                split="train",
            )
            self.agent = self._agent()
            self.folder.create()
        try:
            with self._profiled():
                self._start()
                finished = self._learn() if self._remaining() else self._learned_all()
                if finished:
                    self._finish()
            return finished
        except KeyboardInterrupt:
            self._salvage(INTERRUPTED)
            raise
        except Exception as error:
            let_go(error)
            self._salvage(FAILED)
            if (explained := self._explained(error)) is None:
                raise
            raise explained from error
        finally:
            self.envs.close()

    @contextlib.contextmanager
    def _profiled(self) -> Iterator[None]:
        if not self.profile:
            yield
            return
        from textgym_agents.cli import profiling

        watch = profiling.Stopwatch(profiling.clock_of(self.agent.device))
        profiling.watch_run(watch, self)
        before = int(self.agent.num_timesteps)
        watch.start()
        try:
            yield
        finally:
            watch.stop()
            tokens = int(self.agent.num_timesteps) - before
            self.folder.record["profile"] = profiling.to_json(watch, tokens)
        self.folder.update({})
        self.console.print(profiling.table(self.folder.record["profile"]))

    # ------------------------------------------------------------------ before
    def _agent(self) -> Any:
        latest = latest_checkpoint(self.folder.checkpoints)
        if latest is None:
            agent = build_agent(self.options, self.envs)
            self._set_threads(agent)
            return agent
        # With the number of threads it had: gradients differ between numbers of threads.
        agent = load_checkpoint(latest, self.envs, device=device_of(self.options.model))
        if self.options.threads is not None:
            torch.set_num_threads(self.options.threads)
        self.console.print(
            f"Continuing {self.folder.path} at {agent.num_timesteps:,} of "
            f"{self.options.timesteps:,} tokens.",
            soft_wrap=True,
        )
        return agent

    def _set_threads(self, agent: Any) -> None:
        if self.options.threads is not None:
            torch.set_num_threads(self.options.threads)
            return
        counts = threads.candidates(threads.available())
        if len(counts) > 1 and agent.device.type == "cpu":
            length = int(agent.observation_space["input_ids"].shape[0])
            work = threads.model_work(
                agent.policy.lm.model, rows=self.options.n_envs, length=length
            )
            seconds = threads.measure(work, counts)
            torch.set_num_threads(threads.best(seconds))
            measured = ", ".join(f"{n}: {s * 1000:.0f} ms" for n, s in seconds.items())
            self.console.print(f"Threads: {torch.get_num_threads()} (measured {measured})")
        else:
            torch.set_num_threads(counts[0])

    def _remaining(self) -> int:
        return max(0, self.options.timesteps - int(self.agent.num_timesteps))

    def _start(self) -> None:
        """Write what is known before training, the figures and texts of the base model included."""
        record = self.folder.record
        resumed = bool(record)
        self.folder.update(
            {
                "command": record.get("command", self.command),
                "resumed": [*record.get("resumed", []), self.command] if resumed else [],
                "versions": versions(),
                "seed": self.options.seed,
                "threads": torch.get_num_threads(),
                "status": RUNNING,
                "options": self.options.to_json(),
            }
        )
        self.agent.set_logger(self._logger())
        if "reward_before" not in record:
            self._evaluate("before")
        self.console.print(
            f"Before, on held-out prompts: {_figures(self.folder.record, 'before')}",
            soft_wrap=True,
        )

    def _logger(self) -> Logger:
        self.tensorboard = TensorBoardOutputFormat(str(self.folder.tensorboard))
        return Logger(str(self.folder.path), [self.tensorboard])

    # ------------------------------------------------------------------ training
    def _learn(self) -> bool:
        agent, options = self.agent, self.options
        display = TrainingDisplay(self.console, options.timesteps, agent.num_timesteps)
        agent.logger.output_formats.append(DisplayWriter(display))
        with StopRequest(display.note) as stop, display:
            progress = Progress(
                display,
                stop,
                evaluate=self._live_figures,
                evaluate_every=max(1, options.timesteps // EVALUATIONS),
                checkpoint=self._checkpoint,
            )
            every = CheckpointCallback(self.folder.checkpoints, options.checkpoint_every)
            alarms = self._alarms(display)
            late: list[Any] = [HindsightRewards()] if pays_late(self.envs) else []
            if options.scoring_workers is not None:
                late.append(AsyncScoring(options.scoring_workers))
            try:
                agent.learn(
                    self._remaining(),
                    callback=[TextMetrics(), *late, alarms, every, progress],
                    log_interval=1,
                    reset_num_timesteps=False,
                )
                if not progress.stopped:
                    self._checkpoint()
            finally:
                self._record_speed(display)
        if progress.stopped:
            self._salvage(INTERRUPTED)
        return not progress.stopped

    def _alarms(self, display: TrainingDisplay) -> HackingAlarms:
        record = self.folder.record
        record.setdefault("alarms", [])
        self.watch = Watch()
        if "watch" in record:  # what was usual at first, before this run was resumed
            self.watch.set_state(record["watch"])

        def notify(alarm: Alarm) -> None:
            record["alarms"].append(dataclasses.asdict(alarm))
            display.note(f"ALARM ({alarm.name}) at {alarm.timesteps:,} tokens: {alarm.message}")

        return HackingAlarms(notify, watch=self.watch)

    def _learned_all(self) -> bool:
        """After a run that was killed behind its last checkpoint: how long it took is lost."""
        record = self.folder.record
        record["timesteps"] = int(self.agent.num_timesteps)
        record.setdefault("train_seconds", 0.0)
        record.setdefault("tokens_per_s", 0.0)
        return True

    def _checkpoint(self) -> None:
        save_checkpoint(self.folder.checkpoints, self.agent)

    def _live_figures(self) -> Mapping[str, float]:
        episodes = min(_LIVE_EPISODES, self.options.eval_episodes)
        result = self.held_out(self.agent.policy, episodes)
        figures = {"heldout/reward": result.mean_reward, "heldout/kl": result.mean_kl_per_token}
        if result.mean_score is not None:
            figures["heldout/score"] = result.mean_score
        return figures

    def _record_speed(self, display: TrainingDisplay) -> None:
        """Seconds of rollouts and updates, summed over resumed sessions; evaluation left out."""
        seconds = float(self.folder.record.get("train_seconds", 0.0)) + display.train_seconds
        self.folder.record |= {
            "timesteps": display.done,
            "train_seconds": round(seconds, 3),
            "tokens_per_s": round(display.tokens_per_second, 1),
            "watch": self.watch.get_state(),
        }

    # ------------------------------------------------------------------ after
    def _finish(self) -> None:
        self.folder.save_model(self.agent.policy.save_pretrained)
        self._evaluate("after")
        self.folder.update({"status": FINISHED})
        self.tensorboard.close()
        show_results(self.folder, self.console)

    def _evaluate(self, stage: str) -> None:
        """Figures and texts on held-out prompts, into `run.json`, `samples.jsonl`, TensorBoard."""
        episodes, step = self.options.eval_episodes, int(self.agent.num_timesteps)
        with self.console.status(f"Writing {episodes} held-out texts {stage} training"):
            sampled = self.held_out(self.agent.policy, episodes)
            greedy = self.held_out(self.agent.policy, episodes, greedy=True)
        figures = {
            f"score_{stage}": sampled.mean_score,
            f"score_greedy_{stage}": greedy.mean_score,
            f"reward_{stage}": sampled.mean_reward,
            f"reward_greedy_{stage}": greedy.mean_reward,
            f"rewards_{stage}": sampled.rewards,
            f"metrics_{stage}": sampled.metrics,
        }
        if stage == "after":
            figures["kl_per_token"] = sampled.mean_kl_per_token
        rows = sample_rows(sampled, stage, step)
        self.folder.add_samples(rows)
        writer = self.tensorboard.writer
        for row in rows:
            text = f"**{row['prompt']}** {row['completion']}"
            writer.add_text(f"samples/{row['number']}", text, step)
        for name in ("score", "reward"):
            if figures[f"{name}_{stage}"] is not None:
                writer.add_scalar(f"heldout/{name}", figures[f"{name}_{stage}"], step)
        writer.flush()
        self.folder.update(figures)

    # ------------------------------------------------------------------ when it ends early
    def _salvage(self, status: str) -> None:
        """Save what can be saved; what went wrong already is what the person is told."""
        record = self.folder.record
        if not record:
            return
        with contextlib.suppress(Exception):
            self.folder.save_model(self.agent.policy.save_pretrained)
        with contextlib.suppress(OSError):
            self.folder.update({"status": status})

    def _explained(self, error: Exception) -> CommandError | None:
        """`error` as a line that says what is left and how to go on; None for a defect of ours."""
        if isinstance(error, CommandError):
            return error
        latest = latest_checkpoint(self.folder.checkpoints)
        left = "continue from the last checkpoint" if latest else "start again"
        if is_disk_full(error):
            return CommandError(
                f"no room left on the disk for {self.folder.path}. Make some, then {left} with "
                "the same command and --resume.",
                EXIT_FAILED,
            )
        if isinstance(error, OSError | RewardError | torch.OutOfMemoryError):
            return CommandError(
                f"{one_line(error)}. When that is mended, {left} with the same command and "
                "--resume.",
                EXIT_FAILED,
            )
        return None


def _figures(record: Mapping[str, Any], stage: str) -> str:
    parts = []
    if record.get(f"score_{stage}") is not None:
        parts.append(
            f"score {record[f'score_{stage}']:.3f} (greedy {record[f'score_greedy_{stage}']:.3f})"
        )
    parts.append(f"reward {record[f'reward_{stage}']:.3f}")
    return ", ".join(parts)


def versions() -> dict[str, str]:
    """Versions of Python and of all that a run depends on, for `run.json`."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **found}


def train(
    options: TrainOptions,
    folder: RunFolder,
    console: Console,
    command: str,
    *,
    profile: bool = False,
) -> bool:
    """Run `options` into `folder`; False after a Ctrl-C. See `TrainingRun`."""
    if profile and options.engine != "sb3":
        raise CommandError("--profile is for --engine sb3. Leave it out, or use that engine.")
    record = folder.record
    if record.get("status") == FINISHED and record["timesteps"] >= options.timesteps:
        console.print(
            f"The run in {folder.path} is finished: more --timesteps train it further, another "
            "--out starts a new one.",
            soft_wrap=True,
        )
        show_results(folder, console)
        return True
    if options.engine == "rllib":
        with bad_input():  # Ray may not be installed
            from textgym_agents.cli.cluster import ClusterRun
        return ClusterRun(options, folder, console, command).run()
    return TrainingRun(options, folder, console, command, profile=profile).run()
