"""The environments alone, on random tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from speed.timing import Clock
from textgym import Tokenizer

ROWS = 1024
CONTEXTS = (64, 256, 1024, 4096)
# Steps timed before each of these.
_AROUND = 40


def opening(tokens: int) -> str:
    """A text of so many tokens of the embedded tokenizer."""
    text, count = "Once", Tokenizer.load().encode
    step = len(count("Once little little")) - len(count("Once little"))
    text += " little" * ((tokens - len(count(text))) // step)
    if len(count(text)) != tokens:
        raise RuntimeError(f"asked for {tokens} tokens, got {len(count(text))}")
    return text


def vector(env_id: str, **keywords: Any) -> Any:
    """`ROWS` rows that begin anew by themselves."""
    return gym.make_vec(
        env_id,
        num_envs=ROWS,
        vectorization_mode="vector_entry_point",
        autoreset_mode="SAME_STEP",
        **keywords,
    )


def tokens_per_second(env: Any, steps: int, clock: Clock, repeats: int) -> float:
    """Of `env.step` on random tokens, at the median."""
    size = env.single_action_space.n
    actions = np.random.default_rng(0).integers(0, size, (steps, env.num_envs))
    env.reset(seed=0)

    def run() -> None:
        for row in actions:
            env.step(row)

    return steps * env.num_envs / clock.median(run, repeats)


def step_seconds(width: int, contexts: Sequence[int], clock: Clock, repeats: int) -> list[float]:
    """Of a step in which no row ends, at the median, by the tokens that each row holds.

    Args:
        width: the longest context, C: how wide the arrays are. Nothing is copied (`copy=False`).
        contexts: in ascending order, the last at most C.
        clock, repeats: of the measurement.
    """
    start = min(contexts[0], width) - _AROUND
    env = vector(
        "textgym/Continuation-v0",
        prompts=[opening(start)],
        max_new_tokens=width - start,
        copy=False,
    )
    eos = env.single_action_space.eos_token_id
    size = env.single_action_space.n
    actions = np.random.default_rng(0).integers(0, size, (width - start - 1, ROWS))
    actions[actions == eos] = eos + 1
    found: dict[int, list[float]] = {context: [] for context in contexts}
    for _ in range(repeats):
        env.reset(seed=0)
        for length, row in enumerate(actions, start + 1):
            spent = clock.seconds(lambda row=row: env.step(row))
            for context in contexts:
                # In the first two steps what reset wrote is brought over.
                if context - _AROUND + 2 < length <= context:
                    found[context].append(spent)
    return [float(np.median(found[context])) for context in contexts]


def environment_figures(clock: Clock, repeats: int) -> dict[str, float]:
    """Tokens/s at about 64 tokens of context, and how the cost of a step grows with it."""
    begin = opening(15)
    plain = vector("textgym/Continuation-v0", prompts=[begin], max_new_tokens=48, copy=False)
    figures = {"env_tokens_per_s": tokens_per_second(plain, 256, clock, repeats)}
    scored = vector("textgym/Story-v0", copy=False)
    figures["env_scored_tokens_per_s"] = tokens_per_second(scored, 128, clock, repeats)
    single = gym.make("textgym/Continuation-v0", prompts=[begin], max_new_tokens=48).unwrapped
    actions = np.random.default_rng(0).integers(0, single.action_space.n, 5000).tolist()
    single.reset(seed=0)

    def steps() -> None:
        for action in actions:
            if single.step(action)[2]:
                single.reset()

    figures["single_env_steps_per_s"] = len(actions) / clock.median(steps, repeats)
    growing = step_seconds(max(CONTEXTS), CONTEXTS, clock, repeats)
    figures |= {f"env_step_us_{c}": 1e6 * s for c, s in zip(CONTEXTS, growing, strict=True)}
    figures["env_step_growth"] = max(growing) / growing[0]
    narrow = step_seconds(min(CONTEXTS), (min(CONTEXTS),), clock, repeats)
    figures["env_step_us_narrow"] = 1e6 * narrow[0]
    return figures
