"""The Python blocks of docs/cluster.md run as written, with fewer tokens."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[2] / "docs" / "cluster.md"
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS)
def test_block(block, tmp_path):
    code = re.sub(r"timesteps=\d+_000", "timesteps=1_000", block)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if "runs/rllib" in code:
        assert (tmp_path / "runs" / "rllib" / "model" / "model.safetensors").is_file()
