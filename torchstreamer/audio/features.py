"""Features of sound on top of spectrograms: logarithms and cosines of mels, each a sequence of stages."""

from typing import Any, List, Optional, Sequence, Union

import torch
from torch import Tensor, nn

from ..core.registry import register_streamer
from ..errors import StreamInputError
from ..layers.elementwise import PointwiseStream
from .bins import DCT
from .configuring import configured
from .logarithms import DynamicRange, Logarithm
from .shaping import Preemphasis
from .spectrogram import MelSpectrogram

__all__ = ["MFCC", "LogMel", "Standardize"]


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


register_streamer(Standardize, lambda net: PointwiseStream(net, net.channels if net.channels > 1 else -1))
