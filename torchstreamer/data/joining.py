"""Batches of what several processes read: side by side, ended rows padded."""

from typing import Any, Callable, List, Optional, Sequence, Tuple

import torch

from .batch import StreamBatch
from .dataset import StreamDataset
from .seats import Part, Seats
from .stacking import join, stack
from .trees import copied, map_tensors

__all__ = ["Joining"]


class Joining:
    """Makes batches of parts.

    Args:
        dataset: of the parts
        collate_fn: makes a batch of the list of chunks; ``None`` gives `StreamBatch`
        copies: whether the parts' memory must be left behind
    """

    def __init__(self, dataset: StreamDataset, collate_fn: Optional[Callable[[List[Any]], Any]], copies: bool) -> None:
        self.dataset = dataset
        self.collate_fn = collate_fn
        self.copies = copies
        self.rows = range(dataset.batch_size)
        self._seats: List[Seats] = []
        self._no = torch.zeros(dataset.batch_size, dtype=torch.bool)
        self.chunk = dataset.padding_chunk  # stands for a row that has ended
        self._blank: Any = None

    def __call__(self, parts: Sequence[Part]) -> Any:
        size = len(self.rows)
        if self.collate_fn is None:
            return self._stacked(parts) if parts else self._padding()
        if parts:
            return self.collate_fn(self.dataset.in_rows(parts, self.rows))
        return self.collate_fn([copied(self._blank_chunk()) for _ in range(size)])

    def _stacked(self, parts: Sequence[Part]) -> StreamBatch:
        seats = [part.seats for part in parts]
        if len(parts) == 1 and len(seats[0].rows) == len(self.rows) and not self.copies:
            data, lengths = parts[0].data, parts[0].lengths
        else:
            data, lengths = self._joined(parts)
        if len(seats) != len(self._seats) or any([a is not b for a, b in zip(seats, self._seats, strict=True)]):
            self._sit(seats)
        first, last = self._no.clone(), self._no.clone()
        for part in parts:
            if part.age == 0:
                first[part.seats.rows] = torch.tensor([chunk == 0 for chunk in part.seats.chunks])
            if part.last is not None:
                last[part.seats.rows] = torch.tensor(part.last)
        if len({part.age for part in parts}) == 1:
            chunk_index = self._chunks + self._moving * parts[0].age if parts[0].age else self._chunks.clone()
        else:
            chunk_index = self._chunks.clone()
            for part in parts:
                chunk_index[part.seats.rows] += part.age
        return StreamBatch(data, lengths, first, last, self._ids.clone(), chunk_index, self._valid.clone())

    def _sit(self, seats: Sequence[Seats]) -> None:
        # What stays the same until a stream takes another's place.
        self._seats = list(seats)
        size = len(self.rows)
        self._ids, self._chunks = torch.full((size,), -1), torch.full((size,), -1)
        self._moving, self._valid = torch.zeros(size, dtype=torch.int64), torch.zeros(size, dtype=torch.bool)
        for their in seats:
            self._ids[their.rows] = torch.tensor(their.ids)
            self._chunks[their.rows] = torch.tensor(their.chunks)
            self._valid[their.rows] = torch.tensor(their.valid)
            self._moving[their.rows] = 1

    def _joined(self, parts: Sequence[Part]) -> Tuple[Any, Any]:
        # The rows of several processes side by side, those that have ended padded.
        dataset, size = self.dataset, len(self.rows)
        rows = [part.seats.rows for part in parts]
        ids = [part.seats.ids for part in parts]
        data, lengths = [part.data for part in parts], [part.lengths for part in parts]
        gone = sorted(set(self.rows).difference(*rows))
        if gone and self.chunk is not None:
            more, more_lengths = stack([self.chunk] * len(gone), [-1] * len(gone), dataset.time_dim, dataset.fill)
            data.append(more)
            lengths.append(map_tensors(torch.zeros_like, more_lengths))
            rows.append(gone)
            ids.append([-1] * len(gone))
        return (
            join(data, rows, ids, size, dataset.time_dim, dataset.fill),
            join(lengths, rows, ids, size, None, 0),
        )

    def _padding(self) -> StreamBatch:
        # A whole batch of padding, for a rank whose streams have ended before those of another.
        size = len(self.rows)
        dataset = self.dataset
        data, lengths = stack([self._blank_chunk()] * size, [-1] * size, dataset.time_dim, dataset.fill)
        nobody = torch.full((size,), -1)
        return StreamBatch(
            data,
            map_tensors(torch.zeros_like, lengths),
            self._no.clone(),
            self._no.clone(),
            nobody,
            nobody.clone(),
            self._no.clone(),
        )

    def _blank_chunk(self) -> Any:
        # Like the first chunk there is, though this rank may have read none: the same on all ranks, and after a resume.
        if self.chunk is not None:
            return self.chunk
        if self._blank is None:
            self._blank = self.dataset.blank_chunk()
        return self._blank
