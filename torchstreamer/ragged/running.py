"""Rows of a `StreamTensor` through a `RowStream`."""

from typing import Any, Dict, Hashable, List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from ..core.rows import RowPiece, RowStream
from ..errors import StreamOnlineError
from .making import pad
from .row_data import Layout, RowData
from .tensor import StreamTensor, bare, with_layout

__all__ = ["Runner"]


class Runner:
    """A `RowStream` that takes and gives `StreamTensor`s, and knows where its signals stand.

    Args:
        rows: what runs
        axes: those of rows and time, of three, in what comes and goes, if they are others than the stream's own
    """

    def __init__(self, rows: RowStream, axes: Optional[Tuple[int, int]] = None) -> None:
        self.rows = rows
        layout = rows.stream._row_layout()
        assert layout is not None  # else there were no rows
        self._own = layout  # the last two may count from the last axis, as outputs may have more axes than inputs
        self._takes = layout[:2] if axes is None else axes
        self._turned = axes is not None
        self.came: Dict[Hashable, Optional[int]] = {}  # samples of each signal, None where nobody told
        self._shape: List[int] = []  # of an output row of no samples, once one came

    def step(self, x: StreamTensor) -> StreamTensor:
        """The pieces that come out of these.

        Raises:
            StreamOnlineError: other axes came, or a piece does not begin where its signal stands
            StreamError: what the rows refuse; no row has changed
        """
        if (x.batch_axis, x.time_axis) != self._takes or (self._turned and x._layout.rank != 3):
            raise StreamOnlineError(
                f"online_layout: a StreamTensor came with rows at axis {x.batch_axis} and time at axis {x.time_axis} "
                f"of {x._layout.rank}; rows at axis {self._takes[0]} and time at axis {self._takes[1]} were expected; "
                "permute it"
            )
        rows_in, time_in = self._own[:2]
        pieces = bare(x)
        if self._turned:  # to [B, C, T]
            pieces = pieces.permute(*self._takes[:1], 2, *self._takes[1:])
        time = time_in - (rows_in < time_in)
        came = []
        for id, first, length, start in zip(x.ids, x.first, x._layout.rows.lengths, x.start, strict=True):
            stands = 0 if first else self.came.get(id)
            if stands is not None and start is not None and start != stands:
                raise StreamOnlineError(
                    f"online_gap: a piece of {id!r} came that starts at sample {start} of its signal; {stands} was "
                    "expected, as so many came; hand in every piece once and in order, through the same layers"
                )
            came.append(None if stands is None else stands + length)
        standing = self.standing(x.ids)
        given = self.rows.step(
            [
                (id, piece.narrow(time, 0, length), first, last)
                for id, piece, length, first, last in zip(
                    x.ids, pieces.unbind(rows_in), x._layout.rows.lengths, x.first, x.last, strict=True
                )
            ]
        )
        for id, last, count in zip(x.ids, x.last, came, strict=True):
            if last:
                self.came.pop(id, None)
            else:
                self.came[id] = count
        try:
            return self._joined(given, pieces)
        except BaseException:  # out of memory, for instance
            self.back_to(standing)
            raise

    def _joined(self, given: List[RowPiece], pieces: Tensor) -> StreamTensor:
        outputs = [piece.output for piece in given]
        like = next((y for y in outputs if y is not None), None)
        if like is None and not self._shape:
            channels = self.rows.stream.output_channels(pieces.shape[1]) if self._own == (0, 2, 0, -1) else 0
            self._shape = [0] * (pieces.dim() - 1)
            self._shape[0] = max(channels, 0)
        rank = (len(self._shape) if like is None else like.dim()) + 1
        rows_out, time_out = (axis % rank for axis in self._own[2:])
        time = time_out - (rows_out < time_out)
        if like is not None:
            self._shape = list(like.shape)
            self._shape[time] = 0
        lengths = tuple([0 if y is None else y.shape[time] for y in outputs])
        none = pieces.new_empty([]) if like is None else like
        rows = [none.new_empty(self._shape) if y is None else y for y in outputs]
        data = pad(rows, time, rows_out) if rows else none.new_empty([0, *self._shape])
        gives = rows_out, time_out
        if self._turned:
            data, gives = data.movedim((0, 2), self._takes), self._takes
        names = RowData(
            tuple([piece.id for piece in given]),
            tuple([piece.first for piece in given]),
            tuple([piece.last for piece in given]),
            lengths,
            tuple([piece.start for piece in given]),
        )
        return with_layout(data, Layout(names, *gives, data.dim()))

    # ------------------------------------------------------------------ how signals stand

    def standing(self, ids: Sequence[Hashable]) -> Any:
        """For `back_to`."""
        return self.rows.standing(ids), {id: self.came[id] for id in ids if id in self.came}

    def back_to(self, standing: Any) -> None:
        """As at the time of `standing`, for the same ids."""
        rows, came = standing
        self.rows.back_to(rows)
        for id in rows[0]:
            self.came.pop(id, None)
        self.came.update(came)

    def get(self, id: Hashable) -> Dict[str, Tensor]:
        """The state of a signal."""
        state = self.rows.get(id)
        came = self.came.get(id)
        if came is not None:
            state["@position"] = torch.tensor([came, self.rows.start_of(id)])
        return state

    def set(self, id: Hashable, state: Dict[str, Tensor]) -> None:
        """Let a signal go on from a state."""
        own = dict(state)
        position = own.pop("@position", None)
        self.rows.set(id, own, None if position is None or position[1] < 0 else int(position[1]))
        self.came[id] = None if position is None else int(position[0])

    def drop(self, id: Hashable) -> None:
        """Forget a signal, if it is known."""
        self.came.pop(id, None)
        if id in self.rows:
            self.rows.drop(id)
