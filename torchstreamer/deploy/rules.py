"""How the streams of layers and containers run in a static step.

A rule finds the state, the lag and the operation of each stream from its geometry: with ``m`` samples per step at lag
``d``, a window of field ``F``, stride ``s`` and left padding ``p`` holds the fewest samples ``h`` of at least ``F - s``
for which its output ``i = (k · m - d - h + p) / s`` is whole, and has the lag ``(d + h - p) / s``.
"""

from dataclasses import replace
from typing import Any, List, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..containers.parallel import Parallel1dStream
from ..containers.residual import Residual1dStream
from ..containers.sequential import Sequential1dStream
from ..layers.conv import Conv1dStream
from ..layers.conv_transpose import ConvTranspose1dStream, TransposedStream, frame_columns
from ..layers.elementwise import Elementwise1dStream, IdentityStream, PointwiseStream
from ..layers.normalization import BatchNorm1dStream
from ..layers.padding import Pad1dStream
from ..layers.pooling import Pool1dStream
from ..layers.upsampling import UpsampleStream
from .ends import EdgePart, Fit
from .parts import Call, Interpolate, Sum
from .planning import Edge, Planner, static_rule
from .windows import ConvolveTaps, PoolPart, TransposedPart, TransposeTaps, WindowPart

__all__ = ["add_transposed", "add_window", "interpolated", "window_state"]


def window_state(edge: Edge, field: int, stride: int, left: int) -> Tuple[int, int]:
    """Samples that a window holds, and the lag of its output."""
    held = max(field - stride, left - edge.lag, 0)
    held += (left - edge.lag - held) % stride
    return held, (edge.lag + held - left) // stride


def add_window(
    plan: Planner,
    edge: Edge,
    body: nn.Module,
    field: int,
    stride: int,
    length: Any,
    left: int = 0,
    right: int = 0,
    value: float = 0.0,
) -> Edge:
    """Add an operation on sliding windows of a value, padded with constants."""
    mask: Optional[Tuple[int, int]] = None
    if left > 0 or right > 0:
        edge = plan.settled(edge)
        mask = edge.lag, plan.key(edge)
    held, lag = window_state(edge, field, stride, left)
    need = (edge.per_step // stride - 1) * stride + field
    return plan.add(WindowPart(body, held, need, mask, value), [edge], lag, length)


def add_transposed(
    plan: Planner, edge: Edge, stream: TransposedStream, body: nn.Module, extra: int, cropped: bool = False
) -> Edge:
    """Add frames that overlap.

    Args:
        body: adds the frames
        extra: samples of its output behind the last frame
        cropped: whether its output begins with what the step gives, not with the oldest frame
    """
    edge = plan.settled(edge)
    s, m = stream.stride, edge.per_step
    gap = max(s - stream.field - extra, 0)
    held = max(-(-(stream.field - s + gap) // s), 1 if gap > 0 else 0)
    begin = 0 if cropped else held * s - gap
    part = TransposedPart(body, held, (edge.lag, plan.key(edge)), begin, m * s)
    lag = edge.lag * s + gap + stream.padding
    return plan.add(part, [edge], lag, plan.through(edge, stream))


# ---------------------------------------------------------------------- samplewise


@static_rule(IdentityStream)
def identity(plan: Planner, stream: IdentityStream, edge: Edge) -> Edge:
    return edge


@static_rule(PointwiseStream)
def pointwise(plan: Planner, stream: PointwiseStream, edge: Edge) -> Edge:
    return plan.add(Call(stream.net), [edge], edge.lag)


@static_rule(Elementwise1dStream)
def elementwise(plan: Planner, stream: Elementwise1dStream, edge: Edge) -> Edge:
    if not stream.checked:
        stream._check_with_forked_random_state(edge.example)
    return plan.add(Call(_Fresh(stream.net)), [edge], edge.lag)


@static_rule(BatchNorm1dStream)
def batch_norm(plan: Planner, stream: BatchNorm1dStream, edge: Edge) -> Edge:
    return plan.add(Call(_Norm(stream.net)), [edge], edge.lag)


class _Fresh(nn.Module):
    # For modules that may work in place.
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.clone())


class _Norm(nn.Module):
    scale: Tensor
    shift: Tensor

    def __init__(self, net: nn.BatchNorm1d) -> None:
        super().__init__()
        assert net.running_mean is not None and net.running_var is not None
        wide = torch.float64 if net.running_var.dtype == torch.float64 else torch.float32
        scale = torch.rsqrt(net.running_var.detach().to(wide) + net.eps)
        if net.weight is not None:
            scale = scale * net.weight.detach()
        shift = -net.running_mean.detach() * scale
        if net.bias is not None:
            shift = shift + net.bias.detach()
        self.register_buffer("scale", scale.unsqueeze(1), persistent=False)
        self.register_buffer("shift", shift.unsqueeze(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        # Statistics of half precision are not worth rounding twice.
        y = x.to(self.scale.dtype) * self.scale + self.shift
        return y.to(x.dtype)


# ---------------------------------------------------------------------- windows


@static_rule(Conv1dStream)
def conv(plan: Planner, stream: Conv1dStream, edge: Edge) -> Edge:
    length = plan.through(edge, stream)
    left = right = 0
    value = 0.0
    if stream.pad is not None:
        if stream.pad.mode == "constant":
            left, right, value = stream.pad.left, stream.pad.right, stream.pad.value
        else:
            edge = plan.lower(stream.pad, edge)
    elif edge.padded is not None:
        edge, left, right, value = edge.padded
    with torch.no_grad():
        weight = stream.weight().detach()
    columns = plan.product_columns(weight, stream.groups)
    body = ConvolveTaps(weight, stream.bias, stream.stride, stream.dilation, stream.groups, columns)
    return add_window(plan, edge, body, stream.field, stream.stride, length, left, right, value)


@static_rule(ConvTranspose1dStream)
def conv_transpose(plan: Planner, stream: ConvTranspose1dStream, edge: Edge) -> Edge:
    with torch.no_grad():
        weight = stream.weight().detach()
    taps = (stream.field - 1) // stream.stride + 1
    few = plan.batch * edge.per_step <= frame_columns(stream.kernel_size, stream.stride, taps)
    products = plan.columns != 0 and stream.groups == 1
    if products and stream.field >= stream.stride and few:
        frames = TransposeTaps(weight, stream.bias, stream.stride, stream.dilation, taps)
        return add_transposed(plan, edge, stream, frames, 0, cropped=True)
    extra = max(stream.stride - stream.field, 0)
    body = _Transposed(weight, stream.bias, stream.stride, stream.dilation, stream.groups, extra)
    return add_transposed(plan, edge, stream, body, extra)


class _Transposed(nn.Module):
    bias: Optional[Tensor]
    weight: Tensor

    def __init__(
        self, weight: Tensor, bias: Optional[Tensor], stride: int, dilation: int, groups: int, extra: int
    ) -> None:
        super().__init__()
        self.stride, self.dilation, self.groups, self.extra = stride, dilation, groups, extra
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", None if bias is None else bias.detach(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose1d(x, self.weight, self.bias, self.stride, 0, self.extra, self.groups, self.dilation)


@static_rule(Pool1dStream)
def pool(plan: Planner, stream: Pool1dStream, edge: Edge) -> Edge:
    length = plan.through(edge, stream)
    p = stream.padding
    edges_count = p > 0 or stream.ceil_mode
    if stream.kind == "Max":
        body = nn.MaxPool1d(stream.kernel_size, stream.stride, 0, stream.dilation)
        right = 1 if edges_count else 0
        return add_window(plan, edge, body, stream.field, stream.stride, length, p, right, -float("inf"))
    if edges_count:
        edge = plan.settled(edge)
    held, lag = window_state(edge, stream.field, stream.stride, p)
    need = (edge.per_step // stream.stride - 1) * stream.stride + stream.field
    part = PoolPart(
        stream.kind,
        stream.kernel_size,
        stream.stride,
        p,
        held,
        need,
        (edge.lag, plan.key(edge)) if edges_count else None,
        lag,
        stream.count_include_pad,
        stream.power,
    )
    return plan.add(part, [edge], lag, length)


# ---------------------------------------------------------------------- padding


@static_rule(Pad1dStream)
def pad(plan: Planner, stream: Pad1dStream, edge: Edge) -> Edge:
    length = plan.through(edge, stream)
    left, right = stream.left, stream.right
    if stream.mode == "constant":
        # Padding in front comes first where the value waits for it; a crop counts from a later sample.
        if left <= 0 and right <= 0:
            return edge.shifted(left, length)
        source = edge
        edge = plan.delayed(plan.settled(edge), max(left - edge.lag, 0))
        made = plan.add(Fit(edge.lag, plan.key(edge), stream.value), [edge], edge.lag - left, length)
        # A window behind it pads by itself, for which nothing has to wait.
        return replace(made, padded=(source, left, right, stream.value)) if min(left, right) >= 0 else made
    edge = plan.settled(edge)
    reach = 2 if stream.mode == "reflect" else 1
    before, behind = max(left, 0), max(right, 0)
    wait = reach * before
    part = EdgePart(stream.mode, wait + reach * behind, edge.lag, plan.key(edge), edge.lag + wait)
    return plan.add(part, [edge], edge.lag + wait - left, length)


# ---------------------------------------------------------------------- rates


@static_rule(UpsampleStream)
def upsample(plan: Planner, stream: UpsampleStream, edge: Edge) -> Edge:
    if stream.copied > 1:
        raise plan.refuse(
            stream,
            "short_copies",
            f"torch copies signals of up to {stream.copied} samples instead of interpolating them",
            "use a larger scale, or pts.compile(stream, chunk=…)",
        )
    p, q = stream.p, stream.q
    # Position of output i, times 2p: 2qi + offset.
    offset = {"nearest": 0, "nearest-exact": q, "linear": q - p}[stream.mode]
    return interpolated(plan, edge, p, q, offset, stream.mode == "linear", plan.through(edge, stream))


def interpolated(plan: Planner, edge: Edge, p: int, q: int, offset: int, linear: bool, length: Any) -> Edge:
    """Add outputs at the positions ``(2qi + offset) / 2p`` of a value."""
    if linear:
        edge = plan.settled(edge)
    m = edge.per_step
    count = m * p // q
    reach = 1 if linear else 0

    def place(i: int) -> int:
        return (2 * q * i + offset) // (2 * p)

    # The last output of a step, count - 1 - lag, must not need more than has come.
    lag = 0
    while place(count - 1 - lag) + reach > m - 1 - edge.lag:
        lag += 1
    held = max(-edge.lag - place(-lag), 0)
    outputs = range(-lag, count - lag)
    device = edge.example.device
    left = torch.tensor([place(i) + edge.lag + held for i in outputs], device=device)
    weight: Optional[Tensor] = None
    if linear:
        rest = [(2 * q * i + offset) % (2 * p) / (2 * p) for i in outputs]
        weight = torch.tensor(rest, dtype=torch.float64, device=device)
    key = plan.key(edge) if linear else 0
    return plan.add(Interpolate(left, weight, held, edge.lag, key), [edge], lag, length)


# ---------------------------------------------------------------------- containers


@static_rule(Sequential1dStream)
def sequential(plan: Planner, stream: Sequential1dStream, edge: Edge) -> Edge:
    for inner in stream.streams:
        edge = plan.lower(inner, edge)
    return edge


@static_rule(Residual1dStream)
def residual(plan: Planner, stream: Residual1dStream, edge: Edge) -> Edge:
    inner = plan.lower(stream.stream, edge)
    pair = plan.aligned([inner, edge], [0, stream.lead])
    return plan.add(Sum("add"), pair, pair[0].lag, plan.through(edge, stream))


@static_rule(Parallel1dStream)
def parallel(plan: Planner, stream: Parallel1dStream, edge: Edge) -> Edge:
    branches: List[Edge] = [plan.lower(inner, edge) for inner in stream.streams]
    branches = plan.aligned(branches, stream.leads)
    return plan.add(Sum(stream.merge.merge), branches, branches[0].lag, plan.through(edge, stream))
