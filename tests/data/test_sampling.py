"""Batches of like length: least padding by brute force, every rank alike, and where an epoch goes on."""

import itertools
import random

import pytest
import torch
from torch.utils.data import DataLoader

from torchstreamer import LengthBatchSampler, StreamInputError


def drawn(seed, most=9):
    rng = random.Random(seed)
    return [rng.choice([0, 1, rng.randrange(1, 20)]) for _ in range(rng.randrange(1, most))]


def area(batches, lengths):
    return sum(len(batch) * max(lengths[index] for index in batch) for batch in batches)


def partitions(items):
    """Every way to deal items into batches."""
    if not items:
        yield []
        return
    first, rest = items[0], items[1:]
    for count in range(len(rest) + 1):
        for others in itertools.combinations(rest, count):
            for more in partitions([item for item in rest if item not in others]):
                yield [[first, *others], *more]


@pytest.mark.parametrize("seed", range(12))
def test_there_is_least_padding(seed):
    lengths = drawn(seed, most=8)
    every = list(partitions(list(range(len(lengths)))))
    for size in (1, 2, 3):
        sampler = LengthBatchSampler(lengths, size, jitter=0)
        batches = list(sampler)
        fewest = -(-len(lengths) // size)
        # All of one size, but one.
        sizes = sorted([size] * (len(lengths) // size) + [len(lengths) % size] * (len(lengths) % size > 0))
        rivals = [each for each in every if sorted(map(len, each)) == sizes]
        assert len(batches) == fewest and area(batches, lengths) == min(area(each, lengths) for each in rivals)
    budget = max(lengths) + seed
    batches = list(LengthBatchSampler(lengths, max_samples=max(budget, 1), jitter=0))
    fits = [each for each in every if all(area([batch], lengths) <= budget for batch in each)]
    assert len(batches) == min(map(len, fits))
    assert all(area([batch], lengths) <= budget for batch in batches)


@pytest.mark.parametrize("seed", range(40))
def test_ranks_share_every_sample_equally(seed):
    rng = random.Random(seed)
    lengths = drawn(seed, most=60)
    world = rng.randrange(1, 5)
    size = rng.choice([None, 1, 3, 8])
    budget = None if size and rng.random() < 0.5 else max(1, *lengths) * rng.randrange(1, 4)
    drop = rng.random() < 0.4
    how = {"shuffle": rng.random() < 0.7, "seed": seed, "jitter": rng.choice([0, 0.3]), "drop_last": drop}
    ranks = [LengthBatchSampler(lengths, size, budget, rank=r, world_size=world, **how) for r in range(world)]
    for epoch in range(2):
        assert {(sampler.epoch, len(sampler), sampler.padding) for sampler in ranks} == {
            (epoch, len(ranks[0]), ranks[0].padding)
        }
        padding = ranks[0].padding
        batches = [list(sampler) for sampler in ranks]
        assert len({len(each) for each in batches}) == 1
        every = [batch for each in batches for batch in each]
        held = [index for batch in every for index in batch]
        if drop:
            assert len(held) == len(set(held))
            assert budget or len(lengths) - len(held) < size * world
        else:
            assert set(held) == set(range(len(lengths)))
            assert len(held) == len(lengths) or (set(map(len, every)) == {1} and len(held) < len(lengths) + world)
        assert all(0 < len(batch) <= (size or len(lengths)) for batch in every)
        assert all(area([batch], lengths) <= (budget or 1e9) for batch in every)
        if area(every, lengths):
            assert padding == pytest.approx(1 - sum(lengths[index] for index in held) / area(every, lengths))


def test_epochs_differ_and_come_again():
    lengths = list(range(1, 193))
    sampler = LengthBatchSampler(lengths, 8, seed=3)
    first, second = list(sampler), list(sampler)
    assert first != second and sorted(map(tuple, map(sorted, first))) != sorted(map(tuple, map(sorted, second)))
    sampler.set_epoch(0)
    assert list(sampler) == first
    assert LengthBatchSampler(lengths, 8, jitter=0).padding < sampler.padding < 0.15
    assert list(LengthBatchSampler(lengths, 8, shuffle=False))[0] == list(range(191, 183, -1))


def test_an_epoch_goes_on_where_it_stood():
    lengths = drawn(5, most=200)
    sampler = LengthBatchSampler(lengths, 4, seed=1)
    whole = list(sampler)
    sampler.set_epoch(0)
    given = iter(sampler)
    ahead = [next(given) for _ in range(3)]
    for state, at in ((sampler.state_dict(), 3), (sampler.state_dict(batches=2), 2)):
        resumed = LengthBatchSampler(lengths, 4, seed=1)
        resumed.load_state_dict(state)
        resumed.set_epoch(0)  # as trainers do
        assert resumed.state_dict() == {**state, "batches": at}
        assert list(resumed) == whole[at:]
        assert list(resumed) != whole and resumed.epoch == 2
    assert ahead == whole[:3]
    assert list(sampler) == whole  # a loop that was left begins anew


def test_a_loader_takes_it():
    sampler = LengthBatchSampler([3, 1, 2, 1], 2, jitter=0)
    own = torch.Generator()  # torch draws a seed of it
    loader = DataLoader("abcd", batch_sampler=sampler, collate_fn="".join, generator=own)
    assert len(loader) == 2
    assert sorted("".join(sorted(text)) for text in loader) == ["ac", "bd"]
    assert repr(sampler) == "LengthBatchSampler(4 samples, batch_size=2, shuffle=True, epoch=1)"
    assert list(LengthBatchSampler([], 2)) == []


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (([1],), "invalid_batch_size"),
        (([1], 0), "invalid_batch_size"),
        (([1], None, 2.5), "invalid_max_samples"),
        (([1, 7], None, 6), "over_budget"),
        (([-1], 1), "invalid_lengths"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, code):
    with pytest.raises(StreamInputError, match=f"^{code}: "):
        LengthBatchSampler(*arguments)


def test_further_options_are_refused():
    for options, code in [({"jitter": 1.0}, "jitter"), ({"rank": 0}, "rank"), ({"rank": 2, "world_size": 2}, "rank")]:
        with pytest.raises(StreamInputError, match=f"^invalid_{code}: "):
            LengthBatchSampler([1], 1, **options)
    state = LengthBatchSampler([1, 2], 1).state_dict()
    with pytest.raises(StreamInputError, match="^wrong_state: .*lengths, batch_size"):
        LengthBatchSampler([1, 3], 2).load_state_dict(state)
