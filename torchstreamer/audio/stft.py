"""The short-time Fourier transform. TorchScript compiles this file."""

from typing import Iterator, Optional, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.fast_attributes import entry
from ..core.reach import Reach
from ..core.registry import register_streamer, require_plain
from ..errors import StreamInputError
from ..layers.padding import Pad1dStream
from ..layers.window import WindowStream
from .spectrum import Spectrum

__all__ = ["STFT", "STFTStream"]

_MODES = ("reflect", "constant", "replicate")


class STFT(Spectrum):
    """The short-time Fourier transform: spectra of overlapping frames, as `torch.stft` computes them.

    Frames are samples in time and bins are channels, so that layers such as ``Conv1d`` take them. Real parts and
    imaginary parts are channels of their own: real ones of all bins first, then the imaginary ones, so
    ``real, imaginary = y.chunk(2, 1)``. Of ``C`` channels each has its bins side by side. With ``return_complex=True``
    channels are complex bins, which is the layout of `torch.stft` itself.

    Args:
        n_fft: samples of a frame
        hop_length: samples from one frame to the next; ``n_fft // 4`` by default
        win_length: samples of the window, which stands in the middle of the frame; ``n_fft`` by default
        window: ``"hann"``, ``"sqrt_hann"``, ``"hamming"``, ``"blackman"`` or ``"ones"``, all periodic, or a tensor
            ``[win_length]``
        center: whether ``n_fft // 2`` samples are padded on both sides, so that frame ``k`` has sample
            ``k · hop_length`` in its middle
        pad_mode: ``"reflect"``, ``"constant"`` or ``"replicate"``
        normalized: whether spectra are divided by the square root of ``n_fft``
        onesided: whether the ``n_fft // 2 + 1`` bins up to half the sampling rate are given, or all ``n_fft``
        padding: samples padded before and after the signal instead of what ``center`` says; ``"causal"`` stands for
            ``(n_fft - hop_length, 0)``, with which frame ``k`` ends with sample ``(k + 1) · hop_length - 1``, so no
            frame waits for what comes after its hop. Use it with ``pad_mode="constant"``
        return_complex: whether the output is complex

    Shape:
        - input: ``[B, C, T]`` or ``[C, T]``
        - output: ``[B, 2 · C · F, K]`` or ``[2 · C · F, K]`` with ``F`` bins; complex ``[B, C · F, K]`` or
          ``[C · F, K]`` with ``return_complex``. ``K = 1 + (T + padding - n_fft) // hop_length`` frames

    Raises:
        ValueError: lengths, window, padding or mode do not fit
        StreamInputError: the signal is too short to have a frame, or to be reflected

    Example:
        >>> import torch
        >>> from torchstreamer.audio import STFT
        >>> x = torch.randn(1, 1, 400)
        >>> real, imaginary = STFT(64, 16)(x).chunk(2, 1)
        >>> window = torch.hann_window(64)
        >>> expected = torch.stft(x[:, 0], 64, 16, window=window, return_complex=True)
        >>> torch.testing.assert_close(torch.complex(real, imaginary), expected)
    """

    __constants__ = [*Spectrum.__constants__, "pad_mode", "return_complex", "least"]

    def __init__(
        self,
        n_fft: int,
        hop_length: Optional[int] = None,
        win_length: Optional[int] = None,
        window: Union[str, Tensor] = "hann",
        center: bool = True,
        pad_mode: str = "reflect",
        normalized: bool = False,
        onesided: bool = True,
        padding: Union[None, str, Tuple[int, int]] = None,
        return_complex: bool = False,
    ) -> None:
        super().__init__(n_fft, hop_length, win_length, window, center, normalized, onesided, padding)
        if pad_mode not in _MODES:
            raise ValueError(
                f"invalid_pad_mode: pad_mode={pad_mode!r} came; one of {', '.join(map(repr, _MODES))} was expected; "
                "circular padding needs the end of the signal first"
            )
        self.pad_mode = pad_mode
        self.return_complex = return_complex
        reflected = max(self.padding) + 1 if pad_mode == "reflect" else 1
        self.least = max(self.n_fft - sum(self.padding), reflected, 1)  # samples of the shortest signal with a frame

    def forward(self, x: Tensor) -> Tensor:
        """The spectra of the whole signal."""
        rows = x.unsqueeze(0) if x.dim() == 2 else x
        if rows.size(2) < self.least:
            raise StreamInputError(
                f"invalid_chunk: a signal of {rows.size(2)} samples came; at least {self.least} were expected; pad it, "
                "or take a smaller n_fft or pad_mode='constant'"
            )
        if self.left < 0 or self.right < 0:  # a crop
            rows = F.pad(rows, [min(self.left, 0), min(self.right, 0)])
        if self.left > 0 or self.right > 0:
            rows = F.pad(rows, [max(self.left, 0), max(self.right, 0)], self.pad_mode)
        y = self.spectra(rows)
        return y.squeeze(0) if x.dim() == 2 else y

    def spectra(self, x: Tensor) -> Tensor:
        """The spectra of all frames of padded samples, of which each has ``win_length``."""
        frames = x.unfold(2, self.win_length, self.hop_length) * self.taper.values
        if self.before > 0 or self.after > 0:
            frames = F.pad(frames, [self.before, self.after])
        bins = torch.fft.rfft(frames, norm=self.norm) if self.onesided else torch.fft.fft(frames, norm=self.norm)
        if self.return_complex:
            return bins.transpose(2, 3).reshape(x.size(0), -1, bins.size(2))
        return torch.view_as_real(bins).permute(0, 4, 1, 3, 2).reshape(x.size(0), -1, bins.size(2))

    def extra_repr(self) -> str:
        text = super().extra_repr()
        text += "" if self.pad_mode == "reflect" else f", pad_mode={self.pad_mode!r}"
        return text + (", return_complex=True" if self.return_complex else "")


@register_streamer(STFT)
class STFTStream(WindowStream):
    """Stream of an `STFT`. A frame comes with the last sample that its window sees.

    Args:
        net: the `STFT`

    Shape:
        - input: ``[B, C, T]`` or ``[C, T]``
        - output: as of `STFT`

    Example:
        >>> import torch, torchstreamer as pts
        >>> from torchstreamer.audio import STFT
        >>> net, x = STFT(64, 16), torch.randn(1, 1, 400)
        >>> stream = pts.create_stream(net)
        >>> y = [stream(chunk) for chunk in x.split(37, -1)] + [stream.flush()]
        >>> torch.testing.assert_close(torch.cat([each for each in y if each is not None], -1), net(x))
    """

    fresh = True
    net = entry("_modules")

    def __init__(self, net: STFT) -> None:
        require_plain(net, STFT)
        reach = Reach.window(net.win_length, net.hop_length)
        pad = None
        if net.left != 0 or net.right != 0:
            mode = net.pad_mode if max(net.left, net.right) > 0 else "constant"
            pad = Pad1dStream(net.left, net.right, mode, shortest=net.least if mode == "reflect" else None)
            reach = reach.padded(pad.reach)
        super().__init__(net.win_length, net.hop_length, reach)
        self.net = net
        self.pad = pad
        self.keeps_dtype = not net.return_complex

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        if self.pad is not None:
            x = self.pad.step(x, final)
        if x is None:
            return None
        ring = self.ring
        count = self.ready(x.size(2))
        if count == 0:
            ring.push(x)
            return None
        window = ring.join(x)
        y = self.look(window.narrow(2, 0, (count - 1) * self.stride + self.field))
        ring.keep(window, count * self.stride)
        return y

    def look(self, window: Tensor) -> Tensor:
        """The spectra of all frames."""
        return self.net.spectra(window)

    def around(self) -> Optional[Pad1dStream]:
        """The padding."""
        return self.pad

    def taps(self, n: int, m: int) -> Iterator[Tensor]:
        """Which inputs the outputs are computed from; see `BaseStream.taps`."""
        taps = super().taps(n, m)
        return taps if self.pad is None else (self.pad.source(tap, n) for tap in taps)

    def output_channels(self, channels: int) -> int:
        """Channels out for channels in."""
        parts = self.net.bins if self.net.return_complex else 2 * self.net.bins
        return channels if channels == -1 else channels * parts

    def output_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Complex if that is asked for."""
        return dtype.to_complex() if self.net.return_complex else dtype

    def anchor(self) -> Optional[Tensor]:
        """The window says dtype and device."""
        return self.net.taper.values

    def extra_repr(self) -> str:
        return self.net.extra_repr()
