"""Sound: operations on samples and frames, each with an offline forward and an exact stream."""

from .designs import biquad, butterworth, k_weighting
from .fir import FIR, FIRStream
from .levels import Level, LevelStream, Loudness
from .recursive import LFilter, RecursiveFilterStream, SOSFilter
from .shaping import Fade, FadeStream, Gain, Preemphasis, RemoveDC

__all__ = [
    "FIR",
    "FIRStream",
    "Fade",
    "FadeStream",
    "Gain",
    "LFilter",
    "Level",
    "LevelStream",
    "Loudness",
    "Preemphasis",
    "RecursiveFilterStream",
    "RemoveDC",
    "SOSFilter",
    "biquad",
    "butterworth",
    "k_weighting",
]
