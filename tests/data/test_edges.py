"""Where loaders could go astray: states at odd places, idle processes, odd chunks, streams that must be closed."""

import itertools
import multiprocessing
import os
import random
import signal
import time
from dataclasses import dataclass

import numpy
import pytest
import torch
from following import same

from torchstreamer import (
    AudioStreamDataset,
    StreamDataLoader,
    StreamDataset,
    StreamInputError,
    StreamReadError,
    WorkerError,
)

pytestmark = pytest.mark.timeout(120)


def numbers(count, start=0):
    return [torch.tensor([start + value]) for value in range(count)]


def loader_of(streams, rows=1, workers=0, collate_fn=None, streamer=iter, persistent_workers=False, **options):
    dataset = StreamDataset(streams, streamer, rows, **options)
    return StreamDataLoader(dataset, workers, collate_fn, persistent_workers=persistent_workers)


def resumed_everywhere(make):
    """The epoch of a loader, joined again from every batch of it."""
    whole = list(make())
    for count in range(len(whole) + 1):
        first, second = make(), make()
        before = list(itertools.islice(iter(first), count)) if count else []
        second.load_state_dict(first.state_dict())
        found = before + list(second)
        assert len(found) == len(whole)
        assert all(same(a, b) for a, b in zip(found, whole, strict=True))
    return whole


# --------------------------------------------------------------------------- states at odd places


@pytest.mark.parametrize("workers", [0, 2, 3])
def test_state_where_a_process_has_nothing_to_read(workers):
    assert len(resumed_everywhere(lambda: loader_of([numbers(3)], 3, workers))) == 3


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("rank", [0, 1])
def test_state_of_a_rank_that_pads(workers, rank):
    streams = [[torch.ones(5), torch.ones(3)], [torch.ones(1)] * 5]

    def make():
        return loader_of(streams, 1, workers, lengths=[2, 5], rank=rank, world_size=2)

    whole = resumed_everywhere(make)
    assert len(whole) == 5
    if rank == 0:  # padding has the shape of the first chunk there is, wherever it begins
        assert [tuple(batch.data.shape) for batch in whole] == [(1, 5), (1, 3), (1, 5), (1, 5), (1, 5)]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("assignment", ["planned", "in_time"])
@pytest.mark.parametrize("where", ["open", "read"])
def test_a_stream_that_failed_is_tried_again_on_resume(workers, assignment, where, tmp_path):
    mended = tmp_path / "mended"

    def opened(name):
        if where == "open" and name == "b" and not mended.exists():
            raise OSError("not yet")
        return reading(name)

    def reading(name):
        for chunk in range(3):
            if where == "read" and (name, chunk) == ("b", 1) and not mended.exists():
                raise OSError("not yet")
            yield f"{name}{chunk}"

    def make():
        return loader_of(["a", "b", "c"], 1, workers, "".join, opened, assignment=assignment)

    found, loader = [], make()
    with pytest.raises(StreamReadError):
        for batch in loader:
            found.append(batch)
    mended.touch()
    second = make()
    second.load_state_dict(loader.state_dict())
    assert found + list(second) == [f"{name}{chunk}" for name in "abc" for chunk in range(3)]


def test_states_tell_the_epoch_that_comes():
    loader = loader_of([numbers(1, index) for index in range(6)], shuffle=True)
    loader.set_epoch(4)
    state = loader.state_dict()
    assert state["epoch"] == 4
    other = loader_of([numbers(1, index) for index in range(6)], shuffle=True)
    other.load_state_dict(state)
    assert all(same(a, b) for a, b in zip(other, loader, strict=True))
    assert loader.state_dict()["epoch"] == 5
    loader.set_epoch(2)
    assert loader.state_dict()["epoch"] == 2


def test_the_state_of_a_loader_that_was_resumed_and_not_read():
    loader = loader_of([numbers(5)])
    batches = iter(loader)
    next(batches), next(batches)
    state = loader.state_dict()
    other = loader_of([numbers(5)])
    other.load_state_dict(state)
    iterator = iter(other)
    assert other.state_dict() == state
    assert int(next(iterator).data) == 2
    # Another epoch than that of the state begins at its start.
    other.load_state_dict(state)
    other.set_epoch(9)
    assert other.state_dict()["batch"] == 0
    assert len(list(other)) == 5
    assert other.dataset.epoch == 10


def test_two_iterators_have_states_of_their_own():
    loader = loader_of([numbers(5)])
    first, second = iter(loader), iter(loader)
    next(first), next(first), next(second)
    assert loader.state_dict()["batch"] == 1
    next(first)
    assert loader.state_dict()["batch"] == 3


def test_states_know_what_they_depend_on(tmp_path):
    streams = [numbers(2) for _ in range(4)]
    state = loader_of(streams, 2, balance="length", lengths=[2, 2, 2, 2]).state_dict()
    with pytest.raises(StreamInputError, match="^wrong_state: lengths is"):
        loader_of(streams, 2, balance="length", lengths=[9, 1, 1, 2]).load_state_dict(state)
    state = StreamDataLoader(AudioStreamDataset([], 100, 1)).state_dict()
    with pytest.raises(StreamInputError, match="^wrong_state: chunk is 100 in the state; expected 300"):
        StreamDataLoader(AudioStreamDataset([], 300, 1)).load_state_dict(state)
    loader = loader_of(streams, 2)
    next(iter(loader))
    state = loader.state_dict()
    with pytest.raises(StreamInputError, match="^wrong_state: 1 cursors in the state; expected one for each of 2 rows"):
        loader_of(streams, 2).load_state_dict({**state, "cursors": state["cursors"][:1]})


# --------------------------------------------------------------------------- padding of ended ranks


@pytest.mark.parametrize("collate_fn", [None, list])
def test_padding_batches_hold_padding_alone(collate_fn):
    streams = [[(torch.ones(1), "secret")], [(torch.ones(1), "x")] * 3]
    batches = list(loader_of(streams, 1, 0, collate_fn, lengths=[1, 3], rank=0, world_size=2))
    if collate_fn is None:
        assert [batch.data[0].tolist() for batch in batches] == [[[1]], [[0]], [[0]]]
        assert [batch.data[1] for batch in batches] == [["secret"], [None], [None]]
        assert [batch.lengths[0].tolist() for batch in batches] == [[1], [0], [0]]
    else:
        assert batches[1:] == [[(torch.zeros(1), None)]] * 2
    padded = loader_of([numbers(1), numbers(3)], lengths=[1, 3], rank=0, world_size=2, padding_value=torch.tensor([7]))
    assert [batch.data.tolist() for batch in padded] == [[[0]], [[7]], [[7]]]


def test_padding_opens_one_stream_once():
    opened = []

    def streamer(stream):
        opened.append(stream)
        return iter(numbers(stream))

    batches = list(loader_of([1, 20], 1, 0, None, streamer, lengths=[1, 20], rank=0, world_size=2))
    assert len(batches) == 20
    assert opened == [1, 1]


def test_padding_is_nobodys_memory():
    batches = []
    padding = torch.tensor([7])
    for batch in loader_of([numbers(2), [], []], 3, 0, list, padding_value=padding):
        for chunk in batch:
            chunk += 1
        batches.append([int(chunk) for chunk in batch])
    assert batches == [[1, 8, 8], [2, 8, 8]]
    assert int(padding) == 7


# --------------------------------------------------------------------------- chunks of every kind


@dataclass
class Frame:
    pixels: bytearray


def reuse_frame(_):
    frame = Frame(bytearray(1))
    for value in range(6):
        frame.pixels[0] = value
        yield frame


def first_pixel(chunks):
    return chunks[0].pixels[0]


@pytest.mark.parametrize("workers", [0, 1])
def test_objects_that_are_handed_out_again_are_copied(workers):
    assert [batch.data[0].pixels[0] for batch in loader_of([0], 1, workers, None, reuse_frame)] == list(range(6))
    assert list(loader_of([0], 1, workers, first_pixel, reuse_frame)) == list(range(6))


@pytest.mark.parametrize("workers", [0, 2])
def test_kinds_that_go_together(workers):
    (batch,) = loader_of([[(torch.ones(1), "x", 1)], [(torch.ones(1), None, numpy.int64(2))]], 2, workers)
    assert batch.data[1] == ["x", None]
    assert batch.data[2].tolist() == [1, 2]
    (batch,) = loader_of([[1700000123.4567]], 1, workers)
    assert batch.data.dtype == torch.float64
    assert batch.data.item() == 1700000123.4567
    (chunks,) = loader_of([[numpy.arange(3, dtype=">i2")]], 1, workers, list)
    assert chunks[0].tolist() == [0, 1, 2]
    (chunks,) = loader_of([[torch.Size([2, 3])]], 1, workers, list)
    assert type(chunks[0]) is torch.Size


def test_gradients_do_not_come_along():
    (batch,) = loader_of([[torch.ones(2, requires_grad=True)], [torch.ones(1, requires_grad=True)]], 2)
    assert not batch.data.requires_grad


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("value", [0.5, float("nan"), -100, 3 + 1j])
def test_padding_that_the_dtype_does_not_hold(value, workers):
    streams = [[torch.ones(2, dtype=torch.uint8)], [torch.ones(1, dtype=torch.uint8)]]
    with pytest.raises(StreamInputError, match="^invalid_padding_value: .* cannot stand in a tensor of torch.uint8"):
        list(loader_of(streams, 2, workers, padding_value=value))
    sounds = [[stream[0].float()] for stream in streams]
    if not isinstance(value, complex):
        (batch,) = loader_of(sounds, 2, workers, padding_value=value)
        assert batch.data[1, 1].item() == pytest.approx(value, nan_ok=True)


@pytest.mark.parametrize("value", [2, 2.0, numpy.float32(2), numpy.int64(2), torch.tensor(2.0)])
def test_numbers_of_every_kind_pad(value):
    (batch,) = loader_of([[torch.ones(2)], [torch.ones(1)]], 2, padding_value=value)
    assert batch.data.tolist() == [[1, 1], [1, 2]]


def test_a_padding_chunk_that_does_not_fit():
    with pytest.raises(StreamReadError, match="^unequal_chunks: padding_value gave .* where stream 0 gave"):
        list(loader_of([numbers(2), numbers(1)], 2, padding_value=torch.ones(1)))


@pytest.mark.parametrize("time_dim", [True, 1.5, "time", [0, 0.5]])
def test_axes_that_are_none(time_dim):
    with pytest.raises(StreamInputError, match="^invalid_time_dim: "):
        StreamDataset([], iter, 1, time_dim=time_dim)


@pytest.mark.parametrize(
    ("chunk", "time_dim"),
    [
        ({"a": torch.ones(1), "b": torch.ones(1)}, {"a": 0}),
        ((torch.ones(1), torch.ones(1)), [0]),
        (torch.ones(2, 3), 2),
    ],
)
def test_axes_that_do_not_fit(chunk, time_dim):
    with pytest.raises(StreamReadError, match="^invalid_time_dim: "):
        list(loader_of([[chunk]], time_dim=time_dim))
    assert len(list(loader_of([[torch.ones(2, 3)]], time_dim=numpy.int64(1)))) == 1


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


def test_threads_open_side_by_side():
    def slow(stream):
        time.sleep(0.2)
        return numbers(1)

    begin = time.monotonic()
    assert len(list(loader_of(range(8), 8, streamer=slow, threads=8))) == 1
    assert time.monotonic() - begin < 8 * 0.2  # one after the other would take at least so long


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


def use_a_value(stream):
    yield torch.tensor([stream])


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
