"""Rules for operations that look through a window along time: convolution, pooling, framing, differences."""

import math
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, fx, nn

from ..layers.conv import conv_stream
from ..layers.conv_transpose import conv_transpose_stream
from ..layers.padding import Pad1dStream, same_padding
from ..layers.pooling import Pool1dStream
from ..layers.window import spanned, window_count
from .lengths import Lengthened
from .lowering import Lowering, rule
from .ops.windows import Fold, OverlapStream, WindowedStream
from .reasons import REASONS
from .refusals import operation_name
from .rules_length import settle
from .values import EndSamples, Replay, Static, Value

__all__ = ["numbers", "padded"]


def _number(value: Any) -> int:
    return numbers(value, 1)[0]


def numbers(value: Any, count: int) -> List[int]:
    found = [int(item) for item in value] if isinstance(value, (list, tuple)) else [int(value)]
    return found * count if len(found) == 1 else found


def _plain_bias(low: Lowering, bias: Optional[Static]) -> Tuple[Optional[Tensor], bool]:
    """A bias that a layer can hold, and whether it must be added after it instead."""
    if bias is None:
        return None, False
    if bias.recipe is None or not bias.weights:
        return low.weights.tensor(bias), False
    return None, True


def _require_static(low: Lowering, node: fx.Node, *tensors: Any) -> None:
    for tensor in tensors:
        if isinstance(tensor, Static) and tensor.sized and not tensor.given:
            raise low.refuse(node, "rows_mixed", "its weight depends on the number of rows", "keep rows first")
        if tensor is not None and (not isinstance(tensor, Static) or tensor.given):
            raise low.refuse(
                node, "signal_weight", "its weight depends on the input", "register a handler for the module"
            )


def _add_bias(low: Lowering, node: fx.Node, value: Value, bias: Static) -> Value:
    # As an operation of its own: [C] -> [C, 1, …] in front of the axes after the channels.
    axis = 1 if len(value.shape) > 2 else 0
    shape = [-1] + [1] * (len(value.shape) - axis - 1)
    shaped = Static(bias.node, Replay(torch.ops.aten.view.default, (bias, shape)), bias.weights, False, False)
    return low.step(node, value, Replay(torch.ops.aten.add.Tensor, (value, shaped)), fresh=True)


@rule("conv1d", last=1)
def conv1d(low: Lowering, node: fx.Node, x: Value, a: Dict[str, Any]) -> Value:
    _require_static(low, node, a["weight"], a["bias"])
    out, per_group, kernel = low.weights.tensor(a["weight"]).shape
    stride, dilation = _number(a["stride"]), _number(a["dilation"])
    left, right = _conv_padding(a["padding"], [kernel], [dilation])[0]
    pad = Pad1dStream(left, right) if left or right else None
    bias, later = _plain_bias(low, a["bias"])
    geometry = (per_group * a["groups"], out, a["groups"], kernel, stride, dilation)
    stream = conv_stream(low.weights.source(a["weight"]), bias, *geometry, pad=pad)
    y = low.stream(node, x, stream, len(x.shape) != 3 or x.rows not in (0, None))
    return _add_bias(low, node, y, a["bias"]) if later else y


@rule("conv_transpose1d", last=1)
def conv_transpose1d(low: Lowering, node: fx.Node, x: Value, a: Dict[str, Any]) -> Value:
    _require_static(low, node, a["weight"], a["bias"])
    channels, per_group, kernel = low.weights.tensor(a["weight"]).shape
    numbers = [_number(a[key]) for key in ("stride", "dilation", "padding", "output_padding")]
    bias, later = _plain_bias(low, a["bias"])
    geometry = (channels, per_group * a["groups"], a["groups"], kernel, *numbers)
    stream = conv_transpose_stream(low.weights.source(a["weight"]), bias, *geometry)
    y = low.stream(node, x, stream, len(x.shape) != 3 or x.rows not in (0, None))
    return _add_bias(low, node, y, a["bias"]) if later else y


def _conv_padding(padding: Any, kernels: Sequence[int], dilations: Sequence[int]) -> List[Tuple[int, int]]:
    if isinstance(padding, str):
        if padding == "valid":
            return [(0, 0)] * len(kernels)
        return [same_padding(k, d) for k, d in zip(kernels, dilations, strict=True)]
    return [(p, p) for p in numbers(padding, len(kernels))]


def padded(low: Lowering, node: fx.Node, x: Value, left: int, right: int, value: float = 0.0) -> Value:
    """A value with constants around it, along time; not an operation of the model's own."""
    if left == right == 0:
        return x
    length = x.length
    return low.derived(node, x, Pad1dStream(left, right, "constant", value), Lengthened(length, left + right))


_CONVOLUTIONS = {2: torch.ops.aten.conv2d.default, 3: torch.ops.aten.conv3d.default}


@rule("conv2d", last=2)
@rule("conv3d", last=3)
def conv_over_axes(low: Lowering, node: fx.Node, x: Value, a: Dict[str, Any]) -> Any:
    _require_static(low, node, a["weight"], a["bias"])
    kernels = list(low.weights.tensor(a["weight"]).shape[2:])
    axes = len(kernels)
    strides, dilations = numbers(a["stride"], axes), numbers(a["dilation"], axes)
    padding = _conv_padding(a["padding"], kernels, dilations)
    axis = x.time - (len(x.shape) - axes)
    if axes == 3 and kernels[axis] == strides[axis] == 1 and padding[axis] == (0, 0):
        return NotImplemented  # every sample alone
    x = padded(low, node, x, *padding[axis])
    inner = [0 if i == axis else before for i, (before, _) in enumerate(padding)]
    others = [pair for i, pair in enumerate(padding) if i != axis]
    if any(before != after for before, after in others):  # an even kernel with padding='same'
        amounts = [0] * (2 * axes)  # from the last axis on
        shape = list(x.shape)
        for i, pair in enumerate(padding):
            if i != axis:
                amounts[2 * (axes - 1 - i) : 2 * (axes - i)] = pair
                shape[i - axes] = int(shape[i - axes]) + sum(pair)
        x = low.step(node, x, Replay(torch.ops.aten.constant_pad_nd.default, (x, amounts)), shape=tuple(shape))
        inner = [0] * axes
    args = (x, a["weight"], a["bias"], strides, inner, dilations, a["groups"])
    field = spanned(kernels[axis], dilations[axis])
    return _windowed(low, node, x, Replay(_CONVOLUTIONS[axes], args), field, strides[axis])


def _windowed(low: Lowering, node: fx.Node, x: Value, recipe: Replay, field: int, stride: int) -> Value:
    body = low.weights.body().of_window(x, recipe)
    layouts = x.layout(), _result(low, node).layout()
    return low.stream(node, x, WindowedStream(body, field, stride, *layouts, operation_name(node)), True)


def _result(low: Lowering, node: fx.Node) -> Value:
    """What the operation gives, without a clock."""
    result = low.value(node, node.meta["val"], None, 0)
    if result is None:
        raise low.refuse(node, "time_mixing", *REASONS["select"])
    return result


@rule("conv_transpose2d", last=2)
@rule("conv_transpose3d", last=3)
def conv_transpose_over_axes(low: Lowering, node: fx.Node, x: Value, a: Dict[str, Any]) -> Value:
    _require_static(low, node, a["weight"], a["bias"])
    kernels = list(low.weights.tensor(a["weight"]).shape[2:])
    axes = len(kernels)
    strides, dilations = numbers(a["stride"], axes), numbers(a["dilation"], axes)
    paddings, extras = numbers(a["padding"], axes), numbers(a["output_padding"], axes)
    axis = x.time - (len(x.shape) - axes)
    inner, inner_extra = list(paddings), list(extras)
    inner[axis] = inner_extra[axis] = 0
    args = (x, a["weight"], None, strides, inner, inner_extra, a["groups"], dilations)
    body = low.weights.body().of_window(x, Replay(node.target, args))
    geometry = (kernels[axis], strides[axis], dilations[axis], paddings[axis], extras[axis])
    layouts = x.layout(), _result(low, node).layout()
    y = low.stream(node, x, OverlapStream(body, *geometry, *layouts, operation_name(node)), True)
    return y if a["bias"] is None else _add_bias(low, node, y, a["bias"])


# ---------------------------------------------------------------------- pooling


def _pool(largest: bool, kernel: int, stride: int, padding: int, dilation: int, a: Dict[str, Any]) -> Pool1dStream:
    if largest:
        return Pool1dStream(nn.MaxPool1d(kernel, stride, padding, dilation, ceil_mode=a["ceil_mode"]))
    return Pool1dStream(nn.AvgPool1d(kernel, stride, padding, a["ceil_mode"], a["count_include_pad"]))


@rule("max_pool1d", "avg_pool1d", last=1)
def pool1d(low: Lowering, node: fx.Node, x: Value, a: Dict[str, Any]) -> Value:
    kernel = _number(a["kernel_size"])
    stride = _number(a["stride"]) if a["stride"] else kernel
    largest = operation_name(node) == "max_pool1d"
    dilation = _number(a["dilation"]) if largest else 1
    return low.stream(node, x, _pool(largest, kernel, stride, _number(a["padding"]), dilation, a), True)


@rule("ceil_pool")
def ceil_pool(low: Lowering, node: fx.Node, x: Value, a: Dict[str, Any]) -> Value:
    axes = len(a["kernel_size"])
    if x.time < len(x.shape) - axes:
        raise low.refuse(node, "time_mixing", "it pools another axis than time in ceil mode", "pool without ceil_mode")
    return (pool1d if axes == 1 else pool_over_axes)(low, node, x, {**a, "ceil_mode": True})


_POOLS = {
    (2, True): torch.ops.aten.max_pool2d.default,
    (2, False): torch.ops.aten.avg_pool2d.default,
    (3, True): torch.ops.aten.max_pool3d.default,
    (3, False): torch.ops.aten.avg_pool3d.default,
}


@rule("max_pool2d", "avg_pool2d", last=2)
@rule("max_pool3d", "avg_pool3d", last=3)
def pool_over_axes(low: Lowering, node: fx.Node, x: Value, a: Dict[str, Any]) -> Value:
    # Over time by itself, and over the other axes: a maximum of maxima, and a mean of means whose divisors multiply.
    name = operation_name(node)
    axes = len(a["kernel_size"]) if name == "ceil_pool" else int(name[-2])
    axis = x.time - (len(x.shape) - axes)
    kernels = numbers(a["kernel_size"], axes)
    strides = numbers(a["stride"], axes) if a["stride"] else kernels
    paddings = numbers(a["padding"], axes)
    ceil = bool(a["ceil_mode"])
    largest = bool(a.get("largest", name.startswith("max")))
    dilations = numbers(a["dilation"], axes) if largest else [1] * axes
    kernel, stride, padding, dilation = [
        [none if i == axis else own for i, own in enumerate(numbers)]
        for numbers, none in ((kernels, 1), (strides, 1), (paddings, 0), (dilations, 1))
    ]
    if (max(kernel), max(stride), max(padding)) != (1, 1, 0):
        args: Tuple[Any, ...] = (x, kernel, stride, padding)
        args += (dilation, ceil) if largest else (ceil, a["count_include_pad"])
        x = low.step_across(node, x, Replay(_POOLS[axes, largest], args))
    y = low.stream(node, x, _pool(largest, kernels[axis], strides[axis], paddings[axis], dilations[axis], a), True)
    divisor = a.get("divisor_override")
    if divisor:
        if (any(paddings) and not a["count_include_pad"]) or ceil:
            raise low.refuse(
                node, "divisor", "divisor_override with ceil_mode or without padding has no stream", "drop it"
            )
        y = low.step(node, y, Replay(torch.ops.aten.mul.Tensor, (y, math.prod(kernels) / divisor)))
    return y


# ---------------------------------------------------------------------- frames


@rule("unfold", along="dimension")
def unfold(low: Lowering, node: fx.Node, x: Value, a: Dict[str, Any]) -> Value:
    return _windowed(low, node, x, Replay(node.target, (x, x.time, a["size"], a["step"])), a["size"], a["step"])


@rule("diff", along="dim")
def diff(low: Lowering, node: fx.Node, x: Value, a: Dict[str, Any]) -> Value:
    before = a["prepend"]
    if isinstance(before, EndSamples) and before.value is x and not before.last and before.samples == 1:
        length = x.length
        x = low.derived(node, x, Pad1dStream(before.count, 0, "replicate"), Lengthened(length, before.count))
        before = None
    elif isinstance(before, Static) and not before.given and not before.weights:
        tensor = low.weights.tensor(before)
        if bool((tensor == tensor.flatten()[0]).all()):
            x = padded(low, node, x, tensor.shape[x.time], 0, float(tensor.flatten()[0]))
            before = None
    if before is not None or a["append"] is not None:
        raise low.refuse(node, "time_mixing", "it puts other tensors before or after the signal", "use F.pad first")
    return _windowed(low, node, x, Replay(node.target, (x, a["n"], x.time)), a["n"] + 1, 1)


@rule("stft", last=1)
def stft(low: Lowering, node: fx.Node, x: Value, a: Dict[str, Any]) -> Any:
    if a.get("center"):
        return NotImplemented
    recipe = Replay(node.target, (x, *list(a.values())[1:]))
    return _windowed(low, node, x, recipe, a["n_fft"], a["hop_length"] or a["n_fft"] // 4)


@rule("col2im", last=1)
def col2im(low: Lowering, node: fx.Node, x: Value, a: Dict[str, Any]) -> Value:
    kernels, strides = numbers(a["kernel_size"], 2), numbers(a["stride"], 2)
    dilations, paddings = numbers(a["dilation"], 2), numbers(a["padding"], 2)
    fields = [spanned(kernel, dilation) for kernel, dilation in zip(kernels, dilations, strict=True)]
    result = _result(low, node)
    axis = result.time - (len(result.shape) - 2)  # of height and width, the one that is time
    other, height = 1 - axis, int(result.shape[-1 - axis])
    if window_count(height + 2 * paddings[other], fields[other], strides[other]) != 1:
        raise low.refuse(
            node, "time_mixing", "it lays patches of several heights one after the other in time", "fold one"
        )
    body = Fold(axis, height, kernels, dilations, paddings[other], strides)
    length = x.length
    geometry = (kernels[axis], strides[axis], dilations[axis], paddings[axis], 0)
    stream = OverlapStream(body, *geometry, x.layout(), result.layout(), "fold")

    def natural(n: int) -> int:
        return stream.length(length(n))

    if low.constant_difference(result.length, natural) == 0:
        return low.stream(node, x, stream, True)
    # A longer output has zeros at its end, fewer than a step, as many as the length says.
    whole = low.derived(node, x, stream, natural, result)
    return settle(low, node, whole, 0, result.length)
