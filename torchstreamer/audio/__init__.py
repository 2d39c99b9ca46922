"""Sound: operations on samples and frames, each with an offline forward and an exact stream."""

from .bins import DCT, MelScale
from .deltas import Deltas
from .fbank import KaldiFbank
from .features import MFCC, LogMel, Magnitude, MelSpectrogram, Spectrogram, Standardize
from .istft import ISTFT
from .logarithms import DynamicRange, Logarithm
from .mel import hz_to_mel, mel_filters, mel_to_hz
from .pcen import PCEN
from .spectral import Spectral1d
from .stft import STFT, STFTStream

__all__ = [
    "DCT",
    "Deltas",
    "DynamicRange",
    "ISTFT",
    "KaldiFbank",
    "LogMel",
    "Logarithm",
    "MFCC",
    "Magnitude",
    "MelScale",
    "MelSpectrogram",
    "PCEN",
    "STFT",
    "STFTStream",
    "Spectral1d",
    "Spectrogram",
    "Standardize",
    "hz_to_mel",
    "mel_filters",
    "mel_to_hz",
]
