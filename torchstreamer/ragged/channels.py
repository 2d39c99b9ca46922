"""Operations along one axis that keep its place, and layers that work on the last axis."""

from math import inf
from typing import Any, Dict, List, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .row_data import Layout
from .table import attach, by_plan, functions, plainly, require_kept, rule
from .tensor import StreamTensor

__all__: List[str] = []

_plain = torch._C.DisableTorchFunctionSubclass


# --------------------------------------------------------------------------- along an axis


@by_plan(*functions("cumsum", "cumprod", "logcumsumexp", "cummax", "cummin"))
def _running(at: Layout, shape: Tuple[int, ...], dim: Any, *, dtype: Any = None) -> Optional[Layout]:
    # Padding stands at the end, so no sample of a row sees it.
    return None if at.axis(dim) == at.batch else at


def _softmax(func: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
    named = dict(kwargs)
    x = args[0] if args else named.pop("input", None)
    dim = args[1] if len(args) > 1 else named.get("dim")
    if not isinstance(x, StreamTensor) or dim is None or x._layout.axis(dim) == x._layout.batch:
        return plainly(func, args, kwargs)
    layout = x._layout
    with _plain():
        if layout.axis(dim) == layout.time and layout.padded(x.shape):
            fill = inf if func is F.softmin else -inf
            filled = x.masked_fill(layout.padding(x.shape, x.device), fill)
            return attach(func(filled, *args[1:], **named), layout)
        return attach(func(*args, **kwargs), layout)


rule(*functions("softmax", "log_softmax", "softmin"))(_softmax)


@by_plan(F.glu)
def _glu(at: Layout, shape: Tuple[int, ...], dim: int = -1) -> Optional[Layout]:
    return at if at.apart(at.axis(dim)) else None


@by_plan(F.normalize)
def _normalize(
    at: Layout, shape: Tuple[int, ...], p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: Any = None
) -> Optional[Layout]:
    return at if isinstance(dim, int) and at.apart(at.axis(dim)) else None


# --------------------------------------------------------------------------- on the last axes


@by_plan(F.linear)
def _linear(at: Layout, shape: Tuple[int, ...], weight: Tensor, bias: Optional[Tensor] = None) -> Optional[Layout]:
    return at if weight.dim() == 2 and at.apart(at.rank - 1) else None


def _matmul(func: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
    one, other = (*args, *kwargs.values())[:2] if len(args) + len(kwargs) > 1 else (None, None)
    if func is Tensor.__rmatmul__:
        one, other = other, one
    fate = None
    if isinstance(one, StreamTensor) and isinstance(other, Tensor) and not isinstance(other, StreamTensor):
        at = one._layout
        if at.rank > 1 and at.apart(at.rank - 1) and other.dim() in (1, 2):
            fate = at if other.dim() == 2 else at.without([at.rank - 1])
    elif isinstance(other, StreamTensor) and isinstance(one, Tensor) and not isinstance(one, StreamTensor):
        # Weights before samples that stand in columns.
        at = other._layout
        if at.rank > 1 and at.apart(at.rank - 2) and one.dim() in (1, 2):
            fate = at if one.dim() == 2 else at.without([at.rank - 2])
    if fate is None:
        return plainly(func, args, kwargs)
    require_kept(fate, kwargs.get("out"), "matmul")
    with _plain():
        return attach(func(*args, **kwargs), fate)


rule(*functions("matmul"), Tensor.__matmul__, Tensor.__rmatmul__)(_matmul)


@by_plan(*functions("layer_norm", "rms_norm"))
def _layer_norm(
    at: Layout, shape: Tuple[int, ...], normalized_shape: Any, *args: Any, **kwargs: Any
) -> Optional[Layout]:
    count = 1 if isinstance(normalized_shape, int) else len(normalized_shape)
    return at if all(at.apart(axis) for axis in range(at.rank - count, at.rank)) else None


@by_plan(F.one_hot)
def _one_hot(at: Layout, shape: Tuple[int, ...], *args: Any, **kwargs: Any) -> Optional[Layout]:
    return at.widened(at.rank)


@by_plan(F.embedding)
def _embedding(at: Layout, shape: Tuple[int, ...], *args: Any, **kwargs: Any) -> Optional[Layout]:
    return at.widened(at.rank)


@by_plan(F.batch_norm)
def _batch_norm(
    at: Layout,
    shape: Tuple[int, ...],
    mean: Any,
    var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    *args: Any,
    **kwargs: Any,
) -> Optional[Layout]:
    return None if training or not at.apart(1) else at
