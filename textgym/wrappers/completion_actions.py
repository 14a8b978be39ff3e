"""`CompletionActions`: an action is a whole text, for agents that act turn by turn."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv

from textgym.envs.infos import Infos
from textgym.envs.token_env import TokenEnv
from textgym.errors import RewardError
from textgym.wrappers.snapshots import Snapshots
from textgym.wrappers.text_observation import UnicodeText, longest_text


class CompletionSpace(UnicodeText):
    """Texts, and sequences of token ids, that an agent may write in one turn.

    Args:
        max_length: the most characters of a text.
        vocab_size: V; ids are below it.
        seed: as in `Text`.
    """

    def __init__(
        self, max_length: int, vocab_size: int, *, seed: int | np.random.Generator | None = None
    ) -> None:
        super().__init__(max_length, seed=seed)
        self.vocab_size = vocab_size

    def contains(self, x: Any) -> bool:
        """Whether `x` is a text that fits, or a sequence of token ids."""
        if isinstance(x, str):
            return super().contains(x)
        try:
            ids = np.asarray(x if isinstance(x, np.ndarray) else list(x))
        except (TypeError, ValueError):
            return False
        if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
            return False
        return bool(((ids >= 0) & (ids < self.vocab_size)).all()) if ids.size else True


class CompletionActions(Snapshots, gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """One step is one turn: the action is the text, or the token ids, of the whole turn.

    A text is cut into tokens as the environment's tokenizer does, its tokens are played one by one,
    then end-of-sequence; the step's reward is the sum of theirs. In a dialogue the next observation
    has the task's reply; otherwise the episode is over after one step.

    - An agent that has token ids should give those (a list, tuple or array of ints): a text can be
      cut into tokens in more ways than one. End-of-sequence is played behind them, there or not.
    - What stands behind an end-of-sequence is not played, nor what exceeds the budget, which ends
      the episode (`finish_reason` ``"length"``).
    - Discounting is between turns: within one there is none.

    Args:
        env: a single token environment, wrapped or not, whose actions are tokens.

    Raises:
        TypeError: a vector environment, in which rows would have to wait for one another's turns;
            or no token environment.
        ValueError: its actions are masked, which a text cannot heed.

    Example:
        >>> import gymnasium as gym, textgym
        >>> from textgym.wrappers.text_observation import TextObservation
        >>> env = CompletionActions(TextObservation(gym.make("textgym/Story-v0")))
        >>> text, info = env.reset(seed=0)
        >>> *_, terminated, _, info = env.step(" The end.")
        >>> terminated, info["completion"]
        (True, ' The end.')
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        if isinstance(env, VectorEnv):
            raise TypeError(
                "`CompletionActions` is for single environments (turns differ in length). Make a "
                "vector of them with `gym.vector.SyncVectorEnv([make_one] * n)`."
            )
        RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)
        base = env.unwrapped
        if not isinstance(base, TokenEnv):
            raise TypeError(f"`env` must be a token environment, got {base!r}.")
        if env.has_wrapper_attr("action_masks"):
            raise ValueError(
                "`env` masks actions, which whole texts cannot heed. Make it without "
                "`min_new_tokens`, `banned_tokens` and `MaskedActions`."
            )
        if not isinstance(env.action_space, gym.spaces.Discrete) or (
            int(env.action_space.n) != base.tokenizer.vocab_size
        ):
            raise TypeError(f"the actions of `env` must be tokens, got {env.action_space}.")
        self._tokenizer = base.tokenizer
        self.action_space = CompletionSpace(
            longest_text(self._tokenizer, base.max_new_tokens), self._tokenizer.vocab_size
        )

    def step(self, action: str | Iterable[int]) -> tuple[Any, float, bool, bool, Infos]:
        """Play a whole turn.

        Args:
            action: its text or its token ids, with or without end-of-sequence.

        Raises:
            TypeError, ValueError: neither of the two; nothing has changed then.
            RewardError: where an added reward failed; the turn is played, see its `result`.
        """
        failure: RewardError | None = None
        total = 0.0
        for token in self._turn(action):
            try:
                result = self.env.step(token)
            except RewardError as error:
                if error.result is None:
                    raise
                # The token is played: so are those after it, and the error is raised at the end.
                failure, result = failure or error, error.result
            observation, reward, terminated, truncated, info = result
            total += float(reward)
            if terminated or truncated:
                break
        turn = (observation, total, terminated, truncated, info)
        if failure is not None:
            failure.result = turn
            raise failure
        return turn

    def _turn(self, action: Any) -> list[int]:
        """The tokens of `action`, end-of-sequence last."""
        eos = self._tokenizer.eos_token_id
        if isinstance(action, str):
            ids = self._tokenizer.encode(action, special_tokens=False)
        elif action in self.action_space:
            ids = [int(token) for token in action]
        else:
            raise _refused(action, self._tokenizer.vocab_size)
        return [*ids[: ids.index(eos)], eos] if eos in ids else [*ids, eos]


def _refused(action: Any, vocab_size: int) -> Exception:
    shown = repr(action)[:80]
    if np.ndim(action) == 1:
        return ValueError(
            f"`action` must hold token ids, ints from 0 to {vocab_size - 1}, got {shown}. Nothing "
            "has changed."
        )
    return TypeError(f"`action` must be a str or a sequence of token ids, got {shown}.")
