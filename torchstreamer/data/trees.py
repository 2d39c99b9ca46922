"""Chunks of any structure, of several rows, as one: stacked, padded along time, joined, blanked.

A chunk is a tensor, an array, a number, or a tuple, list or dict of these; anything else is carried along in a list.
"""

from typing import Any, Callable, List, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor

from ..errors import StreamReadError

__all__ = ["Number", "Others", "TimeDim", "blank", "copied", "join", "map_tensors", "stack"]

Number = Union[int, float]
TimeDim = Any  # an axis, or the structure of a chunk with an axis for each part of it


class Others(List[Any]):
    """What could not be stacked: one entry for each row."""


def map_tensors(function: Callable[[Tensor], Any], tree: Any) -> Any:
    """The same structure with every tensor replaced by what the function makes of it."""
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, dict):
        return _like(tree, {key: map_tensors(function, value) for key, value in tree.items()})
    if isinstance(tree, (tuple, list)) and not isinstance(tree, Others):
        return _like(tree, [map_tensors(function, value) for value in tree])
    return tree


def copied(chunk: Any) -> Any:
    """The chunk with its tensors and arrays in memory of their own."""
    if isinstance(chunk, Tensor):
        return chunk.clone()
    if _is_array(chunk):
        return chunk.copy()
    if isinstance(chunk, dict):
        return _like(chunk, {key: copied(value) for key, value in chunk.items()})
    if isinstance(chunk, (tuple, list)):
        return _like(chunk, [copied(value) for value in chunk])
    return chunk


def blank(chunk: Any, fill: Number) -> Any:
    """A chunk of the same structure that holds nothing but ``fill``; ``None`` for what is no number."""
    if isinstance(chunk, Tensor):
        return torch.full_like(chunk, fill)
    if _is_array(chunk):
        if not hasattr(chunk, "fill"):  # a scalar
            return type(chunk)(fill)
        empty = chunk.copy()
        empty.fill(fill)
        return empty
    if isinstance(chunk, (bool, int, float, complex)):
        return type(chunk)(fill)
    if isinstance(chunk, dict):
        return _like(chunk, {key: blank(value, fill) for key, value in chunk.items()})
    if isinstance(chunk, (tuple, list)):
        return _like(chunk, [blank(value, fill) for value in chunk])
    return None


# ------------------------------------------------------------------ stacking rows


def stack(chunks: Sequence[Any], ids: Sequence[int], time_dim: TimeDim, fill: Number) -> Tuple[Any, Any]:
    """The chunks of several rows as one, and their lengths.

    Args:
        chunks: of one structure
        ids: of their streams, for messages
        time_dim: axis of time of a chunk
        fill: stands behind shorter chunks

    Returns:
        the data, and the lengths in the same structure: ``[n]`` int64, or ``None`` for what has no time

    Raises:
        StreamReadError: code ``unequal_chunks``: chunks differ in more than their length
    """
    first = chunks[0]
    kind = type(first)
    if isinstance(first, Tensor) or _is_array(first):
        return _stack_arrays(chunks, ids, time_dim, fill)
    for chunk, index in zip(chunks, ids, strict=True):
        if type(chunk) is not kind:
            raise _unequal(ids[0], kind.__name__, index, type(chunk).__name__)
    if isinstance(first, (bool, int, float, complex)):
        return torch.tensor(chunks), None
    if isinstance(first, dict):
        for chunk, index in zip(chunks, ids, strict=True):
            if chunk.keys() != first.keys():
                raise _unequal(ids[0], f"keys {list(first)}", index, f"keys {list(chunk)}")
        pairs = {key: stack([c[key] for c in chunks], ids, _part(time_dim, key), fill) for key in first}
        return ({key: data for key, (data, _) in pairs.items()}, {key: lengths for key, (_, lengths) in pairs.items()})
    if isinstance(first, (tuple, list)):
        for chunk, index in zip(chunks, ids, strict=True):
            if len(chunk) != len(first):
                raise _unequal(ids[0], f"{len(first)} entries", index, f"{len(chunk)} entries")
        found = [stack(entries, ids, _part(time_dim, at), fill) for at, entries in enumerate(zip(*chunks, strict=True))]
        return _like(first, [data for data, _ in found]), _like(first, [lengths for _, lengths in found])
    return Others(chunks), None


def _stack_arrays(chunks: Sequence[Any], ids: Sequence[int], time_dim: Any, fill: Number) -> Tuple[Tensor, Any]:
    if {type(chunk) for chunk in chunks} == {Tensor} and len({chunk.dtype for chunk in chunks}) == 1:
        try:
            data = torch.stack(list(chunks))
        except RuntimeError:
            pass  # of several lengths, or wrong
        else:
            axis = _axis(time_dim, data.dim() - 1, ids[0])
            return data, None if axis is None else torch.full((len(chunks),), data.shape[axis + 1])
    tensors = [
        chunk if isinstance(chunk, Tensor) else _tensor(chunk, ids[0], index)
        for chunk, index in zip(chunks, ids, strict=True)
    ]
    first = tensors[0]
    shape, dtype = first.shape, first.dtype
    axis = _axis(time_dim, len(shape), ids[0])
    same = True
    for tensor, index in zip(tensors, ids, strict=True):
        if tensor.shape != shape or tensor.dtype != dtype:
            same = False
            if tensor.dtype != dtype or not _fits(tensor.shape, shape, axis):
                raise _unequal(ids[0], _told(first), index, _told(tensor))
    if axis is None:
        return torch.stack(tensors), None
    if same:
        return torch.stack(tensors), torch.full((len(tensors),), shape[axis], dtype=torch.int64)
    lengths = torch.tensor([tensor.shape[axis] for tensor in tensors])
    longest = list(shape)
    longest[axis] = int(lengths.max())
    data = first.new_full([len(tensors), *longest], fill)
    for row, tensor in enumerate(tensors):
        data[row].narrow(axis, 0, tensor.shape[axis]).copy_(tensor)
    return data, lengths


# ------------------------------------------------------------------ joining groups of rows


def join(
    trees: Sequence[Any],
    rows: Sequence[Sequence[int]],
    ids: Sequence[Sequence[int]],
    batch_size: int,
    time_dim: TimeDim,
    fill: Number,
) -> Any:
    """Stacked rows of several groups as one batch, in memory of its own.

    Args:
        trees: what `stack` gave for each group
        rows: where in the batch the rows of each group belong
        ids: of their streams, for messages
        batch_size: rows of the batch; those in no group are filled with ``fill``
        time_dim: axis of time of a chunk
        fill: stands in rows of no group, and behind shorter chunks

    Raises:
        StreamReadError: code ``unequal_chunks``: groups differ in more than their length
    """
    first = trees[0]
    for tree, its in zip(trees, ids, strict=True):
        if type(tree) is not type(first) and not (isinstance(tree, Tensor) and isinstance(first, Tensor)):
            raise _unequal(ids[0][0], _kind(first), its[0], _kind(tree))
    if isinstance(first, Tensor):
        return _join_tensors(trees, rows, ids, batch_size, time_dim, fill)
    if isinstance(first, Others):
        joined = Others([None] * batch_size)
        for tree, places in zip(trees, rows, strict=True):
            for place, value in zip(places, tree, strict=True):
                joined[place] = value
        return joined
    if isinstance(first, dict):
        for tree, its in zip(trees, ids, strict=True):
            if tree.keys() != first.keys():
                raise _unequal(ids[0][0], f"keys {list(first)}", its[0], f"keys {list(tree)}")
        return {
            key: join([tree[key] for tree in trees], rows, ids, batch_size, _part(time_dim, key), fill) for key in first
        }
    if isinstance(first, (tuple, list)):
        for tree, its in zip(trees, ids, strict=True):
            if len(tree) != len(first):
                raise _unequal(ids[0][0], f"{len(first)} entries", its[0], f"{len(tree)} entries")
        parts = [
            join(entries, rows, ids, batch_size, _part(time_dim, at), fill)
            for at, entries in enumerate(zip(*trees, strict=True))
        ]
        return _like(first, parts)
    return None  # lengths of what has no time


def _join_tensors(
    tensors: Sequence[Tensor],
    rows: Sequence[Sequence[int]],
    ids: Sequence[Sequence[int]],
    batch_size: int,
    time_dim: TimeDim,
    fill: Number,
) -> Tensor:
    first = tensors[0]
    shape = first.shape[1:]
    axis = _axis(time_dim, len(shape), ids[0][0])
    longest = list(shape)
    same = True
    for tensor, its in zip(tensors, ids, strict=True):
        if tensor.shape[1:] != shape or tensor.dtype != first.dtype:
            same = False
            if tensor.dtype != first.dtype or not _fits(tensor.shape[1:], shape, axis):
                raise _unequal(ids[0][0], _told(first[0]), its[0], _told(tensor[0]))
            assert axis is not None
            longest[axis] = max(longest[axis], tensor.shape[axis + 1])
    present = [row for places in rows for row in places]
    if same and present == list(range(batch_size)):
        return torch.cat(list(tensors))
    joined = first.new_full([batch_size, *longest], fill)
    for tensor, places in zip(tensors, rows, strict=True):
        for place, row in zip(places, tensor, strict=True):
            (joined[place] if axis is None else joined[place].narrow(axis, 0, row.shape[axis])).copy_(row)
    return joined


# ------------------------------------------------------------------ inside


def _is_array(value: Any) -> bool:
    # A NumPy array or one of its scalars, known without importing NumPy.
    return hasattr(value, "__array__") and hasattr(value, "dtype") and not isinstance(value, Tensor)


def _tensor(array: Any, first: int, index: int) -> Tensor:
    if not _is_array(array):
        raise _unequal(first, "a tensor or an array", index, type(array).__name__)
    try:
        # Read-only arrays and those that run backwards are copied; torch takes neither.
        usable = array.flags.writeable and all(stride >= 0 for stride in array.strides)
        return torch.as_tensor(array if usable else array.copy())
    except (TypeError, ValueError) as error:
        raise StreamReadError(
            f"invalid_chunk: stream {index} gave {_told(array)}, which torch cannot hold ({error}); "
            "chunks are numeric; convert the array before it is given",
            index,
        ) from error


def _like(tree: Any, values: Any) -> Any:
    # A container of the kind of ``tree``; named tuples take their values one by one.
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*values)
    if isinstance(tree, dict):
        return dict(values)
    return tuple(values) if isinstance(tree, tuple) else list(values)


def _part(time_dim: TimeDim, key: Any) -> TimeDim:
    return time_dim if isinstance(time_dim, int) or time_dim is None else time_dim[key]


def _axis(time_dim: Any, rank: int, index: int) -> Optional[int]:
    # The axis of time of a chunk of this rank, counted from the front; None where it has none.
    if time_dim is None or rank == 0:
        return None
    if not isinstance(time_dim, int):
        raise StreamReadError(
            f"invalid_time_dim: time_dim is {time_dim!r} where stream {index} gave a tensor; "
            "an axis was expected; give one axis, or the structure of the chunks with an axis for each tensor",
            index,
        )
    axis = time_dim + rank if time_dim < 0 else time_dim
    return axis if 0 <= axis < rank else None


def _fits(shape: Sequence[int], other: Sequence[int], axis: Optional[int]) -> bool:
    # Whether two shapes differ in their lengths at most.
    if axis is None or len(shape) != len(other):
        return False
    return all(a == b for at, (a, b) in enumerate(zip(shape, other, strict=True)) if at != axis)


def _kind(tree: Any) -> str:
    # Of what was stacked.
    if isinstance(tree, Tensor):
        return "a tensor"
    return type(tree[0] if isinstance(tree, Others) else tree).__name__


def _told(value: Any) -> str:
    return f"{list(value.shape)} of {value.dtype}"


def _unequal(first: int, expected: str, index: int, came: str) -> StreamReadError:
    return StreamReadError(
        f"unequal_chunks: stream {index} gave {came} where stream {first} gave {expected}; chunks of a batch may "
        "differ along time_dim alone; give them one structure, or collate them yourself with collate_fn",
        index,
    )
