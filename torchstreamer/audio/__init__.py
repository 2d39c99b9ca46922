"""Sound: operations on samples and frames, each with an offline forward and an exact stream; and files of sound."""

from .devices import Microphone, Speaker
from .files import SoundReader, SoundWriter
from .istft import ISTFT
from .pcm import PcmFormat, PcmReader, PcmWriter
from .resample import Resample, ResampleStream, resample
from .spectral import Spectral1d
from .stft import STFT, STFTStream

__all__ = [
    "ISTFT",
    "STFT",
    "Microphone",
    "PcmFormat",
    "PcmReader",
    "PcmWriter",
    "Resample",
    "ResampleStream",
    "STFTStream",
    "SoundReader",
    "SoundWriter",
    "Speaker",
    "Spectral1d",
    "resample",
]
