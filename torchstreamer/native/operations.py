"""How each ATen operation on samples is written. Operations that only move numbers move their places."""

import functools
from typing import Any, Callable, Dict, List, Optional, Sequence

import torch
from torch import Tensor, fx

from .arrays import Array, Arrays
from .program import Fault
from .samplewise import Apply

__all__ = ["Rule", "costs_nothing", "decompositions", "moves", "number", "padded", "rule", "writes"]

Rule = Callable[..., Any]

_RULES: Dict[str, Rule] = {}


def rule(name: str) -> Optional[Rule]:
    """The rule of an operation: takes the maker of arrays, the node and its arguments."""
    return _RULES.get(name)


@functools.cache
def decompositions() -> Dict[Any, Any]:
    """Operations that are told by simpler ones."""
    table = dict(torch._decomp.core_aten_decompositions())
    aten = torch.ops.aten
    more = [aten.gelu, aten.elu, aten.celu, aten._softmax, aten._log_softmax, aten.native_layer_norm]
    more += [
        aten._native_batch_norm_legit_no_training,
        aten.native_batch_norm,
        aten.linalg_vector_norm,
        aten.native_group_norm,
        aten.lerp,
        aten.fmod,
        aten.remainder,
    ]
    table.update(torch._decomp.get_decompositions(more))
    if hasattr(aten, "_safe_softmax"):
        table.update(torch._decomp.get_decompositions([aten._safe_softmax]))
    kept: List[Any] = [aten.addmm.default, aten.pow.Tensor_Scalar, aten.var_mean.correction, aten.var_mean.dim]
    kept += [aten._native_batch_norm_legit_no_training.default, aten.native_batch_norm.default]
    for each in kept:
        table.pop(each, None)
    return table


def costs_nothing(array: Array) -> bool:
    """Whether an array may be computed at every place that reads it."""
    own = array.expression
    return not isinstance(own, Apply) or (own.template == "{0}" and not isinstance(own.arguments[0][0], Apply))


def writes(*names: str) -> Callable[[Rule], Rule]:
    """Register how operations of these names are written."""

    def register(found: Rule) -> Rule:
        for name in names:
            _RULES[name] = found
        return found

    return register


# ---------------------------------------------------------------------- entry by entry

_UNARY = {
    "neg": "(-{0})",
    "abs": "absolute({0})",
    "relu": "relu({0})",
    "sigmoid": "logistic({0})",
    "tanh": "hyperbolic({0})",
    "exp": "exponential({0})",
    "expm1": "exponential_less_one({0})",
    "log": "logarithm({0})",
    "log2": "logarithm2({0})",
    "log10": "logarithm10({0})",
    "log1p": "logarithm1p({0})",
    "sqrt": "root({0})",
    "rsqrt": "(real(1) / root({0}))",
    "reciprocal": "(real(1) / {0})",
    "sin": "sine({0})",
    "cos": "cosine({0})",
    "atan": "arctangent({0})",
    "asin": "arcsine({0})",
    "acos": "arccosine({0})",
    "tan": "tangent({0})",
    "sinh": "hyperbolic_sine({0})",
    "cosh": "hyperbolic_cosine({0})",
    "asinh": "hyperbolic_arcsine({0})",
    "acosh": "hyperbolic_arccosine({0})",
    "atanh": "hyperbolic_arctangent({0})",
    "erfc": "error_function_left({0})",
    "erf": "error_function({0})",
    "floor": "round_down({0})",
    "ceil": "round_up({0})",
    "round": "round_even({0})",
    "trunc": "cut({0})",
    "sign": "sign({0})",
}
_BINARY = {
    "mul": "({0} * {1})",
    "maximum": "larger({0}, {1})",
    "minimum": "smaller({0}, {1})",
    "atan2": "angle({0}, {1})",
}
_COMPARED = {"gt": ">", "lt": "<", "ge": ">=", "le": "<=", "eq": "==", "ne": "!="}


def _unary(template: str) -> Rule:
    return lambda arrays, node, x: arrays.applied(template, x)


def _binary(template: str, truth: bool = False) -> Rule:
    return lambda arrays, node, a, b: arrays.applied(template, number(arrays, a), number(arrays, b), truth=truth)


for _name, _template in _UNARY.items():
    _RULES[_name] = _unary(_template)
for _name, _template in _BINARY.items():
    _RULES[_name] = _binary(_template)
for _name, _sign in _COMPARED.items():
    _RULES[_name] = _binary("({0} " + _sign + " {1})", truth=True)


def number(arrays: Arrays, x: Any) -> Any:
    """An argument; truth values in arithmetic are numbers."""
    if isinstance(x, Array) and x.truth:
        return arrays.applied("({0} ? splat<V>(real(1)) : V{{}})", x)
    return x


@writes("add", "sub", "rsub")
def _sum(arrays: Arrays, node: fx.Node, a: Any, b: Any, alpha: Any = 1, **options: Any) -> Array:
    name = node.target._schema.name.split("::")[1].rstrip("_")  # type: ignore[union-attr]
    a, b = number(arrays, a), number(arrays, b)
    if name == "rsub":
        a, b = b, a
        if alpha != 1:
            raise Fault("rsub with alpha")
    sign = "-" if name != "add" else "+"
    if alpha == 1:
        return arrays.applied("({0} " + sign + " {1})", a, b)
    return arrays.applied("({0} " + sign + " {1} * {2})", a, b, float(alpha))


@writes("div")
def _divided(arrays: Arrays, node: fx.Node, a: Any, b: Any, rounding_mode: Optional[str] = None) -> Array:
    template = {None: "({0} / {1})", "floor": "round_down({0} / {1})", "trunc": "cut({0} / {1})"}[rounding_mode]
    return arrays.applied(template, number(arrays, a), number(arrays, b))


@writes("pow")
def _power(arrays: Arrays, node: fx.Node, a: Any, b: Any) -> Array:
    simple = {1: "{0}", 2: "({0} * {0})", 3: "({0} * {0} * {0})", 0.5: "root({0})", -1: "(real(1) / {0})"}
    if isinstance(b, (int, float)) and b in simple:
        return arrays.applied(simple[b], a)
    return arrays.applied("raised({0}, {1})", a, b)


@writes("clamp", "hardtanh")
def _clamped(arrays: Arrays, node: fx.Node, x: Any, low: Any = None, high: Any = None, **more: Any) -> Array:
    low, high = more.get("min", low), more.get("max", high)
    if low is not None:
        x = arrays.applied("({1} > {0} ? {1} : {0})", x, low)
    if high is not None:
        x = arrays.applied("({1} < {0} ? {1} : {0})", x, high)
    found: Array = x
    return found


@writes("leaky_relu")
def _leaky(arrays: Arrays, node: fx.Node, x: Array, slope: float = 0.01) -> Array:
    return arrays.applied(f"leaky({{0}}, real({slope!r}))", x)


@writes("where")
def _where(arrays: Arrays, node: fx.Node, condition: Any, a: Any, b: Any) -> Array:
    if not isinstance(condition, Array):
        if isinstance(condition, Tensor):
            condition = condition.to(torch.float64)
        return arrays.applied("({0} != V{{}} ? {1} : {2})", condition, number(arrays, a), number(arrays, b))
    if not condition.truth:
        raise Fault("a condition that is no truth value")
    return arrays.applied("({0} ? {1} : {2})", condition, number(arrays, a), number(arrays, b))


@writes("logical_not", "bitwise_not")
def _not(arrays: Arrays, node: fx.Node, x: Array) -> Array:
    if not x.truth:
        return arrays.applied("({0} == V{{}})", x, truth=True)
    return arrays.applied("(({0} ? splat<V>(real(1)) : V{{}}) == V{{}})", x, truth=True)


@writes("logical_and", "bitwise_and", "logical_or", "bitwise_or")
def _both(arrays: Arrays, node: fx.Node, a: Any, b: Any) -> Array:
    if not (isinstance(a, Array) and isinstance(b, Array) and a.truth and b.truth):
        raise Fault("logic of what are no truth values")
    sign = "&" if "and" in node.target._schema.name else "|"  # type: ignore[union-attr]
    return arrays.applied("({0} " + sign + " {1})", a, b, truth=True)


@writes("isnan")
def _isnan(arrays: Arrays, node: fx.Node, x: Array) -> Array:
    return arrays.applied("({0} != {0})", x, truth=True)


@writes("_to_copy", "_conj", "lift_fresh_copy")
def _cast(arrays: Arrays, node: fx.Node, x: Array, dtype: Optional[torch.dtype] = None, **options: Any) -> Array:
    value = node.meta["val"]
    if value.dtype == torch.bool:
        return x if x.truth else arrays.applied("({0} != V{{}})", x, truth=True)
    if value.dtype != arrays.program.dtype:
        raise Fault(f"numbers of {str(value.dtype).removeprefix('torch.')}")
    found: Array = number(arrays, x)
    return Array(found.expression, found.index)


@writes("full_like", "zeros_like", "ones_like", "empty_like", "new_zeros", "new_ones", "new_full", "new_empty")
def _filled(arrays: Arrays, node: fx.Node, x: Array, *args: Any, **kwargs: Any) -> Tensor:
    return node.target(torch.zeros(x.shape, dtype=arrays.program.dtype), *args, **kwargs)  # type: ignore[operator]


@writes("native_batch_norm", "_native_batch_norm_legit_no_training", "_native_batch_norm_legit")
def _normed(
    arrays: Arrays,
    node: fx.Node,
    x: Array,
    weight: Optional[Tensor],
    bias: Optional[Tensor],
    mean: Any,
    variance: Any,
    *more: Any,
) -> List[Any]:
    # Without training there is no more than the momentum and what keeps the variance from 0.
    if len(more) == 3 and more[0] or not isinstance(mean, Tensor):
        raise Fault("statistics of a batch")
    scale = torch.rsqrt(variance.double() + more[-1])
    scale = scale if weight is None else scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    shape = [-1] + [1] * (len(x.shape) - 2)
    return [arrays.applied("({0} * {1} + {2})", x, scale.reshape(shape), shift.reshape(shape)), None, None]


# ---------------------------------------------------------------------- places


def moves(name: str) -> bool:
    """Whether an operation gives the same numbers at other places, or as another dtype."""
    return rule(name) in (_moved, _looked_up, _item, _cast)


def _moved(arrays: Arrays, node: fx.Node, x: Array, *args: Any, **kwargs: Any) -> Any:
    kwargs.pop("memory_format", None)
    if node.target._schema.name.endswith("view"):  # type: ignore[union-attr]
        moved: Any = x.index.reshape(*args)
    else:
        moved = node.target(x.index, *args, **kwargs)  # type: ignore[operator]
    if isinstance(moved, (tuple, list)):
        return [x.laid_out(lambda index, each=each: each) for each in moved]  # type: ignore[misc]
    return x.laid_out(lambda index: moved)


for _name in (
    "view",
    "_unsafe_view",
    "reshape",
    "permute",
    "transpose",
    "t",
    "expand",
    "slice",
    "select",
    "unsqueeze",
    "squeeze",
    "clone",
    "alias",
    "detach",
    "contiguous",
    "flip",
    "repeat",
    "split",
    "split_with_sizes",
    "unbind",
    "chunk",
    "unsafe_chunk",
    "unsafe_split",
    "unsafe_split_with_sizes",
    "unfold",
    "index_select",
    "roll",
):
    _RULES[_name] = _moved


@writes("gather", "index")
def _looked_up(arrays: Arrays, node: fx.Node, x: Any, *args: Any, **kwargs: Any) -> Array:
    if not isinstance(x, Array) or any(isinstance(each, Array) for each in fx.node.map_arg(args, lambda n: n)):
        raise Fault("numbers at places that samples tell")
    return x.laid_out(lambda index: node.target(index, *args, **kwargs))  # type: ignore[operator]


@writes("getitem")
def _item(arrays: Arrays, node: fx.Node, values: Sequence[Any], at: int) -> Any:
    return values[at]


@writes("cat")
def _joined(arrays: Arrays, node: fx.Node, parts: Sequence[Any], axis: int = 0) -> Array:
    return arrays.joined([part for part in parts if part.shape.numel() > 0], axis)


@writes("constant_pad_nd")
def padded(arrays: Arrays, node: fx.Node, x: Array, pad: List[int], value: float = 0) -> Array:
    """With a number around it, or cropped."""
    for place in range(len(pad) // 2):
        axis = len(x.shape) - 1 - place
        left, right = pad[2 * place], pad[2 * place + 1]
        if left == right == 0:
            continue
        start, count = max(-left, 0), x.shape[axis] - max(-left, 0) - max(-right, 0)
        x = Array(x.expression, x.index.narrow(axis, start, count), x.truth)
        parts: List[Any] = [x]
        for amount, before in ((left, True), (right, False)):
            if amount > 0:
                size = list(x.shape)
                size[axis] = amount
                constant = torch.full(size, float(value))
                parts = [constant, *parts] if before else [*parts, constant]
        if len(parts) > 1:
            x = arrays.joined(parts, axis)
    return x
