"""Sound: operations on samples and frames, each with an offline forward and an exact stream; and files of sound."""

from .devices import Microphone, Speaker
from .files import SoundReader, SoundWriter
from .pcm import PcmFormat, PcmReader, PcmWriter
from .resample import Resample, ResampleStream, resample

__all__ = [
    "Microphone",
    "PcmFormat",
    "PcmReader",
    "PcmWriter",
    "Resample",
    "ResampleStream",
    "SoundReader",
    "SoundWriter",
    "Speaker",
    "resample",
]
