"""Hypothesis strategies: single layers with any arguments, whole random networks, and ways of cutting a signal.

Needs `hypothesis`.
"""

import math
from typing import Callable, List, Optional, Sequence, Tuple

import torch
from torch import nn

from ..containers.parallel import Parallel1d
from ..containers.residual import Residual1d
from ..errors import missing_package
from .chunkings import Chunking

try:
    from hypothesis import strategies as st
except ImportError as error:  # pragma: no cover
    raise missing_package("hypothesis", "torchstreamer.testing.strategies draws with it") from error

from .drawn_layers import ANY_LAYER, Draw, Part, any_pad, any_pointwise

__all__ = ["CHANNELS", "chunkings", "layer_nets", "networks"]

CHANNELS = 4


@st.composite
def chunkings(draw: Draw, n: int) -> Chunking:
    """Ways of cutting ``n`` samples: pieces of any length, 0 included, with calls without a chunk between them.

    Args:
        n: length of the signal, in samples

    Returns:
        a strategy of chunkings; it shrinks to few pieces
    """
    edges = sorted(draw(st.lists(st.integers(0, n), max_size=8)))
    if n > 0 and draw(st.booleans()):
        # Steps of one size, from somewhere on.
        size = draw(st.sampled_from([1, 2, 3, 7, 16]))
        start = draw(st.integers(0, n))
        edges = sorted({*edges, *range(start, min(n, start + 40 * size), size)})
    pieces: List[Optional[int]] = [b - a for a, b in zip([0, *edges], [*edges, n], strict=True)]
    for place in sorted(draw(st.sets(st.integers(0, len(pieces)), max_size=2)), reverse=True):
        pieces.insert(place, None)
    return tuple(pieces)


@st.composite
def layer_nets(draw: Draw, channels: int = CHANNELS) -> nn.Module:
    """Single layers that can be streamed, with any of their arguments.

    Args:
        channels: channels that they take

    Returns:
        a strategy of modules in eval mode, float64, whose weights depend on a drawn seed alone
    """
    with torch.random.fork_rng(devices=[]):
        layer = draw(st.sampled_from(ANY_LAYER))
        return _finished(draw, layer(draw, channels).net)


@st.composite
def networks(draw: Draw, max_depth: int = 4, channels: int = CHANNELS) -> nn.Module:
    """Whole networks: `torch.nn.Sequential`, `Residual1d` and `Parallel1d`, nested, with rates up and down.

    Args:
        max_depth: how deep containers are nested at most
        channels: channels that they take

    Returns:
        a strategy of modules in eval mode, float64, whose weights depend on a drawn seed alone
    """
    with torch.random.fork_rng(devices=[]):
        return _finished(draw, _free(draw, channels, max_depth).net)


def _finished(draw: Draw, net: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    net = net.double().eval()
    with torch.no_grad():
        for weight in net.parameters():
            fan = math.sqrt(max(weight[0].numel(), 1)) if weight.dim() > 1 else 2.0
            weight.copy_(torch.randn(weight.shape, generator=generator, dtype=torch.float64) / fan)
        for module in net.modules():
            if (
                isinstance(module, nn.BatchNorm1d)
                and module.running_mean is not None
                and module.running_var is not None
            ):
                module.running_mean.copy_(torch.randn(module.num_features, generator=generator) / 2)
                module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
    return net


# ---------------------------------------------------------------------- networks


def _free(draw: Draw, channels: int, depth: int) -> Part:
    """A sequence of anything; the rate goes up and down, within bounds."""
    parts: List[Part] = []
    up = down = 1
    for _ in range(draw(st.integers(1, 4))):
        inside = parts[-1].channels if parts else channels
        kinds: List[Callable[..., Part]] = [*ANY_LAYER]
        if depth > 1:
            kinds += [_nested, _residual, _parallel, _parallel, _residual]
        kind = draw(st.sampled_from(kinds))
        part = kind(draw, inside) if kind in ANY_LAYER else kind(draw, inside, depth - 1)
        if up * part.up > 12 or down * part.down > 40:
            part = any_pointwise(draw, inside)
        up, down = up * part.up, down * part.down
        parts.append(part)
        if part.channels == inside and part.up == part.down == 1 and draw(st.integers(0, 7)) == 7:
            parts.append(part)  # one module in two places
    return Part(nn.Sequential(*(part.net for part in parts)), parts[-1].channels, up=up, down=down)


def _nested(draw: Draw, channels: int, depth: int) -> Part:
    return _free(draw, channels, depth)


def _steady(draw: Draw, channels: int, depth: int, out: int) -> Part:
    """A sequence that keeps the rate, from ``channels`` to ``out`` channels, and the length but for a constant."""
    parts: List[Part] = []
    inside = channels
    for _ in range(draw(st.integers(0, 2))):
        kinds = [_steady_conv, _steady_transposed, _steady_pool, any_pad, any_pointwise]
        nested = [_residual, _steady_parallel] if depth > 1 else []
        kind = draw(st.sampled_from([*kinds, *nested]))
        parts.append(kind(draw, inside, depth - 1) if kind in nested else kind(draw, inside))
        inside = parts[-1].channels
    if inside != out or not parts:
        parts.append(Part(nn.Conv1d(inside, out, 1), out))
    if len(parts) == 1 and draw(st.booleans()):
        return parts[0]
    return Part(nn.Sequential(*(part.net for part in parts)), out, sum(part.growth for part in parts))


def _steady_conv(draw: Draw, channels: int) -> Part:
    kernel, dilation = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    padding = draw(st.one_of(st.just("same"), st.integers(0, kernel + 1)))
    mode = draw(st.sampled_from(["zeros", "reflect", "replicate"]))
    net = nn.Conv1d(channels, channels, kernel, padding=padding, dilation=dilation, padding_mode=mode)
    growth = 0 if padding == "same" else 2 * padding - (kernel - 1) * dilation
    return Part(net, channels, growth)


def _steady_transposed(draw: Draw, channels: int) -> Part:
    kernel, padding = draw(st.integers(1, 5)), draw(st.integers(0, 3))
    net = nn.ConvTranspose1d(channels, channels, kernel, padding=padding)
    return Part(net, channels, kernel - 1 - 2 * padding)


def _steady_pool(draw: Draw, channels: int) -> Part:
    kernel = draw(st.integers(1, 5))
    padding = draw(st.integers(0, kernel // 2))
    kind = draw(st.sampled_from([nn.AvgPool1d, nn.MaxPool1d]))
    return Part(kind(kernel, 1, padding), channels, 2 * padding - kernel + 1)


def _residual(draw: Draw, channels: int, depth: int) -> Part:
    inner = _steady(draw, channels, depth, channels)
    if inner.growth > 0:  # the output must not be longer than the input
        left = draw(st.integers(0, inner.growth))
        inner = Part(nn.Sequential(inner.net, nn.ZeroPad1d((-left, left - inner.growth))), channels)
    return Part(Residual1d(inner.net), channels, inner.growth)


def _steady_parallel(draw: Draw, channels: int, depth: int) -> Part:
    return _merged(draw, channels, depth, "same")


def _parallel(draw: Draw, channels: int, depth: int) -> Part:
    return _merged(draw, channels, depth, draw(st.sampled_from(["same", "down", "up"])))


def _merged(draw: Draw, channels: int, depth: int, rate: str) -> Part:
    merge = draw(st.sampled_from(["add", "mul", "cat"]))
    factor = 1 if rate == "same" else draw(st.integers(2, 4))
    inside = draw(st.sampled_from([2, channels]))
    parts: List[Part] = []
    phase = 0
    for i in range(draw(st.integers(1 if depth < 2 else 2, 3))):
        out = inside if merge != "cat" or i == 0 else 2
        part = _steady(draw, channels, depth, out)
        if rate == "down":
            part, phase = _downwards(draw, part, factor, phase, i == 0)
        elif rate == "up":
            part = _upwards(draw, part, factor)
        parts.append(part)
    net = Parallel1d(*(part.net for part in parts), merge=merge)
    total = sum(part.channels for part in parts) if merge == "cat" else inside
    growth = min(part.growth for part in parts) if rate == "same" else 0
    return Part(net, total, growth, factor if rate == "up" else 1, factor if rate == "down" else 1)


def _downwards(draw: Draw, part: Part, stride: int, phase: int, first: bool) -> Tuple[Part, int]:
    # The output has floor((n + surplus) / stride) + 1 samples. For branches to differ by a constant length, their
    # surpluses must agree modulo the stride.
    kernel = draw(st.integers(1, 5))
    padding = draw(st.integers(0, kernel // 2))
    kind = draw(st.sampled_from(["conv", "average", "largest"]))
    down: nn.Module
    if kind == "conv":
        down = nn.Conv1d(part.channels, part.channels, kernel, stride, padding)
    else:
        down = (nn.AvgPool1d if kind == "average" else nn.MaxPool1d)(kernel, stride, padding)
    surplus = part.growth + 2 * padding - kernel
    if first:
        phase = surplus % stride
    layers: Sequence[nn.Module] = [part.net, down]
    missing = (phase - surplus) % stride
    if missing > 0:
        layers = [part.net, nn.ZeroPad1d((0, missing)), down]
    return Part(nn.Sequential(*layers), part.channels), phase


def _upwards(draw: Draw, part: Part, factor: int) -> Part:
    kind = draw(st.sampled_from(["transposed", "nearest", "linear"]))
    up: nn.Module
    if kind == "transposed":
        kernel = draw(st.integers(1, 2 * factor))
        padding = draw(st.integers(0, 2))
        up = nn.ConvTranspose1d(part.channels, part.channels, kernel, factor, padding)
    else:
        up = nn.Upsample(scale_factor=factor, mode=kind)
    return Part(nn.Sequential(part.net, up), part.channels)
