"""`textgym train --engine rllib`: Ray RLlib's PPO around the same folder, display and figures."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gymnasium import spaces

from textgym_agents.cli.building import policy_keywords
from textgym_agents.cli.display import TrainingDisplay
from textgym_agents.cli.errors import CommandError, bad_input
from textgym_agents.cli.options import EnvOptions, TrainOptions
from textgym_agents.cli.progress import DisplayWriter
from textgym_agents.cli.run_folder import INTERRUPTED
from textgym_agents.cli.stopping import StopRequest
from textgym_agents.cli.training import TrainingRun
from textgym_agents.lm import load_model, parameter_count
from textgym_agents.rllib import TextPPOConfig, connected, rllib_config, train
from textgym_agents.rllib.training import latest_checkpoint, steps_of
from textgym_agents.sb3 import LMPolicy


@dataclass(frozen=True)
class Rewards:
    """The rewards of `options`: each process makes its own, as some cannot be sent to another."""

    options: EnvOptions

    def __iter__(self) -> Iterator[Any]:
        return iter(self.options.reward_objects())


@dataclass
class Trained:
    """What `TrainingRun` asks of an agent; the policy writes held-out texts only."""

    policy: LMPolicy
    num_timesteps: int

    @property
    def device(self) -> torch.device:
        """Where the policy is."""
        return self.policy.device

    @property
    def observation_space(self) -> spaces.Space[Any]:
        """Of the policy."""
        return self.policy.observation_space

    def set_logger(self, logger: Any) -> None:
        """Figures of the training are written by `textgym_agents.rllib.train`."""


class ClusterRun(TrainingRun):
    """One call of `textgym train --engine rllib`, here or on the cluster at ``RAY_ADDRESS``.

    Alarms of reward hacking, and held-out figures between the first and the last, are of the SB3
    engine only.
    """

    def run(self) -> bool:
        """Connect, then train, evaluate and save; see `TrainingRun.run`."""
        with contextlib.ExitStack() as stack:
            with bad_input():  # also a cluster that is not there, or too small
                self.config = config_of(self.options)
                address = os.environ.get("RAY_ADDRESS")
                if not address:
                    check_cpus(self.options)
                size = parameter_count(load_model(self.options.model.model))
                stack.enter_context(connected(self.config, address or None, parameters=size))
            for name in ("ray", "ray.rllib"):  # their warnings are for developers
                logging.getLogger(name).setLevel(logging.ERROR)
            return super().run()

    def _agent(self) -> Trained:
        policy = LMPolicy(
            self.envs.observation_space,
            self.envs.action_space,
            lambda remaining: 0.0,
            kl_coef=0.0,
            reference=True,  # how far the model went is reported
            **policy_keywords(self.options.model),
        )
        agent = Trained(policy, steps_of(latest_checkpoint(self.folder.checkpoints)))
        self._set_threads(agent)
        if agent.num_timesteps:
            self.console.print(
                f"Continuing {self.folder.path} at {agent.num_timesteps:,} of "
                f"{self.options.timesteps:,} tokens.",
                soft_wrap=True,
            )
        return agent

    def _learn(self) -> bool:
        agent, options = self.agent, self.options
        ray = {"ray": importlib.metadata.version("ray")}
        self.folder.update({"versions": self.folder.record["versions"] | ray})
        display = TrainingDisplay(self.console, options.timesteps, agent.num_timesteps)
        writer = DisplayWriter(display)
        with StopRequest(display.note) as stop, display:

            def on_iteration(figures: Mapping[str, float], done: int) -> bool:
                agent.num_timesteps = done
                display.advance(done)
                writer.write(dict(figures), {}, done)
                return stop.requested

            run = train(
                self.config,
                self.folder.path,
                options.timesteps,
                checkpoint_every=options.checkpoint_every,
                resume=True,
                on_iteration=on_iteration,
            )
        before = float(self.folder.record.get("train_seconds", 0.0))
        self.folder.record |= {
            "timesteps": run.timesteps,
            "train_seconds": round(before + run.train_seconds, 3),
            "tokens_per_s": round(run.tokens_per_s, 1),
        }
        if run.timesteps < options.timesteps:
            self._salvage(INTERRUPTED)
            return False
        # The reference stays the model that the run began with.
        agent.policy.lm.model.load_state_dict(load_model(str(run.model)).state_dict())
        return True

    def _learned_all(self) -> bool:
        """After a run that was killed behind its last checkpoint: its model is made of that."""
        return self._learn()

    def _salvage(self, status: str) -> None:
        """Note the status; the model is saved by `textgym_agents.rllib.train`."""
        if self.folder.record:
            with contextlib.suppress(OSError):
                self.folder.update({"status": status})


def check_cpus(options: TrainOptions) -> None:
    """Check that this machine has a CPU for each process; Ray would start them all the same.

    Raises:
        CommandError: it has fewer.
    """
    runners, learners = processes(options)
    there = os.cpu_count() or 1
    if runners + learners > there:
        raise CommandError(
            f"--runners {runners} and --learners {learners} need {runners + learners} CPUs, and "
            f"this machine has {there}. Use fewer, each with more --n-envs, or set RAY_ADDRESS to "
            "a cluster."
        )


def processes(options: TrainOptions) -> tuple[int, int]:
    """The numbers of runners and of learners."""
    return 1 if options.runners is None else options.runners, options.learners or 0


def config_of(options: TrainOptions) -> TextPPOConfig:
    """The RLlib configuration that `options` ask for."""
    env, model = options.env, options.model
    if env.prompts_file is not None:  # processes elsewhere have working directories of their own
        env = dataclasses.replace(env, prompts_file=str(Path(env.prompts_file).resolve()))
    keywords = env.keywords() | {"rewards": Rewards(env)}
    if model.tokenizer is not None:
        here = Path(model.tokenizer)
        keywords["tokenizer"] = str(here.resolve()) if here.exists() else model.tokenizer
    given = {name: getattr(options, name) for name in ("learning_rate", "kl_coef", "kl_target")}
    runners, learners = processes(options)
    config = rllib_config(
        env.id,
        runners=runners,
        learners=learners,
        envs_per_runner=options.n_envs,
        env_config=keywords,
        seed=options.seed,
        **policy_keywords(model),
        **{name: value for name, value in given.items() if value is not None},
    )
    return config.debugging(log_level="ERROR")
