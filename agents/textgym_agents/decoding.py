"""Decoding without learning: sampling, greedy, best-of-n and beam search.

What a trained policy is to be compared with. `generate` and `best_of_n` play the rows of a vector
environment together; `beam_search`, and `tree_search` in its own module, branch a single one by its
snapshots, so that both work in dialogues, under masks and with any reward.

    >>> import gymnasium as gym, textgym
    >>> from textgym_agents.sb3 import LMPolicy, make_vec_env
    >>> envs = make_vec_env("textgym/Story-v0", n_envs=8)
    >>> lm = LMPolicy(envs.observation_space, envs.action_space, lambda _: 1e-4).lm
    >>> task = envs.envs.unwrapped.task
    >>> instance = task.draw(np.random.default_rng(0), "train")
    >>> best = best_of_n(lm, envs.envs, [instance], 8, seed=0)[0]
    >>> env = gym.make("textgym/Story-v0", max_new_tokens=4)
    >>> found = beam_search(lm, env, width=2, options={"instance": instance})
    >>> found.episode.instance == instance
    True
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from textgym import Episode, Instance
from textgym.wrappers import get_state, set_state
from textgym_agents.lm import CausalLM, SamplingRule
from textgym_agents.lm.episodes import BranchingCache, chooser, play

Judge = Callable[[list[Episode]], Sequence[float]]
_ANYTHING = SamplingRule()


@dataclass(frozen=True)
class Decoded:
    """A text.

    Args:
        episode: its record; None where an outside limit cut it.
        tokens: `[n] int64`, the agent's own.
        log_prob: of them all, nats, under the distribution they were chosen from.
        total_reward: the return, undiscounted.
    """

    episode: Episode | None
    tokens: NDArray[np.int64]
    log_prob: float
    total_reward: float


# ---------------------------------------------------------------------- many rows together
def generate(
    lm: CausalLM,
    envs: VectorEnv,
    instances: Sequence[Instance],
    *,
    rule: SamplingRule = _ANYTHING,
    greedy: bool = False,
    seed: int | None = None,
) -> list[Decoded]:
    """One text to each instance.

    Args:
        lm: the model.
        envs: any number of rows, in `SAME_STEP` or `NEXT_STEP` mode.
        instances: what is asked; several that are the same are read once.
        rule: how tokens are sampled.
        greedy: the most probable token always, instead of sampling.
        seed: of the sampling, in a fork of torch's global generator; None draws on that.
    """
    found: list[Decoded] = []
    devices = [lm.device] if lm.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices, enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        for i in range(0, len(instances), envs.num_envs):
            part = list(instances[i : i + envs.num_envs])
            spare = envs.num_envs - len(part)
            played = _played(lm, envs, part + part[-1:] * spare, rule, greedy)
            found += played[: len(part)]
    return found


def _played(
    lm: CausalLM, envs: VectorEnv, instances: list[Instance], rule: SamplingRule, greedy: bool
) -> list[Decoded]:
    tokens: list[list[int]] = [[] for _ in instances]
    log_probs, totals = np.zeros(len(instances)), np.zeros(len(instances))
    records: list[Episode | None] = [None] * len(instances)
    for step in play(envs, instances, lm, chooser(lm, rule, greedy=greedy)):
        for row, token in zip(step.rows.tolist(), step.tokens.tolist(), strict=True):
            tokens[row].append(token)
        log_probs[step.rows] += step.log_probs
        totals += step.rewards
        for row, info in step.infos.items():
            records[row] = info["episode_record"]
    return [
        Decoded(record, np.array(own, np.int64), float(log_prob), float(total))
        for record, own, log_prob, total in zip(records, tokens, log_probs, totals, strict=True)
    ]


def best_of_n(
    lm: CausalLM,
    envs: VectorEnv,
    instances: Sequence[Instance],
    n: int,
    *,
    judge: Judge | None = None,
    rule: SamplingRule = _ANYTHING,
    seed: int | None = None,
) -> list[Decoded]:
    """The best of `n` texts to each instance, the first of equals.

    Args:
        n: texts to each instance.
        judge: what is best, a function of episodes such as a `Reward`; None is the return.
        lm, envs, instances, rule, seed: as for `generate`.
    """
    if n < 1:
        raise ValueError(f"`n` must be a positive int, got {n}.")
    several = [instance for instance in instances for _ in range(n)]
    texts = generate(lm, envs, several, rule=rule, seed=seed)
    if judge is None:
        worth = np.array([text.total_reward for text in texts])
    else:
        # What an outside limit cut is no text to judge.
        whole = [text.episode for text in texts if text.episode is not None]
        worth = np.full(len(texts), -np.inf)
        worth[[text.episode is not None for text in texts]] = np.asarray(judge(whole), float)
    best = worth.reshape(-1, n).argmax(axis=1)
    return [texts[i * n + place] for i, place in enumerate(best)]


# ---------------------------------------------------------------------- one row that branches
@dataclass
class Prefix:
    """What has been written so far in one branch, and how to go on from there."""

    state: Any
    input_ids: NDArray[np.int64]
    length: int
    mask: NDArray[np.bool_] | None
    tokens: tuple[int, ...] = ()
    log_prob: float = 0.0
    total_reward: float = 0.0
    over: bool = False
    episode: Episode | None = None

    @classmethod
    def reset(
        cls, env: gym.Env[Any, Any], seed: int | None, options: dict[str, Any] | None
    ) -> Prefix:
        """The prefix of no tokens, after a reset of `env`."""
        observation, info = env.reset(seed=seed, options=options)
        return cls(get_state(env), **seen_of(observation, info))

    def after(self, env: gym.Env[Any, Any], token: int, log_prob: float) -> Prefix:
        """The prefix one token longer. `env` may be anywhere, and stands there afterwards."""
        set_state(env, self.state)
        observation, reward, terminated, truncated, info = env.step(token)
        over = bool(terminated or truncated)
        return Prefix(
            None if over else get_state(env),
            **seen_of(observation, info),
            tokens=(*self.tokens, token),
            log_prob=self.log_prob + log_prob,
            total_reward=self.total_reward + float(reward),
            over=over,
            episode=info.get("episode_record"),
        )

    def decoded(self) -> Decoded:
        """What has been written."""
        tokens = np.array(self.tokens, np.int64)
        return Decoded(self.episode, tokens, self.log_prob, self.total_reward)


def seen_of(observation: dict[str, NDArray[Any]], info: dict[str, Any]) -> dict[str, Any]:
    """What a `Prefix` keeps of an observation and its info."""
    mask = info.get("action_mask")
    return {
        "input_ids": np.array(observation["input_ids"]),
        "length": int(observation["attention_mask"].sum()),
        "mask": None if mask is None else np.asarray(mask, bool),
    }


@torch.no_grad()
def next_log_probs(
    lm: CausalLM, cache: BranchingCache, prefixes: Sequence[Prefix]
) -> NDArray[np.float64]:
    """`[k, V]`, of the next token, nats; -inf where it is not allowed."""
    ids = np.stack([prefix.input_ids for prefix in prefixes])
    lengths = np.array([prefix.length for prefix in prefixes])
    logits = lm.head.logits(cache.last_hidden(ids, lengths)).double()
    for row, prefix in enumerate(prefixes):
        if prefix.mask is not None:
            logits[row, torch.from_numpy(~prefix.mask).to(logits.device)] = -torch.inf
    return logits.log_softmax(dim=-1).cpu().numpy()


def beam_search(
    lm: CausalLM,
    env: gym.Env[Any, Any],
    *,
    width: int = 4,
    length_penalty: float = 0.0,
    pick: Literal["log_prob", "return"] = "log_prob",
    seed: int | None = None,
    options: dict[str, Any] | None = None,
) -> Decoded:
    """The most probable text that a beam of `width` prefixes finds.

    Args:
        lm: the model.
        env: a single token environment, wrapped or not.
        width: prefixes kept at each length, the finished ones among them.
        length_penalty: prefixes compare by ``log_prob / tokens ** length_penalty``; 0 is by the
            probability of the text, more favours long ones.
        pick: what is returned of the finished texts: the most probable, or that of greatest return.
        seed, options: of the reset.
    """
    if width < 1:
        raise ValueError(f"`width` must be a positive int, got {width}.")
    if pick not in ("log_prob", "return"):
        raise ValueError(f'`pick` must be "log_prob" or "return", got {pick!r}.')
    beam = [Prefix.reset(env, seed, options)]
    cache = BranchingCache(lm, 1, len(beam[0].input_ids))
    while growing := [prefix for prefix in beam if not prefix.over]:
        steps = next_log_probs(lm, cache, growing)  # [k, V]
        # (worth, where it comes from, token); finished texts stand for themselves.
        found = [(_worth(p.log_prob, len(p.tokens), length_penalty), p, -1) for p in beam if p.over]
        totals = np.array([p.log_prob for p in growing])[:, None] + steps
        for at in np.argsort(-totals, axis=None, kind="stable")[:width].tolist():
            row, token = divmod(at, steps.shape[1])
            if np.isfinite(totals[row, token]):
                length = len(growing[row].tokens) + 1
                found.append((_worth(totals[row, token], length, length_penalty), row, token))
        found = sorted(found, key=lambda one: -one[0])[:width]
        beam, parents = [], []
        for _, source, token in found:
            if isinstance(source, Prefix):
                beam.append(source)
                continue
            beam.append(growing[source].after(env, token, float(steps[source, token])))
            if not beam[-1].over:
                parents.append(source)
        cache.take(np.array(parents, np.int64))
    if pick == "return":
        return max(beam, key=lambda prefix: prefix.total_reward).decoded()
    return beam[0].decoded()


def _worth(log_prob: float, tokens: int, length_penalty: float) -> float:
    return float(log_prob / max(1, tokens) ** length_penalty)
