"""The mel scales and their filters. All tables are computed in float64."""

import math
from typing import List, Optional

import torch
from torch import Tensor

from .configuring import configured

__all__ = ["hz_to_mel", "mel_filters", "mel_to_hz"]

# Slaney: linear up to 1 kHz, 200 Hz for 3 mels, then 27 mels for each factor of 6.4.
_KNEE = 1000.0
_LINEAR = 200.0 / 3
_LOG = math.log(6.4) / 27


@configured
def hz_to_mel(hz: float, scale: str = "htk") -> float:
    """A frequency in mels.

    Args:
        hz: the frequency, in Hz
        scale: ``"htk"``, ``2595 · log10(1 + f / 700)``; ``"kaldi"``, ``1127 · ln(1 + f / 700)``, the same to four
            digits; or ``"slaney"``, linear below 1 kHz and logarithmic above, as in the Auditory Toolbox and librosa

    Raises:
        ValueError: another scale

    Example:
        >>> from torchstreamer.audio import hz_to_mel
        >>> round(hz_to_mel(1000.0), 2), round(hz_to_mel(1000.0, "slaney"), 2)
        (999.99, 15.0)
    """
    if scale == "htk":
        return 2595.0 * math.log10(1.0 + hz / 700.0)
    if scale == "kaldi":
        return 1127.0 * math.log1p(hz / 700.0)
    if scale == "slaney":
        return hz / _LINEAR if hz < _KNEE else _KNEE / _LINEAR + math.log(hz / _KNEE) / _LOG
    raise _unknown_scale(scale)


@configured
def mel_to_hz(mel: float, scale: str = "htk") -> float:
    """A frequency in Hz, from mels; the inverse of `hz_to_mel`.

    Args:
        mel: the frequency, in mels
        scale: as for `hz_to_mel`

    Raises:
        ValueError: another scale
    """
    if scale == "htk":
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    if scale == "kaldi":
        return 700.0 * math.expm1(mel / 1127.0)
    if scale == "slaney":
        knee = _KNEE / _LINEAR
        return mel * _LINEAR if mel < knee else _KNEE * math.exp((mel - knee) * _LOG)
    raise _unknown_scale(scale)


def _unknown_scale(scale: str) -> ValueError:
    return ValueError(
        f"invalid_mel_scale: mel_scale={scale!r} came; 'htk', 'slaney' or 'kaldi' was expected; choose one"
    )


@configured
def mel_filters(
    bins: int,
    sample_rate: float,
    n_mels: int,
    f_min: float = 0.0,
    f_max: Optional[float] = None,
    mel_scale: str = "htk",
    norm: Optional[str] = None,
    slopes: str = "hz",
) -> Tensor:
    """Triangular filters from the bins of a spectrum to mels, ``[n_mels, bins]`` in float64.

    Args:
        bins: of the spectrum, ``n_fft // 2 + 1``, from 0 Hz to half of the sample rate
        sample_rate: in Hz
        n_mels: number of filters
        f_min: lower end of the first filter, in Hz
        f_max: upper end of the last one, in Hz; half of the sample rate by default
        mel_scale: ``"htk"``, ``"slaney"`` or ``"kaldi"``; see `hz_to_mel`
        norm: ``"slaney"`` divides each filter by half its width in Hz, so that all have one area; ``None`` leaves the
            peaks at 1
        slopes: where the sides of the triangles are straight: ``"hz"``, as in librosa and torchaudio, or ``"mel"``, as
            in Kaldi

    Raises:
        ValueError: another scale, norm or kind of slopes; bins, mels or frequencies out of range

    Example:
        >>> from torchstreamer.audio import mel_filters
        >>> mel_filters(201, 16000, 80).shape
        torch.Size([80, 201])
    """
    f_max = sample_rate / 2 if f_max is None else f_max
    if bins < 2 or n_mels < 1:
        raise ValueError(f"invalid_mels: {bins} bins and {n_mels} mels came; 2 bins and 1 mel were expected at least")
    if not 0 <= f_min < f_max <= sample_rate / 2:
        raise ValueError(
            f"invalid_mels: frequencies from {f_min} to {f_max} Hz came; 0 ≤ f_min < f_max ≤ {sample_rate / 2} was "
            "expected, half of the sample rate; check f_min, f_max and sample_rate"
        )
    if norm not in (None, "slaney"):
        raise ValueError(f"invalid_mel_norm: norm={norm!r} came; 'slaney' or None was expected; choose one")
    if slopes not in ("hz", "mel"):
        raise ValueError(f"invalid_slopes: slopes={slopes!r} came; 'hz' or 'mel' was expected; choose one")
    low, high = hz_to_mel(f_min, mel_scale), hz_to_mel(f_max, mel_scale)
    edges = torch.linspace(low, high, n_mels + 2, dtype=torch.float64).tolist()
    centres = [sample_rate / 2 * i / (bins - 1) for i in range(bins)]
    points = [mel_to_hz(edge, mel_scale) for edge in edges]
    if slopes == "mel":
        places, corners = [hz_to_mel(hz, mel_scale) for hz in centres], edges
    else:
        places, corners = centres, points
    filters = _triangles(places, corners)
    if norm == "slaney":
        hertz = torch.tensor(points, dtype=torch.float64)
        filters = filters * (2.0 / (hertz[2:] - hertz[:-2])).unsqueeze(1)
    return filters


def _triangles(places: List[float], corners: List[float]) -> Tensor:
    place = torch.tensor(places, dtype=torch.float64).unsqueeze(0)
    corner = torch.tensor(corners, dtype=torch.float64).unsqueeze(1)
    width = corner.diff(dim=0)
    up = (place - corner[:-2]) / width[:-1]
    down = (corner[2:] - place) / width[1:]
    return torch.minimum(up, down).clamp(min=0)
