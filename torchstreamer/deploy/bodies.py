"""What the layers of each family compute in a static step: modules on tensors alone, with the kernel that pays."""

from functools import singledispatch
from typing import Any, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.stream import BaseStream
from ..layers.conv import Conv1dStream
from ..layers.conv_transpose import ConvTranspose1dStream, TransposedStream
from ..layers.elementwise import Elementwise1dStream, PointwiseStream
from ..layers.normalization import BatchNorm1dStream
from ..layers.pooling import Pool1dStream
from ..layers.window import WindowStream
from .kernels import product_columns
from .windows import ConvolveTaps, TransposeTaps

__all__ = ["TransposedBody", "body_of"]


@singledispatch
def body_of(stream: BaseStream, plan: Any, edge: Any) -> nn.Module:
    """The operation of a stream.

    Args:
        stream: the stream
        plan: the planner
        edge: the value that it takes

    Returns:
        of a window: takes samples ``[B, C, n]`` and gives one output per window. Of frames: adds those of such samples,
        or gives what the last ones end, if it has ``taps``. Of any other layer: takes and gives ``[B, C, n]``
    """
    return _Step(stream)


@body_of.register
def _(stream: WindowStream, plan: Any, edge: Any) -> nn.Module:
    return _Look(stream)


@body_of.register
def _(stream: TransposedStream, plan: Any, edge: Any) -> nn.Module:
    return _Overlap(stream)


@body_of.register
def _(stream: PointwiseStream, plan: Any, edge: Any) -> nn.Module:
    return stream.net


@body_of.register
def _(stream: Elementwise1dStream, plan: Any, edge: Any) -> nn.Module:
    if not stream.checked:
        stream.try_out(edge.example)
    return _Fresh(stream.net)


@body_of.register
def _(stream: BatchNorm1dStream, plan: Any, edge: Any) -> nn.Module:
    return _Norm(stream.net)


@body_of.register
def _(stream: Pool1dStream, plan: Any, edge: Any) -> nn.Module:
    return stream.pooling


@body_of.register
def _(stream: Conv1dStream, plan: Any, edge: Any) -> nn.Module:
    weight = _weight(stream)
    columns = product_columns(weight, stream.groups)
    columns = columns if plan.columns is None or columns == 0 else plan.columns
    return ConvolveTaps(weight, stream.bias, stream.stride, stream.dilation, stream.groups, columns)


@body_of.register
def _(stream: ConvTranspose1dStream, plan: Any, edge: Any) -> nn.Module:
    weight = _weight(stream)
    # Dilation would fill the product with 0, by which nan spreads.
    products = plan.columns != 0 and stream.groups == stream.dilation == 1
    if products and stream.field >= stream.stride:
        return TransposeTaps(weight, stream.bias, stream.stride, stream.reach.depth)
    # Between frames that lie apart stands the bias.
    return TransposedBody(weight, stream.bias, stream.stride, stream.dilation, stream.groups, stream.gap)


def _weight(stream: Any) -> Tensor:
    with torch.no_grad():
        return stream.weight().detach()


class _OfStream(nn.Module):
    def __init__(self, stream: Any) -> None:
        super().__init__()
        self.stream = stream


class _Step(_OfStream):
    def forward(self, x: Tensor) -> Tensor:
        return self.stream.step(x, False)


class _Look(_OfStream):
    def forward(self, window: Tensor, begin: Optional[Tensor] = None, length: Optional[Tensor] = None) -> Tensor:
        return self.stream.look(window) if begin is None else self.stream.look(window, begin, length)


class _Overlap(_OfStream):
    def forward(self, x: Tensor) -> Tensor:
        y = self.stream.overlap(x)
        # Between frames that lie apart stands nothing.
        gap = x.size(2) * self.stream.stride - y.size(2)
        return F.pad(y, [0, gap]) if gap > 0 else y


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


class TransposedBody(nn.Module):
    """A transposed convolution of a window ``[B, C, n]``, by the operator of torch.

    Args:
        weight: ``[C, O / groups, K]``
        bias: ``[O]``
        stride, dilation, groups: of the convolution
        extra: outputs after the last frame
    """

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
