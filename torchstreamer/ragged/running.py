"""Rows of a `StreamTensor` through a `RowStream`."""

from typing import Any, Dict, Hashable, List, Optional, Sequence

import torch
from torch import Tensor

from ..core.rows import RowPiece, RowStream
from ..errors import StreamOnlineError
from .row_data import Layout, RowData
from .tensor import StreamTensor, bare, with_layout

__all__ = ["Runner"]


class Runner:
    """A `RowStream` that takes and gives `StreamTensor`s, and knows where its signals stand.

    Args:
        rows: what runs
        axes: those of rows and time, of three, in what comes and goes
    """

    def __init__(self, rows: RowStream, axes: "tuple[int, int]" = (0, 2)) -> None:
        self.rows = rows
        self.batch, self.time = axes
        self.came: Dict[Hashable, Optional[int]] = {}  # samples of each signal, None where nobody told
        self._channels = -1

    def step(self, x: StreamTensor) -> StreamTensor:
        """The pieces that come out of these.

        Raises:
            StreamOnlineError: other axes came, or a piece does not begin where its signal stands
            StreamError: what the rows refuse; no row has changed
        """
        if (x.batch_axis, x.time_axis, x._layout.rank) != (self.batch, self.time, 3):
            raise StreamOnlineError(
                f"online_layout: a StreamTensor of {x._layout.rank} axes came, rows at {x.batch_axis} and time at "
                f"{x.time_axis}; three axes, rows at {self.batch} and time at {self.time}, were expected; permute it"
            )
        pieces: Sequence[Tensor] = bare(x).movedim(self.time, 2).movedim(self.batch - (self.batch > self.time), 0)
        came = []
        for id, first, length, start in zip(x.ids, x.first, x.lengths, x.start, strict=True):
            stands = 0 if first else self.came.get(id)
            if stands is not None and start is not None and start != stands:
                raise StreamOnlineError(
                    f"online_gap: a piece of {id!r} came that starts at sample {start} of its signal; {stands} was "
                    "expected, as so many came; hand in every piece once and in order, through the same layers"
                )
            came.append(None if stands is None else stands + length)
        given = self.rows.step(
            [
                (id, piece[:, :length], first, last)
                for id, piece, length, first, last in zip(x.ids, pieces, x.lengths, x.first, x.last, strict=True)
            ]
        )
        for id, last, count in zip(x.ids, x.last, came, strict=True):
            if last:
                self.came.pop(id, None)
            else:
                self.came[id] = count
        return self._joined(given, pieces)

    def _joined(self, given: List[RowPiece], pieces: Sequence[Tensor]) -> StreamTensor:
        outputs = [piece.output for piece in given]
        lengths = tuple([0 if y is None else y.shape[1] for y in outputs])
        like = next((y for y in outputs if y is not None), None)
        if like is not None:
            self._channels = like.shape[0]
        elif self._channels < 0 and len(pieces):
            self._channels = max(self.rows.stream.output_channels(pieces[0].shape[0]), 0)
        longest = max(lengths, default=0)
        if len(set(lengths)) == 1 and like is not None:
            data = torch.stack([y for y in outputs if y is not None])
        else:
            like = pieces[0] if like is None else like
            blank = like.new_zeros([self._channels, longest])
            data = torch.stack(
                [
                    blank if y is None else torch.nn.functional.pad(y, [0, longest - y.shape[1]])
                    for y in outputs
                ]
            )
        data = data.movedim(0, self.batch - (self.batch > self.time)).movedim(2, self.time)
        names = RowData(
            tuple([piece.id for piece in given]),
            tuple([piece.first for piece in given]),
            tuple([piece.last for piece in given]),
            lengths,
            tuple([piece.start for piece in given]),
        )
        return with_layout(data, Layout(names, self.batch, self.time, 3))

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
            state["@position"] = torch.tensor([came, self._start(id)])
        return state

    def _start(self, id: Hashable) -> int:
        return self.rows.start_of(id)

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
