"""`AddReward` and `ReplaceReward`: any reward on any token environment, single or vector."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from textgym.envs.contexts import Observation
from textgym.envs.infos import Infos, put_numbers
from textgym.envs.token_env import TokenEnv
from textgym.envs.token_vector_env import TokenVectorEnv
from textgym.rewards.base import Reward, RewardFunction
from textgym.rewards.terms import RewardTerm, TermPayer
from textgym.wrappers.ending import ended
from textgym.wrappers.snapshots import Snapshots
from textgym.wrappers.vector import TokenVectorWrapper


def AddReward(  # named as the class it makes
    env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any],
    reward: Reward | RewardFunction | str,
    *,
    name: str | None = None,
    weight: float = 1.0,
) -> SingleAddReward | VectorAddReward:
    """Add a reward to an environment: `SingleAddReward` or `VectorAddReward`, as `env` asks.

    When an episode is closed, `weight` times the reward of its record is added to the step's
    reward, and reported as `info["rewards"][name]`. A per-token reward is paid in every step. A
    row that is only truncated gets none (but what its tokens have earned).

    Args:
        env: a token environment, wrapped or not.
        reward: a `Reward`, a function from a list of B episodes to B floats, or a spec such as
            ``"keywords:happy,love"``.
        name: its name in `info["rewards"]`; the reward's own by default.
        weight: what it is multiplied by.

    Example:
        >>> import gymnasium as gym, textgym
        >>> env = gym.make("textgym/Continuation-v0")
        >>> env = AddReward(env, lambda episodes: [len(e.completion_ids) for e in episodes])
        >>> _ = env.reset(seed=0)
        >>> env.step(env.unwrapped.tokenizer.eos_token_id)[1]
        1.0
    """
    kind = VectorAddReward if isinstance(env, VectorEnv) else SingleAddReward
    return kind(env, reward, name=name, weight=weight)  # type: ignore[arg-type]


def ReplaceReward(  # named as the class it makes
    env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any],
    reward: Reward | RewardFunction | str,
    *,
    name: str | None = None,
    weight: float = 1.0,
) -> SingleReplaceReward | VectorReplaceReward:
    """Pay one reward in place of all that the environment itself pays.

    As `AddReward`, but what the environment and the wrappers inside this one paid is dropped, from
    the step's reward and from `info["rewards"]`. The task's score stays in `info["score"]`.

    Args:
        env, reward, name, weight: as for `AddReward`.

    Example:
        >>> import gymnasium as gym, textgym
        >>> env = ReplaceReward(gym.make("textgym/Story-v0"), "length:max=40")
        >>> _ = env.reset(seed=0)
        >>> _, reward, _, _, info = env.step(env.unwrapped.tokenizer.eos_token_id)
        >>> reward, info["rewards"]
        (1.0, {'length': 1.0})
    """
    kind = VectorReplaceReward if isinstance(env, VectorEnv) else SingleReplaceReward
    return kind(env, reward, name=name, weight=weight)  # type: ignore[arg-type]


class SingleAddReward(
    Snapshots, gym.Wrapper[Observation, np.int64, Observation, np.int64], RecordConstructorArgs
):
    """Adds a reward to a single environment; see `AddReward`."""

    replaces = False

    def __init__(
        self,
        env: gym.Env[Observation, np.int64],
        reward: Reward | RewardFunction | str,
        *,
        name: str | None = None,
        weight: float = 1.0,
    ) -> None:
        # Not deep-copied: a reward may hold a model.
        RecordConstructorArgs.__init__(
            self, reward=reward, name=name, weight=weight, _disable_deepcopy=True
        )
        gym.Wrapper.__init__(self, env)
        if not isinstance(env.unwrapped, TokenEnv):
            raise TypeError(f"`env` must be a token environment, got {env.unwrapped!r}.")
        self._base = env.unwrapped
        self._payer = TermPayer(RewardTerm.of(reward, name=name, weight=weight), 1)
        self.term.reward.bind(self._base.tokenizer, self._base.task.score_batch)

    @property
    def term(self) -> RewardTerm:
        """The reward, with its name and weight."""
        return self._payer.term

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Infos]:
        """Begin a new episode."""
        result = self.env.reset(seed=seed, options=options)
        self._payer.forget([0])
        return result

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, Infos]:
        """Step, then add the reward."""
        observation, base, terminated, truncated, info = self.env.step(action)
        record = info.get("episode_record")
        rewards = np.array([0.0 if self.replaces else base], np.float64)
        closed = ([], []) if record is None else ([0], [record])
        if record is not None and self.replaces:
            info["rewards"].clear()
        if record is not None:
            _check_new(info["rewards"], self._payer.term.name)
        totals, error = self._payer.pay(rewards, closed, self._unfinished)
        if record is not None:
            info["rewards"][self._payer.term.name] = float(totals[0])
        result = (observation, float(rewards[0]), terminated, truncated, info)
        if error is not None:
            error.result = result
            raise error
        return result

    def _unfinished(self) -> tuple[list[int], list[Any]]:
        episode = self._base.unfinished()
        return ([], []) if episode is None else ([0], [episode])

    def own_state(self) -> dict[str, Any]:
        """What this wrapper itself remembers, and what its reward has learnt."""
        return self._payer.get_state()

    def set_own_state(self, state: dict[str, Any]) -> None:
        """Return to what `own_state` gave."""
        self._payer.set_state(state)


class VectorAddReward(
    Snapshots,
    TokenVectorWrapper,
    RecordConstructorArgs,
):
    """Adds a reward to a vector environment; see `AddReward`."""

    replaces = False

    def __init__(
        self,
        env: VectorEnv[Observation, NDArray[np.int64], NDArray[Any]],
        reward: Reward | RewardFunction | str,
        *,
        name: str | None = None,
        weight: float = 1.0,
    ) -> None:
        RecordConstructorArgs.__init__(
            self, reward=reward, name=name, weight=weight, _disable_deepcopy=True
        )
        TokenVectorWrapper.__init__(self, env)
        if not isinstance(env.unwrapped, TokenVectorEnv):
            raise TypeError(
                f"`env` must be a `TokenVectorEnv`, got {env.unwrapped!r}. Use "
                '`gym.make_vec(id, vectorization_mode="vector_entry_point")`, or `rewards=[...]`.'
            )
        self._base = env.unwrapped
        self._payer = TermPayer(RewardTerm.of(reward, name=name, weight=weight), env.num_envs)
        self.term.reward.bind(self._base.tokenizer, self._base.task.score_batch)

    @property
    def term(self) -> RewardTerm:
        """The reward, with its name and weight."""
        return self._payer.term

    @property
    def payer(self) -> TermPayer:
        """The one who pays it."""
        return self._payer

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Infos]:
        """Begin new episodes."""
        mask = (options or {}).get("reset_mask")
        result = self.env.reset(seed=seed, options=options)
        self._payer.forget(slice(None) if mask is None else np.asarray(mask))
        return result

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[Observation, NDArray[Any], NDArray[Any], NDArray[Any], Infos]:
        """Step, then add the reward."""
        observation, rewards, terminated, truncated, infos = self.env.step(actions)
        where, rows = ended(infos, self._base.autoreset_mode)
        name = self._payer.term.name
        if self.replaces:
            rewards = np.zeros_like(rewards)
            if rows:
                where["rewards"].clear()
        if rows:
            _check_new(where["rewards"], name)
        records = [where["episode_record"][row] for row in rows]
        totals, error = self._payer.pay(rewards, (rows, records), self._base.unfinished)
        if rows:
            put_numbers(where["rewards"], name, rows, totals, self.num_envs)
        self._payer.forget(terminated | truncated)
        result = (observation, rewards, terminated, truncated, infos)
        if error is not None:
            error.result = result
            raise error
        return result

    def own_state(self) -> dict[str, Any]:
        """What this wrapper itself remembers, and what its reward has learnt."""
        return self._payer.get_state()

    def set_own_state(self, state: dict[str, Any]) -> None:
        """Return to what `own_state` gave."""
        self._payer.set_state(state)


class SingleReplaceReward(SingleAddReward):
    """Pays a reward in place of a single environment's own; see `ReplaceReward`."""

    replaces = True


class VectorReplaceReward(VectorAddReward):
    """Pays a reward in place of a vector environment's own; see `ReplaceReward`."""

    replaces = True


def reward_terms_of(env: Any) -> list[RewardTerm]:
    """All rewards paid on top of the score, innermost first: the environment's, then wrappers'.

    Args:
        env: a token environment, single or vector, wrapped or not.
    """
    outer: list[RewardTerm] = []
    while env is not env.unwrapped:
        if isinstance(env, SingleAddReward | VectorAddReward):
            outer.append(env.term)
        env = env.env
    return [*env.reward_terms, *reversed(outer)]


def reward_payers_of(env: Any) -> list[TermPayer]:
    """Those who pay the rewards on top of the score, innermost first.

    Those whose pay is dropped by a `ReplaceReward` around them are left out.

    Args:
        env: a `TokenVectorEnv`, wrapped or not.
    """
    outer: list[TermPayer] = []
    while env is not env.unwrapped:
        if isinstance(env, VectorAddReward):
            outer.append(env.payer)
            if env.replaces:
                return outer[::-1]
        env = env.env
    return [*env.reward_payers, *reversed(outer)]


def _check_new(components: dict[str, Any], name: str) -> None:
    if name in components:
        raise ValueError(f"a reward named {name!r} is already there. Give this one another `name`.")
