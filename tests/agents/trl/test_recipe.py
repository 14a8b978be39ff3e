"""The recipe runs, with few steps."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import torch

RECIPE = Path(__file__).resolve().parents[3] / "agents" / "recipes" / "trl_grpo.py"


def test_the_recipe_trains_scores_and_saves(monkeypatch, capsys, tmp_path):
    options = {"env": "textgym/Sorting-v0", "steps": 1, "prompts": 2, "group": 2, "episodes": 4}
    typed = [f"--{name}={value}" for name, value in options.items()]
    monkeypatch.setattr(
        sys, "argv", ["trl_grpo.py", *typed, "--reward=length:max=8", f"--out={tmp_path}"]
    )
    threads = torch.get_num_threads()
    try:
        runpy.run_path(str(RECIPE), run_name="__main__")
    finally:
        torch.set_num_threads(threads)
    assert "mean return on held-out prompts:" in capsys.readouterr().out
    assert (tmp_path / "model.safetensors").is_file()
