"""One call at a time: what a stream does when a second thread calls it, and when it is copied or trained."""

import warnings
from threading import RLock
from typing import Any, Tuple

from torch import nn

from ..errors import StreamStateError

__all__ = ["SoleTurn", "Turn", "refuse_shallow_copy", "stays_in_eval"]


class Turn:
    """Whose turn it is: of the thread that has it, which may take it again, and of no other.

        with turn:                     # or, which costs less, `lock.acquire(False)` and `lock.release()`
            ...

    It never waits: it raises `StreamStateError` if another thread has it. A copy is free.

    Attributes:
        lock: what is held
    """

    __slots__ = ("lock",)

    def __init__(self) -> None:
        self.lock = RLock()

    def __enter__(self) -> None:
        if not self.lock.acquire(False):
            raise in_use()

    def __exit__(self, *error: object) -> None:
        self.lock.release()

    def __reduce__(self) -> Tuple[Any, ...]:
        return Turn, ()


class SoleTurn(Turn):
    """A turn that the thread that has it may not take again either, as what runs calls what runs it.

    Args:
        what: runs around a second call, for the error
        remedy: what to do
    """

    __slots__ = ("busy", "remedy", "what")

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__()
        self.what = what
        self.remedy = remedy
        self.busy = False

    def __enter__(self) -> None:
        super().__enter__()
        if self.busy:
            self.lock.release()
            raise StreamStateError(
                f"in_use: a call came while {self.what} runs around it; one call at a time was expected; {self.remedy}"
            )
        self.busy = True

    def __exit__(self, *error: object) -> None:
        self.busy = False
        self.lock.release()

    def __reduce__(self) -> Tuple[Any, ...]:
        return SoleTurn, (self.what, self.remedy)


def in_use() -> StreamStateError:
    """The error of a second call while one runs."""
    return StreamStateError(
        "in_use: the stream is in use by another thread, whose call goes on unharmed; one call at a time was expected; "
        "give each thread a stream of its own, they share the weights"
    )


def refuse_shallow_copy(module: object) -> StreamStateError:
    """The error of ``copy.copy``, which would share the memory."""
    return StreamStateError(
        f"shallow_copy: copy.copy of a {type(module).__name__} shares its memory, and the two disturb each other; "
        "a copy with memory of its own was expected; use copy.deepcopy, or make a new one and set its state"
    )


def stays_in_eval(module: nn.Module) -> None:
    """Warn, once for each, that ``train()`` changes nothing."""
    if not module.__dict__.get("_told_of_training", False):
        module.__dict__["_told_of_training"] = True
        warnings.warn(
            f"train() of a {type(module).__name__} changes nothing: it stays in the eval form that it was made in; "
            "gradients flow all the same; to train in training mode, make it with training='frozen', or use the "
            "network itself",
            UserWarning,
            stacklevel=3,
        )
