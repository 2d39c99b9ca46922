"""Gain, fades, pre-emphasis, and the constant part of a signal taken out. TorchScript compiles this file."""

import math
from typing import Any, Callable, Dict, List, Optional, Sequence, Union

import torch
from torch import Tensor, nn

from ..core.cell import Cell
from ..core.fast_attributes import entry
from ..core.reach import Reach
from ..core.registry import register_streamer, require_plain
from ..layers.accumulating import accumulator
from ..layers.elementwise import PointwiseStream
from ..layers.linear_recurrence import channels_of, hold
from ..layers.samples import require_fraction, require_real
from ..layers.window import WindowStream
from .configuring import configured
from .fir import FIR
from .recursive import LFilter

__all__ = ["Fade", "FadeStream", "Gain", "Preemphasis", "RemoveDC"]


@configured
class Gain(nn.Module):
    """A gain in decibels.

    Args:
        gain_db: a number, or ``[C]`` with one for each channel, in dB; a parameter is trained

    Shape:
        - input: ``[B, C, T]`` or ``[C, T]``
        - output: the same, in the dtype of the input

    Example:
        >>> import torch
        >>> from torchstreamer.audio import Gain
        >>> Gain(20.0)(torch.tensor([[1.0, -2.0]]))
        tensor([[ 10., -20.]])
    """

    gain_db: Tensor

    def __init__(self, gain_db: Union[float, Sequence[float], Tensor]) -> None:
        super().__init__()
        values = gain_db if isinstance(gain_db, Tensor) else torch.tensor(gain_db, dtype=torch.float64)
        if values.dim() > 1 or not bool(values.isfinite().all()):
            raise ValueError(
                f"invalid_gain_db: gain_db={gain_db} came; a finite number, or one for each channel, was expected; 0 "
                "changes nothing"
            )
        hold(self, "gain_db", values)
        self.channels = channels_of(values)

    def forward(self, x: Tensor) -> Tensor:
        """The signal, louder or softer."""
        require_fraction(x)
        return x * torch.pow(10.0, self.gain_db / 20).unsqueeze(-1).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.gain_db.item():g} dB" if self.channels == -1 else f"channels={self.channels}"


def _gain_stream(net: Gain) -> PointwiseStream:
    require_plain(net, Gain)
    return PointwiseStream(net, net.channels)


register_streamer(Gain, _gain_stream)


@configured
class Preemphasis(FIR):
    """Pre-emphasis: ``y[t] = x[t] - coefficient · x[t-1]``.

    It is undone by ``LFilter([1.0], [1.0, -coefficient])``.

    Args:
        coefficient: how much of the sample before is taken away
        initial: what stands before the first sample. ``"zero"``: 0, so that ``y[0] = x[0]``, as in torchaudio;
            ``"first"``: the first sample, as in HTK and Kaldi, which do this in each frame

    Shape:
        - input: ``[B, C, T]`` or ``[C, T]``
        - output: the same, in the dtype of the input

    Example:
        >>> import torch
        >>> from torchstreamer.audio import Preemphasis
        >>> Preemphasis(0.5)(torch.tensor([[4.0, 4.0]])), Preemphasis(0.5, "first")(torch.tensor([[4.0, 4.0]]))
        (tensor([[4., 2.]]), tensor([[2., 2.]]))
    """

    def __init__(self, coefficient: float = 0.97, initial: str = "zero") -> None:
        super().__init__([1.0, -coefficient])
        if initial not in ("zero", "first"):
            raise ValueError(f"invalid_initial: initial={initial!r} came; 'zero' or 'first' was expected; choose one")
        self.coefficient = coefficient
        self.first = initial == "first"

    def initial(self, x: Tensor) -> List[Tensor]:
        """The sample before the first one, and that it spoils nothing."""
        require_real(x)
        first = x.narrow(2, 0, 1)
        past = torch.nan_to_num(first, 0.0, 0.0, 0.0) if self.first else torch.zeros_like(first)
        return [past, torch.zeros([x.size(0), x.size(1)], dtype=torch.int64, device=x.device)]

    def extra_repr(self) -> str:
        return f"{self.coefficient:g}, initial='{'first' if self.first else 'zero'}'"


@configured
class RemoveDC(LFilter):
    """The constant part of a signal taken out, by a high-pass filter of first order with a low corner.

    The mean of the whole signal is not known to a stream. The filter begins as if the first sample had been there for
    ever, so a constant signal gives 0 from the start on.

    Args:
        fs: sampling rate, in Hz
        cutoff_hz: where it is 3 dB down, in Hz; a lower one takes longer to follow a change

    Shape:
        - input: ``[B, C, T]`` or ``[C, T]``
        - output: the same, in the dtype of the input

    Example:
        >>> import torch
        >>> from torchstreamer.audio import RemoveDC
        >>> bool(RemoveDC(16_000)(torch.full((1, 500), 0.25)).abs().max() < 1e-6)
        True
    """

    def __init__(self, fs: float, cutoff_hz: float = 10.0) -> None:
        if not 0 < cutoff_hz < fs / 2:
            raise ValueError(
                f"invalid_cutoff_hz: {cutoff_hz} Hz at a sampling rate of {fs} Hz came; a frequency between 0 and half "
                "the rate was expected; check both"
            )
        slope = math.tan(math.pi * cutoff_hz / fs)
        gain = 1 / (1 + slope)
        super().__init__([gain, -gain], [1.0, (slope - 1) / (1 + slope)])
        self.gain = gain
        self.fs = fs
        self.cutoff_hz = cutoff_hz

    def initial(self, x: Tensor) -> List[Tensor]:
        """As after the first sample for ever."""
        require_real(x)
        return [-self.gain * x.narrow(2, 0, 1).to(accumulator(x))]

    def extra_repr(self) -> str:
        return f"fs={self.fs:g}, cutoff_hz={self.cutoff_hz:g}"


# Of fades in, for places from 0 to 1; those that torchaudio has.
SHAPES: Dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda u: u,
    "exponential": lambda u: torch.pow(2.0, u - 1) * u,
    "logarithmic": lambda u: torch.log10(0.1 + u) + 1,
    "quarter_sine": lambda u: torch.sin(u * math.pi / 2),
    "half_sine": lambda u: torch.sin(u * math.pi - math.pi / 2) / 2 + 0.5,
}


class Fading(nn.Module):
    """What a fade makes of samples at given places of a signal.

    Args:
        rise: gains of the first samples, and 1
        fall: gains of the last samples, the last one first, and 1
    """

    __jit_ignored_attributes__ = ["_gains"]

    rise: Tensor
    fall: Tensor

    def __init__(self, rise: Tensor, fall: Tensor) -> None:
        super().__init__()
        self._gains = {"rise": rise, "fall": fall}
        self.register_buffer("rise", rise, persistent=False)
        self.register_buffer("fall", fall, persistent=False)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        fading = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if not self.rise.is_meta:  # they are as exact as before, also after halves, or with no memory yet
            for name, gains in self._gains.items():
                self._buffers[name] = gains.to(self.rise.device)
        return fading

    def forward(self, x: Tensor, place: Tensor, length: Tensor) -> Tensor:
        """Samples ``[B, C, n]`` of a signal, louder or softer.

        Args:
            x: the samples
            place: where they stand, ``[n]``, or ``[B, 1, n]``
            length: of the signal, or more
        """
        require_fraction(x)
        left = self.rise[place.clamp(min=0, max=self.rise.size(0) - 1)]
        right = self.fall[(length - 1 - place).clamp(min=0, max=self.fall.size(0) - 1)]
        return x * (left * right).to(x.dtype)


@configured
class Fade(nn.Module):
    """A fade in at the start of a signal and a fade out at its end, as ``torchaudio.transforms.Fade``.

    A stream holds back the samples that fade out, since any may be among the last. In a signal shorter than a fade
    that has its first, or its last, part.

    Args:
        in_length: samples that fade in
        out_length: samples that fade out
        shape: ``"linear"``, ``"exponential"``, ``"logarithmic"``, ``"quarter_sine"`` or ``"half_sine"``

    Shape:
        - input: ``[B, C, T]`` or ``[C, T]``
        - output: the same, in the dtype of the input

    Example:
        >>> import torch
        >>> from torchstreamer.audio import Fade
        >>> Fade(3, 2)(torch.ones(1, 6))
        tensor([[0.0000, 0.5000, 1.0000, 1.0000, 1.0000, 0.0000]])
    """

    def __init__(self, in_length: int = 0, out_length: int = 0, shape: str = "linear") -> None:
        super().__init__()
        if min(in_length, out_length) < 0:
            raise ValueError(
                f"invalid_fade: lengths {in_length} and {out_length} came; 0 samples or more were expected of both; 0 "
                "leaves that end alone"
            )
        gain = SHAPES.get(shape)
        if gain is None:
            raise ValueError(
                f"invalid_shape: shape={shape!r} came; one of {', '.join(SHAPES)} was expected; choose one"
            )
        self.in_length = in_length
        self.out_length = out_length
        self.shape = shape
        one = torch.ones(1, dtype=torch.float64)
        sides = []
        for n in (in_length, out_length):
            rising = gain(torch.linspace(0, 1, n, dtype=torch.float64)).clamp(0, 1)
            sides.append(torch.cat([rising, one]))
        self.fading = Fading(sides[0], sides[1])
        self.held = int((sides[1] != 1).sum())  # last samples that a fade out changes

    def forward(self, x: Tensor) -> Tensor:
        """The whole signal, faded."""
        place = torch.arange(x.size(-1), device=x.device)
        return self.fading(x, place, torch.tensor(x.size(-1), device=x.device))

    def extra_repr(self) -> str:
        return f"{self.in_length}, {self.out_length}, shape={self.shape!r}"


@register_streamer(Fade)
class FadeStream(WindowStream):
    """Stream of a `Fade`.

    Args:
        net: the fade

    Shape:
        - input: ``[B, C, T]`` or ``[C, T]``
        - output: the same

    Example:
        >>> import torch, torchstreamer as pts
        >>> from torchstreamer.audio import Fade
        >>> stream = pts.create_stream(Fade(0, 2))
        >>> stream(torch.ones(1, 3)), stream.flush()
        (tensor([[1., 1.]]), tensor([[0.]]))
    """

    fresh = True
    fading = entry("_modules")
    clock = entry("_modules")

    def __init__(self, net: Fade) -> None:
        require_plain(net, Fade)
        super().__init__(net.held + 1, 1, Reach.window(net.held + 1, right=net.held))
        self.held = net.held
        self.in_length = net.in_length
        self.fading = net.fading
        self.placed = True
        # How many outputs came in each row, no further than the fade in goes.
        self.clock = Cell(["samples"], ["samples"])

    def look(self, window: Tensor, place: Optional[Tensor] = None, length: Optional[Tensor] = None) -> Tensor:
        assert place is not None and length is not None
        return self.fading.forward(window.narrow(2, 0, window.size(2) - self.held), place, length)

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        if x is None:
            if not final or not self.ring.started():
                return None
            x = self.ring.data.new_empty([self.ring.data.size(0), self.ring.data.size(2), 0])
        n = self.ring.held + x.size(2)
        count = n if final else max(n - self.held, 0)
        if count == 0:
            self.ring.push(x)
            return None
        if not self.clock.started():
            self.clock.take([torch.zeros([x.size(0)], dtype=torch.int64, device=x.device)])
        begin = self.clock.rows()[0]
        window = self.ring.join(x)
        place = begin.view([-1, 1, 1]) + torch.arange(count, device=x.device)
        # Samples that come now are no part of the end unless it is there.
        length = begin.view([-1, 1, 1]) + (n if final else n + self.held + 1)
        y = self.fading.forward(window.narrow(2, 0, count), place, length)
        self.clock.take([(begin + count).clamp(max=self.in_length)])
        self.ring.keep(window, count)
        return y

    def output_channels(self, channels: int) -> int:
        """Channels out for channels in."""
        return channels
