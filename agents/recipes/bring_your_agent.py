"""An agent of your own, without torch or any library of agents, on the benchmark.

    python agents/recipes/bring_your_agent.py

Less than 10 s on one CPU core. `make_agent` is all that a benchmark asks for: here REINFORCE on one
linear layer in numpy, which knows of text that there are tokens. With it in a file of yours,

    textgym bench run --suite exact --agent agents/recipes/bring_your_agent.py:make_agent

runs it on every task of a suite, beside those that TextGym has.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence

import numpy as np

from textgym.suites import find_suite
from textgym_agents.bench.cell import run_cell


# ---------------------------------------------------------------- the agent
class Linear:
    """Log-odds of the next token: the sum of a row of `table` for each token at each place."""

    def __init__(self, envs, seed):
        self.rng, self.tokens = np.random.default_rng(seed), int(envs.single_action_space.n)
        self.places = np.arange(envs.single_observation_space["input_ids"].shape[0])
        self.table = np.zeros((len(self.places) * (self.tokens + 1), self.tokens))

    def look(self, seen):
        """`[B, C]`, rows of the table, and `[B, V]`, the odds they make."""
        ids = np.where(seen["attention_mask"], seen["input_ids"], self.tokens)
        rows = self.places * (self.tokens + 1) + ids
        odds = np.exp(self.table[rows].sum(axis=1))
        return rows, odds / odds.sum(axis=1, keepdims=True)

    def predict(self, observation):
        """`[B]` tokens, drawn by their odds."""
        sums = self.look(observation)[1].cumsum(axis=1)
        return (sums[:, :-1] < self.rng.random((len(sums), 1))).sum(axis=1)


def make_agent(envs, budget, seed):
    """Learn from `budget` tokens, then return the agent."""
    agent, baseline = Linear(envs, seed), 0.0
    (seen, _), written, paid = envs.reset(seed=seed), [], np.zeros(envs.num_envs)
    ended = np.zeros(envs.num_envs, int)  # steps in which the row's episode began
    for step in range(budget // envs.num_envs):
        actions, (rows, odds) = agent.predict(seen), agent.look(seen)
        written.append((rows, np.eye(agent.tokens)[actions] - odds))
        seen, rewards, terminated, truncated, _ = envs.step(actions)
        paid += rewards
        for i in np.flatnonzero(terminated | truncated):
            for rows, towards in written[ended[i] :]:
                agent.table[rows[i]] += 0.05 * (paid[i] - baseline) * towards[i]
            baseline += 0.01 * (paid[i] - baseline)
            paid[i], ended[i] = 0.0, step + 1
    return agent


# ---------------------------------------------------------------- the benchmark
def main(argv: Sequence[str] | None = None) -> int:
    """Score the agent on one task, and random tokens. Returns 0 if it beats them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", default="exact-quick")
    parser.add_argument("--task", default="small-dense")
    parser.add_argument("--tokens", type=int, help="to learn from, other than the suite's")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    task = find_suite(options.suite).task(options.task)
    if options.tokens:
        task = dataclasses.replace(task, tokens=options.tokens)
    means = {}
    for agent in (f"{__file__}:make_agent", "random"):
        record = run_cell(task, agent, options.seed)
        if record["status"] != "ok":
            print(record["error"], file=sys.stderr)
            return 1
        means[agent] = float(np.mean(record["returns"]))
    own, random = means.values()
    better = own > random
    print(f"mean return: {own:.3f} of this agent, {random:.3f} of a random policy")
    print("It beats the random policy." if better else "It does not beat the random policy.")
    return 0 if better else 1


if __name__ == "__main__":
    sys.exit(main())
