"""What draws random numbers in training mode: dropout of samples, of frames and of channels, and random slopes.

A new part computes its eval form, as its network does while the stream is made and tried; ``begins_in_training`` says
in which mode it begins. TorchScript compiles this file.
"""

from typing import List, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.cell import Cell
from ..core.fast_attributes import entry
from ..core.frozen import in_training
from ..core.stream import BaseStream
from .elementwise import IdentityStream, PointwiseStream

__all__ = ["ChannelDropoutStream", "FrameDropout", "RandomSlopes", "SampleDropout", "random_stream", "scale_and_shift"]


class SampleDropout(nn.Module):
    """Dropout of single values, alike for every sample.

    Args:
        p: the share of values that is dropped
        alpha: whether mean and variance are kept, as `torch.nn.AlphaDropout` does
        begins_in_training: whether it begins in training mode
    """

    def __init__(self, p: float, alpha: bool, begins_in_training: bool) -> None:
        super().__init__()
        self.p = p
        self.alpha = alpha
        self.begins_in_training = begins_in_training
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return x
        return F.alpha_dropout(x, self.p, True) if self.alpha else F.dropout(x, self.p, True)

    def extra_repr(self) -> str:
        return f"p={self.p}" + (", alpha=True" if self.alpha else "")


class RandomSlopes(nn.Module):
    """A `torch.nn.RReLU`, which draws a slope for every negative value.

    Args:
        lower: the least slope
        upper: the greatest
        begins_in_training: whether it begins in training mode
    """

    def __init__(self, lower: float, upper: float, begins_in_training: bool) -> None:
        super().__init__()
        self.lower = lower
        self.upper = upper
        self.begins_in_training = begins_in_training
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        return F.rrelu(x, self.lower, self.upper, self.training)

    def extra_repr(self) -> str:
        return f"lower={self.lower}, upper={self.upper}"


class FrameDropout(nn.Module):
    """A dropout of channels where the axis of channels, or of rows, is that of time: whole frames are dropped.

    Args:
        p: the share that is dropped
        alpha: whether mean and variance are kept
        axes: how many of the first axes have a mask of their own, that of time among them
        begins_in_training: whether it begins in training mode
    """

    def __init__(self, p: float, alpha: bool, axes: int, begins_in_training: bool) -> None:
        super().__init__()
        self.p = p
        self.alpha = alpha
        self.axes = axes
        self.begins_in_training = begins_in_training
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return x
        sizes: List[int] = []
        for axis in range(x.dim()):
            sizes.append(x.size(axis) if axis < self.axes else 1)
        scale, shift = scale_and_shift(x.new_empty(sizes).bernoulli_(1 - self.p), self.p, self.alpha)
        return x * scale + shift

    def extra_repr(self) -> str:
        return f"p={self.p}, axes={self.axes}" + (", alpha=True" if self.alpha else "")


class ChannelDropoutStream(IdentityStream):
    """Stream of a dropout of whole channels: what a row drops when its signal begins, it drops to the end.

    The mask is part of the state, so it is saved, stacked and cut like all of it. In eval mode nothing is drawn, and
    nothing changes.

    Args:
        p: the share of channels that is dropped
        alpha: whether mean and variance are kept, as `torch.nn.FeatureAlphaDropout` does
        begins_in_training: whether it begins in training mode
        shared: so many channels behind each other share a mask; -1 for all

    Shape:
        - input: ``[B, C, T]`` or ``[C, T]``
        - output: the same
    """

    memory = entry("_modules")

    def __init__(self, p: float, alpha: bool, begins_in_training: bool, shared: int = 1) -> None:
        super().__init__()
        self.p = p
        self.alpha = alpha
        self.begins_in_training = begins_in_training
        self.shared = shared
        self.memory = Cell(["mask"])
        self.training = False

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        if x is None or not self.training or self.p == 0.0:
            return x
        shared = self.shared if self.shared > 0 else x.size(1)
        if not self.memory.started():
            self.memory.keep([x.new_empty([x.size(0), x.size(1) // shared]).bernoulli_(1 - self.p)])
        rows: List[Tensor] = self.memory.rows()
        scale, shift = scale_and_shift(rows[0], self.p, self.alpha)
        if shared > 1:
            scale, shift = scale.repeat_interleave(shared, 1), shift.repeat_interleave(shared, 1)
        return x * scale.unsqueeze(2) + shift.unsqueeze(2)

    def extra_repr(self) -> str:
        return f"p={self.p}, shared={self.shared}" + (", alpha=True" if self.alpha else "")


def scale_and_shift(mask: Tensor, p: float, alpha: bool) -> Tuple[Tensor, Tensor]:
    """By what values are multiplied, and what is added, where a mask is 1, or 0 where they are dropped.

    Args:
        mask: of zeros and ones
        p: the share of zeros that was asked for
        alpha: whether mean and variance are kept
    """
    if p == 1.0:
        return torch.zeros_like(mask), torch.zeros_like(mask)
    if not alpha:
        return mask / (1 - p), torch.zeros_like(mask)
    # Where a self-normalising network saturates, as torch has it.
    saturated = 1.7580993408473766
    a = 1.0 / ((saturated * saturated * p + 1) * (1 - p)) ** 0.5
    return mask * a, (mask - 1) * (saturated * a) + saturated * a * p


def random_stream(net: nn.Module) -> BaseStream:
    """The stream of a dropout or an `RReLU` of a twin, in eval form; see `follow_modes`."""
    begins_in_training = in_training(net)
    if isinstance(net, nn.RReLU):
        return PointwiseStream(RandomSlopes(net.lower, net.upper, begins_in_training))
    p: float = net.p  # type: ignore[assignment]
    alpha = isinstance(net, (nn.AlphaDropout, nn.FeatureAlphaDropout))
    if isinstance(net, (nn.Dropout, nn.AlphaDropout)):
        return PointwiseStream(SampleDropout(p, alpha, begins_in_training), fresh=False)
    # Of [B, C, T] torch's `Dropout3d` takes B for the channels.
    return ChannelDropoutStream(p, alpha, begins_in_training, -1 if isinstance(net, nn.Dropout3d) else 1)
