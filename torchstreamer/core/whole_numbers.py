"""Counts of samples, as people give them. TorchScript compiles `require_length`."""

import operator
from typing import Any, Optional

from torch import SymInt
from torch.jit import is_scripting

from ..errors import StreamInputError

__all__ = ["as_index", "require_length", "whole_number"]


def as_index(value: Any) -> Optional[int]:
    """The value as an integer, ``None`` if it is none, as ``4.0``, ``"4"`` and ``True``."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except (TypeError, RuntimeError):  # a tensor raises either
        return None


def whole_number(value: Any, name: str, least: int = 1) -> int:
    """The value as an integer.

    Raises:
        StreamInputError: it is none, or smaller than ``least``
    """
    number = as_index(value)
    if number is None or number < least:
        raise StreamInputError(
            f"invalid_{name}: {name}={value!r} came; a whole number from {least} on was expected; pass such a number"
        )
    return number


def require_length(n: int) -> None:
    """Refuse what is no number of samples."""
    if not is_scripting():
        if type(n) is not int and not isinstance(n, SymInt):  # an export asks for lengths that are not known yet
            whole_number(n, "length", 0)
    if n < 0:
        raise StreamInputError(
            f"invalid_length: {n} samples came; a whole number from 0 on was expected; pass such a number"
        )
