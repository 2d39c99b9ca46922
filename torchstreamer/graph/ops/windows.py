"""Streams of a graph's own operations on windows and overlapping frames. TorchScript compiles this file.

They take and give ``[B, C, T]``; those that run an operation of the graph bring a window to the model's layout and
back.
"""

# A script takes lists where the types ask for tuples.
# mypy: disable-error-code="arg-type"

from typing import List

import torch.nn.functional as F
from torch import Tensor, nn

from ...layers.conv_transpose import TransposedStream
from ...layers.window import WindowStream, spanned
from ..layout import Layout

__all__ = ["Fold", "OverlapStream", "SplitTimeStream", "StridedFrames", "WindowedStream"]


class WindowedStream(WindowStream):
    """Any operation that looks through a sliding window: 2-D convolution, framing, differences.

    Args:
        body: the operation, on a list with one tensor in the model's layout; it gives one output per window
        field: samples that one window spans
        stride: samples from one window to the next
        layout_in: layout of the input
        layout_out: layout of the output
        name: of the operation
    """

    def __init__(
        self, body: nn.Module, field: int, stride: int, layout_in: Layout, layout_out: Layout, name: str
    ) -> None:
        super().__init__(field, stride)
        self.body = body
        self.layout_in = layout_in
        self.layout_out = layout_out
        self.name = name
        self.aliasing = 2

    def look(self, window: Tensor) -> Tensor:
        """The operation's outputs."""
        ys: List[Tensor] = self.body([self.layout_in.unpack(window)])
        return self.layout_out.pack(ys[0])

    def extra_repr(self) -> str:
        return f"{self.name}, field={self.field}, stride={self.stride}"


class OverlapStream(TransposedStream):
    """Any operation that adds overlapping frames: 2-D transposed convolution, `torch.nn.functional.fold`.

    Args:
        body: the operation without padding along time, on a list with one tensor in the model's layout
        kernel, stride, dilation, padding, output_padding: along time
        layout_in: layout of the input
        layout_out: layout of the output
        name: of the operation
    """

    def __init__(
        self,
        body: nn.Module,
        kernel: int,
        stride: int,
        dilation: int,
        padding: int,
        output_padding: int,
        layout_in: Layout,
        layout_out: Layout,
        name: str,
    ) -> None:
        super().__init__(layout_in.channels, kernel, stride, dilation, padding, output_padding)
        self.body = body
        self.layout_in = layout_in
        self.layout_out = layout_out
        self.name = name

    def overlap(self, x: Tensor) -> Tensor:
        """The frames added, uncropped."""
        ys: List[Tensor] = self.body([self.layout_in.unpack(x)])
        y = self.layout_out.pack(ys[0])
        return F.pad(y, [0, self.output_padding]) if self.output_padding > 0 else y

    def extra_repr(self) -> str:
        return f"{self.name}, kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class Fold(nn.Module):
    """`torch.nn.functional.fold` of as many frames as come, without padding along time.

    Args:
        axis: which of height and width is time
        height: size of the other one
        kernel_size: height and samples of a frame
        dilation: of both
        padding: of the other one
        stride: of both
    """

    def __init__(
        self, axis: int, height: int, kernel_size: List[int], dilation: List[int], padding: int, stride: List[int]
    ) -> None:
        super().__init__()
        self.axis = axis
        self.height = height
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.padding = padding
        self.stride = stride

    def forward(self, xs: List[Tensor]) -> List[Tensor]:
        """The frames ``[B, C, n]`` added."""
        x = xs[0]
        i = self.axis
        span = (x.size(-1) - 1) * self.stride[i] + spanned(self.kernel_size[i], self.dilation[i])
        size = [span, self.height] if i == 0 else [self.height, span]
        padding = [0, self.padding] if i == 0 else [self.padding, 0]
        return [F.fold(x, size, self.kernel_size, self.dilation, padding, self.stride)]


class StridedFrames(nn.Module):
    """Frames along an axis, without the samples between those that are taken.

    Args:
        time: the axis
        field: samples that one frame spans
        stride: samples from one frame to the next
        gap: samples from one that is taken to the next
        order: which axes of the frames, whose samples come last, the axes of the result are; of those after them,
            which have one entry, nothing is left
        rank: axes of the result
    """

    def __init__(self, time: int, field: int, stride: int, gap: int, order: List[int], rank: int) -> None:
        super().__init__()
        self.time = time
        self.field = field
        self.stride = stride
        self.gap = gap
        self.order = order
        self.rank = rank

    def forward(self, xs: List[Tensor]) -> List[Tensor]:
        """The frames."""
        y = xs[0].unfold(self.time, self.field, self.stride)
        if self.gap > 1:
            y = y[..., :: self.gap]
        y = y.permute(self.order)
        for _ in range(y.dim() - self.rank):
            y = y.squeeze(-1)
        return [y]


class SplitTimeStream(WindowStream):
    """A reshape that moves a factor out of time: ``factor`` samples become one.

    Args:
        factor: samples per output sample
        after: entries of the axes after time before
    """

    def __init__(self, factor: int, after: int) -> None:
        super().__init__(factor, factor)
        self.factor = factor
        self.after = after
        self.aliasing = 2

    def look(self, window: Tensor) -> Tensor:
        """The samples, ``factor`` together."""
        count = window.size(2) // self.factor
        y = window.reshape([window.size(0), window.size(1) // self.after, self.after, count, self.factor])
        return y.permute([0, 1, 4, 2, 3]).reshape([y.size(0), -1, count])

    def extra_repr(self) -> str:
        return f"factor={self.factor}"
