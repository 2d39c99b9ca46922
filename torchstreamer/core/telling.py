"""What a long making tells while it is at work: to a function of the caller's, and to the log."""

import logging
import time
from typing import Optional, Protocol

__all__ = ["ProgressCallback", "Telling"]

_log = logging.getLogger("torchstreamer")


class ProgressCallback(Protocol):
    """What `create_stream`, `compile` and `export` take as ``progress=``: a function of three arguments.

    It is called when a stage begins, once more within stages that take long, and with ``done == total`` at the end. An
    exception that it raises ends the making, and nothing is made.

    With or without it, every stage is logged by ``logging.getLogger("torchstreamer")``, at the level ``INFO``.

    Example:
        >>> import torch, torchstreamer as pts
        >>> def progress(stage, done, total):
        ...     print(f"{done} of {total}: {stage}")
        >>> _ = pts.create_stream(torch.nn.Conv1d(1, 2, 3), progress=progress)
        0 of 1: making the streams of its modules
        1 of 1: done
    """

    def __call__(self, stage: str, done: int, total: int, /) -> object:
        """Take notice.

        Args:
            stage: what is at work now, in words
            done: how many stages are over
            total: how many there are, as far as is known by now: a making that has to try another way has more
        """


class Telling:
    """Tells the stages of a making.

    Args:
        making: what is made, for the log; '' to tell nobody
        progress: is called too
        level: of the log
    """

    def __init__(
        self, making: str = "", progress: Optional[ProgressCallback] = None, level: int = logging.INFO
    ) -> None:
        if progress is not None and not callable(progress):
            raise TypeError(
                f"{making} got progress={progress!r}; a function that takes the stage, how many are done and how many "
                "there are was expected"
            )
        self.making = making
        self.progress = progress
        self.level = level
        self.done = 0
        self.total = 0
        self._begun = 0
        self._start = time.perf_counter()

    def expect(self, stages: int) -> None:
        """Say how many stages are still to begin."""
        self.total = self._begun + stages

    def begin(self, stage: str) -> None:
        """Say that a stage begins, and that the one before is over."""
        self.done = self._begun
        self._begun += 1
        self.total = max(self.total, self._begun)
        self._say(stage, self.level)

    def note(self, stage: str) -> None:
        """Say how far the stage is that is at work."""
        self._say(stage, logging.DEBUG)

    def over(self, result: str) -> None:
        """Say what came of the stage that was at work."""
        self.done = self._begun
        self._say(result, self.level)

    def end(self) -> None:
        """Say that all is done."""
        self.total = self.done = self._begun
        if self.making and self.done:
            _log.log(self.level, "%s: done in %.1f s", self.making, time.perf_counter() - self._start)
        if self.progress is not None:
            self.progress("done", self.done, self.total)

    def _say(self, stage: str, level: int) -> None:
        if self.making:
            _log.log(level, "%s: %s (%d of %d done)", self.making, stage, self.done, self.total)
        if self.progress is not None:
            self.progress(stage, self.done, self.total)
