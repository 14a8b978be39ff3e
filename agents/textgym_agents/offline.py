"""Offline data sets: episodes of some policy, as Minari stores them, with log-probs and masks.

Minari itself (extra `minari`) is only needed to write and read the files.
"""

from __future__ import annotations

import importlib
import itertools
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from textgym import Episode, TokenEnv
from textgym.demonstrations import demonstrate
from textgym.seeding import instance_rng

# Episodes in memory at one time.
_PART = 256

# Draws the tokens of one episode, and gives the log-prob of each under the policy, in nats.
EpisodeSource = Callable[[TokenEnv, int], tuple[Episode, NDArray[np.float32]]]


@dataclass
class Trajectory:
    """One episode step by step, T steps of it.

    Args:
        episode: its record, the score included in `rewards`.
        observations: by key, `[T + 1, ...]`.
        actions: `[T] int64`.
        rewards: `[T] float64`.
        terminations: `[T] bool`.
        truncations: `[T] bool`.
        infos: `log_prob` `[T + 1] float32` of the action taken from each observation, the last one
            0; and, where a mask applies, `action_mask` `[T + 1, V] int8`.
    """

    episode: Episode
    observations: dict[str, list[NDArray[Any]]] = field(default_factory=dict)
    actions: list[int] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    terminations: list[bool] = field(default_factory=list)
    truncations: list[bool] = field(default_factory=list)
    infos: dict[str, list[Any]] = field(default_factory=dict)


def random_source(seed: int) -> EpisodeSource:
    """Uniform over the tokens that are allowed."""
    rng = np.random.default_rng(np.random.SeedSequence((seed, 0)))

    def play(env: TokenEnv, index: int) -> tuple[Episode, NDArray[np.float32]]:
        _, info = env.reset(options={"instance": _instance(env, seed, index)})
        log_probs, ended = [], False
        while not ended:
            mask = info.get("action_mask")
            allowed = np.arange(int(env.action_space.n)) if mask is None else np.flatnonzero(mask)
            _, _, terminated, truncated, info = env.step(int(rng.choice(allowed)))
            log_probs.append(-np.log(len(allowed)))
            ended = terminated or truncated
        return info["episode_record"], np.array(log_probs, np.float32)

    return play


def oracle_source(seed: int) -> EpisodeSource:
    """The task's oracle, which is certain of all it says.

    Raises:
        NotImplementedError: the task has none.
    """

    def play(env: TokenEnv, index: int) -> tuple[Episode, NDArray[np.float32]]:
        episode = demonstrate(env.task, _instance(env, seed, index), env.tokenizer)
        return episode, np.zeros(int(episode.completion_mask.sum()), np.float32)

    return play


def _instance(env: TokenEnv, seed: int, index: int) -> Any:
    return env.task.draw(instance_rng(seed, env.split, 0, index), env.split)


def replay(env: TokenEnv, episode: Episode, log_probs: NDArray[np.float32]) -> Trajectory:
    """Step `env` through `episode`."""
    found = Trajectory(episode)
    observation, info = env.reset(options={"instance": episode.instance})
    tokens = episode.completion_ids.tolist()
    chances = [*log_probs.tolist(), 0.0]
    for step in range(len(tokens) + 1):
        for key, value in observation.items():
            found.observations.setdefault(key, []).append(np.array(value))
        found.infos.setdefault("log_prob", []).append(np.float32(chances[step]))
        if "action_mask" in info:
            found.infos.setdefault("action_mask", []).append(np.array(info["action_mask"]))
        if step == len(tokens):
            break
        observation, reward, terminated, truncated, info = env.step(tokens[step])
        found.actions.append(tokens[step])
        found.rewards.append(float(reward))
        found.terminations.append(bool(terminated))
        found.truncations.append(bool(truncated))
    return found


def trajectories(env: TokenEnv, source: EpisodeSource, episodes: int) -> Iterator[Trajectory]:
    """`episodes` of them, one at a time."""
    for index in range(episodes):
        episode, log_probs = source(env, index)
        yield replay(env, episode, log_probs)


def write_minari(
    made: Iterator[Trajectory],
    env: gym.Env[Any, Any],
    dataset_id: str,
    *,
    folder: str | os.PathLike[str] | None = None,
    policy: str,
    description: str = "",
) -> int:
    """Write `made` as the Minari data set `dataset_id`.

    Args:
        made: the episodes.
        env: what `gym.make` gave; Minari stores its specification and recovers it from that.
        dataset_id: such as ``"textgym/story/oracle-v0"``.
        folder: the root of data sets; None is Minari's own (`MINARI_DATASETS_PATH`).
        policy: named as the algorithm.
        description: of the data set.

    Returns:
        The number of steps written.

    Raises:
        ImportError: Minari is not installed.
        ValueError: there is a data set of that id already, or the id is none.
    """
    try:
        minari = importlib.import_module("minari")
        buffers = importlib.import_module("minari.data_collector.episode_buffer")
    except ImportError as error:
        raise ImportError(
            "an offline data set needs Minari: `pip install 'textgym[minari]'`"
        ) from error
    with _root(folder), warnings.catch_warnings():
        # It would like an e-mail address, and to be told of an environment for evaluation.
        warnings.filterwarnings("ignore", category=UserWarning, module="minari")
        warnings.filterwarnings("ignore", message="`(author|author_email|eval_env|code_perma)")
        if dataset_id in minari.list_local_datasets(latest_version=False):
            raise ValueError(
                f"there is a data set {dataset_id!r} already. Name another, or delete it with "
                f"`minari delete {dataset_id}`."
            )
        steps = 0
        dataset: Any = None
        for number in itertools.count():
            part = list(itertools.islice(made, _PART))
            if not part:
                break
            steps += sum(len(one.actions) for one in part)
            filled = [
                _filled(buffers.EpisodeBuffer, number * _PART + i, one)
                for i, one in enumerate(part)
            ]
            if dataset is not None:
                dataset.update_dataset_from_buffer(filled)
                continue
            dataset = minari.create_dataset_from_buffers(
                dataset_id,
                filled,
                env=env,
                algorithm_name=policy,
                author="TextGym",
                code_permalink="",
                description=description,
                requirements=["textgym"],
                data_format="hdf5",
            )
    return steps


def _filled(kind: Any, number: int, one: Trajectory) -> Any:
    """`one` as an `EpisodeBuffer` of Minari's."""
    return kind(
        id=number,
        observations=one.observations,
        actions=one.actions,
        rewards=one.rewards,
        terminations=one.terminations,
        truncations=one.truncations,
        infos={key: np.stack(value) for key, value in one.infos.items()},
    )


@contextmanager
def _root(folder: str | os.PathLike[str] | None) -> Iterator[None]:
    """Let Minari keep its data sets under `folder`."""
    if folder is None:
        yield
        return
    name = "MINARI_DATASETS_PATH"
    before = os.environ.get(name)
    os.environ[name] = str(Path(folder).resolve())
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
