"""Resampling: another number of samples per second. TorchScript compiles this file."""

import math
from functools import lru_cache
from typing import Any, Optional, Tuple

import torch.nn.functional as F
from torch import Tensor, nn
from torch.jit import is_scripting

from ..core.reach import Reach
from ..core.registry import register_streamer, require_plain
from ..core.whole_numbers import whole_number
from ..errors import StreamInputError
from ..layers.filter_bank import FilterBank
from ..layers.polyphase import PolyphaseStream
from ..layers.samples import require_real
from .configuring import configured
from .sinc import METHODS, sinc_filters

__all__ = ["Resample", "ResampleStream", "resample"]

_BETA = 14.769656459379492


@configured
class Resample(nn.Module):
    r"""Resampling by windowed sinc interpolation, as `torchaudio.functional.resample` defines it, and exactly that.

    With the rates in lowest terms, ``o`` to ``n``, and :math:`b = \min(o, n) · rolloff`, output ``j`` is

    .. code-block:: text

        y[j] = Σ_m x[m] · b/o · sinc(t) · window(t)        t = b · (m/o - j/n),  |t| < lowpass_filter_width

    with ``cos²(π t / 2w)`` or the Kaiser window, and zeros around the signal. Any two rates will do: 44100 to 48001 Hz
    costs about as much as to 48000, and takes some megabytes. The filters are computed in float64, for each dtype of
    signals anew; halves are computed in float32. An output uses the samples within the window and no others: a
    ``nan`` spoils some 12 outputs, not a period of the rates. Equal rates give a copy.

    Source of the definition: torchaudio 2.11, whose own filters for float32 are computed in float32, and so are off by
    up to 1e-5; see also J. O. Smith, "Digital Audio Resampling".

    Args:
        source_fs: sample rate of the input, in Hz
        target_fs: sample rate of the output, in Hz
        resampling_method: the window, ``"sinc_interp_hann"`` or ``"sinc_interp_kaiser"``
        lowpass_filter_width: zeros of the sinc on either side, from 1 on: more make a sharper filter that looks
            further ahead, so many samples at the lower of the two rates, by the roll-off
        rolloff: where the filter cuts off, as a part of the lower of the two Nyquist frequencies; above 0 and up to 1
        beta: shape of the Kaiser window, from 0 on; ``None`` for the default

    Shape:
        - input: ``[B, C, T]``, ``[C, T]`` or ``[T]``, at ``source_fs``
        - output: the same, with ``ceil(T · target_fs / source_fs)`` samples, at ``target_fs``

    Raises:
        StreamInputError: a rate or the filter width is no whole number from 1 on, another argument is not as above, or
            the samples are whole numbers

    Example:
        >>> import torch, torchstreamer as pts
        >>> from torchstreamer.audio import Resample
        >>> net, x = Resample(44100, 48000), torch.randn(2, 44100)
        >>> stream = pts.create_stream(net)
        >>> y = [stream(chunk) for chunk in x.split(441, -1)] + [stream.flush()]
        >>> torch.testing.assert_close(torch.cat(y, -1), net(x))
        >>> net(x).shape, stream.output_length(441, final=False)
        (torch.Size([2, 48000]), 474)
    """

    def __init__(
        self,
        source_fs: int,
        target_fs: int,
        resampling_method: str = "sinc_interp_hann",
        lowpass_filter_width: int = 6,
        rolloff: float = 0.99,
        beta: Optional[float] = _BETA,
    ) -> None:
        super().__init__()
        self.source_fs, self.target_fs = whole_number(source_fs, "source_fs"), whole_number(target_fs, "target_fs")
        self.resampling_method = resampling_method
        self.lowpass_filter_width = whole_number(lowpass_filter_width, "lowpass_filter_width")
        self.rolloff, self.beta = _shape_of(resampling_method, rolloff, beta)
        common = math.gcd(self.source_fs, self.target_fs)
        self.up, self.down = self.target_fs // common, self.source_fs // common
        self.bank = FilterBank(*self._filters())

    def _filters(self) -> Tuple[Reach, Tensor]:
        method, width = self.resampling_method, self.lowpass_filter_width
        return sinc_filters(self.up, self.down, method, width, self.rolloff, self.beta)

    def forward(self, x: Tensor) -> Tensor:
        """The signal at the other rate."""
        require_real(x)
        if not is_scripting():
            if x.dim() == 0:
                raise StreamInputError(
                    "invalid_signal: a number came; a signal [B, C, T], [C, T] or [T] was expected; give it an axis of "
                    "time"
                )
        size = list(x.size())
        count = -((-x.size(-1) * self.up) // self.down)
        if count == 0 or x.numel() == 0:
            return x.new_empty(size[:-1] + [count])
        if self.up == self.down:
            return x.clone()
        bank = self.bank
        left = -bank.oldest(0)
        right = bank.newest(count - 1) + 1 - x.size(-1)
        rows = F.pad(x.reshape(1, -1, x.size(-1)), [left, right])
        return bank(rows, 0, count).view(size[:-1] + [count])

    def extra_repr(self) -> str:
        return _described(self)


@register_streamer(Resample)
class ResampleStream(PolyphaseStream):
    """Resampling of a signal that comes in pieces: stream of a `Resample`, which says what is computed.

    An output comes with its last input: ``lowpass_filter_width`` samples at the lower of the two rates after its place,
    or more by the roll-off, so 0.14 ms from 44100 to 48000 Hz. Chunks may have any length.

    Args:
        source_fs: sample rate of the input, in Hz; or a `Resample`, alone
        target_fs: sample rate of the output, in Hz
        resampling_method: the window, ``"sinc_interp_hann"`` or ``"sinc_interp_kaiser"``
        lowpass_filter_width: zeros of the sinc on either side
        rolloff: where the filter cuts off, as a part of the lower of the two Nyquist frequencies
        beta: shape of the Kaiser window

    Shape:
        - input: ``[B, C, T]``, ``[C, T]`` or ``[T]``
        - output: the same, at the other rate

    Raises:
        StreamInputError: an argument is not as `Resample` takes it

    Example:
        >>> import torch
        >>> from torchstreamer.audio import ResampleStream
        >>> stream = ResampleStream(16000, 8000)
        >>> stream(torch.zeros(160)).shape, stream.flush().shape
        (torch.Size([74]), torch.Size([6]))
    """

    def __init__(
        self,
        source_fs: Any,
        target_fs: Optional[int] = None,
        resampling_method: str = "sinc_interp_hann",
        lowpass_filter_width: int = 6,
        rolloff: float = 0.99,
        beta: Optional[float] = _BETA,
    ) -> None:
        net: Any = source_fs
        if isinstance(net, nn.Module):
            require_plain(net, Resample)
        else:
            net = Resample(source_fs, target_fs, resampling_method, lowpass_filter_width, rolloff, beta)  # type: ignore[arg-type]
        super().__init__(net._filters()[0], net.bank)
        self._takes_line = True
        self.settings = _described(net)

    def extra_repr(self) -> str:
        return self.settings


def resample(
    x: Tensor,
    source_fs: int,
    target_fs: int,
    resampling_method: str = "sinc_interp_hann",
    lowpass_filter_width: int = 6,
    rolloff: float = 0.99,
    beta: Optional[float] = _BETA,
) -> Tensor:
    """A whole signal at another sample rate; see `Resample` for what is computed.

    The filters of the last few pairs of rates are kept.

    Args:
        x: ``[B, C, T]``, ``[C, T]`` or ``[T]``
        source_fs: its sample rate, in Hz
        target_fs: sample rate of the output, in Hz
        resampling_method, lowpass_filter_width, rolloff, beta: of the filter

    Returns:
        the signal, with ``ceil(T · target_fs / source_fs)`` samples

    Raises:
        StreamInputError: an argument is not as `Resample` takes it

    Example:
        >>> import torch
        >>> from torchstreamer.audio import resample
        >>> resample(torch.zeros(2, 44100), 44100, 16000).shape
        torch.Size([2, 16000])
    """
    return _resampler(source_fs, target_fs, resampling_method, lowpass_filter_width, rolloff, beta)(x)


@lru_cache(maxsize=8)
def _resampler(*settings: Any) -> Resample:
    return Resample(*settings)


def _shape_of(method: str, rolloff: float, beta: Optional[float]) -> Tuple[float, float]:
    if method not in METHODS:
        raise StreamInputError(
            f"invalid_resampling_method: resampling_method={method!r} came; one of {', '.join(map(repr, METHODS))} was "
            "expected; choose one"
        )
    cut, shape = _number(rolloff), _BETA if beta is None else _number(beta)
    if not 0 < cut <= 1:
        raise StreamInputError(
            f"invalid_rolloff: rolloff={rolloff!r} came; a part of the Nyquist frequency was expected, above 0 and up "
            "to 1; such as 0.99"
        )
    if not 0 <= shape < math.inf:
        raise StreamInputError(
            f"invalid_beta: beta={beta!r} came; a number from 0 on was expected; 14.77 is a usual one"
        )
    return cut, shape


def _number(value: Any) -> float:
    try:
        return math.nan if isinstance(value, (bool, str)) else float(value)
    except (TypeError, ValueError):
        return math.nan


def _described(net: Resample) -> str:
    text = f"{net.source_fs}, {net.target_fs}, {net.resampling_method!r}"
    text += f", lowpass_filter_width={net.lowpass_filter_width}, rolloff={net.rolloff:g}"
    return text + (f", beta={net.beta:g}" if net.resampling_method == METHODS[1] else "")
