"""Level meters: peak, RMS and loudness. TorchScript compiles this file."""

from typing import Optional, Sequence

import torch
from torch import Tensor, nn

from ..core.fast_attributes import entry
from ..core.registry import register_streamer, require_plain
from ..errors import StreamInputError
from ..layers.accumulating import working
from ..layers.samples import require_signal
from ..layers.window import WindowStream
from .configuring import configured
from .designs import k_weighting
from .recursive import SOSFilter

__all__ = ["Level", "LevelStream", "Loudness"]

KINDS = ("peak", "rms", "loudness")


@configured
class Level(nn.Module):
    """The level of a signal in windows that overlap, in decibels.

    Args:
        kind: ``"peak"``: of the largest sample, channel by channel, in dB of full scale, which is 1. ``"rms"``: of the
            root of the mean square, likewise; a sine of full scale has -3 dB. ``"loudness"``: of all channels
            together, ``-0.691 + 10·log10(Σ weight · mean square)``, in LUFS if the signal is K-weighted; see `Loudness`
        length: of a window, in samples
        hop: from one window to the next, in samples; by default the length
        weights: of the channels, for ``"loudness"``; by default 1 for each
        floor_db: what silence gives, in dB; no level is lower

    Shape:
        - input: ``[B, C, T]`` or ``[C, T]``
        - output: ``[B, C, T']`` or ``[C, T']`` with ``T' = (T - length) // hop + 1``; of loudness one channel

    Raises:
        ValueError: another kind, or a length or hop below 1

    Example:
        >>> import torch
        >>> from torchstreamer.audio import Level
        >>> x = torch.tensor([[1.0, -1.0, 0.1, 0.1]])
        >>> Level("peak", 2)(x), Level("rms", 2)(x)
        (tensor([[  0., -20.]]), tensor([[  0., -20.]]))
    """

    weights: Tensor

    def __init__(
        self,
        kind: str,
        length: int,
        hop: Optional[int] = None,
        weights: Optional[Sequence[float]] = None,
        floor_db: float = -120.0,
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"invalid_kind: kind={kind!r} came; one of {', '.join(KINDS)} was expected; choose one")
        hop = length if hop is None else hop
        if min(length, hop) < 1:
            raise ValueError(
                f"invalid_window: length {length} and hop {hop} came; 1 sample or more was expected; check both"
            )
        if weights is not None and len(weights) == 0:
            raise ValueError("invalid_weights: no weights came; one for each channel was expected; leave them out")
        if weights is not None and kind != "loudness":
            raise ValueError(
                f"invalid_weights: weights came for kind={kind!r}; they were expected for 'loudness' alone; leave them "
                "out"
            )
        self.kind = kind
        self.length = length
        self.hop = hop
        self.channels = -1 if weights is None else len(weights)
        # No buffer, which would go with the module to single precision.
        self.weights = torch.tensor([1.0] if weights is None else list(weights), dtype=torch.float64)
        self.floor_db = floor_db

    def forward(self, x: Tensor) -> Tensor:
        """The levels of the whole signal."""
        require_signal(x)
        self.check(x.size(-2))
        if x.size(-1) < self.length:
            raise StreamInputError(
                f"invalid_chunk: a signal of {x.size(-1)} samples came; at least {self.length} were expected, a "
                "window; pad it, or take a shorter window"
            )
        frames = x.to(working(x)).unfold(-1, self.length, self.hop)
        if self.kind == "peak":
            power = frames.abs().amax(-1).square()
        else:
            power = frames.square().mean(-1)
        offset = 0.0
        if self.kind == "loudness":
            weights = self.weights.to(power.device, power.dtype)
            power = (power * weights.unsqueeze(1)).sum(-2, keepdim=True)
            offset = -0.691
        least = 10.0 ** ((self.floor_db - offset) / 10)
        return (10 * torch.log10(power.clamp(min=least)) + offset).to(x.dtype)

    def check(self, channels: int) -> None:
        """Refuse another number of channels than there are weights."""
        if channels != -1 and self.channels != -1 and channels != self.channels:
            raise StreamInputError(
                f"invalid_chunk: {channels} channels came; {self.channels} were expected, as many as there are "
                "weights; check the axes, a chunk is [B, C, T] or [C, T]"
            )

    def extra_repr(self) -> str:
        return f"{self.kind!r}, length={self.length}, hop={self.hop}"


@register_streamer(Level)
class LevelStream(WindowStream):
    """Stream of a `Level`.

    Args:
        net: the meter

    Shape:
        - input: ``[B, C, T]`` or ``[C, T]``
        - output: ``[B, C, T']`` or ``[C, T']``

    Example:
        >>> import torch, torchstreamer as pts
        >>> from torchstreamer.audio import Level
        >>> stream = pts.create_stream(Level("peak", 3))
        >>> stream(torch.ones(1, 2)), stream(torch.ones(1, 2))
        (None, tensor([[0.]]))
    """

    fresh = True
    net = entry("_modules")

    def __init__(self, net: Level) -> None:
        require_plain(net, Level)
        super().__init__(net.length, net.hop)
        self.net = net

    def look(self, window: Tensor) -> Tensor:
        return self.net.forward(window)

    def output_channels(self, channels: int) -> int:
        """Channels out for channels in."""
        self.net.check(channels)
        return 1 if self.net.kind == "loudness" else channels


@configured
class Loudness(nn.Sequential):
    """Momentary loudness in LUFS, as in ITU-R BS.1770 and EBU R 128: K-weighted, in windows of 400 ms.

    A sine of 997 Hz and full scale in one channel has -3.01 LUFS. With ``window_s=3`` it is the short-term loudness of
    EBU Tech 3341. Integrated loudness is that of a whole programme, which a stream cannot know.

    Args:
        fs: sampling rate, in Hz
        weights: of the channels, by default 1 for each; of surround sound ``(1, 1, 1, 1.41, 1.41)``
        window_s: of a window, in seconds
        hop_s: from one window to the next, in seconds

    Shape:
        - input: ``[B, C, T]`` or ``[C, T]``
        - output: ``[B, 1, T']`` or ``[1, T']``, one number for each window

    Example:
        >>> import torch
        >>> from torchstreamer.audio import Loudness
        >>> sine = torch.sin(2 * torch.pi * 997 / 48_000 * torch.arange(48_000.0)).unsqueeze(0)
        >>> round(Loudness(48_000)(sine)[0, -1].item(), 2)
        -3.01
    """

    def __init__(
        self, fs: float, weights: Optional[Sequence[float]] = None, window_s: float = 0.4, hop_s: float = 0.1
    ) -> None:
        super().__init__(
            SOSFilter(k_weighting(fs)), Level("loudness", round(window_s * fs), round(hop_s * fs), weights)
        )
