"""Epochs of random streams: nothing lost, doubled, out of order or in another row, whoever reads."""

import os
import random

import pytest
import torch
from following import check_epoch, open_reused, open_stream, random_case, same

from torchstreamer import StreamDataLoader, StreamDataset

# In all: 1,000 epochs in the thorough profile, 60 in CI.
EPOCHS = {"ci": 6, "thorough": 167}.get(os.environ.get("HYPOTHESIS_PROFILE", "dev"), 4)

pytestmark = pytest.mark.timeout(120)


def dataset_of(streams, batch_size, mode, streamer=open_stream, **options):
    return StreamDataset(list(enumerate(streams)), streamer, batch_size, mode, **options)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", ["zeros", "data"])
@pytest.mark.parametrize("workers", [0, 2, 4])
def test_random_epochs(workers, mode):
    for seed in range(EPOCHS):
        streams, batch_size = random_case(1_000 * workers + seed)
        options = {"shuffle": True, "seed": seed} if seed % 3 == 0 else {}
        streamer = open_reused if seed % 2 else open_stream
        dataset = dataset_of(streams, batch_size, mode, streamer, padding_value=seed % 5 - 2, **options)
        order = dataset.plan().order
        batches = list(StreamDataLoader(dataset, workers))
        check_epoch(batches, streams, batch_size, mode == "data", order, fill=seed % 5 - 2)


@pytest.mark.parametrize("mode", ["zeros", "data"])
def test_the_number_of_workers_changes_nothing(mode):
    streams, batch_size = [[3, 1, 4], [1], [5, 9, 2, 6], [], [5, 3], [5], [8, 9, 7, 9, 3]], 4
    epochs = {}
    for workers in (0, 1, 2, 5):
        for persistent in (False, True) if workers else (False,):
            dataset = dataset_of(streams, batch_size, mode, shuffle=True, seed=3)
            loader = StreamDataLoader(dataset, workers, persistent_workers=persistent)
            epochs[workers, persistent] = [list(loader) for _ in range(3)]
    first = epochs[0, False]
    assert [len(epoch) for epoch in first] != [0, 0, 0]
    assert not all(same(a, b) for a, b in zip(first[0], first[1], strict=False))  # the order of an epoch is its own
    for found in epochs.values():
        for epoch, wanted in zip(found, first, strict=True):
            assert all(same(a, b) for a, b in zip(epoch, wanted, strict=True))


@pytest.mark.parametrize("context", ["spawn", "forkserver"])
def test_spawned_processes_read_the_same(context):
    streams = [[3, 1, 4], [1], [5, 9, 2], [], [5, 3]]
    loader = StreamDataLoader(
        dataset_of(streams, 3, "data"), 2, multiprocessing_context=context, persistent_workers=True
    )
    for _ in range(2):
        check_epoch(list(loader), streams, 3, reread=True)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("threads", [1, 3])
def test_threads_read_the_same(workers, threads):
    streams, _ = random_case(7)
    dataset = dataset_of(streams, 3, "data", threads=threads)
    check_epoch(list(StreamDataLoader(dataset, workers)), streams, 3, reread=True)


@pytest.mark.sample(every=5, rest=99)
@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("mode", ["zeros", "data"])
@pytest.mark.parametrize(
    "streams",
    [[], [[]], [[], [], [], []], [[2]], [[], [1, 1], []], [[0]], [[0, 0], [0]]],
    ids=["none", "empty", "all empty", "one", "one of three", "one empty chunk", "empty chunks"],
)
def test_hardly_any_streams(streams, mode, workers):
    loader = StreamDataLoader(dataset_of(streams, 3, mode), workers)
    for _ in range(2):
        check_epoch(list(loader), streams, 3, mode == "data")


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_in_time_assignment(workers):
    # Rows take streams as they need them: every stream is read once, in one row, and rows end close together.
    rng = random.Random(0)
    streams = [[1] * rng.randrange(0, 9) for _ in range(40)]
    epochs = []
    for _ in range(2):
        dataset = dataset_of(streams, 6, "zeros", assignment="in_time", shuffle=True)
        epochs.append(list(StreamDataLoader(dataset, workers)))
    assert all(same(a, b) for a, b in zip(*epochs, strict=True))
    read, rows = {}, {}
    for batch in epochs[0]:
        for row in batch.valid.nonzero()[:, 0].tolist():
            index, chunk = int(batch.ids[row]), int(batch.chunk_index[row])
            assert rows.setdefault(index, row) == row
            assert read.get(index, 0) == chunk
            assert bool(batch.first[row]) == (chunk == 0)
            assert bool(batch.last[row]) == (chunk + 1 == len(streams[index]))
            read[index] = chunk + 1
    assert read == {index: len(lengths) for index, lengths in enumerate(streams) if lengths}
    if workers <= 1:  # no row is idle while a stream waits
        counts = [len(lengths) for lengths in streams]
        assert len(epochs[0]) <= sum(counts) // 6 + max(counts)


def test_in_time_takes_the_next_stream_when_a_row_is_free():
    dataset = dataset_of([[1] * 5, [1], [1], [1], [1]], 2, "zeros", assignment="in_time")
    ids = [batch.ids.tolist() for batch in StreamDataLoader(dataset)]
    assert ids == [[0, 1], [0, 2], [0, 3], [0, 4], [0, -1]]


def test_the_callers_list_stays_as_it_is():
    streams = list(enumerate([[1], [2], [3], [4]]))
    before = list(streams)
    dataset = StreamDataset(streams, open_stream, 2)
    dataset.shuffle()
    orders = set()
    for _ in range(8):
        orders.add(dataset.plan().order)
        list(StreamDataLoader(dataset))
    assert streams == before
    assert len(orders) > 1
    streams.clear()
    assert len(list(StreamDataLoader(dataset))) == 2


def test_set_epoch_and_the_end_of_an_epoch():
    streams = [[1]] * 20
    loader = StreamDataLoader(dataset_of(streams, 1, "zeros", shuffle=True, seed=5))

    def ids():
        return [int(batch.ids) for batch in loader]

    first, second = ids(), ids()
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second
    loader.set_epoch(0)
    assert ids() == first
    assert ids() == second
    other = StreamDataLoader(dataset_of(streams, 1, "zeros", shuffle=True, seed=6))
    assert [int(batch.ids) for batch in other] != first


def test_the_order_is_known_for_good():
    # Saved states must mean the same in later versions.
    dataset = dataset_of([[1]] * 8, 1, "zeros", shuffle=True, seed=1)
    assert dataset.plan(0).order == (7, 4, 5, 2, 0, 3, 1, 6)
    assert dataset.plan(1).order == (6, 3, 7, 1, 5, 2, 0, 4)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_lie_in_memory_of_their_own(workers):
    streams = [[2, 2, 2], [2, 2, 2]]
    batches = []
    for batch in StreamDataLoader(dataset_of(streams, 2, "zeros", open_reused), workers):
        batches.append(torch.clone(batch.data))
        batch.data.fill_(-1)
        batch.ids.fill_(9)
        batch.valid.fill_(False)
    again = list(StreamDataLoader(dataset_of(streams, 2, "zeros"), workers))
    assert all(torch.equal(a, b.data) for a, b in zip(batches, again, strict=True))
