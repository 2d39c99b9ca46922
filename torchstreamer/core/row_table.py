"""Which rows there are, and where their states stand: in batches as streams left them, shared until they thin out."""

import math
from typing import Any, Dict, Hashable, Iterator, List, Optional, Sequence, Set, Tuple

import torch
from torch import Tensor

from ..errors import StreamInputError
from .row_state import Phase

__all__ = ["Batch", "DetachedRows", "Form", "Row", "RowTable", "gather", "rows_apart"]

# Of every batch its phase, tensors, what clocks know, and its rows; a row is id, came, given, and what waits.
DetachedRows = List[Tuple[Phase, List[Tensor], Tuple[int, ...], List[Tuple[Hashable, int, int, Optional[Tensor]]]]]

# Bytes of a row from which on its tensors are not packed.
_LARGE = 1 << 14

# Bytes that are copied in vain rather than selected, which takes a call.
_SPARED = 1 << 16


class Form:
    """A phase, and the dtypes and shapes of what is held in it. There is one object for all rows of a form.

    All tensors of a dtype are packed into one, ``[B, n]``, so that rows are picked out of all at once; but not large
    ones, which each take longer to copy than to pick.
    """

    __slots__ = ("dtypes", "empty", "kinds", "large", "phase", "shapes", "sizes", "whole")

    def __init__(self, phase: Phase, tensors: Sequence[Tensor]) -> None:
        self.phase = phase
        self.dtypes = tuple([tensor.dtype for tensor in tensors])
        self.shapes = [tuple(tensor.shape[1:]) for tensor in tensors]
        self.kinds = list(dict.fromkeys(self.dtypes))
        # By kind, which tensors, and how many numbers of each a row has; of an empty one there is nothing to pack.
        sizes = [math.prod(shape) for shape in self.shapes]
        self.empty = [i for i, n in enumerate(sizes) if not n]
        self.whole = [[i for i, n in enumerate(sizes) if n and self.dtypes[i] is kind] for kind in self.kinds]
        self.sizes = [[sizes[i] for i in these] for these in self.whole]
        self.large = self.row_nbytes() > _LARGE

    def pack(self, tensors: Sequence[Tensor]) -> List[Tensor]:
        """A tensor ``[B, n]`` for each dtype."""
        if self.large:
            return list(tensors)
        rows = tensors[0].shape[0]
        return [
            torch.cat([tensors[i].reshape(rows, n) for i, n in zip(these, sizes, strict=True)], 1)
            if these
            else tensors[self.dtypes.index(kind)].new_empty([rows, 0])
            for kind, these, sizes in zip(self.kinds, self.whole, self.sizes, strict=True)
        ]

    def unpack(self, packed: Sequence[Tensor]) -> List[Tensor]:
        """The tensors again, as views."""
        if self.large:
            return list(packed)
        found: List[Any] = [None] * len(self.shapes)
        rows = packed[0].shape[0]
        for one, these, sizes in zip(packed, self.whole, self.sizes, strict=True):
            if these:
                for i, part in zip(these, torch.split_with_sizes(one, sizes, 1), strict=True):
                    found[i] = part.view(rows, *self.shapes[i])
        for i in self.empty:
            found[i] = packed[self.kinds.index(self.dtypes[i])].new_empty([rows, *self.shapes[i]])
        return found

    def row_nbytes(self) -> int:
        """Bytes of one row."""
        return sum(kind.itemsize * sum(sizes) for kind, sizes in zip(self.kinds, self.sizes, strict=True))


class Batch:
    """States of several rows of one form, as one step left them. Nobody writes to them.

    Args:
        form: of each
        tensors: rows first; packed once not all rows are wanted anymore
        known: what the clocks know of all of them
        ids: of the rows, in order
        packed: the tensors, packed, if they are so already
    """

    __slots__ = ("_packed", "_tensors", "form", "ids", "known", "live")

    def __init__(
        self,
        form: Form,
        tensors: List[Tensor],
        known: Tuple[int, ...],
        ids: List[Hashable],
        packed: Optional[List[Tensor]] = None,
    ) -> None:
        self.form = form
        self._tensors = tensors
        self._packed = packed
        self.known = known
        self.ids = ids
        self.live = 0  # rows whose state this is still

    @property
    def tensors(self) -> List[Tensor]:
        """What is held, rows first."""
        return self._tensors if self._packed is None else self.form.unpack(self._packed)

    @property
    def packed(self) -> List[Tensor]:
        """The same, packed."""
        if self._packed is None:
            self._packed = self.form.pack(self._tensors)
            self._tensors = []
        return self._packed


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
        found = 0 if self.batch is None else self.batch.form.row_nbytes()
        return found if self.queue is None else found + self.queue.numel() * self.queue.element_size()


class RowTable:
    """The rows by id. A change is made of new `Row`s, and takes effect as a whole."""

    def __init__(self) -> None:
        self.rows: Dict[Hashable, Row] = {}
        self._forms: Dict[Any, Form] = {}

    def form(self, phase: Phase, tensors: Sequence[Tensor]) -> Form:
        """The one object that stands for a phase and the dtypes of what is held in it."""
        key = phase, tuple([tensor.dtype for tensor in tensors])
        found = self._forms.get(key)
        if found is None:
            found = self._forms[key] = Form(phase, tensors)
        return found

    def commit(self, changes: Dict[Hashable, Optional[Row]]) -> None:
        """Put rows in the place of those that were there; ``None`` for one that is gone."""
        rows = self.rows
        touched: Set[Batch] = set()
        for id, row in changes.items():
            before = rows.get(id)
            if before is not None and before.batch is not None:
                before.batch.live -= 1
                touched.add(before.batch)
            if row is None:
                rows.pop(id, None)
            else:
                rows[id] = row
                if row.batch is not None:
                    row.batch.live += 1
                    touched.add(row.batch)
        for batch in touched:
            # One row must not keep the memory of a whole batch.
            if 0 < 2 * batch.live < len(batch.ids):
                self._compact(batch)
        if not rows:
            self._forms = {}
        elif len(self._forms) > 64 + 2 * len(rows):
            here = {row.batch.form for row in rows.values() if row.batch is not None}
            self._forms = {key: form for key, form in self._forms.items() if form in here}

    def move(self, batch: Batch, after: Batch, anew: Sequence[int], length: int) -> None:
        """Let all rows of a batch stand in another one, of the same ids.

        Args:
            batch: where they stand
            after: where they will
            anew: places of those that are set apart, and whose signals begin anew there
            length: of the first chunk of these
        """
        rows = self.rows
        for slot in anew:
            id = batch.ids[slot]
            before = rows[id].batch
            assert before is not None
            before.live -= 1
            rows[id] = Row(after, slot, length)
        for id in batch.ids:
            rows[id].batch = after
        after.live, batch.live = len(batch.ids), 0

    def set_apart(self, rows: Sequence[Row]) -> None:
        """Let some rows of a batch stand in one of their own, a copy."""
        if not rows:
            return
        batch = rows[0].batch
        assert batch is not None
        ids = [batch.ids[row.slot] for row in rows]
        copy = Batch(batch.form, [], batch.known, ids, _selected(batch.packed, [row.slot for row in rows]))
        for slot, row in enumerate(rows):
            row.batch, row.slot = copy, slot
        copy.live = len(rows)
        batch.live -= len(rows)

    def _compact(self, batch: Batch) -> None:
        here = [(id, self.rows[id]) for id in batch.ids if id in self.rows]
        here = [(id, row) for id, row in here if row.batch is batch]
        packed = _selected(batch.packed, [row.slot for _, row in here])
        smaller = Batch(batch.form, [], batch.known, [id for id, _ in here], packed)
        smaller.live = len(here)
        for slot, (_, row) in enumerate(here):
            row.batch, row.slot = smaller, slot

    def detached(self) -> DetachedRows:
        """All rows as plain values, without gradients."""
        batches: Dict[Optional[Batch], List[Tuple[Hashable, Row]]] = {}
        for id, row in self.rows.items():
            batches.setdefault(row.batch, []).append((id, row))
        found: DetachedRows = []
        for batch, these in batches.items():
            values = [
                (id, row.came, row.given, None if row.queue is None else row.queue.detach().clone())
                for id, row in these
            ]
            if batch is None:
                found.append(((), [], (), values))
            else:
                packed = [each.detach() for each in _selected(batch.packed, [row.slot for _, row in these])]
                tensors = [tensor.contiguous() for tensor in batch.form.unpack(packed)]
                found.append((batch.form.phase, tensors, batch.known, values))
        return found

    def attached(self, found: DetachedRows) -> Dict[Hashable, Optional[Row]]:
        """Those rows, for `commit`."""
        rows: Dict[Hashable, Optional[Row]] = {}
        for phase, tensors, known, values in found:
            batch = Batch(self.form(phase, tensors), tensors, known, [id for id, *_ in values]) if phase else None
            for slot, (id, came, given, queue) in enumerate(values):
                rows[id] = Row(batch, slot, came, given, queue)
        return rows

    def known(self, id: Hashable) -> Row:
        """The row of an id.

        Raises:
            StreamInputError: ``unknown_id``
        """
        row = self.rows.get(id)
        if row is None:
            raise StreamInputError(
                f"unknown_id: {id!r} came; the id of a signal that has begun and not ended was expected; begin it with "
                "first=True"
            )
        return row

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


def gather(rows: Sequence[Row]) -> Tuple[Optional[Batch], List[Tensor], Tuple[int, ...]]:
    """The states of rows of one form as one batch.

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
    first, slots = taken[0]
    if len(taken) == 1:
        if slots == list(range(len(first.ids))):
            return first, first.tensors, first.known
        return None, first.form.unpack(_selected(first.packed, slots)), first.known
    known = tuple(map(min, zip(*[batch.known for batch, _ in taken], strict=True)))
    if first.form.large and not any(tensor.requires_grad for batch, _ in taken for tensor in batch.packed):
        return None, _joined(taken), known
    nbytes = first.form.row_nbytes()
    # Of a batch of which most is wanted all goes into the sum, so that one selection serves many of them.
    parts: List[List[Tensor]] = []
    index: List[int] = []
    size = 0
    for batch, slots in taken:
        if 2 * len(slots) >= len(batch.ids) or (len(batch.ids) - len(slots)) * nbytes <= _SPARED:
            parts.append(batch.packed)
            index += [size + slot for slot in slots]
            size += len(batch.ids)
        else:
            parts.append(_selected(batch.packed, slots))
            index += range(size, size + len(slots))
            size += len(slots)
    packed = [torch.cat(each) for each in zip(*parts, strict=True)]
    if index != list(range(size)):
        packed = _selected(packed, index)
    return None, first.form.unpack(packed), known


def rows_apart(batch: Batch) -> List[Batch]:
    """A batch for each row, so that the path of gradients of each can be cut alone."""
    packed = [torch.split(each, 1) for each in batch.packed]
    rows = [list(each) for each in zip(*packed, strict=True)]
    return [Batch(batch.form, [], batch.known, [id], row) for id, row in zip(batch.ids, rows, strict=True)]


def _joined(taken: Sequence[Tuple[Batch, List[int]]]) -> List[Tensor]:
    # Every number is copied once.
    count = sum(len(slots) for _, slots in taken)
    found = [tensor.new_empty([count, *tensor.shape[1:]]) for tensor in taken[0][0].packed]
    place = 0
    for batch, slots in taken:
        index = torch.tensor(slots, device=found[0].device)
        for tensor, into in zip(batch.packed, found, strict=True):
            torch.index_select(tensor, 0, index, out=into[place : place + len(slots)])
        place += len(slots)
    return found


def _selected(packed: Sequence[Tensor], slots: List[int]) -> List[Tensor]:
    if len(slots) == 1:
        return [each[slots[0] : slots[0] + 1].clone() for each in packed]
    index = torch.tensor(slots, device=packed[0].device)
    return [each.index_select(0, index) for each in packed]
