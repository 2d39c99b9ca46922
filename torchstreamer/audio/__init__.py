"""Sound: operations on samples and frames, each with an offline forward and an exact stream; and files of sound."""

from .bins import DCT, MelScale
from .deltas import Deltas
from .designs import biquad, butterworth, k_weighting
from .devices import Microphone, Speaker
from .fbank import KaldiFbank
from .features import MFCC, LogMel, Standardize
from .files import SoundReader, SoundWriter
from .fir import FIR, FIRStream
from .istft import ISTFT
from .levels import Level, LevelStream, Loudness
from .logarithms import DynamicRange, Logarithm
from .mel import hz_to_mel, mel_filters, mel_to_hz
from .pcen import PCEN
from .pcm import PcmFormat, PcmReader, PcmWriter
from .recursive import LFilter, RecursiveFilterStream, SOSFilter
from .resample import Resample, ResampleStream, resample
from .shaping import Fade, FadeStream, Gain, Preemphasis, RemoveDC
from .spectral import Spectral1d
from .spectrogram import Magnitude, MelSpectrogram, Spectrogram
from .stft import STFT, STFTStream

__all__ = [
    "DCT",
    "Deltas",
    "DynamicRange",
    "FIR",
    "FIRStream",
    "Fade",
    "FadeStream",
    "Gain",
    "ISTFT",
    "KaldiFbank",
    "LFilter",
    "Level",
    "LevelStream",
    "LogMel",
    "Logarithm",
    "Loudness",
    "MFCC",
    "Magnitude",
    "MelScale",
    "MelSpectrogram",
    "Microphone",
    "PCEN",
    "PcmFormat",
    "PcmReader",
    "PcmWriter",
    "Preemphasis",
    "RecursiveFilterStream",
    "RemoveDC",
    "Resample",
    "ResampleStream",
    "SOSFilter",
    "STFT",
    "STFTStream",
    "SoundReader",
    "SoundWriter",
    "Speaker",
    "Spectral1d",
    "Spectrogram",
    "Standardize",
    "biquad",
    "butterworth",
    "hz_to_mel",
    "k_weighting",
    "mel_filters",
    "mel_to_hz",
    "resample",
]
