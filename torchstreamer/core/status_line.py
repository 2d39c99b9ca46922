"""A line on stderr that says how far something is, written over itself."""

import sys
import time

__all__ = ["StatusLine", "bar"]

_EVERY_S = 0.2


class StatusLine:
    """The line, some times a second. Where stderr is no terminal, lines one after the other, or none.

    Args:
        every_s: seconds from one line to the next where it is no terminal; infinite for none

    Attributes:
        terminal: whether it is one
        every_s: seconds from one line to the next
    """

    def __init__(self, every_s: float = float("inf")) -> None:
        self.terminal = sys.stderr.isatty()
        self.every_s = _EVERY_S if self.terminal else every_s
        self._next = time.monotonic() + (0.0 if self.terminal else every_s)

    def due(self) -> bool:
        """Whether it is time for the next line; if so, it counts as shown."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self.every_s
        return True

    def show(self, text: str) -> None:
        """Write it."""
        sys.stderr.write(f"\r{text}\x1b[K" if self.terminal else f"{text}\n")
        sys.stderr.flush()

    def leave(self) -> None:
        """Leave the line where it is."""
        if self.terminal:
            sys.stderr.write("\n")

    def clear(self) -> None:
        """Take the line away."""
        if self.terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def bar(done: float, width: int) -> str:
    """A bar of so many characters, of which the part ``done`` is full."""
    full = int(width * min(max(done, 0.0), 1.0))
    return "━" * full + "·" * (width - full)
