"""Checkpoints from which training goes on as if it had never stopped, bit for bit on the CPU."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from textgym_agents.sb3.expert_iteration import ExpertIteration
from textgym_agents.sb3.grpo import GRPO
from textgym_agents.sb3.nlpo import NLPO
from textgym_agents.sb3.reinforce import REINFORCE
from textgym_agents.sb3.rloo import RLOO
from textgym_agents.sb3.vec_env import TextVecEnv

_ALGORITHMS = {
    cls.__name__: cls for cls in (PPO, A2C, GRPO, RLOO, REINFORCE, ExpertIteration, NLPO)
}
_PREFIX, _PARTIAL = "step-", ".partial-"


def save_checkpoint(root: str | Path, agent: BaseAlgorithm, *, keep: int = 2) -> Path:
    """Write `root/step-N`, all of it or nothing. Call it at the start of a rollout.

    Args:
        root: folder of checkpoints.
        agent: SB3's agent on a `TextVecEnv`.
        keep: checkpoints to keep, the newest.

    Returns:
        The checkpoint's folder.
    """
    root = Path(root)
    folder = root / f"{_PREFIX}{agent.num_timesteps:012d}"
    if folder.exists():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    for left in root.glob(f"{_PARTIAL}*"):  # of a process that was killed while writing
        shutil.rmtree(left, ignore_errors=True)
    partial = root / f"{_PARTIAL}{os.getpid()}"
    partial.mkdir()
    try:
        _write(partial, agent)
        os.replace(partial, folder)  # atomic: a checkpoint is there whole or not at all
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _sync(root)
    for old in _checkpoints(root)[:-keep]:
        # Gone in one step, like it came: a process killed in here leaves no half of a checkpoint.
        going = root / f"{_PARTIAL}{old.name}"
        os.replace(old, going)
        shutil.rmtree(going, ignore_errors=True)
    return folder


def _write(folder: Path, agent: BaseAlgorithm) -> None:
    # The states first: nothing below may draw a random number, but saving is not ours to vouch for.
    state = {"random": _random_state(), "envs": agent.env.get_state()}
    agent.save(folder / "agent.zip")
    (folder / "state.pkl").write_bytes(pickle.dumps(state))
    about = {
        "algorithm": type(agent).__name__,
        "num_timesteps": int(agent.num_timesteps),
        "threads": torch.get_num_threads(),
    }
    (folder / "checkpoint.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    for path in (*folder.iterdir(), folder):
        _sync(path)


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":  # a folder cannot be opened there
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _checkpoints(root: Path) -> list[Path]:
    return sorted(p for p in root.glob(f"{_PREFIX}*") if p.is_dir())


def latest_checkpoint(root: str | Path) -> Path | None:
    """The newest checkpoint in `root`, or None."""
    found = _checkpoints(Path(root))
    return found[-1] if found else None


def checkpoint_threads(folder: str | Path) -> int:
    """The number of torch threads the run used: gradients differ between numbers of threads."""
    return int(
        json.loads((Path(folder) / "checkpoint.json").read_text(encoding="utf-8"))["threads"]
    )


def load_checkpoint(
    folder: str | Path,
    envs: TextVecEnv,
    *,
    algorithm: type[BaseAlgorithm] | None = None,
    device: torch.device | str = "auto",
) -> BaseAlgorithm:
    """The agent of a checkpoint, on `envs` put back to where they were.

    Go on with ``agent.learn(total - agent.num_timesteps, reset_num_timesteps=False)``. Sets the
    number of torch threads and the global random states to those of the checkpoint.

    Args:
        folder: what `save_checkpoint` returned.
        envs: environments made as those of the run.
        algorithm: the agent's class, where it is not SB3's PPO or A2C.
        device: as in SB3.

    Raises:
        ValueError: `folder` is no checkpoint, or `envs` are made otherwise.
    """
    folder = Path(folder)
    try:
        about = json.loads((folder / "checkpoint.json").read_text(encoding="utf-8"))
        state = pickle.loads((folder / "state.pkl").read_bytes())
    except (OSError, EOFError, json.JSONDecodeError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{folder} is not a checkpoint ({error}). Expected a folder written by "
            "`save_checkpoint`."
        ) from error
    cls = algorithm or _ALGORITHMS.get(about["algorithm"])
    if cls is None:
        raise ValueError(f"{folder} holds a {about['algorithm']}: pass that class as `algorithm=`.")
    torch.set_num_threads(about["threads"])
    envs.reset()  # so that every part of the state exists before it is overwritten
    envs.set_state(state["envs"])
    with warnings.catch_warnings():
        # The saved agent brings its model along, whatever became of the folder it came from.
        warnings.filterwarnings("ignore", message=".*Right only while loading a saved agent")
        # `force_reset=False`: the episodes under way go on.
        agent = cls.load(folder / "agent.zip", env=envs, device=device, force_reset=False)
    _set_random_state(state["random"])  # last: building the agent draws random numbers
    return agent


def _random_state() -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),  # noqa: NPY002  # the one SB3 draws from
        "torch": torch.get_rng_state(),
        "cuda": cuda,
    }


def _set_random_state(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


class CheckpointCallback(BaseCallback):
    """Saves a checkpoint at the first rollout start after every `every_n_steps` timesteps.

    Args:
        root: folder of checkpoints.
        every_n_steps: timesteps (tokens) between checkpoints.
        keep: checkpoints to keep.
    """

    def __init__(self, root: str | Path, every_n_steps: int, *, keep: int = 2) -> None:
        super().__init__()
        if every_n_steps < 1:
            raise ValueError(f"`every_n_steps` must be a positive int, got {every_n_steps}.")
        self.root = Path(root)
        self.every_n_steps = every_n_steps
        self.keep = keep
        self._saved = 0

    def _on_training_start(self) -> None:
        self._saved = self.model.num_timesteps

    def _on_rollout_start(self) -> None:
        if self.model.num_timesteps - self._saved >= self.every_n_steps:
            save_checkpoint(self.root, self.model, keep=self.keep)
            self._saved = self.model.num_timesteps

    def _on_step(self) -> bool:
        return True
