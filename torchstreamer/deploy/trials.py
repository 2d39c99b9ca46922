"""Trials of a compiled step: how far it is from the stream's own, and what it costs."""

import time
from typing import List, Optional

import torch
from torch import Tensor

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
            if y.shape != expected.shape or y.dtype != expected.dtype:
                return float("inf")
            if y.numel():
                scale = max(scale, _scale(expected))
                worst = max(worst, _largest(y, expected))
        for held, state in zip(steady.held(), program.unpack(states), strict=True):
            if held.shape != state.shape:
                return float("inf")
            if held.numel():
                worst = max(worst, _largest(state, held) / (_scale(held) or 1.0) * scale)
    return worst / scale


def _scale(expected: Tensor) -> float:
    return float(torch.where(expected.isfinite(), expected, 0).abs().max())


def _largest(found: Tensor, expected: Tensor) -> float:
    # Infinite where one of two is nan or infinite alone.
    if found.dtype == torch.bool:
        found, expected = found.to(torch.int8), expected.to(torch.int8)
    same = (found == expected) | (found.isnan() & expected.isnan())
    difference = torch.where(same, 0, (found - expected).abs())
    return float(difference.max()) if difference.isfinite().all() else float("inf")


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
