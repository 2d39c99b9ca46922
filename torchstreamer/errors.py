"""The errors of the package.

    StreamError
    ├── UnsupportedModuleError (ValueError)    raised when a stream is made
    ├── StreamInputError       (ValueError)    a chunk or a state that does not fit; nothing was written
    ├── StreamStateError       (RuntimeError)  the stream failed earlier and waits for ``reset()``, or is in use
    ├── StreamOnlineError      (RuntimeError)  a patched model got what its mode does not take, or cannot stream
    ├── StreamFileError        (ValueError)    a file that is none of this package's, or damaged
    ├── PointwiseError         (RuntimeError)  a module taken as pointwise is not
    ├── StreamReadError        (RuntimeError)  a stream of a dataset failed while it was read
    └── WorkerError            (RuntimeError)  a process that reads streams ended before its work

Every message reads ``code: what came; what was expected; what to do``. The codes are stable, the texts are not.
"""

import importlib.util
from typing import Any, List, Optional

from torch import nn

__all__ = [
    "PointwiseError",
    "StreamError",
    "StreamFileError",
    "StreamInputError",
    "StreamOnlineError",
    "StreamReadError",
    "StreamStateError",
    "UnsupportedModuleError",
    "WorkerError",
]


class StreamError(Exception):
    """Base class of every error that this package raises on purpose."""

    @property
    def code(self) -> str:
        """The stable code that opens the message, for instance ``"invalid_chunk"``."""
        return str(self).split(":", 1)[0]


class UnsupportedModuleError(StreamError, ValueError):
    """A module cannot be streamed exactly. Raised when the stream is made, never later.

    Args:
        code: stable code of the reason
        module: the module that cannot be streamed
        reason: why it cannot
        remedy: what to do instead

    Attributes:
        module: the module that cannot be streamed
        path: its path in the network, as in ``named_modules()`` (empty for the network itself)
        reason: why it cannot
        remedy: what to do instead
    """

    def __init__(self, code: str, module: nn.Module, reason: str, remedy: str) -> None:
        super().__init__(code)
        self._code = code
        self.module = module
        self.path = ""
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        where = f" at '{self.path}'" if self.path else ""
        return f"{self._code}: {type(self.module).__name__}{where} cannot be streamed: {self.reason}; {self.remedy}"

    def __reduce__(self):  # type: ignore[no-untyped-def]
        return _unsupported, (self._code, self.module, self.reason, self.remedy, self.path)

    def within(self, net: nn.Module) -> "UnsupportedModuleError":
        """The same error, its path told from ``net`` if the module stands in it."""
        path = path_of(self.module, net)
        if path is not None:
            self.path = path
        return self


class StreamInputError(StreamError, ValueError):
    """A chunk, a state or an example that does not fit. A stream is as it was before the call."""


class StreamStateError(StreamError, RuntimeError):
    """An earlier step failed half-way, so the state cannot be trusted: call ``reset()`` or ``set_state()``; or another
    thread is at work on the stream, or a shallow copy of it was asked for."""


class StreamOnlineError(StreamError, RuntimeError):
    """A patched model was called with what its mode does not take, or does to pieces what it was written to do to whole
    signals. No signal has changed."""


class StreamFileError(StreamError, ValueError):
    """A file that this package did not write, or that is damaged."""


class PointwiseError(StreamError, RuntimeError):
    """A module without a handler was taken as pointwise along time, and is not."""


class StreamReadError(StreamError, RuntimeError):
    """A stream of a dataset failed while it was opened or read, or gave what does not fit the batch.

    Args:
        message: what came, what was expected, what to do
        index: the stream's position in the dataset's list

    Attributes:
        index: the stream's position in the dataset's list
    """

    def __init__(self, message: str, index: int) -> None:
        super().__init__(message)
        self.index = index

    def __reduce__(self):  # type: ignore[no-untyped-def]
        return StreamReadError, (str(self), self.index)


class WorkerError(StreamError, RuntimeError):
    """A process that reads streams was killed or did not answer in time."""


EXTRAS = {
    "hypothesis": "dev",
    "matplotlib": "analysis",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "sounddevice": "devices",
    "soundfile": "audio",
    "typer": "cli",
}


def missing_package(name: str, need: str) -> ModuleNotFoundError:
    """The error for a package that is not installed, with what installs it.

    This project is on no package index, so its extras can be had from a clone only.

    Args:
        name: the package, a key of ``EXTRAS``
        need: what needs it
    """
    return ModuleNotFoundError(
        f"missing_package: {name} is not installed; {need}; pip install {name}, or from a clone of this project: "
        f"pip install -e '.[{EXTRAS[name]}]'",
        name=name,
    )


def require_packages(need: str, *names: str) -> None:
    """Raises `missing_package` for the first of these packages that is not installed; imports none."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise missing_package(name, need)


def path_of(module: nn.Module, net: nn.Module) -> Optional[str]:
    """The first path at which ``module`` stands in ``net``, or ``None``; by the model's own names in a captured one."""
    for path, candidate in net.named_modules():
        if candidate is module:
            return readable(path, net)
    return None


def readable(path: str, net: nn.Module) -> str:
    """A path in a stream in which parts of captured models bear the names that these have in the model."""
    told: List[str] = []
    at: Any = net
    parts = path.split(".") if path else []
    while parts:
        names = getattr(at, "node_names", None)
        if names is not None and parts[0] == "nodes" and len(parts) > 1:
            told.append(names[int(parts[1])])
            at, parts = at.nodes[int(parts[1])], parts[2:]
            if parts and parts[0] == "stream":
                at, parts = at.stream, parts[1:]
        else:
            told.append(parts[0])
            at, parts = getattr(at, parts[0]), parts[1:]
    return ".".join(told)


def _unsupported(code: str, module: nn.Module, reason: str, remedy: str, path: str) -> UnsupportedModuleError:
    error = UnsupportedModuleError(code, module, reason, remedy)
    error.path = path
    return error
