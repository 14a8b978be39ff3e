"""`Conversations`: who has said what in each row, and the records made of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.envs.contexts import Contexts
from textgym.episode import Episode, FinishReason, Instance, Turn
from textgym.tasks.base import Task
from textgym.tokenization import Tokenizer


class Conversations:
    """The turns of B rows.

    A turn is text from when it ends; until then it is only tokens, in `contexts`.

    Args:
        task: replies to turns.
        tokenizer: decodes turns and encodes replies.
        contexts: the tokens of every row.
        max_turns: the most turns the agent has.
        reply_bound: the most tokens that the replies of an episode have together.
    """

    def __init__(
        self,
        task: Task,
        tokenizer: Tokenizer,
        contexts: Contexts,
        *,
        max_turns: int,
        reply_bound: int,
    ) -> None:
        n = len(contexts.lengths)
        self._task = task
        self._tokenizer = tokenizer
        self._contexts = contexts
        self._max_turns = max_turns
        self._reply_bound = reply_bound
        self._asks_for_replies = type(task).reply is not Task.reply
        self._instances: list[Instance] = [Instance("")] * n
        self._turns: list[tuple[Turn, ...]] = [()] * n
        # What each row's replies have paid so far, and whether it had any.
        self.reply_rewards = np.zeros(n, np.float64)
        self.replied = np.zeros(n, np.bool_)

    def begin(self, rows: Sequence[int], instances: Sequence[Instance]) -> None:
        """Let `rows` start anew."""
        for row, instance in zip(rows, instances, strict=True):
            self._instances[row] = instance
            self._turns[row] = ()
        self.reply_rewards[rows] = 0.0
        self.replied[rows] = False

    def end_turns(
        self, rows: list[int], stopped: list[bool], rewards: NDArray[np.float64]
    ) -> tuple[list[int], list[Episode]]:
        """Close the turns of `rows`, let the task reply, and pay what its replies are worth.

        Args:
            rows: whose turns end.
            stopped: True where the agent ended its turn, False where its budget did.
            rewards: `[B] float64`, added to in place.

        Returns:
            The rows whose episodes end with this turn, and their records.
        """
        turns = [self._contexts.turn_ids(row) for row in rows]
        turns = [ids[:-1] if stop else ids for ids, stop in zip(turns, stopped, strict=True)]
        texts = self._tokenizer.decode_completions(turns)
        done: list[int] = []
        records: list[Episode] = []
        for row, stop, text in zip(rows, stopped, texts, strict=True):
            self._turns[row] = (*self._turns[row], Turn("agent", text))
            reason: FinishReason | None = "length"
            if stop:
                reason = self._answer(row, rewards) if self._asks_for_replies else "stop"
            if reason is not None:
                done.append(row)
                records.append(self._record(row, self._turns[row], reason))
        return done, records

    def _answer(self, row: int, rewards: NDArray[np.float64]) -> FinishReason | None:
        """Let the task reply to the turn of `row` just ended; None if the episode goes on."""
        contexts, turns = self._contexts, self._turns[row]
        reply = self._task.reply(self._instances[row], turns)
        if reply is None:
            return "stop"
        ids = self._tokenizer.encode(reply.text, special_tokens=False)
        remaining = int(contexts.observation["remaining"][row, 0])
        own = contexts.budget - remaining
        replies = int(contexts.lengths[row] - contexts.prompt_lengths[row]) - own + len(ids)
        if replies > self._reply_bound:
            raise ValueError(
                f"{type(self._task).__name__}: the replies of this episode have {replies} tokens, "
                f"but its `reply_bound` says at most {self._reply_bound}. Declare a greater bound."
            )
        contexts.extend(row, ids)
        self._turns[row] = (*turns, Turn("task", reply.text))
        self.replied[row] = True
        self.reply_rewards[row] += reply.reward
        rewards[row] += reply.reward
        if reply.terminated:
            return "task"
        if sum(turn.role == "agent" for turn in turns) >= self._max_turns:
            return "stop"
        return "length" if remaining == 0 else None

    def unfinished(self, rows: Sequence[int]) -> list[Episode]:
        """The records of `rows` so far, the turn now being written included."""
        current = self._current_turns(rows)
        return [
            self._record(row, (*self._turns[row], *turn), None)
            for row, turn in zip(rows, current, strict=True)
        ]

    def visible(self, row: int) -> tuple[str, tuple[Turn, ...]]:
        """The prompt of `row` and its turns, the one now being written included."""
        (current,) = self._current_turns([row])
        turns = self._turns[row]
        spoken = turns and turns[-1].role == "agent"  # the turn ended the episode: it is there
        return self._instances[row].prompt, turns if spoken else (*turns, *current)

    def _current_turns(self, rows: Sequence[int]) -> list[tuple[Turn, ...]]:
        tokens = [self._contexts.turn_ids(row) for row in rows]
        texts = self._tokenizer.decode_completions(tokens)
        return [
            (Turn("agent", text),) if ids else () for ids, text in zip(tokens, texts, strict=True)
        ]

    def _record(
        self, row: int, turns: tuple[Turn, ...], finish_reason: FinishReason | None
    ) -> Episode:
        return Episode(
            instance=self._instances[row],
            input_ids=self._contexts.input_ids(row),
            completion_mask=self._contexts.completion_mask(row),
            completion_text="\n".join(turn.text for turn in turns if turn.role == "agent"),
            turns=turns,
            finish_reason=finish_reason,
        )

    def get_state(self) -> dict[str, Any]:
        """Everything, as plain data."""
        return {
            "instances": list(self._instances),
            "turns": list(self._turns),
            "reply_rewards": self.reply_rewards.copy(),
            "replied": self.replied.copy(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to what `get_state` gave."""
        self._instances, self._turns = list(state["instances"]), list(state["turns"])
        np.copyto(self.reply_rewards, state["reply_rewards"])
        np.copyto(self.replied, state["replied"])
