"""The direction of imports, as docs/architecture.md states it."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
AGENT_FILES = sorted((ROOT / "agents" / "textgym_agents").rglob("*.py"))
PACKAGE_FILES = [*sorted((ROOT / "textgym").rglob("*.py")), *AGENT_FILES]


def private_uses(tree: ast.AST, package: str) -> list[str]:
    """The private names of `package` that a module imports, or reaches through what it imports."""
    found, aliases = [], set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == package:
            names = [*(node.module or "").split("."), *(a.name for a in node.names)]
            found += [name for name in names if is_private(name)]
            aliases |= {a.asname or a.name for a in node.names}
        elif isinstance(node, ast.Import):
            ours = [a for a in node.names if a.name.split(".")[0] == package]
            found += [part for a in ours for part in a.name.split(".") if is_private(part)]
            aliases |= {a.asname or package for a in ours}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            root = node.value
            while isinstance(root, ast.Attribute):
                root = root.value
            if isinstance(root, ast.Name) and root.id in aliases:
                found.append(node.attr)
    return found


def is_private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def imported_packages(tree: ast.AST) -> set[str]:
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            modules.add(node.module)
    return {module.split(".")[0] for module in modules}


def test_import_contracts_hold():
    # In a process of its own: it forks, which a process full of threads and captures does not bear.
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", AGENT_FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_agents_use_public_names_only(file):
    assert private_uses(ast.parse(file.read_text(encoding="utf-8")), "textgym") == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from textgym.tokenization import _embedded", ["_embedded"]),
        ("import textgym\ntextgym.envs._hidden.x", ["_hidden"]),
        ("from textgym import tokenization as t\nt.Tokenizer._from_hub('a')", ["_from_hub"]),
        ("from textgym.tokenization import Tokenizer\nTokenizer.__name__", []),
    ],
)
def test_private_uses_are_found(source, expected):
    assert private_uses(ast.parse(source), "textgym") == expected


def test_packages_import_neither_benchmarks_nor_tests():
    for file in PACKAGE_FILES:
        found = imported_packages(ast.parse(file.read_text(encoding="utf-8")))
        assert not found & {"benchmarks", "tests", "recipes"}, file


def test_stepping_an_environment_imports_no_torch():
    code = (
        "import sys, gymnasium, textgym\n"
        "env = gymnasium.make('textgym/Story-v0')\n"
        "env.reset(seed=0)\n"
        "env.step(env.action_space.sample())\n"
        "print([m for m in ('torch', 'transformers', 'textgym_agents') if m in sys.modules])"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
