"""What a stream can know of itself while it is read."""

import threading
from dataclasses import dataclass
from typing import Optional

__all__ = ["READING", "StreamInfo", "stream_info"]


@dataclass(frozen=True)
class StreamInfo:
    """What is being read; see `stream_info`.

    Attributes:
        index: the stream's position in the dataset's list
        epoch: number of the epoch
        seed: 63 bits for random choices in this stream, in this epoch; the same whoever reads it, wherever
    """

    index: int
    epoch: int
    seed: int


READING = threading.local()  # .info: what this thread reads


def stream_info() -> Optional[StreamInfo]:
    """Inside of a ``streamer``, and of the iterable it gives: which stream is being read. ``None`` elsewhere.

    Random choices that start from its ``seed`` are the same for every number of workers, and after a resume.

    Example:

        >>> import random, torch
        >>> from torchstreamer.data import StreamDataset, StreamDataLoader, stream_info
        >>> def shifted(stream):
        ...     start = random.Random(stream_info().seed).randrange(4)
        ...     yield from stream[start:].split(8)
        ...
        >>> dataset = StreamDataset([torch.arange(20), torch.arange(30)], shifted, batch_size=2)
        >>> len(list(StreamDataLoader(dataset)))
        4
    """
    info: Optional[StreamInfo] = getattr(READING, "info", None)
    return info
