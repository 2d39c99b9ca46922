"""Numbers of samples as functions of another number of samples. TorchScript compiles the table of this file.

All lengths in a network rise by a constant with every period, from some length on. `LengthTable` holds any such
function. Those of layers are nearly always one rounded line, `LinearLength`, which composes and compares by numbers.
"""

import math
import zlib
from dataclasses import dataclass
from itertools import chain
from typing import Any, Callable, List, Optional, Sequence

from torch import nn

__all__ = ["LengthFunction", "LengthTable", "LinearLength"]

LengthFunction = Callable[[int], int]

# Functions are also compared from here on, to tell a period from a plateau.
_FAR = 50_021


@dataclass(frozen=True)
class LinearLength:
    """``(rise · n + offset) // period`` from ``shortest`` on, 0 before, and never less than 0. Nothing comes of 0.

    Two of them are equal as functions exactly if their numbers are.

    Args:
        rise: how much it rises with a period
        offset: see above
        period: see above
        shortest: the least length at which it is defined; becomes the least at which it is above 0

    Example:
        >>> from torchstreamer.core.lengths import LinearLength
        >>> pairs, triples = LinearLength(1, 0, 2), LinearLength(1, -2, 1)
        >>> triples.after(pairs)
        LinearLength(rise=1, offset=-4, period=2, shortest=6)
    """

    rise: int
    offset: int
    period: int
    shortest: int = 1

    def __post_init__(self) -> None:
        # With a common factor g of rise and period, (g·r·n + o) // (g·p) = (r·n + o // g) // p.
        common = math.gcd(self.rise, self.period)
        rise, period, offset = self.rise // common, self.period // common, self.offset // common
        positive = -((offset - period) // rise)  # the least n with rise·n + offset ≥ period
        fields = {"rise": rise, "period": period, "offset": offset, "shortest": max(self.shortest, positive, 1)}
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def __call__(self, n: int) -> int:
        return self.formula(n) if n >= self.shortest else 0

    def formula(self, n: Any) -> Any:
        """The function where it is above 0, of a number of any kind."""
        return (self.rise * n + self.offset) // self.period

    def least(self, wanted: int) -> int:
        """The least length at which the function is at least ``wanted``, which is 1 or more."""
        return max(-((self.offset - wanted * self.period) // self.rise), self.shortest)

    def after(self, before: "LinearLength") -> "Optional[LinearLength]":
        """This function of another one, or ``None`` where their roundings do not fall together."""
        if self.rise == 1:
            rise, period = before.rise, before.period * self.period
            offset = before.offset + before.period * self.offset
        elif before.period == 1:
            rise, period = self.rise * before.rise, self.period
            offset = self.rise * before.offset + self.offset
        else:
            return None
        return LinearLength(rise, offset, period, before.least(self.shortest))


class LengthTable(nn.Module):
    """An integer function that rises by ``rise`` with every ``period``, from ``start`` on.

    Args:
        values: its values at 0 … ``start + period - 1``
        start: from where on it is periodic
        period: length of a period
        rise: how much it rises with each
    """

    values: List[int]

    def __init__(self, values: List[int], start: int, period: int, rise: int) -> None:
        super().__init__()
        assert len(values) == start + period
        self.values = values
        self.start = start
        self.period = period
        self.rise = rise

    def forward(self, n: int) -> int:
        """The value at ``n``."""
        if n < self.start:
            return self.values[max(n, 0)]
        turns = (n - self.start) // self.period
        return self.values[n - turns * self.period] + turns * self.rise

    def extra_repr(self) -> str:
        return f"{zlib.crc32(repr(self.values).encode())}, start={self.start}, period={self.period}, rise={self.rise}"

    def least_ahead(self) -> "LengthTable":
        """The least value at a length or beyond it, as such a function."""
        longer = self.values + [value + self.rise for value in self.values[self.start :]]
        least: List[int] = []
        for value in reversed(longer):
            least.append(min(value, least[-1]) if least else value)
        return LengthTable(least[::-1][: len(self.values)], self.start, self.period, self.rise)

    def linear(self) -> Optional[LinearLength]:
        """The same function as one rounded line, if it is one."""
        values, start, period, rise = self.values, self.start, self.period, self.rise
        low = max(period * values[n] - n * rise for n in range(start, start + period))
        high = min(period * (values[n] + 1) - 1 - n * rise for n in range(start, start + period))
        shortest = next((n for n, value in enumerate(values) if value > 0), len(values))
        if low > high or rise < 1 or shortest == len(values):
            return None
        found = LinearLength(rise, low, period, shortest)
        return found if [found(n) for n in range(len(values))] == values else None

    @staticmethod
    def fit(
        function: LengthFunction,
        periods: Sequence[int],
        first: int = 0,
        multiple: int = 1,
        starts: Sequence[int] = (0, 1, 4),
    ) -> Optional["LengthTable"]:
        """The table of a function, or ``None`` if it does not rise periodically.

        Args:
            function: defined at ``first`` and beyond, at multiples of ``multiple``; below it counts as 0
            periods: the periods to try, in order
            first: the least length at which the function is defined
            multiple: what the length is a multiple of. Between multiples the next one above counts
            starts: after how many periods beyond ``first`` the function may have become periodic
        """

        def value(n: int) -> int:
            n = -(-n // multiple) * multiple
            return function(n) if n >= first else 0

        for period in periods:
            for start in dict.fromkeys([*(first + turns * period for turns in starts), first + 64]):
                start = -(-max(start, 0) // multiple) * multiple
                rise = value(start + period) - value(start)
                # Long enough to tell a period from a plateau.
                ends = chain(range(start, start + 3 * period + 1024), range(_FAR, _FAR + period))
                if rise > 0 and all(value(n + period) == value(n) + rise for n in ends):
                    while start > 0 and value(start - 1 + period) == value(start - 1) + rise:
                        start -= 1
                    return LengthTable([value(n) for n in range(start + period)], start, period, rise)
        return None
