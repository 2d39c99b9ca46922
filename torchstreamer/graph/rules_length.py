"""Rules for operations that change a signal's length or remember it: crops, interpolation, cumulative sums."""

import math
from fractions import Fraction
from typing import Any, Dict, List, Optional, Tuple

import torch
from torch import fx, nn

from ..core.lengths import LengthFunction, LengthTable
from ..layers.upsampling import UpsampleStream
from .lowering import Lowering, rule
from .ops.edges import CropStream
from .ops.rates import CornerUpsampleStream
from .ops.running import CumulativeStream
from .ops.windows import WindowedStream
from .reasons import REASONS
from .refusals import operation_name
from .values import AtEnd, EndSamples, Replay, Span, Spread, Value

__all__ = ["constant", "held", "length_table", "other_axes", "position", "rational_size", "settle"]

_FAR = 1 << 62


# ---------------------------------------------------------------------- crops


@rule("slice", takes=(Spread, Value), lifted=None)
def whole(low: Lowering, node: fx.Node, x: Any, a: Dict[str, Any]) -> Any:
    return x if _takes_all(low, x, a) else NotImplemented


@rule("slice", "narrow", along="dim")
def slice_(low: Lowering, node: fx.Node, x: Value, a: Dict[str, Any]) -> Any:
    start, end, step = a.get("start"), a.get("end"), a.get("step", 1)
    if "length" in a:
        start, end, step = a["start"], None, 1
    begin = position(low, 0 if start is None else start, x.length)
    stop = position(low, _FAR if end is None else end, x.length)
    if "length" in a:
        amount = low.sizes.function(a["length"])
        stop_of = begin

        def stop(n: int) -> int:
            return stop_of(n) + amount(n)

    result = low.value(node, node.meta["val"], None, 0)
    left = constant(low, begin)
    if result is None or left is None:
        taken = _end_samples(low, x, begin, stop)
        if taken is not None:
            return taken
        if result is None:
            raise low.refuse(node, "single_sample", *REASONS["select"])
        raise low.refuse(node, "varying_crop", *REASONS["slice"])
    y = _crop(low, node, x, left, stop)
    if step == 1:
        return y
    recipe = Replay(torch.ops.aten.slice.Tensor, (y, y.time, 0, _FAR * 2 - 1, step))
    stream = WindowedStream(low.weights.body().of_window(y, recipe), 1, step, y.layout(), result.layout(), "slice")
    return low.stream(node, y, stream, True)


def _takes_all(low: Lowering, x: Any, a: Dict[str, Any]) -> bool:
    """Whether a slice is all there is."""
    if a.get("start") not in (None, 0) or a.get("step", 1) != 1:
        return False
    end = a.get("end")
    if end is None or (isinstance(end, int) and end >= _FAR):
        return True
    axis = a["dim"] % len(x.shape)
    if axis == x.time:
        return low.same_length(low.sizes.function(end), x.length)
    size = x.shape[axis]
    return isinstance(end, int) and isinstance(size, int) and end >= size


def _crop(low: Lowering, node: fx.Node, x: Value, left: int, stop: LengthFunction) -> Value:
    length = x.length
    right = low.constant_difference(length, stop)

    def cropped(n: int) -> int:
        return stop(n) - left

    if right is not None:
        if left == right == 0:
            return x
        return low.derived(node, x, CropStream(left, right, held(low, x, left, right, cropped)), cropped)
    return settle(low, node, x, left, cropped)


def held(low: Lowering, x: Value, left: int, right: int, length: LengthFunction) -> int:
    """Samples of a value, of those that have come, that an end could still crop."""
    assert x.clock is not None
    unit = low.sizes.scale * low.capture.multiple
    top = low.lengths[0] + 2 * math.lcm(x.clock.hop, unit) + 64 * unit
    if right == 0 or top > 50_000:
        return right
    least, held = 1 << 62, 0
    for n in range(top, 0, -1):
        if low.capture.valid(n) and length(n) > 0:
            least = min(least, length(n))
        if least < 1 << 62:
            held = max(held, x.clock.available(n, False) - left - least)
    return min(held, right)


def settle(
    low: Lowering,
    node: fx.Node,
    x: Value,
    left: int,
    length: LengthFunction,
    value: float = 0.0,
) -> Value:
    """A value whose end is settled when the length of the signal is known."""
    assert x.clock is not None
    return low.alignment.settled(node, x, left, length_table(low, node, length, x.clock.hop), length, value)


def length_table(low: Lowering, node: fx.Node, length: LengthFunction, hop: int) -> LengthTable:
    """A length as a table for scripts; one that grows irregularly is refused."""
    table = low.clocks.table(length, hop)
    if table is None:
        raise low.refuse(
            node, "fixed_piece",
            "it takes a piece of the signal whose length does not grow with it, or grows irregularly",
            "leave it outside the stream",
        )  # fmt: skip
    return table


def position(low: Lowering, position: Any, length: LengthFunction) -> LengthFunction:
    """A position in a slice, as torch reads it: counted from the end if negative, and clamped."""
    place = low.sizes.end(position) if isinstance(position, torch.SymInt) else (lambda n: int(position))

    def clamped(n: int) -> int:
        at, size = place(n), length(n)
        return min(max(at + size if at < 0 else at, 0), size)

    return clamped


def constant(low: Lowering, position: LengthFunction) -> Optional[int]:
    """A position that is the same for every length, else ``None``."""
    found = {position(n) for n in low.lengths}
    return found.pop() if len(found) == 1 else None


def _end_samples(low: Lowering, x: Value, begin: LengthFunction, stop: LengthFunction) -> Optional[EndSamples]:
    """The first or last samples of a value, if they are what a slice takes."""
    count = low.constant_difference(stop, begin)
    if count is not None and count > 0:
        before, after = constant(low, begin), low.constant_difference(x.length, stop)
        if before is not None:
            return EndSamples(x, False, samples=count, beyond=before)
        if after is not None:
            return EndSamples(x, True, samples=count, beyond=after)
    return None


@rule("select", along="dim")
def select(low: Lowering, node: fx.Node, x: Value, a: Dict[str, Any]) -> Any:
    return AtEnd(low.refuse(node, "single_sample", *REASONS["select"]))  # unless it is only written


# ---------------------------------------------------------------------- interpolation


@rule("upsample_nearest1d", "_upsample_nearest_exact1d", "upsample_linear1d", last=1)
@rule("upsample_nearest2d", "_upsample_nearest_exact2d", "upsample_bilinear2d", last=2)
@rule("upsample_nearest3d", "_upsample_nearest_exact3d", "upsample_trilinear3d", last=3)
def upsample(low: Lowering, node: fx.Node, x: Value, a: Dict[str, Any]) -> Value:
    name = operation_name(node)
    axes = int(name[-2])
    mode = "nearest-exact" if "exact" in name else ("nearest" if "nearest" in name else "linear")
    scales, size = a.get("scale_factors"), a.get("output_size")
    corners = bool(a.get("align_corners"))
    if axes > 1:
        x = other_axes(low, node, x, axes, "linear" in name, scales, corners)
    at = x.time - (len(x.shape) - axes)
    if scales is not None:
        scale: Any = scales[at]
    else:
        assert size is not None
        scale = rational_size(low, node, x, size[at], corners)
    if corners:
        if isinstance(scale, float):
            raise low.refuse(
                node,
                "align_corners",
                "align_corners=True ties each output to the total length",
                "use align_corners=False",
            )
        result = low.value(node, node.meta["val"], None, 0)
        assert result is not None
        return low.derived(node, x, CornerUpsampleStream(int(scale)), result.length)
    try:
        stream = UpsampleStream(nn.Upsample(scale_factor=float(scale), mode=mode))
    except ValueError as error:
        raise low.refuse(
            node, "upsample_scale", getattr(error, "reason", str(error)), "use a ratio of integers"
        ) from None
    return low.stream(node, x, stream, True)


def rational_size(low: Lowering, node: fx.Node, x: Value, size: Any, corners: bool) -> Fraction:
    target = low.sizes.function(size)
    shift = 1 if corners else 0
    found = {Fraction(target(n) - shift, max(x.length(n) - shift, 1)) for n in low.lengths}
    if len(found) != 1 or (corners and next(iter(found)).denominator != 1):
        raise low.refuse(
            node,
            "upsample_size",
            "size= is no constant multiple of the input's length",
            "use scale_factor=, or give length_multiple= if the lengths are multiples of one number",
        )
    return found.pop()


def other_axes(low: Lowering, node: fx.Node, x: Value, axes: int, linear: bool, scales: Any, corners: bool) -> Value:
    # Interpolation over several axes is interpolation over each; at scale 1 it is a copy.
    at = x.time - (len(x.shape) - axes)
    sizes: List[Any] = [low.sizes.settled(size) for size in node.meta["val"].shape[-axes:]]
    sizes[at] = Span(x)
    if all(size == x.shape[i - axes] for i, size in enumerate(sizes) if i != at):
        return x
    ends: Tuple[Any, ...] = (sizes, None)
    if scales is not None:
        ends = (None, [1.0 if i == at else scale for i, scale in enumerate(scales)])
    if linear:
        ends = (sizes, True, None) if corners else (ends[0], False, ends[1])
    return low.step_across(node, x, Replay(node.target, (x, *ends)))


@rule("repeat_interleave", along="dim")
def repeat_interleave(low: Lowering, node: fx.Node, x: Value, a: Dict[str, Any]) -> Value:
    if not isinstance(a["repeats"], int):
        raise low.refuse(node, "data_dependent", "it repeats each sample as often as a tensor says", "use a number")
    return low.stream(node, x, UpsampleStream(nn.Upsample(scale_factor=float(a["repeats"]))), True)


# ---------------------------------------------------------------------- sums


@rule("cumsum", "cumprod", "logcumsumexp", "cummax", "cummin", along="dim")
def cumulative(low: Lowering, node: fx.Node, x: Value, a: Dict[str, Any]) -> Any:
    name = operation_name(node)
    if name in ("cummax", "cummin"):
        if any(user.args[1] == 1 for user in node.users):
            raise low.refuse(node, "position", "it gives positions in the whole signal", "use its values only")
        meta = node.meta["val"][0]
        value = low.stream(node, x, CumulativeStream(name, torch.empty(0, dtype=x.dtype)), True, meta)
        return [value, None]
    like = torch.empty(0, dtype=node.meta["val"].dtype)
    return low.stream(node, x, CumulativeStream(name, like), True)
