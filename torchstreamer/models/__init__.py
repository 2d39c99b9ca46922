"""Published models in one line, and a denoiser that comes trained."""

from .codecs import dac, encodec, mimi, snac
from .denoiser import Denoiser, pretrained_denoiser
from .named import Codec, ModelStreams, StreamRates
from .scores import si_sdr
from .speech import SileroVad, conformer, deepfilternet, silero_vad
from .vocoders import bigvgan, hifigan, vocos

__all__ = [
    "Codec",
    "Denoiser",
    "ModelStreams",
    "SileroVad",
    "StreamRates",
    "bigvgan",
    "conformer",
    "dac",
    "deepfilternet",
    "encodec",
    "hifigan",
    "mimi",
    "pretrained_denoiser",
    "si_sdr",
    "silero_vad",
    "snac",
    "vocos",
]
