"""Broken handlers: what they do to the caller and to each other, and what they accept."""

from typing import ClassVar, Optional

import torch
from handlers_by_hand import StridedStream
from torch import Tensor, nn

import torchstreamer as pts


class KeepsTheChunk(StridedStream):
    def forward(self, x: Tensor, final: bool = False) -> Optional[Tensor]:
        self.latest = x
        return super().forward(x, final)


class RingOnTheChunk(StridedStream):
    """Its ring holds a view of the caller's chunk."""

    def forward(self, x: Tensor, final: bool = False) -> Optional[Tensor]:
        y = super().forward(x, final)
        ring = self.ring
        if x.dim() == 3 and 0 < ring.held <= x.size(2):
            ring.data = x.transpose(1, 2).narrow(1, x.size(2) - ring.held, ring.held)
            ring.free = -1
        return y


class WritesToTheChunk(StridedStream):
    def forward(self, x: Tensor, final: bool = False) -> Optional[Tensor]:
        return super().forward(x.mul_(2), final) if not torch.is_grad_enabled() else super().forward(x * 2, final)


class TouchesTheChunk(StridedStream):
    """Writes the values that are there already."""

    def forward(self, x: Tensor, final: bool = False) -> Optional[Tensor]:
        with torch.no_grad():
            x.detach().add_(0)
        return super().forward(x, final)


class SharedRing(StridedStream):
    shared: ClassVar[pts.RingBuffer] = pts.RingBuffer()

    def __init__(self, net: nn.Conv1d) -> None:
        super().__init__(net)
        self.ring = self.shared


class Cumulative(pts.BaseStream):
    """Running sum; right."""

    def __init__(self) -> None:
        super().__init__()
        self.ring = pts.RingBuffer()

    def forward(self, x: Tensor, final: bool = False) -> Optional[Tensor]:
        y = x.cumsum(-1)
        if self.ring.length() > 0:
            y = y + self.ring.window()
        self.keep(y)
        return y

    def keep(self, y: Tensor) -> None:
        self.ring.append(y[..., -1:])
        self.ring.drop(self.ring.length() - 1)

    def output_length(self, n: int, final: bool = True) -> int:
        return max(n, 0)


class OutputInTheState(Cumulative):
    """The output that it gives is the memory of its state."""

    def __init__(self) -> None:
        super().__init__()
        self.aliasing = 0

    def keep(self, y: Tensor) -> None:
        super().keep(y)
        if y.dim() == 3:
            self.ring._set(y.transpose(1, 2)[:, -1:], 1)


class OutputReused(Cumulative):
    """Writes every output into the memory of the one before, if it is as long."""

    def __init__(self) -> None:
        super().__init__()
        self.aliasing = 0
        self.last: Optional[Tensor] = None

    def forward(self, x: Tensor, final: bool = False) -> Optional[Tensor]:
        y = super().forward(x, final)
        if y is None or torch.is_grad_enabled() or y.is_inference():
            return y
        if self.last is None or self.last.shape != y.shape:
            self.last = y.clone()
        return self.last.copy_(y)


class AcceptsAnything(StridedStream):
    """Looks at no chunk: one row is broadcast over two."""

    def _accept(self, x: Tensor) -> Optional[Tensor]:
        if self._like.dim() == 1:
            return super()._accept(x)
        if x.dim() == 2:
            x = x[None]
        if x.size(0) == 1:
            x = x.expand(self._like.size(0), -1, -1)
        return x if x.size(-1) > 0 else None


class GoesOnAfterErrors(StridedStream):
    def _ensure_sound(self) -> None:
        pass


class RejectsLate(StridedStream):
    """Takes note of a chunk before it looks at it."""

    def __init__(self, net: nn.Conv1d) -> None:
        super().__init__(net)
        self.seen = pts.Counter()

    def _accept(self, x: Tensor) -> Optional[Tensor]:
        was, self.seen.value = self.seen.value, 1
        x = super()._accept(x)
        self.seen.value = was
        return x
