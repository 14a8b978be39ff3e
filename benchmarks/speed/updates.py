"""Updates of SB3's PPO against bare mathematics, and whole rounds against their parts."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from torch import Tensor

from speed.rollouts import generator
from speed.subjects import NEW_TOKENS, PROMPT, Subject, make_agent, rollout
from speed.timing import Clock, ratio
from textgym.episode import Episode, Instance
from textgym_agents.sb3.packed import PackedBatch

ROWS, EPOCHS = 64, 4
SIZES = (64, 128, 256, 512, 2048, 4096)
BUNDLED_SIZES = (512, 2048, 4096)
FLAT_ROWS = 16
MOST_POSITIONS = 8192


class Bare:
    """What an update has to compute, and nothing else: no values, no ratios, no logging.

    It reads each minibatch in one padded forward, or in parts of similar length.
    """

    def __init__(self, subject: Subject, agent: PPO) -> None:
        self.model = subject.load().eval()
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=1e-5, **agent.policy.optimizer_kwargs
        )
        self.agent = agent

    def batches(self) -> list[Any]:
        """The minibatches of an epoch."""
        return list(self.agent.rollout_buffer.get(self.agent.batch_size))

    def hidden(self, batch: PackedBatch) -> Tensor:
        """`[n, d]`, by the model alone."""
        output = self.model.base_model(input_ids=batch.input_ids, use_cache=False)
        return output.last_hidden_state.flatten(0, 1)[batch.index]

    def step(self, hidden: Tensor, batch: Any) -> None:
        """Loss, backward pass, clipping, optimizer."""
        logits = self.model.get_output_embeddings()(hidden)
        log_probs = logits.log_softmax(dim=-1).gather(1, batch.actions[:, None])[:, 0]
        self.optimizer.zero_grad()
        (-(batch.advantages * log_probs).mean()).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()

    def padded(self, batches: list[Any]) -> None:
        """An epoch, one forward a minibatch."""
        for batch in batches:
            self.step(self.hidden(batch.observations), batch)

    def in_parts(self, batches: list[Any]) -> None:
        """An epoch, a forward for each part of similar segments."""
        for batch in batches:
            self.step(batch.observations.map(self.hidden, MOST_POSITIONS), batch)


def padding(batches: list[Any]) -> tuple[float, float]:
    """The share of positions that are padding: in parts, and in one forward a minibatch."""
    needed = sum(sum(b.observations.lengths) for b in batches)
    whole = sum(len(b.observations.counts) * max(b.observations.lengths) for b in batches)
    read = 0

    def count(part: PackedBatch) -> Tensor:
        nonlocal read
        read += part.input_ids.numel()
        return part.index

    for batch in batches:
        batch.observations.map(count, MOST_POSITIONS)
    return 1.0 - needed / read, 1.0 - needed / whole


def update_figures(subject: Subject, clock: Clock, repeats: int) -> dict[str, float]:
    """By the tokens of a minibatch; segments are of mixed length.

    For a large model one size alone, and no padded loop: it would take minutes.
    """
    large = subject.name == "gpt2"
    rows, n_steps = (32, 64) if large else (ROWS, 128)
    sizes = {"stories260k": SIZES, "gpt2": (2048,)}.get(subject.name, BUNDLED_SIZES)
    agent = make_agent(subject, rows, n_steps=n_steps, ragged=True)
    rollout(agent)
    bare = Bare(subject, agent)
    figures = {}
    for size in sizes:
        agent.batch_size = size
        batches = bare.batches()
        loops: dict[str, Callable[[], None]] = {"in parts": partial(bare.in_parts, batches)}
        if not large:
            loops["padded"] = partial(bare.padded, batches)
        times = clock.interleaved({"update": agent.train, **loops}, repeats)
        # The bare loop is the better of the two.
        better = min(loops, key=lambda name: statistics.median(times[name]))
        figures[f"update_over_bare_{size}"] = ratio(times, better, "update")
        if not large:
            figures[f"update_over_padded_{size}"] = ratio(times, "padded", "update")
        shares = padding(batches)
        figures[f"padding_{size}"], figures[f"padding_of_one_forward_{size}"] = shares
        figures[f"update_tokens_per_s_{size}"] = rows * n_steps / statistics.median(times["update"])
    return figures | {"update_over_bare": figures["update_over_bare_2048"]}


def flat_figures(subject: Subject, clock: Clock, repeats: int) -> dict[str, float]:
    """Against SB3's own buffer of flattened transitions, where each is a padded context."""
    size = {"n_steps": NEW_TOKENS, "batch_size": FLAT_ROWS * NEW_TOKENS}
    packed = make_agent(subject, FLAT_ROWS, **size)
    flat = make_agent(subject, FLAT_ROWS, **size, flat=True)
    rollout(packed)
    rollout(flat)
    times = clock.interleaved({"flat": flat.train, "packed": packed.train}, min(repeats, 3))
    return {"update_over_flat": ratio(times, "flat", "packed")}


# ---------------------------------------------------------------- whole rounds
def decoder(subject: Subject, agent: PPO) -> Callable[[], Tensor]:
    """A function that writes what a rollout of `agent` does, by the slot cache and sampling alone.

    Returns ids `[episodes of a row, rows, C]`.
    """
    policy = agent.policy
    prompt = subject.prompt_ids()
    slots = policy.lm.slots(agent.n_envs, policy.context_size)
    written = torch.zeros(agent.n_envs, policy.context_size, dtype=torch.int64)
    written[:, : len(prompt)] = torch.tensor(prompt)

    @torch.no_grad()
    def decode() -> Tensor:
        slots.clear()
        batches = []
        for _ in range(agent.n_steps // NEW_TOKENS):
            ids = written.clone()
            for length in range(len(prompt), len(prompt) + NEW_TOKENS):
                hidden = slots.last_hidden(ids, np.full(len(ids), length))
                probs = policy.lm.head.logits(hidden).softmax(-1)
                ids[:, length] = torch.multinomial(probs, 1)[:, 0]
            batches.append(ids)
        return torch.stack(batches)

    return decode


def round_figures(subject: Subject, clock: Clock, repeats: int) -> dict[str, float]:
    """`PPO.learn` of four epochs over the sum of what it is made of."""
    agent = make_agent(subject, ROWS, rewards=["length:max=80"], n_epochs=EPOCHS, batch_size=2048)
    tokens = agent.n_steps * ROWS
    agent.learn(tokens)
    decode = decoder(subject, agent)
    bare = Bare(subject, agent)
    batches = bare.batches()
    (length,) = agent.env.reward_terms
    tokenizer, prompt_length = subject.tokenizer, len(subject.prompt_ids())
    completions = [ids[:, prompt_length:].tolist() for ids in decode()]
    texts = tokenizer.decode_completions(completions[0])
    records = [Episode.written(Instance(PROMPT), text, tokenizer) for text in texts]

    def reward() -> None:
        for ids in completions:
            tokenizer.decode_completions(ids)
            length.reward(records)

    def advantages() -> None:
        nothing_after = torch.zeros(ROWS), np.ones(ROWS, bool)
        agent.rollout_buffer.compute_returns_and_advantage(*nothing_after)

    def epochs() -> None:
        for _ in range(EPOCHS):
            bare.in_parts(batches)

    parts = {
        "decode": decode,
        "generate": generator(subject, subject.load().eval(), ROWS, len(completions)),
        "reward": reward,
        "advantages": advantages,
        "epochs": epochs,
    }
    whole = {"round": lambda: agent.learn(tokens, reset_num_timesteps=False)}
    times = clock.interleaved(parts | whole, repeats)
    for name in ("decode", "generate"):
        columns = (times[part] for part in (name, "reward", "advantages", "epochs"))
        times[f"sum, {name}"] = [sum(row) for row in zip(*columns, strict=True)]
    return {
        "round_over_parts": ratio(times, "round", "sum, decode"),
        "round_over_parts_with_generate": ratio(times, "round", "sum, generate"),
        "round_s": statistics.median(times["round"]),
        **{f"part_{name}_s": statistics.median(times[name]) for name in parts},
    }
