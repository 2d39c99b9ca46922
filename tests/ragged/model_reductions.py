"""Reductions, over time without the padding."""

from collections.abc import Callable
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from row_model import Axes, Row, Trial, mapped, operation
from torch import Tensor

__all__: list[str] = []


Reduction = tuple[Callable[..., Any], Any]
# Over time, and what an empty row gives.
REDUCTIONS: dict[str, Reduction] = {
    "sum": (torch.sum, 0.0),
    "mean": (torch.mean, torch.nan),
    "amax": (torch.amax, -torch.inf),
    "amin": (torch.amin, torch.inf),
    "prod": (torch.prod, 1.0),
    "var": (torch.var, torch.nan),
    "std": (torch.std, torch.nan),
    "logsumexp": (torch.logsumexp, -torch.inf),
    "argmax": (torch.argmax, 0),
    "argmin": (torch.argmin, 0),
    "count_nonzero": (torch.count_nonzero, 0),
    "nansum": (torch.nansum, 0.0),
    "nanmean": (torch.nanmean, torch.nan),
    "any": (torch.any, False),
    "all": (torch.all, True),
    "norm": (torch.linalg.vector_norm, 0.0),
}


def _reduction(name: str, function: Callable[..., Any], empty: Any) -> None:
    def of(d: Tensor, dim: int) -> Tensor:
        if d.shape[dim]:
            return function(d, dim=dim)
        like = function(torch.zeros(1, dtype=d.dtype), dim=0)
        return torch.full([size for axis, size in enumerate(d.shape) if axis != dim % d.dim()], empty, dtype=like.dtype)

    @operation(f"{name} over time")
    def over_time(rng: Random, rows: list[Row], width: int) -> Trial:
        forms = [lambda x, ax: function(x, dim=ax.t)]
        if name == "norm":
            forms.append(lambda x, ax: torch.norm(x, dim=ax.t))
        else:
            forms += [lambda x, ax: getattr(x, name)(ax.t), lambda x, ax: getattr(x, name)(dim=ax.t)]
        if name not in ("argmax", "argmin", "count_nonzero"):
            forms.append(lambda x, ax: function(x, dim=ax.t, keepdim=True).squeeze(ax.t))
        return Trial(forms, reduced=[of(row.data, -1) for row in rows])

    @operation(f"{name} over channels")
    def over_channels(rng: Random, rows: list[Row], width: int) -> Trial:
        return Trial([lambda x, ax: function(x, dim=ax.c)], mapped(rows, lambda d: function(d, dim=0)))

    if name in ("sum", "mean", "amax", "var", "norm"):

        @operation(f"{name} over channels and time")
        def over_both(rng: Random, rows: list[Row], width: int) -> Trial:
            return Trial(
                [lambda x, ax: function(x, dim=(ax.c, ax.t))], reduced=[of(row.data.flatten(), -1) for row in rows]
            )

        @operation(f"{name} over all")
        def over_all(rng: Random, rows: list[Row], width: int) -> Trial:
            every = of(torch.cat([row.data.flatten() for row in rows]), -1)
            forms = [lambda x, ax: function(x, dim=(0, 1, 2)).expand(len(rows))]
            if name != "norm":
                forms.append(lambda x, ax: getattr(x, name)().expand(len(rows)))
            return Trial(forms, reduced=[every] * len(rows))


for _name, (_function, _empty) in REDUCTIONS.items():
    _reduction(_name, _function, _empty)


@operation("max over time")
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    def most(d: Tensor) -> Tensor:
        return d.amax(-1) if d.shape[-1] else torch.full(d.shape[:-1], -torch.inf).double()

    return Trial(
        [
            lambda x, ax: x.max(ax.t)[0],
            lambda x, ax: torch.max(x, dim=ax.t).values,
            lambda x, ax: -((-x).min(ax.t).values),
            lambda x, ax: torch.aminmax(x, dim=ax.t).max,
        ],
        reduced=[most(row.data) for row in rows],
    )


@operation("max, sort, topk and median over channels")
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    return Trial(
        [
            lambda x, ax: x.max(ax.c)[0],
            lambda x, ax: x.sort(ax.c)[0].select(ax.c, -1),
            lambda x, ax: x.topk(1, ax.c)[0].squeeze(ax.c),
            lambda x, ax: x.kthvalue(x.shape[ax.c], ax.c)[0],
        ],
        mapped(rows, lambda d: d.amax(0)),
    )


@operation("sort over time")
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    def alike(d: Tensor) -> Tensor:
        return F.pad(d.sort(-1).values, (0, width - d.shape[-1]))

    def call(x: Any, ax: Axes) -> Any:  # padding is the caller's where no row is shorter
        return torch.nan_to_num(torch.sort(x, dim=ax.t)[0]).movedim(ax.t, -1)

    # Of the axes that are left, the rows are first or second; here they are made the first.
    return Trial(
        [lambda x, ax: call(x.movedim(ax.b, 0), Axes(0, 0, ax.t + (ax.b > ax.t)))],
        reduced=[alike(row.data) for row in rows],
    )


@operation("median and quantile over time")
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    def middle(d: Tensor) -> Tensor:
        return d.sort(-1).values[..., (d.shape[-1] - 1) // 2]

    filled = [row for row in rows if row.data.shape[-1]]
    if not filled:
        return Trial([lambda x, ax: x], rows)
    return Trial(
        [
            lambda x, ax: _filled(x).median(ax.t)[0],
            lambda x, ax: torch.quantile(_filled(x), 0.5, ax.t, interpolation="lower"),
        ],
        reduced=[middle(row.data) for row in filled],
    )


def _filled(x: Any) -> Any:
    return x.drop_empty()
