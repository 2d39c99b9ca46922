"""Inputs whose lengths and numbers of rows the model does not tie, though every signal has them so."""

from contextlib import contextmanager
from functools import wraps
from typing import Any, Iterator, Optional, Sequence

import torch
from torch import nn

__all__ = ["tied_inputs"]

_require: Any = torch._check  # without types


@contextmanager
def tied_inputs(
    net: nn.Module, times: Sequence[Optional[int]], parts: Sequence[int], rows: Sequence[Optional[int]]
) -> Iterator[None]:
    """While a model is exported, the lengths of its inputs stand in a ratio, and they have as many rows.

    Args:
        net: the model
        times: time axis of each input; ``None`` for a static one
        parts: the ratio, of those with a time axis, in lowest terms; lengths are tied if one of them is 1
        rows: axis of rows of each input; ``None`` for one without
    """
    forward, own = net.forward, net.__dict__.get("forward")

    @wraps(forward)  # the exporter asks for its signature
    def tied(*args: Any, **kwargs: Any) -> Any:
        given = [*args, *kwargs.values()]
        lengths = [x.shape[time] for x, time in zip(given, times, strict=True) if time is not None]
        counts = [x.shape[axis] for x, axis in zip(given, rows, strict=True) if axis is not None]
        if 1 in parts:
            unit = lengths[parts.index(1)]
            for length, part in zip(lengths, parts, strict=True):
                _require(length == part * unit)
        for count in counts[1:]:
            _require(count == counts[0])
        return forward(*args, **kwargs)

    net.__dict__["forward"] = tied
    try:
        yield
    finally:
        del net.__dict__["forward"]
        if own is not None:
            net.__dict__["forward"] = own
