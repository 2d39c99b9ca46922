"""Streams of vocoders: Vocos, HiFi-GAN and BigVGAN."""

from typing import Any, Optional

import torch
from torch import Tensor, nn

from ..core.telling import ProgressCallback
from .named import ModelStreams, made, noise
from .recognising import ensure, found

__all__ = ["bigvgan", "hifigan", "vocos"]


class _Vocoder(nn.Module):
    # Frames [B, C, T] to audio [B, 1, T'].

    def __init__(self, model: Any, frames_first: bool = False) -> None:
        super().__init__()
        self.model = model
        self.frames_first = frames_first

    def forward(self, mel: Tensor) -> Tensor:
        y: Tensor = self.model(mel.transpose(1, 2) if self.frames_first else mel)
        return y if y.dim() == 3 else y.unsqueeze(1)


class _Vocos(nn.Module):
    bandwidth_id: Tensor

    def __init__(self, model: Any, bandwidth_id: Optional[int]) -> None:
        super().__init__()
        self.backbone, self.head = model.backbone, model.head
        self.options = {}
        if bandwidth_id is not None:
            self.register_buffer("bandwidth_id", torch.tensor([bandwidth_id]), persistent=False)
            self.options["bandwidth_id"] = self.bandwidth_id

    def forward(self, features: Tensor) -> Tensor:
        y: Tensor = self.head(self.backbone(features, **self.options))
        return y.unsqueeze(1)


def vocos(
    model: Any,
    bandwidth_id: Optional[int] = None,
    sample_rate_hz: Optional[float] = None,
    progress: Optional[ProgressCallback] = None,
) -> ModelStreams:
    """The stream of a Vocos, of the package vocos.

    Args:
        model: the model, in its eval form
        bandwidth_id: which bandwidth of EnCodec the features are of, for a model that was trained for several
        sample_rate_hz: of the audio; by default what its feature extractor says, if it does
        progress: is told what is at work; see `create_stream`

    Returns:
        ``decoder``, from features ``[B, C, frames]`` to audio ``[B, 1, samples]``, and its rates

    Raises:
        StreamInputError: ``unknown_published_model``: it is none

    Example:
        >>> import torchstreamer as pts
        >>> from vocos import Vocos                                                   # doctest: +SKIP
        >>> model = Vocos.from_pretrained("charactr/vocos-mel-24khz").eval()          # doctest: +SKIP
        >>> audio = pts.models.vocos(model).decoder(mel)                              # doctest: +SKIP
    """
    ensure(model, "vocos", ("feature_extractor", "backbone.embed", "head"), "Vocos of the package vocos")
    for path in ("feature_extractor.mel_spec.sample_rate", "feature_extractor.encodec.sample_rate"):
        sample_rate_hz = sample_rate_hz or found(model, path)
    return _named("Vocos", "decoder", _Vocos(model, bandwidth_id), model.backbone.embed, sample_rate_hz, progress)


def hifigan(
    model: Any, sample_rate_hz: Optional[float] = None, progress: Optional[ProgressCallback] = None
) -> ModelStreams:
    """The stream of the generator of a HiFi-GAN.

    Args:
        model: in its eval form: ``Generator`` of its authors, as many packages have it (Matcha-TTS, Coqui, VITS), that
            of SpeechBrain, ``SpeechT5HifiGan`` or ``FastSpeech2ConformerHifiGan`` of transformers
        sample_rate_hz: of the audio; by default what its config says, if it does
        progress: is told what is at work; see `create_stream`

    Returns:
        ``generator``, from mel spectra ``[B, mels, frames]`` to audio ``[B, 1, samples]``, and its rates

    Raises:
        StreamInputError: ``unknown_published_model``: it is none

    Example:
        >>> import torchstreamer as pts
        >>> from transformers import SpeechT5HifiGan                                      # doctest: +SKIP
        >>> model = SpeechT5HifiGan.from_pretrained("microsoft/speecht5_hifigan").eval()  # doctest: +SKIP
        >>> audio = pts.models.hifigan(model).generator(mel)                              # doctest: +SKIP
    """
    parts = ("conv_pre", "conv_post", "resblocks")
    ensure(model, "hifigan", parts, "the generator of a HiFi-GAN, of its authors, SpeechBrain or transformers,")
    frames_first = found(model, "config.model_in_dim") is not None
    return _generator("HiFi-GAN", model, frames_first, sample_rate_hz, progress)


def bigvgan(
    model: Any, sample_rate_hz: Optional[float] = None, progress: Optional[ProgressCallback] = None
) -> ModelStreams:
    """The stream of the generator of a BigVGAN, of the package bigvgan or its authors' repository.

    Args:
        model: the model, in its eval form, without its CUDA kernels
        sample_rate_hz: of the audio; by default what its hyperparameters say, if they do
        progress: is told what is at work; see `create_stream`

    Returns:
        ``generator``, from mel spectra ``[B, mels, frames]`` to audio ``[B, 1, samples]``, and its rates

    Raises:
        StreamInputError: ``unknown_published_model``: it is none

    Example:
        >>> import torchstreamer as pts
        >>> from bigvgan import BigVGAN                                                              # doctest: +SKIP
        >>> model = BigVGAN.from_pretrained("nvidia/bigvgan_v2_24khz_100band_256x").eval()           # doctest: +SKIP
        >>> audio = pts.models.bigvgan(model).generator(mel)                                         # doctest: +SKIP
    """
    ensure(model, "bigvgan", ("conv_pre", "conv_post", "resblocks", "activation_post"), "BigVGAN")
    return _generator("BigVGAN", model, False, sample_rate_hz, progress)


def _generator(
    title: str, model: Any, frames_first: bool, fs: Optional[float], progress: Optional[ProgressCallback]
) -> ModelStreams:
    fs = fs or found(model, "config.sampling_rate") or found(model, "h.sampling_rate")
    return _named(title, "generator", _Vocoder(model, frames_first), model.conv_pre, fs, progress)


def _named(
    title: str, name: str, net: nn.Module, first: Any, fs: Optional[float], progress: Optional[ProgressCallback]
) -> ModelStreams:
    channels = found(first, "in_channels") or found(first, "conv.in_channels")
    stream = made(net, noise(net, 1, int(channels), 30), progress)
    return ModelStreams(title, {name: stream}, None if fs is None else float(fs))
