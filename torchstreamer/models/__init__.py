"""Published models in one line, and a denoiser that comes trained."""

from .codecs import dac, encodec, mimi, snac
from .denoiser import Denoiser, pretrained_denoiser
from .named import Codec, ModelStreams, StreamRates
from .scores import si_sdr

__all__ = [
    "Codec",
    "Denoiser",
    "ModelStreams",
    "StreamRates",
    "dac",
    "encodec",
    "mimi",
    "pretrained_denoiser",
    "si_sdr",
    "snac",
]
