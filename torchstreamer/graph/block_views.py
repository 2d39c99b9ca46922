"""Views that cut a signal into blocks which become entries of the batch, and that lay them one after the other again.

``x.view(B * T // n, n, C)`` moves a factor out of time and puts rows and what is left of time into one axis. Both are
views of ``[B, T // n, n, C]``.
"""

import math
from typing import Any, Iterator, Optional

from torch import fx

from .folds import folded, viewed
from .ops.rates import MergeTimeStream
from .ops.windows import SplitTimeStream
from .values import Value

__all__ = ["in_blocks"]


def in_blocks(low: Any, node: fx.Node, x: Value, y: Value) -> Optional[Value]:
    """A view of a value by blocks of samples; ``None`` if it is none.

    Args:
        low: the lowering
        node: the view
        x: the value
        y: the view, of which only shape, axes and length are known
    """
    if not x.merged:
        for size in _divisors(low, x):
            cut = _cut(low, x, size)
            whole = folded(low, cut, y)
            if whole is not None:
                blocks = low.derived(node, x, SplitTimeStream(size, _after(x)), cut.length, cut)
                found: Value = viewed(low, blocks, whole.like(clock=blocks.clock, level=blocks.level))
                return found
    if not y.merged and y.rows is not None:
        for size in _divisors(low, y):
            whole = folded(low, x, _cut(low, y, size))
            if whole is not None and not whole.merged:
                blocks = viewed(low, x, whole)
                joined: Value = low.stream(node, blocks, MergeTimeStream(size, _after(y)), True)
                return joined
    return None


def _divisors(low: Any, value: Value) -> Iterator[int]:
    """Numbers of samples that divide every length of a value, from the least."""
    common = math.gcd(*(value.length(n) for n in low.lengths))
    return (size for size in range(2, common + 1) if common % size == 0)


def _cut(low: Any, value: Value, size: int) -> Value:
    """A value with blocks of so many samples along an axis behind time."""
    at, length = value.time, value.length
    shape = (*value.shape[:at], value.shape[at] // size, size, *value.shape[at + 1 :])
    rows = value.rows if value.rows is None or value.rows < at else value.rows + 1
    found: Value = value.like(shape=shape, rows=rows, length=lambda n: length(n) // size)
    return found


def _after(value: Value) -> int:
    """Entries of the axes behind time, but for the rows."""
    sizes = [
        1 if axis == value.rows else int(size)
        for axis, size in enumerate(value.shape[value.time + 1 :], value.time + 1)
    ]
    return math.prod(sizes)
