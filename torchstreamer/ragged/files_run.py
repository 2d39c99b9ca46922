"""One machine's share of `stream_files`: what the files are like, which are open, and what came of the others."""

import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from ..audio.headers import Header, read_header
from ..core.rows import RowPiece, RowStream
from ..data.audio import AudioStreamDataset
from ..data.plan import packed
from ..errors import StreamInputError, StreamReadError
from .done_list import DoneList
from .files_progress import Teller
from .files_reading import steps_of
from .sinks import Sink, Writer

__all__ = ["FilesReport", "Kind", "Run"]

_log = logging.getLogger("torchstreamer")


@dataclass
class FilesReport:
    """What `stream_files` did.

    Attributes:
        done: files that are done, in the order in which they ended
        failed: of each file that failed, what happened
        before: files that an earlier run did
        audio_s: seconds of sound that went through
        wall_s: seconds that it took
        rows: how many rows of a step had samples, on average
    """

    done: List[str] = field(default_factory=list)
    failed: Dict[str, str] = field(default_factory=dict)
    before: List[str] = field(default_factory=list)
    audio_s: float = 0.0
    wall_s: float = 0.0
    rows: float = 0.0

    def __str__(self) -> str:
        speed = self.audio_s / self.wall_s if self.wall_s else 0.0
        lines = [
            f"{len(self.done)} files done, {len(self.failed)} failed, {len(self.before)} done before; "
            f"{self.audio_s:.0f} s of sound in {self.wall_s:.1f} s, {speed:.0f} times real time, "
            f"{self.rows:.1f} rows in a step"
        ]
        return "\n".join([*lines, *(f"{path}: {why}" for path, why in self.failed.items())])


class Kind:
    """What files must be like, by what most of them are.

    Args:
        stream: that takes them
        names: of all files
        mono: whether the mean of the channels is read
        rate_hz: sampling rate; ``None``: that of most
        channels: of a file; ``None``: those of most that the stream takes
    """

    def __init__(
        self, stream: Any, names: Sequence[str], mono: bool, rate_hz: Optional[int], channels: Optional[int]
    ) -> None:
        self.headers: Dict[str, Header] = {}
        self.errors: Dict[str, str] = {}
        for name in names:
            try:
                self.headers[name] = read_header(name)
            except ModuleNotFoundError:
                raise
            except Exception as error:  # whatever a decoder does
                self.errors[name] = f"it cannot be read ({error}); a sound file was expected; mend it, or leave it out"
        self.mono = mono
        self.rate_hz = rate_hz or _most([header.rate_hz for header in self.headers.values()])
        counts = [header.channels for header in self.headers.values()]
        taken = [count for count in counts if _takes(stream, count)]
        self.channels = channels or _most(taken or counts)
        for name, header in self.headers.items():
            if header.rate_hz != self.rate_hz:
                self.errors[name] = (
                    f"its rate is {header.rate_hz} Hz; {self.rate_hz} was expected; resample it, leave it out, or give "
                    "rate_hz="
                )
            elif header.channels != self.channels and not mono:
                self.errors[name] = (
                    f"it has {header.channels} channels; {self.channels} were expected; give mono=True, leave it out, "
                    "or give channels="
                )
        anchor = stream.anchor()
        self.dtype = torch.float64 if anchor is not None and anchor.dtype == torch.float64 else torch.float32

    def dataset(self, names: Sequence[str], chunk: int, batch: int, on_error: str) -> Optional[AudioStreamDataset]:
        """The files as rows that are refilled, in this order."""
        if not names:
            return None
        return AudioStreamDataset(
            names,
            chunk,
            batch,
            mono=self.mono,
            rate_hz=self.rate_hz,
            channels=self.channels,
            dtype=self.dtype,
            on_error=on_error,
            assignment="in_time",
            rank=0,
            world_size=1,
        )


def _most(counts: Sequence[int]) -> Optional[int]:
    return Counter(counts).most_common(1)[0][0] if counts else None


def _takes(stream: Any, channels: int) -> bool:
    try:
        stream.output_channels(channels)
    except StreamInputError:
        return False
    return True


class Run:
    """The files of one machine.

    Args:
        rows: what runs them
        sink: where outputs go
        skip: whether others go on where a file fails
        done_list: of what is done
        teller: tells the progress
    """

    def __init__(self, rows: RowStream, sink: Sink, skip: bool, done_list: Optional[DoneList], teller: Teller) -> None:
        self.rows = rows
        self.sink = sink
        self.skip = skip
        self.done_list = done_list
        self.teller = teller
        self.report = FilesReport()
        self.names: List[str] = []
        self.lengths: List[int] = []
        self.rates: List[int] = []
        self.open: Dict[int, Writer] = {}
        self.over: Dict[int, bool] = {}
        self.counts: Dict[int, List[int]] = {}  # samples in and out
        self.steps = self.filled = self.swept = 0
        self.audio_s = self.of_audio_s = 0.0

    def choose(self, kind: Kind, names: Sequence[str], shard: Tuple[int, int]) -> None:
        """Say which files are this machine's, the longest first."""
        lengths = [kind.headers[name].frames if name in kind.headers else 0 for name in names]
        order = sorted(range(len(names)), key=lambda index: -lengths[index])
        for index in packed(order, lengths, shard[1])[shard[0]]:
            name = names[index]
            if self.done_list is not None and self.done_list.holds(name):
                self.report.before.append(name)
            elif name in kind.errors:
                self._failed(
                    name, StreamReadError(f"stream_failed: file {index} ('{name}'): {kind.errors[name]}", index)
                )
            else:
                self.names.append(name)
                self.lengths.append(lengths[index])
                self.rates.append(kind.headers[name].rate_hz)
        self.of_audio_s = sum(n / rate for n, rate in zip(self.lengths, self.rates, strict=True))

    def go(self, dataset: Optional[AudioStreamDataset], workers: int) -> None:
        """Run all of them."""
        try:
            if dataset is not None:
                for pieces, skipped in steps_of(dataset, workers):
                    self._take(pieces)
                    if len(skipped) > self.swept:
                        self.swept = len(skipped)
                        for index, why in skipped.items():
                            self._fail(index, StreamReadError(why, index))
                    self._tell(False)
                for index in range(len(self.names)):
                    if index not in self.over:  # there is nothing in it
                        self._begin(index)
                        self._end(index)
        finally:
            for index in list(self.open):
                self._abort(index)
            self.report.wall_s = self.teller.wall_s()
            self.report.audio_s = self.audio_s
            self.report.rows = self.filled / self.steps if self.steps else 0.0
            self._tell(True)
            self.teller.end()

    def _take(self, pieces: List[Tuple[int, Tensor]]) -> None:
        anchor = self.rows.stream.anchor()
        entries = []
        for index, piece in pieces:
            first = index not in self.counts
            if first:
                self._begin(index)
            if index in self.over:
                continue
            n = piece.shape[1]
            self.counts[index][0] += n
            self.audio_s += n / self.rates[index]
            last = self.counts[index][0] == self.lengths[index]
            entries.append((index, piece if anchor is None else piece.to(anchor.device, anchor.dtype), first, last))
        if entries:
            self.steps += 1
            self.filled += len(entries)
            for out in self._step(entries):
                self._give(out)

    def _step(self, entries: List[Tuple[int, Tensor, bool, bool]]) -> List[RowPiece]:
        try:
            return self.rows.step(entries)
        except Exception:
            if not self.skip:
                raise
        # One of them is to blame; a step that fails changes none.
        pieces = []
        for entry in entries:
            try:
                pieces += self.rows.step([entry])
            except Exception as error:
                self._fail(entry[0], error)
        return pieces

    # ------------------------------------------------------------------ one file

    def _begin(self, index: int) -> None:
        self.counts[index] = [0, 0]
        try:
            self.open[index] = self.sink(self.names[index])
        except Exception as error:
            self._fail(index, error)

    def _give(self, piece: RowPiece) -> None:
        index: Any = piece.id
        try:
            if piece.output is not None:
                self.counts[index][1] += piece.output.shape[-1]
                self.open[index].write(piece.output.cpu())
        except Exception as error:
            self._fail(index, error)
            return
        if piece.last:
            self._end(index)

    def _end(self, index: int) -> None:
        if index in self.over:
            return
        try:
            self.open[index].close()
        except Exception as error:
            self._fail(index, error)
            return
        del self.open[index]
        self.over[index] = True
        if self.done_list is not None:
            came, given = self.counts[index]
            self.done_list.add(self.names[index], samples=came, outputs=given)
        self.report.done.append(self.names[index])

    def _fail(self, index: int, error: Exception) -> None:
        if index in self.over:
            return
        self.over[index] = False
        self._abort(index)
        if index in self.rows:
            self.rows.drop(index)
        self.of_audio_s -= (self.lengths[index] - self.counts.get(index, [0, 0])[0]) / self.rates[index]
        self._failed(self.names[index], error)

    def _failed(self, name: str, error: Exception) -> None:
        self.report.failed[name] = f"{type(error).__name__}: {error}"
        _log.info("stream_files: %s failed: %s", name, self.report.failed[name])
        if not self.skip:
            raise error

    def _abort(self, index: int) -> None:
        abort = getattr(self.open.pop(index, None), "abort", None)
        if abort is not None:
            try:
                abort()
            except Exception as error:
                _log.info("stream_files: the writer of %s does not abort: %s", self.names[index], error)

    def _tell(self, now: bool) -> None:
        files, failed = len(self.over), len(self.report.failed)
        self.teller.tell(now, files, len(self.names), self.audio_s, self.of_audio_s, failed)
