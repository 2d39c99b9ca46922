"""Axes that hold more than time: the samples of all rows, and entries of other axes.

A view keeps the order of entries in memory. So it is known where time and rows stand in its axes from how many entries
stand in front of them, and after them. That holds for every length, as sizes beside time and rows are numbers.
"""

import math
from typing import Any, List, NamedTuple, Optional

from .values import Replay, Rows, Span, Value

__all__ = ["Order", "folded", "order_of", "viewed"]


class Order(NamedTuple):
    """Where time and rows stand among the entries of a tensor in memory, each counted as one entry.

    Attributes:
        front: entries in front of time
        after: entries after it
        rows: entries in front of the rows, ``None`` without rows
        first: whether time stands in front of the rows
    """

    front: int
    after: int
    rows: Optional[int]
    first: bool


def order_of(low: Any, value: Value) -> Order:
    """Where time and rows stand in a value."""
    n = low.lengths[-1]
    sizes = [1 if axis == value.time else low.sizes.at(size, n, 1) for axis, size in enumerate(value.shape)]
    before, after = math.prod(sizes[: value.time]), math.prod(sizes[value.time + 1 :])
    outer, between, inner = value.folds
    front, behind = before * outer * between, after * inner
    if value.rows is not None:
        first = value.time < value.rows
        held = math.prod(value.folds) if first else 1
        return Order(front, behind, held * math.prod(sizes[: value.rows]), first)
    if low.sizes.has_rows(value.shape[value.time]):
        if value.mixed:  # time, then rows
            return Order(before * outer, after * inner * between, front, True)
        return Order(front, behind, before * outer, False)
    return Order(front, behind, None, False)


def folded(low: Any, x: Value, y: Value) -> Optional[Value]:
    """A view of a value, with what its axis of time holds; ``None`` if no such axis holds time whole.

    Args:
        low: the lowering
        x: the value
        y: the view, of which only shape, axes and length are known
    """
    order, n = order_of(low, x), low.lengths[-1]
    sizes = [1 if axis == y.time else low.sizes.at(size, n, 1) for axis, size in enumerate(y.shape)]
    before, after = math.prod(sizes[: y.time]), math.prod(sizes[y.time + 1 :])
    holds_rows = y.rows is None and low.sizes.has_rows(y.shape[y.time])
    if not holds_rows:
        found = (order.front // before, 1, order.after // after)
    elif order.rows is None:
        return None
    else:
        near, far = sorted([order.front, order.rows])
        # After the second of time and rows stand the entries after time, without those between if time is first.
        last = order.after * near // far if order.first else order.after
        found = (near // before, far // near, last // after)
    whole = y.like(merged=holds_rows or found != (1, 1, 1), mixed=holds_rows and order.first, folds=found)
    if order_of(low, whole) != order:
        return None
    held, had = math.prod(found), math.prod(x.folds)
    return whole if all(y.length(n) * had == x.length(n) * held for n in low.lengths) else None


def viewed(low: Any, x: Value, y: Value) -> Value:
    """A value as a view that holds its time whole; see `folded`."""
    sizes: List[Any] = []
    for axis, item in enumerate(y.shape):
        if axis == y.time:
            sizes.append(-1 if y.merged or x.merged or y.rows is None or y.time > 0 else Span(x))
        elif axis == y.rows:
            sizes.append(Rows(y.inner))
        else:
            sizes.append(int(item))
    y.recipe = Replay("reshape", (x, sizes))
    found: Value = low.record(y)
    return found
