"""Numbers of pieces in a forward that was written for whole signals: they stand for others, so none may be used."""

import threading
from typing import Any, List, NoReturn, Optional

import torch

from ..errors import StreamOnlineError
from .row_data import RowData

__all__ = [
    "REMEDY",
    "PieceLength",
    "RowCount",
    "first_refusal",
    "of_pieces",
    "plain_numbers",
    "refuse",
    "stands_for_pieces",
]

REMEDY = "give an example of the input, with which the model is captured: pts.patch_module(model, example=x)"

_thread = threading.local()


def refuse(message: str) -> NoReturn:
    """Raise, and note it, since the forward may catch what it did not expect.

    Raises:
        StreamOnlineError: always
    """
    error = StreamOnlineError(message)
    if first_refusal() is None:
        _thread.refusal = error
    raise error


def first_refusal(forget: bool = False) -> Optional[StreamOnlineError]:
    """What was refused first since it was forgotten last."""
    found: Optional[StreamOnlineError] = getattr(_thread, "refusal", None)
    if forget:
        _thread.refusal = None
    return found


class PieceLength(torch.SymInt):
    """How many samples a piece has: no number to compute with, as the signal has another length.

    It is no ``int``, since code in C takes the value of any ``int``.

    Args:
        samples: so many
        rows: of the rows whose width it is, ``None`` for a length of one row
    """

    def __init__(self, samples: int, rows: Optional[RowData] = None) -> None:
        self.samples = samples
        self.rows = rows

    def _refuse(self, *args: Any) -> NoReturn:
        refuse(
            "online_length: the forward computes with the length of its input, and here that is the length of a piece, "
            f"{self.samples}; a forward in which no number depends on it was expected; {REMEDY}"
        )

    node = property(_refuse)

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __floordiv__ = __rfloordiv__ = _refuse
    __truediv__ = __rtruediv__ = __mod__ = __rmod__ = __pow__ = __rpow__ = __divmod__ = __rdivmod__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = __neg__ = __pos__ = __abs__ = __float__ = __bool__ = _refuse
    __int__ = __index__ = __hash__ = __invert__ = __trunc__ = __floor__ = __ceil__ = _refuse
    __lshift__ = __rlshift__ = __rshift__ = __rrshift__ = __and__ = __rand__ = __or__ = __ror__ = _refuse
    __xor__ = __rxor__ = __round__ = __sym_max__ = __sym_min__ = __sym_float__ = _refuse

    def __eq__(self, other: Any) -> bool:
        # Of the same samples it is the same for whole signals as well.
        theirs = other.rows if isinstance(other, PieceLength) else None
        if theirs is not None and self.rows is not None and self.rows.same(theirs):
            return True
        self._refuse()

    def __ne__(self, other: Any) -> bool:
        return not self == other

    def __repr__(self) -> str:
        return "<samples>"  # no digits, which could be read again

    __str__ = _graph_repr = __repr__

    def __format__(self, how: str) -> str:
        return repr(self)


class RowCount(int):
    """How many rows there are: in every call another number, so it may be a size of tensors, and nothing else."""

    def _refuse(self, *args: Any) -> NoReturn:
        refuse(
            f"online_rows: the forward computes with the number of its rows, here {int.__repr__(self)}, which is "
            f"another in every call; a forward that treats each row for itself was expected; {REMEDY}"
        )

    def __mul__(self, other: Any) -> Any:
        return other * int(int.__index__(self)) if isinstance(other, (list, tuple)) else self._refuse()

    __rmul__ = __mul__
    __add__ = __radd__ = __sub__ = __rsub__ = __floordiv__ = __rfloordiv__ = __truediv__ = __rtruediv__ = _refuse
    __mod__ = __rmod__ = __pow__ = __rpow__ = __divmod__ = __rdivmod__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = __neg__ = __float__ = __bool__ = _refuse
    __hash__ = int.__hash__

    def __eq__(self, other: Any) -> bool:
        if isinstance(other, RowCount):
            return int.__eq__(self, other)
        self._refuse()

    def __ne__(self, other: Any) -> bool:
        return not self == other


def plain_numbers(value: Any) -> Any:
    """Arguments with numbers in the place of lengths."""
    if isinstance(value, PieceLength):
        return value.samples
    if isinstance(value, (list, tuple)):
        numbers: List[Any] = [plain_numbers(each) for each in value]
        return numbers if isinstance(value, list) else tuple(numbers)
    return value


def of_pieces(result: Any) -> Any:
    """Mark tensors as made of numbers of pieces, such as the lengths of the rows."""
    if isinstance(result, torch.Tensor):
        result._of_pieces = True  # type: ignore[attr-defined]
    elif isinstance(result, (list, tuple)):
        for each in result:
            of_pieces(each)
    return result


def stands_for_pieces(value: Any) -> bool:
    """Whether this is a tensor that was marked so."""
    return isinstance(value, torch.Tensor) and getattr(value, "_of_pieces", False)
