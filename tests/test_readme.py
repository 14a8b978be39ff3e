"""The Python blocks of the README and of the guides run as written, with fewer steps."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Ray lives in an environment of its own: tests/rllib runs the blocks of that page.
RAY = "cluster.md"
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    if page.name != RAY
    for number, block in enumerate(
        re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    )
]


def test_the_readme_has_three():
    assert sum(block.id.startswith("README") for block in BLOCKS) == 3


@pytest.mark.parametrize("block", BLOCKS)
def test_block(block, tmp_path):
    code, replaced = re.subn(r"learn\(\d+_000", "learn(1_000", block)
    assert replaced == ("learn" in code)
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:textgym", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if "save_pretrained" in code:
        assert (tmp_path / "my-model" / "model.safetensors").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    for link in links:
        if "://" not in link:
            assert (page.parent / link).exists(), link
