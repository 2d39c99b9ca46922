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
        count: the number of processes
    """

    def __init__(self, start: Place, count: int) -> None:
        self.batch = start.batch
        self._start = start
        self._after: List[Optional[Tuple[Seats, int]]] = [None] * count

    def advance(self, came: Sequence[Optional[Part]]) -> None:
        """Note a batch, by what came for it from each process."""
        self.batch += 1
        for number, part in enumerate(came):
            if part is not None:
                self._after[number] = part.after

    def place(self) -> Place:
        """The place behind the last batch."""
        if self.batch == self._start.batch:
            return self._start
        cursors: List[Cursor] = []
        drawn = []
        for after in self._after:
            assert after is not None
            seats, age = after
            cursors += seats.cursors(age)
            drawn.append(seats.drawn)
        return Place(self._start.epoch, self.batch, cursors, drawn)
