"""The numbers of the page, from the records of cells; what they mean is `textgym.statistics`'."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from textgym import statistics
from textgym.statistics import Band, Interval
from textgym.suites import QUICK, SUITES, Suite, find_suite
from textgym_agents.bench.records import ANCHORS, Anchors, Key, Record, Results, mean_return

Floats = NDArray[np.float64]

# Of the exact optimum; what an agent is asked to reach where there is one.
GOAL = 0.95
POINTS = 41
_THRESHOLDS = np.linspace(0.0, 1.0, 81)


@dataclass(frozen=True)
class Standing:
    """What an agent's runs on all tasks come to.

    Args:
        agent: its name.
        iqm, mean, median, gap: normalised scores; `gap` is the optimality gap.
        better_than: how probably a run is better than one of another agent, by its name.
    """

    agent: str
    iqm: Interval
    mean: Interval
    median: Interval
    gap: Interval
    better_than: Mapping[str, Interval]


@dataclass(frozen=True)
class Cost:
    """What a run costs, on average over an agent's runs that ended well; None where unknown.

    Args:
        runs: how many.
        tokens: learnt from.
        train_seconds, cpu_seconds, eval_seconds: wall and CPU time of learning, wall time of
            scoring.
        peak_mb: the most of any run.
        tokens_per_second: tokens over wall time of learning.
    """

    runs: int
    tokens: float | None
    train_seconds: float | None
    cpu_seconds: float | None
    eval_seconds: float | None
    peak_mb: float | None
    tokens_per_second: float | None


class Report:
    """All that the page tells of `results`. Figures are computed when they are first asked for.

    Agents are ranked on the tasks that can be scored (both anchors are known), if they have a run
    of each that ended well. Runs that did not are left out of the figures, and are listed.

    Args:
        results: of one suite.
    """

    def __init__(self, results: Results) -> None:
        self.results = results
        self.suite = _installed_suite(results)
        self.tasks = self._ordered_tasks()
        found = {task: results.anchors(task) for task in self.tasks}
        self.anchors: dict[str, Anchors] = {t: a for t, a in found.items() if a is not None}
        self.seeds = tuple(sorted({s for agent in results.agents for s in results.seeds(agent)}))
        self._cells: dict[tuple[str, str], dict[int, Record]] = {}
        for record in results.records:
            if record["status"] == "ok":
                place = self._cells.setdefault((record["agent"], record["task"]), {})
                place[record["seed"]] = record

    # ------------------------------------------------------------------ which
    @cached_property
    def same_suite(self) -> bool:
        """Whether the results are of the suite that is installed under that name."""
        return self.suite is not None and self.suite.hash == self.results.suite_hash

    @cached_property
    def scored(self) -> tuple[str, ...]:
        """Tasks whose scores can be normalised, and on which some agent has one."""
        return tuple(
            task
            for task in self.tasks
            if task in self.anchors and any(self.cells(a, task) for a in self.results.agents)
        )

    @cached_property
    def ranked(self) -> tuple[str, ...]:
        """Agents with a run of every scored task, best interquartile mean first."""
        return tuple(standing.agent for standing in self.standings)

    @cached_property
    def unranked(self) -> dict[str, list[str]]:
        """Agents without: the tasks that they have no run of."""
        found = {a: [t for t in self.scored if not self.cells(a, t)] for a in self.results.agents}
        return {agent: tasks for agent, tasks in found.items() if tasks or not self.scored}

    @cached_property
    def agents(self) -> tuple[str, ...]:
        """All, ranked ones first. The place of one is its colour and marker."""
        return (*self.ranked, *self.unranked)

    @cached_property
    def missing(self) -> tuple[Key, ...]:
        """Cells of which there is no record: of another task, another agent or another seed."""
        known = {(r["task"], r["agent"], r["seed"]) for r in self.results.records}
        wanted = [(t, a, s) for t in self.tasks for a in self.results.agents for s in self.seeds]
        anchors = [
            (task, agent, 0)
            for task in self.tasks
            for agent in ANCHORS
            if not any((t, a) == (task, agent) for t, a, _ in known)
            and not (task in self.anchors and self.anchors[task].exact)
        ]
        return (*(key for key in wanted if key not in known), *anchors)

    @cached_property
    def not_run(self) -> tuple[str, ...]:
        """Tasks of the suite of which there is no record at all."""
        if self.suite is None or not self.same_suite:
            return ()
        return tuple(task.name for task in self.suite.tasks if task.name not in self.tasks)

    def cells(self, agent: str, task: str) -> dict[int, Record]:
        """Records that are ok, by seed."""
        return self._cells.get((agent, task), {})

    # ------------------------------------------------------------------ scores
    def returns(self, agent: str, task: str, *, greedy: bool = False) -> dict[int, float]:
        """Mean held-out returns by seed; `greedy` ones where they were measured."""
        cells = self.cells(agent, task)
        if greedy:
            return {
                seed: float(np.mean(cell["greedy_returns"]))
                for seed, cell in cells.items()
                if cell["greedy_returns"]
            }
        return {seed: mean_return(cell) for seed, cell in cells.items()}

    def task_score(self, agent: str, task: str) -> Interval | None:
        """The normalised score on one task; None without a run or an anchor."""
        returns = self.returns(agent, task)
        if task not in self.anchors or not returns:
            return None
        scores = self._normalized(task, np.array(list(returns.values())))
        return statistics.mean(scores[:, None], _rng())

    def _normalized(self, task: str, returns: Floats) -> Floats:
        anchors = self.anchors[task]
        return (returns - anchors.random) / (anchors.oracle - anchors.random)

    @cached_property
    def scores(self) -> dict[str, Floats]:
        """`[n_seeds, n_tasks]` a ranked agent: normalised, NaN where there is no run."""
        columns = [self.results.tasks.index(task) for task in self.scored]
        agents = [agent for agent in self.results.agents if agent not in self.unranked]
        return {agent: self.results.scores(agent)[:, columns] for agent in agents}

    @cached_property
    def standings(self) -> tuple[Standing, ...]:
        """The ranked agents, best interquartile mean first."""
        found = [
            Standing(
                agent,
                statistics.iqm(scores, _rng()),
                statistics.mean(scores, _rng()),
                statistics.median(scores, _rng()),
                statistics.optimality_gap(scores, _rng()),
                {
                    other: statistics.probability_of_improvement(scores, others, _rng())
                    for other, others in self.scores.items()
                    if other != agent
                },
            )
            for agent, scores in self.scores.items()
        ]
        return tuple(sorted(found, key=lambda standing: -standing.iqm.value))

    @cached_property
    def not_told_apart(self) -> tuple[tuple[Standing, Standing], ...]:
        """Neighbours in the ranking whose intervals overlap, or are not known."""
        pairs = zip(self.standings, self.standings[1:], strict=False)
        return tuple(
            (one, other)
            for one, other in pairs
            if not statistics.verdict(one.agent, one.iqm, other.agent, other.iqm).apart
        )

    @cached_property
    def exact_tasks(self) -> tuple[str, ...]:
        """Tasks whose optimum is computed and above 0, so that a return is a share of it."""
        return tuple(
            task
            for task in self.tasks
            if task in self.anchors and self.anchors[task].exact and self.anchors[task].oracle > 0
        )

    @cached_property
    def shares(self) -> dict[str, Interval]:
        """Mean return over the exact optimum, averaged over tasks, of agents with all of them."""
        return {
            agent: statistics.mean(self.shares_of_runs(agent), _rng())
            for agent in (self.agents if self.exact_tasks else ())
            if all(self.cells(agent, task) for task in self.exact_tasks)
        }

    def shares_of_runs(self, agent: str) -> Floats:
        """Returns over the exact optimum, `[n_seeds, n_exact_tasks]`; NaN where there is no run."""
        columns = []
        for task in self.exact_tasks:
            found = self.returns(agent, task)
            returns = [found.get(seed, np.nan) for seed in self.results.seeds(agent)]
            columns.append(np.divide(returns, self.anchors[task].oracle))
        return np.stack(columns, axis=1)

    # ------------------------------------------------------------------ curves
    @cached_property
    def profiles(self) -> dict[str, Band]:
        """Shares of runs above each score, of all scores that there are."""
        if not self.scores:
            return {}
        every = np.concatenate([scores.ravel() for scores in self.scores.values()])
        low, high = min(0.0, np.nanmin(every)), max(1.0, np.nanmax(every))
        at = low + (high - low) * _THRESHOLDS
        return {
            agent: statistics.performance_profile(self.scores[agent], at, _rng())
            for agent in self.ranked
        }

    @cached_property
    def learning(self) -> dict[str, Band]:
        """Interquartile means of training episodes by the share of the budget that is spent."""
        return self._curves("tokens", of_budget=True)

    @cached_property
    def clock(self) -> dict[str, Band]:
        """The same by seconds of training. A run that is over keeps its last value."""
        return self._curves("seconds", of_budget=False)

    def task_learning(
        self, agent: str, task: str
    ) -> tuple[Band | None, list[tuple[Floats, Floats]]]:
        """The mean over seeds of the returns in training, by tokens; and each seed's own."""
        runs = self._task_curves(agent, task)
        if not runs:
            return None, []
        grid = _grid([x for x, _ in runs], math.inf)
        rows = np.stack([statistics.on_grid(x, y, grid) for x, y in runs])
        band = statistics.sample_efficiency(rows[:, None, :], grid, _rng(), statistic="mean")
        return band, runs

    def late_rise(self, agent: str, task: str) -> float | None:
        """By how much returns in training rose from the fourth to the last fifth of the tokens.

        The mean over seeds; None where no seed has a curve with points in both.
        """
        rises = []
        for x, y in self._task_curves(agent, task):
            late, before = y[x > 0.8 * x[-1]], y[(x > 0.6 * x[-1]) & (x <= 0.8 * x[-1])]
            if late.size and before.size:
                rises.append(late.mean() - before.mean())
        return float(np.mean(rises)) if rises else None

    def _task_curves(self, agent: str, task: str) -> list[tuple[Floats, Floats]]:
        return [found for cell in self.cells(agent, task).values() if (found := curve(cell))]

    @cached_property
    def budgets(self) -> dict[str, int]:
        """Tokens to learn from, by task."""
        return {record["task"]: record["budget"] for record in self.results.records}

    def _curves(self, axis: str, *, of_budget: bool) -> dict[str, Band]:
        found = {}
        for agent in self.ranked:
            runs: dict[tuple[int, int], tuple[Floats, Floats]] = {}
            seeds = self.results.seeds(agent)
            for column, task in enumerate(self.scored):
                for seed, cell in self.cells(agent, task).items():
                    points = curve(cell, axis)
                    if points is not None:
                        x = points[0] / (cell["budget"] if of_budget else 1.0)
                        runs[seeds.index(seed), column] = x, self._normalized(task, points[1])
            if {column for _, column in runs} != set(range(len(self.scored))):
                continue  # some task has no curve: the aggregate would be of other tasks
            grid = _grid([x for x, _ in runs.values()], 1.0 if of_budget else math.inf)
            table = np.full((len(seeds), len(self.scored), len(grid)), np.nan)
            for place, (x, y) in runs.items():
                table[place] = statistics.on_grid(x, y, grid)
            found[agent] = statistics.sample_efficiency(table, grid, _rng())
        return found

    # ------------------------------------------------------------------ costs
    @cached_property
    def costs(self) -> dict[str, Cost]:
        """By agent."""
        return {agent: self._cost(agent) for agent in self.agents}

    def _cost(self, agent: str) -> Cost:
        cells = [cell for task in self.tasks for cell in self.cells(agent, task).values()]
        names = ("tokens", "train_seconds", "cpu_seconds", "eval_seconds", "peak_mb")
        known = {n: [c[n] for c in cells if c[n] is not None] for n in names}
        means = {name: float(np.mean(v)) if v else None for name, v in known.items()}
        seconds = sum(known["train_seconds"])
        return Cost(
            len(cells),
            means["tokens"],
            means["train_seconds"],
            means["cpu_seconds"],
            means["eval_seconds"],
            max(known["peak_mb"], default=None),
            sum(known["tokens"]) / seconds if seconds else None,
        )

    def _ordered_tasks(self) -> tuple[str, ...]:
        tasks = self.results.tasks
        if self.suite is None:
            return tasks
        order = {task.name: place for place, task in enumerate(self.suite.tasks)}
        return tuple(sorted(tasks, key=lambda task: order.get(task, len(order))))


def curve(cell: Record, axis: str = "tokens") -> tuple[Floats, Floats] | None:
    """The points of a training curve, `[n]` each: where and how much; None without any.

    Points at which no episode ended, or that lie where the one before did, are left out.
    """
    x: list[float] = []
    y: list[float] = []
    for point in cell["curve"] or ():
        if point["mean_return"] is not None and (not x or point[axis] > x[-1]):
            x.append(float(point[axis]))
            y.append(float(point["mean_return"]))
    return (np.array(x), np.array(y)) if x else None


def _grid(runs: list[Floats], most: float) -> Floats:
    """Points from where all runs have been measured to the end of the longest."""
    first = max(float(x[0]) for x in runs)
    last = min(most, max(float(x[-1]) for x in runs))
    return np.linspace(first, last, POINTS) if last > first else np.array([first])


def _rng() -> np.random.Generator:
    """The same for every figure: a page that is written again is the same page."""
    return np.random.default_rng(0)


def _installed_suite(results: Results) -> Suite | None:
    return find_suite(results.suite) if results.suite.removesuffix(QUICK) in SUITES else None
