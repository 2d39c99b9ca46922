"""Operations on axes and channels."""

from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from row_model import Axes, Row, Trial, at, mapped, operation
from torch import Tensor

__all__: list[str] = []


@operation("permute", chains=True)
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    order = rng.sample(range(3), 3)
    return Trial(
        [lambda x, ax: x.permute(*order), lambda x, ax: torch.permute(x, order), lambda x, ax: x.permute(order)], rows
    )


@operation("transpose", chains=True)
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    a, b = rng.randrange(-3, 3), rng.randrange(-3, 3)
    return Trial(
        [
            lambda x, ax: x.transpose(a, b),
            lambda x, ax: torch.transpose(x, dim0=a, dim1=b),
            lambda x, ax: x.swapaxes(a, b),
            lambda x, ax: x.mT,
            lambda x, ax: torch.movedim(x, a, b),
            lambda x, ax: x.movedim((a,), (b,)),
            lambda x, ax: x.clone().transpose_(a, b),
        ],
        rows,
    )


@operation("unsqueeze")
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    # A new axis is one of channels; here it comes first, so that it stands before the channels.
    return Trial(
        [
            lambda x, ax: x.unsqueeze(0),
            lambda x, ax: torch.unsqueeze(x, -4),
            lambda x, ax: x[None],
            lambda x, ax: x[None, ...],
            lambda x, ax: x.clone().unsqueeze_(0),
            lambda x, ax: torch.stack([x]),
        ],
        mapped(rows, lambda d: d[None]),
    )


@operation("squeeze")
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    return Trial(
        [
            lambda x, ax: x.unsqueeze(0).squeeze(0),
            lambda x, ax: torch.squeeze(x.unsqueeze(-1), dim=-1),
            lambda x, ax: x[:, None].squeeze((1,)),
        ],
        rows,
    )


@operation("squeeze of a batch of 1")
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    return Trial([lambda x, ax: x.narrow(ax.b, 0, 1).squeeze(ax.b)], rows[:1])


@operation("flatten of channels")
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    return Trial(
        [
            lambda x, ax: torch.stack([x, x], ax.c).flatten(ax.c, ax.c + 1),
            lambda x, ax: x.repeat([2 if axis == ax.c else 1 for axis in range(3)]),
            lambda x, ax: torch.cat([x, x], ax.c),
            lambda x, ax: torch.cat([x, x.tensor() if hasattr(x, "ids") else x], ax.c),
        ],
        mapped(rows, lambda d: torch.cat([d, d])),
    )


@operation("view of channels")
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    def viewed(x: Any, ax: Axes, how: str) -> Any:
        doubled = torch.cat([x, x], ax.c)
        shape = [*doubled.shape[: ax.c], 2, x.shape[ax.c], *doubled.shape[ax.c + 1 :]]
        if how == "unflatten":
            return doubled.unflatten(ax.c, (2, x.shape[ax.c]))
        return getattr(doubled, how)(shape if how == "view" else tuple(shape))

    # By its shape alone, one channel cannot be told from a single sample.
    hows = ("unflatten",) if rows[0].data.shape[0] == 1 else ("view", "reshape", "unflatten")
    forms = [lambda x, ax, how=how: viewed(x, ax, how) for how in hows]
    return Trial(forms, mapped(rows, lambda d: torch.stack([d, d])))


@operation("stack of channels")
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    return Trial(
        [lambda x, ax: torch.stack([x, -x], ax.c), lambda x, ax: torch.stack((x, -x), dim=ax.c - 4)],
        mapped(rows, lambda d: torch.stack([d, -d])),
    )


@operation("index of channels")
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    channels = rows[0].data.shape[0]
    chosen = [rng.randrange(channels) for _ in range(rng.randint(1, 3))]
    index = torch.tensor(chosen)
    return Trial(
        [
            lambda x, ax: x[at(ax.c, chosen)],
            lambda x, ax: x.index_select(ax.c, index),
            lambda x, ax: x[at(ax.c, index)],
        ],
        mapped(rows, lambda d: d[chosen]),
    )


@operation("select of a channel")
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    return Trial(
        [lambda x, ax: x.select(ax.c, 0), lambda x, ax: x[at(ax.c, 0)], lambda x, ax: x.unbind(ax.c)[0]],
        mapped(rows, lambda d: d[0]),
    )


@operation("split and chunk of channels")
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    channels = rows[0].data.shape[0]
    return Trial(
        [lambda x, ax: x.split(1, ax.c), lambda x, ax: x.chunk(channels, ax.c)],
        pieces=[mapped(rows, lambda d, i=i: d[i : i + 1]) for i in range(channels)],
    )


@operation("gather of channels")
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    n = rng.randrange(rows[0].data.shape[0])

    def index(x: Any) -> Tensor:
        return torch.full(tuple(x.shape), n)

    return Trial(
        [
            lambda x, ax: x.gather(ax.c, index(x)),
            lambda x, ax: torch.gather(x, dim=ax.c, index=index(x)),
            lambda x, ax: torch.take_along_dim(x, index(x), dim=ax.c),
        ],
        mapped(rows, lambda d: d[n].expand(d.shape)),
    )


@operation("scatter of channels")
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    n = rng.randrange(rows[0].data.shape[0])

    def filled(d: Tensor) -> Tensor:
        d = d.clone()
        d[n] = 7.0
        return d

    def index(x: Any, ax: Axes) -> Tensor:
        return torch.full([1 if axis == ax.c else size for axis, size in enumerate(x.shape)], n)

    return Trial(
        [
            lambda x, ax: x.scatter(ax.c, index(x, ax), 7.0),
            lambda x, ax: torch.scatter(x, ax.c, index(x, ax), 7.0),
            lambda x, ax: x.clone().scatter_(ax.c, index(x, ax), 7.0),
            lambda x, ax: x.index_fill(ax.c, torch.tensor([n]), 7.0),
        ],
        mapped(rows, filled),
    )


@operation("flip and roll of channels")
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    return Trial([lambda x, ax: x.flip(ax.c).roll(1, ax.c)], mapped(rows, lambda d: d.flip(0).roll(1, 0)))


@operation("cumsum and cumprod over time", chains=True)
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    return Trial(
        [lambda x, ax: x.cumsum(ax.t), lambda x, ax: torch.cumsum(x, dim=ax.t)], mapped(rows, lambda d: d.cumsum(-1))
    )


@operation("softmax over time")
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    return Trial(
        [
            lambda x, ax: x.softmax(ax.t),
            lambda x, ax: F.softmax(x, dim=ax.t),
            lambda x, ax: torch.exp(torch.log_softmax(x, ax.t)),
            lambda x, ax: F.softmin(-x, dim=ax.t),
        ],
        mapped(rows, lambda d: d.softmax(-1)),
    )


@operation("softmax over channels", chains=True)
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    return Trial(
        [lambda x, ax: x.softmax(ax.c), lambda x, ax: torch.softmax(x, dim=ax.c)], mapped(rows, lambda d: d.softmax(0))
    )


@operation("linear, layer_norm and matmul on channels")
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    weight = torch.full((2, rows[0].data.shape[0]), 0.5).double()
    return Trial(
        [
            lambda x, ax: F.linear(x.movedim(ax.c, -1), weight).movedim(-1, ax.c),
            lambda x, ax: (x.movedim(ax.c, -1) @ weight.mT).movedim(-1, ax.c),
            lambda x, ax: (weight @ x.movedim((ax.c, ax.t), (-2, -1))).movedim((-2, -1), (ax.c, ax.t)),
            lambda x, ax: torch.matmul(weight, x.permute(ax.b, ax.c, ax.t)).movedim((0, 1, 2), (ax.b, ax.c, ax.t)),
        ],
        mapped(rows, lambda d: weight @ d),
    )
