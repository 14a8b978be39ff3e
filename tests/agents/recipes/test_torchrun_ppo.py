"""PPO in two processes, as `torchrun` starts them, and its recipe's refusals."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
    reason="torch is built without torch.distributed or its gloo backend",
)
FIGURES = r"mean return: (\d\.\d{3}) before, (\d\.\d{3}) after"


def test_two_processes_train_one_model(tmp_path, load_recipe):
    recipe = load_recipe("torchrun_ppo")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    small = ["--env=textgym/Sorting-v0", "--num-envs=16", "--steps=4096", "--device=cpu"]
    done = subprocess.run(
        [*launch, "--nproc-per-node=2", recipe.__file__, *small, f"--out={tmp_path}"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    lines = done.stdout.strip().splitlines()
    assert lines, done.stderr[-4000:]
    # Only the first process speaks, of the tokens of both.
    *rollouts, model, last = lines
    tokens = [int(line.split(" tokens")[0].replace(",", "")) for line in rollouts]
    assert all(re.fullmatch(r"[\d,]+ tokens  return \d\.\d{3}", line) for line in rollouts)
    assert tokens == [tokens[0] * (i + 1) for i in range(len(tokens))]
    assert len(tokens) > 1
    assert tokens[-1] >= 4096
    assert model.startswith(f"model: {tmp_path / 'model'}; ")
    before, after = map(float, re.fullmatch(FIGURES, last).groups())
    assert 0 < before < 1
    assert done.returncode == int(after <= before), done.stderr[-4000:]
    assert (tmp_path / "model" / "model.safetensors").is_file()


def test_rows_that_cannot_be_shared_are_refused(load_recipe):
    recipe = load_recipe("torchrun_ppo")
    options = recipe.arguments(["--num-envs", "7"])
    with pytest.raises(SystemExit, match="7 cannot be shared out evenly to 2 processes"):
        recipe.make_agent(options, SimpleNamespace(count=2))


def test_returns_are_means_over_the_episodes_of_all(load_recipe):
    recipe = load_recipe("torchrun_ppo")
    other = np.array([3.0, 4.0])  # four episodes of another process, whose returns add up to 3
    processes = SimpleNamespace(first=False, count=2, gather=lambda sums: np.stack([sums, other]))
    callback = recipe.Returns(processes)
    callback.model = SimpleNamespace(num_timesteps=0)
    callback.locals = {"infos": [{"episode": {"r": 1.0}}, {}]}
    callback.on_step()
    callback.on_rollout_end()
    assert callback.means == [pytest.approx(4.0 / 5.0)]
    callback.on_rollout_end()  # nothing is counted twice
    assert callback.means[1] == pytest.approx(3.0 / 4.0)
