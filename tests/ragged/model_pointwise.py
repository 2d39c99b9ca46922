"""Operations that treat every sample alone."""

from collections.abc import Callable
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from row_model import Axes, Row, Trial, mapped, operation
from torch import Tensor

__all__: list[str] = []


POINTWISE: dict[str, list[Callable[[Any], Any]]] = {
    "relu": [torch.relu, Tensor.relu, F.relu, lambda x: x.clone().relu_(), torch.nn.ReLU()],
    "gelu": [F.gelu, torch.nn.GELU()],
    "x + 1": [
        lambda x: x + 1,
        lambda x: 1 + x,
        lambda x: torch.add(x, 1),
        lambda x: x.add(1),
        lambda x: x.clone().add_(1),
    ],
    "1 - x": [lambda x: 1 - x, lambda x: torch.rsub(x, 1), lambda x: -x + 1, lambda x: torch.ones(()).double() - x],
    "x * x": [lambda x: x * x, lambda x: x**2, lambda x: torch.square(x), lambda x: torch.mul(input=x, other=x)],
    "2 ** x": [lambda x: 2**x, lambda x: torch.exp2(x), lambda x: torch.pow(2, x)],
    "x / 2": [lambda x: x / 2, lambda x: torch.div(x, 2), lambda x: x.div(2), lambda x: x.true_divide(2)],
    "1 / x": [lambda x: 1 / x, lambda x: x.reciprocal()],
    "x // 0.5": [lambda x: x // 0.5, lambda x: torch.floor_divide(x, 0.5)],
    "x > 0": [lambda x: x > 0, lambda x: torch.gt(x, 0), lambda x: 0 < x, lambda x: ~(x <= 0)],
    "x == x": [lambda x: x == x, lambda x: torch.eq(x, x)],
    "and": [lambda x: (x > 0) & (x < 1), lambda x: torch.logical_and(x > 0, x < 1)],
    "tanh": [torch.tanh, Tensor.tanh, F.tanh, lambda x: x.tanh(), lambda x: torch.tanh(x, out=torch.empty_like(x))],
    "sigmoid": [torch.sigmoid, F.sigmoid, torch.special.expit],
    "clamp": [lambda x: x.clamp(-1, 1), lambda x: torch.clip(x, min=-1, max=1), F.hardtanh],
    "where": [lambda x: torch.where(x > 0, x, 0.0), lambda x: x.where(x > 0, 0.0), lambda x: x.masked_fill(x <= 0, 0)],
    "maximum": [lambda x: torch.maximum(x, -x), lambda x: torch.max(x, -x), lambda x: x.abs(), abs],
    "lerp": [lambda x: torch.lerp(x, -x, 0.25), lambda x: x.addcmul(x, torch.full((), -0.5).double())],
    "float": [lambda x: x.float(), lambda x: x.to(torch.float32), lambda x: x.type(torch.float32)],
    "clone": [lambda x: x.clone(), lambda x: x.detach(), lambda x: x.contiguous(), lambda x: x.cpu(), lambda x: x.data],
    "zeros_like": [torch.zeros_like, lambda x: x * 0, lambda x: torch.empty_like(x).zero_()],
    "dropout": [lambda x: F.dropout(x, 0.5, training=False), torch.nn.Dropout().eval()],
}


def _pointwise(name: str, forms: list[Callable[[Any], Any]]) -> None:
    @operation(name, chains=name in ("relu", "x + 1", "x * x", "tanh"))
    def trial(rng: Random, rows: list[Row], width: int) -> Trial:
        return Trial([lambda x, ax, form=form: form(x) for form in forms], mapped(rows, forms[0]))


for _name, _forms in POINTWISE.items():
    _pointwise(_name, _forms)


@operation("x + plain", chains=True)
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    # A plain operand with a value for each channel, or for each sample.
    channels = rows[0].data.shape[0]
    bias = torch.arange(float(channels)).double()

    def shaped(x: Any, ax: Axes) -> Tensor:
        return bias.view([channels if axis == ax.c else 1 for axis in range(3)])

    def full(x: Any, ax: Axes) -> Tensor:
        return shaped(x, ax).expand(x.shape).contiguous()

    forms = [lambda x, ax: x + shaped(x, ax), lambda x, ax: shaped(x, ax) + x, lambda x, ax: full(x, ax).add(x)]
    return Trial(forms, mapped(rows, lambda data: data + bias[:, None]))


@operation("frexp")
def _(rng: Random, rows: list[Row], width: int) -> Trial:
    return Trial(
        [lambda x, ax: torch.frexp(x), lambda x, ax: x.frexp()],
        pieces=[mapped(rows, lambda d, i=i: torch.frexp(d)[i]) for i in range(2)],
    )
