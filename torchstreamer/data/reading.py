"""The rows of one process, read chunk by chunk: streams are opened, followed to their end, and the next ones taken."""

import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Callable, Dict, Generator, Iterable, Iterator, List, Optional, Sequence, Tuple

from ..errors import StreamReadError
from .info import READING, StreamInfo
from .plan import Plan, derive_seed
from .seats import Cursor, Part, Seats
from .stacking import stack
from .trees import Number, TimeDim

__all__ = ["Reading", "RowsReader"]

_END = object()  # stands for the chunk after the last


@dataclass(frozen=True)
class Reading:
    """How the streams of a dataset are read.

    Attributes:
        streams: what each stream is opened from
        streamer: opens one: gives an iterable of chunks
        seed: of the dataset
        reread: whether a row without a stream reads earlier ones again
        in_time: whether a row takes its next stream when it needs one, from those of all rows of its process
        skip: whether a stream that fails is left out from there on; otherwise the reading ends
        threads: how many rows are read side by side; 0 for one after the other
        time_dim: axis of time of a chunk
        fill: stands after shorter chunks
    """

    streams: Sequence[Any]
    streamer: Callable[[Any], Iterable[Any]]
    seed: int
    reread: bool
    in_time: bool
    skip: bool
    threads: int
    time_dim: TimeDim
    fill: Number


@dataclass
class _Draw:
    # Streams in the order in which they are taken: ``own``; then, where data is read again, these once more and all
    # others, over and over.
    own: Sequence[int]
    order: Sequence[int]
    reread: bool
    turned: int  # at which of the others it begins
    drawn: int = 0
    others: Optional[List[int]] = None

    def __call__(self, own: bool) -> Optional[Tuple[int, int, bool]]:
        turn = self.drawn
        if (turn < len(self.own)) != own:
            return None
        found = self.at(turn)
        if found is None:
            return None
        self.drawn += 1
        return turn, found[0], found[1]

    def at(self, turn: int) -> Optional[Tuple[int, bool]]:
        if turn < len(self.own):
            return self.own[turn], True
        if not self.reread or not self.order:
            return None
        at = (turn - len(self.own)) % len(self.order)
        if at < len(self.own):
            return self.own[at], False
        if self.others is None:
            gone = set(self.own)
            others = [index for index in self.order if index not in gone]
            start = self.turned % len(others)
            self.others = others[start:] + others[:start]
        return self.others[at - len(self.own)], False


@dataclass
class _Row:
    number: int
    draw: _Draw
    turn: int = -1
    index: int = -1
    valid: bool = False
    seated: bool = False  # whether it has a stream, be it one that failed
    info: Optional[StreamInfo] = None
    chunks: Optional[Iterator[Any]] = None
    chunk: int = 0  # the number of the waiting one
    waiting: Any = None  # the next chunk; None where there is none


@dataclass
class _Failed:
    # What ended a stream before its time.
    error: Exception
    text: str


class RowsReader:
    """Reads some rows of a batch, for one epoch.

    Args:
        reading: how
        plan: which streams, in which row
        rows: the rows that are read here
        epoch: its number
        cursors: where the rows stand, to go on from there
        drawn: how many streams all rows have taken, to go on from there
        collated: whether chunks are stacked; otherwise a part's data is the list of them, as they came
        alone: whether these are all rows there are: then nothing is read again once none of them counts
    """

    def __init__(
        self,
        reading: Reading,
        plan: Plan,
        rows: range,
        epoch: int,
        cursors: Optional[Sequence[Cursor]] = None,
        drawn: int = 0,
        collated: bool = True,
        alone: bool = False,
    ) -> None:
        self.reading = reading
        self.epoch = epoch
        self.collated = collated
        self.alone = alone
        if reading.in_time:
            # In the order of the epoch, not row by row.
            here = {index for row in rows for index in plan.rows[row]}
            pool = [index for index in plan.order if index in here]
            draws = [_Draw(pool, plan.order, reading.reread, rows.start, drawn)] * len(rows)
        else:
            turns = [cursor.turn for cursor in cursors] if cursors else [0] * len(rows)
            draws = [
                _Draw(plan.rows[row], plan.order, reading.reread, row, turn)
                for row, turn in zip(rows, turns, strict=True)
            ]
        self.rows = [_Row(row, draw) for row, draw in zip(rows, draws, strict=True)]
        self.resumed = cursors
        self.error: Optional[StreamReadError] = None
        self.skipped: Dict[int, str] = {}

    def parts(self) -> Generator[Part, None, None]:
        """One part after the other; without end where data is read again.

        Raises:
            StreamReadError: a stream failed, and is not to be skipped; all that was read before it is out
        """
        threads = self.reading.threads
        self.pool = ThreadPoolExecutor(threads, "torchstreamer-row") if threads else None
        try:
            self._start()
            seats = self._sit()
            while self.error is None and seats.rows and (seats.live or not self.alone):
                seats = yield from self._until_a_change(seats)
            if self.skipped:
                yield Part(None, None, seats._replace(rows=[], live=False), 0, None, (seats, 0), self._reported())
            if self.error is not None:
                raise self.error
        finally:
            if self.pool is not None:
                self.pool.shutdown(wait=True, cancel_futures=True)
            for row in self.rows:
                self._close(row)

    # ------------------------------------------------------------------ one step

    def _until_a_change(self, seats: Seats) -> Generator[Part, None, Seats]:
        present = [row for row in self.rows if row.waiting is not None]
        chunks = [row.waiting for row in present]
        age = 0
        while True:
            # A stream may hand out one buffer again and again, so it goes on only when its chunk was copied.
            if self.collated:
                data, lengths = stack(chunks, seats.ids, self.reading.time_dim, self.reading.fill)
                chunks = self._read_all(present)
                if not self._changed(chunks):
                    yield Part(data, lengths, seats, age, None, (seats, age + 1), {})
                else:
                    last = self._change(present, chunks, age)
                    after = self._sit()
                    yield Part(data, lengths, seats, age, last, (after, 0), self._reported())
                    return after
            else:
                yield Part(chunks, None, seats, age, None, (seats, age + 1), self._reported())
                chunks = self._read_all(present)
                if self._changed(chunks):
                    self._change(present, chunks, age)
                    return self._sit()
            age += 1

    def _sit(self) -> Seats:
        present = [row for row in self.rows if row.waiting is not None]
        valid = [row.valid for row in present]
        return Seats(
            rows=[row.number for row in present],
            ids=[row.index for row in present],
            chunks=[row.chunk for row in present],
            valid=valid,
            live=any(valid),
            turns=[row.turn if row.seated else row.draw.drawn for row in self.rows],
            next=[row.chunk if row.seated else 0 for row in self.rows],
            moving=[row.waiting is not None for row in self.rows],
            drawn=self.rows[0].draw.drawn,
        )

    def _reported(self) -> Dict[int, str]:
        skipped, self.skipped = self.skipped, {}
        return skipped

    def _read_all(self, present: List[_Row]) -> List[Any]:
        # The next chunk of every row, or what ended its stream.
        if self.pool is not None:
            return list(self.pool.map(_read, present))
        found = []
        outside = getattr(READING, "info", None)
        try:
            for row in present:
                READING.info = row.info
                try:
                    chunk = next(row.chunks)  # type: ignore[arg-type]
                except StopIteration:
                    chunk = _END
                except Exception as error:
                    chunk = _Failed(error, _told(error, "read"))
                found.append(_checked(chunk) if chunk is None else chunk)
        finally:
            READING.info = outside
        return found

    def _changed(self, chunks: List[Any]) -> bool:
        return any([chunk is _END or type(chunk) is _Failed for chunk in chunks])

    def _change(self, present: List[_Row], chunks: List[Any], age: int) -> List[bool]:
        # Streams that have ended make room; which ones have.
        last = []
        for row, chunk in zip(present, chunks, strict=True):
            row.chunk += age + 1
            row.waiting = None if chunk is _END or type(chunk) is _Failed else chunk
        for row, chunk in zip(present, chunks, strict=True):
            failed = type(chunk) is _Failed
            if failed and self.error is None:
                self._fail(row, chunk)
            last.append(chunk is _END or (failed and self.reading.skip))
        self._fill()
        return last

    # ------------------------------------------------------------------ streams for rows

    def _start(self) -> None:
        entering = []
        for row, cursor in zip(self.rows, self.resumed or [Cursor(0, 0)] * len(self.rows), strict=True):
            found = row.draw.at(cursor.turn)
            if found is None or not (cursor.chunk or (self.reading.in_time and self.resumed)):
                continue
            if self.reading.in_time and cursor.turn >= row.draw.drawn:
                continue  # of a row that had ended
            if not self.reading.in_time:
                row.draw.drawn = cursor.turn + 1
            entering.append((row, (cursor.turn, *found), cursor.chunk))
        self._enter(entering)
        self._fill()

    def _fill(self) -> None:
        # Streams for the rows that have none: those that count first, then others again.
        self._fill_from(own=True)
        if not self.alone or any([row.valid and row.waiting is not None for row in self.rows]):
            self._fill_from(own=False)

    def _fill_from(self, own: bool) -> None:
        # In turns, so that streams can be opened side by side. When all there are were opened in vain, rows stay empty.
        vain = 0
        while vain <= len(self.rows[0].draw.order):
            entering = []
            for row in self.rows:
                if row.waiting is None and self.error is None:
                    self._close(row)
                    found = row.draw(own)
                    if found is not None:
                        entering.append((row, found, 0))
            if not entering:
                return
            self._enter(entering)
            vain = 0 if any([row.waiting is not None for row, _, _ in entering]) else vain + 1

    def _enter(self, entering: List[Tuple[_Row, Tuple[int, int, bool], int]]) -> None:
        # Open streams and read the first chunk of each, or a later one.
        for row, found, chunk in entering:
            row.turn, row.index, row.valid = found
            row.seated = True
            row.chunk = chunk
            row.info = StreamInfo(row.index, self.epoch, derive_seed(self.reading.seed, self.epoch, row.index))
        rows = [row for row, _, _ in entering]
        for row, came in zip(rows, (map if self.pool is None else self.pool.map)(self._open, rows), strict=True):
            if type(came) is not _Failed:
                row.waiting = None if came is _END else came
            elif self.error is None:
                self._fail(row, came)

    # ------------------------------------------------------------------ one stream

    def _open(self, row: _Row) -> Any:
        outside, READING.info = getattr(READING, "info", None), row.info
        try:
            stream = self.reading.streamer(self.reading.streams[row.index])
            if row.chunk and hasattr(stream, "iterate_from"):
                row.chunks = iter(stream.iterate_from(row.chunk))
            else:
                row.chunks = iter(stream)
                for _ in range(row.chunk):
                    next(row.chunks, None)
        except Exception as error:
            return _Failed(error, _told(error, "opened"))
        finally:
            READING.info = outside
        return _read(row)

    def _close(self, row: _Row) -> None:
        close = getattr(row.chunks, "close", None)
        row.chunks = row.waiting = None
        row.seated = False
        if callable(close):
            try:
                close()
            except Exception as error:
                self.skipped.setdefault(row.index, self._message(row, _told(error, "closed")))

    def _fail(self, row: _Row, failed: _Failed) -> None:
        row.waiting = None
        message = self._message(row, failed.text)
        if self.reading.skip:
            self.skipped.setdefault(row.index, message)
            return
        self.error = StreamReadError(
            f"{message}; mend the stream, or leave such streams out with on_error='skip'", row.index
        )
        self.error.__cause__ = failed.error

    def _message(self, row: _Row, text: str) -> str:
        stream = _shown(self.reading.streams[row.index], most=300)  # paths are long
        return f"stream_failed: stream {row.index} ({stream}), chunk {row.chunk}: {text}"


def _read(row: _Row) -> Any:
    # The next chunk of a row, or what ended its stream.
    outside, READING.info = getattr(READING, "info", None), row.info
    assert row.chunks is not None
    try:
        return _checked(next(row.chunks, _END))
    except Exception as error:
        return _Failed(error, _told(error, "read"))
    finally:
        READING.info = outside


def _checked(chunk: Any) -> Any:
    if chunk is not None:
        return chunk
    return _Failed(ValueError("None"), "it gave None; a chunk was expected; end the iteration where the stream ends")


def _told(error: Exception, doing: str) -> str:
    # With the place in the streamer's own code.
    frames = traceback.extract_tb(error.__traceback__)[1:]
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__} while it was {doing}: {_shown(error, str, 500)}{where}"


def _shown(thing: Any, words: Callable[[Any], str] = repr, most: int = 80) -> str:
    try:
        text = words(thing)
    except Exception:  # its own code
        text = f"a {type(thing).__name__}"
    return text if len(text) <= most else f"{text[: most - 3]}..."
