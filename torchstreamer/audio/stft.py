"""The short-time Fourier transform. TorchScript compiles this file."""

from typing import Optional, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.jit import is_scripting

from ..core.registry import register_streamer, require_plain
from ..errors import StreamInputError
from ..layers.padding import Pad1dStream
from ..layers.samples import require_signal
from ..layers.window import FramesStream
from .configuring import configured
from .few_frames import products_pay
from .fourier import fft, rfft, rfft_parts
from .spectrum import Spectrum

__all__ = ["STFT", "STFTStream"]

_MODES = ("reflect", "constant", "replicate")


@configured
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
        window: ``"hann"``, ``"sqrt_hann"``, ``"hamming"``, ``"blackman"`` or ``"ones"``, all periodic, or with
            ``"symmetric_"`` before it, not periodic; or a tensor ``[win_length]``
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
        y = self.windows(self.padded(x.unsqueeze(0) if x.dim() == 2 else x))
        return y.squeeze(0) if x.dim() == 2 else y

    def padded(self, x: Tensor) -> Tensor:
        """A whole signal ``[B, C, T]`` with its padding."""
        require_signal(x)
        if x.size(2) < self.least:
            raise StreamInputError(
                f"invalid_chunk: a signal of {x.size(2)} samples came; at least {self.least} were expected; pad it, "
                "or take a smaller n_fft or pad_mode='constant'"
            )
        if self.left < 0 or self.right < 0:  # a crop
            x = F.pad(x, [min(self.left, 0), min(self.right, 0)])
        if self.left > 0 or self.right > 0:
            x = F.pad(x, [max(self.left, 0), max(self.right, 0)], self.pad_mode)
        return x

    def windows(self, x: Tensor) -> Tensor:
        """The spectra of all frames of padded samples, of which each has ``win_length``."""
        frames = self.tapered(x)
        if self.before > 0 or self.after > 0:
            frames = F.pad(frames, [self.before, self.after])
        if not is_scripting():
            if self.onesided and not self.return_complex and products_pay(frames, self.n_fft):
                return torch.stack(self.parts(frames), 1).transpose(3, 4).flatten(1, 3).to(x.dtype)
        bins = self.transformed(frames)
        if self.return_complex:
            return bins.transpose(2, 3).flatten(1, 2)
        return torch.view_as_real(bins).permute(0, 4, 1, 3, 2).flatten(1, 3).to(x.dtype)

    def tapered(self, x: Tensor) -> Tensor:
        """The frames of padded samples, weighed, ``[B, C, K, win_length]``."""
        return x.unfold(2, self.win_length, self.hop_length) * self.taper.values

    def transformed(self, frames: Tensor) -> Tensor:
        """The complex bins of frames, ``[B, C, K, F]``; where in ``n_fft`` samples a frame stands turns their phase."""
        if self.onesided:
            return rfft(frames, self.n_fft, self.norm)
        return fft(frames, self.n_fft, self.norm)

    def parts(self, frames: Tensor) -> Tuple[Tensor, Tensor]:
        """The same, real parts and imaginary parts."""
        if self.onesided:
            return rfft_parts(frames, self.n_fft, self.norm)
        bins = self.transformed(frames)
        return bins.real, bins.imag

    def around(self) -> Optional[Pad1dStream]:
        """What pads a signal in pieces, if anything does."""
        if self.left == 0 and self.right == 0:
            return None
        mode = self.pad_mode if max(self.left, self.right) > 0 else "constant"
        return Pad1dStream(self.left, self.right, mode, shortest=self.least if mode == "reflect" else None)

    def extra_repr(self) -> str:
        text = super().extra_repr()
        text += "" if self.pad_mode == "reflect" else f", pad_mode={self.pad_mode!r}"
        return text + (", return_complex=True" if self.return_complex else "")


@register_streamer(STFT)
class STFTStream(FramesStream):
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

    def __init__(self, net: STFT) -> None:
        require_plain(net, STFT)
        super().__init__(net, net.win_length, net.hop_length, net.around())
        self.keeps_dtype = not net.return_complex

    def anchor(self) -> Optional[Tensor]:
        """The table says dtype and device."""
        return self.net.taper.values

    def output_channels(self, channels: int) -> int:
        """Channels out for channels in."""
        parts = self.net.bins if self.net.return_complex else 2 * self.net.bins
        return channels if channels == -1 else channels * parts

    def output_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Complex if that is asked for."""
        return dtype.to_complex() if self.net.return_complex else dtype
