"""What many functions ask of their arguments."""

import math
from typing import Any, List, Optional, Sequence, Union

from torch import Tensor

from ..core.stream import BaseStream
from ..core.whole_numbers import whole_number

__all__ = ["ensure_stream", "rate", "tensors", "whole_number"]


def rate(fs: Optional[float]) -> Optional[float]:
    """Samples per second, if they are known.

    Raises:
        ValueError: not a number above 0
    """
    if fs is None:
        return None
    try:
        number = float(fs)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 < number < math.inf:
        raise ValueError(
            f"invalid_fs: fs={fs!r} came; samples per second, a number above 0, were expected; pass such a number, or "
            "None where it is not known"
        )
    return number


def ensure_stream(stream: Any) -> None:
    """Raise unless it is a stream that shows its layers.

    Raises:
        TypeError: it is something else, or a script
    """
    if not isinstance(stream, BaseStream):
        raise TypeError(
            f"invalid_stream: a {type(stream).__name__} came; a stream was expected; make it with "
            "pts.create_stream(net), and of a script pass the stream that it was made of"
        )


def tensors(x: Union[Tensor, Sequence[Tensor]]) -> List[Tensor]:
    """One input, or a sequence of them, as a list.

    Raises:
        TypeError: not tensors
    """
    given: List[Any] = list(x) if isinstance(x, (list, tuple)) else [x]
    for each in given:
        if not isinstance(each, Tensor):
            raise TypeError(
                f"invalid_input: a {type(each).__name__} came; a tensor, or a tuple of all inputs, was expected; make "
                "it with torch.as_tensor"
            )
    return given
