"""The folder a training run leaves behind.

```
run.json        command, versions, options, seed, scores before and after, speed, status
samples.jsonl   texts on held-out prompts, a line each: timesteps, prompt, completion, score
model/          Hugging Face files: `AutoModelForCausalLM.from_pretrained(".../model")`
tensorboard/    scalars and text samples
checkpoints/    what `--resume` continues from
```
Files are replaced whole, never written in place, so that a crash leaves the last good one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from textgym_agents.cli.errors import CommandError

RUNNING, INTERRUPTED, FAILED, FINISHED = "running", "interrupted", "failed", "finished"


class RunFolder:
    """The folder of one run.

    Args:
        path: the folder; `open` creates it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.record: dict[str, Any] = {}

    @property
    def record_file(self) -> Path:
        """`run.json`."""
        return self.path / "run.json"

    @property
    def samples_file(self) -> Path:
        """`samples.jsonl`."""
        return self.path / "samples.jsonl"

    @property
    def model(self) -> Path:
        """Where the model is saved."""
        return self.path / "model"

    @property
    def tensorboard(self) -> Path:
        """Where event files are written."""
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints are written."""
        return self.path / "checkpoints"

    # ------------------------------------------------------------------ opening
    def is_empty(self) -> bool:
        """Whether nothing is there yet; `CommandError` where the path is a file."""
        if self.path.exists() and not self.path.is_dir():
            raise CommandError(f"--out: {self.path} is a file. Name a folder.")
        return not self.path.exists() or not any(self.path.iterdir())

    def check(self, resume: bool) -> bool:
        """Whether there is a run here to resume; writes nothing.

        Raises:
            CommandError: where a new run would overwrite something, or what is here is no run.
        """
        if self.is_empty():
            return False
        if not resume:
            raise CommandError(
                f"--out: {self.path} is not empty. Continue the run in it with --resume, or name "
                "another folder."
            )
        self.record = self._read()
        return True

    def _read(self) -> dict[str, Any]:
        if not self.record_file.is_file():
            raise CommandError(
                f"--resume: {self.path} has no run.json, so it is not the folder of a run. "
                "Name another --out."
            )
        try:
            record = json.loads(self.record_file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise CommandError(f"--resume: {self.record_file} is not JSON: {error}") from error
        if not isinstance(record, dict) or "options" not in record:
            raise CommandError(f"--resume: {self.record_file} does not describe a run.")
        return record

    def create(self) -> None:
        """Make the folder, with those above it."""
        self.path.mkdir(parents=True, exist_ok=True)

    # ------------------------------------------------------------------ writing
    def update(self, values: Mapping[str, Any]) -> None:
        """Merge `values` into `run.json`."""
        self.record |= values
        text = json.dumps(self.record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        write_text(self.record_file, text)

    def add_samples(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append `rows` to `samples.jsonl`."""
        before = self.samples()
        lines = [json.dumps(row, ensure_ascii=False) for row in [*before, *rows]]
        write_text(self.samples_file, "".join(f"{line}\n" for line in lines))

    def samples(self) -> list[dict[str, Any]]:
        """The rows of `samples.jsonl` so far."""
        if not self.samples_file.is_file():
            return []
        # Not `splitlines`: JSON strings may hold other line separators as they are.
        lines = self.samples_file.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines if line]

    def save_model(self, save: Callable[[Path], object]) -> None:
        """Put what `save(folder)` writes in the place of `model/`, or leave that as it was."""
        replace_folder(self.model, save)


def write_text(file: Path, text: str) -> None:
    """Replace the content of `file`, whole or not at all."""
    partial = file.with_name(f".{file.name}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def replace_folder(folder: Path, fill: Callable[[Path], object]) -> None:
    """Replace `folder` by one that `fill` has written, whole or not at all."""
    partial = folder.with_name(f".{folder.name}.partial")
    previous = folder.with_name(f".{folder.name}.previous")
    if previous.exists() and not folder.exists():  # a crash between the two renames below
        previous.rename(folder)
    for leftover in (partial, previous):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        partial.mkdir()
        fill(partial)
        if folder.exists():
            folder.rename(previous)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(previous, ignore_errors=True)
