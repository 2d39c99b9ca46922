"""Features of sound: spectrograms, mels and their logarithms and cosines, each a sequence of stages."""

from typing import Any, List, Optional, Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.registry import register_streamer, require_plain
from ..core.tracing import settled
from ..errors import StreamInputError
from ..layers.elementwise import PointwiseStream
from ..layers.window import FramesStream
from .bins import DCT, MelScale, bins_first
from .configuring import configured
from .logarithms import DynamicRange, Logarithm
from .shaping import Preemphasis
from .stft import STFT

__all__ = ["MFCC", "LogMel", "Magnitude", "MelSpectrogram", "Spectrogram", "Standardize"]


@configured
class Magnitude(nn.Module):
    """The magnitudes of spectra, to some power: from real and imaginary parts, as `STFT` gives them, to one value each.

    Args:
        power: 1 for magnitudes, 2 for energies; or any other number above 0

    Shape:
        - input: ``[B, 2 · C, K]`` or ``[2 · C, K]``: the real parts of all channels, then the imaginary ones
        - output: ``[B, C, K]`` or ``[C, K]``

    Raises:
        ValueError: a power that is not above 0

    Example:
        >>> import torch
        >>> from torchstreamer.audio import Magnitude
        >>> Magnitude(1.0)(torch.tensor([[3.0], [4.0]])), Magnitude()(torch.tensor([[3.0], [4.0]]))
        (tensor([[5.]]), tensor([[25.]]))
    """

    def __init__(self, power: float = 2.0) -> None:
        super().__init__()
        if not power > 0:
            raise ValueError(f"invalid_power: power={power} came; a number above 0 was expected; 1 for magnitudes")
        self.power = float(power)

    def forward(self, x: Tensor) -> Tensor:
        """The magnitudes."""
        if x.is_complex():
            raise StreamInputError(
                f"invalid_chunk: complex spectra came, {list(x.shape)}; real parts of all channels were expected, then "
                "imaginary ones; leave out return_complex=True, or take x.abs()"
            )
        if x.size(-2) % 2 != 0:
            raise StreamInputError(
                f"invalid_chunk: {x.size(-2)} channels came; an even number was expected, real parts of all channels "
                "and then imaginary ones; check the spectrum before"
            )
        real, imaginary = x.chunk(2, -2)
        return self.of(real, imaginary)

    def of(self, real: Tensor, imaginary: Tensor) -> Tensor:
        """The magnitudes of these numbers."""
        if self.power == 2.0:
            return real.square() + imaginary.square()
        size = torch.hypot(real, imaginary)
        return size if self.power == 1.0 else size.pow(self.power)

    def extra_repr(self) -> str:
        return f"power={self.power}"


@configured
class Standardize(nn.Module):
    """Subtracts a mean and divides by a deviation, which are the same for all signals.

    Normalization by the statistics of the signal itself needs its end; models that stream are trained with those of
    their training data.

    Args:
        mean: a number, or one for each channel, ``[C]``
        deviation: a number, or one for each channel, ``[C]``

    Shape:
        - input: ``[B, C, T]`` or ``[C, T]``
        - output: the same

    Raises:
        ValueError: a deviation of 0 or less

    Example:
        >>> import torch
        >>> from torchstreamer.audio import Standardize
        >>> Standardize(torch.tensor([1.0, 2.0]), 2.0)(torch.tensor([[3.0], [3.0]]))
        tensor([[1.0000],
                [0.5000]])
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Union[float, Sequence[float], Tensor], deviation: Union[float, Sequence[float], Tensor]):
        super().__init__()
        for name, value in (("mean", mean), ("deviation", deviation)):
            numbers = torch.as_tensor(value, dtype=torch.get_default_dtype())
            self.register_buffer(name, numbers.reshape(-1, 1).clone())
        if not bool((self.deviation > 0).all()):
            raise ValueError("invalid_deviation: a deviation of 0 or less came; numbers above 0 were expected")
        self.channels = max(self.mean.size(0), self.deviation.size(0))
        if not {self.mean.size(0), self.deviation.size(0)} <= {1, self.channels}:
            raise ValueError(
                f"invalid_deviation: {self.mean.size(0)} means and {self.deviation.size(0)} deviations came; as many "
                "were expected, or one"
            )

    def forward(self, x: Tensor) -> Tensor:
        """The values, standardized."""
        if self.channels > 1 and x.size(-2) != self.channels:
            raise StreamInputError(
                f"invalid_chunk: {x.size(-2)} channels came; {self.channels} were expected, one for each mean"
            )
        return (x - self.mean) / self.deviation

    def extra_repr(self) -> str:
        if self.channels == 1:
            return f"{self.mean.item():g}, {self.deviation.item():g}"
        return f"channels={self.channels}"


class _Stages(nn.Sequential):
    # A part of the stages is a plain sequence.
    def __getitem__(self, index: Any) -> Any:
        parts = list(self)[index]
        return nn.Sequential(*parts) if isinstance(index, slice) else parts


@configured
class Spectrogram(nn.Module):
    """The magnitudes of short-time spectra, or their energies: an `STFT` and a `Magnitude`.

    Args:
        n_fft: samples of a frame
        win_length: samples of the window; ``n_fft`` by default
        hop_length: samples from one frame to the next; half the window by default, as in torchaudio
        window: as of `STFT`
        power: 1 for magnitudes, 2 for energies
        center: as of `STFT`
        pad_mode: as of `STFT`
        normalized: as of `STFT`
        onesided: as of `STFT`
        padding: as of `STFT`; ``"causal"`` for frames that wait for nothing after their hop

    Shape:
        - input: ``[B, C, T]`` or ``[C, T]``
        - output: ``[B, C · F, K]`` or ``[C · F, K]`` with ``F = n_fft // 2 + 1`` bins

    Raises:
        ValueError: as `STFT`; ``power=None``, which torchaudio has for complex spectra

    Example:
        >>> import torch
        >>> from torchstreamer.audio import Spectrogram
        >>> Spectrogram(400)(torch.randn(1, 1, 16000)).shape
        torch.Size([1, 201, 81])
    """

    def __init__(
        self,
        n_fft: int = 400,
        win_length: Optional[int] = None,
        hop_length: Optional[int] = None,
        window: Union[str, Tensor] = "hann",
        power: float = 2.0,
        center: bool = True,
        pad_mode: str = "reflect",
        normalized: bool = False,
        onesided: bool = True,
        padding: Union[None, str, Tuple[int, int]] = None,
    ) -> None:
        if power is None:
            raise ValueError(
                "invalid_power: power=None came; a number above 0 was expected; for complex spectra use "
                "STFT(return_complex=True)"
            )
        super().__init__()
        hop_length = (n_fft if win_length is None else win_length) // 2 if hop_length is None else hop_length
        self.stft = STFT(n_fft, hop_length, win_length, window, center, pad_mode, normalized, onesided, padding)
        self.magnitude = Magnitude(power)

    def forward(self, x: Tensor) -> Tensor:
        """The spectrogram of the whole signal."""
        y = self.windows(self.stft.padded(x.unsqueeze(0) if x.dim() == 2 else x))
        return y.squeeze(0) if x.dim() == 2 else y

    def windows(self, x: Tensor) -> Tensor:
        """The magnitudes of all frames of padded samples."""
        return bins_first(self.frames(x)).to(x.dtype)

    def frames(self, x: Tensor) -> Tensor:
        """The same, ``[B, C, K, F]``."""
        bins = self.stft.transformed(self.stft.tapered(x))
        if self.magnitude.power == 2.0 and settled():
            return (bins * bins.conj()).real  # in one pass; compilers fuse the other form
        return self.magnitude.of(bins.real, bins.imag)


@configured
class MelSpectrogram(nn.Module):
    """A spectrogram in mels: a `Spectrogram` and a `MelScale`.

    Args:
        sample_rate: in Hz
        n_fft: samples of a frame
        win_length: samples of the window; ``n_fft`` by default
        hop_length: samples from one frame to the next; half the window by default, as in torchaudio
        f_min: lower end of the first filter, in Hz
        f_max: upper end of the last one, in Hz; half of the sample rate by default
        n_mels: number of filters
        window: as of `STFT`
        power: 1 for magnitudes, 2 for energies
        normalized: as of `STFT`
        center: as of `STFT`
        pad_mode: as of `STFT`
        norm: ``"slaney"`` or ``None``; see `mel_filters`
        mel_scale: ``"htk"``, as in torchaudio, or ``"slaney"``, as in librosa
        padding: as of `STFT`; ``"causal"`` for frames that wait for nothing after their hop

    Shape:
        - input: ``[B, C, T]`` or ``[C, T]``
        - output: ``[B, C · n_mels, K]`` or ``[C · n_mels, K]``

    Raises:
        ValueError: as `STFT` and `mel_filters`

    Example:
        >>> import torch
        >>> from torchstreamer.audio import MelSpectrogram
        >>> MelSpectrogram(16000, n_fft=512, hop_length=160, n_mels=80)(torch.randn(1, 1, 8000)).shape
        torch.Size([1, 80, 51])
    """

    def __init__(
        self,
        sample_rate: float = 16000,
        n_fft: int = 400,
        win_length: Optional[int] = None,
        hop_length: Optional[int] = None,
        f_min: float = 0.0,
        f_max: Optional[float] = None,
        n_mels: int = 128,
        window: Union[str, Tensor] = "hann",
        power: float = 2.0,
        normalized: bool = False,
        center: bool = True,
        pad_mode: str = "reflect",
        norm: Optional[str] = None,
        mel_scale: str = "htk",
        padding: Union[None, str, Tuple[int, int]] = None,
    ) -> None:
        super().__init__()
        self.spectrogram = Spectrogram(
            n_fft, win_length, hop_length, window, power, center, pad_mode, normalized, True, padding
        )
        self.mels = MelScale(n_fft, sample_rate, n_mels, f_min, f_max, mel_scale, norm)
        self.stft = self.spectrogram.stft

    def forward(self, x: Tensor) -> Tensor:
        """The mel spectrogram of the whole signal."""
        y = self.windows(self.stft.padded(x.unsqueeze(0) if x.dim() == 2 else x))
        return y.squeeze(0) if x.dim() == 2 else y

    def windows(self, x: Tensor) -> Tensor:
        """The mels of all frames of padded samples."""
        frames = self.spectrogram.frames(x)
        return bins_first(F.linear(frames, self.mels.filters.to(frames.dtype))).to(x.dtype)


@configured
class LogMel(_Stages):
    """The logarithm of a mel spectrogram, as recognisers take it. `whisper` and `nemo` are the two usual ones.

    Args:
        mels: the mel spectrogram
        logarithm: what is taken of it
        range: how far below the maximum values are raised to, in the logarithm's units; ``None`` leaves them
        maximum: a number or ``"running"``; see `DynamicRange`. ``"whole"`` is refused
        mean: subtracted at last, one number or one for each mel
        deviation: divided by at last

    Shape:
        - input: ``[B, C, T]`` or ``[C, T]``
        - output: ``[B, C · n_mels, K]`` or ``[C · n_mels, K]``

    Raises:
        ValueError: as `DynamicRange` and `Standardize`

    Example:
        >>> import torch, torchstreamer as pts
        >>> from torchstreamer.audio import LogMel
        >>> stream = pts.create_stream(LogMel.whisper(80, maximum=1.5))
        >>> stream(torch.randn(1, 1, 1600)).shape, stream.flush().shape
        (torch.Size([1, 80, 9]), torch.Size([1, 80, 1]))
    """

    def __init__(
        self,
        mels: nn.Module,
        logarithm: Logarithm,
        range: Optional[float] = None,
        maximum: Union[float, str] = "running",
        mean: Union[float, Tensor] = 0.0,
        deviation: Union[float, Tensor] = 1.0,
    ) -> None:
        stages: List[nn.Module] = [mels, logarithm]
        if range is not None:
            stages.append(DynamicRange(range, maximum))
        scaled = isinstance(mean, Tensor) or isinstance(deviation, Tensor) or mean != 0 or deviation != 1
        super().__init__(*stages, *([Standardize(mean, deviation)] if scaled else []))

    @classmethod
    def whisper(cls, n_mels: int = 80, maximum: Union[float, str] = 1.5) -> "LogMel":
        """Whisper's features of sound at 16 kHz: 25 ms every 10 ms, base 10, at most 8 below a maximum.

        At last ``(x + 4) / 4``. Whisper takes the maximum of the whole recording. ``maximum`` stands for it: a number,
        of the base-10 logarithm (1.5 is that of models that were trained on streams), or ``"running"``. Where it is the
        maximum of a recording, the features are Whisper's own.

        Args:
            n_mels: 80, or 128 for the large models from version 3 on
            maximum: a number or ``"running"``
        """
        # Whisper computes a frame more than it keeps.
        mels = MelSpectrogram(
            16000, 400, None, 160, n_mels=n_mels, norm="slaney", mel_scale="slaney", padding=(200, 200 - 160)
        )
        return cls(mels, Logarithm("log10", 1e-10), 8.0, maximum, -4.0, 4.0)

    @classmethod
    def nemo(
        cls,
        n_mels: int = 80,
        sample_rate: int = 16000,
        mean: Union[float, Tensor] = 0.0,
        deviation: Union[float, Tensor] = 1.0,
    ) -> "LogMel":
        """The features of NeMo's streaming recognisers, with ``normalize: NA``.

        Pre-emphasis of 0.97, a symmetric window of 25 ms every 10 ms, the natural logarithm of ``x + 2 ** -24``.
        NeMo's other models are normalised by the statistics of the whole recording; give ``mean`` and ``deviation`` of
        your data in their place.

        Args:
            n_mels: number of filters
            sample_rate: in Hz
            mean: subtracted at last
            deviation: divided by at last
        """
        win_length, hop_length = sample_rate // 40, sample_rate // 100
        n_fft = 1 << (win_length - 1).bit_length()
        mels = MelSpectrogram(
            sample_rate,
            n_fft,
            win_length,
            hop_length,
            n_mels=n_mels,
            window="symmetric_hann",
            pad_mode="constant",
            norm="slaney",
            mel_scale="slaney",
            padding=(n_fft // 2, n_fft // 2 - hop_length),
        )
        return cls(nn.Sequential(Preemphasis(0.97), mels), Logarithm("ln", 2**-24, "add"), None, 0.0, mean, deviation)


@configured
class MFCC(_Stages):
    """Mel-frequency cepstral coefficients: a cosine transform of the logarithms of mels.

    As torchaudio's, but for its ``top_db``, which cuts at 80 dB below the maximum of the whole recording: give a
    ``range`` and a ``maximum`` instead.

    Args:
        sample_rate: in Hz
        n_mfcc: coefficients
        norm: ``"ortho"`` or ``None``; see `DCT`
        log_mels: whether it takes the natural logarithm of mels and 1e-6, or decibels
        range: how far below the maximum values are raised to, in decibels; ``None`` leaves them
        maximum: a number or ``"running"``; see `DynamicRange`
        mels: further arguments of `MelSpectrogram`

    Shape:
        - input: ``[B, C, T]`` or ``[C, T]``
        - output: ``[B, C · n_mfcc, K]`` or ``[C · n_mfcc, K]``

    Raises:
        ValueError: more coefficients than mels; ``top_db``

    Example:
        >>> import torch
        >>> from torchstreamer.audio import MFCC
        >>> MFCC(16000, n_mfcc=13, n_mels=40)(torch.randn(1, 1, 16000)).shape
        torch.Size([1, 13, 81])
    """

    def __init__(
        self,
        sample_rate: float = 16000,
        n_mfcc: int = 40,
        norm: Optional[str] = "ortho",
        log_mels: bool = False,
        range: Optional[float] = None,
        maximum: Union[float, str] = "running",
        **mels: Any,
    ) -> None:
        if "top_db" in mels:
            raise ValueError(
                "whole_maximum: top_db came; range= and maximum= were expected, as the maximum of the whole signal is "
                "not known before its end; give the maximum of your recordings, or 'running'"
            )
        spectrogram = MelSpectrogram(sample_rate, **mels)
        logarithm = Logarithm("ln", 1e-6, "add") if log_mels else Logarithm("db_power")
        limit = [] if range is None else [DynamicRange(range, maximum)]
        super().__init__(spectrogram, logarithm, *limit, DCT(spectrogram.mels.n_mels, n_mfcc, norm))


class SpectrogramStream(FramesStream):
    """Stream of a `Spectrogram` or a `MelSpectrogram`, in one step."""

    fresh = True

    def __init__(self, net: Union[Spectrogram, MelSpectrogram]) -> None:
        require_plain(net, Spectrogram, MelSpectrogram)
        stft = net.stft
        super().__init__(net, stft.win_length, stft.hop_length, stft.around())
        self.outputs = net.mels.n_mels if isinstance(net, MelSpectrogram) else stft.bins

    def anchor(self) -> Optional[Tensor]:
        """The table says dtype and device."""
        return self.net.stft.taper.values

    def output_channels(self, channels: int) -> int:
        """Channels out for channels in."""
        return channels if channels == -1 else channels * self.outputs


for _kind in (Spectrogram, MelSpectrogram):
    register_streamer(_kind, SpectrogramStream)
register_streamer(Magnitude, lambda net: PointwiseStream(net, groups=2, halves=True))
register_streamer(Standardize, lambda net: PointwiseStream(net, net.channels if net.channels > 1 else -1))
