"""Streams that give several samples for each that comes. TorchScript compiles this file."""

from typing import Optional

import torch
from torch import Tensor

from ...core.ring import RingBuffer
from ...core.stream import BaseStream

__all__ = ["CornerUpsampleStream", "MergeTimeStream"]


class MergeTimeStream(BaseStream):
    """A reshape that moves a factor from the axes after time into time: every sample becomes ``factor`` samples.

    Args:
        factor: samples per sample
        behind: entries of the axes after time that stay there
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
