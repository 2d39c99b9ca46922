"""What is known of the numbers that a model makes masks of: how they move along time, and between which bounds.

A mask relates queries ``i`` to keys ``j``. What it is made of are numbers like ``j``, ``i // 4 * 4 - 8`` or ``T - 1``,
tensors with a time axis for ``i``, for ``j``, for both or for none. Comparing them gives what depends on the pattern
alone, if both sides move alike.
"""

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Dict, Optional, Union

__all__ = ["Distance", "Known", "Line", "Number", "Regular", "constant", "difference", "highest", "lowest", "regular"]


@dataclass(frozen=True)
class Line:
    """``slope · T + offset``, for a length ``T`` of at least 1."""

    slope: Fraction
    offset: Fraction

    def __add__(self, other: "Line") -> "Line":
        return Line(self.slope + other.slope, self.offset + other.offset)

    def times(self, factor: Fraction) -> "Line":
        """The line times a number."""
        return Line(self.slope * factor, self.offset * factor)

    def at_most(self, other: "Line", less: bool = False) -> bool:
        """Whether it is nowhere above another, or with ``less`` everywhere below it."""
        gap = Line(other.slope - self.slope, other.offset - self.offset)
        nearest = gap.slope + gap.offset
        return gap.slope >= 0 and (nearest > 0 if less else nearest >= 0)


@dataclass(frozen=True)
class Number:
    """A tensor whose entries are ``Σ rises[a] · (place on axis a) + grow · T + e``, with ``low <= e <= high``.

    What ``e`` adds repeats itself with the period of the mask, and does not depend on ``T``.

    Attributes:
        rises: by axis, counted from the last as -1; none is 0
        grow: by how much it rises with the length ``T``
        low, high: bounds of the rest
        cap: it is the least of that and of this
        floor: it is the greatest of that and of this
        exact: whether it is computed without rounding
    """

    rises: Dict[int, Fraction]
    grow: Fraction = Fraction(0)
    low: Fraction = Fraction(0)
    high: Fraction = Fraction(0)
    cap: Optional[Line] = None
    floor: Optional[Line] = None
    exact: bool = True

    @property
    def shift(self) -> Fraction:
        """By how much it rises when query and key go one further."""
        return sum(self.rises.values(), Fraction(0))

    @property
    def clamped(self) -> bool:
        """Whether it is cut off at a bound."""
        return self.cap is not None or self.floor is not None

    @property
    def settled(self) -> bool:
        """Whether it depends on the pattern alone."""
        return self.shift == 0 and self.grow == 0 and not self.clamped

    def value(self) -> Optional[Fraction]:
        """The number, if it is one and the same everywhere."""
        same = not self.rises and self.grow == 0 and self.low == self.high and not self.clamped
        return self.low if same else None

    def times(self, factor: Fraction) -> "Number":
        """The number times a constant."""
        low, high = sorted([self.low * factor, self.high * factor])
        cap = None if self.cap is None else self.cap.times(factor)
        floor = None if self.floor is None else self.floor.times(factor)
        if factor < 0:
            cap, floor = floor, cap
        rises = {axis: rise * factor for axis, rise in self.rises.items() if factor != 0}
        return Number(rises, self.grow * factor, low, high, cap, floor, self.exact)

    def plus(self, other: "Number") -> "Number":
        """The sum with another; a bound moves by what is the same everywhere."""
        rises = {axis: self.rises.get(axis, 0) + other.rises.get(axis, 0) for axis in {*self.rises, *other.rises}}
        kept = {axis: Fraction(rise) for axis, rise in rises.items() if rise != 0}
        exact = self.exact and other.exact
        made = Number(kept, self.grow + other.grow, self.low + other.low, self.high + other.high, exact=exact)
        for one, two in ((self, other), (other, self)):
            if one.clamped:
                moved = not two.rises and two.low == two.high and not two.clamped
                if not moved:
                    raise ValueError("a number that is cut off at a bound is added to one that moves")
                by = Line(two.grow, two.low)
                cap = None if one.cap is None else one.cap + by
                made = replace(made, cap=cap, floor=None if one.floor is None else one.floor + by)
        return made


@dataclass(frozen=True)
class Regular:
    """A tensor that depends on the pattern alone: on ``j - i``, and on ``i`` up to whole periods.

    Attributes:
        left: its value at all keys that stand more than ``reach`` before the query; ``None`` if that is not known
        right: the same at all keys more than ``reach`` after it
        reach: how far it may be anything else
    """

    left: Optional[float] = None
    right: Optional[float] = None
    reach: int = 0


@dataclass(frozen=True)
class Distance(Regular):
    """``|rise · (i - j) + e|``, with ``|e| <= spread``."""

    rise: Fraction = Fraction(1)
    spread: Fraction = Fraction(0)

    def beyond(self, bound: Fraction) -> int:
        """From how far on it is above a bound."""
        return int((abs(bound) + self.spread) / self.rise) + 1


Known = Union[Number, Regular]


def constant(value: Any) -> Known:
    """A number that is the same everywhere."""
    value = float(value) if isinstance(value, float) else int(value)
    if value != value or value in (float("inf"), -float("inf")):
        return Regular(value, value)
    return Number({}, low=Fraction(value), high=Fraction(value))


def regular(value: Known) -> Optional[Regular]:
    """The value as one that depends on the pattern alone; ``None`` if it does not."""
    if isinstance(value, Regular):
        return value
    if not value.settled:
        return None
    number = value.value()
    far = None if number is None else float(number)
    return Regular(far, far)


def difference(one: Number, other: Number) -> Number:
    """Their difference, whatever bounds cut them off."""
    return replace(one, cap=None, floor=None).plus(replace(other, cap=None, floor=None).times(Fraction(-1)))


def _bound(number: Number, lengths: Dict[int, Line], high: bool) -> Optional[Line]:
    line = Line(number.grow, number.high if high else number.low)
    for axis, rise in number.rises.items():
        if (rise > 0) == high:
            if axis not in lengths:
                return None
            last = lengths[axis] + Line(Fraction(0), Fraction(-1))
            line = line + last.times(rise)
    return line


def highest(number: Number, lengths: Dict[int, Line]) -> Optional[Line]:
    """What the number is never above, if that is known, with what is known of the lengths of axes."""
    found = _bound(number, lengths, True)
    if number.cap is not None and (found is None or number.cap.at_most(found)):
        found = number.cap
    if number.floor is not None and found is not None and not number.floor.at_most(found):
        return None
    return found


def lowest(number: Number, lengths: Dict[int, Line]) -> Optional[Line]:
    """What the number is never below, if that is known."""
    found = _bound(number, lengths, False)
    if number.floor is not None and (found is None or found.at_most(number.floor)):
        found = number.floor
    if number.cap is not None and found is not None and not found.at_most(number.cap):
        return None
    return found
