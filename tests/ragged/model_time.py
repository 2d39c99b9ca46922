"""Pieces of time, and operations that give a plain tensor."""

from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from row_model import OPERATIONS, Axes, Row, Trial, at, bounds, cut, operation

__all__: list[str] = []


@operation("index of a slice of time", chains=True)
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    part = bounds(rng, width)
    begin, end, _ = part.indices(width)
    forms = [lambda x, ax: x[at(ax.t, part)], lambda x, ax: x[(..., part)] if ax.t == 2 else x[(*at(ax.t, part), ...)]]
    return Trial(forms, [cut(row, begin, end) for row in rows])


@operation("narrow of time", chains=True)
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    a = rng.randint(0, width)
    n = rng.randint(0, width - a)
    return Trial(
        [lambda x, ax: x.narrow(ax.t, a, n), lambda x, ax: torch.narrow(x, ax.t, a, n)],
        [cut(row, a, a + n) for row in rows],
    )


@operation("slices of rows, channels and time", chains=True)
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    part, begin = bounds(rng, len(rows)), rng.randint(0, width)

    def call(x: Any, ax: Axes) -> Any:
        index: list[Any] = [slice(None)] * 3
        index[ax.b], index[ax.t] = part, slice(begin, None)
        return x[tuple(index)]

    return Trial([call], [cut(row, begin, width) for row in rows[part]])


@operation("split of time")
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    n = rng.randint(1, 3)
    spans = [(i, min(i + n, width)) for i in range(0, width, n)] or [(0, 0)]
    return Trial(
        [lambda x, ax: x.split(n, ax.t), lambda x, ax: torch.split(x, n, ax.t)],
        pieces=[[cut(row, *span) for row in rows] for span in spans],
    )


@operation("chunk of time")
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    cuts = [rng.randint(0, width) for _ in range(2)]
    spans = [(0, cuts[0]), (cuts[0], max(cuts)), (cuts[1], width)]
    return Trial(
        [lambda x, ax: torch.tensor_split(x, cuts, ax.t)], pieces=[[cut(row, *span) for row in rows] for span in spans]
    )


@operation("cat over time of what was split", chains=True)
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    n = rng.randint(0, width)
    # Nothing is lost, though the first part may end in padding.
    return Trial([lambda x, ax: torch.cat([x[at(ax.t, slice(0, n))], x[at(ax.t, slice(n, None))]], ax.t)], rows)


@operation("cat over time of pieces with padding")
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    # The first half of every row stands apart, so that rows must be packed anew.
    halves = [row.data.shape[-1] // 2 for row in rows]

    def call(x: Any, ax: Axes) -> Any:
        pieces = x.unbind(ax.b)
        time = ax.t - (ax.b < ax.t)
        pieces = [piece.movedim(time, -1) for piece in pieces]
        before = _collated([piece[..., :n] for piece, n in zip(pieces, halves, strict=True)])
        after = _collated([piece[..., n:] for piece, n in zip(pieces, halves, strict=True)])
        return torch.cat([before, after], -1)

    return Trial([call], rows)


def _merged(x: Any, ax: Axes) -> Any:
    # With an axis of size 1 it would be no merging.
    return x.flatten(1) if 1 in x.shape else x.reshape(x.shape[0], -1)


def _collated(pieces: list[Any]) -> Any:
    import torchstreamer as pts

    return pts.collate(pieces) if isinstance(pieces[0], pts.StreamTensor) else torch.stack(pieces)


for _name, _forms in {
    "a stride of time": [lambda x, ax: x[at(ax.t, slice(None, None, 2))]],
    "a sample": [lambda x, ax: x[at(ax.t, 0)], lambda x, ax: x.select(ax.t, 0)],
    "a list of samples": [lambda x, ax: x[at(ax.t, [0, 0])], lambda x, ax: x.index_select(ax.t, torch.tensor([0, 0]))],
    "a mask of samples": [lambda x, ax: x[at(ax.t, torch.arange(x.shape[ax.t]) % 2 == 0)]],
    "a mask of all": [lambda x, ax: x[x.tensor() > 0] if hasattr(x, "ids") else x[x > 0]],
    "two lists": [lambda x, ax: x[[0], [0]]],
    "flip of time": [lambda x, ax: x.flip(ax.t), lambda x, ax: torch.flip(x, (ax.c, ax.t))],
    "roll of time": [lambda x, ax: x.roll(1, ax.t), lambda x, ax: x.roll(1)],
    "unbind of time": [lambda x, ax: x.unbind(ax.t)[0]],
    "repeat of time": [lambda x, ax: x.repeat([2 if axis == ax.t else 1 for axis in range(3)])],
    "flatten of all": [lambda x, ax: x.flatten(), lambda x, ax: x.reshape(-1), lambda x, ax: x.ravel()],
    "flatten of two": [lambda x, ax: x.flatten(1), lambda x, ax: x.flatten(0, 1), _merged],
    "take": [lambda x, ax: x.take(torch.tensor([0])), lambda x, ax: torch.take(x, torch.tensor([0]))],
    "masked_select": [lambda x, ax: x.masked_select(torch.ones(x.shape, dtype=torch.bool))],
    "gather over time": [lambda x, ax: x.gather(ax.t, torch.zeros(x.shape, dtype=torch.long))],
    "gather over rows": [lambda x, ax: x.gather(ax.b, torch.zeros(x.shape, dtype=torch.long))],
    "scatter over time": [lambda x, ax: x.scatter(ax.t, torch.zeros(x.shape, dtype=torch.long), 1.0)],
    "cat with a plain tensor": [lambda x, ax: torch.cat([x, torch.zeros(x.shape).double()], ax.b)],
    "diff": [lambda x, ax: x.diff(dim=ax.t)],
    "pad": [lambda x, ax: F.pad(x, (1, 1))],
    "sum of rows": [lambda x, ax: x.sum(ax.b), lambda x, ax: torch.sum(x, ax.b)],
    "mean of rows": [lambda x, ax: x.mean(ax.b), lambda x, ax: torch.amax(x, ax.b)],
    "sort of rows": [lambda x, ax: x.sort(ax.b)[0], lambda x, ax: torch.cumsum(x, ax.b), lambda x, ax: x.softmax(ax.b)],
    "einsum": [lambda x, ax: torch.einsum("abc->cab", x)],
    "where of a condition": [
        lambda x, ax: torch.where(x.nan_to_num() > 0)[0],
        lambda x, ax: x.nan_to_num().nonzero()[:, 0],
    ],
    "quantiles of all rows": [lambda x, ax: torch.quantile(x.nan_to_num(), torch.tensor([0.1, 0.9]).double(), ax.b)],
    "unfold": [lambda x, ax: x.unfold(ax.t, 1, 1)],
}.items():
    OPERATIONS[f"{_name}, plain"] = lambda rng, rows, width, forms=_forms: Trial(forms)
