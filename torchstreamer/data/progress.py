"""Where an epoch stands, and how that is said to the processes that read on, and saved."""

from typing import Any, Dict, List, Optional, Sequence, Tuple

from .seats import Cursor, Part, Seats
from .workers import Orders

__all__ = ["Place", "Progress"]


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
    """

    def __init__(self, start: Place, shares: Sequence[range]) -> None:
        self.start = start
        self.batch = start.batch
        self.running = False
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
        start = self.start
        if self.batch == start.batch:
            return start
        cursors: List[Cursor] = []
        drawn: List[int] = []
        for after, begun in zip(self._after, start.orders(self._shares, 0, 1), strict=True):
            if after is None:  # nothing came from this process: its rows stand where they stood
                cursors += begun.cursors or [Cursor(0, 0)] * (len(self._shares[len(drawn)]))
                drawn.append(begun.drawn)
            else:
                seats, age = after
                cursors += seats.cursors(age)
                drawn.append(seats.drawn)
        return Place(start.epoch, self.batch, cursors, drawn)
