"""Streams of operations that occur in graphs and have no layer of torch.nn. TorchScript compiles this file.

They take and give ``[B, C, T]``; those that run an operation of the graph itself bring a window to the model's layout
and back.
"""

from typing import List, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.ring import RingBuffer
from ..core.stream import BaseStream
from ..layers.conv_transpose import TransposedStream
from ..layers.padding import Pad1dStream
from ..layers.window import WindowStream
from .layout import Layout

__all__ = [
    "CornerUpsampleStream",
    "CropStream",
    "CumulativeStream",
    "MirroredEndStream",
    "OverlapStream",
    "PositionStream",
    "WindowedStream",
    "accumulate",
]


class WindowedStream(WindowStream):
    """Any operation that looks through a sliding window: 2-D convolution, framing, differences.

    Args:
        body: the operation, on a list with one tensor in the model's layout; it gives one output per window
        field: samples that one window spans
        stride: samples from one window to the next
        before: layout of the input
        behind: layout of the output
        name: of the operation
    """

    def __init__(self, body: nn.Module, field: int, stride: int, before: Layout, behind: Layout, name: str) -> None:
        super().__init__(field, stride)
        self.body = body
        self.before = before
        self.behind = behind
        self.name = name
        self.aliasing = 2

    def look(self, window: Tensor) -> Tensor:
        """The operation's outputs."""
        ys: List[Tensor] = self.body([self.before.unpack(window)])
        return self.behind.pack(ys[0])

    def extra_repr(self) -> str:
        return f"{self.name}, field={self.field}, stride={self.stride}"


class MirroredEndStream(Pad1dStream):
    """Reflected padding of which the end may be cropped: a signal too short for all of it gets zeros at the very end.

    Args:
        left: samples before the first
        right: samples behind the last
    """

    def __init__(self, left: int, right: int) -> None:
        super().__init__(left, right, "reflect")
        self.shortest = self.wait = left + 1

    def _close(self, x: Optional[Tensor], tail: Optional[Tensor]) -> Optional[Tensor]:
        assert tail is not None
        n = min(tail.size(2) - 1, self.right)
        end = F.pad(tail.narrow(2, 0, n).flip([2]), [0, self.right - n])
        return end if x is None else torch.cat([x, end], 2)


class OverlapStream(TransposedStream):
    """Any operation that adds overlapping frames: 2-D transposed convolution, `torch.nn.functional.fold`.

    Args:
        body: the operation without padding along time, on a list with one tensor in the model's layout
        kernel, stride, dilation, padding, output_padding: along time
        before: layout of the input
        behind: layout of the output
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
        before: Layout,
        behind: Layout,
        name: str,
    ) -> None:
        super().__init__(before.channels, kernel, stride, dilation, padding, output_padding)
        self.body = body
        self.before = before
        self.behind = behind
        self.name = name

    def overlap(self, x: Tensor) -> Tensor:
        """The frames added, uncropped."""
        ys: List[Tensor] = self.body([self.before.unpack(x)])
        y = self.behind.pack(ys[0])
        return F.pad(y, [0, self.output_padding]) if self.output_padding > 0 else y

    def extra_repr(self) -> str:
        return f"{self.name}, kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


def accumulate(kind: str, x: Tensor) -> Tensor:
    """A cumulative operation over the time of ``[B, C, T]``; its kind as in `CumulativeStream`."""
    if kind == "cumsum":
        return torch.cumsum(x, 2)
    if kind == "cumprod":
        return torch.cumprod(x, 2)
    if kind == "logcumsumexp":
        return torch.logcumsumexp(x, 2)
    if kind == "cummax":
        return torch.cummax(x, 2)[0]
    return torch.cummin(x, 2)[0]


class CumulativeStream(BaseStream):
    """A cumulative operation over time, which carries its last output.

    Args:
        kind: ``"cumsum"``, ``"cumprod"``, ``"logcumsumexp"``, ``"cummax"`` or ``"cummin"`` (the values)
        like: a tensor of the output's dtype
    """

    like: Tensor

    def __init__(self, kind: str, like: Tensor) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("like", like, persistent=False)
        self.ring = RingBuffer()
        self.keeps_dtype = True

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        if x is None:
            return None
        if not self.like.is_floating_point():
            x = x.to(self.like.dtype)
        if self.ring.started():
            x = torch.cat([self.ring.rows().transpose(1, 2), x], 2)
        # The carried value goes first and is left out again: the sum is formed in the order of the whole signal.
        y = accumulate(self.kind, x)
        if self.ring.started():
            y = y.narrow(2, 1, y.size(2) - 1)
        self.ring.borrowed = True
        self.ring.keep(y, y.size(2) - 1)
        return y

    @torch.jit.export
    def output_length(self, n: int, final: bool = True) -> int:
        """Number of samples out after ``n`` samples in."""
        return max(n, 0)

    def output_channels(self, channels: int) -> int:
        return channels

    def extra_repr(self) -> str:
        return self.kind


class PositionStream(BaseStream):
    """The positions of samples: ``first + step · i`` at sample ``i``, one channel.

    Every row counts for itself, so rows of different age share a batch.

    Args:
        first: value at the first sample
        step: difference of neighbours
        dtype: dtype of the values
    """

    like: Tensor

    def __init__(self, first: float, step: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.first = first
        self.increment = step
        self.register_buffer("like", torch.empty(0, dtype=dtype), persistent=False)
        self.ring = RingBuffer()

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        if x is None:
            return None
        t = x.size(2)
        if not self.ring.started():
            self.ring.data = torch.zeros([x.size(0), 1, 1], dtype=torch.int64, device=x.device)
        i = self.ring.data + torch.arange(t, device=x.device)
        self.ring.data = self.ring.data + t
        self.ring.held = 1
        self.ring.room = 1
        if self.like.is_floating_point():
            return (i.to(torch.float64) * self.increment + self.first).to(self.like.dtype)
        return (i * int(self.increment) + int(self.first)).to(self.like.dtype)

    @torch.jit.export
    def output_length(self, n: int, final: bool = True) -> int:
        """Number of samples out after ``n`` samples in."""
        return max(n, 0)

    def extra_repr(self) -> str:
        return f"first={self.first}, step={self.increment}"


class CropStream(BaseStream):
    """A crop by constant amounts behind a value whose last samples come only when the signal ends.

    What right padding adds at the end, as before a causal crop, need not be waited for: only ``hold`` samples are.

    Args:
        left: samples cropped from the start
        right: samples cropped from the end
        hold: samples held back until it is known that they are not cropped, at most ``right``
    """

    def __init__(self, left: int, right: int, hold: int) -> None:
        super().__init__()
        self.left = left
        self.right = right
        self.hold = hold
        self.keeps_dtype = True
        self.ring = RingBuffer(left)

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        if x is None:
            if not final or self.ring.held == 0:
                return None
            data = self.ring.data
            x = data.new_empty([data.size(0), data.size(2), 0])
        n = self.ring.held - self.ring.skip + x.size(2)
        count = n - (self.right if final else self.hold)
        if count <= 0:
            self.ring.push(x)
            return None
        window = self.ring.join(x)
        y = window.narrow(2, 0, count)
        self.ring.keep(window, count)
        return y

    @torch.jit.export
    def output_length(self, n: int, final: bool = True) -> int:
        """Number of samples out after ``n`` samples in."""
        return max(n - self.left - (self.right if final else self.hold), 0) if n > 0 else 0

    def output_channels(self, channels: int) -> int:
        return channels

    def extra_repr(self) -> str:
        return f"left={self.left}, right={self.right}, hold={self.hold}"


class CornerUpsampleStream(BaseStream):
    """Linear interpolation with ``align_corners=True`` from ``n`` samples to ``factor · (n - 1) + 1``.

    Every ``factor``-th output is an input. Torch adds the next sample to it with weight 0, so it waits for that one.

    Args:
        factor: outputs per input
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.ratio = (factor, 1)
        self.keeps_dtype = True
        self.ring = RingBuffer()

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        if x is None:
            return self.ring.rows().transpose(1, 2).clone() if final and self.ring.held > 0 else None
        window = self.ring.join(x)
        n = window.size(2) - 1
        left = window.narrow(2, 0, n).unsqueeze(3)
        right = window.narrow(2, 1, n).unsqueeze(3)
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        weight = torch.arange(self.factor, device=x.device).to(wide) / self.factor
        y = (left * (1 - weight) + right * weight).to(x.dtype).flatten(2)
        if final:
            y = torch.cat([y, window.narrow(2, n, 1)], 2)
        self.ring.keep(window, n)
        return y if y.size(2) > 0 else None

    @torch.jit.export
    def output_length(self, n: int, final: bool = True) -> int:
        """Number of samples out after ``n`` samples in."""
        return (n - 1) * self.factor + int(final) if n > 0 else 0

    def output_channels(self, channels: int) -> int:
        return channels

    def extra_repr(self) -> str:
        return f"factor={self.factor}"
