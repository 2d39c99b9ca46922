"""Chunks of odd kinds, padding and axes that do not fit."""

from dataclasses import dataclass

import numpy
import pytest
import torch
from following import loader_of, numbers

from torchstreamer import (
    StreamDataset,
    StreamInputError,
    StreamReadError,
)

pytestmark = pytest.mark.timeout(120)


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
