"""The ways of cutting a signal cut all of it, are many, and depend on the seed alone."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import torchstreamer as pts
from torchstreamer.testing import (
    Chunking,
    all_chunkings,
    chunkings,
    even_chunks,
    prime_chunks,
    random_chunks,
    split_signal,
    total_length,
    with_pauses,
)
from torchstreamer.testing.chunkings import shrink_chunking
from torchstreamer.testing.strategies import CHANNELS, layer_nets, networks
from torchstreamer.testing.strategies import chunkings as drawn_chunkings


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 64, 1000])
@pytest.mark.parametrize("thorough", [False, True])
def test_sets_cut_the_whole_signal_in_different_ways(n: int, thorough: bool) -> None:
    found = chunkings(n, seed=5, thorough=thorough)
    assert len(set(found)) == len(found) >= 3
    assert all(total_length(chunking) == n for chunking in found)
    assert [len(chunking) for chunking in found] == sorted(len(chunking) for chunking in found)
    if n > 0:
        assert (n,) in found and (n, None) in found and any(0 in chunking for chunking in found)
    if 3 < n < 64:
        assert even_chunks(n, 1) in found and prime_chunks(n) in found
        assert with_pauses(even_chunks(n, 1)) in found


def test_random_chunkings_depend_on_the_seed_alone() -> None:
    random.seed(1)
    torch.manual_seed(1)
    before = random.getstate(), torch.get_rng_state()
    one = random_chunks(200, 3)
    assert random.getstate() == before[0] and torch.equal(torch.get_rng_state(), before[1])
    random.seed(2)
    assert random_chunks(200, 3) == one != random_chunks(200, 4)
    assert max(piece or 0 for piece in random_chunks(500, 1, largest=9)) <= 9
    kinds = {piece for seed in range(20) for piece in random_chunks(50, seed)}
    assert {0, None, 1} <= kinds and max(kind or 0 for kind in kinds) > 25


def test_all_chunkings() -> None:
    assert list(all_chunkings(3)) == [(1, 1, 1), (1, 2), (2, 1), (3,)]
    assert len(set(all_chunkings(8))) == 2**7
    assert list(all_chunkings(0)) == [(0,)]


def test_split_signal() -> None:
    x = torch.arange(12.0).view(1, 2, 6)
    calls = list(split_signal(x, (2, None, 0, 4)))
    assert [None if chunk is None else chunk.shape[-1] for chunk, _ in calls] == [2, None, 0, 4]
    assert [final for _, final in calls] == [False, False, False, True]
    assert torch.equal(torch.cat([chunk for chunk, _ in calls if chunk is not None], -1), x)
    with pytest.raises(ValueError, match=r"invalid_chunking: \(2, 3\) cuts 5 samples; 6 came"):
        list(split_signal(x, (2, 3)))


@pytest.mark.parametrize(
    ("fails", "smallest"),
    [
        (lambda c: total_length(c) >= 5, (5,)),
        (lambda c: len(c) >= 3, (0, 0, 0)),
        (lambda c: any(piece == 7 for piece in c[:-1]), (7, 0)),
        (lambda c: None in c[:-1], (None, 0)),
        (lambda c: any(a == 1 and (b or 0) > 3 for a, b in zip(c, c[1:], strict=False)), (1, 4)),
    ],
)
def test_failures_shrink(fails: object, smallest: Chunking) -> None:
    start = (3, 1, 9, None, 7, 0, 1, 20, None, 2)
    assert callable(fails) and fails(start)
    found = shrink_chunking(start, fails)
    assert fails(found)
    assert len(found) == len(smallest) and total_length(found) == total_length(smallest)


@pytest.mark.parametrize("multiple", [2, 3, 4])
def test_failures_shrink_to_totals_that_are_multiples(multiple: int) -> None:
    start = (3, 1, 9, None, 7, 0, 1, 20, None, 7)
    assert total_length(start) % multiple == 0
    tried = []

    def fails(chunking: Chunking) -> bool:
        tried.append(total_length(chunking))
        return any(a == 1 and (b or 0) > 4 for a, b in zip(chunking, chunking[1:], strict=False))

    found = shrink_chunking(start, fails, multiple=multiple)
    assert fails(found) and all(n % multiple == 0 for n in tried)
    assert len(found) <= 3 and total_length(found) <= 8


def test_shrinking_keeps_what_nothing_smaller_shows() -> None:
    chunking = (3, 4, 5)
    assert shrink_chunking(chunking, lambda smaller: smaller == chunking) == chunking


@given(st.data(), st.integers(0, 60))
def test_drawn_chunkings_cut_the_whole_signal(data: st.DataObject, n: int) -> None:
    assert total_length(data.draw(drawn_chunkings(n))) == n


@given(st.one_of(layer_nets(), networks(max_depth=3)))
def test_drawn_networks_are_right_for_streams(net: nn.Module) -> None:
    assert not any(module.training for module in net.modules())
    assert all(weight.dtype == torch.float64 for weight in net.parameters())
    stream = pts.create_stream(net)
    n = 1
    while stream.output_length(n) == 0:
        n *= 2
    y = net(torch.ones(1, CHANNELS, n, dtype=torch.float64))
    assert y.shape[1] >= 2


def test_drawing_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()

    @given(networks(max_depth=2))
    def draw(net: nn.Module) -> None:
        assert torch.equal(torch.get_rng_state(), before)

    draw()
