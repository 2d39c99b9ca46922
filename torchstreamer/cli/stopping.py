"""Ctrl-C that ends a signal where it stands, and does not break what is at work."""

import signal
from contextlib import contextmanager
from types import FrameType
from typing import Iterable, Iterator, Optional

from torch import Tensor

__all__ = ["Stopping"]


class Stopping:
    """Notices Ctrl-C while it is a context. A second one ends the program at once.

    Attributes:
        asked: whether it came
    """

    def __init__(self) -> None:
        self.asked = False
        self._waiting = False

    def __enter__(self) -> "Stopping":
        self._before = signal.signal(signal.SIGINT, self._notice)
        return self

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def blocks(self, source: Iterable[Tensor]) -> Iterator[Tensor]:
        """The blocks of a source until Ctrl-C comes."""
        blocks = iter(source)
        while not self.asked:
            try:
                with self._until():
                    block = next(blocks, None)
            except KeyboardInterrupt:
                return
            if block is None:
                return
            yield block

    @contextmanager
    def _until(self) -> Iterator[None]:
        # A read of a pipe may wait for ever, so it is interrupted.
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False

    def _notice(self, number: int, frame: Optional[FrameType]) -> None:
        again, self.asked = self.asked, True
        if self._waiting or again:
            raise KeyboardInterrupt
