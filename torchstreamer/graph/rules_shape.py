"""Rules for operations that move axes: time stays whole, or a constant factor goes into it or out of it."""

import math
from dataclasses import replace
from typing import Any, Dict, List, Optional

import torch
from torch import fx

from .block_views import in_blocks
from .folds import folded, viewed
from .lowering import Lowering, rule
from .ops.rates import MergeTimeStream
from .ops.windows import SplitTimeStream
from .reasons import REASONS
from .refusals import operation_name
from .values import AtEnd, EndSamples, Replay, Rows, Span, Spread, Static, Value

__all__: List[str] = []

_PARTS = (
    "it cuts the whole signal into parts, or lays parts one after the other",
    "let the axis next to time, on its right, take the factor: view(…, T // r, r)",
)


@rule("view", "_unsafe_view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", lifted=None)
def view(low: Lowering, node: fx.Node, x: Value, a: Dict[str, Any]) -> Any:
    meta = node.meta["val"]
    if "dtype" in a and not isinstance(a.get("size"), list):
        return NotImplemented
    if x.lifted:
        return _lifted_view(low, node, x, meta)
    y = low.value(node, meta, x.clock, x.level)
    if y is None:
        raise low.refuse(node, "time_mixing", *_PARTS)
    if x.rows is not None and x.rows > x.time and not low.same_length(x.length, y.length):
        blocks = in_blocks(low, node, x, y)
        if blocks is not None:
            return blocks
    if x.rows is not None and y.rows is not None and _rows_moved(low, x, y):
        raise low.refuse(node, "rows_mixed", "it mixes the rows of a batch", "keep rows first")
    whole = folded(low, x, y)
    if whole is not None and not _is_longer(x, whole):
        return viewed(low, x, whole)
    if x.merged or (whole is None and y.merged):
        blocks = in_blocks(low, node, x, y)
        if blocks is None:
            raise low.refuse(node, "rows_mixed", "it mixes the rows of a batch", "keep rows first")
        return blocks
    n = low.lengths[-1]
    old, new = _products(low, x, n), _products(low, y, n)
    factor = _factor(low, y, x)
    if old[0] != new[0] or factor is None or (x.rows is not None and x.rows > x.time):
        raise low.refuse(node, "time_mixing", *_PARTS)
    if factor > 1:
        return low.stream(node, x, MergeTimeStream(factor, old[1] // factor), True)
    if y.rows is not None and y.rows > y.time:
        raise low.refuse(node, "time_mixing", *_PARTS)
    split = _factor(low, x, y)
    assert split is not None
    return low.stream(node, x, SplitTimeStream(split, old[1]), True)


def _lifted_view(low: Lowering, node: fx.Node, x: Value, meta: Any) -> Value:
    axes = [axis for axis, size in enumerate(meta.shape) if low.sizes.varies(size)]
    if not axes or not low.same_length(low.sizes.function(meta.shape[axes[-1]]), x.length):
        raise low.refuse(node, "position", *REASONS["arange"])
    shape = [Span(x) if axis in axes else low.sizes.settled(size) for axis, size in enumerate(meta.shape)]
    return low.record(low.positions.value(node, meta, x.clock, x.level, Replay("reshape", (x, [Rows(1), *shape]))))


def _rows_moved(low: Lowering, x: Value, y: Value) -> bool:
    n = low.lengths[-1]
    assert x.rows is not None and y.rows is not None
    return not x.merged and _front(low, x, x.rows, n) != _front(low, y, y.rows, n)


def _is_longer(x: Value, y: Value) -> bool:
    """Whether a view is better taken for a signal of more samples, as entries after time have gone into it."""
    if not y.merged or y.folds[:2] != (1, 1) or y.folds[2] == 1:
        return False
    if x.merged:
        return x.folds == (1, 1, 1) and y.rows is not None and y.rows < y.time
    return x.rows is None or (x.rows < x.time and y.rows is not None and y.rows < y.time)


def _products(low: Lowering, value: Value, n: int) -> List[int]:
    """Entries of the axes in front of time, and after it, for one row of many."""
    sizes = [low.sizes.at(size, n, 7) for size in value.shape]
    return [math.prod(sizes[: value.time]), math.prod(sizes[value.time + 1 :])]


def _front(low: Lowering, value: Value, axis: int, n: int) -> int:
    # Time is left out: an axis of rows after it stays after it.
    sizes = [low.sizes.at(size, n, 7) for at, size in enumerate(value.shape) if at < axis and at != value.time]
    return math.prod(sizes) * (-1 if value.time < axis else 1)


def _factor(low: Lowering, longer: Value, shorter: Value) -> Optional[int]:
    """How many samples of one are one of the other, if always as many; 0 if it is shorter."""
    first = longer.length(low.lengths[0]) // max(shorter.length(low.lengths[0]), 1)
    if all(longer.length(n) == first * shorter.length(n) for n in low.lengths):
        return first
    back = shorter.length(low.lengths[0]) // max(longer.length(low.lengths[0]), 1)
    return 0 if all(shorter.length(n) == back * longer.length(n) for n in low.lengths) else None


@rule("type_as", lifted=None)
def type_as(low: Lowering, node: fx.Node, x: Value, a: Dict[str, Any]) -> Value:
    # Of the other tensor only the dtype counts.
    dtype = node.meta["val"].dtype
    return low.step(node, x, Replay(torch.ops.aten.to.dtype, (x, dtype)), dtype=dtype)


@rule("empty_like", lifted=None)
def empty_like(low: Lowering, node: fx.Node, x: Value, a: Dict[str, Any]) -> Value:
    # A model overwrites it; zeros stand there until then.
    dtype = node.meta["val"].dtype
    return low.step(node, x, Replay(torch.ops.aten.zeros_like.default, (x,), {"dtype": dtype}), dtype=dtype)


@rule("expand")
def expand(low: Lowering, node: fx.Node, x: Value, a: Dict[str, Any]) -> Any:
    shift = len(node.meta["val"].shape) - len(x.shape)
    size = [-1 if i == x.time + shift else item for i, item in enumerate(a["size"])]
    return low.samplewise(node, [x, size], {})


@rule("expand", takes=EndSamples)
def expand_end(low: Lowering, node: fx.Node, x: EndSamples, a: Dict[str, Any]) -> EndSamples:
    size = node.meta["val"].shape[x.value.time]
    if low.sizes.varies(size):
        raise low.refuse(node, "single_sample", *REASONS["select"])
    return x if x.samples > 1 or x.beyond else EndSamples(x.value, x.last, int(size))


@rule("repeat", takes=EndSamples)
def repeat_end(low: Lowering, node: fx.Node, x: EndSamples, a: Dict[str, Any]) -> EndSamples:
    count = a["repeats"][x.value.time]
    others = [item for axis, item in enumerate(a["repeats"]) if axis != x.value.time]
    if x.samples > 1 or x.beyond or not isinstance(count, int) or any(item != 1 for item in others):
        raise low.refuse(node, "single_sample", *REASONS["select"])
    return EndSamples(x.value, x.last, count)


@rule("flip", takes=EndSamples)
def flip_end(low: Lowering, node: fx.Node, x: EndSamples, a: Dict[str, Any]) -> Any:
    if [dim % len(x.value.shape) for dim in a["dims"]] != [x.value.time] or x.count > 1:
        return NotImplemented
    return replace(x, mirrored=not x.mirrored)


@rule("zeros_like", "ones_like", "full_like", takes=(AtEnd, EndSamples))
def like_end(low: Lowering, node: fx.Node, x: Any, a: Dict[str, Any]) -> Any:
    # Of a single sample only the shape counts.
    return constructor(low, node, x, {**a, "size": low.resolve(list(node.meta["val"].shape))})


@rule("new_zeros", "new_ones", "new_full", "new_empty", takes=None)
def constructor(low: Lowering, node: fx.Node, x: Any, a: Dict[str, Any]) -> Any:
    # The tensor only says dtype and device.
    meta = node.meta["val"]
    name = operation_name(node)
    value = 0.0 if "zeros" in name or "empty" in name else 1.0 if "ones" in name else a.get("fill_value")
    if any(low.sizes.varies(size) for size in meta.shape):
        axis = next(i for i, size in enumerate(meta.shape) if low.sizes.varies(size))
        size = [None if i == axis else item for i, item in enumerate(a["size"])]
        recipe = Replay(torch.ops.aten.full.default, (size, value), {"dtype": meta.dtype})
        return Spread(node, tuple(meta.shape), meta.dtype, axis, low.sizes.function(meta.shape[axis], 1), recipe)
    made = low.static(node, [a["size"], value], {"dtype": meta.dtype})
    assert made.recipe is not None
    made.recipe.target = torch.ops.aten.full.default
    return made


@rule("einsum", takes=None)
def einsum(low: Lowering, node: fx.Node, equation: str, a: Dict[str, Any]) -> Any:
    streamed = [x for x in a["tensors"] if isinstance(x, (Value, Spread))]
    if not any(isinstance(x, Value) and x.lifted for x in streamed):
        return NotImplemented
    if not all(isinstance(x, Value) and x.lifted for x in streamed) or "." in equation:
        raise low.refuse(node, "position", *REASONS["arange"])
    # Positions have an axis of rows in front.
    left, right = equation.replace(" ", "").split("->")
    terms = ["..." + term if x in streamed else term for term, x in zip(left.split(","), a["tensors"], strict=True)]
    recipe = Replay(node.target, (f"{','.join(terms)}->...{right}", a["tensors"]))
    first = next(x for x in streamed if isinstance(x, Value))
    return low.record(low.positions.value(node, node.meta["val"], first.clock, first.level, recipe))


@rule("outer", takes=None)
def outer(low: Lowering, node: fx.Node, one: Any, a: Dict[str, Any]) -> Any:
    two = a["vec2"]
    if isinstance(one, Value) and one.lifted and isinstance(two, Static):
        x, other = one, two
        shaped = Replay("reshape", (x, [Rows(1), Span(x), 1]))
    elif isinstance(two, Value) and two.lifted and isinstance(one, Static):
        column = Replay(torch.ops.aten.unsqueeze.default, (one, 1))
        x, other = two, Static(one.node, column, one.weights, one.given, one.sized)
        shaped = Replay("reshape", (x, [Rows(1), 1, Span(x)]))
    else:
        return NotImplemented
    time = 0 if one is x else 1
    spread = low.step(node, x, shaped, shape=(x.shape[0], 1) if time == 0 else (1, x.shape[0]), time=time)
    recipe = Replay(torch.ops.aten.mul.Tensor, (spread, other))
    return low.record(low.positions.value(node, node.meta["val"], x.clock, x.level, recipe))


@rule("pixel_shuffle", last=2)
def pixel_shuffle(low: Lowering, node: fx.Node, x: Value, a: Dict[str, Any]) -> Any:
    if x.rows is None or x.rows >= x.time:
        return NotImplemented
    # [.., C·r·r, H, W] -> [.., C, r, r, H, W], the two factors beside their axes; the one beside time goes into it.
    r, rank, last = a["upscale_factor"], len(x.shape), x.time == len(x.shape) - 1
    front: List[Any] = [Rows(x.inner) if axis == x.rows else x.shape[axis] for axis in range(rank - 3)]
    channels = int(x.shape[rank - 3]) // (r * r)
    other = int(x.shape[rank - 2 if last else rank - 1])
    span = Span(x)
    height, width = (other, span) if last else (span, other)
    k = rank - 3
    parts = Replay("reshape", (x, [*front, channels, r, r, height, width]))
    y = low.step(node, x, parts, shape=(*x.shape[:k], channels, r, r, *x.shape[k + 1 :]), time=x.time + 2)
    y = _permuted(low, node, y, [*range(k), k, k + 3, k + 1, k + 4, k + 2])
    return low.stream(node, y, MergeTimeStream(r, 1 if last else other * r), True)


def _permuted(low: Lowering, node: fx.Node, x: Value, order: List[int]) -> Value:
    recipe = Replay(torch.ops.aten.permute.default, (x, order))
    return low.step(node, x, recipe, shape=tuple(x.shape[axis] for axis in order), time=order.index(x.time))


@rule("pixel_unshuffle", last=2)
def pixel_unshuffle(low: Lowering, node: fx.Node, x: Value, a: Dict[str, Any]) -> Any:
    if x.rows is None or x.rows >= x.time:
        return NotImplemented
    r, rank, last = a["downscale_factor"], len(x.shape), x.time == len(x.shape) - 1
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


@rule("split", "split_with_sizes", "chunk", takes=Spread)
def parts_of_constant(low: Lowering, node: fx.Node, x: Spread, a: Dict[str, Any]) -> Any:
    # A number repeated for all samples, as an initial state of zeros, cut along another axis than time.
    recipe, axis = x.recipe, a["dim"] % len(x.shape)
    name = getattr(recipe.target, "_opname", "") if recipe is not None else ""
    if name not in ("zeros", "ones", "full") or axis == x.time:
        raise low.refuse(node, "position", *REASONS["arange"])
    assert recipe is not None
    value = recipe.args[1] if name == "full" else float(name == "ones")
    parts: List[Any] = [None] * len(node.meta["val"])
    for user in node.users:
        at = int(user.args[1])  # type: ignore[arg-type]
        meta = user.meta["val"]
        size = [None if i == x.time else low.resolve(item) for i, item in enumerate(meta.shape)]
        made = Replay(torch.ops.aten.full.default, (size, value), {"dtype": meta.dtype})
        parts[at] = Spread(user, tuple(meta.shape), meta.dtype, x.time, x.length, made)
    return parts
