"""Batches of streams, read by several processes, in one order for any number of them."""

import warnings
from typing import Any, Callable, Dict, Generator, Iterator, List, Optional, Sequence

import torch
import torch.distributed
from torch import Tensor

from ..errors import StreamInputError
from .batch import StreamBatch
from .dataset import StreamDataset
from .joining import Joining
from .plan import split_rows
from .progress import Mark, Place, Progress
from .seats import Part
from .trees import map_tensors
from .workers import Crew, Orders

__all__ = ["StreamDataLoader"]


class StreamDataLoader:
    """Batches of a `StreamDataset`, read ahead by processes: row ``b`` continues row ``b`` of the batch before.

    The batches of an epoch are the same in content and order for every number of workers, however these start (with
    ``assignment="in_time"``: for a fixed number of them). Each worker reads some of the rows. The state of the epoch
    after any batch can be saved, see `state_dict`.

    Args:
        dataset: the streams
        num_workers: processes that read; 0 to read in this one. More than rows are not used.
        collate_fn: makes a batch of the list of the rows' chunks, in this process; ``None`` gives `StreamBatch`
        pin_memory: whether batches come in pinned memory, for fast copies to a GPU
        persistent_workers: whether the processes live on from epoch to epoch
        prefetch_factor: messages that wait for each process at most; each holds up to 16 batches or 4 MiB
        multiprocessing_context: how processes start: ``"fork"``, ``"spawn"``, ``"forkserver"``, or a context
        timeout: seconds that a message may take, 0 for any time
        worker_init_fn: called in every process with its number. To torch's ``get_worker_info`` each process is the only
            worker of a loader of its own.

    Attributes:
        skipped: of each stream that failed and was skipped, by its position in the list, what failed

    Raises:
        StreamInputError: an argument does not fit, or the dataset does not pickle and the processes need it to
        StreamReadError: while batches are read: a stream failed, or chunks do not fit together
        WorkerError: while batches are read: a process was killed or did not answer

    Example:

        >>> import torch
        >>> from torchstreamer import StreamDataset, StreamDataLoader
        >>> dataset = StreamDataset(["abcdef", "ghij", "kl"], lambda text: iter(text), batch_size=2, padding_value="-")
        >>> loader = StreamDataLoader(dataset, num_workers=2, collate_fn="".join)
        >>> list(loader)
        ['ag', 'bh', 'ci', 'dj', 'e-', 'f-', 'k-', 'l-']
    """

    def __init__(
        self,
        dataset: StreamDataset,
        num_workers: int = 0,
        collate_fn: Optional[Callable[[List[Any]], Any]] = None,
        *,
        pin_memory: bool = False,
        persistent_workers: bool = False,
        prefetch_factor: int = 2,
        multiprocessing_context: Any = None,
        timeout: float = 0,
        worker_init_fn: Optional[Callable[[int], None]] = None,
    ) -> None:
        if not isinstance(dataset, StreamDataset):
            raise StreamInputError(
                f"invalid_dataset: {type(dataset).__name__}; expected a StreamDataset; make one of a list of streams "
                "and a function that opens one"
            )
        if not isinstance(num_workers, int) or num_workers < 0:
            raise StreamInputError(
                f"invalid_num_workers: {num_workers!r}; expected a whole number of at least 0; give 0 to read in this "
                "process"
            )
        if not isinstance(prefetch_factor, int) or prefetch_factor < 1:
            raise StreamInputError(
                f"invalid_prefetch_factor: {prefetch_factor!r}; expected a whole number of at least 1; give the "
                "messages that may wait for each process"
            )
        self.dataset = dataset
        self.num_workers = num_workers
        self.collate_fn = collate_fn
        self.persistent_workers = persistent_workers
        self.skipped: Dict[int, str] = {}
        self.pin_memory = pin_memory and torch.cuda.is_available()
        if pin_memory and not self.pin_memory:
            warnings.warn("pin_memory=True has no effect: there is no GPU here", stacklevel=2)
        self._prefetch_factor = prefetch_factor
        self._context = multiprocessing_context
        self._timeout = timeout
        self._worker_init_fn = worker_init_fn
        self._crew: Optional[Crew] = None
        self._progress: Optional[Progress] = None  # of the epoch that gave a batch last
        self._resume: Optional[Place] = None

    def __len__(self) -> int:
        """The number of batches of the next epoch, where the dataset knows the lengths of its streams."""
        steps = self.dataset.plan().steps
        if steps is None or self.dataset.assignment == "in_time":
            known = "call its .measure()" if hasattr(self.dataset, "measure") else "give it lengths="
            planned = ", and assignment='planned'" if self.dataset.assignment == "in_time" else ""
            raise TypeError(
                f"unknown_length: the number of batches of {self.dataset!r} is unknown; the number of chunks of every "
                f"stream was expected; {known}{planned}"
            )
        return steps

    def __repr__(self) -> str:
        how = [f"num_workers={self.num_workers}"]
        how += [] if self.collate_fn is None else [f"collate_fn={getattr(self.collate_fn, '__name__', '...')}"]
        return f"{type(self).__name__}({self.dataset!r}, {', '.join(how)})"

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch is read next; see `StreamDataset.set_epoch`.

        Args:
            epoch: its number
        """
        self.dataset.set_epoch(epoch)

    # ------------------------------------------------------------------ batches

    def __iter__(self) -> Iterator[Any]:
        """The batches of one epoch. At its end the loader goes on to the next; a ``break`` leaves it where it was."""
        place, self._resume = self._resume, None
        if place is None or place.epoch != self.dataset.epoch:
            place = Place(self.dataset.epoch)
        progress = Progress(place, self._shares())
        self._progress = progress
        return self._epoch(progress)

    def _epoch(self, progress: Progress) -> Generator[Any, None, None]:
        dataset, epoch, shares = self.dataset, progress.start.epoch, self._shares()
        orders = progress.start.orders(shares, *dataset.shard())
        joining = Joining(dataset, self.collate_fn, copies=self.num_workers > 0)
        steps = self._steps(orders[0])
        alone = orders[0].world_size == 1 and len(shares) == 1
        crew = self._hire(shares, alone) if self.num_workers else None
        feeds: List[Generator[Part, None, None]] = []
        progress.running = True
        try:
            if crew is not None:
                crew.busy = True
                feeds = crew.read(orders, dataset.seed)
            else:
                feeds = [dataset.reader(shares[0], orders[0], self.collate_fn is None, alone).parts()]
            while True:
                came = [next(feed, None) for feed in feeds]
                self._warn(came)
                present = [part for part in came if part is not None and part.seats.rows]
                live = any([part.seats.live for part in present])
                if not self._goes_on(live, progress.batch, steps, orders[0].world_size):
                    break
                batch = joining(present)
                progress.advance(came)
                self._progress = progress
                if isinstance(batch, StreamBatch):
                    batch.place = progress.mark()
                yield self._pinned(batch) if self.pin_memory else batch
        except GeneratorExit:
            raise
        except BaseException as error:
            if crew is None:
                raise
            if self._crew is crew:  # a crew of which one failed is not called again
                self._crew = None
            crew.dismiss()
            died = crew.death(error)
            if died is None:
                raise
            raise died from error
        finally:
            progress.running = False
            if crew is not None:
                crew.busy = False
            for feed in feeds:
                feed.close()
        progress.ended = True
        if dataset.epoch == epoch:
            dataset.set_epoch(epoch + 1)

    def _shares(self) -> List[range]:
        # The rows that each process reads.
        size = self.dataset.batch_size
        return split_rows(size, max(1, min(self.num_workers, size)))

    def _hire(self, rows: Sequence[range], alone: bool) -> Crew:
        settings = self.dataset.settings()
        if self._crew is not None and not self._crew.busy:
            if self._crew.settings == settings:
                return self._crew
            self._crew.dismiss()  # it knows the dataset as it was
            self._crew = None
        lasting = self.persistent_workers and self._crew is None
        crew = Crew(
            self.dataset.reader,
            rows,
            settings,
            collated=self.collate_fn is None,
            alone=alone,
            persistent=lasting,
            prefetch_factor=self._prefetch_factor,
            context=self._context,
            timeout=self._timeout,
            worker_init_fn=self._worker_init_fn,
        )
        if lasting:
            self._crew = crew
        return crew

    def _warn(self, came: Sequence[Optional[Part]]) -> None:
        for part in came:
            if part is None or not part.skipped:
                continue
            for index, message in part.skipped.items():
                if index not in self.skipped:
                    self.skipped[index] = message
                    warnings.warn(f"{message}; the rest of it is skipped", RuntimeWarning, stacklevel=3)

    def _pinned(self, batch: Any) -> Any:
        return batch.pin_memory() if hasattr(batch, "pin_memory") else map_tensors(Tensor.pin_memory, batch)

    # ------------------------------------------------------------------ several ranks

    def _steps(self, orders: Orders) -> Optional[int]:
        # The number of batches that all ranks give; None where one rank ends by itself, or the ranks ask each other.
        if orders.world_size == 1:
            return None
        if self.dataset.assignment == "planned":
            steps = self.dataset.plan(orders.epoch).steps
            if steps is not None:
                return steps
        alone = not (torch.distributed.is_available() and torch.distributed.is_initialized())
        if alone or torch.distributed.get_world_size() != orders.world_size:
            raise StreamInputError(
                f"unknown_lengths: {orders.world_size} ranks must give the same number of batches, and lengths are "
                "unknown; expected lengths= of a planned dataset, or torch.distributed, through which the ranks agree; "
                "count the chunks of every stream, or initialise torch.distributed"
            )
        return None

    def _goes_on(self, live: bool, given: int, steps: Optional[int], world_size: int) -> bool:
        if steps is not None:
            if live and given >= steps:
                raise StreamInputError(
                    f"wrong_lengths: a stream goes on after {given} batches; expected no more than {steps}, by the "
                    "dataset's lengths; give the number of chunks of every stream"
                )
            return given < steps
        if world_size == 1:
            return live
        on_gpu = torch.distributed.get_backend() == "nccl"
        flag = torch.tensor(int(live), device=torch.cuda.current_device() if on_gpu else "cpu")
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
        return bool(flag)

    # ------------------------------------------------------------------ state

    def state_dict(self, after: Any = None) -> Dict[str, Any]:
        """Where the loader stands after a batch: numbers, lists and strings alone.

        Another loader of the same streams and settings goes on with the very next batch, whatever its number of
        workers. Saved together with the states of the streams or networks that the batches went through, training
        goes on in the middle of signals.

        Args:
            after: the batch, a `StreamBatch` of this loader, or its ``place``; ``None``: the one that it gave last. To
                be given where batches are fetched ahead of those that are used.

        Raises:
            StreamInputError: code ``no_place``: ``after`` is no such batch
        """
        if after is not None:
            mark = getattr(after, "place", after)
            if not isinstance(mark, Mark):
                raise StreamInputError(
                    f"no_place: after is a {type(after).__name__}; expected a StreamBatch that this loader gave, or "
                    "its place; what a collate_fn makes has none: save the state before the next batch is fetched"
                )
            found = mark.find()
            if self.dataset.assignment == "planned" and found.batch == self.dataset.plan(found.epoch).steps:
                found = Place(found.epoch + 1)  # that was the last one
            return {**found.state_dict(), "dataset": self._settings()}
        epoch, place = self.dataset.epoch, self._resume
        if place is None and self._progress is not None:
            if self._progress.running or self._progress.start.epoch == epoch:
                place = self._progress.place()
        elif place is not None and place.epoch != epoch:
            place = None
        return {**(place or Place(epoch)).state_dict(), "dataset": self._settings()}

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """Go on from what `state_dict` gave: the next ``for`` loop begins with the batch after it.

        Args:
            state: of a loader of the same streams and settings

        Raises:
            StreamInputError: code ``wrong_state``: it is of other streams or settings
        """
        mine = self._settings()
        try:
            theirs = dict(state["dataset"])
            place = Place.of(state)
        except (KeyError, TypeError, ValueError) as error:
            raise StreamInputError(
                f"wrong_state: {error!r} in the state; expected what state_dict() gave; save it whole"
            ) from error
        for name in mine:
            if theirs.get(name) != mine[name]:
                raise StreamInputError(
                    f"wrong_state: {name} is {theirs.get(name)!r} in the state; expected {mine[name]!r}, as in this "
                    "loader; make the dataset and the loader as they were"
                )
        if place.cursors is not None and len(place.cursors) != self.dataset.batch_size:
            raise StreamInputError(
                f"wrong_state: {len(place.cursors)} cursors in the state; expected one for each of "
                f"{self.dataset.batch_size} rows; save the state whole"
            )
        self.dataset.set_epoch(place.epoch)
        self._resume = place

    def _settings(self) -> Dict[str, Any]:
        settings = self.dataset.settings()
        if self.dataset.assignment == "in_time":
            settings["workers"] = len(self._shares())
        return settings
