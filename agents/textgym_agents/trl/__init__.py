"""TRL's trainers on text environments: prompts, exact rewards, per-token advantages.

TRL does the writing; the environment says what is asked and what it is worth. Needs `trl` and
`datasets`: ``pip install "textgym[trl]"``.
"""

from typing import TYPE_CHECKING, Any

from textgym_agents.trl.prompts import as_trl_tokenizer, prompts_dataset
from textgym_agents.trl.rewards import EpisodeReward, reward_functions

if TYPE_CHECKING:
    from textgym_agents.trl.trainer import TokenRewardGRPOTrainer

__all__ = [
    "EpisodeReward",
    "TokenRewardGRPOTrainer",
    "as_trl_tokenizer",
    "prompts_dataset",
    "reward_functions",
]


def __getattr__(name: str) -> Any:
    # A subclass of TRL's trainer, which takes seconds to import: only when asked for.
    if name != "TokenRewardGRPOTrainer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from textgym_agents.trl.trainer import TokenRewardGRPOTrainer

    return TokenRewardGRPOTrainer
