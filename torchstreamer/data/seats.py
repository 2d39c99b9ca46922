"""Who sits in the rows of a batch, and what was read there."""

from typing import Any, Dict, List, NamedTuple, Optional, Tuple

__all__ = ["Cursor", "Part", "Seats"]


class Cursor(NamedTuple):
    """Where a row stands: ``turn``, the number of the stream in what the row draws from, and ``chunk``, its next."""

    turn: int
    chunk: int


class Seats(NamedTuple):
    """Which streams sit in the rows, from one change to the next.

    Attributes:
        rows: those that have a chunk
        ids: their streams
        chunks: the numbers of their chunks when the streams sat down so
        valid: whether they count
        live: whether one of them does
        turns: of all rows, as in `Cursor`
        next: of all rows, the number of the next chunk, when the streams sat down so
        moving: of all rows, whether they have a chunk
        drawn: how many streams all rows have taken
    """

    rows: List[int]
    ids: List[int]
    chunks: List[int]
    valid: List[bool]
    live: bool
    turns: List[int]
    next: List[int]
    moving: List[bool]
    drawn: int

    def cursors(self, age: int) -> List[Cursor]:
        """Where all rows stand, so many chunks later."""
        return [
            Cursor(turn, chunk + age * moves)
            for turn, chunk, moves in zip(self.turns, self.next, self.moving, strict=True)
        ]


class Part(NamedTuple):
    """The chunks of some rows of a batch.

    Attributes:
        data: the chunks of ``seats.rows``, stacked, or a list of them
        lengths: of them, where they are stacked
        seats: who sits in the rows
        age: chunks since they sat down
        last: which of them are the last of their stream; ``None``: none, or unknown where chunks are not stacked
        after: who sits there next
        skipped: streams that failed since the part before
    """

    data: Any
    lengths: Any
    seats: Seats
    age: int
    last: Optional[List[bool]]
    after: Tuple[Seats, int]
    skipped: Dict[int, str]
