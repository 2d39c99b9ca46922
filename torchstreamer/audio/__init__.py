"""Sound: operations on samples and frames, each with an offline forward and an exact stream."""

from .stft import STFT, STFTStream

__all__ = ["STFT", "STFTStream"]
