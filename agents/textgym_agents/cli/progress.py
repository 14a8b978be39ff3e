"""What happens around Stable-Baselines3's training loop: checkpoints, evaluation, display, stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter

from textgym_agents.cli.display import TrainingDisplay
from textgym_agents.cli.stopping import StopRequest

# What is shown of the scalars the logger receives, in this order.
_SHOWN = {
    "reward": ("rollout/ep_rew_mean", "{:.3f}"),
    "KL/token": ("kl/per_token", "{:.3f}"),
    "held-out score": ("heldout/score", "{:.3f}"),
    "held-out reward": ("heldout/reward", "{:.3f}"),
}


class DisplayWriter(KVWriter):
    """Hands the scalars that the logger receives to the display."""

    def __init__(self, display: TrainingDisplay) -> None:
        self.display = display

    def write(
        self,
        key_values: dict[str, Any],
        key_excluded: dict[str, tuple[str, ...]],
        step: int = 0,
    ) -> None:
        """Show the figures among `key_values`."""
        self.display.show(
            {
                name: form.format(key_values[key])
                for name, (key, form) in _SHOWN.items()
                if key in key_values
            }
        )

    def close(self) -> None:
        """Nothing is held open."""


class Progress(BaseCallback):
    """Shows progress, evaluates on held-out prompts, and stops when asked to.

    A stop takes effect between an update and the next rollout: there `checkpoint` loses nothing.

    Args:
        display: what a person sees.
        stop: whether to stop.
        evaluate: returns held-out figures by logger key.
        evaluate_every: tokens between evaluations.
        checkpoint: saves everything needed to continue.
    """

    def __init__(
        self,
        display: TrainingDisplay,
        stop: StopRequest,
        *,
        evaluate: Callable[[], Mapping[str, float]],
        evaluate_every: int,
        checkpoint: Callable[[], object],
    ) -> None:
        super().__init__()
        self.display = display
        self.stop = stop
        self.evaluate = evaluate
        self.evaluate_every = evaluate_every
        self.checkpoint = checkpoint
        self.stopped = False
        self._last_evaluation = 0

    def _on_training_start(self) -> None:
        self._last_evaluation = self.num_timesteps // self.evaluate_every

    def _on_rollout_start(self) -> None:
        if self.stop.requested:
            self.checkpoint()
            self.stopped = True
            return
        due = self.num_timesteps // self.evaluate_every
        if due > self._last_evaluation:
            self._last_evaluation = due
            start = time.perf_counter()
            for key, value in self.evaluate().items():
                self.logger.record(key, value)
            self.display.not_training(time.perf_counter() - start)

    def _on_step(self) -> bool:
        if not self.stopped:  # the one step after a stop is thrown away
            self.display.advance(self.num_timesteps)
        return not self.stopped
