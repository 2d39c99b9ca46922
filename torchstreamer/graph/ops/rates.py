"""Streams that give several samples for each that comes. TorchScript compiles this file."""

from typing import Optional

import torch
from torch import Tensor

from ...core.reach import Reach
from ...core.ring import RingBuffer
from ...core.stream import BaseStream
from ...layers.padding import Pad1dStream
from ...layers.polyphase import PolyphaseStream
from ...layers.upsampling import InterpolatedStream

__all__ = ["CornerUpsampleStream", "CubicStream", "MergeTimeStream"]


class MergeTimeStream(BaseStream):
    """A reshape that moves a factor from the axes after time into time: every sample becomes ``factor`` samples.

    Args:
        factor: samples per sample
        after: entries of the axes after time that stay there
    """

    def __init__(self, factor: int, after: int) -> None:
        super().__init__(Reach(p=factor))
        self.factor = factor
        self.after = after
        # Values that stand side by side in the channels of a sample, and one after the other in the output.
        self.interleaved = factor if after == 1 else 1
        self.keeps_dtype = True

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        if x is None:
            return None
        t = x.size(2)
        channels = x.size(1) // self.factor
        x = x.reshape([x.size(0), channels // self.after, self.factor, self.after, t])
        return x.permute([0, 1, 3, 4, 2]).reshape([x.size(0), channels, t * self.factor])

    def extra_repr(self) -> str:
        return f"factor={self.factor}"


class CornerUpsampleStream(InterpolatedStream):
    """Linear interpolation with ``align_corners=True`` from ``n`` samples to ``factor · (n - 1) + 1``.

    Every ``factor``-th output is an input. Torch adds the next sample to it with weight 0, so it waits for that one.

    Args:
        factor: outputs per input
    """

    def __init__(self, factor: int) -> None:
        super().__init__(Reach(p=factor, last=factor, end=1))
        self.factor = factor
        self.ring = RingBuffer()

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        if x is None:
            return self.ring.rows().transpose(1, 2).clone() if final and self.ring.held > 0 else None
        window = self.ring.join(x)
        n = window.size(2) - 1
        left = window.narrow(2, 0, n).unsqueeze(3)
        right = window.narrow(2, 1, n).unsqueeze(3)
        y = self.mixed(left, right, torch.arange(self.factor, device=x.device)).flatten(2)
        if final:
            y = torch.cat([y, window.narrow(2, n, 1)], 2)
        self.ring.keep(window, n)
        return y if y.size(2) > 0 else None

    def output_channels(self, channels: int) -> int:
        return channels

    def extra_repr(self) -> str:
        return f"factor={self.factor}"


class CubicStream(BaseStream):
    """Interpolation by cubic polynomials: filters that take turns, on a signal with its ends repeated.

    Args:
        reach: which inputs an output reads
        pad: what repeats them
        filters: run on the padded signal
    """

    fresh = True

    def __init__(self, reach: Reach, pad: Pad1dStream, filters: PolyphaseStream) -> None:
        super().__init__(reach)
        self.pad = pad
        self.filters = filters
        self.aliasing = 0
        self.keeps_dtype = True

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        return self.filters.step(self.pad.step(x, final), final)

    def output_channels(self, channels: int) -> int:
        return channels
