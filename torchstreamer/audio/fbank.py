"""Kaldi's filter banks."""

import math
from typing import Optional, Tuple

import torch
from torch import Tensor

from ..core.registry import register_streamer, require_plain
from ..errors import StreamInputError
from ..layers.padding import Pad1dStream
from ..layers.samples import require_signal
from ..layers.window import FramesStream
from .bins import bins_first
from .configuring import configured
from .fourier import rfft_parts
from .mel import mel_filters
from .tables import Tabled

__all__ = ["KaldiFbank"]

_WINDOWS = ("povey", "hamming", "hanning", "blackman", "rectangular")


@configured
class KaldiFbank(Tabled):
    """Kaldi's filter banks, as its ``compute-fbank-feats``, `kaldi-native-fbank` and torchaudio's compliance give them.

    Frames of 25 ms every 10 ms, each by itself: its mean taken off, pre-emphasis in the frame, a window, the power
    spectrum of the next power of two, triangles that are straight over mels, the logarithm. There is no dither, which
    is random; Kaldi's is off for ``dither=0``.

    Args:
        sample_rate: in Hz
        n_mels: number of filters
        frame_length: in milliseconds
        frame_shift: in milliseconds
        low_freq: lower end of the first filter, in Hz
        high_freq: upper end of the last one, in Hz; 0 or less counts from half of the sample rate
        preemphasis: share of the sample before that is taken off, 0 to 1
        window: ``"povey"``, ``"hamming"``, ``"hanning"``, ``"blackman"`` or ``"rectangular"``
        remove_dc: whether the mean of each frame is taken off
        snip_edges: ``True``: only frames that lie within the signal; ``False``: a frame for every shift, with the
            edges mirrored
        power: whether it takes the power of the spectrum, or its magnitude
        log: whether it takes the logarithm, of at least 1.19e-7
        scale: factor of the samples. Kaldi's models are trained on samples from -32768 to 32767: with samples from -1
            to 1 take 32768

    Shape:
        - input: ``[B, C, T]`` or ``[C, T]``
        - output: ``[B, C · n_mels, K]`` or ``[C · n_mels, K]``

    Raises:
        ValueError: another window, frequencies or lengths out of range
        StreamInputError: a signal too short to mirror, without ``snip_edges``

    Example:
        >>> import torch
        >>> from torchstreamer.audio import KaldiFbank
        >>> KaldiFbank(16000, n_mels=80, scale=32768)(torch.randn(1, 16000)).shape
        torch.Size([80, 98])
    """

    window: Tensor
    filters: Tensor

    def __init__(
        self,
        sample_rate: float = 16000,
        n_mels: int = 80,
        frame_length: float = 25.0,
        frame_shift: float = 10.0,
        low_freq: float = 20.0,
        high_freq: float = 0.0,
        preemphasis: float = 0.97,
        window: str = "povey",
        remove_dc: bool = True,
        snip_edges: bool = True,
        power: bool = True,
        log: bool = True,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.length = int(sample_rate * 0.001 * frame_length)
        self.shift = int(sample_rate * 0.001 * frame_shift)
        if self.length < 2 or self.shift < 1:
            raise ValueError(
                f"invalid_frames: frames of {self.length} samples every {self.shift} came; 2 and 1 were expected at "
                "least; check sample_rate, frame_length and frame_shift, which are in milliseconds"
            )
        if window not in _WINDOWS:
            raise ValueError(
                f"invalid_window: window={window!r} came; one of {', '.join(map(repr, _WINDOWS))} was expected"
            )
        if not 0 <= preemphasis <= 1:
            raise ValueError(f"invalid_preemphasis: preemphasis={preemphasis} came; 0 to 1 was expected")
        self.n_fft = 1 << (self.length - 1).bit_length()
        self.n_mels = n_mels
        self.preemphasis, self.remove_dc, self.scale = float(preemphasis), remove_dc, float(scale)
        self.power, self.log, self.snip_edges = power, log, snip_edges
        self.floor = torch.finfo(torch.float32).eps
        self.pads = (0, 0) if snip_edges else self._mirrored()
        high = high_freq if high_freq > 0 else sample_rate / 2 + high_freq
        bins = self.n_fft // 2 + 1
        filters = mel_filters(bins, sample_rate, n_mels, low_freq, high, "kaldi", slopes="mel")
        filters[:, -1] = 0  # Kaldi leaves out the bin of half the sample rate
        self.table("filters", filters)
        self.table("window", _window(window, self.length))
        self.about = f"{sample_rate}, n_mels={n_mels}, window={window!r}, snip_edges={snip_edges}"

    def _mirrored(self) -> Tuple[int, int]:
        # Frame k stands around (k + 1/2) · shift, and there are floor((T + shift / 2) / shift).
        left = self.length // 2 - self.shift // 2
        right = self.length - self.shift + self.shift // 2 - left
        return left, right

    def forward(self, x: Tensor) -> Tensor:
        """The filter banks of the whole signal."""
        require_signal(x)
        rows = x.unsqueeze(0) if x.dim() == 2 else x
        left, right = self.pads
        if left > 0 or right > 0:
            rows = _mirror(rows, left, right)
        if rows.size(2) < self.length:
            y = rows.new_zeros([rows.size(0), rows.size(1) * self.n_mels, 0])
        else:
            y = self.windows(rows)
        return y.squeeze(0) if x.dim() == 2 else y

    def windows(self, x: Tensor) -> Tensor:
        """One frame per window of these samples, ``[B, C, n]``."""
        frames = x.unfold(2, self.length, self.shift)
        if self.scale != 1.0:
            frames = frames * self.scale
        if self.remove_dc:
            frames = frames - frames.mean(3, keepdim=True)
        if self.preemphasis != 0.0:
            before = torch.cat([frames[..., :1], frames[..., :-1]], 3)
            frames = frames - self.preemphasis * before
        real, imaginary = rfft_parts(frames * self.window, self.n_fft)
        energy = real.square() + imaginary.square()
        if not self.power:
            energy = energy.sqrt()
        mels = torch.matmul(energy, self.filters.t().to(energy.dtype))
        if self.log:
            mels = mels.clamp(min=self.floor).log()
        return bins_first(mels).to(x.dtype)

    def extra_repr(self) -> str:
        return self.about


def _window(name: str, length: int) -> Tensor:
    phase = 2 * math.pi / (length - 1) * torch.arange(length, dtype=torch.float64)
    if name == "hamming":
        return 0.54 - 0.46 * phase.cos()
    if name == "blackman":
        return 0.42 - 0.5 * phase.cos() + 0.08 * (2 * phase).cos()
    if name == "rectangular":
        return torch.ones_like(phase)
    hanning = 0.5 - 0.5 * phase.cos()
    return hanning**0.85 if name == "povey" else hanning


def _mirror(x: Tensor, left: int, right: int) -> Tensor:
    if x.size(2) < max(left, right):
        raise StreamInputError(
            f"invalid_chunk: a signal of {x.size(2)} samples came; at least {max(left, right)} were expected, as many "
            "as are mirrored at the edges; pad the signal, or take snip_edges=True"
        )
    start = x[:, :, : max(left, 0)].flip([2])
    end = x[:, :, x.size(2) - right :].flip([2]) if right > 0 else x[:, :, :0]
    if left < 0:
        x = x[:, :, -left:]
    return torch.cat([start, x, end], 2)


class KaldiFbankStream(FramesStream):
    """Stream of `KaldiFbank`."""

    def __init__(self, net: KaldiFbank) -> None:
        require_plain(net, KaldiFbank)
        left, right = net.pads
        pad = None if net.snip_edges else Pad1dStream(left, right, "symmetric")
        super().__init__(net, net.length, net.shift, pad)

    def anchor(self) -> Optional[Tensor]:
        """The table says dtype and device."""
        return self.net.window

    def output_channels(self, channels: int) -> int:
        """Channels out for channels in."""
        return channels if channels == -1 else channels * self.net.n_mels


register_streamer(KaldiFbank, KaldiFbankStream)
