"""Where an epoch stands, and how that is said to the processes that read on, and saved."""

from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from .seats import Cursor, Part, Seats
from .workers import Orders

__all__ = ["Mark", "Place", "Progress"]


class Place:
    """A place in an epoch.

    Args:
        epoch: its number
        batch: how many batches lie before it
        cursors: what each row reads next; ``None`` at the start
        drawn: how many streams the rows of each process have taken
    """

    def __init__(
        self, epoch: int, batch: int = 0, cursors: Optional[List[Cursor]] = None, drawn: Sequence[int] = ()
    ) -> None:
        self.epoch = epoch
        self.batch = batch
        self.cursors = cursors
        self.drawn = list(drawn)

    @staticmethod
    def of(state: Dict[str, Any]) -> "Place":
        """The place that a state tells."""
        cursors = None if state["cursors"] is None else [Cursor(*map(int, cursor)) for cursor in state["cursors"]]
        return Place(int(state["epoch"]), int(state["batch"]), cursors, list(map(int, state["drawn"])))

    def state_dict(self) -> Dict[str, Any]:
        """Numbers and lists that tell the place."""
        return {
            "epoch": self.epoch,
            "batch": self.batch,
            "cursors": None if self.cursors is None else [list(cursor) for cursor in self.cursors],
            "drawn": list(self.drawn),
        }

    def orders(self, shares: Sequence[range], rank: int, world_size: int) -> List[Orders]:
        """What each process is told to read, by the rows of each."""
        drawn = self.drawn if len(self.drawn) == len(shares) else [0] * len(shares)
        return [
            Orders(self.epoch, rank, world_size, self.cursors and self.cursors[rows.start : rows.stop], taken)
            for rows, taken in zip(shares, drawn, strict=True)
        ]


class Progress:
    """How far an epoch has come since a place in it.

    Args:
        start: the place
        shares: the rows of each process

    Attributes:
        start: the place
        batch: how many batches lie before where it stands now
        running: whether batches are being read
        ended: whether the epoch has come to its end
    """

    def __init__(self, start: Place, shares: Sequence[range]) -> None:
        self.start = start
        self.batch = start.batch
        self.running = False
        self.ended = False
        self._shares = shares
        self._after: List[Optional[Tuple[Seats, int]]] = [None] * len(shares)

    def advance(self, came: Sequence[Optional[Part]]) -> None:
        """Note a batch, by what came for it from each process."""
        self.batch += 1
        for number, part in enumerate(came):
            if part is not None:
                self._after[number] = part.after

    def place(self) -> Place:
        """The place after the last batch."""
        return self._place(self.batch, self._after)

    def mark(self) -> "Mark":
        """What a batch carries to tell the place after it."""
        batch, after = self.batch, tuple(self._after)
        return Mark(
            lambda: Place(self.start.epoch + 1) if self.ended and batch == self.batch else self._place(batch, after)
        )

    def _place(self, batch: int, after_it: Sequence[Optional[Tuple[Seats, int]]]) -> Place:
        start = self.start
        if batch == start.batch:
            return start
        cursors: List[Cursor] = []
        drawn: List[int] = []
        for after, begun in zip(after_it, start.orders(self._shares, 0, 1), strict=True):
            if after is None:  # nothing came from this process: its rows stand where they stood
                cursors += begun.cursors or [Cursor(0, 0)] * (len(self._shares[len(drawn)]))
                drawn.append(begun.drawn)
            else:
                seats, age = after
                cursors += seats.cursors(age)
                drawn.append(seats.drawn)
        return Place(start.epoch, batch, cursors, drawn)


class Mark:
    """The place after a batch, found when it is asked for.

    All marks are equal: they stand in batches, and batches of one structure are compared by it.

    Args:
        find: gives the place
    """

    def __init__(self, find: Callable[[], Place]) -> None:
        self.find = find

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mark)

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        place = self.find()
        return f"Mark(epoch={place.epoch}, batch={place.batch})"

    def __deepcopy__(self, memo: Any) -> "Mark":
        return self

    def __reduce__(self) -> Any:
        return _marked, (self.find().state_dict(),)


def _marked(state: Dict[str, Any]) -> Mark:
    place = Place.of(state)
    return Mark(lambda: place)
