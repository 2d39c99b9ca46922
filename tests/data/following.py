"""An independent account of what a loader must give: by lists of chunks, one for each row, without any of its code."""

import random

import torch

from torchstreamer import StreamDataLoader, StreamDataset
from torchstreamer.data import StreamBatch


def values(stream, chunk, length, channels=1):
    """The samples of a chunk: no two of all streams are alike."""
    start = 1_000_000 * (stream + 1) + 1_000 * chunk
    return torch.arange(start, start + length, dtype=torch.float64).expand(channels, -1).clone()


def draw_streams(rng, most=12, chunks=7, samples=5):
    """Random streams, each a list of the lengths of its chunks; some are empty, and so are some chunks."""
    return [
        [rng.randrange(samples + 1) for _ in range(rng.choice([0, 1, 2, rng.randrange(chunks + 1)]))]
        for _ in range(rng.randrange(most + 1))
    ]


class Opened:
    """One stream: gives its chunks, all in one buffer where ``reused``."""

    def __init__(self, index, lengths, reused=False):
        self.index = index
        self.lengths = lengths
        self.reused = reused

    def __iter__(self):
        buffer = torch.empty(1, max(self.lengths, default=0), dtype=torch.float64)
        for chunk, length in enumerate(self.lengths):
            if self.reused:
                buffer.fill_(-7)
                buffer[:, :length] = values(self.index, chunk, length)
                yield buffer[:, :length]
            else:
                yield values(self.index, chunk, length)


def open_stream(stream):
    """A streamer for ``(index, lengths)``; at the top of a module, so that it pickles."""
    return Opened(*stream)


def open_reused(stream):
    """The same, whose chunks all lie in one buffer."""
    return Opened(*stream, reused=True)


def check_epoch(batches, streams, batch_size, reread, order=None, start=0, fill=0):
    """Every batch of an epoch is as it must be; from batch ``start`` on.

    Args:
        batches: what the loader gave
        streams: lists of the lengths of chunks
        batch_size: rows
        reread: whether ended rows read again, else they are padding
        order: of the streams; that of the list by default
        start: batches of the epoch that were given before
        fill: what pads
    """
    order = list(range(len(streams))) if order is None else list(order)
    rows = [
        [(index, chunk) for index in order[row::batch_size] for chunk in range(len(streams[index]))]
        for row in range(batch_size)
    ]
    steps = max(map(len, rows))
    assert len(batches) == steps - start
    again = [None] * batch_size  # of each row, the chunk it must read next, where it reads again
    for step, batch in enumerate(batches, start=start):
        check_batch(batch, [row[step] if step < len(row) else None for row in rows], streams, reread, again, fill)


def check_batch(batch, wanted, streams, reread, again, fill):
    """One batch: ``wanted`` has ``(stream, chunk)`` for each row, or ``None`` for a row that has ended."""
    assert isinstance(batch, StreamBatch)
    assert len(batch) == len(wanted)
    assert batch.data.dtype == torch.float64
    longest = int(batch.lengths.max())
    assert batch.data.shape == (len(wanted), 1, longest)
    assert batch.valid.tolist() == [want is not None for want in wanted]
    readable = any(streams)
    for row, want in enumerate(wanted):
        index, chunk = int(batch.ids[row]), int(batch.chunk_index[row])
        flags = bool(batch.first[row]), bool(batch.last[row])
        if want is None and (not reread or not readable):
            assert (index, chunk, flags, int(batch.lengths[row])) == (-1, -1, (False, False), 0)
            assert (batch.data[row] == fill).all()
            continue
        if want is not None:
            assert (index, chunk) == want
        else:  # read again: any stream, but then from its first chunk on
            assert chunk == 0 if again[row] is None else (index, chunk) == again[row]
        count = len(streams[index])
        assert flags == (chunk == 0, chunk == count - 1)
        length = streams[index][chunk]
        assert int(batch.lengths[row]) == length
        assert torch.equal(batch.data[row, :, :length], values(index, chunk, length))
        assert (batch.data[row, :, length:] == fill).all()
        if want is None:
            again[row] = (index, chunk + 1) if chunk + 1 < count else None


def same(batch, other):
    """Whether two batches are alike to the bit."""
    names = ("data", "lengths", "first", "last", "ids", "chunk_index", "valid")
    return all(torch.equal(getattr(batch, name), getattr(other, name)) for name in names)


def random_case(seed):
    """Streams and a number of rows, by a seed."""
    rng = random.Random(seed)
    return draw_streams(rng), rng.randrange(1, 6)


def numbers(count, start=0):
    """A stream of so many whole numbers, each a chunk."""
    return [torch.tensor([start + value]) for value in range(count)]


def loader_of(streams, rows=1, workers=0, collate_fn=None, streamer=iter, persistent_workers=False, **options):
    """A loader of streams that are iterables of chunks already."""
    dataset = StreamDataset(streams, streamer, rows, **options)
    return StreamDataLoader(dataset, workers, collate_fn, persistent_workers=persistent_workers)
