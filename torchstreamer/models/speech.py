"""Streams of models of speech: DeepFilterNet, Silero VAD, and a Conformer."""

from typing import Any, Dict, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.context import Context
from ..core.telling import ProgressCallback
from ..errors import StreamInputError
from .named import ModelStreams, made, noise
from .recognising import ensure

__all__ = ["SileroVad", "conformer", "deepfilternet", "silero_vad"]


class SileroVad(nn.Module):
    """The network of Silero VAD 5 and 6 on a whole signal.

    Each window of 32 ms is seen with the 64 samples before it (32 at 8 kHz), zeros at the start.

    Args:
        weights: of the published model, by the names that its TorchScript gives them below ``_model``

    Shape:
        - input: ``[B, 1, T]``
        - output: probabilities of speech, ``[B, 1, T // window]``
    """

    def __init__(self, weights: Dict[str, Tensor]) -> None:
        super().__init__()
        basis = weights["stft.forward_basis_buffer"]
        filters = basis.shape[2]
        self.window, self.context, self.bins = 2 * filters, filters // 4, basis.shape[0] // 2
        self.stft = nn.Conv1d(1, basis.shape[0], filters, stride=filters // 2, bias=False)
        shapes = [weights[f"encoder.{i}.reparam_conv.weight"].shape for i in range(4)]
        self.encoder = nn.ModuleList(
            nn.Conv1d(shape[1], shape[0], shape[2], stride, padding=1)
            for shape, stride in zip(shapes, (1, 2, 2, 1), strict=True)
        )
        hidden = weights["decoder.rnn.weight_hh"].shape[1]
        self.rnn = nn.LSTM(shapes[-1][0], hidden, batch_first=True)
        self.last = nn.Conv1d(hidden, 1, 1)
        own = {"stft.weight": basis}
        for i in range(4):
            for kind in ("weight", "bias"):
                own[f"encoder.{i}.{kind}"] = weights[f"encoder.{i}.reparam_conv.{kind}"]
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            own[f"rnn.{kind}_l0"] = weights[f"decoder.rnn.{kind}"]
        for kind in ("weight", "bias"):
            own[f"last.{kind}"] = weights[f"decoder.decoder.2.{kind}"]
        self.load_state_dict(own)

    def forward(self, x: Tensor) -> Tensor:
        """Probabilities of speech."""
        rows = x.shape[0]
        windows = F.pad(x, (self.context, 0)).unfold(-1, self.window + self.context, self.window)
        count = windows.shape[2]
        y = windows.reshape(rows * count, 1, self.window + self.context)
        y = self.stft(F.pad(y, (0, self.context), mode="reflect"))
        y = torch.sqrt(y[:, : self.bins].square() + y[:, self.bins :].square())
        for conv in self.encoder:
            y = conv(y).relu()
        y = self.rnn(y.reshape(rows, count, -1))[0].transpose(1, 2)
        probability: Tensor = torch.sigmoid(self.last(y.relu()))
        return probability


def silero_vad(model: Any, sample_rate_hz: int = 16000, progress: Optional[ProgressCallback] = None) -> ModelStreams:
    """The stream of a Silero VAD of version 5 or 6, of the package silero-vad.

    Args:
        model: what ``load_silero_vad()`` gives, the TorchScript of the package, of which the weights are copied; or a
            `SileroVad`
        sample_rate_hz: 16000 or 8000
        progress: is told what is at work; see `create_stream`

    Returns:
        ``vad``, from audio ``[B, 1, samples]``, in chunks of any size, to probabilities of speech
        ``[B, 1, windows]`` of 32 ms each, and its rates

    Raises:
        StreamInputError: ``unknown_published_model``: it is none; ``invalid_sample_rate``

    Example:
        >>> import torchstreamer as pts
        >>> from silero_vad import load_silero_vad                     # doctest: +SKIP
        >>> vad = pts.models.silero_vad(load_silero_vad()).vad         # doctest: +SKIP
        >>> probabilities = vad(chunk)                                 # doctest: +SKIP
    """
    if sample_rate_hz not in (8000, 16000):
        raise StreamInputError(
            f"invalid_sample_rate: sample_rate_hz={sample_rate_hz} came; 16000 or 8000 was expected; resample the audio"
        )
    net = model
    if not isinstance(model, SileroVad):
        name = "_model" if sample_rate_hz == 16000 else "_model_8k"
        ensure(model, "silero_vad", (name,), "the TorchScript that load_silero_vad() of silero-vad gives")
        part = getattr(model, name)
        ensure(part, "silero_vad", ("stft", "encoder", "decoder"), "the TorchScript that load_silero_vad() gives")
        net = SileroVad(part.state_dict()).requires_grad_(False)
    net.eval()
    stream = made(net, noise(net, 1, 1, 10 * net.window), progress)
    return ModelStreams("Silero VAD", {"vad": stream}, float(sample_rate_hz), audio=("vad",))


class _Enhanced(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, spec: Tensor, feat_erb: Tensor, feat_spec: Tensor) -> Tensor:
        # It may write into its spectrum.
        enhanced: Tensor = self.model(spec.clone(), feat_erb, feat_spec)[0]
        return enhanced


def deepfilternet(
    model: Any, sample_rate_hz: float = 48000, progress: Optional[ProgressCallback] = None
) -> ModelStreams:
    """The stream of a DeepFilterNet 2 or 3, of the package DeepFilterNet: its network, from spectra to spectra.

    Args:
        model: ``DfNet``, in its eval form, with its run_df as published
        sample_rate_hz: of the audio behind the spectra
        progress: is told what is at work; see `create_stream`

    Returns:
        ``enhancer``, called with three chunks, ``enhancer(spec, feat_erb, feat_spec)``: spectra ``[B, 1, frames, bins,
        2]``, and their features ``[B, 1, frames, bands]`` and ``[B, 1, frames, low bins, 2]``, as ``df_features`` of
        the package makes them; it gives the enhanced spectra. And its rates

    Raises:
        StreamInputError: ``unknown_published_model``: it is none

    Example:
        >>> import torchstreamer as pts
        >>> from df import init_df                                     # doctest: +SKIP
        >>> model = init_df()[0].eval()                                # doctest: +SKIP
        >>> enhancer = pts.models.deepfilternet(model).enhancer        # doctest: +SKIP
        >>> spec = enhancer(spec, feat_erb, feat_spec)                 # doctest: +SKIP
    """
    needed = ("enc", "erb_dec", "df_dec", "erb_fb", "freq_bins", "nb_df")
    ensure(model, "deepfilternet", needed, "DfNet of DeepFilterNet 2 or 3")
    bins, bands = int(model.freq_bins), int(model.erb_fb.shape[1])
    shapes: Tuple[Tuple[int, ...], ...] = ((1, 1, 40, bins, 2), (1, 1, 40, bands), (1, 1, 40, int(model.nb_df), 2))
    example = tuple(noise(model, *shape, seed=i) for i, shape in enumerate(shapes))
    stream = made(_Enhanced(model), example, progress, time_dim=(2, 2, 2))
    hop = bins - 1  # half of the transform, as published
    return ModelStreams(
        "DeepFilterNet", {"enhancer": stream}, float(sample_rate_hz), frame_rate_hz=sample_rate_hz / hop
    )


class _Layers(nn.Module):
    # torchaudio's, without the lengths of rows: they are all as long as the signal.

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.layers = model.conformer_layers

    def forward(self, x: Tensor) -> Tensor:
        y = x.transpose(0, 1)
        for layer in self.layers:
            y = layer(y, None)
        return y.transpose(0, 1)


def conformer(
    model: Any,
    context: Context,
    frame_rate_hz: Optional[float] = None,
    progress: Optional[ProgressCallback] = None,
) -> ModelStreams:
    """The stream of torchaudio's Conformer, whose attention gets a bounded context.

    Args:
        model: the model, in its eval form
        context: what each frame sees in every attention. The model sees the whole signal by itself, so it should have
            been trained with such a mask; the stream is exact to the model with it
        frame_rate_hz: frames per second, for latencies in milliseconds
        progress: is told what is at work; see `create_stream`

    Returns:
        ``encoder``, from frames ``[B, T, C]`` to frames, and its rates

    Raises:
        StreamInputError: ``unknown_published_model``: it is none

    Example:
        >>> import torchstreamer as pts
        >>> from torchaudio.models import Conformer                                           # doctest: +SKIP
        >>> context = pts.Context(left=64)                                                    # doctest: +SKIP
        >>> encoder = pts.models.conformer(model.eval(), context, frame_rate_hz=25).encoder   # doctest: +SKIP
    """
    ensure(model, "conformer", ("conformer_layers",), "Conformer of torchaudio")
    first = next((each for each in model.modules() if isinstance(each, nn.LayerNorm)), None)
    width = first.normalized_shape[-1] if first is not None else 1
    stream = made(_Layers(model), noise(model, 1, 60, width), progress, time_dim=1, context=context)
    return ModelStreams("Conformer", {"encoder": stream}, frame_rate_hz=frame_rate_hz)
