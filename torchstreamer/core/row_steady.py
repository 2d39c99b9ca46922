"""`SteadyRows`: the step of live rows that comes most often, with little around the stream."""

from typing import Any, Dict, List, Optional, Sequence

import torch
from torch import Tensor

from .row_pieces import PieceLayout, RowPiece
from .row_runner import RowRunner
from .row_table import Batch, Row, gather

__all__ = ["SteadyRows"]


class SteadyRows:
    """Steps in which all rows of the batch that the stream holds bring as much, in any order.

    A few of them may begin anew under their ids, if their states are large and say what they begin with: then they take
    the places of the old signals.

    Args:
        runner: of all steps
    """

    def __init__(self, runner: RowRunner) -> None:
        self._runner = runner
        self._layout: PieceLayout = runner.layout

    def step(self, entries: Sequence[Any], signal: Optional[Tensor]) -> Optional[List[RowPiece]]:
        """Take such a step.

        Args:
            entries: what came
            signal: what all pieces are like, if that is known

        Returns:
            what came out, or ``None`` if it is no such step, whatever else came; then nothing is changed, and
            `PieceLayout.accepted` tells what is wrong
        """
        runner = self._runner
        batch = runner.resident
        if batch is None or signal is None or runner.apart or torch.is_grad_enabled():
            return None
        anew: List[int] = []
        pieces = self._pieces(entries, batch, signal, anew)
        if pieces is None:
            return None
        length = entries[0][1].shape[self._layout.time]
        if anew and not self._begin(anew, batch, length):
            return None
        return self._run(pieces, anew, batch, length)

    def _pieces(
        self, entries: Sequence[Any], batch: Batch, signal: Tensor, anew: List[int]
    ) -> Optional[Dict[int, Tensor]]:
        # All pieces by the places of their rows, and in `anew` where a signal begins anew. Nothing is asked twice.
        if len(entries) != len(batch.ids) or type(entries[0]) is not tuple or len(entries[0]) != 4:
            return None
        layout, hop = self._layout, self._runner.hop
        model = entries[0][1]
        if type(model) is not Tensor or model.layout is not torch.strided or model.is_nested:
            return None
        if not layout.fits(model, signal) or not model.shape[layout.time] or model.shape[layout.time] % hop:
            return None
        shape, dtype, device = model.shape, model.dtype, model.device
        known = self._runner.table.rows
        pieces: Dict[int, Tensor] = {}
        try:
            for id, piece, first, last in entries:
                row = known[id]
                if last or row.batch is not batch:
                    return None
                if first:
                    anew.append(row.slot)
                elif row.queue is not None or (hop > 1 and row.came % hop):
                    return None
                if type(piece) is not Tensor or piece.shape != shape or piece.dtype is not dtype:
                    return None
                if piece is not model and (piece.device != device or piece.layout is not torch.strided):
                    return None
                pieces[row.slot] = piece
        except (KeyError, RuntimeError, TypeError, ValueError):
            return None
        return pieces if len(pieces) == len(entries) else None

    def _begin(self, anew: List[int], batch: Batch, length: int) -> bool:
        # Whether rows could begin in the places of old ones, which stand by themselves from here on, to go back to.
        runner = self._runner
        opening = runner.openings.find(length)
        if opening is None or opening.form is not batch.form or not batch.form.large:
            return False
        if runner.shared or 8 * len(anew) > len(batch.ids):
            return False
        runner.dirty = True
        rows = runner.table.rows
        runner.table.set_apart([rows[batch.ids[slot]] for slot in anew])
        _, tensors, known = gather([Row(opening)] * len(anew))
        runner.state.join(anew, tensors, known)
        return True

    def _run(self, pieces: Dict[int, Tensor], anew: List[int], batch: Batch, length: int) -> List[RowPiece]:
        runner, layout = self._runner, self._layout
        x = torch.stack([pieces[slot] for slot in range(len(pieces))], layout.rows)
        runner.resident, runner.dirty = None, True
        y = runner.call(x, False)
        after = runner.held(batch.ids)
        runner.table.move(batch, after, anew, length)
        runner.resident = after
        outputs: Sequence[Optional[Tensor]] = [None] * len(pieces)
        n = 0
        if y is not None:
            outputs, n = y.unbind(layout.rows_out), y.shape[layout.time_out]
        found = []
        rows, ids = runner.table.rows, batch.ids
        for slot in pieces:  # in the order in which they came
            row = rows[ids[slot]]
            start: Optional[int] = row.given
            if row.given >= 0:
                row.given += n
            else:
                start = None
            found.append(RowPiece(ids[slot], outputs[slot], slot in anew, False, start))
        return found
