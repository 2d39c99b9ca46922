"""Streams that must be closed, and processes that change, fail or die at odd times."""

import multiprocessing
import os
import random
import signal
import threading
import time

import numpy
import pytest
import torch
from following import loader_of, numbers, same

from torchstreamer import (
    AudioStreamDataset,
    StreamDataLoader,
    StreamDataset,
    StreamInputError,
    StreamReadError,
    WorkerError,
)

pytestmark = pytest.mark.timeout(120)


# --------------------------------------------------------------------------- streams open and close


class Opened:
    """A stream that knows whether it is open."""

    still = set()

    def __init__(self, name):
        self.name = name

    def __iter__(self):
        self.still.add(self.name)
        try:
            yield from numbers(3)
        finally:
            self.still.discard(self.name)


@pytest.mark.parametrize("mode", ["zeros", "data"])
def test_streams_are_closed(mode):
    Opened.still.clear()
    loader = loader_of(["a", "b", "c"], 2, streamer=Opened, padding_mode=mode)
    list(loader)
    assert Opened.still == set()
    for _ in loader:
        assert Opened.still
        break
    assert Opened.still == set()
    with pytest.raises(ZeroDivisionError):
        list(loader_of(["a", "b", "c"], 2, 0, lambda chunks: 1 // 0, Opened))
    assert Opened.still == set()


def test_one_process_reads_no_stream_again_when_the_epoch_is_over():
    opened = []

    def once(stream):
        if stream in opened:
            raise OSError("it can be opened once")
        opened.append(stream)
        return numbers(stream)

    for workers in (0, 1):
        opened.clear()
        batches = list(loader_of([2, 3, 1], 1, workers, None, once, padding_mode="data"))
        assert len(batches) == 6


class Unruly:
    """Its end fails, and so do its words."""

    def __init__(self, stream):
        self.left = stream

    def __repr__(self):
        raise ValueError("no words")

    def __iter__(self):
        return self

    def __next__(self):
        if not self.left:
            raise StopIteration
        self.left -= 1
        return torch.zeros(1)

    def close(self):
        raise OSError("it does not close")


def test_streams_that_do_not_close():
    with pytest.warns(RuntimeWarning, match="OSError while it was closed: it does not close"):
        batches = list(loader_of([2, 1], 1, streamer=Unruly))
    assert len(batches) == 3


def test_words_that_fail():
    class Wordless:
        def __repr__(self):
            raise ValueError("no words")

    def fail(stream):
        class Mute(Exception):
            def __str__(self):
                raise ValueError("no words")

        raise Mute

    with pytest.raises(StreamReadError, match=r"^stream_failed: stream 0 \(a Wordless\).*a Mute"):
        list(loader_of([Wordless()], streamer=fail))


@pytest.mark.parametrize("where", ["open", "read"])
def test_threads_read_side_by_side(where):
    # Every stream waits until all eight are as far as it is: nobody comes by if they take turns.
    together = threading.Barrier(8, timeout=30)

    def opened(stream):
        if where == "open":
            together.wait()
        return reading()

    def reading():
        yield torch.zeros(1)
        if where == "read":
            together.wait()
        yield torch.ones(1)

    assert len(list(loader_of(range(8), 8, streamer=opened, threads=8))) == 2


# --------------------------------------------------------------------------- processes


def draw(stream):
    yield torch.tensor([random.random(), numpy.random.rand(), torch.rand(1).item()], dtype=torch.float64)


def test_processes_draw_of_their_own():
    # A streamer that draws from the process's own random state: seeded by the dataset, the epoch and the process.
    def epochs():
        loader = loader_of([0, 1], 2, 2, streamer=draw, seed=3)
        return [batch.data for _ in range(2) for batch in loader]

    first, again = epochs(), epochs()
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    values = torch.cat(first)
    for generator in range(3):
        assert len(set(values[:, generator].tolist())) == 4


def test_processes_that_live_on_learn_of_changes():
    loader = loader_of([numbers(1, index) for index in range(8)], 2, 2, persistent_workers=True)
    plain = [batch.data.tolist() for batch in loader]
    loader.dataset.shuffle()
    loader.set_epoch(0)
    shuffled = [batch.data.tolist() for batch in loader]
    other = loader_of([numbers(1, index) for index in range(8)], 2, shuffle=True)
    assert shuffled == [batch.data.tolist() for batch in other] != plain


def test_an_error_in_one_iterator_leaves_the_other_alone():
    others = set(multiprocessing.active_children())
    loader = loader_of([numbers(6)] * 2, 2, 1, persistent_workers=True)
    first = iter(loader)
    next(first)
    (reader,) = set(multiprocessing.active_children()) - others
    second = iter(loader)
    next(second)
    with pytest.raises(ZeroDivisionError):
        second.throw(ZeroDivisionError())
    assert len(list(first)) == 5
    list(loader)
    assert set(multiprocessing.active_children()) - others == {reader}


def test_killed_between_epochs():
    others = set(multiprocessing.active_children())
    loader = loader_of([numbers(3)] * 2, 2, 2, persistent_workers=True)
    whole = list(loader)
    readers = set(multiprocessing.active_children()) - others
    assert len(readers) == 2
    try:
        os.kill(readers.pop().pid, signal.SIGKILL)
        time.sleep(0.5)
    except RuntimeError:  # torch says so wherever this process is
        pass
    with pytest.raises(WorkerError, match="^worker_died: the process that reads rows"):
        list(loader)
    loader.set_epoch(0)
    assert all(same(a, b) for a, b in zip(loader, whole, strict=True))


def bad(stream):
    raise OSError(f"cannot open {stream}")


def fail_to_begin(number):
    raise RuntimeError("no beginning")


@pytest.mark.slow
def test_only_dead_processes_are_called_dead():
    with pytest.raises(StreamReadError, match="DataLoader worker .pid 3. is killed"):
        list(loader_of(["DataLoader worker (pid 3) is killed"], 1, 1, None, bad))
    dataset = StreamDataset([numbers(1)], iter, 1)
    with pytest.raises(RuntimeError, match="no beginning") as caught:
        list(StreamDataLoader(dataset, 1, worker_init_fn=fail_to_begin))
    assert not isinstance(caught.value, WorkerError)


def test_what_cannot_be_sent():
    with pytest.raises(StreamReadError, match="^unpicklable_chunk: a chunk of the streams .0. cannot be sent"):
        list(loader_of([[iter(())], ["x"]], 1, 1, list, streamer=lambda stream: ([lambda: 0] for _ in stream)))


class Sharing:
    """A streamer that holds what passes to a new process only."""

    def __init__(self, context):
        self.value = context.Value("i", 5)

    def __call__(self, stream):
        yield torch.tensor([self.value.value])


def test_what_passes_to_a_new_process_only():
    context = multiprocessing.get_context("spawn")
    dataset = StreamDataset([0], Sharing(context), 1)
    (batch,) = StreamDataLoader(dataset, 1, multiprocessing_context=context)
    assert int(batch.data) == 5


def test_more_arguments():
    with pytest.raises(StreamInputError, match="^invalid_prefetch_factor: 0"):
        StreamDataLoader(StreamDataset([], iter, 1), prefetch_factor=0)
    with pytest.raises(StreamInputError, match="^invalid_files: one path"):
        AudioStreamDataset("one.wav", 10, 1)
    with pytest.raises(StreamReadError, match="^stream_failed: stream 0 .*its length cannot be read"):
        AudioStreamDataset(["missing.wav"], 10, 1, balance="length")
    with pytest.warns(RuntimeWarning, match="is skipped"):
        assert list(StreamDataset(["x"], bad, 1, on_error="skip")) == []
