"""The entry point: runs a command, and says in one line what went wrong."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import TextIO

from textgym_agents.cli.errors import INTERRUPTED, CommandError, Stopped, one_line


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Exit codes: 0 for success, 2 for input that cannot be used, 1 for what went wrong later, 130
    after Ctrl-C. `TEXTGYM_DEBUG=1` shows the traceback of any error.
    """
    sys.exit(run(args))


def run(args: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    warnings.showwarning = show_warning
    # What went wrong at the hub is said once, in the error.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    try:
        try:
            from textgym_agents.cli import (  # noqa: F401  # register
                bench_commands,
                commands,
                reward_commands,
            )
            from textgym_agents.cli.app import app
        except ModuleNotFoundError as error:
            if error.name and error.name.split(".")[0] in ("textgym", "textgym_agents"):
                raise
            raise CommandError(
                f"the command line needs the package `{error.name}`, which is not installed. "
                "Install all it needs with `pip install 'textgym[agents]'`."
            ) from error
        typed = list(sys.argv[1:] if args is None else args)
        code = app(args=typed, prog_name="textgym", standalone_mode=False, obj=typed)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except BrokenPipeError:
        # `textgym list | head -1`: the reader has what it wanted. Nothing may be flushed on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Stopped as stopped:
        print(f"textgym: {one_line(stopped)}", file=sys.stderr)
        return INTERRUPTED
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        return report(error)


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning as one line, without the source line it came from."""
    print(f"textgym: warning: {' '.join(str(message).split())}", file=file or sys.stderr)


def report(error: Exception) -> int:
    """Print `error` as one line, or raise it where it is no error of the user's.

    Returns:
        The exit code.
    """
    if os.environ.get("TEXTGYM_DEBUG"):
        traceback.print_exception(error)
    if isinstance(error, CommandError):
        print(f"textgym: error: {one_line(error)}", file=sys.stderr)
        return error.exit_code
    # Usage errors of the option parser. Its classes have moved between versions: known by shape.
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):
        hint = "Try `textgym --help`."
        context = getattr(error, "ctx", None)
        if context is not None:
            hint = f"Try `{context.command_path} --help`."
        message = " ".join(str(error.format_message()).split())
        stop = "" if message.endswith((".", "?")) else "."
        print(f"textgym: error: {message}{stop} {hint}", file=sys.stderr)
        return int(error.exit_code)
    raise error
