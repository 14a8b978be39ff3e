"""`tree_search`: Monte-Carlo tree search of the texts that could follow, with a model's priors."""

from __future__ import annotations

from typing import Any, Literal

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from textgym.wrappers import set_state
from textgym_agents.decoding import Decoded, Prefix, next_log_probs, seen_of
from textgym_agents.lm import CausalLM
from textgym_agents.lm.episodes import BranchingCache


class _Node:
    """A prefix, and for each next token how often it was tried and what that came to."""

    def __init__(self, prefix: Prefix, log_priors: NDArray[np.float64]) -> None:
        self.prefix = prefix
        self.log_priors = log_priors  # [V]
        self.priors = np.exp(log_priors)
        self.visits = np.zeros(len(log_priors), np.int64)
        self.totals = np.zeros(len(log_priors))
        self.best = np.full(len(log_priors), -np.inf)
        self.closed = self.priors == 0  # not allowed, or tried to the end of all texts
        self.children: dict[int, _Node] = {}

    @property
    def spent(self) -> bool:
        """Whether there is nothing left to try below."""
        return self.prefix.over or bool(self.closed.all())


def tree_search(
    lm: CausalLM,
    env: gym.Env[Any, Any],
    *,
    simulations: int = 64,
    exploration: float = 1.5,
    rollout: Literal["lm", "random"] = "lm",
    seed: int | None = None,
    options: dict[str, Any] | None = None,
) -> Decoded:
    """The best text that a search finds, which goes on after each token that is written.

    Each simulation descends by PUCT, the model's probabilities being the priors, adds one prefix to
    the tree, writes on from there to the end, and counts the return for every token on its way.
    Returns are scaled by the least and the greatest that were seen, so that `exploration` needs no
    tuning to the reward.

    Nobody plays against the writer, and the environment does the same again: so the token is
    written that began the best text that was found (of equals, the one tried most), that text is
    the result unless a better one turns up, and what has been tried to its end is not tried again:
    with as many simulations as there are texts, the result is the optimum.

    Args:
        lm: the model.
        env: a single token environment, wrapped or not; its task's replies must not be random.
        simulations: for each token that is written.
        exploration: weight of the priors against what was found.
        rollout: texts are finished by the ``"lm"``, sampling, or by ``"random"`` tokens, which
            reads nothing and suits small vocabularies.
        seed, options: of the reset; `seed` is that of the rollouts too.

    Source: Silver et al. 2017, https://doi.org/10.1038/nature24270; Rosin 2011,
    https://doi.org/10.1007/s10472-011-9258-6 (PUCT); Schrittwieser et al. 2020,
    https://doi.org/10.1038/s41586-020-03051-4 (scaled returns); Schadd et al. 2008,
    https://doi.org/10.1007/978-3-540-87608-3_1 (a single player).
    """
    if simulations < 1:
        raise ValueError(f"`simulations` must be a positive int, got {simulations}.")
    if rollout not in ("lm", "random"):
        raise ValueError(f'`rollout` must be "lm" or "random", got {rollout!r}.')
    start = Prefix.reset(env, seed, options)
    search = _Search(lm, env, exploration, rollout, np.random.default_rng(seed), start)
    root = search.node(start)
    while not root.prefix.over:
        for _ in range(simulations):
            if root.spent:
                break
            search.simulate(root)
        root = root.children[int(np.lexsort((root.visits, root.best))[-1])]
    return search.best_or(root.prefix, start).decoded()


class _Search:
    """What the simulations of one search share."""

    def __init__(
        self,
        lm: CausalLM,
        env: gym.Env[Any, Any],
        exploration: float,
        rollout: str,
        rng: np.random.Generator,
        start: Prefix,
    ) -> None:
        self.lm, self.env, self.rng = lm, env, rng
        self.exploration, self.rollout = exploration, rollout
        self.cache = BranchingCache(lm, 1, len(start.input_ids))
        self.low, self.high = np.inf, -np.inf
        self.best_tokens: tuple[int, ...] = ()

    def node(self, prefix: Prefix) -> _Node:
        if prefix.over:
            return _Node(prefix, np.zeros(0))
        return _Node(prefix, next_log_probs(self.lm, self.cache, [prefix])[0])

    def simulate(self, root: _Node) -> None:
        """Add one prefix to the tree, and what it came to to all above it."""
        node, path = root, []
        while not node.prefix.over:
            token = self._select(node)
            path.append((node, token))
            if token in node.children:
                node = node.children[token]
                continue
            prior = float(node.log_priors[token])
            node.children[token] = self.node(node.prefix.after(self.env, token, prior))
            node = node.children[token]
            break
        total, tokens = self._finish(node)
        if total > self.high:
            self.high, self.best_tokens = total, tokens
        self.low = min(self.low, total)
        for above, token in reversed(path):
            above.visits[token] += 1
            above.totals[token] += total
            above.best[token] = max(above.best[token], total)
            above.closed[token] = above.children[token].spent

    def _select(self, node: _Node) -> int:
        means = node.totals / np.maximum(node.visits, 1)
        spread = self.high - self.low
        scaled = (means - self.low) / spread if spread > 0 else np.zeros(len(means))
        scaled = np.where(node.visits > 0, scaled, 0.0)  # nothing is known: as the worst
        tried = np.sqrt(max(1, int(node.visits.sum())))
        bonus = self.exploration * node.priors * tried / (1 + node.visits)
        return int(np.where(node.closed, -np.inf, scaled + bonus).argmax())

    def _finish(self, node: _Node) -> tuple[float, tuple[int, ...]]:
        """The return and the tokens of the text at `node` when it is written to its end."""
        tokens, total = list(node.prefix.tokens), node.prefix.total_reward
        if node.prefix.over:
            return total, node.prefix.tokens
        set_state(self.env, node.prefix.state)
        chances = self._chances(node.priors)
        while True:
            tokens.append(int(self.rng.choice(len(chances), p=chances)))
            observation, reward, terminated, truncated, info = self.env.step(tokens[-1])
            total += float(reward)
            if terminated or truncated:
                return total, tuple(tokens)
            if self.rollout == "lm":
                seen = Prefix(None, **seen_of(observation, info))
                chances = np.exp(next_log_probs(self.lm, self.cache, [seen])[0])
            else:
                allowed = info.get("action_mask", np.ones(len(chances)))
                chances = self._chances(np.asarray(allowed, float))

    def best_or(self, written: Prefix, start: Prefix) -> Prefix:
        """`written`, or the best text that was come by where that is better."""
        if self.high <= written.total_reward:
            return written
        prefix = start
        for token in self.best_tokens:
            log_prob = float(next_log_probs(self.lm, self.cache, [prefix])[0, token])
            prefix = prefix.after(self.env, token, log_prob)
        return prefix

    def _chances(self, priors: NDArray[np.float64]) -> NDArray[np.float64]:
        weights = priors if self.rollout == "lm" else (priors > 0).astype(float)
        return weights / weights.sum()
