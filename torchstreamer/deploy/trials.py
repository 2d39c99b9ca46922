"""Trials of a compiled step: how far it is from the stream's own, and what it costs."""

import time
from typing import List, Optional

import torch

from ..core.closeness import distance, largest
from .backends import Program
from .steady import SteadyStep

__all__ = ["difference", "seconds"]


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
    times: List[float] = []
    with torch.no_grad():
        begin = time.perf_counter()
        while len(times) < 5 or (time.perf_counter() - begin < 0.2 and len(times) < 2000):
            start = time.perf_counter()
            if program is None:
                steady.stream.step(x, False)
            else:
                _, states = program.run(x, states)
            if x.is_cuda:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 4]
