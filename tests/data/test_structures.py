"""Chunks of every structure: tensors, arrays, tuples, dicts, text; padded, copied, carried along."""

import itertools
import random
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy
import pytest
import torch

from torchstreamer import StreamDataLoader, StreamDataset, StreamInputError, StreamReadError
from torchstreamer.data import StreamBatch, stream_info

pytestmark = pytest.mark.timeout(120)

WORKERS = pytest.mark.parametrize("workers", [0, 2])


def batches_of(streams, workers=0, rows=None, mode="zeros", fill=None, collate_fn=None, **options):
    dataset = StreamDataset(streams, iter, rows or len(streams), mode, fill, **options)
    return list(StreamDataLoader(dataset, workers, collate_fn))


class Pair(NamedTuple):
    sound: Any
    label: Any


@WORKERS
def test_dicts_and_tuples(workers):
    streams = [
        [{"sound": torch.ones(2, 3), "text": ("a", numpy.arange(2)), "label": 5, "weight": 0.5}],
        [{"sound": torch.ones(2, 1), "text": ("bc", numpy.arange(4)), "label": 6, "weight": 1.5}],
    ]
    (batch,) = batches_of(streams, workers, fill=9)
    assert batch.data["sound"].tolist() == [[[1, 1, 1]] * 2, [[1, 9, 9]] * 2]
    assert batch.data["text"][0] == ["a", "bc"]
    assert batch.data["text"][1].tolist() == [[0, 1, 9, 9], [0, 1, 2, 3]]
    assert batch.data["label"].tolist() == [5, 6]
    assert batch.data["weight"].tolist() == [0.5, 1.5]
    assert batch.lengths["sound"].tolist() == [3, 1]
    assert batch.lengths["text"][0] is None
    assert batch.lengths["text"][1].tolist() == [2, 4]
    assert batch.lengths["label"] is None
    assert isinstance(batch.data["text"], tuple)


@WORKERS
def test_ended_rows_of_a_structure(workers):
    streams = [[Pair(torch.ones(1, 2), "x"), Pair(torch.ones(1, 2), "y")], [Pair(torch.ones(1, 3), "z")]]
    first, second = batches_of(streams, workers, fill=-1)
    assert isinstance(first.data, Pair)
    assert first.data.sound.shape == (2, 1, 3)
    assert second.data.sound.tolist() == [[[1, 1]], [[-1, -1]]]
    assert second.data.label == ["y", None]
    assert second.lengths.sound.tolist() == [2, 0]
    assert second.valid.tolist() == [True, False]


@WORKERS
@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64, torch.uint8, torch.int32, torch.bool, torch.complex64]
)
def test_dtypes_stay(workers, dtype):
    streams = [[torch.tensor([1, 0, 1]).to(dtype)], [torch.tensor([1]).to(dtype)]]
    (batch,) = batches_of(streams, workers)
    assert batch.data.dtype == dtype
    assert torch.equal(batch.data, torch.tensor([[1, 0, 1], [1, 0, 0]]).to(dtype))


@WORKERS
def test_arrays(workers):
    read_only = numpy.arange(3.0)
    read_only.setflags(write=False)
    streams = [[read_only], [numpy.arange(6.0)[::-2]], [numpy.frombuffer(numpy.arange(2.0).tobytes())]]
    (batch,) = batches_of(streams, workers)
    assert batch.data.dtype == torch.float64
    assert batch.data.tolist() == [[0, 1, 2], [5, 3, 1], [0, 1, 0]]
    (batch,) = batches_of([[numpy.float32(2)], [numpy.float32(3)]], workers)
    assert batch.data.tolist() == [2, 3]
    assert batch.lengths is None
    (batch,) = batches_of([[torch.ones(2)], [numpy.ones(1, dtype=numpy.float32)]], workers)
    assert batch.data.tolist() == [[1, 1], [1, 0]]


@WORKERS
def test_time_can_be_any_axis(workers):
    frames = [[torch.ones(3, 2, 2)], [torch.ones(1, 2, 2)]]
    (batch,) = batches_of(frames, workers, time_dim=0)
    assert batch.data.shape == (2, 3, 2, 2)
    assert batch.lengths.tolist() == [3, 1]
    assert batch.data.sum((2, 3)).tolist() == [[4, 4, 4], [4, 0, 0]]
    both = [
        [{"video": torch.ones(3, 2), "sound": torch.ones(1, 7)}],
        [{"video": torch.ones(2, 2), "sound": torch.ones(1, 4)}],
    ]
    (batch,) = batches_of(both, workers, time_dim={"video": 0, "sound": -1})
    assert batch.data["video"].shape == (2, 3, 2)
    assert batch.data["sound"].shape == (2, 1, 7)
    assert (batch.lengths["video"].tolist(), batch.lengths["sound"].tolist()) == ([3, 2], [7, 4])
    (batch,) = batches_of([[torch.ones(2)], [torch.ones(2)]], workers, time_dim=None)
    assert batch.lengths is None


@WORKERS
def test_a_whole_chunk_as_padding_value(workers):
    streams = [[(torch.ones(1, 2), 3), (torch.ones(1, 2), 4)], [(torch.ones(1, 2), 5)], []]
    padding = (torch.full((1, 4), 7.0), -1)
    first, second = batches_of(streams, workers, fill=padding)
    assert first.data[0].tolist() == [[[1, 1, 0, 0]], [[1, 1, 0, 0]], [[7, 7, 7, 7]]]
    assert second.data[0].tolist() == [[[1, 1, 0, 0]], [[7, 7, 7, 7]], [[7, 7, 7, 7]]]
    assert second.data[1].tolist() == [4, -1, -1]
    assert second.lengths[0].tolist() == [2, 0, 0]
    assert second.valid.tolist() == [True, False, False]


@WORKERS
@pytest.mark.parametrize(
    ("fill", "wanted"), [(None, [0, 0]), (9, [9, 9]), (torch.tensor([4, 2]), [4, 2])], ids=["none", "number", "chunk"]
)
def test_collate_fn_gets_the_chunks_of_all_rows(workers, fill, wanted):
    streams = [[torch.tensor([1, 1]), torch.tensor([2, 2])], [torch.tensor([3, 3])]]
    got = batches_of(streams, workers, fill=fill, collate_fn=torch.stack)
    assert [batch.tolist() for batch in got] == [[[1, 1], [3, 3]], [[2, 2], wanted]]


def reuse(stream):
    buffer = torch.empty(3)
    for value in stream:
        yield buffer.fill_(value)


@WORKERS
@pytest.mark.parametrize("collate_fn", [None, torch.stack])
def test_chunks_may_share_a_buffer(workers, collate_fn):
    dataset = StreamDataset([range(20), range(100, 120)], reuse, 2)
    batches = list(StreamDataLoader(dataset, workers, collate_fn))
    data = [batch if collate_fn else batch.data for batch in batches]
    assert [chunk[:, 0].tolist() for chunk in data] == [[value, 100 + value] for value in range(20)]


@WORKERS
def test_any_object_reaches_collate_fn(workers):
    streams = [[{"a": numpy.arange(2), "b": OrderedDict(c=[torch.ones(1), None, "text"])}], [b"bytes"]]
    ((first, second),) = batches_of(streams, workers, collate_fn=list)
    assert first["a"].tolist() == [0, 1]
    assert isinstance(first["a"], numpy.ndarray)
    assert first["b"] == {"c": [torch.ones(1), None, "text"]}
    assert second == b"bytes"


@WORKERS
@pytest.mark.parametrize(
    ("one", "other", "text"),
    [
        (torch.ones(2, 3), torch.ones(3, 3), r"stream 1 gave \[3, 3\] of torch.float32 where stream 0 gave \[2, 3\]"),
        (torch.ones(3), torch.ones(3, dtype=torch.int64), "torch.int64 where stream 0 gave .* torch.float32"),
        (torch.ones(3), torch.ones(1, 3), r"gave \[1, 3\]"),
        (torch.ones(3), "text", r"gave str where stream 0 gave \[3\] of torch.float32"),
        ({"a": 1}, {"b": 1}, r"gave keys \['b'\] where stream 0 gave keys \['a'\]"),
        ((1, 2), (1,), "gave 1 entries where stream 0 gave 2"),
        (1, "text", r"gave str where stream 0 gave (int|\[\] of torch.int64)"),
    ],
)
def test_chunks_that_do_not_fit_together(one, other, text, workers):
    with pytest.raises(StreamReadError, match=f"^unequal_chunks: .*{text}.*collate_fn") as caught:
        batches_of([[one], [other]], workers)
    assert caught.value.index == 1


def test_what_torch_cannot_hold():
    with pytest.raises(StreamReadError, match="^invalid_chunk: stream 0 gave .* of object"):
        batches_of([[numpy.array([None, 1])]])
    with pytest.raises(StreamReadError, match="^invalid_time_dim: "):
        batches_of([[torch.ones(2)]], time_dim=(0, 1))


# --------------------------------------------------------------------------- StreamBatch


def test_a_batch_moves_and_counts():
    (batch,) = batches_of([[{"a": torch.ones(2), "b": "text"}], [{"a": torch.ones(1), "b": "more"}]])
    assert len(batch) == 2
    moved = batch.to("meta")
    assert isinstance(moved, StreamBatch)
    assert moved.data["a"].device.type == moved.lengths["a"].device.type == moved.valid.device.type == "meta"
    assert moved.data["b"] == ["text", "more"]
    assert batch.data["a"].device.type == "cpu"


# --------------------------------------------------------------------------- what a stream knows of itself


def cut(stream):
    info = stream_info()
    rng = random.Random(info.seed)
    for value in stream[rng.randrange(3) :]:
        assert stream_info() == info
        yield torch.tensor([value, info.index, info.epoch])


def test_streams_choose_alike_whoever_reads():
    streams = [list(range(10)), list(range(20, 31)), list(range(40, 47))]
    epochs = {}
    for workers, threads, mode in itertools.product((0, 1, 2), (0, 2), ("zeros",)):
        loader = StreamDataLoader(StreamDataset(streams, cut, 2, mode, threads=threads, seed=4), workers)
        epochs[workers, threads] = [[batch.data.tolist() for batch in loader] for _ in range(3)]
    assert stream_info() is None
    first = epochs[0, 0]
    assert all(found == first for found in epochs.values())
    starts = [tuple(epoch[0][row][0] for row in range(2)) for epoch in first]
    assert len(set(starts)) > 1  # every epoch chooses anew
    assert [epoch[0][0][2] for epoch in first] == [0, 1, 2]


# --------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"batch_size": 0}, "invalid_batch_size: batch_size is 0; expected a whole number"),
        ({"padding_mode": "none"}, "invalid_padding_mode: .*'zeros' or 'data'"),
        ({"streamer": 3}, "invalid_streamer: "),
        ({"assignment": "late"}, "invalid_assignment: "),
        ({"balance": "size"}, "invalid_balance: "),
        ({"balance": "length"}, "invalid_lengths: .*count the chunks"),
        ({"lengths": [1]}, "invalid_lengths: .*2 of at least 0"),
        ({"lengths": [1, -1]}, "invalid_lengths: "),
        ({"on_error": "ignore"}, "invalid_on_error: "),
        ({"threads": -1}, "invalid_threads: "),
        ({"rank": 0}, "invalid_rank: .*both or neither"),
        ({"rank": 2, "world_size": 2}, "invalid_rank: rank is 2; expected one of 0 to 1"),
    ],
)
def test_wrong_arguments(arguments, text):
    given = {"streams": ["a", "b"], "streamer": iter, "batch_size": 1, **arguments}
    with pytest.raises(StreamInputError, match=f"^{text}"):
        StreamDataset(**given)


def test_wrong_arguments_of_a_loader():
    with pytest.raises(StreamInputError, match="^invalid_dataset: list; expected a StreamDataset"):
        StreamDataLoader([1, 2])
    with pytest.raises(StreamInputError, match="^invalid_num_workers: -1"):
        StreamDataLoader(StreamDataset([], iter, 1), -1)
    with pytest.raises(TypeError, match="^unknown_length: .*; give it lengths=$"):
        len(StreamDataLoader(StreamDataset([], iter, 1)))
