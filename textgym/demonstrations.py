"""Whole conversations without an environment: what an oracle, or anyone else, would say.

Imitation learning, exports and tests need them; an environment steps through the same turns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from textgym.episode import Episode, FinishReason, Instance, Turn
from textgym.tasks.base import Task
from textgym.tokenization import Tokenizer

Speaker = Callable[[Instance, Sequence[Turn]], str]


def converse(
    task: Task,
    instance: Instance,
    speak: Speaker,
    tokenizer: Tokenizer,
    *,
    max_turns: int | None = None,
) -> Episode:
    """The episode in which `speak` says every turn of the agent's, and ends each one itself.

    Args:
        task: replies, and ends the episode.
        instance: what is asked.
        speak: the agent's next turn, from the instance and the turns so far.
        tokenizer: encodes all that is said, as an environment's prompts and replies are.
        max_turns: the most turns the agent has; None is the task's.

    Returns:
        The record an environment makes of the same turns, however many tokens they take.

    Example:
        >>> from textgym.tasks.story import StoryTask
        >>> task = StoryTask()
        >>> instance = task.sample(np.random.default_rng(0))
        >>> oracle = demonstrate(task, instance, Tokenizer.load())
        >>> task.score(oracle)
        1.0
    """
    most = task.max_turns if max_turns is None else max_turns
    answers = type(task).reply is not Task.reply
    turns: tuple[Turn, ...] = ()
    ids = tokenizer.encode(instance.prompt)
    mask = [False] * len(ids)
    reason: FinishReason | None = None
    spoken = 0
    while reason is None:
        text = speak(instance, turns)
        said = [*tokenizer.encode(text, special_tokens=False), tokenizer.eos_token_id]
        ids, mask = [*ids, *said], [*mask, *[True] * len(said)]
        turns, spoken = (*turns, Turn("agent", text)), spoken + 1
        reply = task.reply(instance, turns) if answers else None
        if reply is not None:
            heard = tokenizer.encode(reply.text, special_tokens=False)
            ids, mask = [*ids, *heard], [*mask, *[False] * len(heard)]
            turns = (*turns, Turn("task", reply.text))
        if reply is None or spoken >= most:
            reason = "stop"
        if reply is not None and reply.terminated:
            reason = "task"
    return Episode(
        instance=instance,
        input_ids=np.array(ids, np.int64),
        completion_mask=np.array(mask, np.bool_),
        completion_text="\n".join(turn.text for turn in turns if turn.role == "agent"),
        turns=turns,
        finish_reason=reason,
    )


def demonstrate(task: Task, instance: Instance, tokenizer: Tokenizer) -> Episode:
    """The oracle's episode: its score is 1.0.

    Raises:
        NotImplementedError: the task has no oracle.
    """
    return converse(task, instance, task.solve_turn, tokenizer)
