"""Signals of several inputs and outputs, one in each row of a static step, that start at steps of their own."""

from typing import Any, List, Sequence

import torch
from torch import Tensor

import torchstreamer as pts


def chunk_of(step: pts.StaticStream, signals: Sequence[Sequence[Tensor]], ages: Sequence[int]) -> List[Tensor]:
    """The inputs of all rows that are so old; what no row brings is arbitrary."""
    found = []
    for i, source in enumerate(step.sources):
        x = torch.ones(source.shape, dtype=source.dtype)
        for b, (signal, age) in enumerate(zip(signals, ages, strict=True)):
            mine = x.narrow(source.rows, b, 1)
            if source.time < 0 and age == 0:
                mine.copy_(signal[i])
            elif source.time >= 0 and age >= 0:
                m, n = source.shape[source.time], signal[i].shape[source.time]
                piece = signal[i].narrow(source.time, min(age * m, n), max(min(m, n - age * m), 0))
                mine.narrow(source.time, 0, piece.shape[source.time]).copy_(piece)
        found.append(x)
    return found


def play(step: pts.StaticStream, signals: Sequence[Sequence[Tensor]], starts: Sequence[int]) -> List[List[Tensor]]:
    """What comes out of each row, by outputs.

    Args:
        step: has a row for each signal
        signals: of each row its inputs, of one row each
        starts: the step at which each begins
    """
    clock = next(i for i, source in enumerate(step.sources) if source.time >= 0)
    lengths = [signal[clock].shape[step.sources[clock].time] for signal in signals]
    counts = [-(-n // step.chunk) for n in lengths]
    pieces: List[List[List[Tensor]]] = [[[] for _ in step.results] for _ in signals]
    for k in range(max(a + b for a, b in zip(starts, counts, strict=True)) + step.flush_steps):
        ages = [k - start for start in starts]
        brings = [
            min(max(n - a * step.chunk, 0), step.chunk) if a >= 0 else 0 for n, a in zip(lengths, ages, strict=True)
        ]
        first = torch.tensor([age == 0 for age in ages])
        last = torch.tensor([age == count - 1 for age, count in zip(ages, counts, strict=True)])
        xs = chunk_of(step, signals, ages)
        flat = [leaves(part) for part in step(xs[0] if len(xs) == 1 else tuple(xs), torch.tensor(brings), first, last)]
        for i, (result, y, start, stop) in enumerate(zip(step.results, *flat, strict=True)):
            for b, (begin, end) in enumerate(zip(start.tolist(), stop.tolist(), strict=True)):
                pieces[b][i].append(y.narrow(result.rows, b, 1).narrow(result.time, begin, end - begin))
    return [[torch.cat(part, r.time) for part, r in zip(each, step.results, strict=True)] for each in pieces]


def leaves(answer: Any) -> List[Any]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(answer) if leaf is not None]
