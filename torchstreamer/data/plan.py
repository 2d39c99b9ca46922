"""Which row of a batch reads which streams in an epoch: a function of numbers alone, the same in every process."""

import hashlib
import heapq
import random
from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple

__all__ = ["Plan", "derive_seed", "make_plan", "packed", "split_rows"]


@dataclass(frozen=True)
class Plan:
    """The streams of one epoch, laid out for one rank.

    Attributes:
        rows: for each row of the batch, the streams it reads, one after the other, as positions in the dataset's list
        order: all streams of all ranks in the order of the epoch
        steps: the number of batches, the same on every rank; ``None`` where no lengths are known
        padding: the share of rows times steps, on this rank, that is padding; ``None`` where no lengths are known
    """

    rows: Tuple[Tuple[int, ...], ...]
    order: Tuple[int, ...]
    steps: Optional[int]
    padding: Optional[float]


def derive_seed(*numbers: int) -> int:
    """A seed of 63 bits from whole numbers, the same in every process, on every machine, in every version."""
    digest = hashlib.blake2b("/".join(map(str, numbers)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def split_rows(batch_size: int, parts: int) -> List[range]:
    """The rows of a batch in contiguous parts, sizes equal but for one."""
    bounds = [batch_size * part // parts for part in range(parts + 1)]
    return [range(low, high) for low, high in zip(bounds[:-1], bounds[1:], strict=True)]


def make_plan(
    count: int,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    rank: int,
    world_size: int,
    shuffle: bool,
    lengths: Optional[Sequence[int]],
    balanced: bool,
) -> Plan:
    """Lay ``count`` streams out in the rows of all ranks.

    Args:
        count: number of streams
        batch_size: rows of a batch on one rank
        seed: of the shuffles
        epoch: number of the epoch
        rank: of the process that the plan is for
        world_size: number of processes
        shuffle: whether each epoch has an order of its own; otherwise it is that of the list
        lengths: chunks that each stream has, where known
        balanced: whether streams are packed by length, so that rows end together; otherwise they are dealt in turn
    """
    order = list(range(count))
    if shuffle:
        random.Random(derive_seed(seed, epoch)).shuffle(order)
    bins = packed(order, lengths, batch_size * world_size) if balanced and lengths else None
    if bins is None:
        # Rank r takes every world_size-th stream, row b of it every batch_size-th of those.
        bins = [order[at :: batch_size * world_size] for at in range(batch_size * world_size)]
    rows = bins[rank::world_size]
    steps = padding = None
    if lengths is not None:
        loads = [sum(lengths[index] for index in row) for row in bins]
        steps = max(loads, default=0)
        padding = 1 - sum(loads[rank::world_size]) / (batch_size * steps) if steps else 0.0
    return Plan(tuple(map(tuple, rows)), tuple(order), steps, padding)


def packed(order: List[int], lengths: Sequence[int], count: int) -> List[List[int]]:
    """Streams in so many bins of like length: the fullest has at most 4/3 of the best there is.

    Args:
        order: of the streams, which every bin keeps
        lengths: of the streams
        count: number of bins
    """
    # The longest stream first, each into the emptiest bin.
    place = {index: at for at, index in enumerate(order)}
    bins: List[List[int]] = [[] for _ in range(count)]
    heap = [(0, 0, number) for number in range(count)]
    for index in sorted(order, key=lambda index: (-lengths[index], place[index])):
        load, held, number = heapq.heappop(heap)
        bins[number].append(index)
        heapq.heappush(heap, (load + lengths[index], held + 1, number))
    return [sorted(held, key=place.__getitem__) for held in bins]
