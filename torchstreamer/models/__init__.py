"""Models that come trained, in one line."""

from .denoiser import Denoiser, pretrained_denoiser
from .scores import si_sdr

__all__ = ["Denoiser", "pretrained_denoiser", "si_sdr"]
