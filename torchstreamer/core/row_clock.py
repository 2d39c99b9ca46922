"""`RowClock`: how many samples each row has had. TorchScript compiles this file."""

from typing import Any, Iterator, List, Sequence, Tuple

import torch
from torch import Tensor

from ..errors import StreamInputError
from .cell import Cell

__all__ = ["RowClock", "too_long"]


def too_long(t: int, came: int, longest: int) -> str:
    """What is wrong with ``t`` samples after others, where a signal is no longer than that."""
    return (
        f"signal_too_long: a chunk of {t} samples came after {came}; a signal of up to {longest} was expected, by the "
        "max_length of a context, or the end of a table; end it before, or make the stream with more"
    )


class RowClock(Cell):
    """How many samples have come in each row, ``[B]`` int64: data of the row, so rows of different age share a batch.

    Whether every row has had `enough` is known without asking the tensor, but after a state was set. It is part of the
    phase, since a step may leave out then what only young rows need.

    Args:
        enough: from so many samples on rows count as old
        endless: whether it counts further than that; otherwise it stops there, and costs nothing then
    """

    def __init__(self, enough: int, endless: bool = False) -> None:
        super().__init__(["samples"], ["samples"])
        self.enough = enough
        self.endless = endless
        self.known = -1  # samples that came in every row at least; -1 if that is to be asked

    def begin(self, x: Tensor) -> None:
        """Start with 0 samples in each row of ``x``."""
        self._hold([torch.zeros([x.size(0)], dtype=torch.int64, device=x.device)])
        self.known = 0

    def old(self) -> bool:
        """Whether every row has had `enough`."""
        if self.known < 0 and len(self.held) > 0:
            self.known = min(int(self.held[0].min().item()), self.enough)
        return self.known >= self.enough

    def count(self) -> Tensor:
        """Samples that came, ``[B]``; no more than `enough` of them, unless it is endless."""
        return self.rows()[0]

    def advance(self, t: int) -> None:
        """So many more came."""
        if self.endless:
            self._hold([self.count() + t])
        elif not self.old():
            self._hold([(self.count() + t).clamp(max=self.enough)])
        if self.known >= 0:
            self.known = min(self.known + t, self.enough)

    def require_room(self, t: int, longest: int) -> None:
        """Refuse ``t`` more samples where a signal would be longer than that.

        Raises:
            StreamInputError: ``signal_too_long``
        """
        came = int(self.held[0].max().item()) if len(self.held) > 0 else 0
        if came + t > longest:
            raise StreamInputError(too_long(t, came, longest))

    def forget(self) -> None:
        """Hold nothing, as before the first chunk."""
        held: List[Tensor] = []
        self.held = held
        self.known = -1

    def phase(self) -> Tuple[int, ...]:
        return len(self.held), int(self.old())

    def shape(self) -> Tuple[int, ...]:
        return len(self.held), 0

    def lasting(self) -> bool:
        return len(self.held) == 0 or self.old()

    def put(self, phase: Sequence[int], tensors: Iterator[Tensor]) -> None:
        self.held = [next(tensors) for _ in range(phase[0])]
        self.known = self.enough if phase[1] else 0 if phase[0] else -1

    def __prepare_scriptable__(self) -> "RowClock":
        clock = type(self)(self.enough, self.endless)
        clock.fold = self.fold
        clock.ranks = list(self.ranks)
        clock.like = self.like.new_empty([0])
        return clock

    def __setattr__(self, name: str, value: Any) -> None:
        # nn.Module searches all its tables first.
        if name == "held" or name == "known":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def extra_repr(self) -> str:
        return f"{self.enough}, endless={self.endless}"
