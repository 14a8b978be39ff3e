"""`TokenRewardGRPOTrainer`: TRL's GRPO with an advantage for each token."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from textgym_agents.trl.rewards import EpisodeReward

try:
    from trl import GRPOTrainer
except ImportError as error:
    raise ImportError(
        'TokenRewardGRPOTrainer needs `trl`. Install it with `pip install "textgym[trl]"`.'
    ) from error


class TokenRewardGRPOTrainer(GRPOTrainer):
    """TRL's GRPO, where rewards paid to a token count from that token on alone.

    TRL's own trainer sums what an episode earns and gives all of its tokens the same advantage. Its
    loss takes advantages `[B, T]` as well, which this subclass supplies. Where no reward is per
    token it is `GRPOTrainer`.

    Args:
        reward_funcs: of `reward_functions`, all of them.
        others: those of `trl.GRPOTrainer`.

    Raises:
        TypeError: another kind of reward function.
        ValueError: several processes (a group may then lie in two of them), `scale_rewards` over
            the batch, or `mask_truncated_completions`.
    """

    def __init__(self, *args: Any, **others: Any) -> None:
        super().__init__(*args, **others)
        for function in self.reward_funcs:
            if not isinstance(function, EpisodeReward):
                raise TypeError(
                    "`reward_funcs` must come from `reward_functions(env)`, got "
                    f"{function!r}. Use `trl.GRPOTrainer` for others."
                )
        if self.accelerator.num_processes > 1:
            raise ValueError("per-token advantages need one process. Use `trl.GRPOTrainer`.")
        if (
            self.scale_rewards == "batch"
            or self.multi_objective_aggregation != "sum_then_normalize"
        ):
            raise ValueError(
                'per-token advantages need `scale_rewards="group"` or `"none"` and '
                '`multi_objective_aggregation="sum_then_normalize"`.'
            )
        if self.mask_truncated_completions:
            raise ValueError("per-token advantages need `mask_truncated_completions=False`.")

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        ids, mask = output["completion_ids"], output["completion_mask"].bool()
        written = [row[keep].tolist() for row, keep in zip(ids, mask, strict=True)]
        columns = {key: [row[key] for row in inputs] for key in ("seed", "split", "index")}
        prompts = [row["prompt"] for row in inputs]
        rewards = np.zeros(mask.shape)
        for function, weight in zip(self.reward_funcs, self.reward_weights.tolist(), strict=True):
            for row, earned in zip(
                rewards, function.token_rewards(prompts, written, **columns), strict=True
            ):
                row[: len(earned)] += weight * earned
        training = self.model.training
        output["advantages"] = token_advantages(
            torch.from_numpy(rewards).to(ids.device),
            mask,
            self.num_generations if training else self.num_generations_eval,
            scale=self.scale_rewards == "group",
        ).float()
        return output


def token_advantages(rewards: Tensor, mask: Tensor, group: int, *, scale: bool) -> Tensor:
    """Group-relative advantages of tokens.

    A token is credited with what its completion earns from it on, less what the group's
    completions earn on average, less what those still being written had earned before that
    position. That baseline does not depend on the token. Where all is paid to the last tokens,
    every token of a completion has GRPO's advantage.

    Args:
        rewards: `[B, T]`, 0 outside `mask`; rows of a group stand together.
        mask: `[B, T] bool`, True at the tokens of each completion.
        group: completions a prompt.
        scale: divide by the standard deviation (n - 1) of the group's returns, plus 1e-4.

    Returns:
        `[B, T]`, 0 outside `mask`.

    Source: Shao et al. 2024, https://arxiv.org/abs/2402.03300 (advantages relative to a group, of
        outcomes and, section 4.1.3, of steps).
    """
    returns = rewards.sum(1).view(-1, group)
    before = rewards.cumsum(1) - rewards
    alive = mask.to(rewards.dtype)
    in_groups = (-1, group, rewards.shape[1])
    writing = alive.view(in_groups).sum(1).clamp(min=1)
    earned = (before * alive).view(in_groups).sum(1) / writing
    centred = returns - returns.mean(1, keepdim=True)
    advantages = centred.unsqueeze(2) - before.view(in_groups) + earned.unsqueeze(1)
    if scale:
        advantages = advantages / (returns.std(1) + 1e-4)[:, None, None]
    return advantages.view(rewards.shape) * alive
