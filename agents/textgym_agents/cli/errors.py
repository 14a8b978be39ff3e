"""Errors a person can act on: one line, an exit code, no traceback."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from textgym.errors import RewardError

BAD_INPUT = 2
FAILED = 1
INTERRUPTED = 130

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# How libraries that write files without Python's own `write` put it.
_FULL_PHRASES = (
    "no space left",
    "disk quota exceeded",
    "file too large",
    "pytorchstreamwriter failed",
    "unexpected pos",
    "os error 28",
    "os error 27",
)


# What libraries raise about input they cannot use; an oracle that is missing is told so, too.
_UNUSABLE = (ValueError, TypeError, OSError, LookupError, RewardError, NotImplementedError)


class CommandError(Exception):
    """Ends the command with one line on stderr.

    Args:
        message: what was expected, what was got, what to do.
        exit_code: 2 for bad input, 1 for what went wrong later.
    """

    def __init__(self, message: str, exit_code: int = BAD_INPUT) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Stopped(Exception):
    """Ends the command after Ctrl-C, with a line on what was kept."""


@contextmanager
def stopping(message: Callable[[], str]) -> Iterator[None]:
    """Turn Ctrl-C into `Stopped` with `message()`."""
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped(message()) from None


def one_line(error: BaseException) -> str:
    """The message of `error` on one line.

    >>> one_line(OSError(28, "No space left on device", "runs/a"))
    'No space left on device: runs/a'
    """
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    if isinstance(error, KeyError):  # whose str is the repr of its argument
        return " ".join(str(a) for a in error.args)
    return " ".join(str(error).split()) or type(error).__name__


def is_disk_full(error: BaseException | None) -> bool:
    """Whether `error`, or what caused it, is a disk without room for a file."""
    return any(
        (isinstance(link, OSError) and link.errno in _FULL)
        or any(phrase in str(link).lower() for phrase in _FULL_PHRASES)
        for link in chain(error)
    )


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """`error` and what led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def let_go(error: BaseException) -> None:
    """Drop the local variables that the traceback of `error` keeps alive.

    Among them may be open files: a half-written one takes its room on the disk until it is closed,
    even when it has been deleted.
    """
    for link in chain(error):
        traceback.clear_frames(link.__traceback__)


@contextmanager
def bad_input() -> Iterator[None]:
    """Turn what libraries raise about unusable input into a `CommandError`."""
    from gymnasium.error import Error as GymnasiumError

    try:
        yield
    except CommandError:
        raise
    except (*_UNUSABLE, GymnasiumError) as error:
        raise CommandError(one_line(error)) from error
    except ImportError as error:
        message = one_line(error)
        if "pip install" not in message:
            message = (
                f"{message}. Install what the command needs with `pip install 'textgym[agents]'`."
            )
        raise CommandError(message) from error
