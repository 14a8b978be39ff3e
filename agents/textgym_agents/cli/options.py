"""What the commands are asked for, as plain data, checked before anything is loaded."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, get_args

from textgym.errors import check_known, near_matches
from textgym.registration import REGISTRY
from textgym_agents.cli.catalogue import takes
from textgym_agents.cli.errors import CommandError

Algorithm = Literal["ppo", "a2c"]
ALGORITHMS: tuple[str, ...] = get_args(Algorithm)
Engine = Literal["sb3", "rllib"]
ENGINES: tuple[str, ...] = get_args(Engine)
BUNDLED = "bundled"


@dataclass(frozen=True)
class EnvOptions:
    """Which environment, with what.

    Args:
        id: a registered id.
        prompts: texts to continue, for environments that take prompts.
        prompts_file: a text file (a prompt a line) or JSONL file of them.
        rewards: specifications such as ``"keywords:happy,love"``.
        reward_timeout: seconds that one call of a reward may take; 0 is no limit. Rewards that keep
            limits of their own (processes, services) are left to these.
        redistribute: how scores of whole texts are spread over their tokens: ``"last"``,
            ``"uniform"``, ``"turn"``, ``"gain"``; None leaves them to the last token.
        max_new_tokens: the budget of an episode; None for the task's own.
        env: further keyword arguments of the environment.
    """

    id: str
    prompts: tuple[str, ...] = ()
    prompts_file: str | None = None
    rewards: tuple[str, ...] = ()
    reward_timeout: float = 120.0
    redistribute: str | None = None
    max_new_tokens: int | None = None
    env: dict[str, Any] = field(default_factory=dict)

    def keywords(self) -> dict[str, Any]:
        """The environment's keyword arguments, rewards excepted."""
        keywords = dict(self.env)
        if self.prompts and self.prompts_file:
            raise CommandError("give either --prompt or --prompts FILE, not both")
        if (self.prompts or self.prompts_file) and not takes(self.id, "prompts"):
            takers = ", ".join(i for i in sorted(REGISTRY) if takes(i, "prompts"))
            raise CommandError(
                f"{self.id} makes its own prompts. Leave --prompt out, or use one that takes "
                f"them: {takers}."
            )
        if self.prompts:
            keywords["prompts"] = list(self.prompts)
        elif self.prompts_file:
            if not Path(self.prompts_file).is_file():
                raise CommandError(f"--prompts: no such file: {self.prompts_file}")
            keywords["prompts"] = self.prompts_file
        if self.max_new_tokens is not None:
            keywords["max_new_tokens"] = self.max_new_tokens
        if self.redistribute is not None:
            keywords["score_weight"] = 0.0  # paid by `reward_objects` instead
        return keywords

    def reward_objects(self) -> list[Any]:
        """The rewards that the specifications name, each with its weight."""
        from textgym.rewards import from_spec

        rewards = [from_spec(spec) for spec in self.rewards]
        if self.redistribute is not None:
            rewards = self._redistributed(rewards)
        for reward, _ in rewards:
            if reward.timeout is None and not reward.keeps_time:
                reward.timeout = self.reward_timeout or None
        return rewards

    def _redistributed(self, rewards: list[Any]) -> list[Any]:
        from textgym.registration import REGISTRY
        from textgym.rewards import Redistribute, TaskScore

        weight = float(self.env.get("score_weight", 1.0))
        if weight and REGISTRY[self.id].task_class().scored:
            rewards = [(TaskScore(), weight), *rewards]
        over = self.redistribute
        return [
            (r if r.per_token else Redistribute(r, over, name=r.name), weight)
            for r, weight in rewards
        ]


@dataclass(frozen=True)
class ModelOptions:
    """Which model, and how it samples.

    Args:
        model: ``"bundled"``, a folder of Hugging Face files, or a hub id.
        tokenizer: as in `Tokenizer.load`; None for the model's own.
        temperature, top_k, top_p: how tokens are drawn; 1, 0 and 1 draw from the model as it is.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
    """

    model: str = BUNDLED
    tokenizer: str | None = None
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    device: str = "auto"

    @classmethod
    def given(cls, *, model: str | None, tokenizer: str | None, device: str | None) -> Self:
        """Those that a person gave; None leaves what is usual."""
        chosen = {"model": model, "tokenizer": tokenizer, "device": device}
        return cls(**{name: value for name, value in chosen.items() if value is not None})

    def check(self) -> None:
        """Raise for a model folder that is not there, before anything slow happens."""
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise CommandError(
                f"--device: expected auto, cpu, cuda or cuda:0, got {self.device!r}."
            )
        looks_like_path = self.model.startswith((".", "/", "~")) or self.model.count("/") > 1
        path = Path(self.model)
        if path.is_file() or (looks_like_path and not path.exists()):
            found = "it is a file" if path.is_file() else "no such folder"
            raise CommandError(
                f"--model: {found}: {self.model}. Expected `{BUNDLED}`, a folder of Hugging Face "
                "files (config.json, model.safetensors, tokenizer.json), or a hub id such as "
                "`gpt2`."
            )

    @property
    def env_tokenizer(self) -> str | None:
        """What the environment is to take as its tokenizer: the model's, unless told otherwise."""
        if self.tokenizer is not None:
            return self.tokenizer
        return None if self.model == BUNDLED else self.model


@dataclass(frozen=True)
class TrainOptions:
    """Everything that determines a training run; stored in `run.json` and read by `--resume`."""

    env: EnvOptions
    model: ModelOptions = ModelOptions()
    engine: str = "sb3"
    runners: int | None = None
    learners: int | None = None
    algo: str = "ppo"
    timesteps: int = 200_000
    seed: int = 0
    n_envs: int = 64
    scoring_workers: int | None = None
    learning_rate: float | None = None
    kl_coef: float | None = None
    kl_target: float | None = None
    lora: int | None = None
    threads: int | None = None
    checkpoint_every: int = 50_000
    eval_episodes: int = 256

    def __post_init__(self) -> None:
        if self.algo not in ALGORITHMS:
            raise CommandError(f"--algo: {self.algo!r}; {near_matches(self.algo, ALGORITHMS)}")
        if self.engine not in ENGINES:
            raise CommandError(f"--engine: {self.engine!r}; {near_matches(self.engine, ENGINES)}")
        other = "sb3" if self.engine == "rllib" else "rllib"
        for option, given in self._of_engine(other).items():
            if given:
                raise CommandError(
                    f"{option} is for --engine {other}. Leave it out, or use that engine."
                )

    def _of_engine(self, engine: str) -> dict[str, bool]:
        """Options that `engine` alone takes, and whether they are given."""
        if engine == "rllib":
            return {
                "--runners": self.runners is not None,
                "--learners": self.learners is not None,
            }
        device = self.model.device
        return {
            f"--algo {self.algo}": self.algo != "ppo",
            "--lora": self.lora is not None,
            "--scoring-workers": self.scoring_workers is not None,
            "--redistribute": self.env.redistribute is not None,
            f"--device {device}": device not in ("auto", "cpu"),
        }

    def to_json(self) -> dict[str, Any]:
        """Plain data, from which `from_json` builds an equal object."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The options that `to_json` wrote."""
        data = dict(data)
        env = dict(data.pop("env"))
        env |= {name: tuple(env[name]) for name in ("prompts", "rewards")}
        model = ModelOptions(**data.pop("model"))
        return cls(env=EnvOptions(**env), model=model, **data)


# What may change when a run is resumed: how far and with what care, not what is learned.
RESUMABLE = (
    "timesteps",
    "threads",
    "checkpoint_every",
    "eval_episodes",
    "reward_timeout",
    "scoring_workers",
    "runners",
    "learners",
)


def train_options(given: Mapping[str, Any], stored: TrainOptions | None = None) -> TrainOptions:
    """The options of a run, from those a person gave and, when resuming, those stored.

    Args:
        given: by the names of the fields of the three classes above; None means not given.
        stored: of the run that is resumed.

    Raises:
        CommandError: where an option differs from the stored one and is not in `RESUMABLE`.
    """
    given = {name: value for name, value in given.items() if value not in (None, (), {})}
    parts: dict[type, dict[str, Any]] = {EnvOptions: {}, ModelOptions: {}, TrainOptions: {}}
    check_known("option", given, {f.name for part in parts for f in dataclasses.fields(part)})
    for part, values in parts.items():
        values |= {
            f.name: given[f.name]
            for f in dataclasses.fields(part)
            if f.name in given and not (part is TrainOptions and f.name in ("env", "model"))
        }
    if stored is None:
        return TrainOptions(
            env=EnvOptions(**parts[EnvOptions]),
            model=ModelOptions(**parts[ModelOptions]),
            **parts[TrainOptions],
        )
    for part, base in ((EnvOptions, stored.env), (ModelOptions, stored.model)):
        _check_unchanged(base, parts[part])
    _check_unchanged(stored, parts[TrainOptions])
    env = dataclasses.replace(stored.env, **parts[EnvOptions])
    return dataclasses.replace(stored, env=env, **parts[TrainOptions])


_OPTION_NAMES = {"prompts": "--prompt", "prompts_file": "--prompts", "rewards": "--reward"}


def _check_unchanged(stored: Any, given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        before = getattr(stored, name)
        if name not in RESUMABLE and value != before:
            option = _OPTION_NAMES.get(name, "--" + name.replace("_", "-"))
            raise CommandError(
                f"--resume: the run was started with {option} {_shown(before)}, not "
                f"{_shown(value)}. Leave {option} out to continue it, or start a run of its own "
                "with another --out."
            )


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(repr, value)) or "left out"
    return "left out" if value is None else str(value)


def key_values(pairs: Sequence[str]) -> dict[str, Any]:
    """The dict that `KEY=VALUE` options spell; values are read as JSON where they are JSON.

    >>> key_values(["max_turns=2", "level=hard", "flag=true"])
    {'max_turns': 2, 'level': 'hard', 'flag': True}
    """
    result: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.isidentifier():
            raise CommandError(f"--env: expected KEY=VALUE, got {pair!r}. Try `max_new_tokens=32`.")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        if isinstance(value, float) and not math.isfinite(value):
            value = text  # json reads NaN and Infinity, which no environment means
        result[key] = value
    return result
