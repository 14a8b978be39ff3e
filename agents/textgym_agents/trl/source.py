"""`Source`: what a trainer that writes by itself must know of a text environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, RecordEpisodeStatistics
from numpy.typing import NDArray

from textgym import Episode, Reward, Task, TokenEnv, Tokenizer, TokenVectorEnv
from textgym.rewards.terms import RewardTerm
from textgym.seeding import check_split, instance_rng
from textgym.wrappers import SingleAddReward, VectorAddReward

AnyEnv = str | gym.Env[Any, Any] | VectorEnv[Any, Any, Any]

# Wrappers that leave an episode, and what it pays, as they are.
_HARMLESS = (OrderEnforcing, PassiveEnvChecker, RecordEpisodeStatistics)


class Source:
    """The task, the tokenizer and the rewards of an environment that TRL can stand in for.

    Args:
        env: a registered id, or a token environment, single or vector, wrapped or not.
        env_kwargs: keyword arguments of the environment, where `env` is an id.

    Attributes:
        task, tokenizer, split, max_new_tokens: the environment's.
        terms: all that an episode pays, the score first.

    Raises:
        TypeError: no token environment, or `env_kwargs` without an id.
        ValueError: an environment in which TRL would not write what an agent would: one of
            several turns, with an action mask, with a limit on steps, with a wrapper that changes
            what is paid in a way of its own; or one that pays nothing.
    """

    def __init__(self, env: AnyEnv, env_kwargs: Mapping[str, Any] | None = None) -> None:
        if isinstance(env, str):
            env = gym.make(env, **(env_kwargs or {}))
        elif env_kwargs:
            raise TypeError(
                f"`env_kwargs` go with an id, not with an environment made, got {dict(env_kwargs)}."
            )
        base = getattr(env, "unwrapped", env)
        if not isinstance(base, TokenEnv | TokenVectorEnv):
            raise TypeError(f"`env` must be an id or a token environment, got {env!r}.")
        _check_fits(base)
        self.task: Task = base.task
        self.tokenizer: Tokenizer = base.tokenizer
        self.split = check_split(base.split)
        self.max_new_tokens: int = base.max_new_tokens
        self.terms: tuple[RewardTerm, ...] = _terms(env)

    def draw(self, seed: int, split: str, index: int) -> Any:
        """The `Instance` that a single environment of `split`, reset with `seed`, asks `index`-th.

        Raises:
            ValueError: no such split.
        """
        checked = check_split(split)
        return self.task.draw(instance_rng(seed, checked, 0, index), checked)


def _check_fits(base: TokenEnv | TokenVectorEnv) -> None:
    name = type(base.task).__name__
    if type(base.task).reply is not Task.reply:
        raise ValueError(
            f"{name} replies to the agent, and TRL writes a completion in one go. "
            "Train it with `textgym_agents.sb3`."
        )
    if hasattr(base, "action_masks"):
        raise ValueError(
            f"this environment of {name} masks tokens (`min_new_tokens`, `banned_tokens`), and "
            "TRL's log-probs are of the whole vocabulary. Leave the mask out."
        )
    if _setting(base, "max_episode_steps", None) is not None:
        raise ValueError(
            "`max_episode_steps` cuts episodes off without a score, and TRL knows no such end. "
            "Use `max_new_tokens`."
        )


def _terms(env: Any) -> tuple[RewardTerm, ...]:
    """What an episode pays, innermost first, as the environment's `info["rewards"]` has it."""
    outer: list[RewardTerm] = []
    while env is not env.unwrapped:
        if isinstance(env, SingleAddReward | VectorAddReward):
            outer.append(env.term)
            if env.replaces:
                return tuple(reversed(outer))
        elif not isinstance(env, _HARMLESS):
            raise ValueError(
                f"`{type(env).__name__}` may change what is paid, and TRL cannot step through it. "
                "Use `AddReward`, or leave it out."
            )
        env = env.env
    terms = [*env.reward_terms, *reversed(outer)]
    weight = float(_setting(env, "score_weight", 1.0))
    # Tasks that pay their score step by step have a term for it already.
    if env.task.scored and weight and not any(term.name == "score" for term in terms):
        terms.insert(0, RewardTerm(_Score(env.task), "score", weight))
    if not terms:
        raise ValueError(
            f"this environment of {type(env.task).__name__} pays nothing. Give it "
            '`rewards=[...]`, such as `rewards=["length:max=40"]`.'
        )
    return tuple(terms)


def _setting(base: Any, name: str, default: Any) -> Any:
    """An argument that `base` was made with."""
    made_with = base.spec.kwargs if getattr(base, "spec", None) is not None else {}
    return getattr(base, name, made_with.get(name, default))


class _Score(Reward):
    """The task's own score, as a reward like any other."""

    name, range = "score", (0.0, 1.0)

    def __init__(self, task: Task) -> None:
        self._task = task

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float64]:  # type: ignore[override]
        return self._task.score_batch(episodes)
