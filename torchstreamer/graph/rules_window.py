"""Rules for operations that look through a window along time: convolution, pooling, framing, differences."""

from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, fx, nn

from ..layers.conv import conv_stream
from ..layers.conv_transpose import conv_transpose_stream
from ..layers.padding import Pad1dStream
from ..layers.pooling import Pool1dStream
from ..layers.weights import PlainWeight
from .lowering import Lowering, rule
from .ops.windows import Fold, OverlapStream, WindowedStream
from .reasons import REASONS
from .refusals import operation_name
from .rules_length import settle
from .values import Edge, Replay, Static, Value

__all__: List[str] = []


def _numbers(value: Any, count: int) -> List[int]:
    found = [int(item) for item in value] if isinstance(value, (list, tuple)) else [int(value)]
    return found * count if len(found) == 1 else found


def weight_source(low: Lowering, weight: Static) -> nn.Module:
    """The module that gives a weight: a parameter, a constant, or what is computed from parameters."""
    if weight.recipe is None or not weight.weights:
        return PlainWeight(low.weights.tensor(weight))
    return low.weights.computed(weight)


def _plain_bias(low: Lowering, bias: Optional[Static]) -> Tuple[Optional[Tensor], bool]:
    """A bias that a layer can hold, and whether it must be added behind it instead."""
    if bias is None:
        return None, False
    if bias.recipe is None or not bias.weights:
        return low.weights.tensor(bias), False
    return None, True


def _require_static(low: Lowering, node: fx.Node, *tensors: Any) -> None:
    for tensor in tensors:
        if tensor is not None and (not isinstance(tensor, Static) or tensor.given or tensor.sized):
            raise low.refuse(
                node, "signal_weight", "its weight depends on the input", "register a handler for the module"
            )


def _add_bias(low: Lowering, node: fx.Node, value: Value, bias: Static) -> Value:
    # As an operation of its own: [C] -> [C, 1, …] in front of the axes behind the channels.
    axis = 1 if len(value.shape) > 2 else 0
    shape = [-1] + [1] * (len(value.shape) - axis - 1)
    shaped = Static(bias.node, Replay(torch.ops.aten.view.default, (bias, shape)), bias.weights, False, False)
    return low.step(node, value, Replay(torch.ops.aten.add.Tensor, (value, shaped)), fresh=True)


@rule("conv1d")
def conv1d(low: Lowering, node: fx.Node, a: Dict[str, Any]) -> Any:
    x = a["input"]
    if not isinstance(x, Value) or x.time != len(x.shape) - 1 or x.lifted:
        return NotImplemented
    _require_static(low, node, a["weight"], a["bias"])
    out, per_group, kernel = low.weights.tensor(a["weight"]).shape
    stride, dilation = _numbers(a["stride"], 1)[0], _numbers(a["dilation"], 1)[0]
    left, right = _conv_padding(a["padding"], [kernel], [dilation])[0]
    pad = Pad1dStream(left, right) if left or right else None
    bias, later = _plain_bias(low, a["bias"])
    geometry = (per_group * a["groups"], out, a["groups"], kernel, stride, dilation)
    stream = conv_stream(weight_source(low, a["weight"]), bias, *geometry, pad=pad)
    y = low.stream(node, x, stream, len(x.shape) != 3 or x.rows not in (0, None))
    return _add_bias(low, node, y, a["bias"]) if later else y


@rule("conv_transpose1d")
def conv_transpose1d(low: Lowering, node: fx.Node, a: Dict[str, Any]) -> Any:
    x = a["input"]
    if not isinstance(x, Value) or x.time != len(x.shape) - 1 or x.lifted:
        return NotImplemented
    _require_static(low, node, a["weight"], a["bias"])
    channels, per_group, kernel = low.weights.tensor(a["weight"]).shape
    numbers = [_numbers(a[key], 1)[0] for key in ("stride", "dilation", "padding", "output_padding")]
    bias, later = _plain_bias(low, a["bias"])
    geometry = (channels, per_group * a["groups"], a["groups"], kernel, *numbers)
    stream = conv_transpose_stream(weight_source(low, a["weight"]), bias, *geometry)
    y = low.stream(node, x, stream, len(x.shape) != 3 or x.rows not in (0, None))
    return _add_bias(low, node, y, a["bias"]) if later else y


def _conv_padding(padding: Any, kernels: Sequence[int], dilations: Sequence[int]) -> List[Tuple[int, int]]:
    if isinstance(padding, str):
        if padding == "valid":
            return [(0, 0)] * len(kernels)
        totals = [d * (k - 1) for k, d in zip(kernels, dilations, strict=True)]
        return [(total // 2, total - total // 2) for total in totals]
    return [(p, p) for p in _numbers(padding, len(kernels))]


def _padded(low: Lowering, node: fx.Node, x: Value, left: int, right: int, value: float = 0.0) -> Value:
    """A value with constants around it, along time; not an operation of the model's own."""
    if left == right == 0:
        return x
    length = x.length
    return low.derived(node, x, Pad1dStream(left, right, "constant", value), lambda n: length(n) + left + right)


@rule("conv2d")
def conv2d(low: Lowering, node: fx.Node, a: Dict[str, Any]) -> Any:
    x = a["input"]
    if not isinstance(x, Value) or x.time < len(x.shape) - 2 or x.lifted:
        return NotImplemented
    _require_static(low, node, a["weight"], a["bias"])
    kernels = list(low.weights.tensor(a["weight"]).shape[2:])
    strides, dilations = _numbers(a["stride"], 2), _numbers(a["dilation"], 2)
    padding = _conv_padding(a["padding"], kernels, dilations)
    axis = x.time - (len(x.shape) - 2)
    x = _padded(low, node, x, *padding[axis])
    other = padding[1 - axis]
    if other[0] != other[1]:  # an even kernel with padding='same'
        amounts = [0, 0, 0, 0]
        amounts[2 * axis : 2 * axis + 2] = other
        shape = list(x.shape)
        shape[-1 - axis] = int(shape[-1 - axis]) + sum(other)
        x = low.step(node, x, Replay(torch.ops.aten.constant_pad_nd.default, (x, amounts)), shape=tuple(shape))
        other = (0, 0)
    inner = [0, 0]
    inner[1 - axis] = other[0]
    args = (x, a["weight"], a["bias"], strides, inner, dilations, a["groups"])
    field = (kernels[axis] - 1) * dilations[axis] + 1
    return _windowed(low, node, x, Replay(torch.ops.aten.conv2d.default, args), field, strides[axis])


def _windowed(low: Lowering, node: fx.Node, x: Value, recipe: Replay, field: int, stride: int) -> Value:
    behind = low.value(node, node.meta["val"], None, 0)
    if behind is None:
        raise low.refuse(node, "time_mixing", *REASONS["select"])
    body = low.weights.body().of_window(x, recipe)
    stream = WindowedStream(body, field, stride, x.layout(), behind.layout(), operation_name(node))
    return low.stream(node, x, stream, True)


@rule("conv_transpose2d")
def conv_transpose2d(low: Lowering, node: fx.Node, a: Dict[str, Any]) -> Any:
    x = a["input"]
    if not isinstance(x, Value) or x.time < len(x.shape) - 2 or x.lifted:
        return NotImplemented
    _require_static(low, node, a["weight"], a["bias"])
    kernels = list(low.weights.tensor(a["weight"]).shape[2:])
    strides, dilations = _numbers(a["stride"], 2), _numbers(a["dilation"], 2)
    paddings, extras = _numbers(a["padding"], 2), _numbers(a["output_padding"], 2)
    axis = x.time - (len(x.shape) - 2)
    inner, inner_extra = list(paddings), list(extras)
    inner[axis] = inner_extra[axis] = 0
    args = (x, a["weight"], None, strides, inner, inner_extra, a["groups"], dilations)
    behind = low.value(node, node.meta["val"], None, 0)
    assert behind is not None
    stream = OverlapStream(
        low.weights.body().of_window(x, Replay(torch.ops.aten.conv_transpose2d.input, args)),
        kernels[axis],
        strides[axis],
        dilations[axis],
        paddings[axis],
        extras[axis],
        x.layout(),
        behind.layout(),
        "conv_transpose2d",
    )
    y = low.stream(node, x, stream, True)
    return y if a["bias"] is None else _add_bias(low, node, y, a["bias"])


@rule("max_pool1d", "avg_pool1d")
def pool1d(low: Lowering, node: fx.Node, a: Dict[str, Any]) -> Any:
    x = a.get("self", a.get("x"))
    if not isinstance(x, Value) or x.time != len(x.shape) - 1 or x.lifted:
        return NotImplemented
    if operation_name(node) == "max_pool1d":
        own = operation_name(node) == "max_pool1d" and "kernel" in a
        kernel = a["kernel"] if own else _numbers(a["kernel_size"], 1)[0]
        stride = a["stride"] if own else (_numbers(a["stride"], 1)[0] if a["stride"] else kernel)
        padding, dilation = _numbers(a["padding"], 1)[0], _numbers(a["dilation"], 1)[0]
        pool: nn.Module = nn.MaxPool1d(kernel, stride, padding, dilation, ceil_mode=a["ceil_mode"])
    else:
        kernel = _numbers(a["kernel_size"], 1)[0]
        stride = _numbers(a["stride"], 1)[0] if a["stride"] else kernel
        padding = _numbers(a["padding"], 1)[0]
        pool = nn.AvgPool1d(kernel, stride, padding, a["ceil_mode"], a["count_include_pad"])
    return low.stream(node, x, Pool1dStream(pool), True)  # type: ignore[arg-type]


@rule("ceil_pool")
def ceil_pool(low: Lowering, node: fx.Node, a: Dict[str, Any]) -> Any:
    axes = len(a["kernel"])
    common = {
        "self": a["x"],
        "kernel_size": a["kernel"],
        "stride": a["stride"],
        "padding": a["padding"],
        "ceil_mode": True,
    }
    if a["largest"]:
        return pool2d(low, node, {**common, "dilation": a["dilation"], "largest": True})
    common.update(count_include_pad=a["count_include_pad"], divisor_override=a["divisor"], largest=False)
    found = (pool1d if axes == 1 else pool2d)(low, node, common)
    if found is NotImplemented:
        raise low.refuse(node, "time_mixing", "it pools another axis than time in ceil mode", "pool without ceil_mode")
    return found


@rule("max_pool2d", "avg_pool2d")
def pool2d(low: Lowering, node: fx.Node, a: Dict[str, Any]) -> Any:
    # Over each axis by itself: a maximum of maxima, and a mean of means whose divisors multiply.
    x = a["self"]
    if not isinstance(x, Value) or x.time < len(x.shape) - 2 or x.lifted:
        return NotImplemented
    axis = x.time - (len(x.shape) - 2)
    kernels = _numbers(a["kernel_size"], 2)
    strides = _numbers(a["stride"], 2) if a["stride"] else kernels
    paddings = _numbers(a["padding"], 2)
    ceil = bool(a["ceil_mode"])
    largest = bool(a.get("largest", operation_name(node) == "max_pool2d"))
    dilations = _numbers(a["dilation"], 2) if largest else [1, 1]
    if kernels[1 - axis] != 1 or strides[1 - axis] != 1 or paddings[1 - axis] != 0:
        one = [1, 1]
        across = {key: list(one) for key in ("kernel", "stride", "dilation")}
        across["kernel"][1 - axis], across["stride"][1 - axis] = kernels[1 - axis], strides[1 - axis]
        across["dilation"][1 - axis] = dilations[1 - axis]
        edge = [0, 0]
        edge[1 - axis] = paddings[1 - axis]
        args: Tuple[Any, ...]
        if largest:
            args = (x, across["kernel"], across["stride"], edge, across["dilation"], ceil)
        else:
            args = (x, across["kernel"], across["stride"], edge, ceil, a["count_include_pad"])
        target = torch.ops.aten.max_pool2d.default if largest else torch.ops.aten.avg_pool2d.default
        x = low.step_across(node, x, Replay(target, args))
    k, s, p = kernels[axis], strides[axis], paddings[axis]
    pool: nn.Module
    if largest:
        pool = nn.MaxPool1d(k, s, p, dilations[axis], ceil_mode=ceil)
    else:
        pool = nn.AvgPool1d(k, s, p, ceil, bool(a["count_include_pad"]))
    y = low.stream(node, x, Pool1dStream(pool), True)
    divisor = a.get("divisor_override")
    if divisor:
        if (any(paddings) and not a["count_include_pad"]) or ceil:
            raise low.refuse(
                node, "divisor", "divisor_override with ceil_mode or without padding has no stream", "drop it"
            )
        scale = kernels[0] * kernels[1] / divisor
        y = low.step(node, y, Replay(torch.ops.aten.mul.Tensor, (y, scale)))
    return y


@rule("unfold")
def unfold(low: Lowering, node: fx.Node, a: Dict[str, Any]) -> Any:
    x = a["self"]
    if not isinstance(x, Value) or a["dimension"] % len(x.shape) != x.time or x.lifted:
        return NotImplemented
    return _windowed(low, node, x, Replay(node.target, (x, x.time, a["size"], a["step"])), a["size"], a["step"])


@rule("diff")
def diff(low: Lowering, node: fx.Node, a: Dict[str, Any]) -> Any:
    x = a["self"]
    if not isinstance(x, Value) or a["dim"] % len(x.shape) != x.time or x.lifted:
        return NotImplemented
    before = a["prepend"]
    if isinstance(before, Edge) and before.value is x and not before.last and before.samples == 1:
        length = x.length
        x = low.derived(node, x, Pad1dStream(before.count, 0, "replicate"), lambda n: length(n) + before.count)
        before = None
    elif isinstance(before, Static) and not before.given and not before.weights:
        tensor = low.weights.tensor(before)
        if bool((tensor == tensor.flatten()[0]).all()):
            x = _padded(low, node, x, tensor.shape[x.time], 0, float(tensor.flatten()[0]))
            before = None
    if before is not None or a["append"] is not None:
        raise low.refuse(node, "time_mixing", "it puts other tensors before or behind the signal", "use F.pad first")
    return _windowed(low, node, x, Replay(node.target, (x, a["n"], x.time)), a["n"] + 1, 1)


@rule("stft")
def stft(low: Lowering, node: fx.Node, a: Dict[str, Any]) -> Any:
    x = a["self"]
    if not isinstance(x, Value) or x.time != len(x.shape) - 1 or a.get("center") or x.lifted:
        return NotImplemented
    hop = a["hop_length"] or a["n_fft"] // 4
    names = list(a)
    recipe = Replay(node.target, tuple(x if name == "self" else a[name] for name in names))
    return _windowed(low, node, x, recipe, a["n_fft"], hop)


@rule("im2col")
def im2col(low: Lowering, node: fx.Node, a: Dict[str, Any]) -> Any:
    x = a["self"]
    if not isinstance(x, Value) or x.time != len(x.shape) - 1 or x.lifted:
        return NotImplemented
    kernels, strides = _numbers(a["kernel_size"], 2), _numbers(a["stride"], 2)
    dilations, paddings = _numbers(a["dilation"], 2), _numbers(a["padding"], 2)
    height = int(x.shape[-2])
    if (height + 2 * paddings[0] - (kernels[0] - 1) * dilations[0] - 1) // strides[0] + 1 != 1:
        raise low.refuse(
            node, "time_mixing", "it lays patches of several heights behind each other in time", "use Tensor.unfold"
        )
    x = _padded(low, node, x, paddings[1], paddings[1])
    args = (x, kernels, dilations, [paddings[0], 0], strides)
    return _windowed(low, node, x, Replay(node.target, args), (kernels[1] - 1) * dilations[1] + 1, strides[1])


@rule("col2im")
def col2im(low: Lowering, node: fx.Node, a: Dict[str, Any]) -> Any:
    x = a["self"]
    if not isinstance(x, Value) or x.time != len(x.shape) - 1 or x.lifted:
        return NotImplemented
    kernels, strides = _numbers(a["kernel_size"], 2), _numbers(a["stride"], 2)
    dilations, paddings = _numbers(a["dilation"], 2), _numbers(a["padding"], 2)
    behind = low.value(node, node.meta["val"], None, 0)
    if behind is None:
        raise low.refuse(node, "time_mixing", *REASONS["select"])
    axis = behind.time - (len(behind.shape) - 2)  # of height and width, the one that is time
    height = int(behind.shape[len(behind.shape) - 1 - axis])
    field = (kernels[axis] - 1) * dilations[axis] + 1
    other = 1 - axis
    if (height + 2 * paddings[other] - (kernels[other] - 1) * dilations[other] - 1) // strides[other] + 1 != 1:
        raise low.refuse(
            node, "time_mixing", "it lays patches of several heights behind each other in time", "fold one"
        )
    body = Fold(axis, height, kernels, dilations, paddings[other], strides)
    stream = OverlapStream(
        body, kernels[axis], strides[axis], dilations[axis], paddings[axis], 0, x.layout(), behind.layout(), "fold"
    )
    length, s, p = x.length, strides[axis], paddings[axis]

    def natural(n: int) -> int:
        return (length(n) - 1) * s + field - 2 * p

    difference = low.constant_difference(behind.length, natural)
    if difference == 0:
        return low.stream(node, x, stream, True)
    # A longer output has zeros at its end, fewer than a step, as many as the length says.
    whole = low.derived(node, x, stream, natural, behind)
    return settle(low, node, whole, 0, behind)
