"""Rollouts of SB3's PPO against Hugging Face `generate` on the same batch."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch

from speed.subjects import NEW_TOKENS, Subject, make_agent, rollout
from speed.timing import Clock, ratio

KL_ROWS = 64


def generator(subject: Subject, model: Any, rows: int, times: int) -> Callable[[], None]:
    """A function that lets `model` write `times` batches of `rows` texts by `generate`."""
    prompt = subject.prompt_ids()
    input_ids = torch.tensor([prompt] * rows)
    mask = torch.ones_like(input_ids)

    def generate() -> None:
        for _ in range(times):
            with torch.no_grad():
                out = model.generate(
                    input_ids,
                    attention_mask=mask,
                    do_sample=True,
                    top_k=0,
                    max_new_tokens=NEW_TOKENS,
                    eos_token_id=None,
                    pad_token_id=0,
                )
            if out.shape[1] != len(prompt) + NEW_TOKENS:
                raise RuntimeError("`generate` stopped early; the comparison would be unfair")

    return generate


def rollout_figures(subject: Subject, clock: Clock, repeats: int) -> dict[str, float]:
    """Ratios by the number of rows, in lockstep and, but for large models, ragged."""
    model = subject.load().eval()
    large = subject.name == "gpt2"
    episodes = 1 if large else 2
    cases = [(str(rows), rows, False) for rows in subject.rows]
    cases += [] if large else [("ragged", KL_ROWS, True)]
    figures = {}
    for name, rows, ragged in cases:
        agent = make_agent(subject, rows, n_steps=episodes * NEW_TOKENS, ragged=ragged)
        times = clock.interleaved(
            {
                "generate": generator(subject, model, rows, episodes),
                "rollout": lambda agent=agent: rollout(agent),
            },
            repeats,
        )
        # Where texts end at 8 to 48 tokens, what `generate` writes after that is of no use.
        useful = (8 + NEW_TOKENS) / 2 / NEW_TOKENS if ragged else 1.0
        figures[f"rollout_over_generate_{name}"] = ratio(times, "generate", "rollout") / useful
        tokens = episodes * rows * NEW_TOKENS
        figures[f"rollout_tokens_per_s_{name}"] = tokens / statistics.median(times["rollout"])
    return figures


def kl_figures(subject: Subject, clock: Clock, repeats: int) -> dict[str, float]:
    """At 64 rows, without the KL to a reference model and with it."""
    without, with_kl = make_agent(subject, KL_ROWS), make_agent(subject, KL_ROWS, kl=True)
    times = clock.interleaved(
        {
            "generate": generator(subject, subject.load().eval(), KL_ROWS, 2),
            "without": lambda: rollout(without),
            "with": lambda: rollout(with_kl),
        },
        repeats,
    )
    tokens = 2 * KL_ROWS * NEW_TOKENS
    return {
        "rollout_over_generate": ratio(times, "generate", "without"),
        "rollout_with_kl_over_generate": ratio(times, "generate", "with"),
        "rollout_tokens_per_s": tokens / statistics.median(times["without"]),
        "generate_tokens_per_s": tokens / statistics.median(times["generate"]),
    }
