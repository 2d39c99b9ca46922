"""`RowRunner`: the pieces of rows as batches of one stream."""

from typing import Dict, Hashable, List, Optional, Sequence, Set, Tuple

import torch
from torch import Tensor

from ..errors import StreamInputError
from .row_opening import Openings
from .row_pieces import END, Going, PieceLayout, few_lengths, named, parts_of
from .row_state import ParkedState, RowState
from .row_table import Batch, Row, RowTable, gather, rows_apart
from .stream import BaseStream

__all__ = ["RowRunner"]


class _Nobody:
    # Stands where no row is.
    pass


class RowRunner:
    """Which rows run together, and what the stream holds after that.

    The states of a batch that stays together are never moved: the stream goes on with what it holds. Large states are
    not moved either if a few rows of their batch do not come: they run all the same, and nobody keeps what comes of
    it. A row that joins takes the place of one that is gone; so does one that begins, if it can, with its first piece.

    Args:
        stream: what runs
        table: where rows stand
        prompt: whether no samples wait

    Attributes:
        layout: of pieces
        state: what the stream remembers
        calls: batches run so far
        resident: the batch that the stream holds, if any
        dirty: whether the stream has run since `begin`
        carries: whether rows may run that nobody keeps
        carried: whether any have since `begin`
        openings: states of rows that have just begun
        shared: whether others may go back to what the stream held
    """

    def __init__(self, stream: BaseStream, table: RowTable, prompt: bool) -> None:
        self.stream = stream
        self.table = table
        self.prompt = prompt
        self.hop = stream.hop
        self.layout = PieceLayout(stream)
        self.state = RowState(stream)
        self.calls = 0
        self.resident: Optional[Batch] = None
        self.dirty = self.carried = False
        # A model that does not treat the rows of a batch apart gets one at a time.
        self.apart = getattr(stream, "rows", -1) == 1 and hasattr(stream, "beyond")
        # A signal that nobody keeps must not grow too long.
        limits = [getattr(module, "_limit", -1) for module in stream.modules()]
        self.carries = not self.apart and max(limits) < 0
        self._new = self.state.phase(), self.state.rows(), self.state.known()
        # A batch that had to leave the stream, with the memory in which it goes on best.
        self._parked: Optional[Tuple[Batch, ParkedState]] = None
        self._beginning = 0  # rows of the step that began in it
        self.openings = Openings(self.state)
        self.shared = False
        self._first = False  # whether nothing has run since `begin`

    # ------------------------------------------------------------------ a step

    def begin(self) -> None:
        """A step begins."""
        self.dirty, self.carried, self._first = False, False, True

    def fail(self) -> None:
        """It came to nothing: the stream holds nothing of use, and rows stand where they did."""
        if self.dirty:
            self.resident = self._parked = None
            self.stream.reset()

    def share(self) -> None:
        """Rows stand somewhere that someone may go back to: nothing is to be written there."""
        self.shared = True

    def done(self) -> None:
        """A step is through: let go of what few rows need."""
        if self._parked is not None and 2 * self._parked[0].live < len(self._parked[0].ids):
            self._parked = None
        if self.resident is not None and 2 * self.resident.live < len(self.resident.ids):
            self.resident = None
            self.state.go_on(*self._new)
        if not self.table.rows:
            self.openings.clear()

    def advance(self, going: Sequence[Going]) -> None:
        """All pieces, part by part; the longest first, so that those of a length meet."""
        hop = self.hop
        alike: Dict[Tuple[int, int, int, bool], List[Going]] = {}
        lengths: Dict[int, Set[int]] = {}
        self._beginning = 0
        for each in going:
            batch = each.row.batch
            form = 0 if batch is None else id(batch.form)
            self._beginning += batch is None
            offset = each.row.came % hop
            alike.setdefault((form, each.n, offset, each.last), []).append(each)
            whole = (each.n - (hop - offset if offset else 0)) // hop
            if whole > 0:
                lengths.setdefault(form, set()).add(whole)
        cut = {form: not few_lengths(these) for form, these in lengths.items()}
        # A few rows that end run as a whole each: they need no phase in common with any other from there on.
        ending = {n for _, n, _, last in alike if last}
        few = len(ending) <= (max(ending, default=0) // hop).bit_length()
        parts: Dict[Tuple[int, int], List[Going]] = {}
        for (form, n, offset, last), these in alike.items():
            for part in parts_of(n, offset, hop, self.prompt, last, cut.get(form, True), few):
                parts.setdefault(part, []).extend(these)
        for kind, negative in sorted(parts):
            groups: Dict[int, List[Going]] = {}
            for each in parts[kind, negative]:
                batch = each.row.batch
                if kind != END or batch is not None:
                    groups.setdefault(0 if batch is None else id(batch.form), []).append(each)
            if 0 in groups and len(groups) > 1:
                self._open(groups, -negative)
            for group in groups.values():
                self._run_group(group, -negative, kind)

    def advance_alone(self, going: Sequence[Going]) -> None:
        """The same, and no rows run that nobody keeps."""
        carries, self.carries = self.carries, False
        try:
            self.advance(going)
        finally:
            self.carries = carries

    # ------------------------------------------------------------------ what the stream holds

    def held(self, ids: List[Hashable]) -> Batch:
        """A batch of what the stream holds now."""
        tensors = self.state.rows()
        return Batch(self.table.form(self.state.phase(), tensors), tensors, self.state.known(), ids)

    def call(self, x: Optional[Tensor], ends: bool) -> Optional[Tensor]:
        """Run the stream on a batch."""
        self.calls += 1
        # The stream goes on in a memory only with most of the rows that stand there, and others are copied then. So
        # what it holds now is all of it that is wanted; but later in a step that is not what there was at its begin.
        self.state.write_again(self._first and not self.shared)
        self._first = False
        y: Optional[Tensor] = self.stream(x, final=ends)
        return y

    def take_up(self, rows: Sequence[Row]) -> None:
        """Let the stream hold what these rows do, of one form and in this order; or nothing, if they are new."""
        first = rows[0].batch
        if first is None:
            self._leave()
            self.state.go_on(*self._new)
        else:
            batch, tensors, known = gather(rows)
            if batch is None or not self._hold(batch):
                self._leave()
                self.state.go_on(first.form.phase, tensors, known)
        self.resident, self.dirty = None, True

    def let_go(self) -> None:
        """Let the stream hold nothing."""
        self._parked = None
        if self.resident is not None:
            self.resident = None
            self.state.go_on(*self._new)

    def _hold(self, batch: Batch) -> bool:
        # Whether the stream holds a batch, or can without a copy.
        if batch is self.resident:
            return True
        if self._parked is None or batch is not self._parked[0]:
            return False
        state = self._parked[1]
        self._parked = None
        self._leave()
        self.state.unpark(state)
        self.resident, self.dirty = batch, True
        return True

    def _leave(self) -> None:
        # Keep the memory of what the stream holds if that is worth it.
        resident = self.resident
        if resident is not None and resident.form.large and not torch.is_grad_enabled():
            if self._parked is None or len(self._parked[0].ids) < len(resident.ids):
                self._parked = resident, self.state.park()
        self.resident = None

    # ------------------------------------------------------------------ groups

    def _open(self, groups: Dict[int, List[Going]], length: int) -> None:
        # Let rows that begin go with others, from a state that says that nothing has come.
        opening = None if self.apart or torch.is_grad_enabled() else self.openings.find(length)
        if opening is not None and id(opening.form) in groups:
            new = groups.pop(0)
            for each in new:
                each.row.batch, each.row.slot = opening, 0
            groups[id(opening.form)] += new

    def _begin_apart(self, group: List[Going], length: int, kind: int) -> bool:
        # Whether rows of large states that begin have run by themselves after all, as no seats are free.
        opening = self.openings.find(length)
        new = [each for each in group if each.row.batch is opening]
        if not new or not opening.form.large or len(new) == len(group):  # type: ignore[union-attr]
            return False
        for each in new:
            each.row.batch = None
        self._run_group([each for each in group if each.row.batch is not None], length, kind)
        self._run_group(new, length, kind)
        return True

    def _run_group(self, group: List[Going], length: int, kind: int) -> None:
        # An end that comes at once for all of them takes no run of its own.
        ends = kind == END or all(each.last and each.n - each.at == length for each in group)
        seats: Optional[List[Optional[Going]]] = None
        spare = 0
        if len(group) > 1 and group[0].row.batch is not None and not self._stays(group):
            if length and not ends:
                seats = self._seated(group)
            if seats is None:
                if self._begin_apart(group, length, kind):
                    return
                group.sort(key=_place)
                spare = self._spare(group) if length and not ends else 0
        if seats is not None:
            self._run(seats, length, False)
        elif spare:
            rows = [each.row for each in group]
            self.take_up(rows + rows[-1:] * spare)
            self.carried = True
            self._run([*group, *[None] * spare], length, False)
        else:
            new = group[0].row.batch is None
            for one in [[each] for each in group] if self.apart else [group]:
                self.take_up([each.row for each in one])
                self._run(one, length, ends)
            if new and not ends and not torch.is_grad_enabled():
                batch = group[0].row.batch
                assert batch is not None
                self.openings.learn(length, batch)
        if ends:
            for each in group:
                each.row.batch = None

    def _stays(self, group: List[Going]) -> bool:
        # Whether a group is what the stream holds, in its order.
        resident = self.resident
        if resident is None or len(group) != len(resident.ids):
            return False
        for slot, each in enumerate(group):
            row = each.row
            if row.slot != slot or row.batch is not resident:
                return False
        return True

    def _seated(self, group: List[Going]) -> Optional[List[Optional[Going]]]:
        # Most of a batch of large states, and those that join it; None for one that nobody keeps.
        if not self.carries or not group[0].row.batch.form.large or torch.is_grad_enabled():  # type: ignore[union-attr]
            return None
        for batch in (self.resident, None if self._parked is None else self._parked[0]):
            if batch is None or not 7 * len(batch.ids) <= 8 * len(group) <= 8 * len(batch.ids):
                continue
            seats: List[Optional[Going]] = [None] * len(batch.ids)
            others = []
            for each in group:
                if each.row.batch is batch:
                    seats[each.row.slot] = each
                else:
                    others.append(each)
            if others and not self._join(batch, seats, others):
                continue
            if self._hold(batch):
                self.resident, self.dirty = None, True
                self.carried = self.carried or None in seats
                return seats
        return None

    def _spare(self, group: List[Going]) -> int:
        # How many seats to leave free in a batch of large states that is made anew: for the rows that begin in this
        # step, which join in the next one. Without any they could not, and all would be copied in every step.
        batch = group[0].row.batch
        assert batch is not None
        if not self.carries or not batch.form.large or torch.is_grad_enabled():
            return 0
        return min(self._beginning, len(group) // 8)

    def _join(self, batch: Batch, seats: List[Optional[Going]], others: List[Going]) -> bool:
        # Let rows take places of a batch. Only where nobody stands, not even one to go back to if the step fails: so
        # not in a batch of this step, whose memory is that of the one before.
        if self.shared or not batch.live or 8 * len(others) > len(seats):
            return False
        rows = self.table.rows
        free = []
        for slot, id in enumerate(batch.ids):
            row = rows.get(id)
            if row is None or row.batch is not batch or row.slot != slot:
                free.append(slot)
        if len(free) < len(others):
            # Of a signal that begins anew the old state stands by itself from here on, to go back to.
            again = [rows[each.id] for each in others if each.first and each.id in rows]
            again = [row for row in again if row.batch is batch][: len(others) - len(free)]
            free += [row.slot for row in again]
        else:
            again = []
        if len(free) < len(others) or not self._hold(batch):
            return False
        self.dirty = True
        self.table.set_apart(again)
        others.sort(key=_place)
        _, tensors, known = gather([each.row for each in others])
        slots = free[: len(others)]
        self.state.join(slots, tensors, known)
        for slot, each in zip(slots, others, strict=True):
            seats[slot] = each
        return True

    def _run(self, seats: Sequence[Optional[Going]], length: int, ends: bool) -> None:
        x: Optional[Tensor] = None
        if length:
            pieces: List[Tensor] = []
            time = self.layout.time
            nothing: Optional[Tensor] = None
            for each in seats:
                if each is None:
                    if nothing is None:
                        model = next(each.samples for each in seats if each is not None)
                        assert model is not None
                        nothing = torch.zeros_like(model.narrow(time, 0, 1)).expand(
                            [length if i == time else n for i, n in enumerate(model.shape)]
                        )
                    pieces.append(nothing)
                    continue
                samples = each.samples
                assert samples is not None
                whole = each.n == length
                pieces.append(samples if whole else samples.narrow(time, each.at, length))
                each.at += length
                each.row.came += length
            axis = self.layout.rows
            x = torch.stack(pieces, axis) if len(pieces) > 1 else pieces[0].unsqueeze(axis)
        try:
            y = self.call(x, ends)
        except StreamInputError as error:
            raise StreamInputError(f"{error} ({named(seats)})") from error
        if not ends:
            self._store(seats)
        if y is not None:
            n = y.shape[self.layout.time_out]
            for each, row in zip(seats, y.unbind(self.layout.rows_out), strict=True):
                if each is not None:
                    each.outputs.append(row)
                    if each.row.given >= 0:
                        each.row.given += n

    def _store(self, seats: Sequence[Optional[Going]]) -> None:
        batch = self.held([_Nobody() if each is None else each.id for each in seats])
        if any([tensor.requires_grad for tensor in batch.tensors]):
            for each, one in zip(seats, rows_apart(batch), strict=True):
                if each is not None:
                    each.row.batch, each.row.slot = one, 0
        else:
            for slot, each in enumerate(seats):
                if each is not None:
                    each.row.batch, each.row.slot = batch, slot
            self.resident = batch


def _place(each: Going) -> Tuple[int, int]:
    return id(each.row.batch), each.row.slot
