"""Streams of `torch.nn.Upsample`. TorchScript compiles this file."""

from fractions import Fraction
from typing import Optional

import torch
from torch import Tensor, nn

from ..core.counter import Counter
from ..core.registry import require_plain
from ..core.ring import RingBuffer
from ..core.stream import BaseStream
from ..errors import UnsupportedModuleError

__all__ = ["UpsampleStream"]


class UpsampleStream(BaseStream):
    """Stream of a `torch.nn.Upsample` with a rational ``scale_factor`` ``p/q``.

    Output ``i`` stands at position ``i·q/p`` of the input (nearest) or ``(i + 1/2)·q/p - 1/2`` (linear, and rounded
    nearest-exact). These positions are computed in integers, so they are right however long the signal is; torch
    itself computes them in float32 and goes astray after some 10,000 samples. Linear upsampling of a signal so short
    that it gets no longer is a copy, as in torch.

    Args:
        net: the upsampling layer, mode nearest, nearest-exact or linear

    Shape:
        - input: ``[B, C, T]`` or ``[C, T]``
        - output: ``[B, C, floor(T · p / q)]`` or ``[C, floor(T · p / q)]``

    Raises:
        UnsupportedModuleError: ``size=``, ``align_corners=True``, another mode, a scale that is no fraction with a
            denominator up to 1000, ``recompute_scale_factor=True`` with a fractional scale

    Example:
        >>> import torch, torchstreamer as pts
        >>> up = torch.nn.Upsample(scale_factor=1.5, mode="linear")
        >>> stream = pts.UpsampleStream(up)
        >>> x = torch.randn(2, 8)
        >>> y = torch.cat([stream(x[:, :4]), stream(x[:, 4:], final=True)], dim=-1)
        >>> torch.testing.assert_close(y, up(x[None])[0])
    """

    def __init__(self, net: nn.Upsample) -> None:
        require_plain(net, nn.Upsample)
        super().__init__()
        scale = _rational_scale(net)
        self.mode: str = net.mode if scale != 1 else "nearest"  # at scale 1 all modes copy
        self.p = scale.numerator
        self.q = scale.denominator
        self.hop = self.q
        self.ratio = (self.p, self.q)
        self.aliasing = 0
        self.keeps_dtype = True
        # Up to so many samples the output is no longer than the input, and torch's linear mode copies it as it is.
        self.copied = (self.q - 1) // (self.p - self.q) if self.mode == "linear" and self.p > self.q else 0
        self.ring = RingBuffer()
        self.first = Counter()  # position of the first sample held
        self.next = Counter()  # next output; both wind back together by p outputs and q inputs

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        if x is None:
            if not final or not self.ring.started():
                return None
            x = self.ring.data.new_empty([self.ring.data.size(0), self.ring.data.size(2), 0])
        n = self.first.value + self.ring.held - self.ring.skip + x.size(2)
        i = self.next.value
        stop = self._reach(n, final)
        if stop <= i:
            self.ring.push(x)
            return None
        window = self.ring.join(x)
        begin = n - window.size(2)
        if final and n <= self.copied:
            return window.narrow(2, i - begin, n - i).clone()
        y = self._interpolate(window, torch.arange(i, stop, device=x.device), begin)
        # Drop what lies before the first sample that the next output needs.
        position = self._numerator(stop) // (2 * self.p)
        drop = position - begin
        self.ring.keep(window, drop)
        # Wind back, but never into the first outputs, which linear interpolation clamps.
        turns = max(stop // self.p - 1, 0)
        self.first.value = position - turns * self.q
        self.next.value = stop - turns * self.p
        return y

    def _numerator(self, i: int) -> int:
        # Position of output i, times 2p; clamped at the start.
        if self.mode == "nearest":
            return 2 * i * self.q
        if self.mode == "linear":
            return max((2 * i + 1) * self.q - self.p, 0)
        return (2 * i + 1) * self.q

    def _interpolate(self, window: Tensor, i: Tensor, begin: int) -> Tensor:
        p2 = 2 * self.p
        if self.mode == "nearest":
            return window.index_select(2, torch.div(2 * i * self.q, p2, rounding_mode="floor") - begin)
        if self.mode == "nearest-exact":
            return window.index_select(2, torch.div((2 * i + 1) * self.q, p2, rounding_mode="floor") - begin)
        numerator = ((2 * i + 1) * self.q - self.p).clamp(min=0)
        left = torch.div(numerator, p2, rounding_mode="floor")
        wide = torch.float64 if window.dtype == torch.float64 else torch.float32
        weight = (numerator - left * p2).to(wide) / p2
        left = left - begin
        right = (left + 1).clamp(max=window.size(2) - 1)
        y = window.index_select(2, left) * (1 - weight) + window.index_select(2, right) * weight
        return y.to(window.dtype)

    def _reach(self, n: int, final: bool) -> int:
        # Outputs that n inputs settle: no later input changes them, and they exist if the signal ends here.
        if n <= 0:
            return 0
        length = n * self.p // self.q
        if final:
            return length
        if n <= self.copied:
            return 1 if n > 1 else 0  # the others depend on whether the signal ends here
        if self.mode == "linear":
            # Output i needs the input behind its position: (2i + 1)·q - p < 2p·(n - 1).
            inputs = (2 * n - 1) * self.p - self.q
            return min(length, (inputs + 2 * self.q - 1) // (2 * self.q)) if n > 1 else 0
        if self.mode == "nearest":
            return length
        # nearest-exact: (2i + 1)·q < 2p·n
        return min(length, (2 * self.p * n - self.q + 2 * self.q - 1) // (2 * self.q))

    @torch.jit.export
    def output_length(self, n: int, final: bool = True) -> int:
        """Number of samples out after ``n`` samples in; see `BaseStream.output_length`."""
        return self._reach(n, final)

    def output_channels(self, channels: int) -> int:
        """Channels out for channels in."""
        return channels

    def extra_repr(self) -> str:
        return f"scale_factor={self.p}/{self.q}, mode={self.mode!r}"


def _rational_scale(net: nn.Upsample) -> Fraction:
    def refuse(code: str, reason: str, remedy: str) -> UnsupportedModuleError:
        return UnsupportedModuleError(code, net, reason, remedy)

    if net.scale_factor is None:
        raise refuse("upsample_size", "size= fixes the length of the whole output", "use scale_factor=")
    if net.mode not in ("nearest", "nearest-exact", "linear"):
        raise refuse("upsample_mode", f"mode {net.mode!r} has no stream", "use 'nearest', 'nearest-exact' or 'linear'")
    if net.align_corners:
        raise refuse(
            "align_corners", "align_corners=True ties each output to the total length", "use align_corners=False"
        )
    factors = net.scale_factor if isinstance(net.scale_factor, tuple) else (net.scale_factor,)
    if len(factors) != 1:
        raise refuse("upsample_scale", f"scale_factor={factors} is of several axes", "use one number")
    scale = Fraction(factors[0]).limit_denominator(1000)
    if scale <= 0 or abs(float(scale) - factors[0]) > 4e-16 * abs(factors[0]):
        raise refuse(
            "upsample_scale",
            f"scale_factor={factors[0]!r} is no fraction with a denominator up to 1000",
            "use a ratio of integers, for instance 441 / 480",
        )
    if net.recompute_scale_factor and scale.denominator != 1:
        raise refuse(
            "recompute_scale_factor",
            "recompute_scale_factor=True makes the scale depend on the total length",
            "leave recompute_scale_factor out",
        )
    return scale
