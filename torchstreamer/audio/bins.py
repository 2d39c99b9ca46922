"""Matrices over the bins of a spectrum, frame by frame: mels, and cosines of them."""

import math
from typing import Optional

import torch
from torch import Tensor, nn

from ..core.registry import register_streamer, require_plain
from ..core.stream import BaseStream
from ..errors import StreamInputError
from ..layers.elementwise import PointwiseStream
from .configuring import configured
from .mel import mel_filters
from .tables import Tabled

__all__ = ["DCT", "MelScale"]


def over_bins(x: Tensor, matrix: Tensor) -> Tensor:
    """The product of a matrix ``[M, F]`` with the bins of every channel, ``[…, C · F, K]`` to ``[…, C · M, K]``."""
    bins = matrix.size(1)
    if x.size(-2) == bins:
        return torch.matmul(matrix, x)
    require_bins(x.size(-2), bins)
    channels = x.reshape(list(x.shape[:-2]) + [x.size(-2) // bins, bins, x.size(-1)])
    return torch.matmul(matrix, channels).flatten(-3, -2)


def require_bins(channels: int, bins: int) -> None:
    """Refuse channels that are no whole number of spectra."""
    if channels % bins != 0:
        raise StreamInputError(
            f"invalid_chunk: {channels} channels came; {bins} bins of each channel were expected; check n_fft of the "
            "spectrum before"
        )


def bins_first(frames: Tensor) -> Tensor:
    """Frames ``[B, C, K, F]`` as ``[B, C · F, K]``, a view of one channel."""
    return frames.transpose(2, 3).flatten(1, 2)


class BinsStream(PointwiseStream):
    """Stream of a module that multiplies the bins of every channel by a matrix, `MelScale` or `DCT`.

    Args:
        net: the module
        bins: that it takes, of each channel
        outputs: that it gives, for each channel
    """

    def __init__(self, net: nn.Module, bins: int, outputs: int) -> None:
        super().__init__(net)
        self.bins = bins
        self.outputs = outputs

    def output_channels(self, channels: int) -> int:
        """Channels out for channels in."""
        if channels == -1:
            return -1
        require_bins(channels, self.bins)
        return channels // self.bins * self.outputs


@configured
class MelScale(Tabled):
    """A spectrum in mels: triangular filters over the bins, frame by frame.

    Args:
        n_fft: of the spectrum, which has ``n_fft // 2 + 1`` bins
        sample_rate: in Hz
        n_mels: number of filters
        f_min: lower end of the first filter, in Hz
        f_max: upper end of the last one, in Hz; half of the sample rate by default
        mel_scale: ``"htk"``, ``"slaney"`` or ``"kaldi"``; see `hz_to_mel`
        norm: ``"slaney"`` or ``None``; see `mel_filters`

    Shape:
        - input: ``[B, C · bins, K]`` or ``[C · bins, K]``, the bins of each channel side by side
        - output: ``[B, C · n_mels, K]`` or ``[C · n_mels, K]``

    Raises:
        ValueError: as `mel_filters`

    Example:
        >>> import torch
        >>> from torchstreamer.audio import MelScale
        >>> MelScale(400, 16000, n_mels=80)(torch.rand(2, 201, 7)).shape
        torch.Size([2, 80, 7])
    """

    filters: Tensor

    def __init__(
        self,
        n_fft: int,
        sample_rate: float,
        n_mels: int = 128,
        f_min: float = 0.0,
        f_max: Optional[float] = None,
        mel_scale: str = "htk",
        norm: Optional[str] = None,
    ) -> None:
        super().__init__()
        self.bins, self.n_mels = n_fft // 2 + 1, n_mels
        table = mel_filters(self.bins, sample_rate, n_mels, f_min, f_max, mel_scale, norm)
        self.table("filters", table)
        self.about = f"sample_rate={sample_rate}, mel_scale={mel_scale!r}, norm={norm!r}"

    def forward(self, x: Tensor) -> Tensor:
        """Every frame in mels."""
        return over_bins(x, self.filters)

    def extra_repr(self) -> str:
        return f"{self.bins}, {self.n_mels}, {self.about}"


@configured
class DCT(Tabled):
    """The discrete cosine transform of type II of the channels, orthonormal, frame by frame.

    Args:
        bins: that come in, of each channel
        coefficients: that go out: the first so many; all by default
        norm: ``"ortho"``, or ``None`` for twice the sums of cosines, as in SciPy

    Shape:
        - input: ``[B, C · bins, K]`` or ``[C · bins, K]``
        - output: ``[B, C · coefficients, K]`` or ``[C · coefficients, K]``

    Raises:
        ValueError: another norm, more coefficients than bins, or none

    Example:
        >>> import torch
        >>> from torchstreamer.audio import DCT
        >>> DCT(4, 2)(torch.ones(4, 1))
        tensor([[2.],
                [0.]])
    """

    matrix: Tensor

    def __init__(self, bins: int, coefficients: Optional[int] = None, norm: Optional[str] = "ortho") -> None:
        super().__init__()
        coefficients = bins if coefficients is None else coefficients
        if not 1 <= coefficients <= bins:
            raise ValueError(
                f"invalid_coefficients: {coefficients} coefficients of {bins} bins came; 1 to {bins} were expected"
            )
        if norm not in ("ortho", None):
            raise ValueError(f"invalid_norm: norm={norm!r} came; 'ortho' or None was expected; choose one")
        self.bins, self.coefficients, self.norm = bins, coefficients, norm
        place = torch.arange(bins, dtype=torch.float64) + 0.5
        order = torch.arange(coefficients, dtype=torch.float64).unsqueeze(1)
        matrix = 2 * torch.cos(math.pi / bins * order * place)
        if norm == "ortho":
            matrix = matrix / math.sqrt(2 * bins)
            matrix[0] /= math.sqrt(2)
        self.table("matrix", matrix)

    def forward(self, x: Tensor) -> Tensor:
        """The coefficients of every frame."""
        return over_bins(x, self.matrix)

    def extra_repr(self) -> str:
        return f"{self.bins}, {self.coefficients}, norm={self.norm!r}"


def _mel_stream(net: MelScale) -> BaseStream:
    require_plain(net, MelScale)
    return BinsStream(net, net.bins, net.n_mels)


def _cosine_stream(net: DCT) -> BaseStream:
    require_plain(net, DCT)
    return BinsStream(net, net.bins, net.coefficients)


register_streamer(MelScale, _mel_stream)
register_streamer(DCT, _cosine_stream)
