"""Batches of what several processes read: side by side, ended rows padded."""

from typing import Any, Callable, List, Optional, Sequence, Tuple

import torch

from ..errors import StreamInputError
from .batch import StreamBatch
from .dataset import StreamDataset
from .seats import Part, Seats
from .trees import Others, blank, join, map_tensors, stack
from .workers import Orders

__all__ = ["Joining"]


class Joining:
    """Makes batches of parts. It remembers what a batch looks like, to make padding like it.

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
        self.like: Any = None
        self._sitting: List[int] = []
        self._no = torch.zeros(dataset.batch_size, dtype=torch.bool)
        number = isinstance(dataset.padding_value, (int, float))
        self.chunk = None if number else dataset.padding_value  # stands for a row that has ended

    def __call__(self, parts: Sequence[Part]) -> Any:
        if self.collate_fn is not None:
            if parts:
                chunks = self.dataset.in_rows(parts, self.rows)
            else:
                chunks = [self._padding()] * len(self.rows)
            self.like = chunks[0]
            return self.collate_fn(chunks)
        return self._stacked(parts) if parts else self._blank()

    def _stacked(self, parts: Sequence[Part]) -> StreamBatch:
        seats = [part.seats for part in parts]
        if len(parts) == 1 and len(seats[0].rows) == len(self.rows) and not self.copies:
            data, lengths = parts[0].data, parts[0].lengths
        else:
            data, lengths = self._joined(parts)
        self.like = data
        if self._sitting != [id(their) for their in seats]:
            self._sit(seats)
        first, last = self._no.clone(), self._no.clone()
        if any([part.age == 0 for part in parts]):
            for part in parts:
                if part.age == 0:
                    first[part.seats.rows] = torch.tensor([chunk == 0 for chunk in part.seats.chunks])
        for part in parts:
            if part.last is not None:
                last[part.seats.rows] = torch.tensor(part.last)
        if len(parts) == 1 or len({part.age for part in parts}) == 1:
            chunk_index = self._chunks + self._moving * parts[0].age if parts[0].age else self._chunks.clone()
        else:
            chunk_index = self._chunks.clone()
            for part in parts:
                chunk_index[part.seats.rows] += part.age
        return StreamBatch(data, lengths, first, last, self._ids.clone(), chunk_index, self._valid.clone())

    def _sit(self, seats: Sequence[Seats]) -> None:
        # What stays the same until a stream takes another's place.
        self._sitting = [id(their) for their in seats]
        self._held = list(seats)  # so that the ids stay theirs
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

    def _blank(self) -> StreamBatch:
        # A whole batch of padding, for a rank whose streams have ended before those of another.
        size = len(self.rows)
        if self.like is None:
            self.like = stack([self._padding()] * size, [-1] * size, self.dataset.time_dim, self.dataset.fill)[0]
        data = _filled(self.like, self.dataset.fill)
        _, lengths = stack([self._padding()], [-1], self.dataset.time_dim, self.dataset.fill)
        nothing, nobody = torch.zeros(size, dtype=torch.bool), torch.full((size,), -1)
        zeros = map_tensors(lambda length: length.new_zeros(size), lengths)
        return StreamBatch(data, zeros, nothing, nothing.clone(), nobody, nobody.clone(), nothing.clone())

    def _padding(self) -> Any:
        # A chunk of padding, though this rank may have read none.
        if self.chunk is not None:
            return self.chunk
        if self.collate_fn is not None and self.like is not None:
            return blank(self.like, self.dataset.fill)
        rank, world_size = self.dataset.shard()
        for other in range(world_size):
            orders = Orders(self.dataset.epoch, (rank + other) % world_size, world_size, None, 0)
            reader = self.dataset.reader(self.rows, orders, collated=False).parts()
            for part in reader:
                reader.close()
                return blank(part.data[0], self.dataset.fill)
        raise StreamInputError(
            "no_chunks: no stream of any rank has a chunk; expected one that tells what padding looks like; "
            "give padding_value a chunk"
        )


def _filled(tree: Any, fill: float) -> Any:
    if isinstance(tree, Others):
        return Others([None] * len(tree))
    if isinstance(tree, dict):
        return {key: _filled(value, fill) for key, value in tree.items()}
    return map_tensors(lambda tensor: torch.full_like(tensor, fill), tree)
