"""Operations that move, add, drop and reshape axes."""

from functools import lru_cache
from math import prod
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from .row_data import Layout
from .table import attach, by_plan, functions, getter, plainly, rule
from .tensor import StreamTensor

__all__: List[str] = []

_plain = torch._C.DisableTorchFunctionSubclass
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19)


# --------------------------------------------------------------------------- axes move


def _moved(func: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
    # Where the axes go is read off a tensor whose axes have sizes of their own.
    named = dict(kwargs)
    x = args[0] if args else named.pop("input", None)
    if not isinstance(x, StreamTensor):
        return plainly(func, args, kwargs)
    at = x._layout
    try:
        places = _places(func, at.rank, _frozen(args[1:]), _frozen(tuple(named.items())))
    except (TypeError, RuntimeError, IndexError, ValueError):  # no such call: torch says why
        places = ()
    if at.time not in places or not (at.batch is None or at.batch in places):
        return plainly(func, args, kwargs)
    batch = None if at.batch is None else places.index(at.batch)
    fate = Layout(at.rows, batch, places.index(at.time), len(places))
    with _plain():
        y = func(*args, **kwargs)
        if y is x and func.__name__[-1] != "_":
            y = y.as_subclass(Tensor)
        return attach(y, fate)


@lru_cache(maxsize=512)
def _places(func: Any, rank: int, args: Tuple[Any, ...], named: Tuple[Any, ...]) -> Tuple[Optional[int], ...]:
    probe = torch.empty(1).expand(_PRIMES[:rank])
    shape = func(probe, *args, **dict(named)).shape
    return tuple(_PRIMES.index(size) if size in _PRIMES else None for size in shape)


def _frozen(values: Any) -> Any:
    return tuple(map(_frozen, values)) if isinstance(values, (list, tuple)) else values


rule(
    *functions("permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis", "t", "adjoint"),
    *functions("unsqueeze", "flatten", "ravel", "permute_copy", "transpose_copy", "unsqueeze_copy", "t_copy"),
    *getter("T", "mT", "H", "mH"),
)(_moved)


# --------------------------------------------------------------------------- axes of size 1 go


@by_plan(*functions("squeeze", "squeeze_copy"))
def _squeeze(at: Layout, shape: Tuple[int, ...], *dim: Any, **named: Any) -> Optional[Layout]:
    asked = dim[0] if len(dim) == 1 else named.get("dim", dim if dim else None)
    every = range(at.rank) if asked is None else asked if isinstance(asked, (tuple, list)) else [asked]
    gone = [axis for axis in map(at.axis, every) if shape[axis] == 1]
    return None if at.time in gone else at.without(gone)


# --------------------------------------------------------------------------- other shapes


def _by_shape(plan: Callable[[Layout, Tuple[int, ...], Tuple[int, ...]], Optional[Layout]], *called: Any) -> None:
    # Rules for functions of which the shape of the result tells all.
    def run(func: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
        x = args[0] if args else kwargs.get("input")
        with _plain():
            y = func(*args, **kwargs)
            if not isinstance(x, StreamTensor):
                return y.as_subclass(Tensor) if isinstance(y, StreamTensor) else y
            fate = plan(x._layout, tuple(x.shape), tuple(y.shape))
            return attach(y.as_subclass(Tensor), fate)

    rule(*called)(run)


def _reshaped(at: Layout, old: Tuple[int, ...], new: Tuple[int, ...]) -> Optional[Layout]:
    if old == new:
        return at
    if 0 in old or 0 in new:
        # Which axis is the empty one must be plain; then its size does not matter.
        if old.count(0) != 1 or new.count(0) != 1:
            return None
        size = prod(size for size in new if size) + prod(size for size in old if size) + 1
        old, new = (tuple(each or size for each in shape) for shape in (old, new))
    time = _found(at.time, old, new)
    batch = None if at.batch is None else _found(at.batch, old, new, leading=True)
    if time is None or time == batch or (batch is None and at.batch is not None):
        return None
    return Layout(at.rows, batch, time, len(new))


def _found(axis: int, old: Sequence[int], new: Sequence[int], leading: bool = False) -> Optional[int]:
    # The axis with as many elements before it and of the same size.
    def alike(shape: Sequence[int]) -> List[int]:
        before = prod(old[:axis])
        return [at for at in range(len(shape)) if shape[at] == old[axis] and prod(shape[:at]) == before]

    ours, theirs = alike(old), alike(new)
    if len(ours) == len(theirs):
        return theirs[ours.index(axis)]
    # Axes of size 1 cannot be told apart. A single row stays where it was; a single sample may have been merged.
    return theirs[min(ours.index(axis), len(theirs) - 1)] if leading and theirs else None


def _viewed(at: Layout, old: Tuple[int, ...], new: Tuple[int, ...]) -> Optional[Layout]:
    return _reshaped(at, old, new) if prod(old) == prod(new) else None


_by_shape(_viewed, *functions("view", "reshape", "view_as", "reshape_as", "view_copy"))


def _expanded(at: Layout, old: Tuple[int, ...], new: Tuple[int, ...]) -> Optional[Layout]:
    # Repeated along axes, new ones in front.
    fate = at.widened(0, len(new) - len(old))
    if new[fate.time] != old[at.time]:
        return None
    if at.batch is not None and fate.batch is not None and new[fate.batch] != old[at.batch]:
        if not old[at.batch]:
            return None
        times = new[fate.batch] // old[at.batch]
        return fate.having(at.rows.pick([*range(old[at.batch])] * times))
    return fate


_by_shape(_expanded, *functions("expand", "expand_as", "expand_copy", "broadcast_to"))


@by_plan(*functions("repeat", "tile"))
def _repeat(at: Layout, shape: Tuple[int, ...], *repeats: Any, **named: Any) -> Optional[Layout]:
    asked = named.get("repeats", named.get("dims", repeats))
    counts = list(asked[0] if len(asked) == 1 and isinstance(asked[0], (tuple, list)) else asked)
    counts = [1] * (at.rank - len(counts)) + counts  # those of `tile` may be fewer
    fate = at.widened(0, len(counts) - at.rank)
    if counts[fate.time] != 1:
        return None
    if at.batch is None or fate.batch is None:
        return fate
    return fate.having(at.rows.pick([*range(shape[at.batch])] * counts[fate.batch]))


@by_plan(*functions("unflatten"))
def _unflatten(at: Layout, shape: Tuple[int, ...], dim: int, sizes: Any) -> Optional[Layout]:
    axis = at.axis(dim)
    return at.widened(axis, len(sizes) - 1) if at.apart(axis) else None


# --------------------------------------------------------------------------- order and number of rows


@by_plan(*functions("flip"))
def _flip(at: Layout, shape: Tuple[int, ...], *dims: Any, **named: Any) -> Optional[Layout]:
    asked = named.get("dims", dims[0] if len(dims) == 1 else dims)
    axes = [at.axis(dim) for dim in (asked if isinstance(asked, (tuple, list)) else [asked])]
    if at.time in axes:
        return None
    return at.having(at.rows.slice(slice(None, None, -1))) if at.batch in axes else at


@by_plan(*functions("flipud"))
def _flipud(at: Layout, shape: Tuple[int, ...]) -> Optional[Layout]:
    return _flip(at, shape, 0)


@by_plan(*functions("fliplr"))
def _fliplr(at: Layout, shape: Tuple[int, ...]) -> Optional[Layout]:
    return _flip(at, shape, 1)


@by_plan(*functions("roll"))
def _roll(at: Layout, shape: Tuple[int, ...], shifts: Any, dims: Any = None) -> Optional[Layout]:
    if dims is None or dims == ():
        return None  # along all axes as one
    shifts, dims = (each if isinstance(each, (tuple, list)) else (each,) for each in (shifts, dims))
    rows = at.rows
    for shift, dim in zip(shifts, dims, strict=True):
        axis = at.axis(dim)
        if axis == at.time:
            return None
        if axis == at.batch:
            rows = rows.pick([(row - shift) % shape[axis] for row in range(shape[axis])])
    return at.having(rows)


@by_plan(*functions("repeat_interleave"))
def _repeat_interleave(
    at: Layout, shape: Tuple[int, ...], repeats: Any, dim: Optional[int] = None, *, output_size: Any = None
) -> Optional[Layout]:
    if dim is None or at.axis(dim) == at.time:
        return None
    if at.axis(dim) != at.batch:
        return at
    counts = torch.as_tensor(repeats).expand(shape[at.axis(dim)]).tolist()
    return at.having(at.rows.pick([row for row, count in enumerate(counts) for _ in range(count)]))
