"""`LMFeatures`: what a frozen language model makes of the context, for agents with networks of
their own (DQN, QR-DQN, RecurrentPPO, SB3's `MultiInputPolicy` in general).
"""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn

from textgym_agents.lm import CausalLM, ModelSource, SlotCache, load_model, load_tokenizer
from textgym_agents.sb3.defaults import budget_of

# Pools of slots kept at once, one for each number of rows, the least recently used dropped.
_MAX_POOLS = 4
# Context tokens in one forward of the learning pass.
_PART_TOKENS = 8_192


class LMFeatures(BaseFeaturesExtractor):
    """The last hidden state of a frozen language model, then the share left of the budget.

    The model is no part of the policy's parameters: copies of it (DQN's target network) share one,
    nothing averages it or saves it twice, and an agent that is loaded takes it from `model` again.

    While the policy acts, only the tokens that are new are read (see `SlotCache`). What a learner
    draws from its memory is read whole, and leaves that cache alone.

    Args:
        observation_space: of a TextGym environment: a Dict of `input_ids`, `attention_mask` and
            `remaining`. SB3 passes ids as float32, which holds those below 2^24 exactly.
        model: ``"bundled"``, a folder, a hub id or a causal language model (copied).

    Raises:
        ValueError: the space is not that of a token environment, or does not fit the model.
        FileNotFoundError, ConnectionError: the model cannot be loaded.

    Example:
        >>> import gymnasium as gym, textgym
        >>> env = gym.make("textgym/Story-v0")
        >>> LMFeatures(env.observation_space).features_dim  # 128 hidden units, and the budget
        129
    """

    def __init__(self, observation_space: spaces.Space, model: ModelSource = "bundled") -> None:
        keys = getattr(observation_space, "spaces", {})
        for key in ("input_ids", "attention_mask", "remaining"):
            if key not in keys:
                raise ValueError(
                    f"LMFeatures needs observations with `{key}`, got {observation_space}. Make "
                    "the environment with `make_vec_env` and the policy `MultiInputPolicy`."
                )
        ids = observation_space["input_ids"]
        body = _shared_body(model, int(ids.high.max()) + 1, int(ids.shape[0]))
        super().__init__(observation_space, features_dim=body.lm.hidden_size + 1)
        # No module of this one: a plain object, and so not among its parameters and state.
        self._body = body
        self._budget = int(observation_space["remaining"].high.max())

    def train(self, mode: bool = True) -> LMFeatures:
        """As in torch; the model itself stays in evaluation mode."""
        # For all copies: a target network, which is never put into training mode, is asked about
        # what was drawn from memory while the network that learns is in it.
        self._body.learning = mode
        return super().train(mode)

    @torch.no_grad()
    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """`[B, D + 1] float32` of a batch of observations, of any dtype.

        Rows without a token, with which recurrent agents fill up their sequences, are 0.
        """
        ids = observations["input_ids"].long()
        lengths = observations["attention_mask"].sum(dim=1).cpu().numpy().astype(np.int64)
        hidden = self._body.last_hidden(ids, np.maximum(lengths, 1)).float()
        hidden = hidden * torch.from_numpy(lengths > 0).to(hidden.device)[:, None]
        return torch.cat([hidden, observations["remaining"] / self._budget], dim=1)


class _Body:
    """A frozen model and the slots of those that act with it.

    Args:
        source: what it was made of, kept so that the `id` of a module is not given to another.
        lm: the model.
    """

    def __init__(self, source: ModelSource, lm: CausalLM) -> None:
        self.source, self.lm = source, lm
        self.learning = False
        self._pools: OrderedDict[int, SlotCache] = OrderedDict()

    def __deepcopy__(self, memo: dict[int, Any]) -> _Body:
        return self

    def last_hidden(self, ids: Tensor, lengths: np.ndarray) -> Tensor:
        """`[B, D]` at the last token of each context in `ids [B, C]`."""
        if self.lm.device != ids.device:
            self.lm.to(ids.device)
            self._pools.clear()
        if self.lm.incremental and not self.learning:
            return self._pool(*ids.shape).last_hidden(ids, lengths)
        step = max(1, _PART_TOKENS // int(lengths.max()))
        parts = [slice(i, i + step) for i in range(0, len(ids), step)]
        return torch.cat([self.lm.last_hidden(ids[part], lengths[part]) for part in parts])

    def _pool(self, num_rows: int, context_size: int) -> SlotCache:
        pool = self._pools.get(num_rows)
        if pool is None:
            pool = self._pools[num_rows] = SlotCache(self.lm, num_rows, context_size)
        self._pools.move_to_end(num_rows)
        while len(self._pools) > _MAX_POOLS:
            self._pools.popitem(last=False)
        return pool


_BODIES: WeakValueDictionary[tuple[Any, ...], _Body] = WeakValueDictionary()


def _shared_body(source: ModelSource, vocab_size: int, context_size: int) -> _Body:
    """The one body of `source` for these sizes, for as long as somebody has it."""
    # A folder is told by its state as well: it may be written again.
    own = source
    if isinstance(source, nn.Module):
        own = id(source)
    elif isinstance(source, str | os.PathLike) and os.path.isdir(source):
        files = sorted(os.scandir(source), key=lambda file: file.name)
        own = (os.path.abspath(source), *(file.stat().st_mtime_ns for file in files))
    key = (type(source), own, vocab_size, context_size)
    body = _BODIES.get(key)
    if body is None:
        lm = CausalLM(load_model(source), vocab_size, context_size).eval().requires_grad_(False)
        body = _BODIES[key] = _Body(source, lm)
    return body


def features_kwargs(envs: VecEnv, model: ModelSource = "bundled") -> dict[str, Any]:
    """`policy_kwargs` for SB3's `MultiInputPolicy` with `LMFeatures`, checked against `envs`.

    Args:
        envs: the environments.
        model: see `LMFeatures`.

    Raises:
        ValueError: the model's tokenizer is not that of `envs`.

    Example:
        >>> from textgym_agents.sb3 import make_vec_env
        >>> envs = make_vec_env("textgym/Story-v0", n_envs=8)
        >>> sorted(features_kwargs(envs))
        ['features_extractor_class', 'features_extractor_kwargs']
    """
    tokenizer = load_tokenizer(model)
    expected = getattr(envs.action_space, "tokenizer_hash", None)
    if tokenizer is not None and expected is not None and tokenizer.hash != expected:
        raise ValueError(
            f"the model {model} has another tokenizer ({tokenizer.vocab_size} tokens) than the "
            f"environments ({envs.action_space.n} tokens). Give them the model's: "
            f"`make_vec_env(..., tokenizer={str(model)!r})`."
        )
    return {
        "features_extractor_class": LMFeatures,
        "features_extractor_kwargs": {"model": model},
    }


def dqn_defaults(envs: VecEnv, *, learning_rate: float = 1e-3) -> dict[str, Any]:
    """Keyword arguments for SB3's `DQN` and sb3_contrib's `QRDQN` on text.

    Q-learning explores with random tokens and has a value for each of them: it is for small
    vocabularies, or candidates in place of tokens.

    Args:
        envs: the environments.
        learning_rate: of the networks on top of the features.

    Returns:
        A dict to change at will and pass on as ``DQN("MultiInputPolicy", envs, **kwargs)``.

    Raises:
        ValueError: an action mask applies in `envs`, which these agents do not look at.
    """
    if envs.has_attr("action_masks"):
        raise ValueError(
            "an action mask applies in these environments, and DQN and QR-DQN explore with any "
            "token: use MaskablePPO (`textgym_agents.sb3.maskable`), or ban none."
        )
    budget = budget_of(envs)
    return {
        "learning_rate": learning_rate,
        "buffer_size": max(10_000, 50 * budget * envs.num_envs),
        "learning_starts": 10 * budget * envs.num_envs,
        "batch_size": 128,
        "gamma": 1.0,
        "train_freq": 1,
        "gradient_steps": max(1, envs.num_envs // 16),
        "target_update_interval": 512,
        "exploration_fraction": 0.5,
        "exploration_final_eps": 0.02,
    }
