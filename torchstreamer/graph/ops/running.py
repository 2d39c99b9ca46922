"""Streams of what runs along the signal: cumulative sums, and positions. TorchScript compiles this file."""

from typing import Iterator, Optional

import torch
from torch import Tensor

from ...core.reach import Reach
from ...core.ring import RingBuffer
from ...core.stream import BaseStream

__all__ = ["CumulativeStream", "PositionStream", "accumulate"]


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
        super().__init__(Reach.recurrence())
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
        super().__init__(Reach.recurrence())
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

    def taps(self, n: int, m: int) -> Iterator[Tensor]:
        """None: the values of the input do not count."""
        return iter(())

    def extra_repr(self) -> str:
        return f"first={self.first}, step={self.increment}"
