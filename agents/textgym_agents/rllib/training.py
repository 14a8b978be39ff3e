"""A training run from a configuration to the folder it leaves behind.

```
model/          Hugging Face files: `AutoModelForCausalLM.from_pretrained(".../model")`
tensorboard/    scalars, named as the SB3 engine names them
checkpoints/    step_<tokens>: what `resume=True` continues from, on a cluster of any size
```
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    LEARNER_RESULTS,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
)

from textgym_agents.rllib.algorithm import TEXT, TOKENS_TRAINED
from textgym_agents.rllib.cluster import check_cluster
from textgym_agents.rllib.config import TextPPOConfig
from textgym_agents.rllib.module import LMModule

_CHECKPOINTS_KEPT = 2
# RLlib's names of what a learner reports, and those of the SB3 engine.
_LEARNER = {
    "policy_loss": "train/policy_gradient_loss",
    "vf_loss": "train/value_loss",
    "approx_kl": "train/approx_kl",
    "clip_fraction": "train/clip_fraction",
    "explained_variance": "train/explained_variance",
    "total_loss": "train/loss",
    "default_optimizer_learning_rate": "train/learning_rate",
    "kl_per_token": "kl/per_token",
    "kl_per_sequence": "kl/per_sequence",
    "kl_coef": "kl/coef",
}


@dataclass(frozen=True)
class TrainedRun:
    """What a run came to.

    Args:
        model: the folder of the trained model.
        timesteps: tokens sampled, earlier sessions included.
        tokens_trained: tokens learned from, each counted once; episodes still open are not in it.
        train_seconds: of this session.
        tokens_per_s: sampled and learned from, in this session.
    """

    model: Path
    timesteps: int
    tokens_trained: int
    train_seconds: float
    tokens_per_s: float


def train(
    config: TextPPOConfig,
    folder: Path,
    timesteps: int,
    *,
    checkpoint_every: int = 50_000,
    resume: bool = False,
    on_iteration: Callable[[Mapping[str, float], int], bool | None] | None = None,
) -> TrainedRun:
    """Train on the cluster that is connected, see `connect`.

    Args:
        config: from `rllib_config`.
        folder: where `model/`, `tensorboard/` and `checkpoints/` are written.
        timesteps: tokens to sample, those of earlier sessions included.
        checkpoint_every: in tokens.
        resume: go on from the newest checkpoint in `folder`, if there is one. The numbers of
            runners and learners may differ from before.
        on_iteration: called with the figures and the tokens so far; True stops the run.

    Raises:
        ValueError: the cluster is too small for `config`.
    """
    from torch.utils.tensorboard import SummaryWriter

    check_cluster(config)
    algorithm = config.build_algo()
    writer = SummaryWriter(str(folder / "tensorboard"))
    try:
        latest = latest_checkpoint(folder / "checkpoints") if resume else None
        if latest is not None:
            algorithm.restore_from_path(str(latest.resolve()))
        first = done = steps_of(latest)
        saved, trained, began, stopped = done, 0, time.perf_counter(), False
        while done < timesteps and not stopped:
            result = algorithm.train()
            done = int(result[ENV_RUNNER_RESULTS][NUM_ENV_STEPS_SAMPLED_LIFETIME])
            trained = int(result.get(TEXT, {}).get(TOKENS_TRAINED, trained))
            figures = figures_of_result(result)
            seconds = time.perf_counter() - began
            figures["time/fps"] = (done - first) / seconds
            for name, value in figures.items():
                writer.add_scalar(name, value, done)
            stopped = bool(on_iteration and on_iteration(figures, done))
            if done - saved >= checkpoint_every or stopped or done >= timesteps:
                save_checkpoint(algorithm, folder / "checkpoints", done)
                saved = done
        seconds = time.perf_counter() - began
        model = export(algorithm, folder / "model")
        return TrainedRun(model, done, trained, seconds, (done - first) / max(seconds, 1e-9))
    finally:
        writer.close()
        algorithm.stop()


def figures_of_result(result: Mapping[str, Any]) -> dict[str, float]:
    """The scalars of an RLlib result, by the names of the SB3 engine."""
    texts = {k: float(v) for k, v in result.get(TEXT, {}).items() if k != TOKENS_TRAINED}
    learner = result.get(LEARNER_RESULTS, {}).get(DEFAULT_MODULE_ID, {})
    known = {new: float(learner[old]) for old, new in _LEARNER.items() if old in learner}
    if "entropy" in learner:
        known["train/entropy_loss"] = -float(learner["entropy"])
    return texts | known


def current_module(algorithm: Algorithm) -> LMModule:
    """The module as it is now, whole: of a local learner, or built from a remote one's weights."""
    if algorithm.learner_group.is_local:
        return algorithm.learner_group._learner.module[DEFAULT_MODULE_ID].unwrapped()
    state = algorithm.learner_group.get_weights()[DEFAULT_MODULE_ID]
    module = algorithm.config.get_multi_rl_module_spec()[DEFAULT_MODULE_ID].build()
    module.set_state(state)
    return module


def export(algorithm: Algorithm, folder: Path) -> Path:
    """Write the model as Hugging Face files, whole or not at all; the folder is replaced."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    current_module(algorithm).save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def save_checkpoint(algorithm: Algorithm, folder: Path, timesteps: int) -> Path:
    """RLlib's own checkpoint as ``step_<timesteps>``, under that name only once it is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"step_{timesteps:012d}"
    partial = folder / f".{target.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    algorithm.save_to_path(str(partial.resolve()))
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    for old in sorted(folder.glob("step_*"))[:-_CHECKPOINTS_KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint in `folder`."""
    found = sorted(folder.glob("step_*"))
    return found[-1] if found else None


def steps_of(checkpoint: Path | None) -> int:
    """The tokens sampled before `checkpoint`; 0 without one."""
    return 0 if checkpoint is None else int(checkpoint.name.removeprefix("step_"))
