"""Who reads what: by length, over several ranks, through torch.distributed."""

import random

import pytest
import torch
import torch.distributed
from following import open_stream
from torch.multiprocessing.spawn import spawn

from torchstreamer import StreamDataLoader, StreamDataset, StreamInputError

pytestmark = pytest.mark.timeout(240)


def counts(seed, most=30):
    rng = random.Random(seed)
    return [rng.randrange(9) for _ in range(rng.randrange(most))]


def dataset_of(numbers, rows, mode="zeros", **options):
    return StreamDataset(
        [(index, [1] * count) for index, count in enumerate(numbers)], open_stream, rows, mode, **options
    )


@pytest.mark.parametrize("seed", range(30))
def test_plans_hold_every_stream_once_on_every_rank(seed):
    numbers = counts(seed)
    rng = random.Random(seed)
    rows, world = rng.randrange(1, 5), rng.randrange(1, 4)
    for options in ({}, {"shuffle": True}, {"balance": "length"}, {"balance": "length", "shuffle": True}):
        plans = [
            dataset_of(numbers, rows, lengths=numbers, seed=seed, rank=rank, world_size=world, **options).plan(seed)
            for rank in range(world)
        ]
        held = [index for plan in plans for row in plan.rows for index in row]
        assert sorted(held) == list(range(len(numbers)))
        assert len({plan.steps for plan in plans}) == 1
        assert all(plan.order == plans[0].order for plan in plans)
        loads = [[sum(numbers[index] for index in row) for row in plan.rows] for plan in plans]
        assert plans[0].steps == max(max(load) for load in loads)
        for plan, load in zip(plans, loads, strict=True):
            empty = plan.steps * rows - sum(load)
            assert plan.padding == pytest.approx(empty / (plan.steps * rows) if plan.steps else 0)
            # In a row, streams come in the order of the epoch.
            for row in plan.rows:
                assert list(row) == sorted(row, key=plan.order.index)


def test_packing_by_length_saves_padding():
    rng = random.Random(1)
    numbers = [rng.randrange(1, 100) for _ in range(200)]
    dealt = dataset_of(numbers, 16, lengths=numbers).plan()
    packed = dataset_of(numbers, 16, lengths=numbers, balance="length").plan()
    assert packed.padding < 0.01 < 0.1 < dealt.padding
    assert packed.steps <= 4 / 3 * max(max(numbers), sum(numbers) / 16) + 1


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("balance", [None, "length"])
def test_len_and_padding_are_what_comes(workers, balance):
    numbers = counts(5)
    loader = StreamDataLoader(dataset_of(numbers, 4, lengths=numbers, balance=balance), workers)
    plan, length = loader.dataset.plan(), len(loader)
    batches = list(loader)
    assert len(batches) == length == plan.steps
    missing = sum(int((~batch.valid).sum()) for batch in batches)
    assert missing / (4 * length) == pytest.approx(plan.padding)


@pytest.mark.parametrize("mode", ["zeros", "data"])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("numbers", [[3, 1, 4, 1, 5, 9, 2, 6, 5], [2], [0, 0, 3], [1, 0, 0, 0, 0, 7]])
def test_ranks_give_the_same_number_of_batches(mode, workers, numbers):
    world, read = 3, []
    steps = set()
    for rank in range(world):
        dataset = dataset_of(numbers, 2, mode, padding_value=-3, lengths=numbers, rank=rank, world_size=world)
        batches = list(StreamDataLoader(dataset, workers))
        steps.add(len(batches))
        for batch in batches:
            assert batch.data.shape[:2] == (2, 1)
            for row in range(2):
                pair = int(batch.ids[row]), int(batch.chunk_index[row])
                if batch.valid[row]:
                    read.append(pair)
                elif mode == "zeros":
                    assert pair == (-1, -1)
                    assert (batch.data[row] == -3).all()
                else:
                    assert numbers[pair[0]] > pair[1]
    assert len(steps) == 1
    assert sorted(read) == [(index, chunk) for index, count in enumerate(numbers) for chunk in range(count)]


@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_with_a_collate_fn(workers):
    lengths = []
    for rank in range(2):
        dataset = dataset_of([3, 1], 2, lengths=[3, 1], rank=rank, world_size=2)
        batches = list(StreamDataLoader(dataset, workers, torch.stack))
        assert all(batch.shape == (2, 1, 1) for batch in batches)
        lengths.append(len(batches))
    assert lengths == [3, 3]


def test_ranks_resume_and_count_their_padding():
    def loader(rank):
        return StreamDataLoader(dataset_of([5, 1], 1, lengths=[5, 1], rank=rank, world_size=2))

    for rank in range(2):
        batches = iter(loader(rank))
        for count in range(1, 6):
            next(batches)
            other = loader(rank)
            first = loader(rank)
            taken = iter(first)
            for _ in range(count):
                next(taken)
            other.load_state_dict(first.state_dict())
            assert len(list(other)) == 5 - count


def test_ranks_need_lengths_or_each_other():
    with pytest.raises(StreamInputError, match="^unknown_lengths: 2 ranks must give the same number"):
        list(StreamDataLoader(dataset_of([1, 2], 1, rank=0, world_size=2)))
    wrong = dataset_of([3, 3], 1, lengths=[1, 1], rank=0, world_size=2)
    with pytest.raises(StreamInputError, match="^wrong_lengths: a stream goes on after 1 batches"):
        list(StreamDataLoader(wrong))


def read_on_a_rank(rank, world, address, mode, found):
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=world)
    numbers = [4, 1, 0, 2, 3]
    loader = StreamDataLoader(dataset_of(numbers, 1, mode, shuffle=True))
    for _ in range(2):  # by itself the loader knows its rank
        batches = list(loader)
        found.put((rank, [(int(batch.ids), int(batch.chunk_index)) for batch in batches if batch.valid], len(batches)))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("mode", ["zeros", "data"])
def test_ranks_agree_through_torch_distributed(tmp_path, mode):
    # Without lengths, nobody knows beforehand who ends first.
    queue = torch.multiprocessing.get_context("spawn").SimpleQueue()
    spawn(read_on_a_rank, args=(2, f"file://{tmp_path}/meeting", mode, queue), nprocs=2)
    answers = [queue.get() for _ in range(4)]
    for epoch in range(2):
        mine = [[answer for answer in answers if answer[0] == rank][epoch] for rank in range(2)]
        assert mine[0][2] == mine[1][2]
        wanted = [(index, chunk) for index, count in enumerate([4, 1, 0, 2, 3]) for chunk in range(count)]
        assert sorted(mine[0][1] + mine[1][1]) == wanted
