"""Tensors put together and taken apart: cat, stack, split."""

from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from ..errors import StreamInputError
from .row_data import Layout, RowData
from .table import attach, functions, plainly, require_kept, require_same, rule
from .tensor import StreamTensor

__all__: List[str] = []

_plain = torch._C.DisableTorchFunctionSubclass
_Plan = Callable[[Sequence[Tensor], int], Optional[Layout]]


def _joins(plan: _Plan, axis_of: Callable[[Tuple[Any, ...], int], int], *called: Any) -> None:
    # Rules for functions of a list of tensors and an axis.
    def run(func: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
        named = dict(kwargs)
        tensors = args[0] if args else named["tensors"]
        out = named.get("out")
        if not any(isinstance(each, StreamTensor) for each in tensors):
            return plainly(func, args, kwargs)
        with _plain():
            dim = args[1] if len(args) > 1 else named.get("dim", named.get("axis", 0))
            rank = max(each.dim() for each in tensors)
            axis = axis_of((dim,), rank)
            fate = plan(tensors, axis)
            require_kept(fate, out, func.__name__)
            y = func(*args, **kwargs)
            if fate is None:
                return y
            if out is not None and not isinstance(out, StreamTensor):
                return y
            over_time = axis == fate.time and fate.rank == rank
            order = _order(tensors, axis) if over_time else None
            if order is not None:
                y = y.gather(fate.time, order.to(y.device).expand(y.shape))
                if out is not None:
                    y = out.copy_(y)
            return attach(y, fate)

    rule(*called)(run)


# --------------------------------------------------------------------------- along an axis


def _cat(tensors: Sequence[Tensor], axis: int) -> Optional[Layout]:
    layouts = [each._layout for each in tensors if isinstance(each, StreamTensor)]
    at = layouts[0]
    if any((each.batch, each.time, each.rank) != (at.batch, at.time, at.rank) for each in layouts):
        return None
    if at.apart(axis):
        for each in layouts:
            require_same(at, each, torch.cat)
        _require_sizes(tensors, at)
        return at
    if len(layouts) < len(tensors):
        return None
    if axis == at.batch:
        return at.having(at.rows.joined(*(each.rows for each in layouts[1:])))
    return at.having(_continued([each.rows for each in layouts]))


def _require_sizes(tensors: Sequence[Tensor], at: Layout) -> None:
    for each in tensors:
        if each.dim() != at.rank and not (each.dim() == 1 and not len(each)):
            raise IndexError  # torch says why


def _continued(parts: Sequence[RowData]) -> RowData:
    rows: List[List[Any]] = [[*row] for row in zip(*parts[0].fields, strict=True)]
    for part in parts[1:]:
        if part.ids != parts[0].ids:
            raise _apart(f"rows of {part.ids} come after rows of {parts[0].ids}")
        for row, (name, begins, ends, length, start) in zip(rows, zip(*part.fields, strict=True), strict=True):
            _, _, ended, so_far, begun = row
            if begins and so_far:
                raise _apart(f"the signal {name!r} begins after samples of it")
            if ended and length:
                raise _apart(f"samples of {name!r} come after its last")
            if start is not None and begun is not None and start != begun + so_far:
                raise _apart(f"samples of {name!r} from {start} come after those before {begun + so_far}")
            row[1:3] = row[1] or begins, ended or ends
            if begun is None and start is not None:
                row[4] = start - so_far
            row[3] += length
    ids, first, last, lengths, begun = zip(*rows, strict=True) if rows else ((),) * 5
    return RowData(ids, first, last, lengths, begun)


def _apart(wrong: str) -> StreamInputError:
    return StreamInputError(
        f"rows_differ: cat over time, where {wrong}; pieces of the same signals, one after the other, were expected; "
        "order the rows alike, or use x.tensor()"
    )


def _order(tensors: Sequence[Tensor], time: int) -> Optional[Tensor]:
    # Which samples to take so that no padding stands between those of a row; None where none does.
    parts = [(each._layout, each.shape[time]) for each in tensors if isinstance(each, StreamTensor)]
    gaps = [False] * len(parts[0][0].rows)
    apart = False
    for layout, width in parts:
        for row, length in enumerate(layout.rows.lengths):
            apart = apart or (gaps[row] and length > 0)
            gaps[row] = gaps[row] or length < width
    if not apart:
        return None
    cpu = torch.device("cpu")
    padding = torch.cat([layout.padding([width] * layout.rank, cpu) for layout, width in parts], time)
    return padding.to(torch.uint8).argsort(dim=time, stable=True)


def _from_front(dims: Tuple[Any, ...], rank: int) -> int:
    if not -rank <= dims[0] < rank:
        raise IndexError(f"Dimension out of range: {dims[0]} of {rank} axes")
    return dims[0] % rank


def _dstack(tensors: Sequence[Tensor], axis: int) -> Optional[Layout]:
    return _cat(tensors, axis) if all(each.dim() > 2 for each in tensors) else None


_joins(_cat, _from_front, *functions("cat", "concat", "concatenate"))
_joins(_cat, lambda dims, rank: min(rank - 1, 1), *functions("hstack"))
_joins(_dstack, lambda dims, rank: 2, *functions("dstack"))


# --------------------------------------------------------------------------- along a new axis


def _stack(tensors: Sequence[Tensor], axis: int) -> Optional[Layout]:
    layouts = [each._layout for each in tensors if isinstance(each, StreamTensor)]
    at = layouts[0]
    if any((each.batch, each.time, each.rank) != (at.batch, at.time, at.rank) for each in layouts):
        return None
    alike = all(at.rows.same(each.rows) for each in layouts)
    wide = at.widened(axis)
    if at.batch is None and (not alike or len(tensors) == 1):  # of rows; a row with itself is no batch
        if len(layouts) < len(tensors):
            return None
        return Layout(at.rows.joined(*(each.rows for each in layouts[1:])), axis, wide.time, wide.rank)
    for each in layouts:
        require_same(at, each, torch.stack)
    return wide


def _vstack(tensors: Sequence[Tensor], axis: int) -> Optional[Layout]:
    return _stack(tensors, 0) if all(each.dim() == 1 for each in tensors) else _cat(tensors, 0)


_joins(_stack, lambda dims, rank: _from_front(dims, rank + 1), *functions("stack"))
_joins(_vstack, lambda dims, rank: 0, *functions("vstack", "row_stack"))


# --------------------------------------------------------------------------- apart


def _splits(dim_of: Callable[[Tuple[Any, ...], Dict[str, Any], int], int], *called: Any) -> None:
    # Rules for functions that give neighbouring parts.
    def run(func: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
        x = args[0] if args else kwargs.get("input", kwargs.get("tensor"))
        with _plain():
            parts = func(*args, **kwargs)
            if not isinstance(x, StreamTensor):
                return parts
            layout = x._layout
            axis = layout.axis(dim_of(args, kwargs, layout.rank))
            fates, begin = [], 0
            bounds = _bounds(args, kwargs) if "tensor_split" in func.__name__ else None
            if bounds is None and func.__name__ in ("hsplit", "vsplit", "dsplit"):
                bounds = _bounds(args, kwargs)
            for number, part in enumerate(parts):
                if bounds is not None:
                    begin = slice(*bounds[number]).indices(x.shape[axis])[0]
                end = begin + part.shape[axis]
                if axis == layout.batch:
                    fates.append(layout.having(layout.rows.slice(slice(begin, end))))
                elif axis == layout.time:
                    fates.append(layout.having(layout.rows.cut(begin, end)))
                else:
                    fates.append(layout)
                begin = end
            return type(parts)(attach(part.as_subclass(Tensor), its) for part, its in zip(parts, fates, strict=True))

    rule(*called)(run)


def _bounds(args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Optional[List[Tuple[Optional[int], Optional[int]]]]:
    # Of parts cut at given places, in any order; None where so many equal parts were asked for.
    names = ("indices_or_sections", "indices", "tensor_indices_or_sections")
    cuts = args[1] if len(args) > 1 else next((kwargs[name] for name in names if name in kwargs), None)
    if isinstance(cuts, Tensor):
        cuts = cuts.tolist()
    if not isinstance(cuts, (list, tuple)):
        return None
    return list(zip([None, *cuts], [*cuts, None], strict=True))


def _given(args: Tuple[Any, ...], kwargs: Dict[str, Any], rank: int) -> int:
    return int(args[2] if len(args) > 2 else kwargs.get("dim", 0))


_splits(_given, *functions("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes"))
_splits(_given, *functions("chunk", "unsafe_chunk", "tensor_split"))
_splits(lambda args, kwargs, rank: min(rank - 1, 1), *functions("hsplit"))
_splits(lambda args, kwargs, rank: 0, *functions("vsplit"))
_splits(lambda args, kwargs, rank: 2, *functions("dsplit"))
