"""The agents that a benchmark knows by name, and those of others.

An agent is a function ``make_agent(envs, budget, seed)``, or one of `envs` and `budget` alone:

- `envs` is a vector environment of text in `SAME_STEP` mode, `budget` the tokens to learn from (the
  agent's own, all rows together), `seed` an int. The function learns, and returns something with
- ``predict``, called with what of `observation`, `state`, `episode_start`, `deterministic` and
  `action_masks` its signature takes, as in Stable-Baselines3. It returns actions `[B]` of int, or
  a pair of actions and state;
- ``wrap(envs) -> envs``, if it has it: the wrappers that it needs to act;
- ``policy``, if it has it: where that is an `LMPolicy`, records tell values and log-probs;
- or, instead of `predict`, ``decode(task, instances)``: the tokens of a whole text, `[n] int64`,
  to each instance.

Here are names alone: nothing heavy is imported before an agent is asked for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from textgym.errors import check_known
from textgym_agents.bench.imports import imported

MakeAgent = Callable[..., Any]


@dataclass(frozen=True)
class AgentRow:
    """An agent that is known by name.

    Args:
        name: what it is asked for by.
        make: ``"module:function"``.
        summary: one line.
        needs_torch: whether it takes torch at all.
    """

    name: str
    make: str
    summary: str
    needs_torch: bool = True


_HERE = "textgym_agents.bench"
_ROWS = (
    AgentRow("random", f"{_HERE}.anchors:random", "Uniformly random tokens: 0.", False),
    AgentRow("oracle", f"{_HERE}.anchors:oracle", "The task's own solution: 1.", False),
    AgentRow("sample", f"{_HERE}.decoders:sample", "The model as it is, sampled."),
    AgentRow("greedy", f"{_HERE}.decoders:greedy", "The model's most probable tokens."),
    AgentRow("beam", f"{_HERE}.decoders:beam", "Beam search with the model, 4 wide."),
    AgentRow(
        "best-of-n",
        f"{_HERE}.decoders:best_of_n",
        "The best of 8 texts by the task's own return: it is told what others are scored by.",
    ),
    AgentRow("ppo", f"{_HERE}.learners:ppo", "Stable-Baselines3's PPO."),
    AgentRow("a2c", f"{_HERE}.learners:a2c", "Stable-Baselines3's A2C."),
    AgentRow("trpo", f"{_HERE}.learners:trpo", "sb3-contrib's TRPO."),
    AgentRow(
        "maskable-ppo",
        f"{_HERE}.learners:maskable_ppo",
        "sb3-contrib's MaskablePPO, which may not write empty turns.",
    ),
    AgentRow(
        "recurrent-ppo",
        f"{_HERE}.frozen:recurrent_ppo",
        "sb3-contrib's RecurrentPPO on what a frozen model reads.",
    ),
    AgentRow("nlpo", f"{_HERE}.learners:nlpo", "NLPO: PPO masked by an older copy of itself."),
    AgentRow("grpo", f"{_HERE}.learners:grpo", "GRPO: groups as the critic."),
    AgentRow("rloo", f"{_HERE}.learners:rloo", "REINFORCE with leave-one-out baselines."),
    AgentRow("reinforce", f"{_HERE}.learners:reinforce", "REINFORCE with a running baseline."),
    AgentRow(
        "expert-iteration",
        f"{_HERE}.learners:expert_iteration",
        "Imitates the best of each group of its own texts.",
    ),
    AgentRow(
        "dqn-topk",
        f"{_HERE}.frozen:dqn_topk",
        "Stable-Baselines3's DQN, choosing among a frozen model's two best tokens.",
    ),
)
AGENTS: Mapping[str, AgentRow] = MappingProxyType({row.name: row for row in _ROWS})


def is_import(agent: str) -> bool:
    """Whether `agent` is a ``"package.module:function"``, and not a name."""
    return ":" in agent


def needs_torch(agent: str) -> bool:
    """Whether torch may be needed; of others' agents nothing is known."""
    return is_import(agent) or AGENTS[agent].needs_torch


def find_agent(agent: str) -> MakeAgent:
    """The function that makes an agent.

    Args:
        agent: a name of `AGENTS`, ``"package.module:function"`` or ``"file.py:function"``.

    Raises:
        TypeError: no such name (lists near matches), or what was found is no function.
        ImportError: no such module, file or attribute.
    """
    if not is_import(agent):
        check_known("agent", [agent], AGENTS)
        return imported(AGENTS[agent].make)
    found = imported(agent)
    if not callable(found):
        raise TypeError(
            f"{agent} is no function, but a {type(found).__name__}. Expected one such as "
            "`make_agent(envs, budget, seed)`."
        )
    return found


def make_agent(make: MakeAgent, envs: Any, budget: int, seed: int) -> Any:
    """Call `make` with as much of ``(envs, budget, seed)`` as it takes.

    Raises:
        TypeError: it takes something else; or what it returned cannot act.
    """
    signature = inspect.signature(make)
    ways: tuple[tuple[tuple[Any, ...], dict[str, int]], ...] = (
        ((envs, budget, seed), {}),
        ((envs, budget), {"seed": seed}),
        ((envs, budget), {}),
    )
    for positional, keywords in ways:
        try:
            signature.bind(*positional, **keywords)
        except TypeError:
            continue
        agent = make(*positional, **keywords)
        break
    else:
        raise TypeError(
            "an agent's function must take (envs, budget, seed) or (envs, budget), got "
            f"{getattr(make, '__name__', make)}{signature}."
        )
    if not callable(getattr(agent, "predict", None)) and not hasattr(agent, "decode"):
        raise TypeError(
            f"an agent's function must return something with `predict`, got "
            f"{type(agent).__name__}. Return the agent once it has learnt."
        )
    return agent
