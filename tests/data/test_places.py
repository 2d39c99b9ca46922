"""States at odd places, and the padding of ranks that have ended."""

import itertools

import pytest
import torch
from following import loader_of, numbers, same

from torchstreamer import (
    AudioStreamDataset,
    StreamDataLoader,
    StreamInputError,
    StreamReadError,
)

pytestmark = pytest.mark.timeout(120)


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


def test_an_iterator_that_was_never_read_leaves_no_trace():
    loader = loader_of([numbers(5)])
    iter(loader)
    loader.set_epoch(5)
    assert (loader.state_dict()["epoch"], loader.state_dict()["batch"]) == (5, 0)


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
    state = StreamDataLoader(AudioStreamDataset(["a.wav"], 100, 1)).state_dict()
    with pytest.raises(StreamInputError, match="^wrong_state: chunk is 100 in the state; expected 300"):
        StreamDataLoader(AudioStreamDataset(["a.wav"], 300, 1)).load_state_dict(state)
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
