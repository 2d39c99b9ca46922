"""Layouts and bodies of values."""

from typing import Any

from torch import nn

from .body import Body
from .layout import Layout
from .values import Replay, Value

__all__ = ["layout_of", "window_body"]


def layout_of(value: Value) -> Layout:
    """Where rows and time stand in a value."""
    if value.lifted:
        return Layout(value.time + 1, 0, 1, [int(size) for axis, size in enumerate(value.shape) if axis != value.time])
    rows = -1 if value.rows is None else value.rows
    return Layout(value.time, rows, value.inner, value.others())


def window_body(low: Any, x: Value, recipe: Replay) -> nn.Module:
    """The body of an operation on windows of one value."""
    body = Body(low.tensor_of, low.kept, lambda thing: False)
    body.input(x)
    holder = Value(x.node, x.shape, x.dtype, x.time, x.rows, x.inner, x.length, x.clock, x.level, recipe)
    body._nodes[holder] = body._replay(recipe)
    return body.finish([holder])
