"""Rules for operations whose meaning depends on how a tensor lies in memory: casts of memory, and strided views.

A chunk lies in memory otherwise than the whole signal does, so these get a copy that lies as the tensor of the model
does, or are done in another way.
"""

from typing import Any, Dict, List, Optional, Tuple

import torch
from torch import fx

from .lowering import Lowering, rule
from .ops.edges import CropStream
from .ops.rates import MergeTimeStream
from .ops.windows import SplitTimeStream, StridedFrames, WindowedStream
from .values import Replay, Value

__all__: List[str] = []

_aten = torch.ops.aten


def _copied(low: Lowering, node: fx.Node, x: Value) -> Value:
    recipe = Replay(_aten.clone.default, (x,), {"memory_format": torch.contiguous_format})
    return low.step(node, x, recipe, fresh=True)


@rule("view_as_complex", lifted=None)
def view_as_complex(low: Lowering, node: fx.Node, x: Value, a: Dict[str, Any]) -> Any:
    return low.samplewise(node, [_copied(low, node, x)], {})


@rule("view")
def view_dtype(low: Lowering, node: fx.Node, x: Value, a: Dict[str, Any]) -> Any:
    dtype = a.get("dtype")
    if not isinstance(dtype, torch.dtype):
        return NotImplemented
    last = x.time == len(x.shape) - 1
    if dtype.is_complex and dtype.to_real() == x.dtype:
        # Two samples, or two entries beside them, become one.
        if last:
            length = x.length
            y = low.derived(node, x, SplitTimeStream(2, 1), lambda n: length(n) // 2, x.like(shape=(*x.shape, 2)))
        else:
            recipe = Replay(_aten.unflatten.int, (x, -1, [-1, 2]))
            y = low.step(node, x, recipe, shape=(*x.shape[:-1], int(x.shape[-1]) // 2, 2))
        return _whole(low, node, y, Replay(_aten.view_as_complex.default, (_copied(low, node, y),)))
    if x.dtype.is_complex and x.dtype.to_real() == dtype:
        y = low.step(node, x, Replay(_aten.view_as_real.default, (x,)), shape=(*x.shape, 2), dtype=dtype)
        if last:
            return low.stream(node, y, MergeTimeStream(2, 1), True)
        return _whole(low, node, y, Replay(_aten.flatten.using_ints, (y, -2, -1)))
    same = dtype.itemsize == x.dtype.itemsize
    return low.samplewise(node, [x if same else _copied(low, node, x), dtype], {})


def _whole(low: Lowering, node: fx.Node, x: Value, recipe: Replay) -> Value:
    """The result of the operation, computed from a value of its own length."""
    value = low.value(node, node.meta["val"], x.clock, x.level, recipe)
    assert value is not None
    return low.record(value)


# ---------------------------------------------------------------------- strided views

_STRIDED = "it is a strided view of memory that is no frames of the signal along time"


@rule("as_strided")
def as_strided(low: Lowering, node: fx.Node, x: Value, a: Dict[str, Any]) -> Value:
    found = _strided_frames(low, node, x)
    if found is None:
        raise low.refuse(node, "time_mixing", _STRIDED, "use Tensor.unfold")
    begin, taps, gap, stride, order = found
    field = (taps - 1) * gap + 1
    length = x.length
    if begin > 0:
        x = low.derived(node, x, CropStream(begin, 0, 0), lambda n: length(n) - begin)
    result = low.value(node, node.meta["val"], None, 0)
    assert result is not None
    body = StridedFrames(x.time, field, stride, gap, order, len(node.meta["val"].shape))
    return low.stream(node, x, WindowedStream(body, field, stride, x.layout(), result.layout(), "as_strided"), True)


def _strided_frames(low: Lowering, node: fx.Node, x: Value) -> Optional[Tuple[int, int, int, int, List[int]]]:
    """The first sample, samples of a frame, from one to the next of these, from one frame to the next, and which axis
    of a frame each axis of the result is, its samples last; ``None`` if the view is not such."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    meta, result = source.meta["val"], node.meta["val"]
    strides, unit = meta.stride(), meta.stride()[x.time]
    begin = result.storage_offset() - meta.storage_offset()
    if not isinstance(unit, int) or not isinstance(begin, int) or begin % unit or begin < 0 or x.merged:
        return None
    taps: Optional[Tuple[int, int]] = None
    step, order, rank = 0, [], len(meta.shape)
    for size, stride in zip(result.shape, result.stride(), strict=True):
        settled = low.sizes.settled(size)
        stride = stride if low.sizes.has_rows(stride) else low.sizes.settled(stride)
        if low.sizes.varies(size):
            if step or not isinstance(stride, int) or stride % unit:
                return None
            step = stride // unit
            order.append(x.time)
            continue
        same = [axis for axis in range(rank) if axis != x.time and axis not in order and _equal(stride, strides[axis])]
        same = [axis for axis in same if _equal(settled, low.sizes.settled(meta.shape[axis]))]
        if same:
            order.append(same[0])
        elif isinstance(settled, int) and isinstance(stride, int) and stride % unit == 0 and taps is None:
            taps = settled, stride // unit
            order.append(rank)
        else:
            return None
    gone = [axis for axis in range(rank) if axis not in order]
    if step < 1 or any(_size(low, meta.shape[axis]) != 1 for axis in gone):
        return None
    count, gap = taps or (1, 1)
    if gap < 1:
        return None
    return begin // unit, count, gap, step, [*order, *gone] if taps else [*order, rank, *gone]


def _size(low: Lowering, size: Any) -> Any:
    return low.sizes.settled(size)


def _equal(one: Any, other: Any) -> bool:
    """Whether two sizes are equal for all lengths and rows."""
    expressions = [size.node.expr if isinstance(size, torch.SymInt) else size for size in (one, other)]
    return bool(expressions[0] == expressions[1])
