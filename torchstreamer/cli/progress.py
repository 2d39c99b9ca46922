"""A line that says how far a run is, where a person looks on."""

import sys
import time

from .ends import Source
from .quantities import clock, duration
from .timing import Times

__all__ = ["Progress"]

_WIDTH = 30
_EVERY = 0.2  # seconds


class Progress:
    """Shows a bar on stderr, if that is a terminal.

    Args:
        source: what is read
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._shown = sys.stderr.isatty()
        self._next = 0.0

    def show(self, done: int, times: Times) -> None:
        """Say how far it is.

        Args:
            done: samples
            times: of the chunks
        """
        now = time.monotonic()
        if not self._shown or now < self._next:
            return
        self._next = now + _EVERY
        seconds = done / self.source.rate_hz
        bar = ""
        if self.source.frames:
            full = round(_WIDTH * min(done / self.source.frames, 1))
            bar = "━" * full + "·" * (_WIDTH - full) + " "
        speed = f"{seconds / times.total:.3g}× real time  p99 {duration(times.quantile(0.99))}" if times.total else ""
        sys.stderr.write(f"\r{bar}{clock(seconds)}  {speed}\x1b[K")
        sys.stderr.flush()

    def end(self) -> None:
        """Take the line away."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
