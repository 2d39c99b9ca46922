"""A collection of streams, read side by side as the rows of batches."""

import warnings
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple, Union

import torch.distributed
from torch.utils.data import IterableDataset, get_worker_info

from ..errors import StreamInputError
from .plan import Plan, derive_seed, make_plan, split_rows
from .reading import Reading, RowsReader
from .seats import Part
from .trees import Number, TimeDim, blank, checked_time_dim, copied, is_number
from .workers import Orders

__all__ = ["StreamDataset"]


class StreamDataset(IterableDataset[Tuple[Tuple[Any, ...], int]]):
    """Streams that are read side by side: row ``b`` of a batch continues row ``b`` of the batch before.

    A plan deals the streams out to the rows, the same for every number of workers, and each row reads its streams one
    after the other. Every stream is read once in an epoch, in full. Give the dataset to a `StreamDataLoader`.

    Args:
        streams: what each stream is opened from: a path, a text, anything. The list is copied, never shuffled.
        streamer: opens one: ``streamer(stream)`` gives an iterable of chunks: tensors, arrays, numbers, or tuples,
            lists and dicts of these. A chunk may be handed out again and again with other values: it is copied before
            the next one is asked for (only a ``collate_fn`` in this process gets it as it is). An iterable with a
            method ``iterate_from(chunk)`` is asked to begin there on a resume; others are read up to there.
        batch_size: the number of rows
        padding_mode: what a row gives that has no stream left while others have: ``"zeros"``, padding, or ``"data"``,
            streams read again. Either is marked in `StreamBatch.valid`.
        padding_value: the number that pads, 0 for ``None``; or a whole chunk that stands for an ended row
        shuffle: whether each epoch has an order of its own; otherwise it is that of the list
        seed: of the shuffles, and of `stream_info`
        assignment: ``"planned"``: which row reads which streams is settled before the epoch. ``"in_time"``: a row
            takes the next stream when it needs one, from those dealt to the rows of its worker; rows end closer
            together where lengths are unknown, and the order depends on the number of workers.
        balance: ``"length"`` packs streams into rows by ``lengths``, so that rows end together
        lengths: the number of chunks of each stream, where known: for ``balance``, for ``len`` of a loader, and for the
            same number of batches on every rank
        time_dim: the axis of time of a chunk, along which chunks of a batch may differ and are padded. Where chunks
            are tuples, lists or dicts: one axis for all tensors in them, or the same structure with one for each.
            ``None``: chunks have no time, and must not differ.
        on_error: ``"raise"`` ends the epoch where a stream fails, after all that was read before it; ``"skip"`` leaves
            the rest of that stream out, with a warning
        threads: rows that each process reads side by side, 0 for one after the other. It helps where streams wait, for
            a disk or a network.
        rank: which part of the streams to read, ``None``: that of `torch.distributed` where it is initialised, else 0
        world_size: into how many parts they are dealt; ``None``: as for ``rank``, else 1
        stream_list: pytorch-stream-dataloader's name of ``streams``
        fill_value: pytorch-stream-dataloader's name of ``padding_value``

    Attributes:
        epoch: the number of the epoch that is read next; see `set_epoch`

    Raises:
        StreamInputError: an argument does not fit

    Example:

        >>> import torch
        >>> from torchstreamer import StreamDataset, StreamDataLoader
        >>> streams = [torch.arange(0, 5), torch.arange(10, 13), torch.arange(20, 23)]
        >>> dataset = StreamDataset(streams, lambda stream: stream.split(2), batch_size=2)
        >>> for batch in StreamDataLoader(dataset):
        ...     print(batch.data.tolist(), batch.lengths.tolist(), batch.ids.tolist(), batch.last.tolist())
        [[0, 1], [10, 11]] [2, 2] [0, 1] [False, False]
        [[2, 3], [12, 0]] [2, 1] [0, 1] [False, True]
        [[4], [0]] [1, 0] [0, -1] [True, False]
        [[20, 21], [0, 0]] [2, 0] [2, -1] [False, False]
        [[22], [0]] [1, 0] [2, -1] [True, False]
    """

    def __init__(
        self,
        streams: Optional[Sequence[Any]] = None,
        streamer: Optional[Callable[[Any], Iterable[Any]]] = None,
        batch_size: Optional[int] = None,
        padding_mode: str = "zeros",
        padding_value: Any = None,
        *,
        shuffle: bool = False,
        seed: int = 0,
        assignment: str = "planned",
        balance: Optional[str] = None,
        lengths: Optional[Sequence[int]] = None,
        time_dim: TimeDim = -1,
        on_error: str = "raise",
        threads: int = 0,
        rank: Optional[int] = None,
        world_size: Optional[int] = None,
        stream_list: Optional[Sequence[Any]] = None,
        fill_value: Any = None,
    ) -> None:
        if stream_list is not None:
            _check_alone("streams", streams, "stream_list")
            streams = stream_list
        if fill_value is not None:
            _check_alone("padding_value", padding_value, "fill_value")
            padding_value = fill_value
        if streams is None:
            raise _invalid("streams", None, "what each stream is opened from", "give a list")
        if not callable(streamer):
            raise _invalid("streamer", streamer, "a function that opens a stream", "give an iterable of its chunks")
        if not isinstance(batch_size, int) or batch_size < 1:
            raise _invalid("batch_size", batch_size, "a whole number of at least 1", "give the number of rows")
        self.streams = list(streams)
        self.streamer = streamer
        self.batch_size = batch_size
        self.padding_mode = padding_mode
        self.padding_value = padding_value
        self.seed = seed
        self.assignment = assignment
        self.balance = balance
        self.lengths = None if lengths is None else [int(length) for length in lengths]
        self.time_dim = checked_time_dim(time_dim)
        self.on_error = on_error
        self.threads = threads
        self.epoch = 0
        self._shuffled = shuffle
        self._rank = rank
        self._world_size = world_size
        if not isinstance(threads, int) or threads < 0:
            raise _invalid("threads", threads, "a whole number of at least 0", "give 0 to read rows in turn")
        _check_choice("padding_mode", padding_mode, ["zeros", "data"])
        _check_choice("assignment", assignment, ["planned", "in_time"])
        _check_choice("balance", balance, [None, "length"])
        _check_choice("on_error", on_error, ["raise", "skip"])
        if (rank is None) != (world_size is None):
            raise _invalid("rank and world_size", (rank, world_size), "both or neither", "give both")
        if rank is not None and world_size is not None and not 0 <= rank < world_size:
            raise _invalid("rank", rank, f"one of 0 to {world_size - 1}", "count ranks from 0")
        self._check_lengths()

    def _check_lengths(self) -> None:
        if self.lengths is None:
            if self.balance:
                raise _invalid("lengths", None, "one for each stream", "balance='length' needs them: count the chunks")
        elif len(self.lengths) != len(self.streams) or min(self.lengths, default=0) < 0:
            raise _invalid(
                "lengths",
                f"{len(self.lengths)} of at least {min(self.lengths, default=0)}",
                f"{len(self.streams)} of at least 0",
                "give the number of chunks of every stream",
            )

    # ------------------------------------------------------------------ epochs

    def shuffle(self) -> None:
        """Give every epoch from the next on an order of its own. The list itself stays as it is."""
        self._shuffled = True

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch is read next: it decides the order, and what `stream_info` gives.

        A loader that comes to the end of an epoch goes on to the next one by itself.

        Args:
            epoch: its number
        """
        self.epoch = epoch

    def plan(self, epoch: Optional[int] = None) -> Plan:
        """Which row reads which streams in an epoch, how many batches that makes, and how much of them is padding.

        With ``assignment="in_time"`` the rows of one worker share their streams, and the figures do not hold.

        Args:
            epoch: its number; ``None`` for the next one

        Example:

            >>> from torchstreamer import StreamDataset
            >>> lengths = [7, 1, 2, 3, 3]
            >>> dealt = StreamDataset("abcde", iter, batch_size=2, lengths=lengths)
            >>> packed = StreamDataset("abcde", iter, batch_size=2, lengths=lengths, balance="length")
            >>> dealt.plan().rows, dealt.plan().steps, round(dealt.plan().padding, 2)
            (((0, 2, 4), (1, 3)), 12, 0.33)
            >>> packed.plan().rows, packed.plan().steps, packed.plan().padding
            (((0, 1), (2, 3, 4)), 8, 0.0)
        """
        rank, world_size = self.shard()
        return self._plan(Orders(self.epoch if epoch is None else epoch, rank, world_size, None, 0))

    def shard(self) -> Tuple[int, int]:
        """The rank and the world size that hold now."""
        if self._rank is not None and self._world_size is not None:
            return self._rank, self._world_size
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return 0, 1

    @property
    def stream_list(self) -> List[Any]:
        """What each stream is opened from; pytorch-stream-dataloader's name of ``streams``."""
        return self.streams

    @stream_list.setter
    def stream_list(self, streams: Sequence[Any]) -> None:
        self.streams = list(streams)

    @property
    def fill_value(self) -> Any:
        """What pads; pytorch-stream-dataloader's name of ``padding_value``."""
        return self.padding_value

    @fill_value.setter
    def fill_value(self, value: Any) -> None:
        self.padding_value = value

    @property
    def fill(self) -> Number:
        """The number that pads."""
        value = self.padding_value
        if value is None or not is_number(value):
            return 0
        number: Number = value if isinstance(value, (bool, int, float, complex)) else value.item()
        return number

    @property
    def padding_chunk(self) -> Any:
        """The chunk that stands for a row that has ended; ``None`` where a number does."""
        return None if is_number(self.padding_value) else self.padding_value

    # ------------------------------------------------------------------ reading

    def __iter__(self) -> Iterator[Tuple[Tuple[Any, ...], int]]:
        """The chunks of the rows of this worker of a plain `torch.utils.data.DataLoader`, and the worker's number.

        For a network of its own in every worker; `StreamDataLoader` gives whole batches.
        """
        worker = get_worker_info()
        number, count = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        rows = split_rows(self.batch_size, count)[number]
        if not rows:
            return
        orders = Orders(self.epoch, *self.shard(), None, 0)
        for part in self.reader(rows, orders, collated=False, alone=True).parts():
            for message in part.skipped.values():
                warnings.warn(f"{message}; the rest of it is skipped", RuntimeWarning, stacklevel=2)
            if part.seats.live:
                yield tuple(self.in_rows([part], rows)), number

    def reader(self, rows: range, orders: Orders, collated: bool, alone: bool) -> RowsReader:
        """What reads some rows.

        Args:
            rows: these
            orders: which epoch, from where
            collated: whether their chunks are stacked
            alone: whether the epoch ends when none of them counts
        """
        return RowsReader(
            self._reading(), self._plan(orders), rows, orders.epoch, orders.cursors, orders.drawn, collated, alone
        )

    def in_rows(self, parts: Sequence[Part], rows: range) -> List[Any]:
        """The chunks of parts that were not stacked, one for each row, padding where there is none."""
        if len(parts) == 1 and len(parts[0].data) == len(rows):
            return list(parts[0].data)
        found = {row: chunk for part in parts for row, chunk in zip(part.seats.rows, part.data, strict=True)}
        if len(found) == len(rows):
            return [found[row] for row in rows]
        padding = self.padding_chunk
        if padding is None:
            padding = blank(next(iter(found.values())), self.fill)
        return [found[row] if row in found else copied(padding) for row in rows]

    def blank_chunk(self) -> Any:
        """A chunk of padding like the first chunk that any stream has, in the order of the list.

        Raises:
            StreamInputError: no stream has a chunk
        """
        every = range(len(self.streams))
        reading = self._reading()
        plan = Plan(((*every,),), tuple(every), None, None)
        for part in RowsReader(reading, plan, range(1), self.epoch, collated=False).parts():
            if part.seats.rows:
                return blank(part.data[0], self.fill)
        raise StreamInputError(
            "no_chunks: no stream of any rank has a chunk; expected one that tells what padding looks like; give "
            "padding_value a chunk"
        )

    def __repr__(self) -> str:
        about = [self._told(), f"batch_size={self.batch_size}", f"padding_mode={self.padding_mode!r}"]
        about += [f"shuffle=True, seed={self.seed}"] if self._shuffled else []
        about += ["balance='length'"] if self.balance else []
        about += ["assignment='in_time'"] if self.assignment == "in_time" else []
        about += [f"{sum(self.lengths)} chunks"] if self.lengths is not None else []
        about += [f"epoch={self.epoch}"]
        return f"{type(self).__name__}({', '.join(about)})"

    def _told(self) -> str:
        return f"{len(self.streams)} streams"

    def settings(self) -> Dict[str, Any]:
        """What a saved state depends on, in plain values."""
        rank, world_size = self.shard()
        lengths = self.lengths if self.balance else None
        return {
            "streams": len(self.streams),
            "batch_size": self.batch_size,
            "padding_mode": self.padding_mode,
            "shuffle": self._shuffled,
            "seed": self.seed,
            "assignment": self.assignment,
            "balance": self.balance,
            "lengths": None if lengths is None else derive_seed(*lengths),
            "rank": rank,
            "world_size": world_size,
        }

    def _reading(self) -> Reading:
        return Reading(
            self.streams,
            self.streamer,
            self.seed,
            self.padding_mode == "data",
            self.assignment == "in_time",
            self.on_error == "skip",
            self.threads,
            self.time_dim,
            self.fill,
        )

    def _plan(self, orders: Orders) -> Plan:
        return make_plan(
            len(self.streams),
            self.batch_size,
            seed=self.seed,
            epoch=orders.epoch,
            rank=orders.rank,
            world_size=orders.world_size,
            shuffle=self._shuffled,
            lengths=self.lengths,
            balanced=self.balance == "length",
        )


def _check_alone(name: str, value: Any, other: str) -> None:
    if value is not None:
        raise _invalid(other, "given", f"{name} or {other}, as they are one", f"leave {other} out")


def _check_choice(name: str, value: Any, choices: List[Union[str, None]]) -> None:
    if value not in choices:
        raise _invalid(name, value, " or ".join(map(repr, choices)), "choose one")


def _invalid(name: str, came: Any, expected: str, remedy: str) -> StreamInputError:
    return StreamInputError(f"invalid_{name.split()[0]}: {name} is {came!r}; expected {expected}; {remedy}")
