"""Rows put together to a `StreamTensor`, and batches of them."""

from typing import Any, Hashable, List, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor
from torch.utils.data._utils import collate as torch_collate

from ..data.batch import StreamBatch, set_maker
from ..data.trees import Others
from ..errors import StreamInputError
from .row_data import Layout, RowData
from .tensor import StreamTensor, bare, with_layout

__all__ = ["as_stream_tensor", "collate", "pad", "require_single_ids", "stream_tensor"]

Marks = Union[bool, Sequence[bool], Tensor]


def stream_tensor(
    rows: Any,
    ids: Optional[Sequence[Hashable]] = None,
    first: Marks = False,
    last: Marks = False,
    start: Optional[Sequence[Optional[int]]] = None,
    lengths: Optional[Sequence[int]] = None,
    batch_dim: int = 0,
    time_dim: int = -1,
) -> Any:
    """Pieces of several signals as one tensor that knows whose they are.

    Args:
        rows: a list of tensors, one for each signal, of any lengths along time: ``[C, t]``, ``[t]``, ``[…, t]``. Or one
            tensor ``[B, …, T]`` of all, which is not copied. Or a `StreamBatch`, which knows the rest itself: its rows
            of padding are left out, and data of several parts give a `StreamTensor` for each. A `StreamTensor` is given
            back as it is, and a `Batch` put together.
        ids: whose piece each row is: anything hashable; strings and whole numbers pass ``torch.load``
        first: whether each piece is the first of its signal; one for all, or one for each
        last: whether each piece is the last of its signal
        start: position of each piece's first sample in its signal, ``None`` where unknown. Without it 0 where ``first``
            is set, and unknown elsewhere.
        lengths: of the rows of one tensor, where it is padded
        batch_dim: the axis of the rows in the result
        time_dim: the axis of time in the result, ``[B, …, T]`` by default; `1` for ``[B, T, C]``

    Returns:
        a `StreamTensor`; shorter rows are padded at their end with zeros

    Raises:
        StreamInputError: codes ``invalid_pieces`` and ``doubled_ids``

    Example:
        >>> import torch, torchstreamer as pts
        >>> x = pts.stream_tensor([torch.ones(1, 3), torch.ones(1, 2)], ids=["a", "b"], first=[True, False])
        >>> x
        StreamTensor(shape=[2, 1, 3], axes=(0, 2), rows: 'a' 0:3 first; 'b' 2 samples
        tensor([[[1., 1., 1.]],
        <BLANKLINE>
                [[1., 1., 0.]]]))
    """
    if isinstance(rows, StreamTensor):
        return rows
    if hasattr(rows, "is_collated"):  # a `Batch`, whose file imports this one
        return rows.data
    if isinstance(rows, StreamBatch):
        return _of_batch(rows, time_dim)
    if ids is None:
        raise StreamInputError("invalid_pieces: no ids came; one for each row was expected; pass ids=[…]")
    names = tuple(ids.tolist() if isinstance(ids, Tensor) else ids)
    require_single_ids(names)
    data, counts, batch, time = _padded(rows, lengths, batch_dim, time_dim)
    if len(names) != len(counts):
        raise _odd("ids", len(names), len(counts))
    begins, ends = (_marks(name, marks, len(counts)) for name, marks in (("first", first), ("last", last)))
    if start is None:
        positions: Tuple[Optional[int], ...] = tuple(0 if begin else None for begin in begins)
    else:
        positions = tuple(None if at is None else int(at) for at in start)
        if len(positions) != len(counts):
            raise _odd("start", len(positions), len(counts))
    return with_layout(data, Layout(RowData(names, begins, ends, counts, positions), batch, time, data.dim()))


def as_stream_tensor(x: Any, *args: Any, **kwargs: Any) -> Any:
    """`stream_tensor` by the name that DreamStream gives it.

    Args:
        x: rows, a tensor or a batch
        args: as those of `stream_tensor`
        kwargs: as those of `stream_tensor`
    """
    return stream_tensor(x, *args, **kwargs)


def collate(batch: Sequence[Any]) -> Any:
    """What a ``DataLoader`` takes as ``collate_fn`` where items are, or hold, `StreamTensor`s.

    Those of a batch become one: their rows below each other, padded to the longest. Anything else becomes what torch's
    own ``default_collate`` makes of it, which would make a plain tensor of them.

    Args:
        batch: items of one structure: tensors, numbers, strings, tuples, lists and dicts of them

    Raises:
        StreamInputError: codes ``invalid_pieces`` and ``doubled_ids``
    """
    table = {StreamTensor: _collated, **torch_collate.default_collate_fn_map}
    return torch_collate.collate(list(batch), collate_fn_map=table)


def require_single_ids(ids: Sequence[Hashable]) -> None:
    """Refuse two rows of one signal.

    Raises:
        StreamInputError: code ``doubled_ids``
    """
    if len(set(ids)) < len(ids):
        double = sorted({repr(name) for name in ids if ids.count(name) > 1})
        raise StreamInputError(
            f"doubled_ids: {', '.join(double)} came twice; one row for each signal was expected; join its pieces "
            "first, or hand them in one after the other"
        )


def pad(rows: Sequence[Tensor], time: int, batch: int = 0) -> Tensor:
    """Rows of one shape but for their lengths, stacked and padded with zeros.

    Args:
        rows: at least one
        time: the axis of time of a row
        batch: the new axis
    """
    longest = max(row.shape[time] for row in rows)
    after = rows[0].dim() - 1 - time
    padded = [
        torch.nn.functional.pad(row, [0, 0] * after + [0, longest - row.shape[time]])
        if row.shape[time] < longest
        else row
        for row in rows
    ]
    return torch.stack(padded, batch)


def _padded(rows: Any, lengths: Any, batch_dim: int, time_dim: int) -> Tuple[Tensor, Tuple[int, ...], int, int]:
    if isinstance(rows, Tensor):
        rank = rows.dim()
        batch, time = _axes(rank, batch_dim, time_dim)
        width = rows.shape[time]
        counts = [width] * rows.shape[batch] if lengths is None else [int(length) for length in lengths]
        if len(counts) != rows.shape[batch]:
            raise _odd("lengths", len(counts), rows.shape[batch])
        if not all(0 <= count <= width for count in counts):
            raise StreamInputError(
                f"invalid_pieces: the lengths {counts} came; numbers from 0 to {width}, the samples of the tensor, "
                "were expected; count the samples of each row before padding"
            )
        return rows, tuple(counts), batch, time
    rows = list(rows)
    if not rows or not all(isinstance(row, Tensor) and row.dim() for row in rows):
        kinds = sorted({type(row).__name__ for row in rows}) or ["none"]
        raise StreamInputError(
            f"invalid_pieces: {len(rows)} rows of {', '.join(kinds)} came; at least one tensor with an axis of time "
            "was expected; pass a list of tensors [C, t]"
        )
    batch, time = _axes(rows[0].dim() + 1, batch_dim, time_dim)
    rows = [bare(row) for row in rows]
    axis = time - (batch < time)
    _require_alike(rows, axis)
    if lengths is not None and list(lengths) != [row.shape[axis] for row in rows]:
        raise StreamInputError(
            f"invalid_pieces: lengths {list(lengths)} came with rows of {[row.shape[axis] for row in rows]} samples; a "
            "list of rows without padding was expected; leave lengths out, or pass one padded tensor"
        )
    return pad(rows, axis, batch), tuple(row.shape[axis] for row in rows), batch, time


def _axes(rank: int, batch_dim: int, time_dim: int) -> Tuple[int, int]:
    batch, time = (dim + rank if dim < 0 else dim for dim in (batch_dim, time_dim))
    if batch == time or not (0 <= batch < rank and 0 <= time < rank):
        raise StreamInputError(
            f"invalid_pieces: batch_dim={batch_dim} and time_dim={time_dim} came for {rank} axes; two of these axes "
            "were expected; both are counted in the result"
        )
    return batch, time


def _require_alike(rows: Sequence[Tensor], time: int) -> None:
    first = rows[0]
    for number, row in enumerate(rows):
        shapes = [[size for at, size in enumerate(each.shape) if at != time] for each in (first, row)]
        if row.dim() != first.dim() or shapes[0] != shapes[1] or row.dtype != first.dtype:
            raise StreamInputError(
                f"invalid_pieces: row {number} is {list(row.shape)} of {row.dtype}, and row 0 {list(first.shape)} of "
                f"{first.dtype}; rows that differ along time alone were expected; convert them first"
            )


def _marks(name: str, marks: Marks, count: int) -> Tuple[bool, ...]:
    if isinstance(marks, bool):
        return (marks,) * count
    found = tuple(bool(mark) for mark in marks)
    if len(found) != count:
        raise _odd(name, len(found), count)
    return found


def _odd(name: str, came: int, expected: int) -> StreamInputError:
    return StreamInputError(
        f"invalid_pieces: {came} {name} came for {expected} rows; as many as rows were expected; pass one for each row"
    )


# --------------------------------------------------------------------------- batches


def _of_batch(batch: StreamBatch, time_dim: int) -> Any:
    kept = batch.valid.nonzero().flatten()
    ids, first, last, index = (part[kept].tolist() for part in (batch.ids, batch.first, batch.last, batch.chunk_index))
    start = tuple(0 if begin or number == 0 else None for begin, number in zip(first, index, strict=True))
    whole = len(kept) == len(batch)

    def made(data: Any, lengths: Any) -> Any:
        if isinstance(data, Others):
            return Others(data[row] for row in kept.tolist())
        if isinstance(data, dict):
            return {key: made(part, lengths[key]) for key, part in data.items()}
        if isinstance(data, (tuple, list)):
            parts = [made(*pair) for pair in zip(data, lengths, strict=True)]
            return type(data)(*parts) if hasattr(data, "_fields") else type(data)(parts)
        rows = data if whole else data[kept.to(data.device)]
        if lengths is None:
            return rows
        marks = (tuple(ids), tuple(first), tuple(last), tuple(lengths[kept].tolist()), start)
        _, time = _axes(rows.dim(), 0, time_dim)
        return with_layout(rows, Layout(RowData(*marks), 0, time, rows.dim()))

    return made(batch.data, batch.lengths)


set_maker(stream_tensor)


def _collated(batch: Sequence[StreamTensor], *, collate_fn_map: Any = None) -> StreamTensor:
    layout = batch[0]._layout
    for number, each in enumerate(batch):
        its = each._layout
        if (its.batch, its.time, its.rank) != (layout.batch, layout.time, layout.rank):
            raise StreamInputError(
                f"invalid_pieces: item {number} has its rows and time at the axes {its.batch} and {its.time} of "
                f"{its.rank}, and item 0 at {layout.batch} and {layout.time} of {layout.rank}; the same were expected; "
                "permute them"
            )
    joined = layout.rows.joined(*(each._layout.rows for each in batch[1:]))
    require_single_ids(joined.ids)
    if layout.batch is None:
        rows: List[Tensor] = [bare(each) for each in batch]
        _require_alike(rows, layout.time)
        return with_layout(pad(rows, layout.time), Layout(joined, 0, layout.time + 1, layout.rank + 1))
    rows = [bare(row) for each in batch for row in each.unbatch()]
    time = layout.time - (layout.batch < layout.time)
    _require_alike(rows, time)
    return with_layout(pad(rows, time, layout.batch), Layout(joined, layout.batch, layout.time, layout.rank))
