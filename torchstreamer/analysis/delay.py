"""Latency: when a stream gives its outputs."""

import copy
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Callable, List, Optional, Tuple

import torch
from torch import Tensor

from ..core.stream import BaseStream
from ..graph.graph_stream import GraphStream
from ..graph.several import PortedGraphStream
from .arguments import ensure_stream, rate, whole_number
from .graph_geometry import output_samples
from .phases import Period, place
from .symbolic import stream_period

__all__ = ["Latency", "latency"]

_LONGEST = 1 << 24


@dataclass(frozen=True)
class Latency:
    """When outputs come, in samples of the (first) input.

    Attributes:
        first_output: samples that must have come before anything comes out
        period: inputs, and outputs that belong to them
        delays: of each output of a period, how many samples after its own place, ``o * period[0] // period[1]``, must
            have come before it is out; the algorithmic delay, far from the start
        chunk: samples per call
        first_chunk: samples that have come, in whole chunks, when anything comes out
        worst: the same as ``lookahead`` for calls of ``chunk`` samples, at worst: also samples that wait for the end of
            the chunk
        buffering: what a consumer that wants equally much after every call must wait beyond the least wait that the
            stream has anyway, because chunks are no multiples of its hop: ``hop - gcd(chunk, hop)`` where output comes
            in blocks of a hop
        fs: samples per second, if known
    """

    first_output: int
    period: Period
    delays: Tuple[int, ...]
    chunk: int
    first_chunk: int
    worst: int
    buffering: Fraction
    fs: Optional[float] = None

    @property
    def lookahead(self) -> int:
        """The largest of the delays."""
        return max(self.delays)

    def seconds(self, samples: float) -> float:
        """Samples of the input as seconds.

        Raises:
            ValueError: ``fs`` is not known
        """
        if self.fs is None:
            raise ValueError("no_fs: the sampling rate is not known; samples per second were expected; pass fs=")
        return float(samples) / self.fs

    def __str__(self) -> str:
        def told(name: str, samples: float) -> str:
            number = f"{samples:g} sample" if samples == 1 else f"{samples:g} samples"
            return f"{name:24s}{number}" + ("" if self.fs is None else f" = {1e3 * self.seconds(samples):.4g} ms")

        lines = [
            told("first output after", self.first_output),
            told(f"  in chunks of {self.chunk}", self.first_chunk),
            told("look-ahead", self.lookahead),
            told(f"  in chunks of {self.chunk}", self.worst),
            told("buffering", float(self.buffering)),
        ]
        return "\n".join(lines)


def latency(
    stream: BaseStream,
    chunk: int = 1,
    fs: Optional[float] = None,
    *,
    x: Optional[Tensor] = None,
    output: int = 0,
) -> Latency:
    """When a stream gives its outputs: at the start, later on, and with a given chunk.

    Args:
        stream: the stream
        chunk: samples per call
        fs: samples per second, for seconds
        x: a signal as the stream takes it, by custom ``[B, C, T]``, to measure on, sample by sample, with a copy of the
            stream; without it, what ``output_length`` says counts. Only for streams of one input
        output: of which output, where there are several

    Returns:
        the start, the delay of every output of a period, and what chunks add

    Raises:
        TypeError: not a stream
        ValueError: ``chunk`` below 1, or ``x`` too short to show a period

    Example:
        >>> import torch, torchstreamer as pts
        >>> from torchstreamer.analysis import latency
        >>> stream = pts.create_stream(torch.nn.Conv1d(1, 1, 320, stride=320))
        >>> found = latency(stream, chunk=480, fs=16000)
        >>> found.first_output, found.lookahead, int(found.buffering)
        (320, 319, 160)
        >>> found.seconds(found.first_output)
        0.02
    """
    ensure_stream(stream)
    chunk, fs = whole_number(chunk, "chunk"), rate(fs)
    hop, ratio = stream_period(stream, 0, output)
    counts = _Counts(stream, output, hop, x)
    first = counts.needed(0)
    begin = counts.steady(ratio)
    whole = [counts.needed(begin + i) for i in range(ratio[1])]
    delays = tuple(n - 1 - place(begin + i, ratio) for i, n in enumerate(whole))
    return Latency(
        first_output=first,
        period=ratio,
        delays=delays,
        chunk=chunk,
        first_chunk=-(-first // chunk) * chunk,
        worst=_worst(counts, ratio, chunk, begin),
        buffering=_buffering(counts, ratio, chunk, begin),
        fs=fs,
    )


class _Counts:
    # Outputs after n inputs, as said or as measured.

    def __init__(self, stream: BaseStream, output: int, hop: int, x: Optional[Tensor]) -> None:
        self.hop = hop
        self.limit = _LONGEST
        self.counted: Callable[[int], int] = lambda n: output_samples(stream, output, n, False)
        if x is not None:
            counted = _measured(stream, x, output)
            self.limit = len(counted) - 1
            self.counted = counted.__getitem__

    def __call__(self, n: int) -> int:
        if n > self.limit:
            raise ValueError(
                f"too_short: {self.limit} samples do not show when outputs come; a longer signal was expected, and a "
                "stream that gives anything"
            )
        return self.counted(n)

    def needed(self, output: int) -> int:
        """The least number of inputs after which an output is out."""
        high = 1
        while self(high) <= output:
            high = min(2 * high, self.limit) if high < self.limit else high + 1
        low = high // 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self(middle) <= output else (low, middle)
        return high

    def steady(self, period: Period) -> int:
        """An output, the first of its period, from which on all periods are alike."""
        ins, outs = period
        # Delays that repeat once may still be those of the start: begin well after it.
        begin = -(-2 * self.needed(0) // ins) * outs
        while True:
            two = [self.needed(begin + i) - place(begin + i, period) for i in range(2 * outs)]
            if two[:outs] == two[outs:]:
                return begin
            begin = max(2 * begin, outs)


def _measured(stream: BaseStream, x: Tensor, output: int) -> List[int]:
    twin: Any = copy.deepcopy(stream)
    twin.reset()
    came = given = -1
    if isinstance(twin, PortedGraphStream):
        ports: Any = twin.ports
        if len(ports) != 1:
            raise ValueError(
                f"invalid_input: one signal came for a stream of {len(ports)} inputs; a stream of one input was "
                "expected; leave x out"
            )
        came, given = ports[0].time, twin.time_axes[output]
    counts = [0]
    with torch.no_grad():
        for sample in torch.split(x, 1, came):
            # Outputs that wait are leaves, too.
            y = twin.leaves([sample], False)[output] if isinstance(twin, GraphStream) else twin(sample)
            counts.append(counts[-1] + (0 if y is None else y.shape[given]))
    return counts


def _worst(counts: _Counts, period: Period, chunk: int, begin: int) -> int:
    # Chunks and periods meet again after lcm(chunk, ins) inputs: for every phase of an output, every phase of a chunk.
    ins, outs = period
    step = math.gcd(chunk, ins)
    waits = []
    for i in range(outs):
        due = counts.needed(begin + i)
        # `due` moves by multiples of the period, which against chunks are multiples of `step`.
        waits.append(due + (-due) % step + chunk - step - 1 - place(begin + i, period))
    return max(waits)


def _buffering(counts: _Counts, period: Period, chunk: int, begin: int) -> Fraction:
    ins, outs = period
    start = counts.needed(begin)
    start = -(-start // ins) * ins

    def waiting(n: int) -> Fraction:
        return n - Fraction(counts(n) * ins, outs)

    # What came and has no output yet, in samples of the input; it repeats with the period.
    every = [waiting(start + n) for n in range(ins)]
    met = max(every[n * chunk % ins] for n in range(ins // math.gcd(ins, chunk)))
    return met - min(every)
