"""Sound: operations on samples and frames, each with an offline forward and an exact stream."""

from .istft import ISTFT
from .spectral import Spectral1d
from .stft import STFT, STFTStream

__all__ = ["ISTFT", "STFT", "STFTStream", "Spectral1d"]
