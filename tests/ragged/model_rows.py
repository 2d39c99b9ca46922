"""Operations on the rows: chosen, ordered, joined, split."""

from random import Random
from typing import Any

import torch
from row_model import Axes, Row, Trial, at, bounds, operation

__all__: list[str] = []


@operation("index of a slice of rows", chains=True)
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    part = bounds(rng, len(rows))
    part = slice(part.start, part.stop, rng.choice([None, 1, 2]))
    return Trial([lambda x, ax: x[at(ax.b, part)]], rows[part])


@operation("index of a list of rows", chains=True)
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    chosen = [rng.randrange(-len(rows), len(rows)) for _ in range(rng.randint(0, 4))] if rows else []
    index = torch.tensor(chosen, dtype=torch.long)
    counted = index % max(len(rows), 1)
    return Trial(
        [
            lambda x, ax: x[at(ax.b, index)],
            lambda x, ax: x[at(ax.b, chosen)] if chosen else x[at(ax.b, index)],
            lambda x, ax: x.index_select(ax.b, counted),
            lambda x, ax: torch.index_select(x, dim=ax.b, index=counted),
        ],
        [rows[i] for i in chosen],
    )


@operation("mask of rows", chains=True)
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    mask = [rng.random() < 0.6 for _ in rows]
    kept = [row for row, keep in zip(rows, mask, strict=True) if keep]
    tensor = torch.tensor(mask, dtype=torch.bool)
    return Trial([lambda x, ax: x[at(ax.b, tensor)], lambda x, ax: x[at(ax.b, mask)] if mask else x], kept)


@operation("select of a row")
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    i = rng.randrange(-len(rows), len(rows))
    return Trial(
        [
            lambda x, ax: x[at(ax.b, i)],
            lambda x, ax: x[at(ax.b, torch.tensor(i))],
            lambda x, ax: x.select(ax.b, i),
            lambda x, ax: torch.select(x, ax.b, i),
            lambda x, ax: x.unbind(ax.b)[i],
        ],
        [rows[i]],
    )


@operation("order of rows by length, sorted", chains=True)
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    lengths = torch.tensor([row.data.shape[-1] for row in rows], dtype=torch.long)
    order = lengths.sort(descending=True, stable=True).indices
    return Trial(
        [lambda x, ax: x[at(ax.b, order)], lambda x, ax: x.index_select(ax.b, order)], [rows[i] for i in order]
    )


@operation("flip of rows", chains=True)
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    return Trial(
        [lambda x, ax: x.flip(ax.b), lambda x, ax: torch.flip(x, [ax.b]), lambda x, ax: x.flip(dims=(ax.b,))],
        rows[::-1],
    )


@operation("roll of rows", chains=True)
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    n = rng.randint(-5, 5)
    k = n % max(len(rows), 1)
    return Trial(
        [lambda x, ax: x.roll(n, ax.b), lambda x, ax: torch.roll(x, (n,), dims=(ax.b,))],
        rows[-k:] + rows[:-k] if k else rows,
    )


@operation("repeat of rows")
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    n = rng.randint(1, 3)
    each = lambda ax: [n if axis == ax.b else 1 for axis in range(3)]  # noqa: E731
    return Trial(
        [
            lambda x, ax: x.repeat(*each(ax)),
            lambda x, ax: x.repeat(each(ax)),
            lambda x, ax: torch.tile(x, each(ax)),
            lambda x, ax: torch.cat([x] * n, ax.b),
        ],
        rows * n,
    )


@operation("repeat_interleave of rows")
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    counts = [rng.randint(0, 2) for _ in rows]
    tensor = torch.tensor(counts, dtype=torch.long)
    return Trial(
        [lambda x, ax: x.repeat_interleave(tensor, ax.b), lambda x, ax: torch.repeat_interleave(x, tensor, dim=ax.b)],
        [row for row, count in zip(rows, counts, strict=True) for _ in range(count)],
    )


@operation("expand of a single row")
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    n = 3
    return Trial(
        [lambda x, ax: x.narrow(ax.b, 0, 1).expand([n if axis == ax.b else -1 for axis in range(3)])], rows[:1] * n
    )


@operation("cat of rows")
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    k = rng.randint(0, len(rows))

    def parts(x: Any, ax: Axes) -> list[Any]:
        return [x[at(ax.b, slice(k, None))], x[at(ax.b, slice(0, k))]]

    def along(x: Any, ax: Axes) -> Any:
        join = {0: torch.vstack, 1: torch.hstack, 2: torch.dstack}[ax.b]
        return join(parts(x, ax))

    return Trial(
        [
            lambda x, ax: torch.cat(parts(x, ax), ax.b),
            lambda x, ax: torch.concat(tuple(parts(x, ax)), dim=ax.b),
            lambda x, ax: torch.concatenate(parts(x, ax), ax.b - 3),
            along,
        ],
        rows[k:] + rows[:k],
    )


@operation("stack of single rows")
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    return Trial(
        [lambda x, ax: torch.stack(list(x.unbind(ax.b)), ax.b), lambda x, ax: torch.stack(x.unbind(ax.b), dim=0)], rows
    )


@operation("split of rows")
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    n = rng.randint(1, 3)
    return Trial(
        [lambda x, ax: x.split(n, ax.b), lambda x, ax: torch.split(x, n, dim=ax.b)],
        pieces=[rows[i : i + n] for i in range(0, len(rows), n)],
    )


@operation("chunk of rows")
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    n = rng.randint(1, 3)
    size = -(-len(rows) // n)
    return Trial(
        [lambda x, ax: x.chunk(n, ax.b), lambda x, ax: torch.chunk(x, n, dim=ax.b)],
        pieces=[rows[i : i + size] for i in range(0, len(rows), size)],
    )


@operation("tensor_split of rows")
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    cuts = [rng.randint(0, len(rows)) for _ in range(2)]
    parts = [rows[: cuts[0]], rows[cuts[0] : cuts[1]], rows[cuts[1] :]]
    return Trial(
        [lambda x, ax: x.tensor_split(cuts, ax.b), lambda x, ax: torch.tensor_split(x, tuple(cuts), dim=ax.b)],
        pieces=parts,
    )


@operation("unbind of rows")
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    return Trial(
        [lambda x, ax: x.unbind(ax.b), lambda x, ax: torch.unbind(x, dim=ax.b)], pieces=[[row] for row in rows]
    )


@operation("iteration over rows")
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    return Trial([lambda x, ax: tuple(x.movedim(ax.b, 0))], pieces=[[row] for row in rows])


@operation("narrow of rows", chains=True)
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    a = rng.randint(0, len(rows))
    n = rng.randint(0, len(rows) - a)
    return Trial([lambda x, ax: x.narrow(ax.b, a, n), lambda x, ax: torch.narrow(x, ax.b, a, n)], rows[a : a + n])
