"""Learning from a fixed data set of episodes: behaviour cloning, its filtered form, and ILQL.

One reader of data sets, one small network and three learners; nothing is asked of the environment.

    data = OfflineEpisodes.from_minari(minari.load_dataset("textgym/tokenlock/random-v0"))
    cloned = clone(data)                        # does what the data does
    better = clone(data.best(0.1))              # does what its best tenth does
    stitched = ilql(data, cloned)               # puts together the best of its tokens

All three act by `act(observation)` on what a vector of text environments gives.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional


# ---------------------------------------------------------------------- data
@dataclass(frozen=True)
class OfflineEpisodes:
    """N episodes of at most T of the agent's own tokens, in contexts of at most C.

    Args:
        input_ids: `[N, C] int64`, the context at the end, right-padded.
        places: `[N, T + 1] int64`, where the newest token of each state's context stands; the last
            one of an episode is that of the state it ended in, and is repeated behind that.
        left: `[N, T + 1] float32`, the fraction left of the budget in each state.
        actions: `[N, T] int64`.
        rewards: `[N, T] float32`.
        taken: `[N, T] bool`, False where an episode is over.
        terminated: `[N] bool`; where False, it was cut and could have gone on.
        vocab_size: V.
        budget: of tokens, what `left` is a fraction of.
    """

    input_ids: Tensor
    places: Tensor
    left: Tensor
    actions: Tensor
    rewards: Tensor
    taken: Tensor
    terminated: Tensor
    vocab_size: int
    budget: int

    @classmethod
    def from_minari(cls, dataset: Any) -> OfflineEpisodes:
        """Read a `minari.MinariDataset` of a text environment, such as `textgym export` writes.

        Raises:
            ValueError: its observations or actions are none of a text environment, or it is empty.
        """
        spaces = getattr(dataset.observation_space, "spaces", {})
        if not {"input_ids", "attention_mask", "remaining"} <= set(spaces):
            raise ValueError(
                "`dataset` must hold the observations of a text environment (input_ids, "
                f"attention_mask, remaining), got {dataset.observation_space}. Write it with "
                "`textgym export`."
            )
        episodes = list(dataset.iterate_episodes())
        if not episodes:
            raise ValueError("`dataset` has no episodes. Write some with `textgym export`.")
        budget = int(spaces["remaining"].high.max())
        steps = max(len(episode.actions) for episode in episodes)
        rows = [_row(episode, steps, budget) for episode in episodes]
        columns = {name: torch.as_tensor(np.stack([row[name] for row in rows])) for name in rows[0]}
        return cls(**columns, vocab_size=int(dataset.action_space.n), budget=budget)

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def returns(self) -> Tensor:
        """`[N] float32`: the sum of the rewards of each episode."""
        return self.rewards.sum(1)

    def __getitem__(self, rows: Tensor) -> OfflineEpisodes:
        """The episodes `rows`, `[M] int64`."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        taken = {name: x[rows] if isinstance(x, Tensor) else x for name, x in values.items()}
        return OfflineEpisodes(**taken)

    def best(self, share: float) -> OfflineEpisodes:
        """The `share` of the episodes with the highest returns, at least one.

        Raises:
            ValueError: `share` is not above 0 and at most 1.
        """
        if not 0.0 < share <= 1.0:
            raise ValueError(f"`share` must be above 0 and at most 1, got {share!r}.")
        count = max(1, round(share * len(self)))
        return self[self.returns.argsort(descending=True, stable=True)[:count]]

    def batches(self, size: int, steps: int, seed: int) -> Iterator[OfflineEpisodes]:
        """`steps` batches of `size` episodes, drawn with replacement."""
        generator = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            yield self[torch.randint(len(self), (size,), generator=generator)]


def _row(episode: Any, steps: int, budget: int) -> dict[str, NDArray[Any]]:
    """One episode of Minari's as a row of `OfflineEpisodes`."""
    seen, count = episode.observations, len(episode.actions)
    missing = (0, steps - count)
    places = np.asarray(seen["attention_mask"]).sum(1, dtype=np.int64) - 1
    left = np.asarray(seen["remaining"], np.float32)[:, 0] / np.float32(budget)
    return {
        "input_ids": np.asarray(seen["input_ids"][-1], np.int64),
        "places": np.pad(places, missing, mode="edge"),
        "left": np.pad(left, missing, mode="edge"),
        "actions": np.pad(np.asarray(episode.actions, np.int64), missing),
        "rewards": np.pad(np.asarray(episode.rewards, np.float32), missing),
        "taken": np.arange(steps) < count,
        "terminated": np.bool_(episode.terminations[-1]),
    }


# ---------------------------------------------------------------------- network
class GRUBackbone(nn.Module):
    """Causal states of a context: an embedding and a recurrent layer.

    Args:
        vocab_size: V.
        width: d.
    """

    def __init__(self, vocab_size: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, width)
        self.layer = nn.GRU(width, width, batch_first=True)

    def forward(self, input_ids: Tensor) -> Tensor:
        """`[B, C, d] float32` of `[B, C] int64`; a state depends on no token behind it."""
        states: Tensor = self.layer(self.embedding(input_ids))[0]
        return states


class TokenNetwork(nn.Module):
    """`outputs` numbers a state: a causal backbone, then a layer that also sees what is left.

    Args:
        backbone: `[B, C] int64 -> [B, C, width]`, causal: a `GRUBackbone`, or a language model's
            hidden states.
        width: d.
        outputs: how many.
    """

    def __init__(self, backbone: nn.Module, width: int, outputs: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Sequential(nn.Linear(width + 1, width), nn.ReLU(), nn.Linear(width, outputs))

    def forward(self, input_ids: Tensor, places: Tensor, left: Tensor) -> Tensor:
        """`[B, T, outputs]` of the states at `places` `[B, T] int64`, `left` `[B, T] float32`."""
        states = self.backbone(input_ids)
        states = states.gather(1, places[..., None].expand(-1, -1, states.shape[-1]))
        return self.head(torch.cat([states, left[..., None]], -1))


# What makes a network with so many outputs; called once for each network that a learner needs.
NetworkMaker = Callable[[int, int], TokenNetwork]


def small_network(vocab_size: int, outputs: int, width: int = 64) -> TokenNetwork:
    """A `TokenNetwork` on a `GRUBackbone`, enough for small vocabularies."""
    return TokenNetwork(GRUBackbone(vocab_size, width), width, outputs)


class OfflinePolicy:
    """A policy given by scores.

    Args:
        scores: `(input_ids, places, left) -> [B, T, V]`, log-probs up to a constant.
        budget: of tokens.
        seed: of the tokens it draws.
    """

    def __init__(
        self, scores: Callable[[Tensor, Tensor, Tensor], Tensor], budget: int, *, seed: int = 0
    ) -> None:
        self.scores = scores
        self._budget = budget
        self._generator = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def log_probs(
        self, observation: Mapping[str, NDArray[Any]], masks: NDArray[Any] | None = None
    ) -> Tensor:
        """`[B, V]`, nats, of the next token.

        Args:
            observation: of a vector of text environments.
            masks: `[B, V]`, which tokens are allowed, where a mask applies.
        """
        places = torch.as_tensor(observation["attention_mask"]).long().sum(1, keepdim=True) - 1
        left = torch.as_tensor(observation["remaining"], dtype=torch.float32) / self._budget
        scores = self.scores(torch.as_tensor(observation["input_ids"]), places, left)[:, 0]
        if masks is not None:
            scores = scores.masked_fill(~torch.as_tensor(masks).bool(), -torch.inf)
        return scores.log_softmax(-1)

    def act(
        self,
        observation: Mapping[str, NDArray[Any]],
        masks: NDArray[Any] | None = None,
        *,
        greedy: bool = False,
    ) -> NDArray[np.int64]:
        """`[B] int64`: the next token of every row, drawn or, if `greedy`, the likeliest."""
        log_probs = self.log_probs(observation, masks)
        if greedy:
            return log_probs.argmax(-1).numpy()
        return log_probs.exp().multinomial(1, generator=self._generator)[:, 0].numpy()


# ---------------------------------------------------------------------- learners
def clone(
    data: OfflineEpisodes,
    *,
    network: NetworkMaker = small_network,
    steps: int = 300,
    batch_size: int = 128,
    learning_rate: float = 3e-3,
    seed: int = 0,
) -> OfflinePolicy:
    """Behaviour cloning: the likeliest policy to have written `data`; filtered, of `data.best(x)`.

    Args:
        data: what to learn from.
        network: makes the policy's network.
        steps: gradient steps.
        batch_size: episodes a step.
        learning_rate: of Adam.
        seed: of the network's start, the batches and the policy.

    Source: Pomerleau 1988; filtered: "%BC" of Chen et al. 2021 (arXiv:2106.01345).
    """
    policy = _seeded(network, seed, data.vocab_size, data.vocab_size)
    optimizer = torch.optim.Adam(policy.parameters(), lr=learning_rate)
    for batch in data.batches(batch_size, steps, seed):
        optimizer.zero_grad()
        logits = policy(batch.input_ids, batch.places[:, :-1], batch.left[:, :-1])
        functional.cross_entropy(logits[batch.taken], batch.actions[batch.taken]).backward()
        optimizer.step()
    return OfflinePolicy(policy.eval(), data.budget, seed=seed)


def ilql(
    data: OfflineEpisodes,
    behaviour: OfflinePolicy,
    *,
    network: NetworkMaker = small_network,
    steps: int = 600,
    batch_size: int = 128,
    learning_rate: float = 3e-3,
    gamma: float = 1.0,
    expectile: float = 0.8,
    cql_coef: float = 0.01,
    beta: float = 16.0,
    target_rate: float = 0.02,
    seed: int = 0,
) -> OfflinePolicy:
    """Implicit language Q-learning: token values of the best that the data supports.

    V is the `expectile` of Q over the data's own tokens, so that no token is valued that the data
    lacks; Q is learned towards ``r + gamma * V(s')``. The policy is the behaviour's, with every
    token weighted by ``exp(beta * (Q - V))``.

    Args:
        data: what to learn from.
        behaviour: the cloned policy, which keeps to tokens that occur.
        network: makes the value network, V + V + 1 outputs: two estimates of Q, and V.
        steps: gradient steps.
        batch_size: episodes a step.
        learning_rate: of Adam.
        gamma: discount.
        expectile: of the value; 0.5 values the data's policy, 1 its best tokens.
        cql_coef: weight of the loss that keeps the Q of tokens not taken below that of those taken.
        beta: how sharply advantages weigh, in 1 / reward.
        target_rate: by how much the targets follow at a step.
        seed: of the network's start, the batches and the policy.

    Raises:
        ValueError: `expectile` is not above 0 and below 1.

    Source: Snell et al. 2022 (arXiv:2206.11871).
    """
    if not 0.0 < expectile < 1.0:
        raise ValueError(f"`expectile` must be above 0 and below 1, got {expectile!r}.")
    values = _seeded(network, seed, data.vocab_size, 2 * data.vocab_size + 1)
    targets = copy.deepcopy(values).requires_grad_(False)
    optimizer = torch.optim.Adam(values.parameters(), lr=learning_rate)
    for batch in data.batches(batch_size, steps, seed):
        optimizer.zero_grad()
        online, target = (
            split_values(net(batch.input_ids, batch.places, batch.left))
            for net in (values, targets)
        )
        ilql_loss(batch, online, target, gamma, expectile, cql_coef).backward()
        optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(targets.parameters(), values.parameters(), strict=True):
                slow.lerp_(fast, target_rate)
    targets.eval()

    def scores(input_ids: Tensor, places: Tensor, left: Tensor) -> Tensor:
        qs, v = split_values(targets(input_ids, places, left))
        log_probs = behaviour.scores(input_ids, places, left).log_softmax(-1)
        return log_probs + beta * (torch.minimum(*qs) - v[..., None])

    return OfflinePolicy(scores, data.budget, seed=seed)


Values = tuple[tuple[Tensor, Tensor], Tensor]


def split_values(outputs: Tensor) -> Values:
    """Two estimates of Q, `[B, T, V]`, and V, `[B, T]`, of a value network's outputs."""
    size = outputs.shape[-1] // 2
    return (outputs[..., :size], outputs[..., size : 2 * size]), outputs[..., -1]


def ilql_loss(
    batch: OfflineEpisodes,
    online: Values,
    target: Values,
    gamma: float,
    expectile: float,
    cql_coef: float,
) -> Tensor:
    """The loss of `ilql`, a mean over the tokens of `batch`.

    Args:
        batch: B episodes.
        online: values in all T + 1 states, which are learned.
        target: those of the targets, without gradients.
        gamma, expectile, cql_coef: see `ilql`.
    """
    (qs, v), (target_qs, _) = online, target
    own = batch.taken
    chosen = [q[:, :-1].gather(-1, batch.actions[..., None])[..., 0][own] for q in qs]
    target_q = torch.minimum(*target_qs)[:, :-1].gather(-1, batch.actions[..., None])[..., 0][own]
    last = own & ~functional.pad(own[:, 1:], (0, 1))
    goes_on = ~(last & batch.terminated[:, None])
    aim = (batch.rewards + gamma * v[:, 1:].detach() * goes_on)[own]
    q_loss = sum((q - aim).square().mean() for q in chosen)
    error = target_q - v[:, :-1][own]
    v_loss = (torch.where(error > 0, expectile, 1 - expectile) * error.square()).mean()
    cql_loss = sum(functional.cross_entropy(q[:, :-1][own], batch.actions[own]) for q in qs)
    return q_loss + v_loss + cql_coef * cql_loss


def _seeded(network: NetworkMaker, seed: int, vocab_size: int, outputs: int) -> TokenNetwork:
    """A network that depends on `seed` alone; torch's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return network(vocab_size, outputs)
