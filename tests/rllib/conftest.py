import os
import tempfile

import pytest
import ray
import torch

from textgym_agents.rllib import connect, rllib_config
from textgym_agents.rllib.envs import make_rows

ENV = "textgym/Sorting-v0"


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="module")  # commands start clusters of their own
def cluster():
    """A small cluster on this machine; stopped whatever happens."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder:
        connect(num_cpus=4, temp_dir=folder, object_store_memory=120 * 2**20)
        try:
            yield
        finally:
            ray.shutdown()


@pytest.fixture
def config():
    """A configuration of the bundled model that runs in seconds."""

    def make(**changes):
        chosen = {"envs_per_runner": 8, "steps_per_env": 12, "env_config": {"max_new_tokens": 12}}
        return rllib_config(ENV, **{**chosen, **changes})

    return make


@pytest.fixture
def module(config):
    """A module as a learner has it, on the spaces of `config`."""

    def make(*, inference_only=False, rows=4, env=None, **settings):
        envs = make_rows(ENV, rows, env or {"max_new_tokens": 12})
        from textgym_agents.rllib import LMModule

        return envs, LMModule(
            observation_space=envs.single_observation_space,
            action_space=envs.single_action_space,
            inference_only=inference_only,
            model_config=settings,
        )

    return make
