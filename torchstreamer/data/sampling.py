"""`LengthBatchSampler`: batches of samples of like length, for torch's own `DataLoader`."""

import heapq
import random
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import torch.distributed
from torch.utils.data import Sampler

from ..errors import StreamInputError
from .plan import derive_seed

__all__ = ["LengthBatchSampler"]


class _Epoch(NamedTuple):
    steps: List[List[List[int]]]  # of every step the batch of each rank
    padding: float


class LengthBatchSampler(Sampler[List[int]]):
    """Batches of samples of like length, so that little of a batch is padding: ``batch_sampler`` of a `DataLoader`.

    Samples are sorted by length and cut into batches: of ``batch_size`` samples, or of as many as ``max_samples``
    allows. Others call such a sampler a bucket, dynamic or length-grouped one. With ``shuffle`` the batches of every
    epoch come in an order of its own and, by ``jitter``, are made of others.

    Every rank gets the same number of batches, and batches of one step are of like length, so that ranks wait little
    for each other. Where batches cannot be shared equally, some are cut in two; only where none has two samples do some
    come twice.

    Args:
        lengths: of each sample of the dataset, in any unit
        batch_size: samples of a batch at most; ``None``: any number, by ``max_samples``
        max_samples: rows times longest of a batch at most, padding included: what a batch takes of memory, in the unit
            of ``lengths``; ``None``: any
        shuffle: whether each epoch has an order of its own; otherwise the longest batches come first
        seed: of the shuffles
        jitter: with ``shuffle``, by how much a length may count as longer or shorter when samples are sorted, as a
            share of it; of a large dataset about as much of the batches is padding. With 0 there is least, and samples
            of unequal length meet the same ones in every epoch
        drop_last: leave out what does not fill a batch on every rank: with ``shuffle`` others in each epoch
        rank: which of the batches of a step are given; ``None``: that of `torch.distributed` where it is initialised,
            else 0
        world_size: number of ranks; ``None``: as for ``rank``, else 1

    Attributes:
        epoch: the number of the epoch that is given next; it goes on by itself, and `set_epoch` says another

    Raises:
        StreamInputError: an argument does not fit; ``over_budget``: a sample alone is longer than ``max_samples``

    Example:
        >>> from torch.utils.data import DataLoader
        >>> from torchstreamer import LengthBatchSampler
        >>> words = ["a", "stream", "of", "words", "to", "sort", "by", "length"]
        >>> sampler = LengthBatchSampler(list(map(len, words)), max_samples=12, shuffle=False)
        >>> list(DataLoader(words, batch_sampler=sampler, collate_fn=" ".join))
        ['stream length', 'words sort', 'of to by a']
        >>> round(sampler.padding, 3)
        0.067
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: Optional[int] = None,
        max_samples: Optional[int] = None,
        *,
        shuffle: bool = True,
        seed: int = 0,
        jitter: float = 0.05,
        drop_last: bool = False,
        rank: Optional[int] = None,
        world_size: Optional[int] = None,
    ) -> None:
        self.lengths = [int(length) for length in lengths]
        self.batch_size = batch_size
        self.max_samples = max_samples
        self.shuffle = shuffle
        self.seed = seed
        self.jitter = jitter
        self.drop_last = drop_last
        self.epoch = 0
        self._rank = rank
        self._world_size = world_size
        self._at = 0  # batches of the epoch that were given
        self._resume = 0  # the batch with which the next loop begins
        self._made: Optional[Tuple[Tuple[int, int], _Epoch]] = None
        self._check()

    def _check(self) -> None:
        if self.batch_size is None and self.max_samples is None:
            raise _invalid("batch_size", None, "batch_size, max_samples or both", "say how large a batch may be")
        for name in ("batch_size", "max_samples"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise _invalid(name, value, "a whole number of at least 1, or None", "say how large a batch may be")
        if not 0 <= self.jitter < 1:
            raise _invalid(
                "jitter", self.jitter, "a share of the length, from 0 to less than 1", "0.05 is a good start"
            )
        if min(self.lengths, default=0) < 0:
            raise _invalid(
                "lengths", min(self.lengths), "whole numbers of at least 0", "give the length of each sample"
            )
        if (self._rank is None) != (self._world_size is None):
            raise _invalid("rank", self._rank, "rank and world_size, or neither", "give both")
        if self._rank is not None and self._world_size is not None and not 0 <= self._rank < self._world_size:
            raise _invalid("rank", self._rank, f"one of 0 to {self._world_size - 1}", "count ranks from 0")
        longest = max(self.lengths, default=0)
        if self.max_samples is not None and longest > self.max_samples:
            raise StreamInputError(
                f"over_budget: sample {self.lengths.index(longest)} has a length of {longest}; at most max_samples, "
                f"{self.max_samples}, was expected; raise it, or leave such samples out"
            )

    # ------------------------------------------------------------------ an epoch

    def __iter__(self) -> Iterator[List[int]]:
        epoch, start = self.epoch, self._resume
        self._at, self._resume = start, 0
        rank, _ = self.shard()
        for at, step in enumerate(self._plan().steps):
            if at >= start:
                self._at = at + 1
                yield list(step[rank])
        if self.epoch == epoch:
            self.set_epoch(epoch + 1)

    def __len__(self) -> int:
        """The number of batches of the next epoch, the same on every rank."""
        return len(self._plan().steps)

    @property
    def padding(self) -> float:
        """The share of padding in the batches of the next epoch, on all ranks together."""
        return self._plan().padding

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch is given next. One that a state was loaded for goes on where that stood."""
        if epoch != self.epoch:
            self.epoch = epoch
            self._at = self._resume = 0

    def shard(self) -> Tuple[int, int]:
        """The rank and the world size that hold now."""
        if self._rank is not None and self._world_size is not None:
            return self._rank, self._world_size
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return 0, 1

    def _plan(self) -> _Epoch:
        key = self.epoch, self.shard()[1]
        if self._made is None or self._made[0] != key:
            self._made = key, self._plan_of(*key)
        return self._made[1]

    def _plan_of(self, epoch: int, world: int) -> _Epoch:
        rng = random.Random(derive_seed(self.seed, epoch))
        order = list(range(len(self.lengths)))
        if self.shuffle:
            rng.shuffle(order)
        if self.drop_last and self.max_samples is None and self.batch_size is not None:
            order = order[: len(order) - len(order) % (self.batch_size * world)]
        lengths = self.lengths
        if self.shuffle and self.jitter:
            counted = {index: lengths[index] * (1 + self.jitter * rng.uniform(-1, 1)) for index in order}
            order.sort(key=lambda index: -counted[index])
        else:
            order.sort(key=lambda index: -lengths[index])
        batches = self._of_a_size(order) if self.max_samples is None else self._within_budget(order)
        batches = self._shared(batches, world, rng)
        batches.sort(key=lambda batch: -self._longest(batch))
        steps = [batches[at : at + world] for at in range(0, len(batches), world)]
        if self.shuffle:
            for step in steps:
                rng.shuffle(step)
            rng.shuffle(steps)
        area = sum(len(batch) * self._longest(batch) for batch in batches)
        held = sum(lengths[index] for batch in batches for index in batch)
        return _Epoch(steps, 1 - held / area if area else 0.0)

    def _longest(self, batch: Sequence[int]) -> int:
        return max(self.lengths[index] for index in batch)

    def _of_a_size(self, order: List[int]) -> List[List[int]]:
        # All of one size but one, which stands where that makes the least padding.
        size = self.batch_size
        assert size is not None
        rest = len(order) % size
        whole = [order[at : at + size] for at in range(0, len(order) - rest, size)]
        if not rest:
            return whole
        late = [order[at : at + size] for at in range(rest, len(order), size)]
        before, after = 0, size * sum(map(self._longest, late))
        areas = []
        for at in range(len(whole) + 1):
            areas.append(before + rest * self._longest(order[at * size : at * size + rest]) + after)
            if at < len(whole):
                before += size * self._longest(whole[at])
                after -= size * self._longest(late[at])
        at = areas.index(min(areas))
        return [*whole[:at], order[at * size : at * size + rest], *late[at:]]

    def _within_budget(self, order: List[int]) -> List[List[int]]:
        # From the longest on, each batch as full as it gets: there are no fewer batches.
        batches: List[List[int]] = []
        longest = 0
        for index in order:
            length = self.lengths[index]
            reach = max(longest, length)
            held = len(batches[-1]) if batches else 0
            if not held or held == self.batch_size or (held + 1) * reach > (self.max_samples or 0):
                batches.append([])
                reach = length
            batches[-1].append(index)
            longest = reach
        return batches

    def _shared(self, batches: List[List[int]], world: int, rng: random.Random) -> List[List[int]]:
        # As many as can be shared by the ranks.
        odd = len(batches) % world
        if not odd:
            return batches
        if self.drop_last:
            if self.shuffle:
                rng.shuffle(batches)
            return batches[: len(batches) - odd]
        heap = [(-len(batch), at, batch) for at, batch in enumerate(batches)]
        heapq.heapify(heap)
        while len(heap) % world:
            size, at, batch = heapq.heappop(heap)
            half = len(batch) // 2
            if not half:  # no batch has two
                return [batches[at % len(batches)] for at in range(len(batches) + world - odd)]
            heapq.heappush(heap, (half + size, at, batch[half:]))
            heapq.heappush(heap, (-half, at + len(batches), batch[:half]))
        return [batch for _, _, batch in heap]

    # ------------------------------------------------------------------ state

    def state_dict(self, batches: Optional[int] = None) -> Dict[str, Any]:
        """Where the epoch stands: whole numbers alone.

        Args:
            batches: how many batches of the epoch were used. ``None``: all that were given, which is more where a
                `DataLoader` with processes asks for batches ahead
        """
        at = self._at if batches is None else batches
        return {"epoch": self.epoch, "batches": at, "settings": self._settings()}

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """Go on from what `state_dict` gave: the next epoch begins with the batch after it.

        Raises:
            StreamInputError: code ``wrong_state``: it is of other lengths or settings
        """
        mine = self._settings()
        theirs = state.get("settings") if isinstance(state, dict) else None
        if theirs != mine:
            wrong = [name for name in mine if not isinstance(theirs, dict) or theirs.get(name) != mine[name]]
            raise StreamInputError(
                f"wrong_state: the state is of another sampler, by its {', '.join(wrong)}; one of the same lengths and "
                "settings was expected; make the sampler as it was"
            )
        self.epoch = state["epoch"]
        self._at = self._resume = state["batches"]

    def _settings(self) -> Dict[str, Any]:
        return {
            "lengths": derive_seed(*self.lengths),
            "batch_size": self.batch_size,
            "max_samples": self.max_samples,
            "shuffle": self.shuffle,
            "seed": self.seed,
            "jitter": self.jitter,
            "drop_last": self.drop_last,
            "world_size": self.shard()[1],
        }

    def __repr__(self) -> str:
        size = [f"{name}={getattr(self, name)}" for name in ("batch_size", "max_samples") if getattr(self, name)]
        about = [f"{len(self.lengths)} samples", *size, f"shuffle={self.shuffle}", f"epoch={self.epoch}"]
        return f"{type(self).__name__}({', '.join(about)})"


def _invalid(name: str, came: Any, expected: str, remedy: str) -> StreamInputError:
    return StreamInputError(f"invalid_{name}: {name} is {came!r}; expected {expected}; {remedy}")
