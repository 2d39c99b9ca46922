"""Reductions: over time without the padding, over other axes as torch does."""

from math import inf, prod
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .pointwise import pointwise
from .row_data import Layout
from .table import Rule, attach, functions, plainly, require_kept, rule
from .tensor import StreamTensor

__all__: List[str] = []

_plain = torch._C.DisableTorchFunctionSubclass
# The result without padding: of the function, the tensor, its layout, the axes, and the arguments behind the first.
_Masked = Callable[[Any, Tensor, Layout, Sequence[int], Tuple[Any, ...], Dict[str, Any]], Any]


def _reduction(masked: _Masked, where: int, keeps: int, sorts: bool) -> Rule:
    def run(func: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
        named = dict(kwargs)
        x = args[0] if args else named.pop("input", None)
        if not isinstance(x, StreamTensor):
            return plainly(func, args, kwargs)
        layout = x._layout
        try:
            axes = _axes(func, layout, args, named, where)
        except (IndexError, TypeError):  # torch says why
            return plainly(func, args, kwargs)
        keepdim = sorts or (args[keeps] if len(args) > keeps else named.get("keepdim", False))
        whole = layout.time in axes or layout.batch in axes
        fate = None if whole else layout if keepdim else layout.without(axes)
        if "out" in named:
            require_kept(fate, named["out"], func.__name__)
        with _plain():
            shape = x.shape
            if layout.time in axes and (shape[layout.time] == 0 or layout.padded(shape)):
                return masked(func, x.as_subclass(Tensor), layout, axes, args[1:], named)
            return attach(func(*args, **kwargs), fate)

    return run


def _reduces(masked: _Masked, *called: Any, where: int = 1, keeps: Optional[int] = None, sorts: bool = False) -> None:
    """Enter rules for reductions.

    Args:
        masked: what runs where padding would count
        called: the functions
        where: which argument is ``dim``
        keeps: which is ``keepdim``, if it is not the next
        sorts: whether the axis keeps its place
    """
    rule(*called)(_reduction(masked, where, where + 1 if keeps is None else keeps, sorts))


def _axes(func: Any, layout: Layout, args: Tuple[Any, ...], named: Dict[str, Any], where: int) -> List[int]:
    dim = args[where] if len(args) > where else named.get("dim", named.get("axis", _DEFAULTS.get(func)))
    if dim is None or isinstance(dim, (bool, Tensor)) or dim == ():
        return list(range(layout.rank))
    return [layout.axis(each) for each in (dim if isinstance(dim, (tuple, list)) else [dim])]


_DEFAULTS = {each: -1 for each in functions("sort", "argsort", "topk", "kthvalue", "mode")}
_DEFAULTS |= {each: 0 for each in functions("msort")}


# --------------------------------------------------------------------------- with a neutral sample


def _filled(neutral: Callable[[Tensor], Any]) -> _Masked:
    def masked(
        func: Any, x: Tensor, layout: Layout, axes: Sequence[int], args: Tuple[Any, ...], named: Dict[str, Any]
    ) -> Any:
        return func(_filled_with(x, layout, neutral(x)), *args, **named)

    return masked


def _filled_with(x: Tensor, layout: Layout, value: Any) -> Tensor:
    if x.shape[layout.time] == 0:  # nothing to reduce
        shape = list(x.shape)
        shape[layout.time] = 1
        return x.new_full(shape, value)
    return x.masked_fill(layout.padding(x.shape, x.device), value)


def _least(x: Tensor) -> Any:
    if x.dtype == torch.bool:
        return False
    return -inf if x.is_floating_point() else torch.iinfo(x.dtype).min


def _most(x: Tensor) -> Any:
    if x.dtype == torch.bool:
        return True
    return inf if x.is_floating_point() else torch.iinfo(x.dtype).max


_reduces(_filled(lambda x: 0), *functions("sum", "nansum", "any", "count_nonzero"))
_reduces(_filled(lambda x: 1), *functions("prod", "all"))
_reduces(_filled(_least), *functions("amax", "argmax"))
_reduces(_filled(_most), *functions("amin", "argmin"))
_reduces(_filled(lambda x: -inf), *functions("logsumexp"))


def _aminmax(
    func: Any, x: Tensor, layout: Layout, axes: Sequence[int], args: Tuple[Any, ...], named: Dict[str, Any]
) -> Any:
    low, high = (_filled_with(x, layout, value(x)) for value in (_most, _least))
    return torch.return_types.aminmax((torch.aminmax(low, **named)[0], torch.aminmax(high, **named)[1]))


_reduces(_aminmax, *functions("aminmax"), where=9)


def _extreme(neutral: Callable[[Tensor], Any], *called: Any) -> None:
    # Of all, of an axis, or of two tensors sample by sample.
    reduction = _reduction(_filled(neutral), 1, 2, False)

    def run(func: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
        other = args[1] if len(args) > 1 else kwargs.get("other")
        return (pointwise if isinstance(other, Tensor) else reduction)(func, args, kwargs)

    rule(*called)(run)


_extreme(_least, *functions("max"))
_extreme(_most, *functions("min"))


# --------------------------------------------------------------------------- with the number of samples


def _count(x: Tensor, layout: Layout, axes: Sequence[int], keepdim: bool) -> Tensor:
    # Samples that count in each place of the result.
    lengths = torch.tensor(layout.rows.lengths, device=x.device, dtype=torch.float64)
    view = [1] * layout.rank
    if layout.batch is not None:
        view[layout.batch] = len(lengths)
    if layout.batch in axes:
        lengths, view = lengths.sum(), [1] * layout.rank
    counts = lengths.view(view) * prod(x.shape[axis] for axis in axes if layout.apart(axis))
    return counts if keepdim else _dropped(counts, axes)


def _dropped(x: Tensor, axes: Sequence[int]) -> Tensor:
    return x.squeeze(tuple(axes))


def _mean(
    func: Any, x: Tensor, layout: Layout, axes: Sequence[int], args: Tuple[Any, ...], named: Dict[str, Any]
) -> Tensor:
    keepdim = bool(named.get("keepdim", args[1] if len(args) > 1 else False))
    dtype = named.get("dtype") or x.dtype
    if not (dtype.is_floating_point or dtype.is_complex):
        return func(x, *args, **named)  # raises
    total = _filled_with(x.to(dtype), layout, 0).sum(tuple(axes), keepdim)
    if func in _NANMEAN:
        real = _filled_with(x.to(dtype), layout, torch.nan)
        return torch.nansum(real, tuple(axes), keepdim) / (~real.isnan()).sum(tuple(axes), keepdim)
    return total / _count(x, layout, axes, keepdim).to(total.dtype)


_NANMEAN = set(functions("nanmean"))
_reduces(_mean, *functions("mean", "nanmean"))


def _spread(
    func: Any, x: Tensor, layout: Layout, axes: Sequence[int], args: Tuple[Any, ...], named: Dict[str, Any]
) -> Any:
    unbiased, keepdim, correction = named.get("unbiased"), named.get("keepdim", False), named.get("correction")
    if args and isinstance(args[0], bool):
        unbiased = args[0]
    if len(args) > 1:
        unbiased = args[1]
    if len(args) > 2:
        keepdim = args[2]
    if correction is None:
        correction = 1 if unbiased is None else int(unbiased)
    if not (x.is_floating_point() or x.is_complex()):
        return func(x, *args, **named)  # raises
    over = tuple(axes)
    count = _count(x, layout, axes, True).to(x.dtype)
    mean = _filled_with(x, layout, 0).sum(over, True) / count
    apart = x - mean
    squares = _filled_with(apart, layout, 0).square().sum(over, True)
    var = squares / (count - correction).clamp(min=0)
    name = func.__name__
    result = var.sqrt() if "std" in name else var
    if not keepdim:
        result, mean = _dropped(result, axes), _dropped(mean, axes)
    if "mean" in name:
        return (
            getattr(torch.return_types, name)((result, mean)) if hasattr(torch.return_types, name) else (result, mean)
        )
    return result


_reduces(_spread, *functions("var", "std", "var_mean", "std_mean"), keeps=3)


# --------------------------------------------------------------------------- row by row


def _by_rows(
    func: Any, x: Tensor, layout: Layout, axes: Sequence[int], args: Tuple[Any, ...], named: Dict[str, Any]
) -> Any:
    if layout.batch in axes or layout.batch is None and len(axes) > 1:
        return func(x.masked_select(~layout.padding(x.shape, x.device)), *args, **named)
    results = []
    for row, length in enumerate(layout.rows.lengths):
        piece = x if layout.batch is None else x.narrow(layout.batch, row, 1)
        results.append(func(piece.narrow(layout.time, 0, length), *args, **named))
    if isinstance(results[0], Tensor):
        return _below(func, results, layout, x, axes, args, named)
    parts = zip(*results, strict=True)
    return type(results[0])(_below(func, list(part), layout, x, axes, args, named) for part in parts)


def _below(
    func: Any,
    parts: List[Tensor],
    layout: Layout,
    x: Tensor,
    axes: Sequence[int],
    args: Tuple[Any, ...],
    named: Dict[str, Any],
) -> Tensor:
    # The results of rows as one, at the place where the axis of rows is now.
    if "sort" in func.__name__:  # rows of unequal lengths
        after, width = [0, 0] * (x.dim() - 1 - layout.time), x.shape[layout.time]
        parts = [F.pad(part, [*after, 0, width - part.shape[layout.time]]) for part in parts]
    if layout.batch is None:
        return parts[0]
    q = args[0] if args else named.get("q")
    front = int("quantile" in func.__name__ and isinstance(q, Tensor) and q.dim() > 0)  # an axis of quantiles
    kept = parts[0].dim() - front == x.dim()
    gone = 0 if kept else sum(axis < layout.batch for axis in axes)
    return torch.cat(parts, layout.batch - gone + front)


_reduces(_by_rows, *functions("median", "nanmedian", "mode"))
_reduces(_by_rows, *functions("kthvalue", "quantile", "nanquantile"), where=2)
_reduces(_by_rows, *functions("sort", "argsort", "msort"), sorts=True)
_reduces(_by_rows, *functions("topk"), where=2, sorts=True)


def _norm(
    func: Any, x: Tensor, layout: Layout, axes: Sequence[int], args: Tuple[Any, ...], named: Dict[str, Any]
) -> Any:
    order = args[0] if args else named.get("p", named.get("ord", 2))
    if isinstance(order, (int, float)) and order <= 0:
        return _by_rows(func, x, layout, axes, args, named)
    return func(_filled_with(x, layout, 0), *args, **named)


_reduces(_norm, *functions("norm", "vector_norm"), where=2)
