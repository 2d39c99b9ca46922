"""Indices: slices, masks and lists of rows, slices of time."""

from typing import Any, Dict, Optional, Tuple

import torch
from torch import Tensor

from .row_data import Layout
from .table import by_plan, functions, require_same, rule
from .tensor import StreamTensor

__all__ = ["index_of_time"]

_plain = torch._C.DisableTorchFunctionSubclass
_WHOLE = slice(None)


def _getitem(func: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
    x, index = args
    with _plain():
        y = func(x, index)
        if not isinstance(x, StreamTensor):
            return y
        fate = _indexed(x._layout, x.shape, index)
        y = y.as_subclass(Tensor if fate is None else StreamTensor)
        if fate is not None:
            y._layout = fate
    return y


def _setitem(func: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
    x, index, value = args
    with _plain():
        if isinstance(x, StreamTensor) and isinstance(value, StreamTensor):
            fate = _indexed(x._layout, x.shape, index)
            if fate is not None:
                require_same(fate, value._layout, func)
        return func(x, index, value)


rule(Tensor.__getitem__)(_getitem)
rule(Tensor.__setitem__)(_setitem)


def _indexed(layout: Layout, shape: torch.Size, index: Any) -> Optional[Layout]:
    entries = index if type(index) is tuple else (index,)
    taken = 0
    dots = False
    for entry in entries:
        if entry is Ellipsis:
            dots = True
        elif entry is not None:
            taken += _width(entry)
    if not dots:
        entries = (*entries, Ellipsis)
    rows = layout.rows
    batch: Optional[int] = None
    time: Optional[int] = None
    at = out = lists = 0  # axes so far, of the tensor and of the result
    for entry in entries:
        if entry is None:
            out += 1
            continue
        if entry is Ellipsis:
            for _ in range(layout.rank - taken):
                if at == layout.batch:
                    batch = out
                elif at == layout.time:
                    time = out
                at += 1
                out += 1
            continue
        if isinstance(entry, slice):
            if at == layout.batch:
                batch = out
                if entry != _WHOLE:
                    rows = rows.slice(entry if entry.step is None else _with_numbers(entry, shape[at]))
            elif at == layout.time:
                begin, end, step = entry.indices(shape[at])
                if step != 1:
                    return None
                time = out
                if begin or end < shape[at]:
                    rows = rows.cut(begin, end)
            at += 1
            out += 1
            continue
        if isinstance(entry, bool):
            return None
        if not isinstance(entry, (Tensor, list, tuple, range)) and hasattr(entry, "__index__"):
            if at == layout.time:
                return None
            if at == layout.batch:
                rows = rows.pick([entry.__index__()])
            at += 1
            continue
        if _numbers(entry):
            lists += 1
            if at == layout.time or lists > 1:
                return None
            if at == layout.batch:
                rows = rows.pick(tuple(entry))
                batch = out
            at += 1
            out += 1
            continue
        chosen = entry if isinstance(entry, Tensor) else torch.as_tensor(entry)
        mask = chosen.dtype in (torch.bool, torch.uint8)
        if mask and chosen.dim() == 0:
            return None
        width = chosen.dim() if mask else 1
        touched = [axis for axis in (layout.batch, layout.time) if axis is not None and at <= axis < at + width]
        if touched and (touched != [layout.batch] or chosen.dim() > 1):
            return None
        if touched:
            numbers = chosen.nonzero().flatten() if mask else chosen.flatten()
            rows = rows.pick(numbers.tolist())
            batch = out if chosen.dim() else None
        if chosen.dim():
            lists += 1
        if lists > 1:  # they are joined, and may go to the front
            return None
        at += width
        out += 1 if mask else chosen.dim()
    return None if time is None else Layout(rows, batch, time, out)


def index_of_time(layout: Layout, index: Any) -> Any:
    """What an index has at the axis of time."""
    entries = index if type(index) is tuple else (index,)
    taken = sum(_width(entry) for entry in entries if entry is not None and entry is not Ellipsis)
    at = 0
    for entry in entries:
        if entry is None:
            continue
        width = layout.rank - taken if entry is Ellipsis else _width(entry)
        if at <= layout.time < at + width:
            return _WHOLE if entry is Ellipsis else entry
        at += width
    return _WHOLE


def _width(entry: Any) -> int:
    # How many axes an index takes.
    if isinstance(entry, (slice, int)) or _numbers(entry):
        return 0 if isinstance(entry, bool) else 1
    if isinstance(entry, Tensor) or hasattr(entry, "dtype") or isinstance(entry, list):
        tensor = entry if isinstance(entry, Tensor) else torch.as_tensor(entry)
        if tensor.dtype in (torch.bool, torch.uint8):
            return tensor.dim()
    return 1


def _numbers(entry: Any) -> bool:
    return type(entry) is list and all(type(each) is int for each in entry)


def _with_numbers(entry: slice, size: int) -> slice:
    return slice(*entry.indices(size))


# --------------------------------------------------------------------------- by name


@by_plan(*functions("narrow", "narrow_copy"))
def _narrow(at: Layout, shape: Tuple[int, ...], dim: int, start: Any, length: int) -> Optional[Layout]:
    axis = at.axis(dim)
    begin = int(start) % max(shape[axis], 1) if int(start) < 0 else int(start)
    if axis == at.batch:
        return at.having(at.rows.slice(slice(begin, begin + length)))
    if axis == at.time:
        return at.having(at.rows.cut(begin, begin + length))
    return at


@by_plan(*functions("select", "select_copy"))
def _select(at: Layout, shape: Tuple[int, ...], dim: int, index: int) -> Optional[Layout]:
    axis = at.axis(dim)
    if axis == at.time:
        return None
    return (at.having(at.rows.pick([int(index)])) if axis == at.batch else at).without([axis])


@by_plan(*functions("index_select"))
def _index_select(at: Layout, shape: Tuple[int, ...], dim: int, index: Tensor) -> Optional[Layout]:
    axis = at.axis(dim)
    if axis == at.time:
        return None
    return at.having(at.rows.pick(index.flatten().tolist())) if axis == at.batch else at


@by_plan(*functions("unbind"))
def _unbind(at: Layout, shape: Tuple[int, ...], dim: int = 0) -> Any:
    axis = at.axis(dim)
    if axis == at.time:
        return None
    gone = at.without([axis])
    return [gone.having(at.rows.pick([row])) if axis == at.batch else gone for row in range(shape[axis])]


# --------------------------------------------------------------------------- within rows


@by_plan(*functions("gather", "scatter", "scatter_add", "scatter_reduce"))
def _gather(at: Layout, shape: Tuple[int, ...], dim: int, index: Tensor, *args: Any, **kwargs: Any) -> Optional[Layout]:
    axes = [axis for axis in (at.batch, at.time) if axis is not None]
    kept = index.dim() == at.rank and all(index.shape[axis] == shape[axis] for axis in axes)
    return at if at.apart(at.axis(dim)) and kept else None


@by_plan(*functions("take_along_dim"))
def _take_along_dim(at: Layout, shape: Tuple[int, ...], indices: Tensor, dim: Any = None) -> Optional[Layout]:
    return None if dim is None else _gather(at, shape, dim, indices)


@by_plan(*functions("index_add", "index_copy", "index_fill", "index_reduce"))
def _index_add(at: Layout, shape: Tuple[int, ...], dim: int, *args: Any, **kwargs: Any) -> Optional[Layout]:
    return at if at.apart(at.axis(dim)) else None
