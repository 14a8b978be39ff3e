"""Alarms: signs that an agent has found out how to be paid for something that nobody wanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from textgym.episode import Episode
from textgym.rewards import Repetition

# At most so many texts of a rollout are looked at.
_TEXTS = 256
# Rollouts that tell what is usual for this model and environment.
_BASELINE_ROLLOUTS = 2
# An alarm is over once its figure has come back by this share of the way to the threshold.
_RECOVERED = 0.8


@dataclass(frozen=True)
class Alarm:
    """A sign of reward hacking.

    Args:
        name: `length`, `repetition`, `sameness`, `entropy` or `kl`.
        timesteps: when it was raised.
        value: the figure that raised it.
        usual: what that figure was at the start; for `kl` the limit.
        message: what it means and what to try.
    """

    name: str
    timesteps: int
    value: float
    usual: float
    message: str


class Watch:
    """Compares the figures of each rollout with those of the first ones.

    Args:
        length_factor: raise `length` when texts are this many times longer or shorter than at
            first.
        repetition_rise: raise `repetition` when the share of word triples that a text has used
            before rises by this much.
        sameness_factor: raise `sameness` when the share of different word triples among all texts
            of a rollout falls below this part of what it was.
        entropy_factor: the same for the entropy.
        kl_limit: raise `kl` above this many nats a token to the reference model.
    """

    def __init__(
        self,
        *,
        length_factor: float = 2.0,
        repetition_rise: float = 0.15,
        sameness_factor: float = 0.4,
        entropy_factor: float = 0.25,
        kl_limit: float = 0.8,
    ) -> None:
        self.length_factor = length_factor
        self.repetition_rise = repetition_rise
        self.sameness_factor = sameness_factor
        self.entropy_factor = entropy_factor
        self.kl_limit = kl_limit
        self._first: list[dict[str, float]] = []
        self._raised: set[str] = set()

    def look(self, figures: Mapping[str, float], timesteps: int) -> list[Alarm]:
        """The alarms that `figures` of a rollout raise; one that goes on is raised once.

        Args:
            figures: `length` (tokens), `repetition`, `distinct` (shares), `entropy` (nats a token),
                `kl` (nats a token); those that are not known are left out.
            timesteps: now.
        """
        if len(self._first) < _BASELINE_ROLLOUTS:
            self._first.append(dict(figures))
        alarms = []
        for name, (excess, value, usual) in self._excesses(figures).items():
            if excess >= 1.0 and name not in self._raised:
                self._raised.add(name)
                message = _MESSAGES[name].format(value=value, usual=usual)
                alarms.append(Alarm(name, timesteps, value, usual, message))
            elif excess < _RECOVERED:
                self._raised.discard(name)
        return alarms

    @property
    def raised(self) -> frozenset[str]:
        """The alarms that are on."""
        return frozenset(self._raised)

    def get_state(self) -> dict[str, Any]:
        """What was usual, and which alarms are on, as plain data."""
        return {"first": [dict(f) for f in self._first], "raised": sorted(self._raised)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Return to what `get_state` gave."""
        self._first = [dict(f) for f in state["first"]]
        self._raised = set(state["raised"])

    def _usual(self, name: str) -> float | None:
        known = [figures[name] for figures in self._first if name in figures]
        return float(np.mean(known)) if known else None

    def _excesses(self, figures: Mapping[str, float]) -> dict[str, tuple[float, float, float]]:
        """For each alarm how far its figure has gone, 1 at the threshold; the figure; the usual."""
        found: dict[str, tuple[float, float, float]] = {}
        length, usual = figures.get("length"), self._usual("length")
        if length and usual:
            ratio = max(length / usual, usual / length)
            found["length"] = (np.log(ratio) / np.log(self.length_factor), length, usual)
        repetition, usual = figures.get("repetition"), self._usual("repetition")
        if repetition is not None and usual is not None:
            rise = (repetition - usual) / self.repetition_rise
            found["repetition"] = (rise, repetition, usual)
        for name, key, factor in (
            ("sameness", "distinct", self.sameness_factor),
            ("entropy", "entropy", self.entropy_factor),
        ):
            value, usual = figures.get(key), self._usual(key)
            if value is not None and usual:
                found[name] = ((1 - value / usual) / (1 - factor), value, usual)
        if "kl" in figures:
            found["kl"] = (figures["kl"] / self.kl_limit, figures["kl"], self.kl_limit)
        return found


_MESSAGES = {
    "length": (
        "texts now have {value:.0f} tokens, {usual:.0f} at first. The reward may pay for length "
        "itself: look at the samples, add `--reward length:max=N`, or raise --kl-coef."
    ),
    "repetition": (
        "{value:.0%} of the word triples in a text are repeats, {usual:.0%} at first. The agent is "
        "paid for saying the same again: add `--reward repetition`, or pay presence, not counts."
    ),
    "sameness": (
        "only {value:.0%} of the word triples of all texts differ, {usual:.0%} at first. Whatever "
        "the prompt, much the same is written: raise --kl-coef, add `--reward distinct:window=64`, "
        "or have the reward look at the prompt."
    ),
    "entropy": (
        "the entropy has fallen to {value:.2f} nats a token, from {usual:.2f}. The agent has made "
        "up its mind and will hardly learn more: lower --learning-rate, raise --kl-coef, or stop."
    ),
    "kl": (
        "the model is {value:.2f} nats a token away from the base model, more than {usual:.2f}. "
        "Its text may no longer be language: look at the samples, raise --kl-coef, or give a "
        "--kl-target."
    ),
}


class HackingAlarms(BaseCallback):
    """Watches every rollout for signs of reward hacking.

    Records scalars `alarms/<name>` (1 while an alarm is on), the figures it watches under `watch/`,
    and, with a TensorBoard writer among the logger's outputs, each alarm's sentence as text.

    Args:
        notify: gets each alarm as it is raised, to show it.
        watch: the thresholds.
    """

    def __init__(
        self, notify: Callable[[Alarm], object] | None = None, *, watch: Watch | None = None
    ) -> None:
        super().__init__()
        self.watch = watch or Watch()
        self.notify = notify
        self.alarms: list[Alarm] = []
        self._episodes: list[Episode] = []

    def _on_rollout_start(self) -> None:
        self._episodes.clear()

    def _on_step(self) -> bool:
        for row in np.flatnonzero(self.locals["dones"]):
            record = self.locals["infos"][row].get("episode_record")
            if record is not None and len(self._episodes) < _TEXTS:
                self._episodes.append(record)
        return True

    def _on_rollout_end(self) -> None:
        figures = text_figures(self._episodes)
        log_probs = getattr(getattr(self.model, "rollout_buffer", None), "log_probs", None)
        if log_probs is not None:
            # Minus the mean log-prob of what was sampled estimates the entropy, without bias.
            figures["entropy"] = float(-np.mean(log_probs))
        kl = getattr(self.model.policy, "kl_stats", {}).get("per_token")
        if kl is not None:
            figures["kl"] = float(kl)
        for name in ("repetition", "distinct", "entropy"):
            if name in figures:
                self.logger.record(f"watch/{name}", figures[name])
        raised = self.watch.look(figures, self.num_timesteps)
        for name in _MESSAGES:
            self.logger.record(f"alarms/{name}", float(name in self.watch.raised))
        for alarm in raised:
            self.alarms.append(alarm)
            for output in self.logger.output_formats:
                writer = getattr(output, "writer", None)
                if writer is not None:
                    writer.add_text(f"alarms/{alarm.name}", alarm.message, alarm.timesteps)
            if self.notify is not None:
                self.notify(alarm)


def text_figures(episodes: Sequence[Episode]) -> dict[str, float]:
    """`length` (tokens), `repetition` and `distinct` (shares of word triples) of `episodes`.

    `distinct` compares texts with each other, so it depends on how many there are: compare it with
    that of as many others.
    """
    if not episodes:
        return {}
    texts = [episode.completion_text[:4000] for episode in episodes]
    repetition = Repetition(3)
    triples: list[tuple[str, ...]] = []
    for text in texts:
        words = text.casefold().split()
        # Each text counts its own triples once: repeating oneself is the other figure.
        triples += set(zip(words, words[1:], words[2:], strict=False))
    figures = {
        "length": float(np.mean([e.completion_mask.sum() for e in episodes])),
        "repetition": float(np.mean([-repetition.value(text) for text in texts])),
    }
    if triples:
        figures["distinct"] = len(set(triples)) / len(triples)
    return figures
