"""The command line: ``torchstreamer``, and ``python -m torchstreamer``.

Each command stands in a file of its own, which is imported when the command runs: `app.py` imports no torch, so that
help comes at once.
"""

import sys
from typing import NoReturn, Optional, Sequence

__all__ = ["main"]


def main(arguments: Optional[Sequence[str]] = None) -> NoReturn:
    """Run the command line, and end the process with its exit code.

    Args:
        arguments: by default those of the process
    """
    try:
        import typer  # noqa: F401
    except ImportError:
        sys.stderr.write(
            "error: missing_package: typer is not installed; the command line is made with it; pip install typer, or "
            "from a clone of this project: pip install -e '.[cli]'\n"
        )
        sys.exit(2)
    from .failing import guarded

    sys.exit(guarded(sys.argv[1:] if arguments is None else list(arguments)))
