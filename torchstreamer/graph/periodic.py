"""Sizes as functions that rise by a constant with every period.

Quotients, remainders, maxima and roundings of such functions are such functions again, from some length on. So two
sizes are compared for every length by comparing a few numbers.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Callable, Dict, List, Optional, Tuple

__all__ = ["Periodic", "fraction_of", "periodic"]

_LONGEST = 1 << 14  # samples of a period
_START = 1 << 20  # from where on at the latest
_ROUNDINGS: Dict[str, Callable[[Any], int]] = {
    "CeilToInt": math.ceil, "ceiling": math.ceil, "FloorToInt": math.floor, "floor": math.floor,
    "TruncToInt": math.trunc, "TruncToFloat": math.trunc, "RoundToInt": round,
}  # fmt: skip


@dataclass(frozen=True)
class Periodic:
    """``values[(s - start) % period] + rise · ((s - start) // period)`` for ``s`` from ``start`` on.

    Args:
        start: from where on
        values: a period of it, over ``unit``
        rise: how much it rises with a period, over ``unit``
        unit: a common denominator
    """

    start: int
    values: Tuple[int, ...]
    rise: int
    unit: int = 1

    @property
    def period(self) -> int:
        """After how many samples it has risen."""
        return len(self.values)

    def __call__(self, s: int) -> Fraction:
        turns, place = divmod(s - self.start, self.period)
        return Fraction(self.values[place] + turns * self.rise, self.unit)

    def is_line(self, other: "Periodic") -> bool:
        """Whether two functions are the same where both are defined."""
        both = _together([self, other])
        return both is not None and both[0].values == both[1].values and both[0].rise == both[1].rise

    def constant(self) -> Optional[int]:
        """The whole number that it is everywhere, if it is one."""
        found = set(self.values)
        return (
            self.values[0] // self.unit
            if self.rise == 0 and len(found) == 1 and self.values[0] % self.unit == 0
            else None
        )

    def plus(self, amount: int) -> "Periodic":
        """So much more."""
        return Periodic(self.start, tuple(value + amount * self.unit for value in self.values), self.rise, self.unit)

    def minus(self, other: "Periodic") -> "Optional[Periodic]":
        """The difference."""
        both = _together([self, other])
        if both is None:
            return None
        a, b = both
        return Periodic(a.start, tuple(x - y for x, y in zip(a.values, b.values, strict=True)), a.rise - b.rise, a.unit)


def fraction_of(number: float) -> Optional[Fraction]:
    """The simple fraction that a float stands for, if products with it are rounded as those with the fraction are.

    A float that is a fraction of a power of two is itself. Another, ``p / q`` but for an error of ``2**-54`` of it at
    most, gives ``p · m`` exactly for ``q · m``, as the error is less than half of what floats there are apart.
    """
    if not math.isfinite(number):
        return None
    exact = Fraction(number)
    if exact.denominator <= 1 << 16:
        return exact
    simple = exact.limit_denominator(1 << 12)
    if simple != 0 and abs(exact / simple - 1) <= Fraction(1, 1 << 54):
        return simple
    return None


def periodic(expression: Any, root: str, known: Dict[str, int], first: int = 1) -> Optional[Periodic]:
    """An expression in one symbol as such a function, if it is one.

    Args:
        expression: of SymPy
        root: the symbol, by name
        known: values of the others
        first: the least value of the symbol
    """
    if expression.is_Symbol:
        name = str(expression)
        if name == root:
            return Periodic(first, (first,), 1)
        return Periodic(first, (known[name],), 0) if name in known else None
    if not expression.args:
        number = _number(expression)
        return None if number is None else Periodic(first, (number.numerator,), 0, number.denominator)
    name = type(expression).__name__
    parts: List[Periodic] = []
    for part in expression.args:
        found = periodic(part, root, known, first)
        if found is None:
            return None
        parts.append(found)
    if name in ("ToFloat", "Identity", "TruncToFloat") and name != "TruncToFloat":
        return parts[0]
    if name == "Add":
        return _entries(parts, lambda row: sum(row))
    if name == "Mul":
        return _product(parts)
    if name in ("Max", "Min"):
        return _extreme(parts, max if name == "Max" else min)
    if name in ("IntTrueDiv", "FloatTrueDiv", "FloorDiv", "CleanDiv", "CeilDiv", "Mod", "PythonMod"):
        divisor = _constant(parts[1])
        if divisor is None or divisor == 0 or (name not in ("IntTrueDiv", "FloatTrueDiv") and divisor.denominator > 1):
            return None
        quotient = _scaled(parts[0], 1 / divisor)
        if name in ("IntTrueDiv", "FloatTrueDiv", "CleanDiv"):
            return quotient
        whole = _rounded(quotient, math.ceil if name == "CeilDiv" else math.floor)
        if name in ("FloorDiv", "CeilDiv") or whole is None:
            return whole
        return _entries([parts[0], _scaled(whole, -divisor)], lambda row: sum(row))
    if name in _ROUNDINGS:
        return _rounded(parts[0], _ROUNDINGS[name])
    return None


def _number(expression: Any) -> Optional[Fraction]:
    if expression.is_Integer or expression.is_Rational:
        return Fraction(int(expression.p), int(expression.q))
    return fraction_of(float(expression)) if expression.is_Float else None


def _constant(part: Periodic) -> Optional[Fraction]:
    return Fraction(part.values[0], part.unit) if part.rise == 0 and len(set(part.values)) == 1 else None


def _scaled(part: Periodic, factor: Fraction) -> Periodic:
    p, q = factor.numerator, factor.denominator
    common = math.gcd(p, part.unit)
    p, unit = p // common, part.unit // common * q
    return Periodic(part.start, tuple(value * p for value in part.values), part.rise * p, unit)


def _product(parts: List[Periodic]) -> Optional[Periodic]:
    factor, rising = Fraction(1), []
    for part in parts:
        constant = _constant(part)
        if constant is None:
            rising.append(part)
        else:
            factor *= constant
    if len(rising) > 1:
        return None
    return _scaled(rising[0] if rising else Periodic(parts[0].start, (1,), 0), factor)


def _stretched(part: Periodic, start: int, period: int, unit: int) -> Periodic:
    """The same function from a later start on, with a multiple of its period and of its denominator."""
    times, at = unit // part.unit, start - part.start
    values = []
    for i in range(at, at + period):
        turns, place = divmod(i, part.period)
        values.append((part.values[place] + turns * part.rise) * times)
    return Periodic(start, tuple(values), part.rise * (period // part.period) * times, unit)


def _together(parts: List[Periodic], start: int = 0) -> Optional[List[Periodic]]:
    period = math.lcm(*(part.period for part in parts))
    start = max(start, *(part.start for part in parts))
    if period > _LONGEST or start > _START:
        return None
    unit = math.lcm(*(part.unit for part in parts))
    return [_stretched(part, start, period, unit) for part in parts]


def _entries(parts: List[Periodic], function: Callable[[Any], int]) -> Optional[Periodic]:
    found = _together(parts)
    if found is None:
        return None
    values = tuple(function(row) for row in zip(*(part.values for part in found), strict=True))
    return Periodic(found[0].start, values, function([part.rise for part in found]), found[0].unit)


def _extreme(parts: List[Periodic], function: Callable[[Any], int]) -> Optional[Periodic]:
    found = parts[0]
    for other in parts[1:]:
        both = _together([found, other])
        if both is None:
            return None
        one, two = both
        if one.rise != two.rise:
            # From where on the one that rises more is the greater, and the other the less.
            rising, low = (one, two) if one.rise > two.rise else (two, one)
            gain = rising.rise - low.rise
            behind = max(b - a for a, b in zip(rising.values, low.values, strict=True))
            start = one.start + max(-(-behind // gain), 0) * one.period
            chosen = rising if function([0, 1]) == 1 else low
            if start > _START:
                return None
            found = _stretched(chosen, start, chosen.period, chosen.unit)
        else:
            values = tuple(function(row) for row in zip(one.values, two.values, strict=True))
            found = Periodic(one.start, values, one.rise, one.unit)
    return found


def _rounded(part: Periodic, function: Callable[[Any], int]) -> Optional[Periodic]:
    unit = part.unit
    if unit == 1:
        return part
    start = part.start
    if function is math.trunc and part.rise != 0:
        # Towards 0 is downward or upward from where on the sign is settled.
        sign = 1 if part.rise > 0 else -1
        behind = max(-sign * value for value in part.values)
        start += max(-(-behind // abs(part.rise)), 0) * part.period
        function = math.floor if sign > 0 else math.ceil
    turn = 2 * unit if function is round else unit  # halves go to even numbers
    period = part.period * (turn // math.gcd(part.rise, turn))
    if period > _LONGEST or start > _START:
        return None
    long = _stretched(part, start, period, unit)
    if function is math.floor:
        values = tuple(value // unit for value in long.values)
    elif function is math.ceil:
        values = tuple(-(-value // unit) for value in long.values)
    else:
        values = tuple(function(Fraction(value, unit)) for value in long.values)
    return Periodic(start, values, long.rise // unit)
