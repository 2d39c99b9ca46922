"""Single layers with any of their arguments, for hypothesis to draw."""

import math
from dataclasses import dataclass
from typing import Any, Callable, List, Tuple

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from torch import nn

from ..layers.cumulative_norm import CumulativeGroupNorm1d, CumulativeLayerNorm1d
from ..layers.moving_average import ExponentialMovingAverage1d
from ..layers.normalization import LayerNorm1d, RMSNorm1d
from ..layers.rnn_weights import Recurrent1d

__all__ = [
    "ANY_LAYER",
    "Draw",
    "Part",
    "any_conv",
    "any_pad",
    "any_pointwise",
    "any_pool",
    "any_recurrence",
    "any_running",
    "any_transposed",
    "any_upsampling",
]

Draw = Callable[[SearchStrategy[Any]], Any]


@dataclass
class Part:
    # A piece of a network: the module, its channels out, and how long its output is.
    net: nn.Module
    channels: int
    growth: int = 0  # output length less input length, if it keeps the rate
    up: int = 1
    down: int = 1


def common_divisor(draw: Draw, one: int, other: int) -> int:
    return draw(st.sampled_from([g for g in range(1, one + 1) if one % g == 0 and other % g == 0]))


def any_conv(draw: Draw, channels: int) -> Part:
    kernel, dilation = draw(st.integers(1, 7)), draw(st.integers(1, 3))
    padding = draw(st.sampled_from(["valid", "same", "some", "some"]))
    stride = 1 if padding == "same" else draw(st.integers(1, 7))
    if padding == "some":
        padding = draw(st.integers(0, 2 * kernel))
    out = draw(st.sampled_from([channels, 2, 6]))
    net = nn.Conv1d(
        channels,
        out,
        kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=common_divisor(draw, channels, out),
        bias=draw(st.booleans()),
        padding_mode=draw(st.sampled_from(["zeros", "reflect", "replicate"])),
    )
    return Part(net, out, down=stride)


def any_transposed(draw: Draw, channels: int) -> Part:
    kernel, dilation, stride = draw(st.integers(1, 6)), draw(st.integers(1, 3)), draw(st.integers(1, 5))
    out = draw(st.sampled_from([channels, 2, 6]))
    net = nn.ConvTranspose1d(
        channels,
        out,
        kernel,
        stride=stride,
        padding=draw(st.integers(0, (kernel - 1) * dilation + 3)),
        output_padding=draw(st.integers(0, max(stride, dilation) - 1)),
        dilation=dilation,
        groups=common_divisor(draw, channels, out),
        bias=draw(st.booleans()),
    )
    return Part(net, out, up=stride)


def any_pool(draw: Draw, channels: int) -> Part:
    kernel = draw(st.integers(1, 6))
    stride = draw(st.sampled_from([None, 1, 2, 3, 5, 8]))
    ceil = draw(st.booleans())
    padding = draw(st.integers(0, kernel // 2))
    kind = draw(st.sampled_from(["average", "largest", "power"]))
    net: nn.Module
    if kind == "average":
        net = nn.AvgPool1d(kernel, stride, padding, ceil, draw(st.booleans()))
    elif kind == "largest":
        net = nn.MaxPool1d(kernel, stride, padding, draw(st.integers(1, 3)), ceil_mode=ceil)
    else:
        net = nn.LPPool1d(draw(st.sampled_from([1, 2, 4])), kernel, stride, ceil)
    return Part(net, channels, down=stride or kernel)


def any_pad(draw: Draw, channels: int) -> Part:
    amounts = (draw(st.integers(-4, 6)), draw(st.integers(-4, 6)))
    kind = draw(st.sampled_from([nn.ZeroPad1d, nn.ConstantPad1d, nn.ReflectionPad1d, nn.ReplicationPad1d]))
    net = kind(amounts, -0.7) if kind is nn.ConstantPad1d else kind(amounts)
    return Part(net, channels, growth=sum(amounts))


def any_upsampling(draw: Draw, channels: int) -> Part:
    # Of these scales torch's own float32 arithmetic is right on short signals.
    scale = draw(st.sampled_from([1, 2, 3, 4, 0.5, 0.25, 0.75, 1.5, 2.5]))
    mode = draw(st.sampled_from(["nearest", "nearest-exact", "linear"]))
    return Part(nn.Upsample(scale_factor=scale, mode=mode), channels, up=math.ceil(scale), down=math.ceil(1 / scale))


def any_pointwise(draw: Draw, channels: int) -> Part:
    inplace = draw(st.booleans())
    halved = channels // 2 if channels % 2 == 0 and channels >= 4 else channels
    shuffled = common_divisor(draw, channels, channels)
    choices: List[Tuple[Callable[[], nn.Module], int]] = [
        (lambda: nn.ReLU(inplace), channels),
        (lambda: nn.BatchNorm1d(channels, affine=inplace), channels),
        (lambda: nn.GLU(1) if halved < channels else nn.Identity(), halved),
        (nn.GELU, channels),
        (nn.Identity, channels),
        (nn.Dropout, channels),
        (lambda: nn.ELU(inplace=inplace), channels),
        (nn.Hardshrink, channels),
        (lambda: nn.Hardsigmoid(inplace), channels),
        (lambda: nn.Hardtanh(inplace=inplace), channels),
        (lambda: nn.Hardswish(inplace), channels),
        (lambda: nn.LeakyReLU(inplace=inplace), channels),
        (lambda: nn.LocalResponseNorm(2), channels),
        (nn.LogSigmoid, channels),
        (lambda: nn.Mish(inplace), channels),
        (lambda: nn.PReLU(channels if inplace else 1), channels),
        (lambda: nn.RReLU(inplace=inplace), channels),
        (lambda: nn.SELU(inplace), channels),
        (lambda: nn.SiLU(inplace), channels),
        (nn.Softplus, channels),
        (nn.Softshrink, channels),
        (nn.Softsign, channels),
        (nn.Tanh, channels),
        (nn.Sigmoid, channels),
        (lambda: nn.Threshold(0.1, -1.5, inplace), channels),
        (lambda: nn.Softmax(1), channels),
        (lambda: nn.LogSoftmax(-2), channels),
        (lambda: nn.ChannelShuffle(shuffled), channels),
        (lambda: LayerNorm1d(channels, eps=0.01), channels),
        (lambda: RMSNorm1d(channels, eps=0.01, elementwise_affine=inplace), channels),
    ]
    make, out = draw(st.sampled_from(choices))
    return Part(make(), out)


def any_recurrence(draw: Draw, channels: int) -> Part:
    kind = draw(st.sampled_from([nn.GRU, nn.LSTM, nn.RNN]))
    out, layers, bias = draw(st.sampled_from([2, 3])), draw(st.integers(1, 2)), draw(st.booleans())
    made: Any = kind(channels, out, layers, bias=bias, batch_first=draw(st.booleans()))
    return Part(Recurrent1d(made), out)


def any_running(draw: Draw, channels: int) -> Part:
    flag = draw(st.booleans())
    choices: List[Callable[[], nn.Module]] = [
        lambda: CumulativeLayerNorm1d(channels, eps=0.01, affine=flag),
        lambda: CumulativeGroupNorm1d(channels, channels, eps=0.01),
        lambda: ExponentialMovingAverage1d(0.2, "first" if flag else "zero"),
    ]
    return Part(draw(st.sampled_from(choices))(), channels)


ANY_LAYER = (
    any_conv,
    any_transposed,
    any_pool,
    any_pad,
    any_upsampling,
    any_pointwise,
    any_recurrence,
    any_running,
)
