"""How far a folder of files is: for a line in the terminal, or for a function of the caller's."""

import time
from typing import Any, Callable, NamedTuple, Union

from ..core.status_line import StatusLine, bar

__all__ = ["FilesProgress", "Teller"]


class FilesProgress(NamedTuple):
    """How far `stream_files` is.

    Attributes:
        files: how many are over, failed ones too
        of_files: how many there are
        audio_s: seconds of sound that are through
        of_audio_s: how many there are
        wall_s: seconds since it began
        failed: how many files have failed
    """

    files: int
    of_files: int
    audio_s: float
    of_audio_s: float
    wall_s: float
    failed: int

    @property
    def real_time_factor(self) -> float:
        """Seconds of sound per second."""
        return self.audio_s / self.wall_s if self.wall_s > 0 else 0.0

    @property
    def left_s(self) -> float:
        """Seconds that the rest will take at this speed; infinite before anything is through."""
        left = max(self.of_audio_s - self.audio_s, 0.0)
        return left / self.real_time_factor if self.real_time_factor else float("inf") if left else 0.0

    def __str__(self) -> str:
        done = self.audio_s / self.of_audio_s if self.of_audio_s else 1.0
        failed = f", {self.failed} failed" if self.failed else ""
        left = "" if self.left_s == float("inf") else f", {_clock(self.left_s)} left"
        sound = f"{_clock(self.audio_s)} of {_clock(self.of_audio_s)}"
        speed = f"{self.real_time_factor:.0f} times real time{left}"
        return f"{bar(done, 20)}  {self.files}/{self.of_files} files{failed}, {sound}, {speed}"


class Teller:
    """Tells the progress, some times a second.

    Args:
        progress: ``True`` for a line on the standard error, where that is a terminal, else one every ten seconds; or a
            function that is called with `FilesProgress`; ``False`` to tell nobody
    """

    def __init__(self, progress: Union[bool, Callable[[FilesProgress], Any]]) -> None:
        self._call = progress if callable(progress) else self._print if progress else None
        self._line = StatusLine(0.2 if callable(progress) else 10.0)
        self._start = time.perf_counter()

    def wall_s(self) -> float:
        """Seconds since it began."""
        return time.perf_counter() - self._start

    def tell(self, now: bool, *numbers: Any) -> None:
        """Tell it, if that is due or wanted ``now``: all but the times, and the failed ones."""
        if self._call is not None and (self._line.due() or now):
            files, of_files, audio_s, of_audio_s, failed = numbers
            self._call(FilesProgress(files, of_files, audio_s, of_audio_s, self.wall_s(), failed))

    def end(self) -> None:
        """Leave the line in the terminal."""
        if self._call == self._print:
            self._line.leave()

    def _print(self, progress: FilesProgress) -> None:
        self._line.show(str(progress))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
