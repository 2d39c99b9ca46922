"""Streams of neural codecs: EnCodec, Mimi, DAC and SNAC."""

import math
from typing import Any, List, Optional, Tuple

import torch
from torch import Tensor, nn

from ..core.stream import BaseStream
from ..core.telling import ProgressCallback
from ..errors import StreamInputError, UnsupportedModuleError
from ..layers.replacing import replace_modules
from .named import Codec, made, noise
from .recognising import ensure, found

__all__ = ["dac", "encodec", "mimi", "snac"]

_PARTS = ("encoder", "decoder", "quantizer.encode", "quantizer.decode")


class _Part(nn.Module):
    # A part of a codec: audio to codes [B, codebooks, frames], or codes to audio.

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model


class _EncodecEncoder(_Part):
    def __init__(self, model: Any, options: Tuple[Any, ...]) -> None:
        super().__init__(model)
        self.options = options

    def forward(self, x: Tensor) -> Tensor:
        return self.model.quantizer.encode(self.model.encoder(x), *self.options).transpose(0, 1)


class _EncodecDecoder(_Part):
    def forward(self, codes: Tensor) -> Tensor:
        return self.model.decoder(self.model.quantizer.decode(codes.transpose(0, 1)))


class _MimiEncoder(_Part):
    # As transformers has it.

    def __init__(self, model: Any, codebooks: Optional[int]) -> None:
        super().__init__(model)
        self.codebooks = codebooks

    def forward(self, x: Tensor) -> Tensor:
        return self.model.quantizer.encode(self.model.encoder(x).latents, self.codebooks).transpose(0, 1)


class _MimiDecoder(_Part):
    def forward(self, codes: Tensor) -> Tensor:
        return self.model.decoder(self.model.quantizer.decode(codes)).audio_values


class _MoshiEncoder(_Part):
    # `encode` of the package, step by step: its resampling asks for len(x), which fixes the number of rows, and repeats
    # the first sample by writing it into a state.

    def __init__(self, model: Any, codebooks: Optional[int]) -> None:
        super().__init__(model)
        self.codebooks = codebooks

    def forward(self, x: Tensor) -> Tensor:
        frame = self.model.frame_size
        y = self.model.encoder(nn.functional.pad(x, (0, math.ceil(x.shape[-1] / frame) * frame - x.shape[-1])))
        if self.model.encoder_transformer is not None:
            (y,) = self.model.encoder_transformer(y)
        codes = self.model.quantizer.encode(_resampled(y, self.model, "downsample", "conv"))
        return codes if self.codebooks is None else codes[:, : self.codebooks]


class _MoshiDecoder(_Part):
    def forward(self, codes: Tensor) -> Tensor:
        y = _resampled(self.model.quantizer.decode(codes), self.model, "upsample", "convtr")
        if self.model.decoder_transformer is not None:
            (y,) = self.model.decoder_transformer(y)
        return self.model.decoder(y)


def _resampled(y: Tensor, model: Any, name: str, inner: str) -> Tensor:
    module = getattr(model, name, None)
    if module is None or not getattr(module, "learnt", False):
        return y if module is None else module(y)
    conv = getattr(module, inner)
    if getattr(conv, "pad_mode", None) == "replicate":
        return conv.conv(nn.functional.pad(y, (conv._padding_total, 0), mode="replicate"))
    return conv(y)


class _DacEncoder(_Part):
    def __init__(self, model: Any, codebooks: Optional[int], padded: bool) -> None:
        super().__init__(model)
        self.codebooks = codebooks
        self.padded = padded

    def forward(self, x: Tensor) -> Tensor:
        if self.padded:
            x = self.model.preprocess(x, None)
        return self.model.quantizer(self.model.encoder(x), self.codebooks)[1]


class _DacDecoder(_Part):
    def forward(self, codes: Tensor) -> Tensor:
        return self.model.decoder(self.model.quantizer.from_codes(codes)[0])


class _SnacEncoder(_Part):
    def forward(self, x: Tensor) -> List[Tensor]:
        return self.model.encode(x)


class _SnacDecoder(_Part):
    def forward(self, *codes: Tensor) -> Tensor:
        return self.model.decode(list(codes))


def encodec(model: Any, bandwidth: Optional[float] = None, progress: Optional[ProgressCallback] = None) -> Codec:
    """The streams of an EnCodec of 24 kHz or 32 kHz: ``EncodecModel`` of transformers, or of the package encodec.

    Args:
        model: the model, in its eval form
        bandwidth: kilobits per second, which says how many codebooks are used; by default what the model was set to,
            or the first that it has
        progress: is told what is at work; see `create_stream`

    Returns:
        ``encoder``, ``decoder``, their rates, and a call from audio to audio

    Raises:
        StreamInputError: ``unknown_published_model``: it is none
        UnsupportedModuleError: it normalises by the loudness of the whole signal, as the one of 48 kHz does

    Example:
        >>> import torchstreamer as pts
        >>> from transformers import EncodecModel                                        # doctest: +SKIP
        >>> codec = pts.models.encodec(EncodecModel.from_pretrained("facebook/encodec_24khz").eval())  # doctest: +SKIP
        >>> codes = codec.encoder(chunk)              # [B, codebooks, frames], or None   # doctest: +SKIP
        >>> audio = codec.decoder(codes)                                                 # doctest: +SKIP
    """
    ensure(model, "encodec", _PARTS, "EncodecModel of transformers, or of the package encodec,")
    if found(model, "config.normalize") or getattr(model, "normalize", False):
        raise UnsupportedModuleError(
            "time_mixing",
            model,
            "it normalises each segment by its loudness, which is known when the segment is over",
            "stream the model of 24 kHz, or each segment as a whole",
        )
    fs = found(model, "config.sampling_rate") or getattr(model, "sample_rate", None)
    options: Tuple[Any, ...]
    if found(model, "config") is not None:
        options = (bandwidth if bandwidth is not None else found(model, "config.target_bandwidths")[0],)
    else:
        options = (model.frame_rate, bandwidth if bandwidth is not None else model.bandwidth)
    known = found(model, "config.target_bandwidths") or getattr(model, "target_bandwidths", None)
    if bandwidth is not None and known is not None and bandwidth not in known:
        raise StreamInputError(
            f"invalid_bandwidth: bandwidth={bandwidth} came; one of {', '.join(map(str, known))} was expected; pass one"
        )
    frames = found(model, "config.frame_rate") or getattr(model, "frame_rate", None)
    hop = round(fs / frames) if fs and frames else 320
    encoder = made(_EncodecEncoder(model, options), noise(model, 1, _channels(model), 30 * hop), progress)
    return _codec("EnCodec", model, encoder, _EncodecDecoder(model), fs, progress)


def mimi(model: Any, codebooks: Optional[int] = None, progress: Optional[ProgressCallback] = None) -> Codec:
    """The streams of a Mimi: ``MimiModel`` of transformers, or of the package moshi.

    Args:
        model: the model, in its eval form
        codebooks: how many are used; by default all that the model uses
        progress: is told what is at work; see `create_stream`

    Returns:
        ``encoder``, ``decoder``, their rates, and a call from audio to audio

    Raises:
        StreamInputError: ``unknown_published_model``: it is none

    Example:
        >>> import torchstreamer as pts
        >>> from transformers import MimiModel                                         # doctest: +SKIP
        >>> codec = pts.models.mimi(MimiModel.from_pretrained("kyutai/mimi").eval())   # doctest: +SKIP
        >>> codes = codec.encoder(chunk)              # [B, codebooks, frames], or None  # doctest: +SKIP
        >>> audio = codec.decoder(codes)                                               # doctest: +SKIP
    """
    ensure(model, "mimi", _PARTS, "MimiModel of transformers, or of the package moshi,")
    of_moshi = found(model, "config") is None
    fs = getattr(model, "sample_rate", None) if of_moshi else found(model, "config.sampling_rate")
    frame = round(fs / (model.frame_rate if of_moshi else found(model, "config.frame_rate"))) if fs else 1920
    encoder = (_MoshiEncoder if of_moshi else _MimiEncoder)(model, codebooks)
    decoder = (_MoshiDecoder if of_moshi else _MimiDecoder)(model)
    stream = made(encoder, noise(model, 1, _channels(model), 30 * frame), progress)
    return _codec("Mimi", model, stream, decoder, fs, progress)


def dac(model: Any, codebooks: Optional[int] = None, progress: Optional[ProgressCallback] = None) -> Codec:
    """The streams of a Descript Audio Codec: ``DacModel`` of transformers, or ``DAC`` of descript-audio-codec.

    Args:
        model: the model, in its eval form
        codebooks: how many are used; by default all
        progress: is told what is at work; see `create_stream`

    Returns:
        ``encoder``, ``decoder``, their rates, and a call from audio to audio. The model of the package itself is
        streamed as its ``forward`` does it: padded to whole frames at the end

    Raises:
        StreamInputError: ``unknown_published_model``: it is none

    Example:
        >>> import torchstreamer as pts
        >>> from transformers import DacModel                                            # doctest: +SKIP
        >>> codec = pts.models.dac(DacModel.from_pretrained("descript/dac_44khz").eval())  # doctest: +SKIP
        >>> codes = codec.encoder(chunk)              # [B, codebooks, frames], or None   # doctest: +SKIP
        >>> audio = codec.decoder(codes)                                                 # doctest: +SKIP
    """
    needed = ("encoder", "decoder", "quantizer.quantizers", "quantizer.from_codes")
    ensure(model, "dac", needed, "DacModel of transformers, or DAC of descript-audio-codec,")
    fs = found(model, "config.sampling_rate") or getattr(model, "sample_rate", None)
    hop = int(found(model, "config.hop_length") or getattr(model, "hop_length", 512))
    encoder = _DacEncoder(model, codebooks, hasattr(model, "preprocess"))
    stream = made(encoder, noise(model, 1, 1, 20 * hop), progress)
    return _codec("DAC", model, stream, _DacDecoder(model), fs, progress)


def snac(model: Any, without_noise: bool = False, progress: Optional[ProgressCallback] = None) -> Codec:
    """The streams of a SNAC, of the package snac, whose codes come at several rates.

    Args:
        model: the model, in its eval form
        without_noise: leaves the noise out that the decoder adds, and draws anew in every run, so that no stream can be
            exact to it; for a copy of the model then
        progress: is told what is at work; see `create_stream`

    Returns:
        ``encoder``, which gives a list of codes ``[B, frames]``, the slowest first, ``decoder``, called as
        ``decoder(*codes)``, their rates, and a call from audio to audio

    Raises:
        StreamInputError: ``unknown_published_model``: it is none
        UnsupportedModuleError: its decoder adds noise

    Example:
        >>> import torchstreamer as pts
        >>> from snac import SNAC                                                        # doctest: +SKIP
        >>> model = SNAC.from_pretrained("hubertsiuzdak/snac_24khz").eval()              # doctest: +SKIP
        >>> codec = pts.models.snac(model, without_noise=True)                           # doctest: +SKIP
        >>> audio = codec(chunk)                                                         # doctest: +SKIP
    """
    needed = ("encoder", "decoder", "quantizer.quantizers", "quantizer.from_codes", "preprocess", "vq_strides")
    ensure(model, "snac", needed, "SNAC of the package snac")
    noisy = [module for module in model.modules() if type(module).__name__ == "NoiseBlock"]
    if noisy and without_noise:
        model = replace_modules(model, {type(noisy[0]): lambda _: nn.Identity()})
    elif noisy:
        raise UnsupportedModuleError(
            "random",
            noisy[0],
            "it adds noise that is drawn anew in every run",
            "leave it out, with pts.models.snac(model, without_noise=True)",
        ).within(model)
    whole = int(model.hop_length) * int(torch.tensor([*model.vq_strides, model.attn_window_size or 1]).max())
    encoder = made(_SnacEncoder(model), noise(model, 1, 1, 2 * whole), progress)
    with torch.no_grad():
        codes = tuple(model.encode(noise(model, 1, 1, 8 * whole)))
    decoder = made(_SnacDecoder(model), codes, progress, time_dim=(-1,) * len(codes))
    return Codec("SNAC", encoder, decoder, float(model.sampling_rate))


def _codec(
    title: str, model: Any, encoder: BaseStream, decoder: nn.Module, fs: Any, progress: Optional[ProgressCallback]
) -> Codec:
    encoder.reset()
    net: Any = encoder
    with torch.no_grad():
        codes = net(noise(model, 1, _channels(model), 24 * encoder.hop), final=True)
    return Codec(title, encoder, made(decoder, codes, progress), None if fs is None else float(fs))


def _channels(model: Any) -> int:
    return int(found(model, "config.audio_channels") or getattr(model, "channels", None) or 1)
