"""Processes that read rows, each a `torch.utils.data.DataLoader` with one worker, and what they send."""

import os
import pickle
import re
import time
import traceback
from multiprocessing.reduction import ForkingPickler
from typing import Any, Callable, Dict, Generator, Iterator, List, NamedTuple, Optional, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from ..errors import StreamError, StreamInputError, StreamReadError, WorkerError
from .plan import derive_seed
from .reading import RowsReader
from .seats import Cursor, Part
from .transport import Packed, pack, unpack
from .trees import Others, copied

__all__ = ["Crew", "Orders"]

# A message holds as many parts as came in this time, or fill this memory, and at most so many.
_SECONDS = 0.05
_BYTES = 2**22
_PARTS = 16


class Orders(NamedTuple):
    """Which epoch a process reads, from where.

    Attributes:
        epoch: its number
        rank: of the process that trains
        world_size: how many of them there are
        cursors: where the rows stand; ``None`` at the start
        drawn: how many streams they have taken
    """

    epoch: int
    rank: int
    world_size: int
    cursors: Optional[Sequence[Cursor]]
    drawn: int


# Gives the reader of some rows: (rows, orders, whether chunks are stacked, whether these are all rows).
MakeReader = Callable[[range, Orders, bool, bool], RowsReader]
# How torch tells that a process is gone, or slow.
_GONE = re.compile(r"DataLoader (worker \(pid|timed out)")


class _Messages(IterableDataset[Packed]):
    # Runs in the process. What it reads stands in shared memory, as the process may outlive an epoch.
    def __init__(self, make: MakeReader, rows: range, collated: bool, alone: bool) -> None:
        self.make = make
        self.rows = rows
        self.collated = collated
        self.alone = alone
        self.orders = torch.zeros(5 + 2 * len(rows), dtype=torch.int64)
        self.orders.share_memory_()  # type: ignore[no-untyped-call]
        self.pid = torch.zeros(1, dtype=torch.int64)
        self.pid.share_memory_()  # type: ignore[no-untyped-call]

    def tell(self, orders: Orders) -> None:
        cursors = orders.cursors or [Cursor(0, 0)] * len(self.rows)
        numbers = [*orders[:3], orders.cursors is not None, orders.drawn, *(n for cursor in cursors for n in cursor)]
        self.orders.copy_(torch.tensor(numbers))

    def told(self) -> Orders:
        epoch, rank, world_size, resumed, drawn, *rest = self.orders.tolist()
        cursors = [Cursor(*pair) for pair in zip(rest[::2], rest[1::2], strict=True)] if resumed else None
        return Orders(epoch, rank, world_size, cursors, drawn)

    def __iter__(self) -> Iterator[Packed]:
        self.pid.fill_(os.getpid())
        limit = 1  # the first message holds one part, so that the first batch is there soon
        waiting: List[Part] = []
        size, began = 0, time.monotonic()
        error: Optional[StreamError] = None
        try:
            for part in self.make(self.rows, self.told(), self.collated, self.alone).parts():
                waiting.append(part if self.collated else part._replace(data=copied(part.data)))
                size += _nbytes(part.data)
                if len(waiting) >= limit or size >= _BYTES or time.monotonic() - began >= _SECONDS:
                    yield _packed(waiting, None)
                    waiting, size, began = [], 0, time.monotonic()
                    limit = min(2 * limit, _PARTS)
        except (StreamReadError, StreamInputError) as caught:
            error = caught
        if waiting or error is not None:
            yield _packed(waiting, error)


def _packed(parts: List[Part], error: Optional[StreamError]) -> Packed:
    try:
        return pack((parts, error))
    except (pickle.PicklingError, AttributeError, TypeError) as reason:
        ids = sorted({index for part in parts for index in part.seats.ids})
        failure = StreamReadError(
            f"unpicklable_chunk: a chunk of the streams {ids} cannot be sent to another process ({reason}); what "
            "pickles was expected; give tensors, arrays and plain values, or read with num_workers=0",
            ids[0],
        )
        return pack(([], failure))


class Crew:
    """The processes of a loader.

    Args:
        make: gives a reader of rows; must pickle where processes are spawned
        rows: those of each process
        settings: of the dataset, as the processes know it
        collated: whether chunks are stacked
        alone: whether one process reads all rows there are
        persistent: whether the processes live on after an epoch
        prefetch_factor: messages that wait for each process at most
        context: how processes start: ``"fork"``, ``"spawn"``, ``"forkserver"``, a context, or ``None``
        timeout: seconds that a message may take; 0 waits for ever
        worker_init_fn: called in every process with its number
    """

    def __init__(
        self,
        make: MakeReader,
        rows: Sequence[range],
        settings: Dict[str, Any],
        *,
        collated: bool,
        alone: bool,
        persistent: bool,
        prefetch_factor: int,
        context: Any,
        timeout: float,
        worker_init_fn: Optional[Callable[[int], None]],
    ) -> None:
        self.rows = rows
        self.settings = settings
        self.busy = False
        self.feeds = [_Messages(make, its, collated, alone) for its in rows]
        self.generators = [torch.Generator() for _ in rows]
        self.loaders: List[DataLoader[Packed]] = [
            DataLoader(
                feed,
                batch_size=None,
                num_workers=1,
                collate_fn=_as_it_is,
                prefetch_factor=prefetch_factor,
                persistent_workers=persistent,
                multiprocessing_context=context,
                timeout=timeout,
                generator=generator,
                worker_init_fn=None if worker_init_fn is None else _Init(worker_init_fn, number),
            )
            for number, (feed, generator) in enumerate(zip(self.feeds, self.generators, strict=True))
        ]
        start = self.loaders[0].multiprocessing_context or torch.multiprocessing.get_context()
        if start.get_start_method() != "fork":
            _check_pickles(make, worker_init_fn)

    def read(self, orders: Sequence[Orders], seed: int) -> List[Generator[Part, None, None]]:
        """Start to read; what each process gives.

        Args:
            orders: for each process
            seed: of the dataset
        """
        iterators = []
        for number, (loader, feed) in enumerate(zip(self.loaders, self.feeds, strict=True)):
            feed.tell(orders[number])
            # Torch seeds a worker from this generator, and would take its own from everybody's.
            self.generators[number].manual_seed(derive_seed(seed, orders[number].epoch, number))
            iterators.append(iter(loader))
        return [self._parts(number, iterator) for number, iterator in enumerate(iterators)]

    def dismiss(self) -> None:
        """End the processes that live on."""
        self.loaders = []

    def _parts(self, number: int, messages: Iterator[Packed]) -> Generator[Part, None, None]:
        try:
            while True:
                try:
                    packed = next(messages, None)
                except (EOFError, OSError, pickle.UnpicklingError) as error:
                    # Half a message. If the process was killed, torch says so in a moment, whatever is being done.
                    time.sleep(0.2)
                    pid = int(self.feeds[number].pid)
                    raise RuntimeError(f"DataLoader worker (pid {pid}) sent half a message: {error!r}") from error
                if packed is None:
                    return
                parts, failure = unpack(packed)
                yield from parts
                if failure is not None:
                    raise failure
        finally:
            # The process ends with its last reference, and a traceback may hold this frame for long.
            del messages

    def death(self, error: BaseException) -> Optional[WorkerError]:
        """What to say of an error, if it tells that a process is gone. Torch raises it wherever this process is."""
        if not isinstance(error, RuntimeError) or not _GONE.match(str(error)):
            return None
        # The traceback would keep the process alive that was being waited for.
        traceback.clear_frames(error.__traceback__)
        pids = set(map(int, re.findall(r"\d+", str(error).partition("pid")[2])))
        rows = [its for its, feed in zip(self.rows, self.feeds, strict=True) if int(feed.pid) in pids]
        who = " and ".join(f"rows {its.start} to {its.stop - 1}" for its in rows) or "some rows"
        return WorkerError(
            f"worker_died: the process that reads {who} gave no answer ({error}); processes live until the epoch ends; "
            "look for what ended it, often a lack of memory, or read with num_workers=0 to see its errors"
        )


class _Init:
    # Every process is the only one of its DataLoader, so it must be told its number.
    def __init__(self, function: Callable[[int], None], number: int) -> None:
        self.function = function
        self.number = number

    def __call__(self, _: int) -> None:
        self.function(self.number)


class _Nowhere:
    def write(self, data: Any) -> int:
        return len(data)


def _check_pickles(*things: Any) -> None:
    try:
        for thing in things:
            ForkingPickler(_Nowhere()).dump(thing)
    except RuntimeError:
        pass  # what passes to a new process only, such as a lock
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise StreamInputError(
            f"unpicklable_dataset: {error}; processes that are not forked get the dataset pickled, with its streams "
            "and its streamer; define the streamer at the top level of a module instead of as a lambda or inside of a "
            "function, or give multiprocessing_context='fork'"
        ) from error


def _as_it_is(packed: Any) -> Any:
    return packed


def _nbytes(tree: Any) -> int:
    if isinstance(tree, Tensor):
        return tree.numel() * tree.element_size()
    if isinstance(tree, dict):
        return sum(map(_nbytes, tree.values()))
    if isinstance(tree, (tuple, list)) and not isinstance(tree, Others):
        return sum(map(_nbytes, tree))
    return int(getattr(tree, "nbytes", 0))
