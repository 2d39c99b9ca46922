"""What becomes of errors: one line, and an exit code."""

import errno
import os
import re
import sys
import traceback
from contextlib import contextmanager
from enum import IntEnum
from typing import Iterator, List

__all__ = ["Code", "Failure", "blame", "debugging", "guarded"]


class Code(IntEnum):
    """The exit codes."""

    DONE = 0
    CHECK = 1
    USAGE = 2
    INPUT = 3
    OUTPUT = 4
    MODEL = 5
    STOPPED = 130


class Failure(Exception):
    """Ends the program.

    Args:
        code: its exit code
        text: ``what came; what was expected; what to do``
    """

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code


_debug: List[bool] = []


def debugging(on: bool) -> bool:
    """Whether errors are to be shown with their traceback."""
    if on:
        _debug.append(True)
    return on


@contextmanager
def blame(code: Code) -> Iterator[None]:
    """Say that what fails in here ends the program with this exit code."""
    try:
        yield
    except (Failure, KeyboardInterrupt):
        raise
    except Exception as error:
        raise Failure(code, _line(error)) from error


def guarded(arguments: List[str]) -> int:
    """Run the program; what fails is told in one line."""
    from .app import app

    _debug.clear()
    try:
        # Help and usage are the library's; all else is told here.
        code = app(arguments, standalone_mode=False, prog_name="torchstreamer")
        sys.stdout.flush()
        return int(code or 0)
    except Failure as error:
        return _told(str(error), error.code, error)
    except KeyboardInterrupt:
        return _told("stopped", Code.STOPPED, None)
    except BrokenPipeError as error:  # who reads our output has gone; so must it be, or Python tells of it at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _told(_line(error), Code.OUTPUT, error)
    except OSError as error:
        return _told(_line(error), Code.OUTPUT, error)
    except Exception as error:
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # of click, which typer may bear in itself
            context = getattr(error, "ctx", None)
            asked = context.command_path if context is not None else "torchstreamer"
            text = error.format_message().rstrip(".").replace("\n", " ")
            return _told(f"{text}; see {asked} --help", Code.USAGE, error)
        return _told(_line(error), Code.MODEL, error)


def _told(text: str, code: Code, error: object) -> int:
    if _debug and isinstance(error, BaseException):
        traceback.print_exception(error)
    sys.stderr.write(f"error: {text}\n" if code != Code.STOPPED else f"{text}\n")
    return int(code)


_CODED = r"\b[a-z]+(_[a-z]+)+: "  # how our messages begin
_DO = {
    errno.ENOENT: "look at the path",
    errno.EACCES: "look at its permissions",
    errno.EPERM: "look at its permissions",
    errno.EISDIR: "give the name of a file",
    errno.ENOSPC: "make room, or write elsewhere",
    errno.EPIPE: "look at the program that reads",
}


def _line(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror}; {_DO.get(error.errno, 'look at the path, and at the disk')}"
    text = " ".join(str(error).split())
    if re.match(_CODED, text):
        return text
    for line in reversed(str(error).splitlines()):  # scripts wrap our messages into where they came from
        found = re.search(f"{_CODED}.*", line)
        if found is not None and type(error).__module__.startswith("torch"):
            return found[0]
    return f"{type(error).__name__}: {text or 'no more is said'}; --debug shows where"
