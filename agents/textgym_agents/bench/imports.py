"""What users name by ``"package.module:name"`` or ``"file.py:name"``: agents and suites."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from textgym.errors import near_matches


def imported(path: str) -> Any:
    """What `path` names. Modules are looked for in the current folder, too, as for a script.

    Raises:
        ImportError: no such module, file or attribute; lists near matches.
    """
    module_name, _, name = path.rpartition(":")  # a path may hold one, too
    module = _module(module_name)
    try:
        return getattr(module, name)
    except AttributeError as error:
        public = [known for known in vars(module) if not known.startswith("_")]
        raise ImportError(f"{module_name} has no `{name}`; {near_matches(name, public)}") from error


def _module(name: str) -> Any:
    if not name.endswith(".py"):
        sys.path.insert(0, os.getcwd())  # the command `textgym` lies elsewhere
        try:
            return importlib.import_module(name)
        finally:
            sys.path.remove(os.getcwd())
    file = Path(name).resolve()
    if not file.is_file():
        raise ImportError(f"no such file: {file}.")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    # Before it runs: pickling and dataclasses look it up.
    sys.modules.setdefault(file.stem, module)
    spec.loader.exec_module(module)
    return module
