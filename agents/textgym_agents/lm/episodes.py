"""`play`: a language model writes one episode in every row of a vector environment, and no more.

Critic-free learners and decoding need whole episodes, and groups of them on the same instance. Rows
whose episode is over are parked: the model reads and writes only for those that are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from torch import Tensor

from textgym import Instance
from textgym.wrappers import ended
from textgym_agents.lm.language_model import LanguageModel
from textgym_agents.lm.sampling import SamplingRule, sample
from textgym_agents.lm.seq2seq_slots import ONE_PROMPT

Observation = dict[str, NDArray[Any]]
# Tokens `[n]`, their log-probs `[n]` and what they were chosen among (`[n, V] bool` or None), from
# hidden states `[n, d]` at the last token of each context, and its observations.
Choose = Callable[[Tensor, Mapping[str, Tensor]], tuple[Tensor, Tensor, Tensor | None]]


@dataclass(frozen=True)
class Step:
    """One step of the rows that were still writing.

    Args:
        rows: `[n] int64`, which they are.
        observation: theirs before the step, `[n, ...]` by key.
        tokens: `[n] int64`.
        log_probs: `[n] float32`, nats.
        support: `[n, V] bool`, what the tokens were chosen among; None for all.
        rewards: `[B] float64`, of all rows; 0 where parked.
        over: `[B] bool`, the rows that ended in this step.
        truncated: `[B] bool`, those of them that an outside limit cut: they have no info.
        infos: what the environment says of each row that was closed, by row.
    """

    rows: NDArray[np.int64]
    observation: Observation
    tokens: NDArray[np.int64]
    log_probs: NDArray[np.float32]
    support: Tensor | None
    rewards: NDArray[np.float64]
    over: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    infos: dict[int, dict[str, Any]]


def play(
    envs: VectorEnv, instances: Sequence[Instance], lm: LanguageModel, choose: Choose
) -> Iterator[Step]:
    """One episode a row on `instances`, step by step.

    A vector environment steps all its rows. One that is parked goes on with an episode nobody asked
    for, and is given a token that does not end it; since every row has the same budget, it cannot
    end before the last of the others, and so is never scored.

    Args:
        envs: in `SAME_STEP` or `NEXT_STEP` mode; reset first.
        instances: one a row. The model reads a prompt that several rows share once.
        lm: the model; its weights must not change meanwhile.
        choose: chooses the tokens, see `chooser`.

    Raises:
        ValueError: `envs` does not reset rows by itself, there are not as many instances, or a task
            replies and `lm` is an encoder-decoder model.
    """
    mode = envs.metadata.get("autoreset_mode")
    if mode not in (AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP):
        raise ValueError(
            f"`envs` must reset ended rows by itself, got autoreset mode {mode}. Make it with "
            '`autoreset_mode="SAME_STEP"`, as `make_vec_env` does.'
        )
    if len(instances) != envs.num_envs:
        raise ValueError(
            f"`instances` must be one for each of the {envs.num_envs} rows, got {len(instances)}."
        )
    observation, _ = envs.reset(options={"instance": list(instances)})
    reader = _Reader(lm, envs.num_envs)
    actions = np.full(envs.num_envs, _harmless_token(envs), np.int64)
    live = np.arange(envs.num_envs)
    while live.size:
        seen = {key: value[live] for key, value in observation.items()}
        with torch.no_grad():
            tensors = {key: torch.from_numpy(value).to(lm.device) for key, value in seen.items()}
            tokens, log_probs, support = choose(reader.last_hidden(seen, live), tensors)
        chosen = tokens.cpu().numpy()
        actions[live] = chosen
        observation, paid, terminated, truncated, infos = envs.step(actions)
        actions[live] = _harmless_token(envs)
        over, rewards = np.zeros(envs.num_envs, np.bool_), np.zeros(envs.num_envs)
        over[live] = (terminated | truncated)[live]
        rewards[live] = paid[live]
        where, closed = ended(infos, mode)
        yield Step(
            rows=live,
            observation=seen,
            tokens=chosen,
            log_probs=log_probs.float().cpu().numpy(),
            support=support,
            rewards=rewards,
            over=over,
            truncated=over & truncated & ~terminated,
            infos={row: row_info(where, row) for row in closed if over[row]},
        )
        live = live[~over[live]]


def chooser(lm: LanguageModel, rule: SamplingRule, *, greedy: bool = False) -> Choose:
    """Tokens by `rule`, from torch's global generator, or the most probable ones."""

    def choose(
        hidden: Tensor, observation: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        logits = lm.head.logits(hidden)
        mask = observation.get("action_mask")
        support = rule.support(logits, None if mask is None else mask.bool())
        if support is not None:
            logits = logits.masked_fill(~support, -torch.inf)
        log_probs = (logits / rule.temperature).log_softmax(dim=-1)
        tokens = log_probs.argmax(dim=-1) if greedy else sample(log_probs)
        return tokens, log_probs.gather(1, tokens[:, None])[:, 0], support

    return choose


def row_info(infos: Mapping[str, Any], row: int) -> dict[str, Any]:
    """What vector infos say of one row."""
    found: dict[str, Any] = {}
    for key, value in infos.items():
        present = infos.get(f"_{key}")
        if present is None or not present[row]:
            continue
        item = row_info(value, row) if isinstance(value, dict) else value[row]
        found[key] = item.item() if isinstance(item, np.generic) else item
    return found


def _harmless_token(envs: VectorEnv) -> int:
    """A token that never ends an episode, and is allowed where masks apply."""
    eos = int(envs.unwrapped.tokenizer.eos_token_id)
    masks = getattr(envs.unwrapped, "action_masks", None)
    allowed = np.ones(int(envs.single_action_space.n), bool) if masks is None else masks()[0].copy()
    allowed[eos] = False
    return int(allowed.argmax())


class _Reader:
    """Hidden states at the last token of the rows still writing."""

    def __init__(self, lm: LanguageModel, num_envs: int) -> None:
        self._lm = lm
        self._kept = np.arange(num_envs)  # rows with a slot; the parked ones ride along
        self._prompts: NDArray[np.int64] | None = None  # where an encoder stops reading
        self._cache: BranchingCache | None = None
        self._ids = np.zeros((num_envs, 0), np.int64)
        self._lengths = np.zeros(num_envs, np.int64)

    def last_hidden(self, observation: Observation, live: NDArray[np.int64]) -> Tensor:
        """`[n, d]` of the contexts in `observation`, those of rows `live`."""
        ids = observation["input_ids"]
        lengths = observation["attention_mask"].sum(axis=1, dtype=np.int64)
        if self._cache is None:
            return self._first(ids, lengths)
        place = np.searchsorted(self._kept, live)
        if self._prompts is not None and (lengths != self._lengths[place] + 1).any():
            raise ValueError(ONE_PROMPT)
        if self._leave_parked(len(live)):
            self._cache.take(place)
            self._kept, self._ids, self._lengths = live, ids, lengths
            self._prompts = None if self._prompts is None else self._prompts[place]
            return self._cache.last_hidden(ids, lengths, self._prompts)
        self._ids[place], self._lengths[place] = ids, lengths
        hidden = self._cache.last_hidden(self._ids, self._lengths, self._prompts)
        return hidden if len(live) == len(self._kept) else hidden[torch.from_numpy(place)]

    def _leave_parked(self, live: int) -> bool:
        """Whether to copy the slots of the rows that still write, and no others."""
        if self._prompts is None:
            return live * 2 <= len(self._kept)
        return live < len(self._kept)  # those that ride along would be read anew at every step

    def _first(self, ids: NDArray[np.int64], lengths: NDArray[np.int64]) -> Tensor:
        """Read every prompt once, however many rows it is in."""
        rows = np.column_stack([lengths, ids])
        _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
        inverse = inverse.reshape(-1)
        self._cache = BranchingCache(self._lm, len(first), ids.shape[1])
        if self._lm.needs_prompt_lengths:
            self._prompts = lengths.copy()  # nothing is written yet
        prompts = None if self._prompts is None else self._prompts[first]
        hidden = self._cache.last_hidden(ids[first], lengths[first], prompts)
        self._cache.take(inverse)
        self._ids, self._lengths = ids, lengths
        return hidden[torch.from_numpy(inverse)]


class BranchingCache:
    """Incremental decoding of rows that can be copied, reordered and dropped.

    Args:
        lm: the model. One that cannot decode incrementally reads whole contexts.
        num_rows: B.
        context_size: C, the longest context.
    """

    def __init__(self, lm: LanguageModel, num_rows: int, context_size: int) -> None:
        self._lm = lm
        self._slots = lm.slots(num_rows, context_size) if lm.incremental else None

    @torch.no_grad()
    def last_hidden(
        self,
        input_ids: NDArray[np.int64],
        lengths: NDArray[np.int64],
        prompt_lengths: NDArray[np.int64] | None = None,
    ) -> Tensor:
        """`[B, d]` at the last token of the contexts `input_ids [B, C]`, a function of them alone.

        Args:
            input_ids: `[B, C] int64`, right-padded.
            lengths: `[B] int64`, at least 1.
            prompt_lengths: `[B] int64`, for encoder-decoder models.

        Raises:
            ValueError: an encoder-decoder model, and no `prompt_lengths`.
        """
        if prompt_lengths is None and self._lm.needs_prompt_lengths:
            raise ValueError(
                "searches take causal models, and this is an encoder-decoder one. Take a causal "
                "model, or sample (`generate`)."
            )
        ids = torch.from_numpy(input_ids).to(self._lm.device)
        reads = self._lm if self._slots is None else self._slots
        return reads.last_hidden(
            ids, lengths, *(() if prompt_lengths is None else (prompt_lengths,))
        )

    def take(self, rows: NDArray[np.int64]) -> None:
        """Let row i go on from what row ``rows[i]`` has read; there are as many rows as `rows`."""
        if self._slots is not None:
            self._slots = self._slots.taken(rows)
