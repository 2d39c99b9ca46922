"""How the streams of layers and containers run in a static step: a rule for each family, whose numbers the reach gives.

A value comes in steps of ``m`` samples at lag ``d``: step ``k`` begins with sample ``k · m - d``. From that and the
reach of a stream follow the lag of what it gives and the samples that it holds back, `Reach.lag` and `Reach.held`.
"""

from dataclasses import replace
from functools import partial
from typing import Any, List, Tuple

import torch
from torch import Tensor, nn

from ..containers.kept_length import KeptLength1dStream
from ..containers.parallel import Parallel1dStream
from ..containers.residual import Residual1dStream
from ..containers.sequential import Sequential1dStream
from ..core.lengths import LengthFunction
from ..core.reach import Reach
from ..layers.conv_transpose import TransposedStream, marked
from ..layers.elementwise import Elementwise1dStream, IdentityStream, PointwiseStream
from ..layers.normalization import BatchNorm1dStream
from ..layers.padding import Pad1dStream
from ..layers.polyphase import PolyphaseStream
from ..layers.upsampling import InterpolatedStream
from ..layers.window import WindowStream
from .bodies import body_of
from .ends import Fit
from .parts import Call, Interpolate, Sum
from .planning import Edge, Margin, Planner, static_rule
from .windows import Taps, TransposedPart, WindowPart

__all__ = ["add_window"]


# ---------------------------------------------------------------------- samplewise


@static_rule(IdentityStream, margins=True)
def identity(plan: Planner, stream: IdentityStream, edge: Edge) -> Edge:
    return edge


@static_rule(PointwiseStream, Elementwise1dStream, BatchNorm1dStream)
def samplewise(plan: Planner, stream: Any, edge: Edge) -> Edge:
    return plan.add(Call(body_of(stream, plan, edge)), [edge], edge.lag)


# ---------------------------------------------------------------------- windows


@static_rule(WindowStream, margins=True)
def window(plan: Planner, stream: WindowStream, edge: Edge) -> Edge:
    length = plan.through(edge, stream)
    reach, fill, pad, mode = stream.reach, stream.fill, stream.around(), "constant"
    filled: Tuple[int, ...] = ()
    settled: LengthFunction = partial(stream.output_length, final=False)
    if pad is None and edge.margin is not None and reach.first == reach.end == 0:
        margin = edge.margin
        mode, fill, filled = margin.mode, margin.value, margin.filled
        reach = Reach.window(stream.field, stream.stride, margin.left, margin.right)
        settled = _one_after_the_other(margin.settled, settled)
        edge = replace(edge, length=margin.length, margin=None)
    else:
        edge = plan.whole(edge)
    if pad is not None:
        mode, fill = pad.mode, pad.value
    body = body_of(stream, plan, edge)
    if mode != "constant":
        return plan.mirrored(edge, body, reach, mode, settled, length, filled)
    return _window(plan, edge, body, reach, fill, stream.placed, length)


def _one_after_the_other(first: LengthFunction, second: LengthFunction) -> LengthFunction:
    return lambda n: second(first(n))


def _window(
    plan: Planner, edge: Edge, body: nn.Module, reach: Reach, fill: float, placed: bool, length: LengthFunction
) -> Edge:
    # Padding counts; what lies outside of the signal otherwise is only read for outputs that are not given.
    padded = reach.first < 0 or reach.end > 0
    if padded or placed:
        edge = plan.settled(edge)
    lag = reach.lag(edge.lag)
    held = reach.held(edge.lag, lag)
    need = reach.span(edge.per_step // reach.q)
    mask = (edge.lag, plan.key(edge)) if padded or placed else None
    part = WindowPart(body, held, need, mask, fill, (lag, reach) if placed else None)
    return plan.add(part, [edge], lag, length)


def add_window(
    plan: Planner,
    edge: Edge,
    body: nn.Module,
    field: int,
    stride: int,
    length: LengthFunction,
    left: int = 0,
    right: int = 0,
    value: float = 0.0,
) -> Edge:
    """Add an operation on sliding windows of a value.

    Args:
        plan: the planner
        edge: the value
        body: takes samples ``[B, C, n]`` and gives one output per window
        field: samples that one window spans
        stride: samples from one window to the next
        length: of the output, for instance ``plan.through(edge, stream)``
        left: constants in front of the signal
        right: constants after it
        value: of these constants
    """
    return _window(plan, edge, body, Reach.window(field, stride, left, right), value, False, length)


# ---------------------------------------------------------------------- frames that overlap


@static_rule(TransposedStream)
def frames(plan: Planner, stream: TransposedStream, edge: Edge) -> Edge:
    reach = stream.reach
    if stream.marks:
        edge = plan.add(Call(_Marked()), [edge], edge.lag)
    edge = plan.settled(edge)
    body = body_of(stream, plan, edge)
    lag = reach.lag(edge.lag)
    held = reach.held(edge.lag, lag)
    # The body begins with what the oldest frame gives, or with what the step gives.
    begin = 0 if hasattr(body, "taps") else max(held, 0) * stream.stride
    part = TransposedPart(body, held, (edge.lag, plan.key(edge)), begin, edge.per_step * stream.stride)
    return plan.add(part, [edge], lag, plan.through(edge, stream))


class _Marked(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return marked(x)


# ---------------------------------------------------------------------- edges


@static_rule(Pad1dStream)
def pad(plan: Planner, stream: Pad1dStream, edge: Edge) -> Edge:
    length = plan.through(edge, stream)
    left, right = max(stream.left, 0), max(stream.right, 0)
    if stream.mode == "constant":
        # A crop counts from a later sample.
        crop = min(stream.left, 0), min(stream.right, 0)
        edge = edge.shifted(crop[0], _cropped(edge.length, -sum(crop)))
    elif min(stream.left, stream.right) < 0:
        # What is mirrored may be cropped at the other end.
        inner = plan.through(edge, Pad1dStream(left, right, stream.mode))
        edge = replace(edge, length=inner, margin=Margin(left, right, stream.mode, 0.0, edge.length))
        return plan.whole(edge).shifted(min(stream.left, 0), length)
    if left == right == 0:
        return replace(edge, length=length)
    return replace(edge, length=length, margin=Margin(left, right, stream.mode, stream.value, edge.length))


def _cropped(length: LengthFunction, amount: int) -> LengthFunction:
    return (lambda n: max(length(n) - amount, 0)) if amount > 0 else length


# ---------------------------------------------------------------------- rates


@static_rule(InterpolatedStream)
def interpolated(plan: Planner, stream: InterpolatedStream, edge: Edge) -> Edge:
    copied = getattr(stream, "copied", 0)
    if copied > 1:
        raise plan.refuse(
            stream,
            "short_copies",
            f"torch copies signals of up to {copied} samples instead of interpolating them",
            "use a larger scale, or pts.compile(stream, chunk=…)",
        )
    reach = stream.reach
    length = plan.through(edge, stream)
    if stream.linear:
        edge = plan.settled(edge)
    lag = (
        plan.late(edge, reach, partial(stream.output_length, final=False), 2) if stream.linear else reach.lag(edge.lag)
    )
    held = max(reach.held(edge.lag, lag), 0)
    device = edge.example.device
    outputs = torch.arange(-lag, edge.per_step * reach.p // reach.q - lag)
    left, rest = stream.between(outputs)
    weight = (rest.to(torch.float64) / reach.p).to(device) if stream.linear else None
    key = plan.key(edge) if stream.linear else 0
    part = Interpolate((left + (edge.lag + held)).to(device), weight, held, edge.lag, key, reach.first < 0)
    return plan.add(part, [edge], lag, length)


@static_rule(PolyphaseStream)
def polyphase(plan: Planner, stream: PolyphaseStream, edge: Edge) -> Edge:
    reach, bank = stream.reach, stream.bank
    edge = plan.settled(edge)
    lag = reach.lag(edge.lag)
    outputs = torch.arange(-lag, edge.per_step * reach.p // reach.q - lag, device=edge.example.device)
    body = Taps(bank.places(outputs) - reach.oldest(-lag), bank.weights(outputs))
    part = WindowPart(body, reach.held(edge.lag, lag), body.span, (edge.lag, plan.key(edge)))
    return plan.add(part, [edge], lag, plan.through(edge, stream))


# ---------------------------------------------------------------------- containers


@static_rule(Sequential1dStream, margins=True)
def sequential(plan: Planner, stream: Sequential1dStream, edge: Edge) -> Edge:
    for inner in stream.streams:
        edge = plan.lower(inner, edge)
    return edge


@static_rule(Residual1dStream)
def residual(plan: Planner, stream: Residual1dStream, edge: Edge) -> Edge:
    inner = plan.lower(stream.stream, edge)
    pair = plan.aligned([inner, edge], [0, stream.lead])
    return plan.add(Sum("add"), pair, pair[0].lag, plan.through(edge, stream))


@static_rule(KeptLength1dStream)
def kept_length(plan: Planner, stream: KeptLength1dStream, edge: Edge) -> Edge:
    inner = plan.settled(plan.lower(stream.stream, edge))
    return plan.add(Fit(inner.lag, plan.key(inner), 0.0), [inner], inner.lag, plan.through(edge, stream))


@static_rule(Parallel1dStream)
def parallel(plan: Planner, stream: Parallel1dStream, edge: Edge) -> Edge:
    branches: List[Edge] = [plan.lower(inner, edge) for inner in stream.streams]
    branches = plan.aligned(branches, stream.leads)
    return plan.add(Sum(stream.merge.merge), branches, branches[0].lag, plan.through(edge, stream))
