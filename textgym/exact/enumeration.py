"""The tree of any environment that is small enough, by trying every token everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from textgym.envs.contexts import Observation
from textgym.episode import Instance
from textgym.exact.graph import DEFAULT_LIMIT, Graph, Layer, check_size, root_index
from textgym.seeding import instance_rng

_REMEDY = (
    "Use fewer instances, fewer tokens (`tokenizer=`, `banned_tokens=`) or a smaller "
    "`max_new_tokens`"
)


def enumerate_env(
    env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any],
    instances: int | Sequence[Instance | str] = 1,
    *,
    seed: int = 0,
    limit: int = DEFAULT_LIMIT,
) -> Graph:
    """Every context of `instances` and what each token there pays, wrappers and all.

    Every prefix is replayed from the start, so that any environment will do whose steps depend on
    the instance and the tokens alone. A vector environment replays as many at once as it has rows,
    which is faster by far. `env` is reset many times.

    Args:
        env: a token environment, wrapped or not, with added rewards, masks and replies, or not.
        instances: equally probable: `Instance`s, prompts, or how many to take of row 0 of `seed`.
        seed: where a number of instances are drawn from.
        limit: the most steps, a token taken in some context.

    Raises:
        ValueError: there are more, found before they are tried.

    Example:
        >>> import gymnasium as gym
        >>> from textgym.exact import evaluate, optimum
        >>> env = gym.make("textgym/TokenLock-v0", vocab_size=4, keys=2, pins=2, max_new_tokens=3)
        >>> tree = enumerate_env(env)
        >>> optimum(tree).expected_return
        1.0
        >>> round(evaluate(tree).expected_return, 6) # of a random policy
        0.058594
    """
    player = _Player(env)
    asked = _instances(player.core, instances, seed)
    owners = np.arange(len(asked))
    tokens = np.zeros((len(asked), 0), np.int64)
    _, _, seen, allowed = player.play([asked[i] for i in owners], tokens)
    _refuse_early(player, seen, allowed, limit)
    layers: list[Layer] = []
    steps = 0
    while len(owners):
        nodes, actions = np.nonzero(allowed)
        steps += len(nodes)
        check_size(steps, limit, player.name, _REMEDY, at_least=True)
        sequences = np.concatenate([tokens[nodes], actions[:, None]], axis=1)
        paid, ended, after, masks = player.play([asked[i] for i in owners[nodes]], sequences)
        rewards, children = np.zeros(allowed.shape), np.full(allowed.shape, -1, np.int64)
        rewards[nodes, actions] = paid
        going = np.flatnonzero(~ended)
        children[nodes[going], actions[going]] = np.arange(len(going))
        layers.append(Layer(rewards, children, allowed, seen))
        owners, tokens, allowed = owners[nodes[going]], sequences[going], masks[going]
        seen = {key: array[going] for key, array in after.items()}
    return Graph(tuple(layers), np.full(len(asked), 1 / len(asked)), root_index(asked))


def _instances(core: Any, instances: int | Sequence[Instance | str], seed: int) -> list[Instance]:
    if isinstance(instances, str | Instance):
        raise TypeError(f"`instances` must be a list or a number, got {instances!r}. Use `[...]`.")
    if isinstance(instances, int):
        if instances < 1:
            raise ValueError(f"`instances` must be at least 1, got {instances}.")
        draws = [instance_rng(seed, core.split, 0, index) for index in range(instances)]
        found = [core.task.draw(rng, core.split) for rng in draws]
    else:
        found = [core.task.from_prompt(i) if isinstance(i, str) else i for i in instances]
    if not found or len(set(found)) < len(found):
        raise ValueError(
            f"`instances` must be one or more different ones, got {len(found)}, of which "
            f"{len(set(found))} are different. Ask for fewer, or list them."
        )
    return found


def _refuse_early(
    player: _Player, seen: Observation, allowed: NDArray[np.bool_], limit: int
) -> None:
    """Say at once what is hopeless: every token but end-of-sequence goes on until the budget."""
    horizon = min([int(seen["remaining"].min()), *player.step_limits()])
    fewest = int(allowed.sum(axis=1).min())
    steps = len(allowed) * fewest * sum((fewest - 1) ** depth for depth in range(horizon))
    check_size(steps, limit, player.name, _REMEDY, at_least=True)


class _Player:
    """Replays token sequences in a single or a vector environment."""

    def __init__(self, env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any]) -> None:
        self.env: Any = env
        self.core: Any = env.unwrapped
        self.rows = env.num_envs if isinstance(env, VectorEnv) else 0  # 0: a single one
        space = env.single_action_space if isinstance(env, VectorEnv) else env.action_space
        self.vocab_size = int(space.n)  # type: ignore[attr-defined]
        spec = getattr(env, "spec", None)
        self.name = getattr(spec, "id", None) or type(getattr(self.core, "task", env)).__name__

    def step_limits(self) -> list[int]:
        """Limits from outside the task."""
        spec, own = getattr(self.env, "spec", None), getattr(self.core, "max_episode_steps", None)
        found = (getattr(spec, "max_episode_steps", None), own)
        return [limit for limit in found if limit is not None]

    def play(
        self, instances: Sequence[Instance], sequences: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_], Observation, NDArray[np.bool_]]:
        """Take `sequences [n, t]`, none of which ends before its last token.

        Returns:
            `[n]` what the last token paid, `[n]` whether it ended the episode, and the observations
            and the tokens allowed after it.
        """
        size = self.rows or 1
        results = [
            self._play(instances[i : i + size], sequences[i : i + size])
            for i in range(0, len(instances), size)
        ]
        paid, ended, seen, masks = zip(*results, strict=True)
        observations = {key: np.concatenate([part[key] for part in seen]) for key in seen[0]}
        return np.concatenate(paid), np.concatenate(ended), observations, np.concatenate(masks)

    def _play(self, instances: Sequence[Instance], sequences: NDArray[np.int64]) -> Any:
        count = len(instances)
        if self.rows:
            spare = self.rows - count  # the other rows do as the last one
            options: dict[str, Any] = {"instance": [*instances, *[instances[-1]] * spare]}
            actions = np.concatenate([sequences, sequences[-1:].repeat(spare, axis=0)])
        else:
            options = {"instance": instances[0]}
            actions = sequences
        seen, info = self.env.reset(options=options)
        paid: Any = np.zeros(max(self.rows, 1))
        ended: Any = np.zeros(max(self.rows, 1), np.bool_)
        for column in actions.T:
            if np.any(ended):
                raise ValueError(
                    f"{self.name}: the same tokens ended an episode this time and not the time "
                    "before. Only what depends on instance and tokens alone can be enumerated."
                )
            step = self.env.step(column if self.rows else int(column[0]))
            seen, paid, terminated, truncated, info = step
            ended = np.logical_or(terminated, truncated)
        observation = {
            key: np.array(array if self.rows else array[None])[:count]
            for key, array in seen.items()
        }
        masks = np.ones((count, self.vocab_size), np.bool_)
        if "action_mask" in info:
            masks = np.array(info["action_mask"], np.bool_).reshape(-1, self.vocab_size)[:count]
        return (
            np.array(paid, np.float64).reshape(-1)[:count],
            np.array(ended).reshape(-1)[:count],
            observation,
            masks,
        )
