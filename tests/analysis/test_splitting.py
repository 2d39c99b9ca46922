"""Cutting tensors and relative lengths into chunks."""

import math

import pytest
import torch

from torchstreamer.analysis import split_fixed_chunks, split_wav_lens

SHAPES = [(7,), (12, 5), (3, 8, 4), (2, 3, 9, 4)]


@pytest.mark.parametrize(("shape", "dim"), [(s, d) for s in SHAPES for d in range(-len(s), len(s))])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_every_axis(shape, dim, size):
    x = torch.arange(math.prod(shape)).reshape(shape)
    chunks = split_fixed_chunks(x, size, dim)
    assert isinstance(chunks, list)
    assert torch.equal(torch.cat(chunks, dim), x)
    assert len(chunks) == math.ceil(shape[dim] / size)
    assert all(chunk.shape[dim] == size for chunk in chunks[:-1])
    assert 0 < chunks[-1].shape[dim] <= size
    for i, chunk in enumerate(chunks):  # by hand, sample by sample
        for k in range(chunk.shape[dim]):
            assert torch.equal(chunk.select(dim, k), x.select(dim, i * size + k))


def test_the_published_example():
    chunks = split_fixed_chunks(torch.zeros((16, 10000, 80)), 128, dim=1)
    assert len(chunks) == 79
    assert chunks[0].shape == (16, 128, 80)
    assert chunks[-1].shape == (16, 16, 80)


def test_the_last_axis_is_the_default_and_an_empty_one_is_one_chunk():
    assert [chunk.shape for chunk in split_fixed_chunks(torch.zeros(2, 5), 3)] == [(2, 3), (2, 2)]
    assert [chunk.shape for chunk in split_fixed_chunks(torch.zeros(2, 0), 3)] == [(2, 0)]


@pytest.mark.parametrize(("x", "size"), [(torch.zeros(3), 0), (torch.zeros(3), -2), (torch.tensor(1.0), 2)])
def test_what_cannot_be_cut(x, size):
    with pytest.raises(ValueError, match="^invalid_"):
        split_fixed_chunks(x, size)


def test_the_published_example_of_lengths():
    parts = split_wav_lens([8, 8, 4], torch.tensor([1.0, 0.65, 0.85]))
    expected = [[1.0, 1.0, 1.0], [1.0, 0.625, 1.0], [1.0, 0.0, 0.25]]
    torch.testing.assert_close(torch.stack(parts), torch.tensor(expected))


@pytest.mark.parametrize("lens", [[4], [3, 5], [0, 4, 0, 0, 7, 1, 0], [10] * 9 + [3], [0], []])
def test_parts_add_up_to_the_totals(lens):
    wav_lens = torch.cat([torch.tensor([0.0, 1.0, 0.5]), torch.rand(20)]).double()
    parts = split_wav_lens(lens, wav_lens)
    assert len(parts) == len(lens)
    assert all(bool(((0 <= part) & (part <= 1)).all()) for part in parts)
    total = sum((n * part for n, part in zip(lens, parts, strict=True)), torch.zeros_like(wav_lens))
    torch.testing.assert_close(total, wav_lens * sum(lens))


def test_parts_are_those_of_masks():
    lens, total = [6, 0, 5, 9], 20
    frames = torch.tensor([20, 13, 6, 0, 1])
    mask = torch.arange(total) < frames[:, None]
    for part, chunk in zip(split_wav_lens(lens, frames / total), split_fixed(mask, lens), strict=True):
        expected = chunk.double().mean(1) if chunk.shape[1] else torch.zeros(5).double()
        torch.testing.assert_close(part.double(), expected, rtol=0, atol=1e-6)


def split_fixed(x, lens):
    return torch.split(x, lens, 1)


def test_whole_numbers_and_negative_lengths():
    assert torch.equal(split_wav_lens([2, 2], torch.tensor([1, 0]))[1], torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match="^invalid_chunk_lens"):
        split_wav_lens([3, -1], torch.ones(2))


def test_lists_are_refused():
    with pytest.raises(TypeError, match=r"invalid_tensor: x, a list, came; .*torch.as_tensor"):
        split_fixed_chunks([1.0, 2.0], 1)
    with pytest.raises(TypeError, match=r"invalid_tensor: wav_lens, a list, came"):
        split_wav_lens([1, 2], [0.5])
