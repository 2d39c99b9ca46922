"""The inverse short-time Fourier transform. TorchScript compiles this file."""

from typing import Optional, Tuple, Union

import torch
from torch import Tensor, nn

from ..core.describe import describe
from ..core.registry import create_stream, register_streamer, require_plain
from ..core.stream import BaseStream
from ..errors import StreamInputError
from ..layers.accumulating import working
from ..layers.elementwise import PointwiseStream
from ..layers.overlap_add import OverlapAdd1d
from .configuring import configured
from .fourier import irfft
from .spectrum import Spectrum

__all__ = ["ISTFT"]


@configured
class ISTFT(Spectrum):
    """The inverse short-time Fourier transform: the signal whose spectra are nearest to these, as `torch.istft` has it.

    Every spectrum becomes a frame of samples, which the window weighs once more; frames are added where they overlap,
    and divided by the sum of the squared windows.

    Args:
        n_fft: samples of a frame
        hop_length: samples from one frame to the next; ``n_fft // 4`` by default
        win_length: samples of the window, which stands in the middle of the frame; ``n_fft`` by default
        window: as of `STFT`
        center: whether ``n_fft // 2`` samples are cropped on both sides, as `STFT` pads them
        normalized: as of `STFT`
        onesided: as of `STFT`
        padding: samples cropped at the start and at the end instead of what ``center`` says; ``"causal"`` stands for
            ``(n_fft - hop_length, 0)``
        complex_input: whether spectra are complex, as of ``return_complex``

    Shape:
        - input: ``[B, 2 · C · F, K]`` or ``[2 · C · F, K]``, the layout of `STFT`; with ``complex_input`` complex
          ``[B, C · F, K]`` or ``[C · F, K]``
        - output: ``[B, C, T]`` or ``[C, T]`` with ``T = n_fft + (K - 1) · hop_length - padding``

    Raises:
        ValueError: lengths, window or padding do not fit; or squared windows add up to 0 somewhere
            (``zero_envelope``), where no sample could be told
        StreamInputError: channels are no whole number of spectra

    Example:
        >>> import torch
        >>> from torchstreamer.audio import ISTFT, STFT
        >>> x = torch.randn(1, 1, 400)
        >>> torch.testing.assert_close(ISTFT(64, 16)(STFT(64, 16)(x)), x)
    """

    def __init__(
        self,
        n_fft: int,
        hop_length: Optional[int] = None,
        win_length: Optional[int] = None,
        window: Union[str, Tensor] = "hann",
        center: bool = True,
        normalized: bool = False,
        onesided: bool = True,
        padding: Union[None, str, Tuple[int, int]] = None,
        complex_input: bool = False,
    ) -> None:
        super().__init__(n_fft, hop_length, win_length, window, center, normalized, onesided, padding)
        self.frames = SpectraToFrames(self, complex_input)
        self.overlap = OverlapAdd1d(self.taper, self.hop_length, self.left, self.right)
        # Spectra of the shortest signal that reaches beyond what is cropped.
        self.least = 1 + max(-((self.win_length - self.left - self.right) // self.hop_length), 0)

    def forward(self, x: Tensor, length: Optional[int] = None) -> Tensor:
        """The signal.

        Args:
            x: its spectra
            length: how many samples of it are given, instead of ``T``: so many as its frames still tell, and zeros
        """
        rows = x.unsqueeze(0) if x.dim() == 2 else x
        if x.size(-1) < self.least or (length is not None and length < 0):
            raise StreamInputError(
                f"invalid_chunk: {x.size(-1)} spectra came with length={length}; at least {self.least} spectra and a "
                "length of 0 or more were expected; take more of the signal"
            )
        frames = self.frames(rows)
        y = self.overlap(frames) if length is None else self.overlap.of_length(frames, length)
        return y.squeeze(0) if x.dim() == 2 else y


class SpectraToFrames(nn.Module):
    """Spectra as frames of samples, weighed by the window: ``[B, 2 · C · F, K]`` becomes ``[B, C · win_length, K]``.

    Args:
        spectrum: says the lengths and has the window
        complex_input: whether spectra are complex, ``[B, C · F, K]``
    """

    __constants__ = ["n_fft", "win_length", "before", "onesided", "bins", "norm", "complex_input"]

    def __init__(self, spectrum: Spectrum, complex_input: bool) -> None:
        super().__init__()
        self.complex_input = complex_input
        self.taper = spectrum.taper
        self.n_fft = spectrum.n_fft
        self.win_length = spectrum.win_length
        self.before = spectrum.before
        self.onesided = spectrum.onesided
        self.bins = spectrum.bins
        self.norm = spectrum.norm

    def forward(self, x: Tensor) -> Tensor:
        """The frames."""
        if x.dim() != 3 or x.is_complex() != self.complex_input:
            raise StreamInputError(
                f"invalid_chunk: spectra came with {describe(x)}; {'complex' if self.complex_input else 'real'} ones, "
                "[B, C, K] or [C, K], were expected; check complex_input, and return_complex of the STFT"
            )
        channels = self.output_channels(x.size(1)) // self.win_length
        b, k = x.size(0), x.size(2)
        if self.complex_input:
            bins = x.reshape(b, channels, self.bins, k).transpose(2, 3)
        else:
            parts = x.reshape(b, 2, channels, self.bins, k).permute(0, 2, 4, 3, 1)
            parts = parts.to(working(x)).contiguous()
            bins = torch.view_as_complex(parts) if x.numel() > 0 else torch.complex(parts[..., 0], parts[..., 1])
        if not self.onesided:  # of a real signal the others follow from the first half
            bins = bins.narrow(3, 0, self.n_fft // 2 + 1)
        frames = irfft(bins, self.n_fft, self.norm)
        if self.win_length < self.n_fft:
            frames = frames.narrow(3, self.before, self.win_length)
        y = (frames * self.taper.values).transpose(2, 3).reshape(b, channels * self.win_length, k)
        return y if self.complex_input else y.to(x.dtype)

    def output_channels(self, channels: int) -> int:
        """Channels out for channels in."""
        if channels == -1:
            return -1
        parts = self.bins if self.complex_input else 2 * self.bins
        if channels % parts != 0:
            raise StreamInputError(
                f"invalid_chunk: {channels} channels came; a multiple of {parts} was expected, the parts of a "
                "spectrum; check n_fft and the layout, a chunk is [B, C, T] or [C, T]"
            )
        return channels // parts * self.win_length


@register_streamer(SpectraToFrames)
class SpectraToFramesStream(PointwiseStream):
    """Stream of `SpectraToFrames`, frame by frame.

    Args:
        net: the module
    """

    fresh = True

    def __init__(self, net: SpectraToFrames) -> None:
        super().__init__(net)
        self.keeps_dtype = not net.complex_input

    def output_channels(self, channels: int) -> int:
        """Channels out for channels in."""
        return self.net.output_channels(channels)

    def output_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """That of the samples."""
        return dtype.to_real()

    def anchor(self) -> Optional[Tensor]:
        """The window says dtype and device of real parts."""
        return self.net.taper.values if self.keeps_dtype else None


def istft_stream(net: ISTFT) -> BaseStream:
    """The stream of an `ISTFT`: frame by frame, then added."""
    require_plain(net, ISTFT)
    return create_stream(nn.Sequential(net.frames, net.overlap))


register_streamer(ISTFT, istft_stream)
