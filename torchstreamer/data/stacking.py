"""Rows of chunks as one: stacked in a process, joined between processes, padded along time."""

import ctypes
from typing import Any, List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from ..errors import StreamReadError
from .trees import Number, Others, TimeDim, axis_of, copied, filled, kind_of, like, part_of, tensor_of

__all__ = ["join", "stack"]

_SHARED = 2**15  # elements from which on torch shares work out to threads
_ALONE = 2**25  # bytes that one thread copies


def stack(
    chunks: Sequence[Any], ids: Sequence[int], time_dim: TimeDim, fill: Number, alone: bool = True
) -> Tuple[Any, Any]:
    """The chunks of several rows as one, and their lengths.

    Args:
        chunks: of one structure
        ids: of their streams, for messages; -1 for ``padding_value``
        time_dim: axis of time of a chunk
        fill: stands after shorter chunks
        alone: whether these are whole chunks, not parts of them

    Returns:
        the data, and the lengths in the same structure: ``[n]`` int64, or ``None`` for what has no time

    Raises:
        StreamReadError: code ``unequal_chunks``: chunks differ in more than their length
    """
    first, kind = chunks[0], kind_of(chunks[0])
    for chunk, index in zip(chunks, ids, strict=True):
        if kind_of(chunk) != kind:
            raise _unequal(ids[0], _told(first), index, _told(chunk))
    if kind == "array":
        return _stack_arrays(chunks, ids, time_dim, fill, alone)
    if kind == "other":
        return Others(map(copied, chunks)), None
    _check_parts(chunks, ids)
    parts = _parts(chunks)
    found = {key: stack(part, ids, part_of(time_dim, key, ids[0]), fill, alone=False) for key, part in parts.items()}
    return (
        _built(first, {key: data for key, (data, _) in found.items()}),
        _built(first, {key: lengths for key, (_, lengths) in found.items()}),
    )


def _stack_arrays(
    chunks: Sequence[Any], ids: Sequence[int], time_dim: TimeDim, fill: Number, alone: bool
) -> Tuple[Tensor, Optional[Tensor]]:
    if {type(chunk) for chunk in chunks} != {Tensor}:
        chunks = [tensor_of(chunk, index) for chunk, index in zip(chunks, ids, strict=True)]
    first = chunks[0]
    shape, dtype = first.shape, first.dtype
    axis = axis_of(time_dim, len(shape), ids[0], alone)
    if len({chunk.dtype for chunk in chunks}) == 1:
        try:
            data = torch.stack(list(chunks)).detach()
        except RuntimeError:
            pass  # of several lengths, or wrong
        else:
            return data, None if axis is None else torch.full((len(chunks),), shape[axis])
    for chunk, index in zip(chunks, ids, strict=True):
        if chunk.dtype != dtype or not _fits(chunk.shape, shape, axis):
            raise _unequal(ids[0], _told(first), index, _told(chunk))
    assert axis is not None
    lengths = torch.tensor([chunk.shape[axis] for chunk in chunks])
    longest = list(shape)
    longest[axis] = int(lengths.max())
    data = filled(first.detach(), [len(chunks), *longest], fill)
    for row, chunk in enumerate(chunks):
        data[row].narrow(axis, 0, chunk.shape[axis]).copy_(chunk.detach())
    return data, lengths


def join(
    trees: Sequence[Any],
    rows: Sequence[Sequence[int]],
    ids: Sequence[Sequence[int]],
    batch_size: int,
    time_dim: TimeDim,
    fill: Number,
    alone: bool = True,
) -> Any:
    """Stacked rows of several groups as one batch, in memory of its own.

    Args:
        trees: what `stack` gave for each group
        rows: where in the batch the rows of each group belong
        ids: of their streams, for messages
        batch_size: rows of the batch; those in no group are filled with ``fill``
        time_dim: axis of time of a chunk
        fill: stands in rows of no group, and after shorter chunks
        alone: whether these are whole chunks, not parts of them

    Raises:
        StreamReadError: code ``unequal_chunks``: groups differ in more than their length
    """
    first, kind = trees[0], kind_of(trees[0])
    leading = [its[0] for its in ids]
    for tree, index in zip(trees, leading, strict=True):
        if kind_of(tree) != kind:
            one, other = (_told(each[0] if isinstance(each, Tensor) else each) for each in (first, tree))
            raise _unequal(leading[0], one, index, other)
    if kind == "array":
        return _join_tensors(trees, rows, leading, batch_size, time_dim, fill, alone)
    if first is None:
        return None  # lengths of what has no time
    if kind == "other":
        joined = Others([None] * batch_size)
        for tree, places in zip(trees, rows, strict=True):
            for place, value in zip(places, tree, strict=True):
                joined[place] = value
        return joined
    _check_parts(trees, leading)
    return _built(
        first,
        {
            key: join(part, rows, ids, batch_size, part_of(time_dim, key, leading[0]), fill, alone=False)
            for key, part in _parts(trees).items()
        },
    )


def _join_tensors(
    tensors: Sequence[Tensor],
    rows: Sequence[Sequence[int]],
    ids: Sequence[int],
    batch_size: int,
    time_dim: TimeDim,
    fill: Number,
    alone: bool,
) -> Tensor:
    first = tensors[0]
    shape = first.shape[1:]
    axis = axis_of(time_dim, len(shape), ids[0], alone)
    longest = list(shape)
    same = True
    for tensor, index in zip(tensors, ids, strict=True):
        if tensor.shape[1:] != shape or tensor.dtype != first.dtype:
            same = False
            if tensor.dtype != first.dtype or not _fits(tensor.shape[1:], shape, axis):
                raise _unequal(ids[0], _told(first[0]), index, _told(tensor[0]))
            assert axis is not None
            longest[axis] = max(longest[axis], tensor.shape[axis + 1])
    if same and [row for places in rows for row in places] == list(range(batch_size)):
        return _side_by_side(tensors)
    joined = filled(first, [batch_size, *longest], fill)
    for tensor, places in zip(tensors, rows, strict=True):
        for place, row in zip(places, tensor, strict=True):
            _copy(joined[place] if axis is None else joined[place].narrow(axis, 0, row.shape[axis]), row)
    return joined


# ------------------------------------------------------------------ inside


def _side_by_side(tensors: Sequence[Tensor]) -> Tensor:
    if sum(tensor.numel() for tensor in tensors) < _SHARED:
        return torch.cat(list(tensors))
    joined = tensors[0].new_empty([sum(map(len, tensors)), *tensors[0].shape[1:]])
    at = 0
    for tensor in tensors:
        _copy(joined[at : at + len(tensor)], tensor)
        at += len(tensor)
    return joined


def _copy(to: Tensor, tensor: Tensor) -> None:
    if tensor.numel() < _SHARED:
        to.copy_(tensor)
        return
    nbytes = tensor.numel() * tensor.element_size()
    plain = [each.is_contiguous() and not each.is_conj() and not each.is_neg() for each in (to, tensor)]
    if all(plain) and to.device.type == tensor.device.type == "cpu" and nbytes <= _ALONE:
        # Torch would share the work out to threads, and beside processes that read it waits long for the last of them.
        ctypes.memmove(to.data_ptr(), tensor.data_ptr(), nbytes)
    else:
        to.copy_(tensor)


def _parts(trees: Sequence[Any]) -> "dict[Any, List[Any]]":
    # The same part of all, by its key or its number.
    if isinstance(trees[0], dict):
        return {key: [tree[key] for tree in trees] for key in trees[0]}
    return {number: list(part) for number, part in enumerate(zip(*trees, strict=True))}


def _built(tree: Any, parts: "dict[Any, Any]") -> Any:
    return parts if isinstance(tree, dict) else like(tree, list(parts.values()))


def _check_parts(trees: Sequence[Any], ids: Sequence[int]) -> None:
    first = trees[0]
    for tree, index in zip(trees, ids, strict=True):
        if isinstance(first, dict) and tree.keys() != first.keys():
            raise _unequal(ids[0], f"keys {list(first)}", index, f"keys {list(tree)}")
        if len(tree) != len(first):
            raise _unequal(ids[0], f"{len(first)} entries", index, f"{len(tree)} entries")


def _fits(shape: Sequence[int], other: Sequence[int], axis: Optional[int]) -> bool:
    # Whether two shapes differ in their lengths at most.
    if axis is None or len(shape) != len(other):
        return False
    return all(a == b for at, (a, b) in enumerate(zip(shape, other, strict=True)) if at != axis)


def _told(value: Any) -> str:
    if kind_of(value) == "array" and hasattr(value, "shape"):
        return f"{list(value.shape)} of {value.dtype}"
    return type(value[0] if isinstance(value, Others) else value).__name__


def _unequal(first: int, expected: str, index: int, came: str) -> StreamReadError:
    one, other = (f"stream {number}" if number >= 0 else "padding_value" for number in (first, index))
    return StreamReadError(
        f"unequal_chunks: {other} gave {came} where {one} gave {expected}; chunks of a batch may differ along time_dim "
        "alone; give them one structure, or collate them yourself with collate_fn",
        index,
    )
