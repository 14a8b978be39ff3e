"""The wheel, built and used away from the checkout, as someone who installs it would."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("pyproject.toml", "README.md", "LICENSE", "textgym", "agents")
SCRIPTS = "Scripts" if os.name == "nt" else "bin"


def run(*command: object, cwd: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        env={**environment, "OMP_NUM_THREADS": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        cwd=cwd,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, so that neither leftovers nor caches of the checkout get into it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for part in PARTS:
        origin = ROOT / part
        if origin.is_dir():
            shutil.copytree(origin, source / part, ignore=ignored)
        else:
            shutil.copy(origin, source / part)
    run(
        *(sys.executable, "-m", "build", "--wheel", "--no-isolation"),
        *("--outdir", folder / "dist", source),
        cwd=folder,
    )
    (built,) = (folder / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A new environment with the wheel in it, which sees this one's third-party packages.

    They are seen through a `.pth` line. A `.pth` inside a folder that is added this way is not
    read, so an editable install of the checkout in this environment stays unknown to the new one.
    """
    folder = tmp_path_factory.mktemp("installed")
    environment = folder / "env"
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=folder)
    python = environment / SCRIPTS / "python"
    site = Path(
        run(python, "-c", "import sysconfig as s; print(s.get_path('purelib'))", cwd=folder).strip()
    )
    run(
        *(sys.executable, "-m", "pip", "--python", python),
        *("install", "--no-deps", "--no-index", wheel),
        cwd=folder,
    )
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "third_party.pth").write_text("\n".join(sorted(paths)) + "\n")
    return environment


def test_wheel_carries_its_data(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    expected = {
        "textgym/py.typed",
        "textgym/embedded/tokenizer.json",
        "textgym/embedded/tokenizer_config.json",
        "textgym_agents/py.typed",
        "textgym_agents/bundled/config.json",
        "textgym_agents/bundled/model.safetensors",
        "textgym_agents/bundled/tokenizer.json",
    }
    assert expected <= set(names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"textgym", "textgym_agents"}


def test_wheel_carries_every_module(wheel):
    packages = (ROOT / "textgym", ROOT / "agents" / "textgym_agents")
    ours = {
        file.relative_to(package.parent).as_posix()
        for package in packages
        for file in package.rglob("*.py")
    }
    assert ours == {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py")}


def test_installed_wheel_lists_and_steps(installed, tmp_path):
    code = (
        "import gymnasium, textgym, textgym_agents\n"
        "env = gymnasium.make('textgym/Story-v0')\n"
        "observation, info = env.reset(seed=0)\n"
        "env.step(env.action_space.sample())\n"
        "print(textgym.__file__, textgym_agents.__file__, info['prompt'] != '', sep='|')"
    )
    out = run(installed / SCRIPTS / "python", "-c", code, cwd=tmp_path).strip()
    first, second, prompted = out.split("|")
    for file in (first, second):
        assert Path(file).resolve().is_relative_to(installed.resolve())
    assert prompted == "True"
    assert "textgym/Story-v0" in run(installed / SCRIPTS / "textgym", "list", cwd=tmp_path)
