"""What the wrappers that mask actions share: a rule's mask in the three places, and refusals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from textgym.envs.contexts import Observation
from textgym.envs.infos import Infos, put_numbers
from textgym.envs.token_env import TokenEnv
from textgym.envs.token_vector_env import TokenVectorEnv
from textgym.errors import RewardError
from textgym.wrappers.observing import Step, stacked, token_spaces, with_finals
from textgym.wrappers.snapshots import Snapshots
from textgym.wrappers.vector import AnyVectorWrapper


class MaskRule:
    """Which tokens may come next."""

    def allowed(
        self,
        observation: Observation,
        turns: Sequence[Sequence[int]],
        rows: Sequence[int],
        own: NDArray[np.bool_],
    ) -> NDArray[np.bool_]:
        """`[R, V] bool`, True where the rule allows a token.

        Args:
            observation: batched, of all B rows.
            turns: B sequences of token ids: what each row has written in the turn it is writing.
            rows: the R rows that are asked about.
            own: `[R, V] bool`, what the environment itself allows there.
        """
        raise NotImplementedError


class _Masks:
    """The turns and masks of B rows."""

    def __init__(self, env: Any, rule: MaskRule, num_envs: int) -> None:
        self.rule = rule
        self.eos = int(env.unwrapped.tokenizer.eos_token_id)
        self.size = int(env.unwrapped.tokenizer.vocab_size)
        self.table: NDArray[np.bool_] = np.ones((num_envs, self.size), np.bool_)
        self.turns: list[list[int]] = [[] for _ in range(num_envs)]
        # Rows that the next step of `NEXT_STEP` resets: their action is no token.
        self.over = np.zeros(num_envs, np.bool_)

    def begin(self, rows: Sequence[int]) -> None:
        for row in rows:
            self.turns[row] = []
            self.over[row] = False

    def check(self, actions: Any) -> None:
        """Refuse what is masked; what is no token at all is left to the environment."""
        tokens = np.asarray(actions)
        if tokens.shape != self.over.shape or tokens.dtype.kind not in "iu":
            return
        rows = np.flatnonzero(~self.over & (tokens >= 0) & (tokens < self.size))
        faulty = rows[~self.table[rows, tokens[rows].astype(np.int64)]]
        if faulty.size:
            raise ValueError(
                f"action {tokens[faulty[0]]} of row {faulty[0]} is masked (of V = {self.size} "
                "tokens): choose one that `action_masks()` allows. Nothing has changed."
            )

    def write(self, actions: Any) -> None:
        """Append what was written to each row's turn; end-of-sequence begins a new one."""
        for row, token in enumerate(np.asarray(actions).tolist()):
            if self.over[row] or token == self.eos:
                self.turns[row] = []
            else:
                self.turns[row].append(token)
        self.over[:] = False

    def update(self, observation: Observation, rows: Sequence[int], own: Any) -> NDArray[np.bool_]:
        """`[R, V] bool`: the new masks of `rows`, kept in `table` too.

        Args:
            observation: batched, of all rows.
            rows: R of them.
            own: `[R, V]`, the environment's own masks, or None where it has none.
        """
        if own is None:
            own = np.ones((len(rows), self.size), np.bool_)
        own = np.asarray(own, np.bool_)
        masks: NDArray[np.bool_] = own & self.rule.allowed(observation, self.turns, rows, own)
        stuck = ~masks.any(axis=1)
        if stuck.any():  # nothing can follow: end, or whatever the environment allows instead
            masks[stuck, self.eos] = own[stuck, self.eos]
            stuck = ~masks.any(axis=1)
            masks[stuck] = own[stuck]
        self.table[list(rows)] = masks
        return masks

    def get_state(self) -> dict[str, Any]:
        turns = [list(turn) for turn in self.turns]
        return {"masks": self.table.copy(), "turns": turns, "over": self.over.copy()}

    def set_state(self, state: dict[str, Any]) -> None:
        np.copyto(self.table, state["masks"])
        np.copyto(self.over, state["over"])
        self.turns = [list(turn) for turn in state["turns"]]


class SingleMasking(Snapshots, gym.Wrapper[Any, Any, Any, Any]):
    """A single token environment whose actions a rule masks."""

    def __init__(self, env: gym.Env[Any, Any], rule: MaskRule, name: str) -> None:
        gym.Wrapper.__init__(self, env)
        _check(env, name)
        self._masks = _Masks(env, rule, 1)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, Infos]:
        """Begin a new episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._masks.begin([0])
        self._put(observation, info)
        return observation, info

    def step(self, action: Any) -> Step:
        """Step, unless the token is masked.

        Raises:
            ValueError: the token is masked; nothing has changed then.
        """
        self._masks.check([action])
        try:
            result = self.env.step(action)
        except RewardError as error:
            if error.result is not None:  # the step is done
                self._seen(cast(Step, error.result), action)
            raise
        return self._seen(cast(Step, result), action)

    def _seen(self, result: Step, action: Any) -> Step:
        self._masks.write([action])
        self._put(result[0], result[4])
        return result

    def _put(self, observation: Observation, info: Infos) -> None:
        own = info.get("action_mask")
        masks = self._masks.update(stacked([observation]), [0], None if own is None else own[None])
        info["action_mask"] = masks[0].astype(np.int8)

    def action_masks(self) -> NDArray[np.bool_]:
        """`[V] bool`, True where a token is allowed."""
        mask: NDArray[np.bool_] = self._masks.table[0].copy()
        return mask

    def own_state(self) -> dict[str, Any]:
        """What this wrapper itself remembers."""
        return self._masks.get_state()

    def set_own_state(self, state: dict[str, Any]) -> None:
        """Return to what `own_state` gave."""
        self._masks.set_state(state)


class VectorMasking(Snapshots, AnyVectorWrapper):
    """A vector token environment whose actions a rule masks."""

    def __init__(self, env: VectorEnv[Any, Any, Any], rule: MaskRule, name: str) -> None:
        AnyVectorWrapper.__init__(self, env)
        _check(env, name)
        self._masks = _Masks(env, rule, env.num_envs)
        self._mode = env.unwrapped.metadata["autoreset_mode"]

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, Infos]:
        """Begin new episodes."""
        mask = (options or {}).get("reset_mask")
        rows = np.arange(self.num_envs) if mask is None else np.flatnonzero(mask)
        observation, infos = self.env.reset(seed=seed, options=options)
        self._masks.begin(rows.tolist())
        self._put(observation, infos, rows.tolist())
        return observation, infos

    def step(self, actions: Any) -> Step:
        """Step, unless a token is masked.

        Raises:
            ValueError: a token is masked; nothing has changed then.
        """
        self._masks.check(actions)
        try:
            result = self.env.step(actions)
        except RewardError as error:
            if error.result is not None:  # the step is done
                self._seen(cast(Step, error.result), actions)
            raise
        return self._seen(result, actions)

    def _seen(self, result: Step, actions: Any) -> Step:
        observation, _, terminated, truncated, infos = result
        self._masks.write(actions)
        if "final_obs" in infos:
            rows = np.flatnonzero(infos["_final_obs"]).tolist()
            finals = [infos["final_obs"][row] for row in rows]
            self._put(with_finals(observation, rows, finals), infos["final_info"], rows)
            self._masks.begin(rows)
        self._put(observation, infos, list(range(self.num_envs)))
        if self._mode is AutoresetMode.NEXT_STEP:
            self._masks.over = terminated | truncated
        return result

    def _put(self, observation: Observation, infos: Infos, rows: list[int]) -> None:
        own = infos.get("action_mask")
        masks = self._masks.update(observation, rows, None if own is None else own[rows])
        put_numbers(infos, "action_mask", rows, masks.astype(np.int8), self.num_envs)

    def action_masks(self) -> NDArray[np.bool_]:
        """`[B, V] bool`, True where a token is allowed."""
        return self._masks.table.copy()

    def own_state(self) -> dict[str, Any]:
        """What this wrapper itself remembers."""
        return self._masks.get_state()

    def set_own_state(self, state: dict[str, Any]) -> None:
        """Return to what `own_state` gave."""
        self._masks.set_state(state)


def _check(env: Any, name: str) -> None:
    base = env.unwrapped
    if not isinstance(base, TokenEnv | TokenVectorEnv):
        raise TypeError(f"`env` must be a token environment, got {base!r}.")
    _, actions = token_spaces(env, name)
    if int(actions.n) != base.tokenizer.vocab_size:
        raise TypeError(f"the actions of `env` must be tokens, got {actions}. Put `{name}` inside.")
