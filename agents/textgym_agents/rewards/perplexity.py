"""`LogProb` and `Perplexity`: how probable a language model finds what was written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from textgym import Episode, Tokenizer
from textgym.rewards.base import Reward, ScoreFunction
from textgym_agents.rewards.models import (
    Judge,
    TextCache,
    batches_by_length,
    forward,
    padded,
    reading_limit,
    shared_model,
    sound,
)

# Logits that exist at one time: 256 MiB, but for a single text that needs more.
_LOGITS = 2**26
# Text that is looked at, per token that is read: no usual token is as long.
_CHARACTERS = 32

# What a score depends on: texts and whether each is the agent's, or ids and whose each is.
_Pieces = tuple[tuple[str, bool], ...]
_Exact = tuple[bytes, bytes]


class LogProb(Reward):
    """The mean log-prob of the completion's tokens under a language model, in nats: (-inf, 0].

    The judge reads prompt, completion and, in a dialogue, the replies as one text, cut into tokens
    by its own tokenizer; what counts are the tokens that hold some of the agent's text. Where it
    has the tokenizer of every environment that pays this reward, it reads the very ids that the
    agent chose, its end-of-sequence left out.

    A completion without text gets ``-log V``, what guessing among the judge's V tokens gives: it is
    no better than noise. Text that the judge finds probable maximises this, and the most
    probable text is bland and repeats itself: add `Repetition`, or a reward for what it should say.

    Args:
        model: a causal language model: a folder with its tokenizer, a hub id, a pair of a model and
            its (fast, `transformers`) tokenizer, or ``"bundled"``, which knows the texts of this
            suite's tasks and no others.
        with_prompt: judge the completion as going on from the prompt; False judges it alone, after
            the judge's start token.
        max_tokens: the most tokens that are read. Of a longer text the prompt loses what follows
            its first token, until it has half of them; then the completion loses its end, which
            goes unjudged.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        name: its name in `info["rewards"]`.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: it cannot be loaded, or its tokenizer does not tell where its tokens stand.

    Example:
        >>> judge = LogProb("bundled")
        >>> prompt = "Long ago Jack the owl was sad near the market and wished for a golden cup."
        >>> judge.value(" Jack walked to the hill.", prompt) > -2
        True
        >>> judge.value(" hill Jack to the walked.", prompt) < -5
        True
    """

    range = (-float("inf"), 0.0)

    def __init__(
        self,
        model: Judge,
        *,
        with_prompt: bool = True,
        max_tokens: int = 2048,
        device: str = "auto",
        name: str = "log_prob",
    ) -> None:
        self.name = name
        self.with_prompt = with_prompt
        self._source, self._device = model, device
        loaded, tokenizer = self._judge()
        if not getattr(tokenizer, "is_fast", False):
            raise ValueError(
                f"model: {type(tokenizer).__name__} does not tell which characters a token holds. "
                "Expected a fast tokenizer (tokenizer.json)."
            )
        self._limit = reading_limit(loaded, tokenizer, max_tokens)
        self._empty = -float(np.log(loaded.get_output_embeddings().weight.shape[0]))
        self._cache = TextCache()
        self._bound: set[Tokenizer] = set()

    def _judge(self) -> tuple[Any, Any]:
        # Looked up at each use, not kept: copies of this reward then share the model.
        from transformers import AutoModelForCausalLM

        return shared_model(AutoModelForCausalLM, self._source, self._device)

    def bind(self, tokenizer: Tokenizer, score: ScoreFunction) -> None:
        """Remember the tokenizer, which may be the judge's own."""
        super().bind(tokenizer, score)
        self._bound.add(tokenizer)

    def value(self, text: str, prompt: str = "") -> float:
        """The reward of the completion `text` of `prompt`."""
        return float(self._values([self._cut([(prompt, False), (text, True)])])[0])

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        """`[B] float32`."""
        exact = self._reads_ids()
        keys = [self._ids(e) if exact else self._pieces(e) for e in episodes]
        return self._values(keys).astype(np.float32)

    def _values(self, keys: Sequence[_Pieces | _Exact]) -> NDArray[np.float64]:
        return self._cache.lookup(keys, self._log_probs)

    # ------------------------------------------------------------------ what is read
    def _reads_ids(self) -> bool:
        if len(self._bound) != 1:
            return False
        try:
            return Tokenizer.load(self._judge()[1]) in self._bound
        except (TypeError, ValueError):  # it has no end-of-sequence token, say
            return False

    def _ids(self, episode: Episode) -> _Exact:
        ids, own = episode.input_ids, episode.completion_mask
        if not self.with_prompt:
            ids, own = ids[own], own[own]
        (tokenizer,) = self._bound
        own = own & (ids != tokenizer.eos_token_id)
        return ids.astype(np.int64).tobytes(), own.tobytes()

    def _pieces(self, episode: Episode) -> _Pieces:
        said = [(turn.text, turn.role == "agent") for turn in episode.turns]
        if not self.with_prompt or not said:
            said = [(episode.completion_text, True)]
        return self._cut([(episode.prompt, False), *said])

    def _cut(self, pieces: list[tuple[str, bool]]) -> _Pieces:
        """No more of the texts than can matter."""
        room = self._limit * _CHARACTERS
        (prompt, _), *said = pieces if self.with_prompt else [("", False), *pieces[1:]]
        cut = [(sound(prompt[-room:]), False)]
        for text, own in said:
            cut.append((sound(text[:room]), own))
            room -= len(cut[-1][0])
        return tuple(cut)

    def _encoded(self, key: _Pieces | _Exact) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """`[T] int64` ids and `[T] bool`, which of them are judged."""
        _, tokenizer = self._judge()
        if isinstance(key[0], bytes):
            ids, own = np.frombuffer(key[0], np.int64), np.frombuffer(key[1], np.bool_)
        else:
            ids, own = _tokens(tokenizer, key)
        if len(ids) and own[0]:
            start = tokenizer.bos_token_id
            start = tokenizer.eos_token_id if start is None else start
            if start is None:
                own = np.append(False, own[1:])  # nothing comes before it that could predict it
            else:
                ids, own = np.append(start, ids), np.append(False, own)
        return _window(ids, own, self._limit)

    # ------------------------------------------------------------------ what it is worth
    @torch.no_grad()
    def _log_probs(self, keys: list[_Pieces | _Exact]) -> NDArray[np.float64]:
        model, _ = self._judge()
        device = model.get_output_embeddings().weight.device
        size = model.get_output_embeddings().weight.shape[0]
        encoded = [self._encoded(key) for key in keys]
        values = np.full(len(keys), self._empty)
        judged = [i for i, (_, own) in enumerate(encoded) if own.any()]
        lengths = [len(encoded[i][0]) for i in judged]
        for batch in batches_by_length(lengths, max(1, _LOGITS // size)):
            rows = [judged[i] for i in batch]
            ids, mask = padded([encoded[i][0] for i in rows], device)
            logits = forward(model, ids, mask, use_cache=False).logits
            for row, row_logits, row_ids in zip(rows, logits, ids, strict=True):
                at = torch.from_numpy(np.flatnonzero(encoded[row][1])).to(device)
                seen = row_logits[at - 1].float()
                log_probs = seen.gather(1, row_ids[at, None])[:, 0] - seen.logsumexp(dim=-1)
                values[row] = min(0.0, float(log_probs.double().mean()))
        return values


class Perplexity(LogProb):
    """One over the perplexity of the completion: `LogProb`, exponentiated, in [0, 1].

    The geometric mean of the probabilities that the judge gives the completion's tokens. Unlike the
    log-prob it is bounded, and nearly flat where text is improbable: choose it to ask for fluency
    among other things, `LogProb` where the agent has to find fluent text first. A completion
    without text gets 1 / V. What maximises it is bland and repeats itself, see `LogProb`.

    Args:
        model, with_prompt, max_tokens, device, name: as for `LogProb`.

    Example:
        >>> judge = Perplexity("bundled")
        >>> round(judge.value("") * 1536, 6)
        1.0
    """

    range = (0.0, 1.0)

    def __init__(
        self,
        model: Judge,
        *,
        with_prompt: bool = True,
        max_tokens: int = 2048,
        device: str = "auto",
        name: str = "perplexity",
    ) -> None:
        super().__init__(
            model, with_prompt=with_prompt, max_tokens=max_tokens, device=device, name=name
        )

    def _values(self, keys: Sequence[_Pieces | _Exact]) -> NDArray[np.float64]:
        return np.exp(super()._values(keys))


def _tokens(tokenizer: Any, pieces: _Pieces) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The tokens of all `pieces` as one text, and which hold some of the agent's."""
    text = "".join(piece for piece, _ in pieces)
    own = np.zeros(len(text) + 1, np.bool_)
    end = 0
    for piece, is_own in pieces:
        own[end : end + len(piece)] = is_own
        end += len(piece)
    encoded = tokenizer(
        text,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        # What an agent writes is text, though it spell the end-of-sequence token.
        split_special_tokens=True,
        verbose=False,
    )
    judged = [
        not special and bool(own[start : max(end, start + 1)].any())
        for (start, end), special in zip(
            encoded["offset_mapping"], encoded["special_tokens_mask"], strict=True
        )
    ]
    return np.array(encoded["input_ids"], np.int64), np.array(judged, np.bool_)


def _window(
    ids: NDArray[np.int64], own: NDArray[np.bool_], limit: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """At most `limit` of the tokens: the first, and those around where the agent begins."""
    if len(ids) <= limit or not own.any():
        return ids[:limit], own[:limit]
    begin = max(0, min(len(ids) - limit, int(own.argmax()) - limit // 2))
    keep = np.append(0, np.arange(begin + 1, begin + limit))
    return ids[keep], own[keep]
