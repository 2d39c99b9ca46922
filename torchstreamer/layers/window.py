"""The one rule of every layer that looks through a sliding window: convolution and pooling.

With field ``F`` (the samples one window spans), stride ``s`` and the padded signal ``P``, output ``i`` is a function of
``P[i·s : i·s + F]``. TorchScript compiles this file.
"""

from typing import Iterator, Optional

import torch
from torch import Tensor, nn
from torch.jit import is_scripting

from ..core.fast_attributes import entry
from ..core.reach import Reach
from ..core.ring import RingBuffer
from ..core.stream import BaseStream
from ..core.tracing import plain_inference
from .padding import Pad1dStream

__all__ = ["FramesStream", "WindowStream", "affine", "spanned", "time_last", "unfold", "window_count"]


def spanned(kernel_size: int, dilation: int) -> int:
    """Samples from the first to the last tap of a window."""
    return (kernel_size - 1) * dilation + 1


def window_count(n: int, field: int, stride: int) -> int:
    """Windows that fit into ``n`` samples."""
    return (n - field) // stride + 1 if n >= field else 0


def unfold(rows: Tensor, first: int, count: int, step: int, width: int) -> Tensor:
    """Windows of neighbouring samples as the rows of a matrix ``[B · count, width]``, a view where one will do.

    Args:
        rows: samples ``[B, m, C]``, each row contiguous; `RingBuffer.extend`
        first: value at which the first window begins
        count: windows
        step: values from one window to the next
        width: values of a window
    """
    b = rows.size(0)
    place = rows.storage_offset() + first
    if count == 1:
        return rows.as_strided([b, width], [rows.stride(0), 1], place)
    if b == 1:
        return rows.as_strided([count, width], [step, 1], place)
    return rows.as_strided([b, count, width], [rows.stride(0), step, 1], place).reshape(b * count, width)


def affine(x: Tensor, matrix: Tensor, bias: Optional[Tensor]) -> Tensor:
    """The product ``[N, C] @ [C, O]``, and the bias added."""
    if bias is None:
        return torch.mm(x, matrix)
    if is_scripting():
        # TorchScript takes `addmm` apart, with one tensor more.
        y = torch.mm(x, matrix)
        return y.add_(bias)
    else:
        return torch.addmm(bias, x, matrix)


def time_last(y: Tensor, b: int, count: int) -> Tensor:
    """``[B · count, C]`` as ``[B, C, count]``, a view."""
    if count == 1:
        return y.unsqueeze(2)
    return y.view(b, count, y.size(1)).transpose(1, 2)


class WindowStream(BaseStream):
    """A layer that applies one operation to every window of its padded input. A subclass gives `look`, or a `step`.

    Args:
        field: samples that one window spans, `spanned`
        stride: samples from one window to the next
        reach: with the padding around the signal; without any by default
    """

    # What a script takes as constant: it leaves out the branches that these decide.
    __constants__ = ["field", "stride"]

    reach: Reach
    ring = entry("_modules")

    # Of the operation: what it takes for samples outside of the signal, and whether it asks where windows begin.
    fill: float = 0.0
    placed: bool = False

    def __init__(self, field: int, stride: int, reach: Optional[Reach] = None) -> None:
        super().__init__(Reach.window(field, stride) if reach is None else reach)
        self.field = field
        self.stride = stride
        self.aliasing = 0
        self.keeps_dtype = True
        self.ring = RingBuffer()

    def ready(self, t: int) -> int:
        """Windows that are whole with ``t`` more samples."""
        return window_count(self.ring.held - self.ring.skip + t, self.field, self.stride)

    def around(self) -> Optional[Pad1dStream]:
        """What pads the signal before this layer sees it, if it has padding of its own."""
        return None

    def look(self, window: Tensor) -> Tensor:
        """One output per window of these samples, ``[B, C, n]``; no sample lies after the last window."""
        raise NotImplementedError

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        return self.looked(x)

    def looked(self, x: Optional[Tensor]) -> Optional[Tensor]:
        """The outputs of all windows that are whole with this chunk, which is padded already."""
        if x is None:
            return None
        count = self.ready(x.size(2))
        if count == 0:
            self.ring.push(x)
            return None
        window = self.ring.join(x)
        y = self.look(window.narrow(2, 0, (count - 1) * self.stride + self.field))
        self.ring.keep(window, count * self.stride)
        return y


class FramesStream(WindowStream):
    """Stream of a module that makes a frame of every window of its padded input.

    Args:
        net: its method ``windows`` takes samples ``[B, C, n]`` and gives one frame per window, ``[B, C', n']``, in
            memory of its own
        field: samples that one window spans
        stride: samples from one window to the next
        pad: what it puts around the signal, if anything
    """

    net = entry("_modules")

    def __init__(self, net: nn.Module, field: int, stride: int, pad: Optional[Pad1dStream] = None) -> None:
        reach = Reach.window(field, stride)
        super().__init__(field, stride, reach if pad is None else reach.padded(pad.reach))
        self.net = net
        self.pad = pad

    def around(self) -> Optional[Pad1dStream]:
        """What pads the signal before the module sees it."""
        return self.pad

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        if self.pad is not None:
            x = self.pad.step(x, final)
        if x is None or not plain_inference():
            return self.looked(x)
        # Short chunks are written behind what is held, and frames taken from there.
        ring = self.ring
        t = x.size(2)
        if t == ring.period and x.dtype == ring.data.dtype and x.size(1) == ring.data.size(2):
            first = ring.advance(x, t)
            return self._frames(ring.data, first, t // self.stride)
        n = ring.held - ring.skip + t
        count = window_count(n, self.field, self.stride)
        if count == 0:
            ring.push(x)
            return None
        rows = ring.extend(x, True)
        first = ring.begin
        y = self._frames(rows, first, count)
        ring.retain(rows, first + count * self.stride, n - count * self.stride)
        if t == count * self.stride and x.dtype == rows.dtype:
            ring.expect(t)
        return y

    def _frames(self, rows: Tensor, first: int, count: int) -> Tensor:
        return self.look(rows.narrow(1, first, (count - 1) * self.stride + self.field).transpose(1, 2))

    def look(self, window: Tensor) -> Tensor:
        """One frame per window of these samples."""
        return self.net.windows(window)

    def taps(self, n: int, m: int) -> Iterator[Tensor]:
        """Which inputs the outputs are computed from; see `BaseStream.taps`."""
        taps = super().taps(n, m)
        return taps if self.pad is None else (self.pad.source(tap, n) for tap in taps)

    def extra_repr(self) -> str:
        return self.net.extra_repr()
