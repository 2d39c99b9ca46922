"""Rules for operations on positions, which have an axis of rows in front: tables, products and other dtypes of them."""

from typing import Any, Dict, List, Optional, Tuple

import torch
from torch import fx

from .lowering import Lowering, rule
from .mask_numbers import Number
from .masks import MaskError
from .reasons import REASONS
from .values import Replay, Spread, Static, Value

__all__: List[str] = []


@rule("_to_copy", "to", lifted=True)
def to_dtype(low: Lowering, node: fx.Node, x: Value, a: Dict[str, Any]) -> Value:
    dtype = node.meta["val"].dtype
    return low.step(node, x, Replay(torch.ops.aten.to.dtype, (x, dtype)), dtype=dtype)


@rule("embedding", takes=None)
def embedding(low: Lowering, node: fx.Node, weight: Any, a: Dict[str, Any]) -> Any:
    x = a["indices"]
    if not isinstance(weight, Static) or not isinstance(x, Value) or not x.lifted:
        return NotImplemented
    entries = int(weight.node.meta["val"].shape[0])
    most = _most(low, node.args[1], entries)
    if most is not None:
        low.clocks.limits.append((x.shape[x.time], most))
    # Before and after its signal a row of a static step has positions too.
    inside = low.step(node, x, Replay(torch.ops.aten.clamp.default, (x, 0, entries - 1)))
    recipe = Replay(node.target, (weight, inside))
    return low.record(low.positions.value(node, node.meta["val"], x.clock, x.level, recipe))


def _most(low: Lowering, indices: Any, entries: int) -> Optional[int]:
    """Up to which length indices stay inside a table; ``None`` if they always do.

    Raises:
        UnsupportedModuleError: that is not known
    """
    try:
        found = low.relating.masks.number(indices)
    except MaskError:
        found = None
    if not isinstance(found, Number) or len(found.rises) != 1 or found.grow != 0 or found.floor is not None:
        raise low.refuse(indices, "position", *REASONS["arange"])
    if found.cap is not None and found.cap.slope == 0 and found.cap.offset < entries:
        return None
    rise = next(iter(found.rises.values()))
    if rise <= 0 or found.low < 0:
        raise low.refuse(indices, "position", *REASONS["arange"])
    # rise · (T - 1) + high < entries
    return int((entries - 1 - found.high) / rise) + 1


@rule("matmul", takes=None)
def product(low: Lowering, node: fx.Node, one: Any, a: Dict[str, Any]) -> Any:
    other = a["other"]
    x, static, behind = (one, other, -1) if isinstance(one, Value) else (other, one, -2)
    fits = isinstance(x, Value) and x.lifted and isinstance(static, Static) and not static.sized
    if not fits or len(x.shape) < 2 or x.time - len(x.shape) == behind:
        return NotImplemented
    recipe = Replay(node.target, (one, other))
    return low.record(low.positions.value(node, node.meta["val"], x.clock, x.level, recipe))


@rule("linear", lifted=True)
def linear(low: Lowering, node: fx.Node, x: Value, a: Dict[str, Any]) -> Any:
    fits = isinstance(a["weight"], Static) and (a["bias"] is None or isinstance(a["bias"], Static))
    if not fits or x.time == len(x.shape) - 1:
        return NotImplemented
    recipe = Replay(node.target, tuple(a.values()))
    return low.record(low.positions.value(node, node.meta["val"], x.clock, x.level, recipe))


@rule("transpose", "permute", lifted=True)
def turned(low: Lowering, node: fx.Node, x: Value, a: Dict[str, Any]) -> Value:
    rank = len(x.shape)
    order = list(range(rank))
    if "dims" in a:
        order = [axis % rank for axis in a["dims"]]
    else:
        one, other = a["dim0"] % rank, a["dim1"] % rank
        order[one], order[other] = order[other], order[one]
    recipe = Replay(torch.ops.aten.permute.default, (x, [0, *(axis + 1 for axis in order)]))
    return low.record(low.positions.value(node, node.meta["val"], x.clock, x.level, recipe))


@rule("expand", "repeat", takes=Spread)
def repeated(low: Lowering, node: fx.Node, x: Spread, a: Dict[str, Any]) -> Any:
    size, axis = _repeats(node, a, len(x.shape), x.time)
    meta = node.meta["val"]
    once = low.same_length(low.sizes.function(meta.shape[axis], 1), x.length)
    if not once or isinstance(size[axis], torch.SymInt):
        return NotImplemented
    return low.positions.of_spreads(node, [x, size], {})


@rule("expand", "repeat", lifted=True)
def repeated_rows(low: Lowering, node: fx.Node, x: Value, a: Dict[str, Any]) -> Any:
    size, axis = _repeats(node, a, len(x.shape), x.time)
    meta, front = node.meta["val"], not any(low.sizes.has_rows(n) for n in node.meta["val"].shape)
    if not low.same_length(low.sizes.function(meta.shape[axis], 1), x.length):
        return NotImplemented
    once = -1 if "size" in a else 1
    at = [i for i, n in enumerate(meta.shape) if low.sizes.has_rows(n)]
    size = [once if i in at else item for i, item in enumerate(size)]  # positions are made for every row
    recipe = low.positions.ranked(node, Replay(node.target, (x, [once, *size] if front else size)), [x], front)
    if front:
        return low.record(low.positions.value(node, meta, x.clock, x.level, recipe))
    value = low.value(node, meta, x.clock, x.level, recipe)
    return NotImplemented if value is None or value.rows != 0 or value.inner != 1 else low.record(value)


def _repeats(node: fx.Node, a: Dict[str, Any], rank: int, time: int) -> Tuple[List[Any], int]:
    """Sizes or numbers of copies, with time left as it is where it is not repeated, and the axis of time."""
    axis = time + len(node.meta["val"].shape) - rank
    given = list(a["size"] if "size" in a else a["repeats"])
    if "size" in a:
        given[axis] = -1
    return given, axis
