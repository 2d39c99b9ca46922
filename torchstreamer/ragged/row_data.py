"""What is known of the rows of a batch, and which axes are theirs: small, shared, and never changed."""

from typing import Any, Callable, Hashable, Optional, Sequence, Tuple

import torch
from torch import Tensor

__all__ = ["Layout", "RowData"]

_Fields = Tuple[Tuple[Hashable, ...], Tuple[bool, ...], Tuple[bool, ...], Tuple[int, ...], Tuple[Optional[int], ...]]


class RowData:
    """Who the rows are, which samples they hold, and whether a signal begins or ends in them.

    What follows from other row data is computed when it is first asked for.

    Args:
        ids: of the signals
        first: whether a row's piece is the first of its signal
        last: whether it is the last
        lengths: samples of each row before padding
        start: position in the signal of each row's first sample, ``None`` where unknown
    """

    __slots__ = ("_fields", "_recipe")

    def __init__(
        self,
        ids: Tuple[Hashable, ...],
        first: Tuple[bool, ...],
        last: Tuple[bool, ...],
        lengths: Tuple[int, ...],
        start: Tuple[Optional[int], ...],
    ) -> None:
        self._fields: Optional[_Fields] = (ids, first, last, lengths, start)
        self._recipe: Optional[Tuple[Callable[..., _Fields], _Fields, Any]] = None

    def _later(self, function: Callable[..., _Fields], *how: Any) -> "RowData":
        made = RowData.__new__(RowData)
        made._fields = None
        made._recipe = (function, self.fields, how)
        return made

    @property
    def fields(self) -> _Fields:
        """``ids``, ``first``, ``last``, ``lengths`` and ``start``."""
        fields = self._fields
        if fields is None:
            recipe = self._recipe
            if recipe is None:  # another thread was faster
                return self.fields
            function, source, how = recipe
            fields = function(source, *how)
            self._fields = fields
            self._recipe = None
        return fields

    @property
    def ids(self) -> Tuple[Hashable, ...]:
        """Of the signals."""
        return self.fields[0]

    @property
    def first(self) -> Tuple[bool, ...]:
        """Whether a piece is the first of its signal."""
        return self.fields[1]

    @property
    def last(self) -> Tuple[bool, ...]:
        """Whether a piece is the last of its signal."""
        return self.fields[2]

    @property
    def lengths(self) -> Tuple[int, ...]:
        """Samples before padding."""
        return self.fields[3]

    @property
    def start(self) -> Tuple[Optional[int], ...]:
        """Position in the signal of the first sample."""
        return self.fields[4]

    def __len__(self) -> int:
        return len(self.fields[0])

    def same(self, other: "RowData") -> bool:
        """Whether both tell of the same samples of the same signals."""
        if self is other:
            return True
        one, two = self.fields, other.fields
        return one[0] == two[0] and one[3] == two[3] and one[4] == two[4]

    def pick(self, rows: Sequence[int]) -> "RowData":
        """Those of some rows, in this order."""
        return self._later(_picked, rows)

    def slice(self, rows: slice) -> "RowData":
        """Those of a slice of the rows."""
        return self._later(_sliced, rows)

    def cut(self, begin: int, end: int) -> "RowData":
        """Those of the samples from ``begin`` to ``end`` of every row."""
        return self._later(_cut, begin, end)

    def joined(self, *others: "RowData") -> "RowData":
        """Those of these rows and, below them, of others."""
        both = zip(self.fields, *(other.fields for other in others), strict=True)
        return RowData(*(sum(parts, ()) for parts in both))

    def __repr__(self) -> str:
        return "; ".join(map(_told, *self.fields))


def _picked(fields: _Fields, rows: Sequence[int]) -> _Fields:
    return tuple(tuple([field[row] for row in rows]) for field in fields)  # type: ignore[return-value]


def _sliced(fields: _Fields, rows: slice) -> _Fields:
    ids, first, last, lengths, start = fields
    return ids[rows], first[rows], last[rows], lengths[rows], start[rows]


def _cut(fields: _Fields, begin: int, end: int) -> _Fields:
    ids, first, last, lengths, start = fields
    if begin:
        first = tuple([mark and length == 0 for mark, length in zip(first, lengths, strict=True)])
        # A row that ends before the cut goes on, if at all, where it ends.
        start = tuple(
            [None if at is None else at + min(begin, length) for at, length in zip(start, lengths, strict=True)]
        )
    last = tuple([mark and end >= length for mark, length in zip(last, lengths, strict=True)])
    most = max(end - begin, 0)
    lengths = tuple([min(max(length - begin, 0), most) for length in lengths])
    return ids, first, last, lengths, start


def _told(name: Hashable, first: bool, last: bool, length: int, start: Optional[int]) -> str:
    span = f"{length} samples" if start is None else f"{start}:{start + length}"
    return f"{name!r} {span}{' first' * first}{' last' * last}"


class Layout:
    """Row data, and the axes of a tensor that they speak of.

    Args:
        rows: of the rows of the tensor; one row where there is no axis of rows
        batch: the axis of the rows, ``None`` where a single row stands without one
        time: the axis of time
        rank: how many axes there are
    """

    __slots__ = ("batch", "rank", "rows", "time")

    def __init__(self, rows: RowData, batch: Optional[int], time: int, rank: int) -> None:
        self.rows = rows
        self.batch = batch
        self.time = time
        self.rank = rank

    def axis(self, dim: Any) -> int:
        """An axis counted from the front.

        Raises:
            IndexError: there is none
        """
        if not -self.rank <= dim < self.rank:
            raise IndexError(dim)
        return int(dim) % self.rank

    def apart(self, axis: int) -> bool:
        """Whether this is neither the axis of the rows nor that of time."""
        return axis != self.batch and axis != self.time

    def having(self, rows: RowData) -> "Layout":
        """The same axes with other row data."""
        return Layout(rows, self.batch, self.time, self.rank)

    def without(self, axes: Sequence[int]) -> "Layout":
        """After these axes are gone; that of time is none of them."""
        batch = self.batch
        if batch is not None:
            batch = None if batch in axes else batch - sum(axis < batch for axis in axes)
        return Layout(self.rows, batch, self.time - sum(axis < self.time for axis in axes), self.rank - len(axes))

    def widened(self, axis: int, count: int = 1) -> "Layout":
        """After ``count`` axes came in before ``axis``."""
        batch = self.batch
        if batch is not None and batch >= axis:
            batch += count
        return Layout(self.rows, batch, self.time + count * (self.time >= axis), self.rank + count)

    def padding(self, shape: Sequence[int], device: torch.device) -> Tensor:
        """Which samples are padding: bool, 1 along all axes but those of rows and time."""
        lengths = torch.tensor(self.rows.lengths, device=device)
        view = [1] * self.rank
        if self.batch is not None:
            view[self.batch] = len(lengths)
        along = [1] * self.rank
        along[self.time] = shape[self.time]
        return torch.arange(shape[self.time], device=device).view(along) >= lengths.view(view)

    def padded(self, shape: Sequence[int]) -> bool:
        """Whether any row is shorter than the tensor."""
        return any(length < shape[self.time] for length in self.rows.lengths)
