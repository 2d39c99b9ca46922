"""Operations that treat every sample alone: rows and time stay as they are."""

from typing import Any, Dict, Optional, Tuple

import torch
from torch import Tensor

from ..errors import StreamInputError
from .row_data import Layout
from .table import attach, functions, getter, plainly, require_same, rule
from .tensor import StreamTensor

__all__ = ["OPERATORS", "POINTWISE", "pointwise"]

# What torch tags as pointwise, by its names; in place too where that exists.
_MATHEMATICS = """
abs acos acosh add addcdiv addcmul angle asin asinh atan atan2 atanh bitwise_and bitwise_left_shift bitwise_not
bitwise_or bitwise_right_shift bitwise_xor ceil celu clamp clamp_max clamp_min clip conj_physical copysign cos cosh
deg2rad digamma div elu eq erf erfc erfinv exp exp2 expm1 float_power floor fmax fmin fmod frac frexp gcd ge gelu gt
hardshrink hardsigmoid hardtanh heaviside hypot i0 igamma igammac isfinite isinf isnan isneginf isposinf lcm ldexp le
leaky_relu lerp lgamma log log10 log1p log2 logaddexp logaddexp2 logical_and logical_not logical_or logical_xor logit lt
masked_fill maximum minimum mish mul mvlgamma nan_to_num ne neg nextafter polygamma positive pow rad2deg reciprocal relu
relu6 remainder round rsqrt rsub selu sgn sigmoid sign signbit silu sin sinc sinh softplus softshrink sqrt square sub
tan tanh threshold true_divide trunc where xlogy
airy_ai bessel_j0 bessel_j1 bessel_y0 bessel_y1 chebyshev_polynomial_t chebyshev_polynomial_u chebyshev_polynomial_v
chebyshev_polynomial_w entr erfcx hermite_polynomial_h hermite_polynomial_he i0e i1 i1e laguerre_polynomial_l
legendre_polynomial_p log_ndtr modified_bessel_i0 modified_bessel_i1 modified_bessel_k0 modified_bessel_k1 ndtri
scaled_modified_bessel_k0 scaled_modified_bessel_k1 shifted_chebyshev_polynomial_t shifted_chebyshev_polynomial_u
shifted_chebyshev_polynomial_v shifted_chebyshev_polynomial_w spherical_bessel_j0 xlog1py zeta
"""
# Other names of these, and what is made of them.
_OTHERS = """
absolute arccos arccosh arcsin arcsinh arctan arctan2 arctanh conj divide erfc expit fix floor_divide gammainc gammaincc
gammaln greater greater_equal hardswish imag isclose isreal less less_equal logsigmoid lu multigammaln multiply ndtr
negative not_equal prelu psi real resolve_conj resolve_neg rrelu softsign subtract tanhshrink view_as_real
dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout feature_dropout
bernoulli cauchy exponential geometric log_normal normal random uniform
bool byte char clone contiguous copy cpu cuda detach double fill float half int long short to type type_as
bfloat16 cdouble cfloat chalf pin_memory requires_grad share_memory zero
empty_like full_like ones_like rand_like randint_like randn_like zeros_like
"""
OPERATORS = """
add radd iadd sub rsub isub mul rmul imul truediv rtruediv itruediv div rdiv idiv floordiv rfloordiv ifloordiv mod rmod
imod pow rpow ipow and rand iand or ror ior xor rxor ixor lshift rlshift ilshift rshift rrshift irshift eq ne lt le gt
ge neg pos abs invert
"""
_BUT = {"lu", "view_as_real", "imag", "real"}
POINTWISE = frozenset((_MATHEMATICS + _OTHERS).split()) - _BUT

_plain = torch._C.DisableTorchFunctionSubclass


def pointwise(func: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
    """Run a function of operands that meet sample by sample.

    Raises:
        StreamInputError: operands are not the same samples, or would be repeated
    """
    x: Optional[StreamTensor] = None
    layout: Any = None
    for value in args:
        if isinstance(value, StreamTensor):
            if x is None:
                x, layout = value, value._layout
            elif value._layout is not layout:
                _require_aligned(layout, value._layout, func)
    if kwargs:
        for key, value in kwargs.items():
            if isinstance(value, StreamTensor) and key != "out":
                if x is None:
                    x, layout = value, value._layout
                else:
                    _require_aligned(layout, value._layout, func)
    if x is None:
        return plainly(func, args, kwargs)
    with _plain():
        y = func(*args, **kwargs)
        if type(y) is Tensor:
            if y.shape == x.shape:
                if y is kwargs.get("out") or (args and y is args[0]):
                    return y  # a plain tensor was written to
                y = y.as_subclass(StreamTensor)
                y._layout = layout
                return y
            return _broadcast(y, args, kwargs, layout, func)
        if isinstance(y, StreamTensor):
            if "out" in kwargs:
                y._layout = layout if y.shape == x.shape else _repeated(y, args, kwargs, layout, func)
            return y
        if isinstance(y, tuple):
            return attach(y, [layout if part.shape == x.shape else None for part in y])
    return y


def _require_aligned(one: Layout, other: Layout, func: Any) -> None:
    require_same(one, other, func)
    places = [(each.rank - each.time, each.batch is not None and each.rank - each.batch) for each in (one, other)]
    if places[0] != places[1]:
        raise StreamInputError(
            f"rows_differ: {getattr(func, '__name__', 'an operation')} of StreamTensors whose axes of rows and time, "
            f"counted from the last, are {places[0]} and {places[1]}; the same were expected (broadcasting goes by the "
            "last axes); bring in an axis with unsqueeze"
        )


def _broadcast(y: Tensor, args: Tuple[Any, ...], kwargs: Dict[str, Any], layout: Layout, func: Any) -> Tensor:
    if y is kwargs.get("out") or (args and y is args[0]):
        return y
    y, fate = y.as_subclass(StreamTensor), _repeated(y, args, kwargs, layout, func)
    y._layout = fate
    return y


def _repeated(y: Tensor, args: Tuple[Any, ...], kwargs: Dict[str, Any], layout: Layout, func: Any) -> Layout:
    # The layout of what other operands made larger, along other axes than those of rows and time.
    fate = layout.widened(0, y.dim() - layout.rank)
    operands = [value for value in (*args, *kwargs.values()) if isinstance(value, StreamTensor)]
    for axis, what in ((fate.batch, "rows"), (fate.time, "samples")):
        if axis is None:
            continue
        most = max(value.shape[axis - y.dim()] for value in operands if value is not kwargs.get("out"))
        if y.shape[axis] != most:
            raise StreamInputError(
                f"rows_broadcast: {getattr(func, '__name__', 'an operation')} with a plain tensor would make "
                f"{y.shape[axis]} {what} of {most}; an operand that repeats no row and no sample was expected; repeat "
                "rows with x.repeat, or use x.tensor()"
            )
    return fate


rule(*functions(*POINTWISE), *getter("data", "real", "imag"))(pointwise)
rule(*(getattr(Tensor, f"__{name}__") for name in OPERATORS.split() if hasattr(Tensor, f"__{name}__")))(pointwise)


def _where(func: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
    # Of a condition alone it gives places, as nonzero does.
    return (plainly if len(args) + len(kwargs) == 1 else pointwise)(func, args, kwargs)


rule(torch.where)(_where)


def _set_data(func: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
    x, data = args
    with _plain():
        same = x.shape == data.shape
    if not isinstance(x, StreamTensor) or same:
        with _plain():
            return func(x, data)
    raise StreamInputError(
        f"rows_lost: x.data became a tensor of shape {list(data.shape)}, and x has {list(x.shape)}; the same shape was "
        "expected; take x.with_data(data)"
    )


rule(Tensor.data.__set__)(_set_data)  # type: ignore[attr-defined]
