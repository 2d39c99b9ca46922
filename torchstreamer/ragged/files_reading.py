"""The next piece of each file that sits in a row, and which files have failed."""

import warnings
from typing import Dict, Iterator, List, Tuple

from torch import Tensor

from ..data.audio import AudioStreamDataset
from ..data.loader import StreamDataLoader
from ..data.workers import Orders

__all__ = ["steps_of"]


def steps_of(dataset: AudioStreamDataset, workers: int) -> Iterator[Tuple[List[Tuple[int, Tensor]], Dict[int, str]]]:
    """The pieces of files side by side, step by step.

    Args:
        dataset: of the files
        workers: processes that read; 0 for this one, in which pieces are not copied into a batch

    Yields:
        of every file in a row its number and its next piece ``[C, t]``; and, of all that have failed by now, what
        happened

    Raises:
        StreamReadError: a file failed, and is not to be skipped
    """
    skipped: Dict[int, str] = {}
    if not workers:
        orders = Orders(0, 0, 1, None, 0)
        for part in dataset.reader(range(dataset.batch_size), orders, collated=False, alone=True).parts():
            skipped.update(part.skipped)
            yield list(zip(part.seats.ids, part.data, strict=True)) if part.seats.rows else [], skipped
        return
    loader = StreamDataLoader(dataset, num_workers=workers)
    batches = iter(loader)
    while True:
        with warnings.catch_warnings():  # the report tells what is skipped
            warnings.filterwarnings("ignore", r"(?s).*the rest of it is skipped", RuntimeWarning)
            batch = next(batches, None)
        if batch is None:
            yield [], loader.skipped
            return
        told = zip(batch.ids.tolist(), batch.lengths.tolist(), batch.data, strict=True)
        yield [(index, piece[:, :n]) for index, n, piece in told if index >= 0], loader.skipped
