"""What of torch's exporter is replaced while a model is exported, for the thread that does it."""

from contextlib import contextmanager
from threading import RLock, get_ident
from typing import Any, Callable, Iterator

__all__ = ["exporting_alone", "replaced"]

_turn = RLock()


@contextmanager
def exporting_alone() -> Iterator[None]:
    """While this is open, no other thread captures a model: both would replace the same things."""
    with _turn:
        yield


@contextmanager
def replaced(owner: Any, name: str, other: Callable[..., Any]) -> Iterator[None]:
    """While this is open, a function has another in its place, in this thread alone.

    Args:
        owner: a class or module of torch
        name: of its function
        other: is called in its place
    """
    plain, thread = getattr(owner, name), get_ident()

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return (other if get_ident() == thread else plain)(*args, **kwargs)

    setattr(owner, name, wrapped)
    try:
        yield
    finally:
        setattr(owner, name, plain)
