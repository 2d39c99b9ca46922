"""RingBuffer and Counter against plain lists."""

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import torchstreamer as pts
from torchstreamer import Counter, RingBuffer

STEPS = st.lists(st.tuples(st.integers(0, 90), st.integers(0, 90)), min_size=1, max_size=25)


def numbered(first: int, n: int, batch: int = 2, channels: int = 3) -> torch.Tensor:
    """Samples that all differ."""
    t = torch.arange(first, first + n, dtype=torch.float64)
    return t + 1000 * torch.arange(batch * channels, dtype=torch.float64).view(batch, channels, 1)


@given(steps=STEPS, owed=st.integers(0, 40), grad=st.booleans(), unbatched=st.booleans())
def test_holds_what_a_list_holds(steps, owed, grad, unbatched):
    ring, expected, position, skip = RingBuffer(owed), numbered(0, 0), 0, owed
    with torch.set_grad_enabled(grad):
        for new, drop in steps:
            x = numbered(position, new)
            position += new
            expected = torch.cat([expected, x], -1)
            paid = min(skip, expected.shape[-1])
            expected, skip = expected[..., paid:], skip - paid
            window = ring.append(x[0] if unbatched else x)
            assert torch.equal(window, expected[0] if unbatched else expected)
            assert torch.equal(ring.window(), window)
            skip += max(drop - expected.shape[-1], 0)
            expected = expected[..., drop:]
            ring.drop(drop)
            assert ring.length() == expected.shape[-1]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_long_histories_are_written_in_place(mode):
    ring = RingBuffer()
    with mode():
        ring.append(numbered(0, 200))
        places = set()
        for i in range(600):
            ring.drop(1)
            window = ring.append(numbered(200 + i, 1))
            assert torch.equal(window, numbered(i + 1, 200))
            places.add(ring.data.untyped_storage().data_ptr())
    assert len(places) < 10  # 600 chunks, new storage only when the old one is full


@pytest.mark.parametrize("held", [1, 2, 3, 7])
def test_short_histories_are_written_in_place_too(held):
    ring = RingBuffer()
    with torch.no_grad():
        ring.append(numbered(0, held))
        places = []
        for i in range(300):
            window = ring.append(numbered(held + i, 1))
            assert torch.equal(window, numbered(i, held + 1))
            kept = window.clone()
            ring.drop(1)
            places.append(ring.data.untyped_storage().data_ptr())
            assert ring.data.untyped_storage().nbytes() <= 4 * ring._nbytes()
            assert torch.equal(window, kept)
    moves = sum(one != two for one, two in zip(places, places[1:], strict=False))
    assert moves <= 100


def test_samples_of_another_dtype_are_not_rounded():
    ring = RingBuffer()
    with torch.no_grad():
        for i in range(4):
            ring.push(numbered(i, 1).bfloat16())
        x = numbered(0, 1) + 1e-3
        rows = ring.extend(x, True)
    assert torch.equal(rows[:, -1], x[..., 0])


def test_memory_of_inference_mode_is_not_written_outside():
    ring = RingBuffer()
    with torch.inference_mode():
        ring.append(numbered(0, 200))
        ring.append(numbered(200, 1))
    with torch.no_grad():
        window = ring.append(numbered(201, 1))
    assert torch.equal(window, numbered(0, 202))


def test_no_write_in_place_with_gradients_on():
    ring = RingBuffer()
    with torch.no_grad():
        ring.append(numbered(0, 200))
        ring.append(numbered(200, 1))
    before, copied = ring.data, ring.data.clone()
    ring.append(numbered(201, 1))
    assert torch.equal(before[:, :201], copied[:, :201])
    assert ring.data.untyped_storage().data_ptr() != before.untyped_storage().data_ptr()


def test_storage_is_bounded_and_not_the_callers():
    ring = RingBuffer()
    x = numbered(0, 1000)
    ring.append(x)
    ring.drop(997)
    assert ring.data.untyped_storage().nbytes() <= 4 * ring._nbytes()
    x.fill_(0)
    assert torch.equal(ring.window(), numbered(997, 3))


@pytest.mark.parametrize(
    "bad",
    [
        numbered(0, 2, channels=4),
        numbered(0, 2, batch=3),
        numbered(0, 2).float(),
        numbered(0, 2)[0, 0],
        numbered(0, 2)[0],
    ],
)
def test_bad_chunk_is_refused_before_it_is_written(bad):
    ring = RingBuffer()
    ring.append(numbered(0, 2))
    with pytest.raises(pts.StreamInputError, match="^invalid_chunk: "):
        ring.append(bad)
    assert torch.equal(ring.append(numbered(2, 1)), numbered(0, 3))


def test_copies_and_pickles_are_detached():
    ring = RingBuffer()
    x = numbered(0, 3).requires_grad_()
    ring.append(2 * x)
    ring.drop(1)
    for twin in (copy.deepcopy(ring), pickle.loads(pickle.dumps(ring))):
        assert not twin.data.requires_grad
        assert torch.equal(twin.append(numbered(0, 1)), torch.cat([2 * numbered(1, 2), numbered(0, 1)], -1))
    assert ring.data.requires_grad and ring.length() == 2


def test_counter_starts_over():
    counter = Counter(3)
    counter.value -= 2
    counter._clear()
    assert counter.value == 3
