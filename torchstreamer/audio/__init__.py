"""Sound: operations on samples and frames, each with an offline forward and an exact stream."""

from .designs import biquad, butterworth, k_weighting
from .fir import FIR, FIRStream
from .recursive import LFilter, RecursiveFilterStream, SOSFilter

__all__ = ["FIR", "FIRStream", "LFilter", "RecursiveFilterStream", "SOSFilter", "biquad", "butterworth", "k_weighting"]
