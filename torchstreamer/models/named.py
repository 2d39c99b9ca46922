"""The streams of a published model under its own names, with their rates and latencies."""

from dataclasses import dataclass
from typing import Any, Callable, Dict, Optional, Tuple

import torch
from torch import Tensor, nn

from ..analysis.graph_geometry import output_samples
from ..analysis.symbolic import stream_period
from ..core.registry import create_stream
from ..core.stream import BaseStream
from ..core.telling import ProgressCallback
from ..errors import StreamInputError

__all__ = ["Codec", "ModelStreams", "StreamRates", "made", "noise", "rates"]

# Where the start of a signal is long over, in samples of the input.
_FAR = 1 << 17


@dataclass(frozen=True)
class StreamRates:
    """Rates and latency of a stream, or of streams one after the other.

    Attributes:
        input_hz: samples of the first input per second; ``None`` if the model does not know its rate
        output_hz: samples of the first output per second
        hop: samples of the input after which everything repeats
        ratio: samples of the output, and of the input, of one such period
        latency: how many samples of the input must have come after the place of an output before it is out, at most
    """

    input_hz: Optional[float]
    output_hz: Optional[float]
    hop: int
    ratio: Tuple[int, int]
    latency: int

    @property
    def latency_ms(self) -> Optional[float]:
        """The latency in milliseconds."""
        return None if self.input_hz is None else 1e3 * self.latency / self.input_hz

    def __str__(self) -> str:
        rates = "" if self.input_hz is None else f"{self.input_hz:g} Hz -> {self.output_hz:g} Hz, "
        ms = "" if self.latency_ms is None else f" ({self.latency_ms:.4g} ms)"
        return f"{rates}hop {self.hop}, latency {_samples(self.latency)}{ms}"


def _samples(count: int) -> str:
    return f"{count} sample" if count == 1 else f"{count} samples"


class ModelStreams(nn.Module):
    """Streams of a published model, each an attribute under its name.

    Args:
        title: what the model is called
        streams: by name
        sample_rate_hz: of the audio, if it is known
        audio: of which stream the audio is the input; of the others it is the output
        frame_rate_hz: of what is no audio, where no stream has audio on either side

    Attributes:
        names: of the streams
        sample_rate_hz: samples of audio per second, if that is known
        frame_rate_hz: frames, such as those of codes or of a mel spectrogram, per second, if that is known
        rates: `StreamRates` of each stream by its name; of a codec also ``"codec"``, from audio to audio
    """

    def __init__(
        self,
        title: str,
        streams: Dict[str, BaseStream],
        sample_rate_hz: Optional[float] = None,
        audio: Tuple[str, ...] = (),
        frame_rate_hz: Optional[float] = None,
    ) -> None:
        super().__init__()
        self.title = title
        self.names = tuple(streams)
        self.sample_rate_hz = sample_rate_hz
        self.rates: Dict[str, StreamRates] = {}
        for name, stream in streams.items():
            setattr(self, name, stream)
            self.rates[name] = rates(stream, sample_rate_hz, name in audio, frame_rate_hz)
        first = self.rates[self.names[0]]
        self.frame_rate_hz = frame_rate_hz or (first.output_hz if self.names[0] in audio else first.input_hz)

    def reset(self) -> None:
        """Begin a new signal in all streams."""
        for name in self.names:
            getattr(self, name).reset()

    def get_state(self) -> Dict[str, Tensor]:
        """Copies of the states of all streams, under their names."""
        return {f"{name}.{key}": value for name in self.names for key, value in getattr(self, name).get_state().items()}

    def set_state(self, state: Dict[str, Tensor]) -> None:
        """Take back what `get_state` gave.

        Raises:
            StreamInputError: it is the state of something else
        """
        for name in self.names:
            begin = f"{name}."
            own = {key[len(begin) :]: value for key, value in state.items() if key.startswith(begin)}
            getattr(self, name).set_state(own)

    def __str__(self) -> str:
        return "\n".join([self.title, *(f"  {name}: {each}" for name, each in self.rates.items())])

    __repr__ = __str__


class Codec(ModelStreams):
    """The streams of a codec: ``encoder`` from audio to codes, ``decoder`` from codes to audio.

    Called as ``codec(chunk, final=False)`` it takes audio and gives the audio that its codes decode to: all of it
    together is what the model gives for the whole signal, cut to its length as the models do.

    Attributes:
        encoder: stream from audio ``[B, C, T]`` to codes ``[B, codebooks, frames]``
        decoder: stream from codes to audio

    Shape:
        - chunk: ``[B, C, T]``, or ``None`` for nothing new
        - output: ``[B, C, T']``, or ``None`` when nothing comes out
    """

    encoder: BaseStream
    decoder: BaseStream

    def __init__(
        self, title: str, encoder: BaseStream, decoder: BaseStream, sample_rate_hz: Optional[float] = None
    ) -> None:
        super().__init__(title, {"encoder": encoder, "decoder": decoder}, sample_rate_hz, audio=("encoder",))
        self.rates["codec"] = _chained(encoder, decoder, sample_rate_hz)
        self._came = self._gave = 0

    @property
    def hop(self) -> int:
        """Samples of audio per frame of codes."""
        return self.rates["encoder"].hop

    @property
    def latency(self) -> int:
        """Samples of audio by which decoded audio is behind, at most."""
        return self.rates["codec"].latency

    @property
    def latency_ms(self) -> Optional[float]:
        """The same in milliseconds."""
        return self.rates["codec"].latency_ms

    def reset(self) -> None:
        """Begin a new signal."""
        super().reset()
        self._came = self._gave = 0

    def get_state(self) -> Dict[str, Tensor]:
        """Copies of the states of both streams, and how many samples came and are out."""
        counts = {"came": torch.tensor(self._came), "gave": torch.tensor(self._gave)}
        return {**super().get_state(), **counts}

    def set_state(self, state: Dict[str, Tensor]) -> None:
        """Take back what `get_state` gave.

        Raises:
            StreamInputError: it is the state of something else
        """
        if "came" not in state or "gave" not in state:
            raise StreamInputError(
                f"invalid_state: a state with {', '.join(sorted(state)) or 'nothing'} came; one that get_state() of a "
                "codec gave was expected; pass that"
            )
        super().set_state(state)
        self._came, self._gave = int(state["came"]), int(state["gave"])

    def flush(self) -> Optional[Tensor]:
        """End the signal: the same as ``codec(None, final=True)``."""
        return self(None, final=True)

    def forward(self, x: Optional[Tensor], final: bool = False) -> Optional[Tensor]:
        """Take audio, give decoded audio.

        Args:
            x: the next chunk, or ``None`` for nothing new
            final: whether the signal ends here

        Raises:
            StreamInputError: the chunk does not fit; nothing has changed
        """
        encoder: Any = self.encoder
        decoder: Any = self.decoder
        codes = encoder(x, final=final)
        came = self._came + (0 if x is None else x.shape[-1])
        several = isinstance(codes, (list, tuple))
        y = decoder(*codes, final=final) if several else decoder(codes, final=final)
        kept = came - self._gave
        if y is not None and y.shape[-1] > kept:
            y = y[..., :kept] if kept else None
        gave = self._gave + (0 if y is None else y.shape[-1])
        self._came, self._gave = (0, 0) if final else (came, gave)
        return y


def made(
    net: nn.Module,
    example: Any,
    progress: Optional[ProgressCallback] = None,
    **options: Any,
) -> BaseStream:
    """The stream of a part of a model, in the mode and with the weights that the model has."""
    net.training = False  # of the wrapper alone
    return create_stream(net, example=example, progress=progress, **options)


def noise(net: nn.Module, *shape: int, seed: int = 0) -> Tensor:
    """Random samples as a model takes them: in the dtype and on the device of its weights."""
    weight = next((each for each in [*net.parameters(), *net.buffers()] if each.is_floating_point()), torch.empty(0))
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return drawn.to(weight)


def rates(
    stream: BaseStream, sample_rate_hz: Optional[float], from_audio: bool, frame_rate_hz: Optional[float] = None
) -> StreamRates:
    """Rates and latency of a stream that has audio on one side, or, with a rate of frames, on none.

    Args:
        stream: the stream
        sample_rate_hz: of the audio
        from_audio: whether the audio is its input
        frame_rate_hz: of its input, where that and its output are no audio
    """
    hop, (ins, outs) = stream_period(stream)
    latency = _latency(lambda n: output_samples(stream, 0, n, False), (ins, outs))
    if frame_rate_hz is not None:
        return StreamRates(frame_rate_hz, frame_rate_hz * outs / ins, hop, (outs, ins), latency)
    if sample_rate_hz is None:
        return StreamRates(None, None, hop, (outs, ins), latency)
    if from_audio:
        return StreamRates(sample_rate_hz, sample_rate_hz * outs / ins, hop, (outs, ins), latency)
    return StreamRates(sample_rate_hz * ins / outs, sample_rate_hz, hop, (outs, ins), latency)


def _chained(encoder: BaseStream, decoder: BaseStream, sample_rate_hz: Optional[float]) -> StreamRates:
    hop, (ins, frames) = stream_period(encoder)
    _, (taken, outs) = stream_period(decoder)
    if ins * taken != frames * outs:
        raise StreamInputError(
            f"unknown_published_model: a codec came that makes {frames * outs} samples of {ins * taken}; one that "
            "gives as much audio as it takes was expected; stream its encoder and its decoder with pts.create_stream"
        )
    latency = _latency(lambda n: output_samples(decoder, 0, output_samples(encoder, 0, n, False), False), (hop, hop))
    return StreamRates(sample_rate_hz, sample_rate_hz, hop, (1, 1), latency)


def _latency(count: Callable[[int], int], period: Tuple[int, int]) -> int:
    ins, outs = period
    start = -(-_FAR // ins) * ins
    before, most = count(start), 0
    for n in range(start + 1, start + ins + 1):
        now = count(n)
        if now > before:  # the oldest of those that come now has waited longest
            most = max(most, n - 1 - before * ins // outs)
        before = now
    return most
