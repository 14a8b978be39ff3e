"""Gymnasium environments in which an agent writes text token by token.

Importing this module registers them: `gymnasium.make("textgym/Story-v0")`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from textgym.registration import list_ids, register_all

if TYPE_CHECKING:
    from textgym.envs.token_env import TokenEnv
    from textgym.envs.token_vector_env import TokenVectorEnv
    from textgym.episode import Episode, Instance, Turn
    from textgym.errors import RewardError
    from textgym.rewards.base import Reward
    from textgym.spaces import TokenSpace
    from textgym.tasks.base import Reply, Task
    from textgym.tokenization import Tokenizer

__version__ = "0.1.0"

__all__ = [
    "Episode",
    "Instance",
    "Reply",
    "Reward",
    "RewardError",
    "Task",
    "TokenEnv",
    "TokenSpace",
    "TokenVectorEnv",
    "Tokenizer",
    "Turn",
    "__version__",
    "list_ids",
]

# Imported when first asked for: `import textgym` costs little more than Gymnasium itself.
_HOMES = {
    "Episode": "textgym.episode",
    "Instance": "textgym.episode",
    "Reply": "textgym.tasks.base",
    "Reward": "textgym.rewards.base",
    "RewardError": "textgym.errors",
    "Task": "textgym.tasks.base",
    "TokenEnv": "textgym.envs.token_env",
    "TokenSpace": "textgym.spaces",
    "TokenVectorEnv": "textgym.envs.token_vector_env",
    "Tokenizer": "textgym.tokenization",
    "Turn": "textgym.episode",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'textgym' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_all()
