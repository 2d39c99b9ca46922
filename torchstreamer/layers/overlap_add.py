"""Frames added where they overlap, divided by the sum of their weights. TorchScript compiles this file."""

# A script takes lists where the types ask for tuples.
# mypy: disable-error-code="arg-type"

from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.fast_attributes import entry
from ..core.registry import require_plain
from ..core.tracing import plain_inference
from ..errors import StreamInputError
from .conv_transpose import TransposedStream, marked
from .weights import PackedWeight

__all__ = ["OverlapAdd1d", "OverlapAdd1dStream", "smallest_envelope"]

# What torch.istft divides by at least.
_LEAST = 1e-11


class OverlapAdd1d(nn.Module):
    """Frames added where they overlap, and divided there by the sum of their weights, the envelope.

    The last step of an inverse short-time Fourier transform. Frames that the signal does not have add nothing to the
    sum, nor to the envelope, so its edges are right by themselves.

    Args:
        window: gives the window ``[W]`` by which frames have been weighed twice, as a `Taper` does
        stride: samples from one frame to the next
        left: samples cropped at the start
        right: samples cropped at the end
        unread: how many are left out later on, if more, so that the envelope need not tell them

    Shape:
        - input: ``[B, C · W, K]`` or ``[C · W, K]``, ``K`` frames whose samples are channels
        - output: ``[B, C, (K - 1) · stride + W - left - right]``, or without ``B``

    Raises:
        ValueError: the envelope is 0 somewhere (``zero_envelope``)
    """

    __constants__ = ["width", "stride", "left", "right"]

    def __init__(
        self, window: nn.Module, stride: int, left: int = 0, right: int = 0, unread: Optional[int] = None
    ) -> None:
        super().__init__()
        self.window = window
        weights: Tensor = window().detach() ** 2
        self.width = weights.size(0)
        self.stride = stride
        self.left = left
        self.right = right
        unread = right if unread is None else unread
        least = smallest_envelope(weights, stride, left, unread)
        if min(left, right, unread) < 0 or least < _LEAST:
            raise ValueError(
                f"zero_envelope: squared windows of {self.width} samples, {stride} apart, with {left} samples cropped "
                f"at the start and {unread} at the end, add up to {max(least, 0.0):.1e} somewhere; at least {_LEAST} "
                "was expected, or samples there cannot be told; take a smaller hop, center=True, or another window"
            )

    def forward(self, x: Tensor) -> Tensor:
        """The sums of all frames."""
        rows = x.unsqueeze(0) if x.dim() == 2 else x
        y = self.overlapped(marked(rows))
        y = y.narrow(2, self.left, max(y.size(2) - self.left - self.right, 0))
        return y.squeeze(0) if x.dim() == 2 else y

    def of_length(self, x: Tensor, length: int) -> Tensor:
        """So many samples of the sums of ``[B, C · W, K]``, and zeros beyond what frames tell."""
        y = self.overlapped(marked(x))
        there = min(y.size(2) - self.left, length)
        return F.pad(y.narrow(2, self.left, there), [0, length - there])

    def overlapped(self, x: Tensor) -> Tensor:
        """The uncropped sums of frames, of which the last channel says whether they are there, by 1 or 0."""
        frames = x.narrow(1, 0, x.size(1) - 1)
        there = x.narrow(1, x.size(1) - 1, 1)
        window: Tensor = self.window()
        frames = torch.cat([frames, there * (window * window).unsqueeze(1)], 1)
        span = (x.size(2) - 1) * self.stride + self.width
        sums = F.fold(frames, [1, span], [1, self.width], stride=[1, self.stride]).squeeze(2)
        envelope = sums.narrow(1, sums.size(1) - 1, 1)
        # Where no frame is, nothing is given, or 0 beyond the last one.
        envelope = torch.where(envelope == 0, torch.ones_like(envelope), envelope)
        return sums.narrow(1, 0, sums.size(1) - 1) / envelope

    def extra_repr(self) -> str:
        return f"{self.width}, stride={self.stride}, left={self.left}, right={self.right}"


def smallest_envelope(weights: Tensor, stride: int, left: int, right: int) -> float:
    """The least sum of weights that any output is divided by, for any number of frames."""
    squares = weights.detach().double().cpu()
    width = squares.size(0)
    least = float("inf")
    for count in range(1, -(-width // stride) + 3):
        sums = squares.new_zeros((count - 1) * stride + width)
        for k in range(count):
            sums[k * stride : k * stride + width] += squares
        given = sums[max(left, 0) : sums.size(0) - max(right, 0)]
        if given.numel() > 0:
            least = min(least, float(given.min()))
    return least


class _Envelope(PackedWeight):
    # The squared window cut into hops, that of the oldest frame first: ``[taps, stride]``.
    def __init__(self, source: nn.Module, stride: int, taps: int) -> None:
        super().__init__(source)
        self.stride = stride
        self.taps = taps

    def pack(self, weight: Tensor) -> Tensor:
        squares = F.pad(weight * weight, [0, self.taps * self.stride - weight.size(0)])
        return squares.view(self.taps, self.stride).flip([0])


class OverlapAdd1dStream(TransposedStream):
    """Stream of an `OverlapAdd1d`. A sample comes when its last frame has, and is sure to be there.

    Args:
        net: the `OverlapAdd1d`
    """

    fresh = True
    __constants__ = [*TransposedStream.__constants__, "whole", "rest"]

    marks = True
    net = entry("_modules")
    envelope = entry("_modules")

    def __init__(self, net: OverlapAdd1d) -> None:
        require_plain(net, OverlapAdd1d)
        super().__init__(-1, net.width, net.stride, 1, net.left, net.left - net.right)
        self.net = net
        self.envelope = _Envelope(net.window, net.stride, self.history + 1)
        # Hops of a frame, and samples of its last one that are fewer.
        self.whole = net.width // net.stride
        self.rest = net.width % net.stride

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        if x is None:
            if not final or not self.ring.started():
                return None
            x = self.ring.data.new_empty([self.ring.data.size(0), self.ring.data.size(2), 0])
        else:
            self.output_channels(x.size(1))
            x = marked(x)
        if not self.ring.started():
            self.ring.fill(x, self.history, 0.0)
        return self._crop(self._advance(x, final))

    def _advance(self, x: Tensor, final: bool) -> Optional[Tensor]:
        if final or self.late > 0 or not plain_inference():
            return self._overlapped(x, final)
        t = x.size(2)
        ring = self.ring
        rows = ring.extend(x, True)
        first = ring.begin
        y = self._sums(rows, first, t)
        ring.retain(rows, first + t, self.history)
        return y

    def _sums(self, rows: Tensor, first: int, t: int) -> Tensor:
        # Hop after hop, from the frames in it: the samples that one adds stand a frame less a hop after those of the
        # one before, so that all of them are a view.
        b, size = rows.size(0), rows.size(2)
        s, width, whole, channels = self.stride, self.net.width, self.whole, size // self.net.width
        taps = self.history + 1
        row, place = rows.stride(0), rows.storage_offset() + first * size
        begin = place + (taps - whole) * size + (whole - 1) * s
        sums = rows.as_strided([b, t, whole, channels, s], [row, size, size - s, width, 1], begin).sum(2)
        if self.rest > 0:
            oldest = rows.as_strided([b, t, channels, self.rest], [row, size, width, 1], place + whole * s)
            sums.narrow(3, 0, self.rest).add_(oldest)
        there = rows.as_strided([b, t, taps, 1], [row, size, size, 1], place + size - 1)
        # In front of the first frame nothing is, and all of that is cropped.
        envelope = (there * self.envelope.matrix()).sum(2)
        sums = sums / envelope.unsqueeze(2)
        return sums.transpose(1, 2).reshape(b, channels, t * s)

    def overlap(self, x: Tensor) -> Tensor:
        """The frames added, uncropped."""
        return self.net.overlapped(x)

    def output_channels(self, channels: int) -> int:
        """Channels out for channels in."""
        width = self.net.width
        if channels == -1:
            return -1
        if channels % width != 0:
            raise StreamInputError(
                f"invalid_chunk: {channels} channels came; a multiple of the {width} samples of a frame was expected "
                "by an OverlapAdd1d; check the axes, a chunk is [B, C, T] or [C, T]"
            )
        return channels // width

    def anchor(self) -> Optional[Tensor]:
        """The window says dtype and device."""
        return self.envelope.anchor()

    def extra_repr(self) -> str:
        return self.net.extra_repr()
