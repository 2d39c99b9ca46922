"""Trials of a compiled step: how far it is from the stream's own, and what it costs."""

import time
from typing import Callable, List, Optional

import torch
from torch import Tensor

from ..core.closeness import distance, largest
from ..core.stream import BaseStream
from .backends import Program
from .native_stream import NativeStream
from .steady import SteadyStep, fresh

__all__ = ["comes_later", "difference", "difference_of_streams", "seconds", "seconds_of_stream"]

# The longest signal, in samples, that streams are compared on.
_LONGEST = 1 << 14


def difference(steady: SteadyStep, program: Program) -> float:
    """The largest difference of some steps from the stream's own, relative to the largest output."""
    generator = torch.Generator().manual_seed(1)
    steady.place([state.clone() for state in steady.states])
    states = program.pack([state.clone() for state in steady.states])
    worst, scale = 0.0, 1e-30
    with torch.no_grad():
        for _ in range(3):
            x = steady.noise(steady.x.shape, generator)
            expected = steady.stream.step(x.clone(), False)
            y, states = program.run(x, states)
            assert expected is not None
            scale = max(scale, largest(expected))
            worst = max(worst, distance(y, expected))
        for held, state in zip(steady.held(), program.unpack(states), strict=True):
            worst = max(worst, distance(state, held) / (largest(held) or 1.0) * scale)
    return worst / scale


def seconds(steady: SteadyStep, program: Optional[Program]) -> float:
    """The lower quartile of the times of a step: other programs only add to them."""
    steady.place([state.clone() for state in steady.states])
    states = [] if program is None else program.pack([state.clone() for state in steady.states])
    x = steady.x

    def step() -> None:
        nonlocal states
        if program is None:
            steady.stream.step(x, False)
        else:
            _, states = program.run(x, states)
        if x.is_cuda:
            torch.cuda.synchronize()

    return _quartile(step)


def _quartile(step: Callable[[], None]) -> float:
    times: List[float] = []
    with torch.no_grad():
        begin = time.perf_counter()
        while len(times) < 5 or (time.perf_counter() - begin < 0.2 and len(times) < 2000):
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 4]


# ---------------------------------------------------------------------- of streams


def comes_later(stream: BaseStream, other: NativeStream) -> bool:
    """Whether there is a length after which another stream has given less than a stream."""
    lengths = range(other.rows.settled + 2 * other.rows.period)
    return any(stream.output_length(n, False) != other.output_length(n, False) for n in lengths)


def difference_of_streams(steady: SteadyStep, other: NativeStream) -> float:
    """The largest difference of another stream from a stream, relative to the largest output: of whole signals, in
    chunks of the planned size and others."""
    generator = torch.Generator().manual_seed(1)
    chunk, multiple = steady.x.size(2), other.length_multiple
    worst, scale = 0.0, 1e-30
    for n in (3 * chunk + other.rows.settled, chunk + 1, other.rows.settled + 1):
        n = min(n, _LONGEST, other._limit if other._limit >= 0 else n)
        n = max(n // multiple * multiple, -(-other.min_length // multiple) * multiple)
        x = steady.noise([steady.x.size(0), steady.x.size(1), n], generator)
        expected = _joined(fresh(steady.stream), x, [n])
        for cuts in ([chunk] * (n // chunk) + [n % chunk], [n // 3, n - n // 3]):
            y = _joined(other, x, cuts)
            if (y is None) != (expected is None) or (y is not None and y.shape != expected.shape):  # type: ignore[union-attr]
                return float("inf")
            if y is not None and expected is not None:
                scale = max(scale, largest(expected))
                worst = max(worst, distance(y, expected))
    return worst / scale


def _joined(stream: BaseStream, x: Tensor, cuts: List[int]) -> Optional[Tensor]:
    with torch.no_grad():
        pieces = [stream(piece) for piece in torch.split(x, cuts, -1)] + [stream.flush()]
    found = [piece for piece in pieces if piece is not None]
    return torch.cat(found, -1) if found else None


def seconds_of_stream(steady: SteadyStep, other: NativeStream) -> float:
    """The same as `seconds`, of another stream's step."""
    x = steady.x
    other.reset()

    def step() -> None:
        if other._limit >= 0 and other.rows.oldest + x.size(2) > other._limit:
            other.reset()
        other.step(x, False)

    took = _quartile(step)
    other.reset()
    return took
