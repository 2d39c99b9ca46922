"""Magnitudes of short-time spectra, and mels of them."""

from typing import Optional, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.registry import register_streamer, require_plain
from ..core.tracing import settled
from ..errors import StreamInputError
from ..layers.elementwise import PointwiseStream
from ..layers.window import FramesStream
from .bins import MelScale, bins_first
from .configuring import configured
from .stft import STFT

__all__ = ["Magnitude", "MelSpectrogram", "Spectrogram"]


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
        frames = self.stft.tapered(x)
        if self.magnitude.power == 2.0 and settled():
            bins = self.stft.transformed(frames)
            return (bins * bins.conj()).real  # in one pass; compilers fuse the other form
        real, imaginary = self.stft.parts(frames)
        return self.magnitude.of(real, imaginary)


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
