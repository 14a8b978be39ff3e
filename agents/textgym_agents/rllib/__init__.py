"""Ray RLlib's PPO (new API stack) on text: what trains on more than one machine.

RLlib brings the actors, the network and the recovery from lost machines; this package brings a
language model to it: an `RLModule`, the environments, and what makes whole texts of what was
sampled. Needs Ray: ``pip install "textgym[agents,rllib]"``, which wants Gymnasium 1.2.2.
"""

try:
    import ray.rllib as _rllib  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "ray" and not str(error.name).startswith("ray."):
        raise
    raise ModuleNotFoundError(
        "`textgym_agents.rllib` needs Ray RLlib, which is not installed. Install it, best in an "
        "environment of its own, with `pip install 'textgym[agents,rllib]'`.",
        name="ray",
    ) from error

from textgym_agents.rllib.algorithm import TextPPO
from textgym_agents.rllib.cluster import check_cluster, connect, connected
from textgym_agents.rllib.config import TextPPOConfig, rllib_config
from textgym_agents.rllib.envs import register_envs
from textgym_agents.rllib.module import LMModule
from textgym_agents.rllib.training import TrainedRun, current_module, export, train

__all__ = [
    "LMModule",
    "TextPPO",
    "TextPPOConfig",
    "TrainedRun",
    "check_cluster",
    "connect",
    "connected",
    "current_module",
    "export",
    "register_envs",
    "rllib_config",
    "train",
]
