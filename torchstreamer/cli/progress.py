"""A line that says how far a run is, where a person looks on."""

from ..core.status_line import StatusLine, bar
from .ends import Source
from .quantities import clock, duration
from .timing import Times

__all__ = ["Progress"]

_WIDTH = 30


class Progress:
    """Shows a bar on stderr, if that is a terminal.

    Args:
        source: what is read
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._line = StatusLine()

    def show(self, done: int, times: Times) -> None:
        """Say how far it is.

        Args:
            done: samples
            times: of the chunks
        """
        if not self._line.due():
            return
        seconds = done / self.source.rate_hz
        part = f"{bar(done / self.source.frames, _WIDTH)} " if self.source.frames else ""
        speed = f"{seconds / times.total:.3g}× real time  p99 {duration(times.quantile(0.99))}" if times.total else ""
        self._line.show(f"{part}{clock(seconds)}  {speed}")

    def end(self) -> None:
        """Take the line away."""
        self._line.clear()
