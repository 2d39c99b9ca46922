"""Streams of `torch.nn.Upsample`. TorchScript compiles this file."""

from fractions import Fraction
from typing import Iterator, Optional, Tuple

import torch
from torch import Tensor, nn

from ..core.counter import Counter
from ..core.lengths import LinearLength
from ..core.reach import Reach, settled_length
from ..core.registry import require_plain
from ..core.ring import RingBuffer
from ..core.stream import BaseStream
from ..core.whole_numbers import require_length
from ..errors import UnsupportedModuleError

__all__ = ["InterpolatedStream", "UpsampleStream"]


class InterpolatedStream(BaseStream):
    """A layer whose output ``i`` stands at the position ``(q·i + first) / p`` of its input, as its reach says.

    It is the input there, rounded down, or where the reach is of two inputs lies on the line between these.

    Args:
        reach: of the layer
    """

    reach: Reach

    def __init__(self, reach: Reach) -> None:
        super().__init__(reach)
        self.numerator = reach.q  # of the step from one position to the next, in p-ths
        self.denominator = reach.p
        self.offset = reach.first
        self.linear = reach.last > reach.first
        self.keeps_dtype = True

    def between(self, i: Tensor) -> Tuple[Tensor, Tensor]:
        """Numbers of the inputs at or before the positions of outputs, and how many ``p``-ths after these they are."""
        position = i * self.numerator + self.offset
        left = torch.div(position, self.denominator, rounding_mode="floor")
        return left, position - left * self.denominator

    def clamped(self, i: Tensor) -> Tuple[Tensor, Tensor]:
        """The same, of positions that are not before the first input."""
        left, rest = self.between(i)
        return left.clamp(min=0), torch.where(left < 0, torch.zeros_like(rest), rest)

    def oldest(self, i: int) -> int:
        """The first input that an output needs."""
        return max(i * self.numerator + self.offset, 0) // self.denominator

    def mixed(self, one: Tensor, other: Tensor, rest: Tensor) -> Tensor:
        """The values so many ``p``-ths on the way from one to the other."""
        wide = torch.float64 if one.dtype == torch.float64 else torch.float32
        weight = rest.to(wide) / self.denominator
        return (one * (1 - weight) + other * weight).to(one.dtype)

    def taps(self, n: int, m: int) -> Iterator[Tensor]:
        """Which inputs the outputs are computed from; see `BaseStream.taps`."""
        left, rest = self.clamped(torch.arange(m))
        yield left
        if self.linear:
            # A sample with weight 0 is waited for, and does not count.
            yield torch.where(rest > 0, (left + 1).clamp(max=n - 1), -1)


class UpsampleStream(InterpolatedStream):
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
        scale = _rational_scale(net)
        p, q = scale.numerator, scale.denominator
        mode = str(net.mode) if scale != 1 else "nearest"  # at scale 1 all modes copy
        offset = {"nearest": 0, "nearest-exact": q, "linear": q - p}[mode]
        last = offset + 2 * p if mode == "linear" else offset
        super().__init__(Reach(2 * p, 2 * q, offset, last, last - 2 * q + 1))  # in all floor(n · p / q)
        self.mode: str = mode
        self.p = p
        self.q = q
        self.aliasing = 0
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
        stop = self.output_length(n, final)
        if stop <= i:
            self.ring.push(x)
            return None
        window = self.ring.join(x)
        begin = n - window.size(2)
        if final and n <= self.copied:
            return window.narrow(2, i - begin, n - i).clone()
        left, rest = self.clamped(torch.arange(i, stop, device=x.device))
        y = window.index_select(2, left - begin)
        if self.linear:
            right = (left + 1).clamp(max=n - 1)
            y = self.mixed(y, window.index_select(2, right - begin), rest)
        # Drop what lies before the first sample that the next output needs.
        position = self.oldest(stop)
        self.ring.keep(window, position - begin)
        # Wind back, but never into the first outputs, which linear interpolation clamps.
        turns = max(stop // self.p - 1, 0)
        self.first.value = position - turns * self.q
        self.next.value = stop - turns * self.p
        return y

    @torch.jit.export
    def output_length(self, n: int, final: bool = True) -> int:
        """Number of samples out after ``n`` samples in; see `BaseStream.output_length`."""
        require_length(n)
        length = self.length(n)
        if final:
            return length
        if self.linear and n <= max(self.copied, 1):
            return 1 if n > 1 else 0  # the others depend on whether the signal ends here
        return min(settled_length(self._reach_numbers, n), length)

    def lines(self) -> Optional[Tuple[LinearLength, LinearLength]]:
        """`output_length` before the end and at the end, where both are one rounded line; else ``None``."""
        return None if self.linear else self.reach.lines()

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
