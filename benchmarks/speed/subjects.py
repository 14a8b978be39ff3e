"""The models measured, and agents that write with them for as long as they are told to."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
from stable_baselines3 import PPO
from tokenizers import decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel

from textgym import Tokenizer
from textgym_agents.lm import load_model
from textgym_agents.sb3 import LMPolicy, TokenRolloutBuffer, make_vec_env, ppo_defaults

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "models"
STORIES = SHARED / "stories260k"
GPT2_TOKENIZER = SHARED / "gpt2-tokenizer"
PROMPT = "Once upon a time there was a"
NEW_TOKENS = 48
GPT2_VOCABULARY = 50_257


@dataclass(frozen=True)
class Subject:
    """A model to measure.

    Args:
        name: of its figures.
        load: gives the model.
        tokenizer: whose end-of-sequence the model does not write, so that nothing ends early.
        rows: rows of the vector env to measure rollouts with.
    """

    name: str
    load: Callable[[], Any]
    tokenizer: Tokenizer
    rows: tuple[int, ...]

    def prompt_ids(self) -> list[int]:
        """The tokens of `PROMPT`."""
        return self.tokenizer.encode(PROMPT)


def subjects(stories: Path = STORIES) -> tuple[list[Subject], dict[str, str]]:
    """The models that are here, and why the others are not."""
    found, skipped = [], {}
    if stories.is_dir():
        tokenizer = Tokenizer.load(stories)
        # "<unk>" is never written, as nothing ends the pinned `generate`.
        tokenizer = Tokenizer(tokenizer.backend, eos_token="<unk>", name="no end")
        found.append(
            Subject("stories260k", partial(load_model, stories), tokenizer, (32, 128, 512))
        )
    else:
        skipped["stories260k"] = f"no model in {_from_root(stories)}"
    backend = Tokenizer.load().backend
    tokenizer = Tokenizer(backend, eos_token="Ā", name="no end")  # the byte 0
    found.append(Subject("bundled", partial(load_model, "bundled"), tokenizer, (32, 128)))
    if GPT2_TOKENIZER.is_dir():
        tokenizer = Tokenizer.load(GPT2_TOKENIZER)
    else:
        tokenizer = made_up_tokenizer(GPT2_VOCABULARY)
        skipped["gpt2 tokenizer"] = (
            f"none in {_from_root(GPT2_TOKENIZER)}; one made up, as large, instead"
        )
    found.append(Subject("gpt2", random_gpt2, tokenizer, (8,)))
    return found, skipped


def _from_root(path: Path) -> str:
    return os.path.relpath(path, ROOT)


def random_gpt2(
    *, width: int = 768, layers: int = 12, vocab: int = GPT2_VOCABULARY, positions: int = 1024
) -> GPT2LMHeadModel:
    """A GPT-2 with random weights, by default of its real size: 124 M parameters."""
    torch.manual_seed(0)
    heads = max(1, width // 64)
    sizes = {"n_embd": width, "n_layer": layers, "n_head": heads, "n_positions": positions}
    ends = {"bos_token_id": None, "eos_token_id": None}
    return GPT2LMHeadModel(GPT2Config(**sizes, **ends, vocab_size=vocab)).eval()


def made_up_tokenizer(vocab: int) -> Tokenizer:
    """`vocab` words: those of `PROMPT`, and `w17` and its like. The first ends a text."""
    words = ["</s>", *dict.fromkeys(PROMPT.split())]
    words += [f"w{i}" for i in range(len(words), vocab)]
    backend = tokenizers.Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="</s>")
    )
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.decoder = decoders.WordPiece(prefix="##")
    backend.add_special_tokens(["</s>"])
    return Tokenizer(backend, eos_token="</s>", name=f"{vocab} words")


class Ragged(LMPolicy):
    """Ends each of its texts after 8 to `NEW_TOKENS` tokens, drawn for each anew."""

    def forward(self, obs: Any, deterministic: bool = False) -> Any:
        """Sample, then end what is due."""
        actions, values, log_probs = super().forward(obs, deterministic)
        if not hasattr(self, "text_lengths"):
            self.rng = np.random.default_rng(0)
            self.text_lengths = self.rng.integers(8, NEW_TOKENS + 1, len(actions))
        ends = NEW_TOKENS - obs["remaining"][:, 0].numpy() + 1 >= self.text_lengths
        actions[torch.from_numpy(ends)] = self.action_space.eos_token_id
        self.text_lengths[ends] = self.rng.integers(8, NEW_TOKENS + 1, int(ends.sum()))
        return actions, values, log_probs


def make_agent(
    subject: Subject,
    rows: int,
    *,
    n_steps: int = 2 * NEW_TOKENS,
    ragged: bool = False,
    kl: bool = False,
    flat: bool = False,
    rewards: Any = (),
    **ppo: Any,
) -> PPO:
    """SB3's PPO on rows that all write `NEW_TOKENS` tokens, or, `ragged`, 8 to as many.

    Args:
        subject: the model.
        rows: of the vector env.
        n_steps: of a rollout.
        ragged: rows end and begin by themselves.
        kl: with a reference model.
        flat: with SB3's own buffer.
        rewards: of the environment.
        ppo: other arguments of PPO.
    """
    envs = make_vec_env(
        "textgym/Continuation-v0",
        n_envs=rows,
        tokenizer=subject.tokenizer,
        prompts=[PROMPT],
        max_new_tokens=NEW_TOKENS,
        rewards=rewards,
    )
    keywords = ppo_defaults(envs) | {"n_epochs": 1, "n_steps": n_steps}
    if flat:
        keywords |= {"rollout_buffer_kwargs": {}}
    else:
        keywords |= {"rollout_buffer_class": TokenRolloutBuffer}
    agent = PPO(
        Ragged if ragged else LMPolicy,
        envs,
        policy_kwargs={"model": subject.load(), "kl_coef": 0.02 if kl else 0.0},
        seed=0,
        device="cpu",
        **keywords | ppo,
    )
    _, agent.benchmark_callback = agent._setup_learn(10**9)
    return agent


def rollout(agent: PPO) -> None:
    """One rollout, its cache cold as after an update."""
    agent.policy.invalidate_cache()
    agent.collect_rollouts(agent.env, agent.benchmark_callback, agent.rollout_buffer, agent.n_steps)
