"""Reward functions for TRL's trainers that pay what the environment would pay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym import Episode, Instance, Turn
from textgym.rewards.terms import RewardTerm, evaluate
from textgym_agents.trl.source import AnyEnv, Source

# Instances kept: those of the rows that come up again, in every epoch.
_KEPT_INSTANCES = 65536


class Records:
    """Makes the environment's records of the completions that a trainer wrote.

    Args:
        source: the environment.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._instances: dict[tuple[int, str, int], Instance] = {}
        # Every reward function is called with the same batch: its episodes are made once.
        self._last: tuple[Any, list[Episode]] | None = None

    def __call__(
        self,
        completion_ids: Sequence[Sequence[int]],
        seed: Sequence[int],
        split: Sequence[str],
        index: Sequence[int],
    ) -> list[Episode]:
        """The episodes in which an agent writes `completion_ids`, token by token.

        Args:
            completion_ids: B lists of ids, each up to and with the first end-of-sequence.
            seed, split, index: B values each, the columns of `prompts_dataset`.

        Raises:
            ValueError: a completion that ends where no episode does.
        """
        key = ([list(ids) for ids in completion_ids], list(seed), list(split), list(index))
        if self._last is None or self._last[0] != key:
            self._last = (key, self._made(*key))
        return self._last[1]

    def _made(
        self, batch: list[list[int]], seed: list[int], split: list[str], index: list[int]
    ) -> list[Episode]:
        eos = self._source.tokenizer.eos_token_id
        for ids in batch:
            self._check_end(ids, eos)
        texts = self._source.tokenizer.decode_completions(
            [ids[:-1] if ids[-1] == eos else ids for ids in batch]
        )
        episodes = []
        for ids, text, which in zip(
            batch, texts, zip(seed, split, index, strict=True), strict=True
        ):
            instance = self._instance(*which)
            prompt_ids = self._source.tokenizer.encode(instance.prompt)
            episodes.append(
                Episode(
                    instance=instance,
                    input_ids=np.array([*prompt_ids, *ids], np.int64),
                    completion_mask=np.arange(len(prompt_ids) + len(ids)) >= len(prompt_ids),
                    completion_text=text,
                    turns=(Turn("agent", text),),
                    finish_reason="stop" if ids[-1] == eos else "length",
                )
            )
        return episodes

    def _check_end(self, ids: list[int], eos: int) -> None:
        budget = self._source.max_new_tokens
        stopped = eos in ids
        if len(ids) > budget or (not stopped and len(ids) < budget):
            raise ValueError(
                f"a completion has {len(ids)} tokens "
                f"{'and' if stopped else 'without'} end-of-sequence (id {eos}), where the "
                f"environment's budget is {budget}. Use `max_completion_length={budget}`, and "
                f"`model.generation_config.eos_token_id = {eos}`."
            )
        if stopped and ids.index(eos) != len(ids) - 1:
            raise ValueError(
                f"a completion goes on after end-of-sequence (id {eos}). Use the environment's "
                "tokenizer: `processing_class=as_trl_tokenizer(env)`."
            )

    def _instance(self, seed: int, split: str, index: int) -> Instance:
        key = (seed, split, index)
        if key not in self._instances:
            if len(self._instances) >= _KEPT_INSTANCES:
                self._instances.clear()
            self._instances[key] = self._source.draw(*key)
        return self._instances[key]

    def __getstate__(self) -> dict[str, Any]:
        return {"_source": self._source, "_instances": {}, "_last": None}


class EpisodeReward:
    """One component of what an environment pays, as TRL's trainers call it.

    Judges the very tokens that were sampled, never text encoded anew. Can be pickled where the
    task and the reward can.

    Args:
        term: the reward, with its name and weight.
        records: makes the episodes.
    """

    def __init__(self, term: RewardTerm, records: Records) -> None:
        self.term = term
        self._records = records
        self.__name__ = term.name  # what TRL logs it under: `rewards/<name>/mean`

    def __call__(
        self,
        prompts: Sequence[str],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        *,
        seed: Sequence[int],
        split: Sequence[str],
        index: Sequence[int],
        **others: Any,
    ) -> list[float]:
        """The rewards of B completions: `info["rewards"][name]` of the episodes they are.

        Args:
            prompts: B texts, which must be those that the other columns name.
            completions: unused, TRL's own decoding.
            completion_ids: B lists of ids.
            seed, split, index: the columns of `prompts_dataset`.
            others: the trainer's state, its logging functions and columns of the user's own; TRL
                gives them to every reward function.

        Raises:
            ValueError: a prompt that this environment does not ask, or a completion that ends
                where no episode does.
            RewardError: the reward failed.
        """
        episodes = self.episodes(prompts, completion_ids, seed=seed, split=split, index=index)
        values, error = evaluate(self.term.reward, self.term.name, episodes)
        if error is not None:
            raise error
        paid: list[float] = (self.term.weight * values).tolist()
        return paid

    def token_rewards(
        self,
        prompts: Sequence[str],
        completion_ids: Sequence[Sequence[int]],
        *,
        seed: Sequence[int],
        split: Sequence[str],
        index: Sequence[int],
    ) -> list[NDArray[np.float64]]:
        """`[N] float64` a completion: what each of its tokens earns.

        A reward that is not per token is paid to the last. The arguments are those of a call.
        """
        episodes = self.episodes(prompts, completion_ids, seed=seed, split=split, index=index)
        if self.term.reward.per_token:
            arrays = self.term.reward.per_token_rewards(episodes)
            return [self.term.weight * np.asarray(array, np.float64) for array in arrays]
        values, error = evaluate(self.term.reward, self.term.name, episodes)
        if error is not None:
            raise error
        rows = [np.zeros(len(ids)) for ids in completion_ids]
        for row, value in zip(rows, values, strict=True):
            row[-1] = self.term.weight * value
        return rows

    def episodes(
        self,
        prompts: Sequence[str],
        completion_ids: Sequence[Sequence[int]],
        *,
        seed: Sequence[int],
        split: Sequence[str],
        index: Sequence[int],
    ) -> list[Episode]:
        """The environment's records of these completions. The arguments are those of a call."""
        episodes = self._records(completion_ids, seed, split, index)
        for prompt, episode in zip(prompts, episodes, strict=True):
            if prompt != episode.prompt:
                raise ValueError(
                    f"the data set asks {str(prompt)[:60]!r} where this environment asks "
                    f"{episode.prompt[:60]!r}. Make `prompts_dataset` and `reward_functions` of "
                    "the same environment, with the same `env_kwargs`."
                )
        return episodes


def reward_functions(
    env: AnyEnv, *, env_kwargs: Mapping[str, Any] | None = None
) -> list[EpisodeReward]:
    """What an environment pays, as reward functions of TRL's trainers: their sum is its return.

    Args:
        env: a registered id, or a single-turn token environment, rewards wrapped around it
            included.
        env_kwargs: keyword arguments of the environment, where `env` is an id.

    Returns:
        One function for each key of `info["rewards"]`, under its name and with its weight in it:
        ``"score"`` first, then the added rewards.

    Raises:
        ValueError: an environment that TRL cannot stand in for, see `Source`.

    Example:
        >>> functions = reward_functions(
        ...     "textgym/Story-v0", env_kwargs={"rewards": ["length:max=40"]})
        >>> [function.__name__ for function in functions]
        ['score', 'length']
    """
    source = Source(env, env_kwargs)
    records = Records(source)
    return [EpisodeReward(term, records) for term in source.terms]
