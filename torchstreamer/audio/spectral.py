"""Networks between a short-time Fourier transform and its inverse. TorchScript compiles this file."""

from typing import Optional, Tuple, Union

import torch
from torch import Tensor, nn

from ..core.registry import create_stream, find_handler, register_streamer, require_plain
from ..core.stream import BaseStream
from ..core.whole_numbers import whole_number
from ..errors import UnsupportedModuleError
from ..layers.kept_length import KeptLength1d, fitted
from ..layers.overlap_add import OverlapAdd1d
from .configuring import configured
from .istft import SpectraToFrames
from .stft import STFT

__all__ = ["Spectral1d"]

_FRAMES = 128


@configured
class Spectral1d(nn.Module):
    """A network on short-time spectra: ``istft(net(stft(x)), length=T)``. The length of the signal is kept.

    With ``causal=True`` no spectrum sees what comes after its hop: the output lags by ``n_fft`` samples less one hop,
    and a hop for the samples to come together. Every sample is in all the frames that it can be in, at both edges too,
    so the inverse divides by one and the same envelope everywhere.

    Args:
        net: any module that has a stream. It takes spectra ``[B, 2 · C · F, K]`` as `STFT` gives them, and gives such
            ones, as many
        n_fft: samples of a frame
        hop_length: samples from one frame to the next; ``n_fft // 4`` by default
        win_length: samples of the window; ``n_fft`` by default
        window: as of `STFT`
        pad_mode: as of `STFT`; ``"constant"`` by default
        causal: see above; otherwise frames are centred, as those of `torch.stft` and `torch.istft`
        normalized: as of `STFT`
        channels: ``C``, for a network without a handler, which is captured with an example

    Shape:
        - input: ``[B, C, T]`` or ``[C, T]``
        - output: ``[B, C', T]`` or ``[C', T]``

    Raises:
        ValueError: as of `STFT` and `ISTFT`

    Example:
        >>> import torch, torchstreamer as pts
        >>> from torchstreamer.audio import Spectral1d
        >>> net = Spectral1d(torch.nn.Conv1d(2 * 33, 2 * 33, 1), n_fft=64, hop_length=16, causal=True)
        >>> stream, x = pts.create_stream(net), torch.randn(1, 1, 500)
        >>> y = [stream(chunk) for chunk in x.split(16, -1)] + [stream.flush()]
        >>> torch.testing.assert_close(torch.cat([each for each in y if each is not None], -1), net(x))
    """

    def __init__(
        self,
        net: nn.Module,
        n_fft: int,
        hop_length: Optional[int] = None,
        win_length: Optional[int] = None,
        window: Union[str, Tensor] = "hann",
        pad_mode: str = "constant",
        causal: bool = False,
        normalized: bool = False,
        channels: int = 1,
    ) -> None:
        super().__init__()
        hop = n_fft // 4 if hop_length is None else hop_length
        padding: Optional[Tuple[int, int]] = (max(n_fft - hop, 0), n_fft - 1) if causal else None
        self.stft = STFT(n_fft, hop, win_length, window, True, pad_mode, normalized, True, padding)
        self.net = net
        stft = self.stft
        self.frames = SpectraToFrames(stft, False)
        # No signal with so many frames reaches further into the last one.
        unread = max(stft.padding[1] - hop + 1, 0) - stft.after
        self.overlap = OverlapAdd1d(stft.taper, hop, stft.left, 0, unread)
        self.channels = whole_number(channels, "channels")

    def forward(self, x: Tensor) -> Tensor:
        """The signal of the network's spectra."""
        y = self.overlap(self.frames(self.net(self.stft(x.unsqueeze(0) if x.dim() == 2 else x))))
        y = fitted(y, x.size(-1))
        return y.squeeze(0) if x.dim() == 2 else y

    def example(self) -> Tensor:
        """Spectra like those that the network takes."""
        taper = self.stft.taper.values
        size = [1, 2 * self.channels * self.stft.bins, _FRAMES]
        return torch.randn(size, generator=torch.Generator().manual_seed(0)).to(taper)

    def extra_repr(self) -> str:
        return "" if self.channels == 1 else f"channels={self.channels}"


class _Captured(nn.Module):
    # A network without a handler, in its place among others.
    def __init__(self, net: nn.Module, example: Tensor) -> None:
        super().__init__()
        self.net = net
        self.example = example


def _captured(net: _Captured) -> BaseStream:
    return create_stream(net.net, example=net.example)


def spectral_stream(net: Spectral1d) -> BaseStream:
    """The stream of a `Spectral1d`."""
    require_plain(net, Spectral1d)

    def around(inner: nn.Module) -> BaseStream:
        return create_stream(KeptLength1d(nn.Sequential(net.stft, inner, net.frames, net.overlap)))

    if find_handler(net.net) is None:
        return around(_Captured(net.net, net.example()))
    try:
        return around(net.net)
    except UnsupportedModuleError as error:
        try:  # a module inside may be none that works without an example
            return around(_Captured(net.net, net.example()))
        except UnsupportedModuleError:
            raise error from None


register_streamer(_Captured, _captured)
register_streamer(Spectral1d, spectral_stream)
