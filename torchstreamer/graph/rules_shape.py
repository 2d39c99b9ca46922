"""Rules for operations that move axes: time stays whole, or a constant factor goes into it or out of it."""

import math
from typing import Any, Dict, List, Optional

import torch
from torch import fx

from .lowering import Lowering, rule
from .ops.rates import MergeTimeStream
from .ops.windows import SplitTimeStream
from .reasons import REASONS
from .refusals import operation_name
from .values import Edge, Replay, Rows, Span, Spread, Static, Value

__all__: List[str] = []

_PARTS = (
    "it cuts the whole signal into parts, or lays parts one behind the other",
    "let the axis next to time, on its right, take the factor: view(…, T // r, r)",
)


@rule("view", "_unsafe_view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze")
def view(low: Lowering, node: fx.Node, a: Dict[str, Any]) -> Any:
    x = a["self"]
    if isinstance(x, Spread):
        return NotImplemented
    if isinstance(x, Edge):
        raise low.refuse(node, "single_sample", *REASONS["select"])
    meta = node.meta["val"]
    if "dtype" in a and not isinstance(a.get("size"), list):
        return NotImplemented
    if x.lifted:
        shape: List[Any] = [Rows(1)]
        axis = None
        for at, size in enumerate(meta.shape):
            if low.sizes.varies(size):
                axis = at
            shape.append(Span(x) if low.sizes.varies(size) else low.sizes.settled(size))
        if axis is None or not low.same_length(low.sizes.function(meta.shape[axis]), x.length):
            raise low.refuse(node, "position", *REASONS["arange"])
        found = low.positions.value(node, meta, x.clock, x.level, Replay("reshape", (x, shape)))
        return low.record(found)
    y = low.value(node, meta, x.clock, x.level)
    if y is None:
        raise low.refuse(node, "time_mixing", *_PARTS)
    n = low.lengths[-1]
    if x.merged or y.merged:
        return _merged_rows(low, node, x, y, n)
    before, behind = _products(low, x, n), _products(low, y, n)
    if x.rows is not None and y.rows is not None and _front(low, x, x.rows, n) != _front(low, y, y.rows, n):
        raise low.refuse(node, "rows_mixed", "it mixes the rows of a batch", "keep rows first")
    if before[0] == behind[0] and low.same_length(x.length, y.length):
        sizes: List[Any] = []
        for axis, item in enumerate(y.shape):
            if axis == y.time:
                sizes.append(-1 if y.rows is None or y.time > 0 else Span(x))
            elif axis == y.rows:
                sizes.append(Rows(y.inner))
            else:
                sizes.append(int(item))
        y.recipe = Replay("reshape", (x, sizes))
        return low.record(y)
    factor = _factor(low, y, x)
    if before[0] != behind[0] or factor is None or (x.rows is not None and x.rows > x.time):
        raise low.refuse(node, "time_mixing", *_PARTS)
    if factor > 1:
        return low.stream(node, x, MergeTimeStream(factor, before[1] // factor), True)
    if y.rows is not None and y.rows > y.time:
        raise low.refuse(node, "time_mixing", *_PARTS)
    split = _factor(low, x, y)
    assert split is not None
    return low.stream(node, x, SplitTimeStream(split, before[1]), True)


def _merged_rows(low: Lowering, node: fx.Node, x: Value, y: Value, n: int) -> Value:
    # [B, T, …] -> [B·T, …] and back: rows and time are neighbours, rows first.
    for value in (x, y):
        if not value.merged and (value.rows is None or value.rows + 1 != value.time or value.inner != 1):
            raise low.refuse(node, "rows_mixed", "it mixes the rows of a batch", "keep rows first")
    ends = [_products(low, value, n)[1] for value in (x, y)]
    if ends[0] != ends[1] or not low.same_length(x.length, y.length):
        raise low.refuse(node, "time_mixing", *_PARTS)
    size = [-1 if axis == y.time else Rows(1) if axis == y.rows else item for axis, item in enumerate(y.shape)]
    y.recipe = Replay("reshape", (x, size))
    return low.record(y)


def _products(low: Lowering, value: Value, n: int) -> List[int]:
    """Entries of the axes in front of time, and behind it, for one row of many."""
    sizes = [low.sizes.at(size, n, 7) for size in value.shape]
    return [math.prod(sizes[: value.time]), math.prod(sizes[value.time + 1 :])]


def _front(low: Lowering, value: Value, axis: int, n: int) -> int:
    # Time is left out: an axis of rows behind it stays behind it.
    sizes = [low.sizes.at(size, n, 7) for at, size in enumerate(value.shape) if at < axis and at != value.time]
    return math.prod(sizes) * (-1 if value.time < axis else 1)


def _factor(low: Lowering, longer: Value, shorter: Value) -> Optional[int]:
    """How many samples of one are one of the other, if always as many; 0 if it is shorter."""
    first = longer.length(low.lengths[0]) // max(shorter.length(low.lengths[0]), 1)
    if all(longer.length(n) == first * shorter.length(n) for n in low.lengths):
        return first
    back = shorter.length(low.lengths[0]) // max(longer.length(low.lengths[0]), 1)
    return 0 if all(shorter.length(n) == back * longer.length(n) for n in low.lengths) else None


@rule("type_as")
def type_as(low: Lowering, node: fx.Node, a: Dict[str, Any]) -> Any:
    # Of the other tensor only the dtype counts.
    if not isinstance(a["self"], Value):
        return NotImplemented
    dtype = node.meta["val"].dtype
    return low.step(node, a["self"], Replay(torch.ops.aten.to.dtype, (a["self"], dtype)), dtype=dtype)


@rule("expand")
def expand(low: Lowering, node: fx.Node, a: Dict[str, Any]) -> Any:
    x = a["self"]
    if isinstance(x, Edge):
        meta = node.meta["val"]
        axis = x.value.time
        size = meta.shape[axis]
        if low.sizes.varies(size):
            raise low.refuse(node, "single_sample", *REASONS["select"])
        if x.samples > 1:
            return x
        return Edge(x.value, x.last, int(size))
    if not isinstance(x, Value) or x.lifted:
        return NotImplemented
    shift = len(node.meta["val"].shape) - len(x.shape)
    size = [-1 if i == x.time + shift else item for i, item in enumerate(a["size"])]
    return low.samplewise(node, [x, size], {})


@rule("repeat")
def repeat(low: Lowering, node: fx.Node, a: Dict[str, Any]) -> Any:
    x = a["self"]
    if isinstance(x, Edge):
        repeats = list(a["repeats"])
        axis = x.value.time
        if (
            any(count != 1 for i, count in enumerate(repeats) if i != axis)
            or not isinstance(repeats[axis], int)
            or x.samples > 1
        ):
            raise low.refuse(node, "single_sample", *REASONS["select"])
        return Edge(x.value, x.last, repeats[axis])
    return NotImplemented


@rule("zeros_like", "ones_like", "full_like")
def like(low: Lowering, node: fx.Node, a: Dict[str, Any]) -> Any:
    if not isinstance(a["self"], Edge):
        return NotImplemented
    # Of a single sample only the shape counts.
    size = low.resolve(list(node.meta["val"].shape))
    return constructor(low, node, {**a, "size": size})


@rule("new_zeros", "new_ones", "new_full")
def constructor(low: Lowering, node: fx.Node, a: Dict[str, Any]) -> Any:
    # The tensor only says dtype and device.
    meta = node.meta["val"]
    name = operation_name(node)
    value = 0.0 if "zeros" in name else 1.0 if "ones" in name else a.get("fill_value")
    if any(low.sizes.varies(size) for size in meta.shape):
        axis = next(i for i, size in enumerate(meta.shape) if low.sizes.varies(size))
        size = [None if i == axis else item for i, item in enumerate(a["size"])]
        recipe = Replay(torch.ops.aten.full.default, (size, value), {"dtype": meta.dtype})
        return Spread(node, tuple(meta.shape), meta.dtype, axis, low.sizes.function(meta.shape[axis]), recipe)
    made = low.static(node, [a["size"], value], {"dtype": meta.dtype})
    assert made.recipe is not None
    made.recipe.target = torch.ops.aten.full.default
    return made


@rule("einsum")
def einsum(low: Lowering, node: fx.Node, a: Dict[str, Any]) -> Any:
    streamed = [x for x in a["tensors"] if isinstance(x, (Value, Spread))]
    if not any(isinstance(x, Value) and x.lifted for x in streamed):
        return NotImplemented
    if not all(isinstance(x, Value) and x.lifted for x in streamed) or "." in a["equation"]:
        raise low.refuse(node, "position", *REASONS["arange"])
    # Positions have an axis of rows in front.
    left, right = a["equation"].replace(" ", "").split("->")
    terms = ["..." + term if x in streamed else term for term, x in zip(left.split(","), a["tensors"], strict=True)]
    recipe = Replay(node.target, (f"{','.join(terms)}->...{right}", a["tensors"]))
    first = next(x for x in streamed if isinstance(x, Value))
    found = low.positions.value(node, node.meta["val"], first.clock, first.level, recipe)
    return low.record(found)


@rule("outer")
def outer(low: Lowering, node: fx.Node, a: Dict[str, Any]) -> Any:
    one, two = a["self"], a["vec2"]
    if isinstance(one, Value) and one.lifted and isinstance(two, Static):
        x, other = one, two
        shaped = Replay("reshape", (x, [Rows(1), Span(x), 1]))
    elif isinstance(two, Value) and two.lifted and isinstance(one, Static):
        column = Replay(torch.ops.aten.unsqueeze.default, (one, 1))
        x, other = two, Static(one.node, column, one.weights, one.given, one.sized)
        shaped = Replay("reshape", (x, [Rows(1), 1, Span(x)]))
    else:
        return NotImplemented
    time = 0 if a["self"] is x else 1
    shape = [x.shape[0], 1] if time == 0 else [1, x.shape[0]]
    spread = low.step(node, x, shaped, shape=tuple(shape), time=time)
    recipe = Replay(torch.ops.aten.mul.Tensor, (spread, other))
    found = low.positions.value(node, node.meta["val"], x.clock, x.level, recipe)
    return low.record(found)


@rule("pixel_shuffle")
def pixel_shuffle(low: Lowering, node: fx.Node, a: Dict[str, Any]) -> Any:
    x, r = a["self"], a["upscale_factor"]
    if not isinstance(x, Value) or x.time < len(x.shape) - 2 or x.rows is None or x.rows >= x.time or x.lifted:
        return NotImplemented
    return _shuffled(low, node, x, r)


def _shuffled(low: Lowering, node: fx.Node, x: Value, r: int) -> Value:
    # [.., C·r·r, H, W] -> [.., C, r, r, H, W], the two factors beside their axes; the one beside time goes into it.
    rank, last = len(x.shape), x.time == len(x.shape) - 1
    front: List[Any] = [Rows(x.inner) if axis == x.rows else x.shape[axis] for axis in range(rank - 3)]
    channels = int(x.shape[rank - 3]) // (r * r)
    other = int(x.shape[rank - 2 if last else rank - 1])
    span = Span(x)
    height, width = (other, span) if last else (span, other)
    k = rank - 3
    parts = Replay("reshape", (x, [*front, channels, r, r, height, width]))
    y = low.step(node, x, parts, shape=(*x.shape[:k], channels, r, r, *x.shape[k + 1 :]), time=x.time + 2)
    y = _permuted(low, node, y, [*range(k), k, k + 3, k + 1, k + 4, k + 2])
    behind = 1 if last else other * r
    return low.stream(node, y, MergeTimeStream(r, behind), True)


def _permuted(low: Lowering, node: fx.Node, x: Value, order: List[int]) -> Value:
    recipe = Replay(torch.ops.aten.permute.default, (x, order))
    return low.step(node, x, recipe, shape=tuple(x.shape[axis] for axis in order), time=order.index(x.time))


@rule("pixel_unshuffle")
def pixel_unshuffle(low: Lowering, node: fx.Node, a: Dict[str, Any]) -> Any:
    x, r = a["self"], a["downscale_factor"]
    if not isinstance(x, Value) or x.time < len(x.shape) - 2 or x.rows is None or x.rows >= x.time or x.lifted:
        return NotImplemented
    rank, last = len(x.shape), x.time == len(x.shape) - 1
    k = rank - 3
    front: List[Any] = [Rows(x.inner) if axis == x.rows else x.shape[axis] for axis in range(k)]
    channels = int(x.shape[k])
    other = int(x.shape[rank - 2 if last else rank - 1]) // r
    length = x.length
    # The factor out of time: [.., C, H·r, W, r], or [.., C, H, r, W·r].
    shape = (*x.shape, r) if last else (*x.shape[:-1], r, x.shape[-1])
    stream = SplitTimeStream(r, 1 if last else other * r)
    y = low.derived(node, x, stream, lambda n: length(n) // r, x.like(shape=shape))
    span = Span(y)
    if last:
        split, order = [*front, channels, other, r, span, r], [*range(k), k, k + 2, k + 4, k + 1, k + 3]
    else:
        split, order = [*front, channels, span, r, other, r], [*range(k), k, k + 2, k + 4, k + 1, k + 3]
    sizes = [other, r, y.shape[y.time], r] if last else [y.shape[y.time], r, other, r]
    shape, time = (*x.shape[:k], channels, *sizes), k + 3 if last else k + 1
    z = _permuted(low, node, low.step(node, y, Replay("reshape", (y, split)), shape=shape, time=time), order)
    whole = low.value(node, node.meta["val"], z.clock, z.level)
    assert whole is not None
    size = [
        Span(z) if axis == whole.time else Rows(whole.inner) if axis == whole.rows else item
        for axis, item in enumerate(whole.shape)
    ]
    whole.recipe = Replay("reshape", (z, size))
    return low.record(whole)


@rule("leaf")
def leaf(low: Lowering, node: fx.Node, a: Dict[str, Any]) -> Any:
    x = a["x"]
    call = low.capture.leaves[a["call"]]
    name = type(call.module).__name__
    if not isinstance(x, Value) or x.lifted or len(x.shape) != 3 or x.time != 2 or x.rows not in (0, None):
        raise low.refuse(
            node,
            "handler_layout",
            f"the handler of {name} takes [B, C, T]; it got time on another axis",
            "transpose first",
        )
    return low.stream(node, x, call.stream, False)
