"""Streams of reshapes that move samples between time and another axis. TorchScript compiles this file."""

from typing import List, Optional

import torch
from torch import Tensor, nn

from ..core.counter import Counter
from ..core.ring import RingBuffer
from ..core.stream import BaseStream
from ..layers.window import WindowStream
from .layout import Layout

__all__ = ["FramesStream", "MergeTimeStream", "SplitTimeStream"]


class MergeTimeStream(BaseStream):
    """A reshape that moves a factor from the axes behind time into time: every sample becomes ``factor`` samples.

    Args:
        factor: samples per sample
        behind: entries of the axes behind time that stay there
    """

    def __init__(self, factor: int, behind: int) -> None:
        super().__init__()
        self.factor = factor
        self.behind = behind
        self.ratio = (factor, 1)
        self.keeps_dtype = True

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        if x is None:
            return None
        t = x.size(2)
        channels = x.size(1) // self.factor
        x = x.reshape([x.size(0), channels // self.behind, self.factor, self.behind, t])
        return x.permute([0, 1, 3, 4, 2]).reshape([x.size(0), channels, t * self.factor])

    @torch.jit.export
    def output_length(self, n: int, final: bool = True) -> int:
        """Number of samples out after ``n`` samples in."""
        return max(n, 0) * self.factor

    def extra_repr(self) -> str:
        return f"factor={self.factor}"


class SplitTimeStream(WindowStream):
    """A reshape that moves a factor out of time: ``factor`` samples become one.

    Args:
        factor: samples per output sample
        behind: entries of the axes behind time before
    """

    def __init__(self, factor: int, behind: int) -> None:
        super().__init__(factor, factor)
        self.factor = factor
        self.behind = behind
        self.aliasing = 2

    def look(self, window: Tensor) -> Tensor:
        """The samples, ``factor`` together."""
        count = window.size(2) // self.factor
        y = window.reshape([window.size(0), window.size(1) // self.behind, self.behind, count, self.factor])
        return y.permute([0, 1, 4, 2, 3]).reshape([y.size(0), -1, count])

    def extra_repr(self) -> str:
        return f"factor={self.factor}"


class FramesStream(BaseStream):
    """Constant samples in front of a signal and behind it.

    Args:
        front: gives the samples in front, on a list with one tensor in the model's layout; or ``None``
        back: the same for those behind
        fronts: how many in front
        backs: how many behind
        layout: of the value
    """

    def __init__(
        self, front: Optional[nn.Module], back: Optional[nn.Module], fronts: int, backs: int, layout: Layout
    ) -> None:
        super().__init__()
        self.front = front
        self.back = back
        self.fronts = fronts
        self.backs = backs
        self.layout = layout
        self.ring = RingBuffer()
        self.open = Counter()

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        if x is not None and self.open.value == 0:
            self.open.value = 1
            self.ring.fill(x, 0, 0.0)
            if self.front is not None:
                frames: List[Tensor] = self.front([self.layout.unpack(x)])
                front = self.layout.pack(frames[0]).to(x.dtype)
                x = torch.cat([front.expand(x.size(0), -1, -1), x], 2)
        if final and self.open.value == 1 and self.back is not None:
            data = self.ring.data
            empty = data.new_empty([data.size(0), data.size(2), 0])
            frames = self.back([self.layout.unpack(empty)])
            back = self.layout.pack(frames[0]).to(data.dtype).expand(data.size(0), -1, -1)
            x = back if x is None else torch.cat([x, back], 2)
        return x

    @torch.jit.export
    def output_length(self, n: int, final: bool = True) -> int:
        """Number of samples out after ``n`` samples in."""
        if n <= 0:
            return 0
        return n + self.fronts + (self.backs if final else 0)

    def extra_repr(self) -> str:
        return f"front={self.fronts}, back={self.backs}"
