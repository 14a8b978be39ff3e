"""`ReferenceLogProb`: pay each token its log-prob under a reference model, whoever the agent is."""

from __future__ import annotations

import math
import os
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from torch import nn

from textgym import RewardError, TokenEnv, TokenVectorEnv
from textgym.envs.contexts import Observation
from textgym.envs.infos import Infos, put_numbers
from textgym.wrappers import ended
from textgym.wrappers.snapshots import Snapshots
from textgym.wrappers.vector import TokenVectorWrapper
from textgym_agents.lm import CausalLM, SlotCache, load_model, load_tokenizer
from textgym_agents.rewards.models import shared_model

ModelLike = str | os.PathLike[str] | nn.Module | CausalLM


def ReferenceLogProb(  # named as the class it makes
    env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any],
    model: ModelLike,
    beta: float,
    *,
    masked: bool = True,
    device: str = "auto",
    name: str = "reference_log_prob",
) -> SingleReferenceLogProb | VectorReferenceLogProb:
    """Add ``beta * log p_ref(token | context)`` to the reward of every step.

    The context is the observation before the step. The model reads what is new in it and keeps the
    rest, so that a step costs one token a row, all rows together. What an episode was paid is
    reported as `info["rewards"][name]` when it is closed; its task's replies pay nothing.

    It is half of the KL-regularised objective ``return - beta * KL(policy, reference)``: the KL is
    ``log p_policy - log p_ref``, summed over the episode's tokens, and the missing half, ``beta``
    times the policy's entropy, is up to the agent.

    - Agents with soft values (soft Q-learning, discrete SAC with temperature `beta`) count the
      entropy of all later steps as return. With this wrapper they maximise that objective.
    - In episodes of one step so does any agent with an entropy bonus of `beta`.
    - The entropy bonus of a stock PPO or A2C (`ent_coef`) does not make up for it where episodes
      are longer: it is the entropy of the states visited, and an action is given no credit for the
      entropy that later states will have, while it is charged for their log-probs. Such an agent
      learns to end early. In a chain of three choices that follow on a first, which may end the
      episode instead, nothing else being paid and the reference being uniform, the optimum is to
      go on with probability 1/2; PPO goes on with 1/9. Pay it the whole KL per token instead
      (`kl_coef` of `LMPolicy`), without an entropy bonus.
    - Without any entropy the policy that maximises it is deterministic.

    Args:
        env: a token environment, single or vector, wrapped or not.
        model: the reference: a folder, a hub id or ``"bundled"`` (loaded once in a process), a
            causal language model (copied, so that training it does not move the reference), or a
            `CausalLM` (used as it is).
        beta: what the log-prob (nats) is multiplied by, at least 0.
        masked: where `env` masks actions, the reference is renormalised over those allowed.
        device: ``"cpu"``, ``"cuda"``, or ``"auto"``: a GPU where there is one. A `CausalLM` stays
            where it is.
        name: its name in `info["rewards"]`.

    Raises:
        FileNotFoundError, ValueError: the model cannot be loaded, has another tokenizer than `env`,
            or cannot read contexts as long as those of `env`.

    Example:
        >>> import gymnasium as gym, textgym
        >>> env = ReferenceLogProb(gym.make("textgym/Story-v0"), "bundled", beta=0.1)
        >>> _ = env.reset(seed=0)
        >>> env.step(env.unwrapped.tokenizer.eos_token_id)[1] < 0
        True
    """
    kind = VectorReferenceLogProb if isinstance(env, VectorEnv) else SingleReferenceLogProb
    return kind(env, model, beta, masked=masked, device=device, name=name)


class SingleReferenceLogProb(
    Snapshots, gym.Wrapper[Observation, np.int64, Observation, np.int64], RecordConstructorArgs
):
    """Pays a single environment's tokens their reference log-probs; see `ReferenceLogProb`."""

    def __init__(
        self,
        env: gym.Env[Observation, np.int64],
        model: ModelLike,
        beta: float,
        *,
        masked: bool = True,
        device: str = "auto",
        name: str = "reference_log_prob",
    ) -> None:
        RecordConstructorArgs.__init__(
            self, model=model, beta=beta, masked=masked, device=device, name=name,
            _disable_deepcopy=True,
        )  # fmt: skip
        gym.Wrapper.__init__(self, env)
        if not isinstance(env.unwrapped, TokenEnv):
            raise TypeError(f"`env` must be a token environment, got {env.unwrapped!r}.")
        self._base = env.unwrapped
        self._name = name
        capacity = env.observation_space["input_ids"].shape[0]
        lm = reference_model(model, self._base.tokenizer, capacity, device)
        self._payer = _Payer(lm, 1, capacity, beta, masked)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Infos]:
        """Begin a new episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._payer.forget([0])
        self._payer.see(_batched(observation))
        return observation, info

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, Infos]:
        """Step, then add the token's log-prob."""
        log_probs = self._payer.log_probs(_masks(self._base))
        try:
            result = self.env.step(action)
        except RewardError as error:
            if error.result is not None:  # the step is done
                error.result = self._paid(error.result, action, log_probs)
            raise
        return self._paid(result, action, log_probs)

    def _paid(self, result: Any, action: Any, log_probs: NDArray[np.float32]) -> Any:
        observation, reward, terminated, truncated, info = result
        paid = self._payer.pay(log_probs, np.array([action]), np.array([True]))
        if "episode_record" in info:
            _check_new(info["rewards"], self._name)
            info["rewards"][self._name] = float(self._payer.totals[0])
        self._payer.see(_batched(observation))
        if terminated or truncated:
            self._payer.forget([0])
        return observation, reward + float(paid[0]), terminated, truncated, info

    def own_state(self) -> dict[str, Any]:
        """What this wrapper itself remembers."""
        return self._payer.get_state()

    def set_own_state(self, state: dict[str, Any]) -> None:
        """Return to what `own_state` gave."""
        self._payer.set_state(state)


class VectorReferenceLogProb(
    Snapshots,
    TokenVectorWrapper,
    RecordConstructorArgs,
):
    """Pays a vector environment's tokens their reference log-probs; see `ReferenceLogProb`.

    A step that resets a row (`NEXT_STEP`) pays that row nothing.
    """

    def __init__(
        self,
        env: VectorEnv[Observation, NDArray[np.int64], NDArray[Any]],
        model: ModelLike,
        beta: float,
        *,
        masked: bool = True,
        device: str = "auto",
        name: str = "reference_log_prob",
    ) -> None:
        RecordConstructorArgs.__init__(
            self, model=model, beta=beta, masked=masked, device=device, name=name,
            _disable_deepcopy=True,
        )  # fmt: skip
        TokenVectorWrapper.__init__(self, env)
        if not isinstance(env.unwrapped, TokenVectorEnv):
            raise TypeError(
                f"`env` must be a `TokenVectorEnv`, got {env.unwrapped!r}. Use "
                '`gym.make_vec(id, vectorization_mode="vector_entry_point")`.'
            )
        self._base = env.unwrapped
        self._name = name
        capacity = env.single_observation_space["input_ids"].shape[0]
        lm = reference_model(model, self._base.tokenizer, capacity, device)
        self._payer = _Payer(lm, env.num_envs, capacity, beta, masked)
        self._over = np.zeros(env.num_envs, np.bool_)

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Infos]:
        """Begin new episodes."""
        mask = (options or {}).get("reset_mask")
        rows = np.ones(self.num_envs, np.bool_) if mask is None else np.asarray(mask, np.bool_)
        observation, infos = self.env.reset(seed=seed, options=options)
        self._payer.forget(rows)
        self._over[rows] = False
        self._payer.see(observation)
        return observation, infos

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[Observation, NDArray[Any], NDArray[Any], NDArray[Any], Infos]:
        """Step, then add the tokens' log-probs."""
        log_probs = self._payer.log_probs(_masks(self._base))
        try:
            result = self.env.step(actions)
        except RewardError as error:
            if error.result is not None:  # the step is done
                error.result = self._paid(error.result, actions, log_probs)
            raise
        return self._paid(result, actions, log_probs)

    def _paid(self, result: Any, actions: Any, log_probs: NDArray[np.float32]) -> Any:
        observation, rewards, terminated, truncated, infos = result
        paid = self._payer.pay(log_probs, np.asarray(actions), ~self._over)
        where, rows = ended(infos, self._base.autoreset_mode)
        if rows:
            _check_new(where["rewards"], self._name)
            put_numbers(where["rewards"], self._name, rows, self._payer.totals[rows], self.num_envs)
        over = terminated | truncated
        self._payer.forget(over)
        self._payer.see(observation)
        same_step = self._base.autoreset_mode is AutoresetMode.SAME_STEP
        self._over = np.zeros_like(over) if same_step else over.copy()
        return observation, rewards + paid, terminated, truncated, infos

    def own_state(self) -> dict[str, Any]:
        """What this wrapper itself remembers."""
        return {**self._payer.get_state(), "over": self._over.copy()}

    def set_own_state(self, state: dict[str, Any]) -> None:
        """Return to what `own_state` gave."""
        self._payer.set_state(state)
        self._over = state["over"].copy()


class _Payer:
    """What B rows read last, what each token is worth there, and what each row was paid."""

    def __init__(
        self, lm: CausalLM, num_envs: int, capacity: int, beta: float, masked: bool
    ) -> None:
        if not 0.0 <= beta < math.inf:
            raise ValueError(f"`beta` must be a finite number of at least 0, got {beta!r}.")
        self.beta, self.masked = float(beta), masked
        self.totals = np.zeros(num_envs, np.float64)
        self._lm = lm
        self._slots = SlotCache(lm, num_envs, capacity) if lm.incremental else None
        # Copies: an environment with `copy=False` writes over its observations.
        self._ids = np.zeros((num_envs, capacity), np.int64)
        self._lengths = np.ones(num_envs, np.int64)

    def see(self, observation: Observation) -> None:
        np.copyto(self._ids, observation["input_ids"])
        np.copyto(self._lengths, observation["attention_mask"].sum(axis=1, dtype=np.int64))

    @torch.no_grad()
    def log_probs(self, masks: NDArray[np.bool_] | None) -> NDArray[np.float32]:
        """`[B, V]`, nats, of every token in the contexts seen last."""
        ids = torch.from_numpy(self._ids).to(self._lm.device)
        reader = self._slots or self._lm
        logits = self._lm.head.logits(reader.last_hidden(ids, self._lengths))
        if masks is not None and self.masked:
            logits = logits.masked_fill(~torch.from_numpy(masks).to(logits.device), -torch.inf)
        return logits.log_softmax(dim=-1).cpu().numpy()

    def pay(
        self, log_probs: NDArray[np.float32], tokens: NDArray[Any], acting: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """`[B]`, what the tokens of the rows `acting` are paid."""
        rows = np.flatnonzero(acting)
        paid = np.zeros(len(acting), np.float64)
        paid[rows] = self.beta * log_probs[rows, tokens[rows].astype(np.int64)]
        self.totals += paid
        return paid

    def forget(self, rows: Any) -> None:
        self.totals[rows] = 0.0

    def get_state(self) -> dict[str, Any]:
        return {
            "ids": self._ids.copy(), "lengths": self._lengths.copy(), "paid": self.totals.copy()
        }  # fmt: skip

    def set_state(self, state: dict[str, Any]) -> None:
        np.copyto(self._ids, state["ids"])
        np.copyto(self._lengths, state["lengths"])
        np.copyto(self.totals, state["paid"])


def reference_model(model: ModelLike, tokenizer: Any, context_size: int, device: str) -> CausalLM:
    """`model` as a frozen `CausalLM` for the tokens and contexts of an environment.

    Args:
        model: see `ReferenceLogProb`.
        tokenizer: the environment's.
        context_size: C.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.

    Raises:
        FileNotFoundError, ValueError: see `ReferenceLogProb`.
    """
    if isinstance(model, CausalLM):
        if model.vocab_size != tokenizer.vocab_size or model.context_size < context_size:
            raise ValueError(
                f"`model` is for {model.vocab_size} tokens and contexts of {model.context_size}, "
                f"but `env` has {tokenizer.vocab_size} and {context_size}. Make it for these."
            )
        return model
    if isinstance(model, nn.Module):
        place = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        loaded = load_model(model).to(place).eval().requires_grad_(False)
    else:
        own = load_tokenizer(model)
        if own != tokenizer:
            raise ValueError(
                f"the reference {os.fspath(model)} has another tokenizer ({own!r}) than `env` "
                f"({tokenizer!r}), so that ids would mean other tokens to it. Make the environment "
                "with `tokenizer=<model folder or hub id>`."
            )
        from transformers import AutoModelForCausalLM  # seconds to import: only when needed

        loaded, _ = shared_model(AutoModelForCausalLM, model, device)
    return CausalLM(loaded, tokenizer.vocab_size, context_size)


def _masks(base: TokenEnv | TokenVectorEnv) -> NDArray[np.bool_] | None:
    """`[B, V] bool`, or None where no mask applies."""
    if not hasattr(base, "action_masks"):
        return None
    return np.atleast_2d(base.action_masks())


def _batched(observation: Observation) -> Observation:
    return {key: observation[key][None] for key in ("input_ids", "attention_mask")}


def _check_new(components: dict[str, Any], name: str) -> None:
    if name in components:
        raise ValueError(f"a reward named {name!r} is already there. Give this one another `name`.")
