"""Designs of second-order sections."""

import math
from typing import Callable, Dict, List, NamedTuple, Tuple

import torch
from torch import Tensor

from .configuring import configured

__all__ = ["BIQUADS", "biquad", "butterworth", "k_weighting"]


class Bend(NamedTuple):
    """What the designs of the cookbook share.

    Attributes:
        cosine: of the angular frequency
        alpha: half its sine by the quality
        gain: the amplitude, the root of the gain
    """

    cosine: float
    alpha: float
    gain: float


Six = Tuple[float, float, float, float, float, float]


def _resonance(numerator: Callable[[Bend], Tuple[float, float, float]]) -> Callable[[Bend], Six]:
    # Those whose denominator is that of a resonance at the frequency.
    return lambda w: (*numerator(w), 1 + w.alpha, -2 * w.cosine, 1 - w.alpha)


def _peaking(w: Bend) -> Six:
    up, down = w.alpha * w.gain, w.alpha / w.gain
    return 1 + up, -2 * w.cosine, 1 - up, 1 + down, -2 * w.cosine, 1 - down


def _shelf(side: int) -> Callable[[Bend], Six]:
    # 1 for the high shelf, -1 for the low one.
    def shelf(w: Bend) -> Six:
        g, c, root = w.gain, side * w.cosine, 2 * math.sqrt(w.gain) * w.alpha
        return (
            g * (g + 1 + (g - 1) * c + root),
            -2 * side * g * (g - 1 + (g + 1) * c),
            g * (g + 1 + (g - 1) * c - root),
            g + 1 - (g - 1) * c + root,
            2 * side * (g - 1 - (g + 1) * c),
            g + 1 - (g - 1) * c - root,
        )

    return shelf


# Robert Bristow-Johnson, "Cookbook formulae for audio EQ biquad filter coefficients": b0, b1, b2, a0, a1, a2.
BIQUADS: Dict[str, Callable[[Bend], Six]] = {
    "lowpass": _resonance(lambda w: ((1 - w.cosine) / 2, 1 - w.cosine, (1 - w.cosine) / 2)),
    "highpass": _resonance(lambda w: ((1 + w.cosine) / 2, -1 - w.cosine, (1 + w.cosine) / 2)),
    "bandpass": _resonance(lambda w: (w.alpha, 0.0, -w.alpha)),
    "notch": _resonance(lambda w: (1.0, -2 * w.cosine, 1.0)),
    "allpass": _resonance(lambda w: (1 - w.alpha, -2 * w.cosine, 1 + w.alpha)),
    "peaking": _peaking,
    "lowshelf": _shelf(-1),
    "highshelf": _shelf(1),
}


@configured
def biquad(kind: str, fs: float, frequency_hz: float, q: float = math.sqrt(0.5), gain_db: float = 0.0) -> Tensor:
    """A second-order section by Robert Bristow-Johnson's cookbook.

    Args:
        kind: ``"lowpass"``, ``"highpass"``, ``"bandpass"`` (0 dB at its peak), ``"notch"``, ``"allpass"``,
            ``"peaking"``, ``"lowshelf"`` or ``"highshelf"``
        fs: sampling rate, in Hz
        frequency_hz: corner or centre, in Hz, below half the sampling rate
        q: quality; of a lowpass 0.707 is a Butterworth's, and a higher one has a peak at the corner
        gain_db: of ``"peaking"`` and the shelves, in dB

    Returns:
        ``[1, 6]`` in float64, for `SOSFilter`; join several with `torch.cat`

    Raises:
        ValueError: another kind, a frequency that is not between 0 and half the rate, or a quality that is not positive

    Example:
        >>> from torchstreamer.audio import SOSFilter, biquad
        >>> warm = SOSFilter(biquad("lowshelf", 48_000, 200, gain_db=3))
    """
    design = BIQUADS.get(kind)
    if design is None:
        raise ValueError(f"invalid_kind: kind={kind!r} came; one of {', '.join(BIQUADS)} was expected; choose one")
    angle = _angle(fs, frequency_hz)
    if not q > 0:
        raise ValueError(f"invalid_q: q={q} came; a positive quality was expected; 0.707 is that of a Butterworth")
    values = design(Bend(math.cos(angle), math.sin(angle) / (2 * q), 10 ** (gain_db / 40)))
    return _normalised([values])


@configured
def butterworth(kind: str, fs: float, frequency_hz: float, order: int = 4) -> Tensor:
    """A Butterworth filter in second-order sections, the same as ``scipy.signal.butter`` gives.

    Args:
        kind: ``"lowpass"`` or ``"highpass"``
        fs: sampling rate, in Hz
        frequency_hz: where it is 3 dB down, in Hz, below half the sampling rate
        order: 6 dB per octave for each

    Returns:
        ``[S, 6]`` in float64, for `SOSFilter`, with one section for every two orders

    Raises:
        ValueError: another kind, a frequency that is not between 0 and half the rate, or an order below 1

    Example:
        >>> from torchstreamer.audio import SOSFilter, butterworth
        >>> rumble = SOSFilter(butterworth("highpass", 48_000, 40, order=4))
    """
    if kind not in ("lowpass", "highpass"):
        raise ValueError(f"invalid_kind: kind={kind!r} came; 'lowpass' or 'highpass' was expected; choose one")
    if order < 1:
        raise ValueError(f"invalid_order: order={order} came; 1 or more was expected; each is 6 dB per octave")
    angle = _angle(fs, frequency_hz)
    made: List[Six] = []
    if order % 2 == 1:
        slope = math.tan(angle / 2)
        gain, sign = (slope, 1.0) if kind == "lowpass" else (1.0, -1.0)
        made.append((gain, sign * gain, 0.0, 1 + slope, slope - 1, 0.0))
    for k in range(order // 2):
        # The pairs of poles lie on a circle, the flattest first.
        turn = math.pi * (2 * k + 1) / (2 * order) if order % 2 == 0 else math.pi * (k + 1) / order
        bend = Bend(math.cos(angle), math.sin(angle) * math.cos(turn), 1.0)
        made.append(BIQUADS[kind](bend))
    return _normalised(made)


@configured
def k_weighting(fs: float) -> Tensor:
    """The frequency weighting of loudness, a shelf and a high-pass: ITU-R BS.1770-5, annex 1.

    The standard states coefficients for 48 kHz. Those here come from the analogue filters behind them, so that other
    rates get the same response; at 48 kHz they are the standard's to 10 digits.

    Args:
        fs: sampling rate, in Hz

    Returns:
        ``[2, 6]`` in float64, for `SOSFilter`

    Example:
        >>> from torchstreamer.audio import k_weighting
        >>> round(k_weighting(48_000)[0, 0].item(), 10)
        1.5351248596
    """
    # Frequencies, qualities and gains as found by Mansbridge, Finn and Reiss, "Implementation and evaluation of
    # autonomous multi-track fader control", 2012, and used since by pyloudnorm and libebur128.
    slope, q = math.tan(_angle(fs, 1681.974450955533) / 2), 0.7071752369554196
    high = 10 ** (3.999843853973347 / 20)
    middle = high**0.4996667741545416
    last = 1 - slope / q + slope * slope
    shelf = (
        high + middle * slope / q + slope * slope,
        2 * (slope * slope - high),
        high - middle * slope / q + slope * slope,
        1 + slope / q + slope * slope,
        2 * (slope * slope - 1),
        last,
    )
    slope, q = math.tan(_angle(fs, 38.13547087602444) / 2), 0.5003270373238773
    first = 1 + slope / q + slope * slope
    # The standard leaves this numerator as it is.
    highpass = (first, -2 * first, first, first, 2 * (slope * slope - 1), 1 - slope / q + slope * slope)
    return _normalised([shelf, highpass])


def _angle(fs: float, frequency_hz: float) -> float:
    if not 0 < frequency_hz < fs / 2:
        raise ValueError(
            f"invalid_frequency_hz: {frequency_hz} Hz at a sampling rate of {fs} Hz came; a frequency between 0 and "
            "half the rate was expected; check both"
        )
    return 2 * math.pi * frequency_hz / fs


def _normalised(sections: List[Six]) -> Tensor:
    values = torch.tensor(sections, dtype=torch.float64)
    return values / values[:, 3:4]
