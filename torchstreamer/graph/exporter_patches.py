"""What of torch's exporter is replaced while a model is exported, for the thread that does it."""

from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from threading import RLock, get_ident
from typing import Any, Callable, Dict, Iterator

__all__ = ["exporting_alone", "numbers_remembered", "quotients_expanded", "replaced"]

_turn = RLock()

_SIMPLE = 24  # operations of a quotient that SymPy may simplify as it likes


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


@contextmanager
def numbers_remembered() -> Iterator[None]:
    """While this is open, SymPy finds out once of each expression whether it is a number.

    Else it goes through all of a size whenever that is part of another. Other threads may use it; the answers are the
    same.
    """
    Expr: Any = import_module("sympy").Expr  # without types
    plain = Expr.is_number
    known: Dict[Any, bool] = {}

    def remembered(expression: Any) -> bool:
        found = known.get(expression)
        if found is None:
            found = known[expression] = plain.fget(expression)
        return found

    Expr.is_number = property(remembered)
    try:
        yield
    finally:
        Expr.is_number = plain


def quotients_expanded() -> AbstractContextManager[None]:
    """While this is open, long quotients of sizes are divided term by term.

    torch has SymPy try all that it knows on them, which takes minutes for the lengths of deep codecs, whose frames are
    counted in frames of frames. The divisor is one of all terms, so nothing else is to be gained there.
    """
    sympy: Any = import_module("sympy")  # without types
    plain = sympy.simplify

    def divided(quotient: Any) -> Any:
        if sympy.count_ops(quotient) <= _SIMPLE:
            return plain(quotient)
        return sympy.expand_mul(quotient, deep=False)

    return replaced(sympy, "simplify", divided)
