"""Lengths of the values in a network, as functions of the total length of a signal, on tensors."""

from functools import lru_cache
from typing import Callable, List, Optional, Tuple

import torch
from torch import Tensor, nn

__all__ = ["OPEN", "LengthFunction", "RowLength", "least_ahead", "periodic"]

LengthFunction = Callable[[int], int]

# The length of a signal that goes on: longer than any that ends.
OPEN = 1 << 42

Periodic = Tuple[List[int], int, int, int]


def periodic(function: LengthFunction, period: int, limit: int = 1 << 18) -> Optional[Periodic]:
    """Values at ``0 … start + period - 1``, ``start``, ``period`` and the rise of a function that rises by a constant
    with every period from ``start`` on; ``None`` if it does not below ``limit``."""
    function = lru_cache(maxsize=None)(function)
    far = max(64, 2 * period)
    while far <= limit:
        # Where nothing rises, the signal is still too short to give anything.
        rise = function(far + period) - function(far)
        if rise > 0 and all(function(n + period) - function(n) == rise for n in range(far, far + 4 * period + 512)):
            start = far
            while start > 0 and function(start - 1 + period) - function(start - 1) == rise:
                start -= 1
            return [function(n) for n in range(start + period)], start, period, rise
        far *= 4
    return None


def least_ahead(table: Periodic) -> LengthFunction:
    """The least value at a length or beyond it."""
    values, start, period, rise = table
    ahead = list(values)
    for n in reversed(range(len(ahead))):
        later = ahead[n + 1] if n + 1 < len(ahead) else values[start] + rise
        ahead[n] = min(ahead[n], later)

    def least(n: int) -> int:
        if n < start:
            return ahead[n]
        turns = (n - start) // period
        return ahead[n - turns * period] + turns * rise

    return least


class RowLength(nn.Module):
    """Lengths of a value for the total length of each row; `OPEN` where that is open.

    Args:
        table: the function
    """

    values: Tensor

    def __init__(self, table: Periodic) -> None:
        super().__init__()
        values, start, period, rise = table
        self.start = start
        self.period = period
        self.rise = rise
        self.shortest, self.offset, self.closed = _closed_form(values, start, period, rise)
        if not self.closed:
            self.register_buffer("values", torch.tensor(values), persistent=False)

    def forward(self, total: Tensor) -> Tensor:
        """Lengths ``[B]`` for total lengths ``[B]``."""
        if self.closed:
            n = total * self.rise if self.rise != 1 else total
            n = n + self.offset if self.offset != 0 else n
            if self.period > 1:
                n = torch.div(n.clamp(min=0), self.period, rounding_mode="floor")
            elif self.offset < 0:
                n = n.clamp(min=0)
            if self.shortest > 0:
                n = torch.where(total < self.shortest, torch.zeros_like(n), n)
        else:
            turns = torch.div((total - self.start).clamp(min=0), self.period, rounding_mode="floor")
            place = (total - turns * self.period).clamp(0, self.start + self.period - 1)
            n = self.values.index_select(0, place) + turns * self.rise
        return torch.where(total >= OPEN, torch.full_like(n, OPEN), n)


def _closed_form(values: List[int], start: int, period: int, rise: int) -> Tuple[int, int, bool]:
    # (n · rise + offset) // period, at least 0, and 0 below a shortest length.
    low = max(period * values[n] - n * rise for n in range(start, start + period))
    high = min(period * (values[n] + 1) - 1 - n * rise for n in range(start, start + period))
    if low > high:
        return 0, 0, False
    shortest = next((n for n, value in enumerate(values) if value > 0), len(values))
    for offset in {low, high, min(max(0, low), high)}:
        formula = [max((n * rise + offset) // period, 0) for n in range(len(values))]
        if formula == values:
            return 0, offset, True
        if formula[shortest:] == values[shortest:] and not any(values[:shortest]):
            return shortest, offset, True
    return 0, 0, False
