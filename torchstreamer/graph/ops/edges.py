"""Streams of what happens at the two ends of a signal: crops, constant samples. TorchScript compiles this file."""

from typing import List, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.counter import Counter
from ...core.lengths import LinearLength
from ...core.reach import Reach, offline_length
from ...core.ring import RingBuffer
from ...core.stream import BaseStream
from ...layers.padding import Pad1dStream
from ..layout import Layout

__all__ = ["CropStream", "FilledMirrorStream", "FramesStream"]


class CropStream(BaseStream):
    """A crop by constant amounts after a value whose last samples come only when the signal ends.

    What right padding adds at the end, as before a causal crop, need not be waited for: only ``hold`` samples are.

    Args:
        left: samples cropped from the start
        right: samples cropped from the end
        hold: samples held back until it is known that they are not cropped, at most ``right``
    """

    def __init__(self, left: int, right: int, hold: int) -> None:
        reach, early = Reach.shift(-left, -right), Reach.shift(-left, -hold)
        super().__init__(reach)
        self._early = early.numbers  # before the end
        self._lines = early.lines()[1], reach.lines()[1]
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
        return offline_length(self._reach_numbers if final else self._early, n)

    def lines(self) -> Tuple[LinearLength, LinearLength]:
        """`output_length` before the end and at the end."""
        return self._lines

    def output_channels(self, channels: int) -> int:
        return channels

    def extra_repr(self) -> str:
        return f"left={self.left}, right={self.right}, hold={self.hold}"


class FilledMirrorStream(BaseStream):
    """Reflect padding that zeros precede where a signal is too short for it, and that is cropped by as many again.

    So do networks pad that are to take signals of any length: one of no more samples than are mirrored is filled with
    zeros to one sample more.

    Args:
        left: samples before the first
        right: samples after the last, at most
        amounts: samples after the last for a signal of 0, 1, 2 … samples; what is missing up to ``right`` is 0
    """

    amounts: List[int]

    def __init__(self, left: int, right: int, amounts: List[int]) -> None:
        reach, self.wait = Reach.shift(left, right), max(left, right) + 1
        super().__init__(reach)
        early = Reach.shift(left, 0, self.wait)
        self._early = early.numbers  # before the end
        self._lines = early.lines()[1], reach.lines()[1]
        self.inner = Pad1dStream(left, right, "reflect")
        self.amounts = amounts
        self.keeps_dtype = True
        self.ring = RingBuffer()
        self.open = Counter()

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        if self.open.value > 0:
            return self.inner.step(x, final)
        n = self.ring.held + (0 if x is None else x.size(2))
        if n < self.wait and not (final and n > 0):
            if x is not None:
                self.ring.push(x)
            return None
        if x is None:
            data = self.ring.data
            x = data.new_empty([data.size(0), data.size(2), 0])
        x = self.ring.join(x)
        self.ring.fill(x, 0, 0.0)
        if n < self.wait:
            left, right = self.inner.left, self.amounts[n]
            missing = max(max(left, right) + 1 - n, 0)
            y = F.pad(F.pad(x, [0, missing]), [left, right], "reflect")
            return F.pad(y, [0, self.inner.right - right - missing])
        self.open.value = 1
        return self.inner.step(x, final)

    @torch.jit.export
    def output_length(self, n: int, final: bool = True) -> int:
        """Number of samples out after ``n`` samples in."""
        return offline_length(self._reach_numbers if final else self._early, n)

    def lines(self) -> Tuple[LinearLength, LinearLength]:
        """`output_length` before the end and at the end."""
        return self._lines

    def output_channels(self, channels: int) -> int:
        return channels

    @torch.jit.unused
    def filled(self) -> Tuple[int, ...]:
        """To how many samples a signal of 0, 1, 2 … is filled."""
        return tuple(max(self.inner.left, amount) + 1 for amount in self.amounts)

    def extra_repr(self) -> str:
        return f"left={self.inner.left}, right={self.inner.right}"


class FramesStream(BaseStream):
    """Constant samples in front of a signal and after it.

    Args:
        front: gives the samples in front, on a list with one tensor in the model's layout; or ``None``
        back: the same for those after it
        fronts: how many in front
        backs: how many after it
        layout: of the value
    """

    def __init__(
        self, front: Optional[nn.Module], back: Optional[nn.Module], fronts: int, backs: int, layout: Layout
    ) -> None:
        super().__init__(Reach.shift(fronts, backs))
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

    def extra_repr(self) -> str:
        return f"front={self.fronts}, back={self.backs}"
