"""Which rows there are, and where their states stand: in batches as streams left them, shared until they thin out."""

from typing import Any, Dict, Hashable, Iterator, List, Optional, Sequence, Set, Tuple

import torch
from torch import Tensor

from .row_state import Phase

__all__ = ["Batch", "Row", "RowTable", "gather", "rows_apart"]

Kinds = Tuple[Phase, Tuple[torch.dtype, ...]]


class Batch:
    """States of several rows of one phase, as one step left them. Nobody writes to them.

    Args:
        phase: theirs, and the dtypes; the same object for all of one phase
        tensors: rows first
        known: what the clocks know of all of them
        ids: of the rows, in order
    """

    __slots__ = ("ids", "known", "live", "phase", "tensors")

    def __init__(self, phase: Kinds, tensors: List[Tensor], known: Tuple[int, ...], ids: List[Hashable]) -> None:
        self.phase = phase
        self.tensors = tensors
        self.known = known
        self.ids = ids
        self.live = 0  # rows whose state this is still

    def row_nbytes(self) -> int:
        """Bytes of one row."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors) // len(self.ids)


class Row:
    """One signal: where its state stands, and what it has had and given.

    Attributes:
        batch: where the state stands, ``None`` before anything has come
        slot: its place there
        came: samples that the state has seen, counted from a multiple of ``hop``
        given: samples that came out, -1 if that is not known
        queue: samples that wait for more, ``[C, n]``
    """

    __slots__ = ("batch", "came", "given", "queue", "slot")

    def __init__(
        self,
        batch: Optional[Batch] = None,
        slot: int = 0,
        came: int = 0,
        given: int = 0,
        queue: Optional[Tensor] = None,
    ) -> None:
        self.batch = batch
        self.slot = slot
        self.came = came
        self.given = given
        self.queue = queue

    def copy(self) -> "Row":
        """Another one at the same place."""
        return Row(self.batch, self.slot, self.came, self.given, self.queue)

    def nbytes(self) -> int:
        """Bytes of its state, and of what waits."""
        found = 0 if self.batch is None else self.batch.row_nbytes()
        return found if self.queue is None else found + self.queue.numel() * self.queue.element_size()


class RowTable:
    """The rows by id. A change is made of new `Row`s, and takes effect as a whole."""

    def __init__(self) -> None:
        self.rows: Dict[Hashable, Row] = {}
        self._phases: Dict[Kinds, Kinds] = {}

    def phase(self, phase: Phase, tensors: Sequence[Tensor]) -> Kinds:
        """The one object that stands for a phase, and for the dtypes of the tensors in it."""
        kinds = phase, tuple([tensor.dtype for tensor in tensors])
        return self._phases.setdefault(kinds, kinds)

    def commit(self, changes: Dict[Hashable, Optional[Row]]) -> None:
        """Put rows in the place of those that were there; ``None`` for one that is gone."""
        rows = self.rows
        left: Set[Batch] = set()
        for id, row in changes.items():
            before = rows.get(id)
            if before is not None and before.batch is not None:
                before.batch.live -= 1
                left.add(before.batch)
            if row is None:
                rows.pop(id, None)
            else:
                rows[id] = row
                if row.batch is not None:
                    row.batch.live += 1
        for batch in left:
            # One row must not keep the memory of a whole batch.
            if 0 < 2 * batch.live < len(batch.ids):
                self._compact(batch)
        if len(self._phases) > 64 + 2 * len(rows) or not rows:
            batches = self._batches()
            self._phases = {batch.phase: batch.phase for batch in batches}

    def _batches(self) -> Set[Batch]:
        return {row.batch for row in self.rows.values() if row.batch is not None}

    def _compact(self, batch: Batch) -> None:
        here = [(id, self.rows[id]) for id in batch.ids if id in self.rows]
        here = [(id, row) for id, row in here if row.batch is batch]
        tensors = _selected(batch.tensors, [row.slot for _, row in here])
        smaller = Batch(batch.phase, tensors, batch.known, [id for id, _ in here])
        smaller.live = len(here)
        for slot, (_, row) in enumerate(here):
            row.batch, row.slot = smaller, slot

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


def gather(rows: Sequence[Row]) -> Tuple[Optional[Batch], List[Tensor], Tuple[int, ...]]:
    """The states of rows of one phase as one batch.

    Args:
        rows: in any order; the fewest copies are made if those of a batch follow each other by their slots

    Returns:
        the batch if they are all of one, in its order, and then nothing is copied; the tensors; what clocks know
    """
    taken: List[Tuple[Batch, List[int]]] = []
    for row in rows:
        assert row.batch is not None
        if not taken or taken[-1][0] is not row.batch:
            taken.append((row.batch, []))
        taken[-1][1].append(row.slot)
    if len(taken) == 1:
        batch, slots = taken[0]
        if slots == list(range(len(batch.ids))):
            return batch, batch.tensors, batch.known
        return None, _selected(batch.tensors, slots), batch.known
    # Of a batch of which most is wanted all goes into the sum, so that one selection serves many of them.
    parts: List[List[Tensor]] = []
    index: List[int] = []
    size = 0
    for batch, slots in taken:
        if 2 * len(slots) >= len(batch.ids):
            parts.append(batch.tensors)
            index += [size + slot for slot in slots]
            size += len(batch.ids)
        else:
            parts.append(_selected(batch.tensors, slots))
            index += range(size, size + len(slots))
            size += len(slots)
    tensors = [torch.cat(each) for each in zip(*parts, strict=True)]
    if index != list(range(size)):
        tensors = _selected(tensors, index)
    return None, tensors, tuple(map(min, zip(*[batch.known for batch, _ in taken], strict=True)))


def rows_apart(phase: Kinds, tensors: List[Tensor], known: Tuple[int, ...], ids: Sequence[Hashable]) -> List[Batch]:
    """A batch for each row, so that the path of gradients of each can be cut alone."""
    return [Batch(phase, [tensor[i : i + 1] for tensor in tensors], known, [id]) for i, id in enumerate(ids)]


def _selected(tensors: List[Tensor], slots: List[int]) -> List[Tensor]:
    if not tensors:
        return []
    index: Any = torch.tensor(slots, device=tensors[0].device)
    return [tensor.index_select(0, index) for tensor in tensors]
