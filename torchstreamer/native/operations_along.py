"""How each ATen operation along axes is written: reductions, products, convolutions, cumulative sums."""

from typing import Any, List, Optional

import torch
from torch import Tensor, fx

from ..layers.window import spanned
from .arrays import SAMPLES, Array, Arrays
from .operations import Rule, number, padded, writes
from .pairs import paired
from .products import convolve
from .program import Fault

__all__: List[str] = []


# ---------------------------------------------------------------------- along axes


def _reduced(kind: str) -> Rule:
    def reduce(arrays: Arrays, node: fx.Node, x: Array, dim: Any = None, keepdim: bool = False, **options: Any) -> Any:
        axes = [] if dim is None else [dim] if isinstance(dim, int) else list(dim)
        return arrays.reduced(kind, number(arrays, x), axes, keepdim)

    return reduce


for _name in ("sum", "prod", "amax", "amin"):
    writes(_name)(_reduced(_name))


@writes("any", "all")
def _every(arrays: Arrays, node: fx.Node, x: Array, dim: Any = None, keepdim: bool = False) -> Array:
    kind = "amax" if node.target._schema.name.endswith("any") else "amin"  # type: ignore[union-attr]
    truth = x if x.truth else arrays.applied("({0} != V{{}})", x, truth=True)
    axes = [] if dim is None else [dim] if isinstance(dim, int) else list(dim)
    return arrays.applied("({0} != V{{}})", arrays.reduced(kind, number(arrays, truth), axes, keepdim), truth=True)


@writes("mean")
def _mean(arrays: Arrays, node: fx.Node, x: Array, dim: Any = None, keepdim: bool = False, **options: Any) -> Array:
    total: Array = _reduced("sum")(arrays, node, x, dim, keepdim)
    return arrays.applied("({0} * {1})", total, total.shape.numel() / x.shape.numel())


@writes("var", "var_mean")
def _variance(
    arrays: Arrays,
    node: fx.Node,
    x: Array,
    dim: Any = None,
    correction: Any = None,
    keepdim: bool = False,
    **options: Any,
) -> Any:
    name = node.target._schema.name  # type: ignore[union-attr]
    correction = 1 if correction is None else correction
    mean = arrays.stored(_mean(arrays, node, x, dim, True))
    apart = arrays.stored(arrays.applied("({0} - {1})", x, mean))
    total = _reduced("sum")(arrays, node, arrays.stored(arrays.applied("({0} * {0})", apart)), dim, keepdim)
    count = x.shape.numel() / mean.shape.numel()
    found = arrays.applied("({0} * {1})", total, 1 / (count - float(correction)))
    if not name.endswith("var_mean"):
        return found
    return [found, mean if keepdim else _mean(arrays, node, x, dim, False)]


# ---------------------------------------------------------------------- products


@writes("mm", "bmm")
def _product(arrays: Arrays, node: fx.Node, a: Any, b: Any) -> Array:
    return _matrix(arrays, a, b, None)


@writes("addmm")
def _affine(arrays: Arrays, node: fx.Node, bias: Any, a: Any, b: Any, beta: Any = 1, alpha: Any = 1) -> Array:
    if beta != 1 or alpha != 1 or not isinstance(bias, Tensor) or bias.dim() != 1 or not isinstance(b, Tensor):
        raise Fault("a product with a scaled sum")
    return _matrix(arrays, a, b, bias)


def _matrix(arrays: Arrays, a: Any, b: Any, bias: Optional[Tensor]) -> Array:
    if (isinstance(a, Array) and isinstance(b, Array)) or a.shape[:-2].numel() != 1:
        return paired(arrays, number(arrays, a), number(arrays, b))
    if isinstance(a, Tensor):  # the other way around
        turned = b.laid_out(lambda index: index.transpose(-1, -2))
        return _matrix(arrays, turned, a.transpose(-1, -2), None).laid_out(lambda index: index.transpose(-1, -2))
    lead = list(a.shape[:-2])
    a, b = a.laid_out(lambda index: index.reshape(index.shape[-2:])), b.reshape(b.shape[-2:])
    found = _rows_by(arrays, a, b, bias)
    return found.laid_out(lambda index: index.reshape([*lead, *index.shape]))


def _rows_by(arrays: Arrays, a: Array, b: Tensor, bias: Optional[Tensor]) -> Array:
    # A product of rows, some of each sample.
    rows, inner = a.shape
    if rows % SAMPLES or inner == 0:
        raise Fault("a product along time")
    places = rows // SAMPLES
    sample = a.index.div(a.expression.size, rounding_mode="floor")
    if not torch.equal(sample, sample[:, :1].expand_as(sample)):
        raise Fault("a product along time")
    # Rows of the matrix are places of a sample, all of one sample side by side, or those of all samples.
    first = sample[:, 0].reshape(SAMPLES, places)
    inside = bool((first == first[:, :1]).all())
    shaped = a.laid_out(
        lambda index: index.reshape(SAMPLES, places, inner) if inside else index.reshape(places, SAMPLES, inner)
    )
    time = 0 if inside else 1
    ref, column = arrays.kept(shaped, time)
    weight = b.t().unsqueeze(2).repeat(places, 1, 1)
    bias = bias if bias is None else bias.repeat(places)
    made = convolve(arrays.program, ref, 0, weight, bias, 1, 1, places, arrays.rate, arrays.note, column)
    shape = [SAMPLES, places, b.size(1)] if inside else [places, SAMPLES, b.size(1)]
    found = arrays.of(made, shape, time)
    return found.laid_out(lambda index: index.reshape(rows, b.size(1)))


@writes("convolution")
def _convolution(
    arrays: Arrays,
    node: fx.Node,
    x: Any,
    weight: Any,
    bias: Optional[Tensor],
    stride: List[int],
    padding: List[int],
    dilation: List[int],
    transposed: bool,
    outputs: List[int],
    groups: int,
) -> Array:
    if not isinstance(weight, Tensor) or not isinstance(x, Array) or transposed:
        raise Fault("a convolution of two values, or a transposed one along other axes than time")
    if any(padding):
        pads = [amount for each in reversed(padding) for amount in (each, each)]
        x = padded(arrays, node, x, pads)
    # What each output reads, side by side: then it is a product along these.
    windows = x.index
    for axis, (size, step, apart) in enumerate(zip(weight.shape[2:], stride, dilation, strict=True)):
        windows = windows.unfold(2 + axis, spanned(size, apart), step)[..., ::apart]
    spatial = weight.dim() - 2
    order = [0, *range(2, 2 + spatial), 1, *range(2 + spatial, 2 + 2 * spatial)]
    windows = windows.permute(order)
    lead = list(windows.shape[: 1 + spatial])
    if groups != 1:
        return _grouped(arrays, Array(x.expression, windows, x.truth), weight, bias, groups, lead)
    flat = Array(x.expression, windows.reshape(-1, weight[0].numel()), x.truth)
    made = _rows_by(arrays, flat, weight.reshape(weight.size(0), -1).t(), bias)
    return made.laid_out(lambda index: index.reshape([*lead, weight.size(0)]).movedim(-1, 1))


def _grouped(
    arrays: Arrays, windows: Array, weight: Tensor, bias: Optional[Tensor], groups: int, lead: List[int]
) -> Array:
    # Of windows [b, …, C, taps …] each group by itself, as so many matrices of a sample.
    b, outs = lead[0], weight.size(0) // groups
    inner = weight[0].numel()
    grouped = windows.laid_out(lambda index: index.reshape(b, -1, groups, inner).transpose(1, 2).flatten(0, 1))
    matrix = weight.reshape(groups, outs, inner).transpose(1, 2).repeat(b, 1, 1)
    made = paired(arrays, grouped, matrix)
    found = made.laid_out(
        lambda index: index.reshape(b, groups, -1, outs).transpose(2, 3).reshape(b, groups * outs, *lead[1:])
    )
    if bias is None:
        return found
    return arrays.applied("({0} + {1})", found, bias.reshape([-1] + [1] * (len(lead) - 1)))


_CUMULATIVE = {
    "cumsum": "({0} + {1})",
    "cumprod": "({0} * {1})",
    "cummax": "larger({1}, {0})",
    "cummin": "smaller({1}, {0})",
    # Of two infinite ones the difference is none.
    "logcumsumexp": "((({0} == {1}) & ({0} - {1} != {0} - {1})) ? {0} : larger({0}, {1}) + "
    "logarithm1p(exponential(-absolute({0} - {1}))))",
}


@writes(*_CUMULATIVE)
def _cumulative(arrays: Arrays, node: fx.Node, x: Array, axis: int, **options: Any) -> Any:
    name = node.target._schema.name.split("::")[1]  # type: ignore[union-attr]
    x = arrays.stored(number(arrays, x))
    if arrays.time_of(x) == axis % len(x.shape):
        raise Fault("a cumulative operation in a recording of single samples")

    def at(place: int) -> Array:
        return x.laid_out(lambda index: index.narrow(axis, place, 1))

    found = [at(0)]
    for place in range(1, x.shape[axis]):
        found.append(arrays.stored(arrays.applied(_CUMULATIVE[name], found[-1], at(place))))
    y = arrays.joined(found, axis) if len(found) > 1 else found[0]
    return [y, None] if name in ("cummax", "cummin") else y
