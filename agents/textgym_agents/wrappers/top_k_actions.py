"""`TopKActions`: choose among the next tokens that a frozen language model finds most probable."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from textgym import RewardError
from textgym.envs.contexts import Observation
from textgym.envs.infos import Infos, put_numbers
from textgym.wrappers.observing import stacked, token_spaces, with_finals
from textgym.wrappers.snapshots import Snapshots
from textgym.wrappers.vector import AnyVectorWrapper
from textgym_agents.wrappers.reader import reader_of
from textgym_agents.wrappers.reference_log_prob import ModelLike

IDS, LOG_PROBS = "candidate_ids", "candidate_log_probs"


def TopKActions(  # named as the class it makes
    env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any],
    model: ModelLike = "bundled",
    k: int = 4,
    *,
    observe_log_probs: bool = False,
    device: str = "auto",
) -> SingleTopKActions | VectorTopKActions:
    """Make the actions `Discrete(k)`: the k best next tokens of a frozen language model.

    Action 0 is the most probable token, action 1 the next, and so on (of equal ones the lower id
    comes first), among those that `env` allows; if these are fewer than k, the most probable stands
    in the places left over, so that every action can be taken and none need be masked. An agent
    with a small network can learn to write that way, since each choice is between texts that read
    well; what the model would never write, it cannot.

    `info["candidate_ids"]` `[k] int64` and `info["candidate_log_probs"]` `[k] float32` (nats,
    normalised over all allowed tokens) are there after each reset and step.

    Args:
        env: a token environment, single or vector, that observes `input_ids`. Other wrappers of
            observations go around this one: `HiddenStateObservation(TopKActions(env))`.
        model: as for `HiddenStateObservation`.
        k: from 2 to V.
        observe_log_probs: add the log-probs to the observation, under the same name.
        device: ``"cpu"``, ``"cuda"``, or ``"auto"``: a GPU where there is one.

    Raises:
        TypeError: `env` does not observe `input_ids`.
        ValueError: a `k` out of range, and as for `HiddenStateObservation`.

    Example:
        >>> import gymnasium as gym, textgym
        >>> env = TopKActions(gym.make("textgym/Story-v0"), "bundled", k=3)
        >>> _, info = env.reset(seed=0)
        >>> env.action_space.n, info["candidate_log_probs"].shape
        (np.int64(3), (3,))
    """
    cls = VectorTopKActions if isinstance(env, VectorEnv) else SingleTopKActions
    return cls(env, model, k, observe_log_probs=observe_log_probs, device=device)


class _Candidates:
    """The k best tokens of B rows."""

    def __init__(self, env: Any, model: ModelLike, k: int, device: str, num_envs: int) -> None:
        _, actions = token_spaces(env, "TopKActions")
        size = env.unwrapped.tokenizer.vocab_size
        if int(actions.n) != size:
            raise TypeError(f"the actions of `env` must be tokens, got {actions}.")
        if isinstance(k, bool) or not isinstance(k, int) or not 2 <= k <= size:
            raise ValueError(
                f"`k` must be an int from 2 to {size}, the number of tokens, got {k!r}."
            )
        self.k = k
        self.reader = reader_of(env, model, device, "TopKActions")
        self.ids = np.zeros((num_envs, k), np.int64)
        self.log_probs = np.zeros((num_envs, k), np.float32)

    def update(
        self, observation: Observation, masks: NDArray[Any] | None, rows: Any
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The candidates of `rows`, kept in `ids` and `log_probs`.

        Args:
            observation: batched, of all rows.
            masks: `[B, V]`, the environment's own for `rows` (others mean nothing), or None.
            rows: indices.
        """
        if masks is not None:  # a row of nothing would have no log-probs
            there = np.ones_like(masks)
            there[rows] = masks[rows]
            masks = there
        every = self.reader.log_probs(observation, masks)
        # A stable sort of all tokens costs more than `topk`, whose order of ties is not fixed:
        # ties at the edge are put right by sorting what could be among them.
        best, ids = (x.cpu().numpy()[rows] for x in every.topk(min(2 * self.k, every.shape[1])))
        order = np.lexsort((ids, -best))[:, : self.k]
        ids = np.take_along_axis(ids, order, axis=1)
        log_probs = np.take_along_axis(best, order, axis=1)
        fewer = np.isneginf(log_probs)
        ids = np.where(fewer, ids[:, :1], ids)
        log_probs = np.where(fewer, log_probs[:, :1], log_probs)
        self.ids[rows], self.log_probs[rows] = ids, log_probs
        return ids, log_probs

    def tokens(self, actions: Any) -> NDArray[np.int64]:
        """`[B] int64`, what `actions` `[B]` stand for."""
        chosen = np.asarray(actions)
        if chosen.shape != (len(self.ids),) or chosen.dtype.kind not in "iu":
            raise ValueError(
                f"expected {len(self.ids)} integer actions, got shape {chosen.shape} and dtype "
                f"{chosen.dtype}."
            )
        faulty = (chosen < 0) | (chosen >= self.k)
        if faulty.any():
            raise ValueError(
                f"action {chosen[faulty][0]} is not one of {self.k} candidates: expected 0 <= "
                f"action < {self.k}. Nothing has changed."
            )
        return self.ids[np.arange(len(chosen)), chosen.astype(np.int64)]

    def get_state(self) -> dict[str, Any]:
        return {"ids": self.ids.copy(), "log_probs": self.log_probs.copy()}

    def set_state(self, state: dict[str, Any]) -> None:
        np.copyto(self.ids, state["ids"])
        np.copyto(self.log_probs, state["log_probs"])


class SingleTopKActions(Snapshots, gym.Wrapper, RecordConstructorArgs):
    """The k best tokens as a single environment's actions; see `TopKActions`."""

    def __init__(
        self,
        env: gym.Env[Any, Any],
        model: ModelLike = "bundled",
        k: int = 4,
        *,
        observe_log_probs: bool = False,
        device: str = "auto",
    ) -> None:
        RecordConstructorArgs.__init__(
            self, model=model, k=k, observe_log_probs=observe_log_probs, device=device,
            _disable_deepcopy=True,
        )  # fmt: skip
        gym.Wrapper.__init__(self, env)
        self._candidates = _Candidates(env, model, k, device, 1)
        self.read_with = (model, device, self._candidates.reader)
        self._observed = observe_log_probs
        self.action_space = Discrete(k)
        if observe_log_probs:
            self.observation_space = _with_log_probs(env.observation_space, k)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, Infos]:
        """Begin a new episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._with_candidates(observation, info), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, Infos]:
        """Write the candidate `action`.

        Raises:
            ValueError: `action` is none; nothing has changed then.
        """
        (token,) = self._candidates.tokens([action])
        try:
            result = self.env.step(token)
        except RewardError as error:
            if error.result is not None:  # the step is done
                error.result = self._seen(error.result)
            raise
        return self._seen(result)

    def _seen(self, result: Any) -> Any:
        observation, reward, terminated, truncated, info = result
        return self._with_candidates(observation, info), reward, terminated, truncated, info

    def _with_candidates(self, observation: Any, info: Infos) -> Any:
        mask = info.pop("action_mask", None)
        masks = None if mask is None else mask[None]
        ids, log_probs = self._candidates.update(stacked([observation]), masks, np.arange(1))
        info[IDS], info[LOG_PROBS] = ids[0], log_probs[0]
        if mask is not None:
            info["action_mask"] = np.ones(self._candidates.k, np.int8)
        return {**observation, LOG_PROBS: log_probs[0].copy()} if self._observed else observation

    def action_masks(self) -> NDArray[np.bool_]:
        """`[k] bool`, all True: masks of the environment are heeded in choosing candidates."""
        return np.ones(self._candidates.k, np.bool_)

    def own_state(self) -> dict[str, Any]:
        """What this wrapper itself remembers."""
        return self._candidates.get_state()

    def set_own_state(self, state: dict[str, Any]) -> None:
        """Return to what `own_state` gave."""
        self._candidates.set_state(state)


class VectorTopKActions(Snapshots, AnyVectorWrapper, RecordConstructorArgs):
    """The k best tokens as a vector environment's actions; see `TopKActions`."""

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        model: ModelLike = "bundled",
        k: int = 4,
        *,
        observe_log_probs: bool = False,
        device: str = "auto",
    ) -> None:
        RecordConstructorArgs.__init__(
            self, model=model, k=k, observe_log_probs=observe_log_probs, device=device,
            _disable_deepcopy=True,
        )  # fmt: skip
        AnyVectorWrapper.__init__(self, env)
        self._candidates = _Candidates(env, model, k, device, env.num_envs)
        self.read_with = (model, device, self._candidates.reader)
        self._observed = observe_log_probs
        self.single_action_space = Discrete(k)
        self.action_space = batch_space(self.single_action_space, env.num_envs)
        if observe_log_probs:
            self.single_observation_space = _with_log_probs(env.single_observation_space, k)
            self.observation_space = batch_space(self.single_observation_space, env.num_envs)

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, Infos]:
        """Begin new episodes."""
        mask = (options or {}).get("reset_mask")
        rows = np.arange(self.num_envs) if mask is None else np.flatnonzero(mask)
        observation, infos = self.env.reset(seed=seed, options=options)
        self._put(observation, infos, rows)
        return self._observation(observation), infos

    def step(
        self, actions: Any
    ) -> tuple[Any, NDArray[Any], NDArray[np.bool_], NDArray[np.bool_], Infos]:
        """Write the candidates `actions`.

        Raises:
            ValueError: one is none; nothing has changed then.
        """
        tokens = self._candidates.tokens(actions)
        try:
            result = self.env.step(tokens)
        except RewardError as error:
            if error.result is not None:  # the step is done
                error.result = self._seen(error.result)
            raise
        return self._seen(result)

    def _seen(self, result: Any) -> Any:
        observation, rewards, terminated, truncated, infos = result
        if "final_obs" in infos:
            rows = np.flatnonzero(infos["_final_obs"])
            finals = infos["final_obs"][rows]
            seen = with_finals(observation, rows.tolist(), finals)
            log_probs = self._put(seen, infos["final_info"], rows)
            for row, final, values in zip(rows, finals, log_probs, strict=True):
                if self._observed:
                    infos["final_obs"][row] = {**final, LOG_PROBS: values.copy()}
        self._put(observation, infos, np.arange(self.num_envs))
        return self._observation(observation), rewards, terminated, truncated, infos

    def _put(self, observation: Any, infos: Infos, rows: NDArray[Any]) -> NDArray[np.float32]:
        masks = infos.pop("action_mask", None)
        ids, log_probs = self._candidates.update(observation, masks, rows)
        put_numbers(infos, IDS, rows, ids, self.num_envs)
        put_numbers(infos, LOG_PROBS, rows, log_probs, self.num_envs)
        if masks is not None:
            ones = np.ones((len(rows), self._candidates.k), np.int8)
            put_numbers(infos, "action_mask", rows, ones, self.num_envs)
        return log_probs

    def _observation(self, observation: Any) -> Any:
        if not self._observed:
            return observation
        return {**observation, LOG_PROBS: self._candidates.log_probs.copy()}

    def action_masks(self) -> NDArray[np.bool_]:
        """`[B, k] bool`, all True: masks of the environment are heeded in choosing candidates."""
        return np.ones((self.num_envs, self._candidates.k), np.bool_)

    def own_state(self) -> dict[str, Any]:
        """What this wrapper itself remembers."""
        return self._candidates.get_state()

    def set_own_state(self, state: dict[str, Any]) -> None:
        """Return to what `own_state` gave."""
        self._candidates.set_state(state)


def _with_log_probs(space: Any, k: int) -> Dict:
    if LOG_PROBS in space.spaces:
        raise ValueError(
            f"the observation has a key {LOG_PROBS!r} already: one `TopKActions` will do."
        )
    return Dict({**space.spaces, LOG_PROBS: Box(-np.inf, 0.0, (k,), np.float32)})
