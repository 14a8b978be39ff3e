"""From sampled steps to packed episodes: the connectors and the callback.

On an env runner, `TokensOnce` hands the module each context and keeps none of it, and
`WholeEpisodes` holds back what is unfinished. On a learner, `PackEpisodes` turns whole episodes
into rewards, values, advantages and minibatches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from torch import Tensor

from textgym import Episode
from textgym_agents.rllib.module import (
    COMPLETION_MASK,
    INPUT_IDS,
    LOG_PROBS,
    SUPPORT,
    LMModule,
)

ADVANTAGES, RETURNS, WEIGHT = "advantages", "returns", "weight"


class TokensOnce(ConnectorV2):
    """Env-to-module: the observation goes to the module; the episode keeps only `remaining`.

    Otherwise an episode of n tokens would keep n contexts, and send them over the network. The
    environment's own record of the episode has every token once.
    """

    def __call__(self, *, batch: dict[str, Any], episodes: Any, **kwargs: Any) -> Any:
        """Add the last observation of each episode to `batch`."""
        steps = self.single_agent_episode_iterator(episodes, agents_that_stepped_only=False)
        for episode in steps:
            observation = episode.get_observations(-1)
            self.add_batch_item(batch, Columns.OBS, observation, episode)
            kept = {"remaining": observation["remaining"]}
            episode.set_observations(new_data=kept, at_indices=-1)
        return batch


class WholeEpisodes(RLlibCallback):
    """Holds back the chunks of an unfinished episode until a later call to `sample` finishes it.

    RLlib's own ``batch_mode="complete_episodes"`` starts all rows anew at each call, takes the
    first episodes to end and drops the rest: short ones would be over-represented, which rewards
    stopping early. Here every step of every row is used, once.
    """

    def __init__(self) -> None:
        super().__init__()
        self._open: dict[str, SingleAgentEpisode] = {}

    def on_sample_end(self, *, samples: list[SingleAgentEpisode], **kwargs: Any) -> None:
        """Leave only whole episodes in `samples`."""
        whole, still_open = [], {}
        for chunk in samples:
            begun = self._open.get(chunk.id_)
            if begun is not None:
                begun.concat_episode(chunk)
                chunk = begun
            if chunk.is_done:
                whole.append(chunk.to_numpy())
            else:
                still_open[chunk.id_] = chunk
        self._open = still_open  # what began before a reset by RLlib is forgotten
        samples[:] = whole


def record_of(episode: SingleAgentEpisode) -> Episode:
    """The environment's record of a whole episode.

    Raises:
        ValueError: there is none, or it is not of the tokens that RLlib sampled.
    """
    record = episode.get_infos(-1).get("episode_record")
    if record is None:
        raise ValueError(
            "an episode ended without a record of it. Use a `textgym/...` environment without "
            "outside limits, and end texts by `max_new_tokens`."
        )
    actions = np.asarray(episode.get_actions()).ravel()
    if not np.array_equal(record.completion_ids, actions):
        raise ValueError(
            f"an episode of {len(actions)} sampled tokens has a record of other tokens "
            f"({len(record.completion_ids)}). Wrappers must not change actions; use "
            "`autoreset_mode=NEXT_STEP`."
        )
    return record


class PackEpisodes(ConnectorV2):
    """Learner: whole episodes as rows that are minibatches.

    The batch has arrays of shape `[M, S, T]`: M minibatches of at most S episodes of at most T
    tokens, padded with 0; `completion_mask` is True at the agent's own tokens, and `log_probs` (at
    rollout), `advantages` and `returns` belong to the tokens they stand at. `weight [M]` makes the
    sum over tokens of a minibatch the mean over those of all learners once their gradients are
    averaged.

    The reward for staying near the reference, -kl_coef * (log pi - log p_ref) for each token (k1:
    exact in expectation), is added here, before the advantages. These are whitened over the tokens
    of all learners.

    Args:
        minibatch_tokens: of each learner; about as many.
        gamma, lambda_: of the advantages.
        kl_target: nats a sequence, towards which `kl_coef` is adapted; None: fixed.
    """

    def __init__(
        self,
        input_observation_space: Any = None,
        input_action_space: Any = None,
        *,
        minibatch_tokens: int,
        gamma: float,
        lambda_: float,
        kl_target: float | None,
    ) -> None:
        super().__init__(input_observation_space, input_action_space)
        self.minibatch_tokens = minibatch_tokens
        self.gamma = gamma
        self.lambda_ = lambda_
        self.kl_target = kl_target

    def __call__(
        self, *, rl_module: Any, episodes: Sequence[SingleAgentEpisode], metrics: Any, **kw: Any
    ) -> dict[str, Any]:
        """The batch of `episodes` by module."""
        module = rl_module[DEFAULT_MODULE_ID].unwrapped()
        device = module.lm.device
        batch = _stacked(episodes, device)
        mask = batch[COMPLETION_MASK]
        values, ref_log_probs = module.score(batch)
        rewards = _rewards(episodes).to(device)
        figures: dict[str, float] = {}
        if ref_log_probs is not None:
            log_ratio = batch[LOG_PROBS][mask] - ref_log_probs
            rewards = rewards - module.kl_coef.float() * log_ratio
            figures |= self._kl(module, log_ratio, len(episodes))
        counts = mask.sum(dim=1)
        advantages = gae(rewards, values, counts, self.gamma, self.lambda_)
        returns = advantages + values
        figures["explained_variance"] = _explained(values, returns)
        for name, column in ((ADVANTAGES, whitened(advantages)), (RETURNS, returns)):
            batch[name] = torch.zeros_like(batch[LOG_PROBS])
            batch[name][mask] = column
        metrics.log_dict(figures, key=DEFAULT_MODULE_ID, window=1)
        return {DEFAULT_MODULE_ID: self._minibatches(batch, counts)}

    def _kl(self, module: LMModule, log_ratio: Tensor, num_episodes: int) -> dict[str, float]:
        sums = torch.tensor([float(log_ratio.sum()), len(log_ratio), num_episodes])
        total, tokens, episodes = over_learners(sums, log_ratio.device).tolist()
        figures = {
            "kl_per_token": total / tokens,
            "kl_per_sequence": total / episodes,
            "kl_coef": float(module.kl_coef),
        }
        if self.kl_target is not None:  # Ziegler et al. 2019, arXiv:1909.08593, section 2.2
            error = float(np.clip(total / episodes / self.kl_target - 1.0, -0.2, 0.2))
            module.kl_coef.mul_(1.0 + 0.5 * error)
        return figures

    def _minibatches(self, batch: dict[str, Tensor], counts: Tensor) -> dict[str, Tensor]:
        sizes = counts.cpu().numpy()
        least = -int(over_learners(torch.tensor([-float(len(sizes))]), counts.device, "max")[0])
        most = int(over_learners(torch.tensor([float(sizes.sum())]), counts.device, "max")[0])
        # The same number on every learner, whose gradients are averaged at each step.
        groups = spread(sizes, max(1, min(round(most / self.minibatch_tokens), least)))
        height = max(map(len, groups))
        rows = {}
        for name, column in batch.items():
            made = column.new_zeros((len(groups), height, *column.shape[1:]))
            for i, group in enumerate(groups):
                made[i, : len(group)] = column[group]
            rows[name] = made
        tokens = torch.tensor([float(sizes[g].sum()) for g in groups])
        tokens = over_learners(tokens, counts.device) / world_size()
        rows[WEIGHT] = (1.0 / tokens).to(counts.device)
        return rows


def _stacked(episodes: Sequence[SingleAgentEpisode], device: torch.device) -> dict[str, Tensor]:
    """`[N, T]` columns of `episodes`."""
    records = [record_of(episode) for episode in episodes]
    shape = (len(records), max(len(r.input_ids) for r in records))
    ids, mask = np.zeros(shape, np.int64), np.zeros(shape, np.bool_)
    for i, record in enumerate(records):
        ids[i, : len(record.input_ids)] = record.input_ids
        mask[i, : len(record.input_ids)] = record.completion_mask
    log_probs = np.zeros(shape, np.float32)
    log_probs[mask] = _extra(episodes, Columns.ACTION_LOGP)
    columns: dict[str, NDArray[Any]] = {INPUT_IDS: ids, COMPLETION_MASK: mask, LOG_PROBS: log_probs}
    if SUPPORT in episodes[0].extra_model_outputs:
        bits = _extra(episodes, SUPPORT)
        columns[SUPPORT] = np.zeros((*shape, bits.shape[-1]), np.uint8)
        columns[SUPPORT][mask] = bits
    return {name: torch.from_numpy(column).to(device) for name, column in columns.items()}


def _extra(episodes: Sequence[SingleAgentEpisode], key: str) -> NDArray[Any]:
    return np.concatenate([np.asarray(e.get_extra_model_outputs(key)) for e in episodes])


def _rewards(episodes: Sequence[SingleAgentEpisode]) -> Tensor:
    rewards = np.concatenate([np.asarray(e.get_rewards(), np.float32) for e in episodes])
    return torch.from_numpy(rewards)


def gae(rewards: Tensor, values: Tensor, counts: Tensor, gamma: float, lambda_: float) -> Tensor:
    """`[n]` advantages of whole episodes, one after the other, of `counts [N]` tokens each.

    Source: Schulman et al. 2015, https://arxiv.org/abs/1506.02438.
    """
    inside = torch.arange(int(counts.max()), device=counts.device) < counts[:, None]  # [N, A]

    def dense(flat: Tensor) -> Tensor:
        out = torch.zeros(inside.shape, dtype=torch.float32, device=flat.device)
        out[inside] = flat.float()
        return out

    value = dense(values)
    after = torch.nn.functional.pad(value[:, 1:], (0, 1))  # 0 after the end
    delta = dense(rewards) + gamma * after - value
    advantages = torch.zeros_like(delta)
    last = torch.zeros_like(delta[:, 0])
    for t in reversed(range(delta.shape[1])):
        last = advantages[:, t] = delta[:, t] + gamma * lambda_ * last
    return advantages[inside]


def whitened(advantages: Tensor) -> Tensor:
    """`advantages [n]` with mean 0 and standard deviation 1 over all learners."""
    x = advantages.double()
    sums = torch.stack([torch.ones_like(x).sum(), x.sum(), (x * x).sum()]).cpu()
    n, total, squares = over_learners(sums, advantages.device).tolist()
    mean = total / n
    deviation = max(squares / n - mean * mean, 0.0) ** 0.5
    return ((x - mean) / (deviation + 1e-8)).float()


def spread(sizes: NDArray[np.int64], count: int) -> list[list[int]]:
    """Indices of `sizes` in `count` groups of nearly equal sums, none of them empty."""
    groups: list[list[int]] = [[] for _ in range(count)]
    filled = np.zeros(count)
    for i in np.argsort(-np.asarray(sizes), kind="stable"):
        least = int(filled.argmin())
        groups[least].append(int(i))
        filled[least] += sizes[i]
    return groups


def world_size() -> int:
    """The learners whose gradients are averaged."""
    joined = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if joined else 1


def over_learners(values: Tensor, device: torch.device, how: str = "sum") -> Tensor:
    """`values` summed (or their greatest) over the learners, on the CPU."""
    if world_size() == 1:
        return values
    shared = values.to(device)
    operations = {"sum": torch.distributed.ReduceOp.SUM, "max": torch.distributed.ReduceOp.MAX}
    torch.distributed.all_reduce(shared, op=operations[how])
    return shared.cpu()


def _explained(values: Tensor, returns: Tensor) -> float:
    variance = float(returns.var(unbiased=False))
    return 0.0 if variance == 0 else 1.0 - float((returns - values).var(unbiased=False)) / variance
