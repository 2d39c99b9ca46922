"""First and last inputs that outputs depend on, without a mask: for long periods, of which a mask would be too large.

Only the ends travel, far from those of the signal. That is exact where each output of a layer reads something, and a
later one nothing earlier: then the first input of a span of outputs is that of its first output.
"""

from typing import Tuple

import torch
from torch import Tensor

from ..core.reach import ALWAYS
from ..core.stream import BaseStream

__all__ = ["Ends", "NoEnds", "through_taps"]

# Beyond it a place stands for one before all others.
_NEVER = ALWAYS // 2


class NoEnds(Exception):
    """Ends say too little of a layer."""


class Ends:
    """The first and the last sample that is needed for each of some outputs.

    Args:
        low: the first one, ``[columns]``
        high: the last one, ``[columns]``
    """

    def __init__(self, low: Tensor, high: Tensor) -> None:
        self.low = low
        self.high = high

    def __or__(self, other: "Ends") -> "Ends":
        return Ends(torch.minimum(self.low, other.low), torch.maximum(self.high, other.high))

    def moved(self, by: int) -> "Ends":
        """The same samples, counted from ``by`` samples earlier."""
        return Ends(torch.where(self.low <= _NEVER, self.low, self.low + by), self.high + by)

    def unbounded(self) -> "Ends":
        """All that came before too."""
        return Ends(torch.full_like(self.low, ALWAYS), self.high)

    def fields(self) -> Tuple[Tensor, Tensor]:
        """Both as numbers, the first ones infinite where there is no bound."""
        low = self.low.double()
        return torch.where(self.low <= _NEVER, -torch.inf, low), self.high.double()


def through_taps(stream: BaseStream, need: Ends) -> Ends:
    """The inputs that are needed by outputs of a layer whose reach is bounded.

    Raises:
        NoEnds: an output reads nothing, or a later one what is earlier
    """
    low, high = _ends_of_a_period(stream)
    outs, ins = stream.ratio
    first = torch.div(need.low, outs, rounding_mode="floor")
    last = torch.div(need.high, outs, rounding_mode="floor")
    oldest = low[need.low - first * outs] + first * ins
    return Ends(torch.where(need.low <= _NEVER, need.low, oldest), high[need.high - last * outs] + last * ins)


def _ends_of_a_period(stream: BaseStream) -> Tuple[Tensor, Tensor]:
    # Of the outputs of a period, as if it were the first of a signal without ends.
    reach = stream.reach
    assert reach is not None and reach.bounded
    outs, ins = stream.ratio
    far = max(abs(reach.first), abs(reach.last)) // reach.p + 1
    turns = -(-far // ins) + 1
    n = (2 * turns + 2) * ins
    n = max(n, -(-reach.shortest // ins) * ins)
    m = stream.output_length(n, True)
    begin = turns * outs
    if m < begin + 2 * outs:
        raise NoEnds
    low = torch.full([2 * outs], n)
    high = torch.full([2 * outs], -1)
    for tap in stream.taps(n, m):
        tap = tap[begin : begin + 2 * outs]
        read = (tap >= 0) & (tap < n)
        low = torch.minimum(low, torch.where(read, tap, n))
        high = torch.maximum(high, torch.where(read, tap, -1))
    periodic = torch.equal(low[:outs] + ins, low[outs:]) and torch.equal(high[:outs] + ins, high[outs:])
    if not periodic or bool((high < low).any() or (low.diff() < 0).any() or (high.diff() < 0).any()):
        raise NoEnds
    return low[:outs] - turns * ins, high[:outs] - turns * ins
