"""Lengths as functions of the length of the input.

The export writes every size as an expression of one symbol. Here it becomes a Python function of ``n``, the length of
the first streamed input. Such functions rise by a constant with every period, from some length on; `LengthTable` holds
one so that a script can evaluate it.
"""

import math
from fractions import Fraction
from itertools import chain
from typing import Any, Callable, Iterable, List, Optional, Sequence, Tuple

import torch
from torch import nn

__all__ = ["LengthFunction", "LengthTable", "Sizes", "future_least"]

LengthFunction = Callable[[int], int]

# Functions in sizes, as the exporter names them: those that divide by their second argument, and those that round.
_EXACT = frozenset(["IntTrueDiv", "FloatTrueDiv"])
_REMAINDERS = frozenset(["Mod", "PythonMod"])
_DIVISIONS = _EXACT | _REMAINDERS | {"FloorDiv", "CleanDiv", "CeilDiv"}
_ROUNDINGS = frozenset(["CeilToInt", "FloorToInt", "TruncToInt", "RoundToInt", "ceiling", "floor"])

# Tables of lengths are no longer than this.
_LONGEST = 1 << 16
_TRIED = 4096  # and than this where no division says so


class Sizes:
    """Evaluates the sizes in a captured graph for any length of the signal.

    Args:
        root: the symbol of the time axis, by name
        rows: the symbol of the batch axis, or ''
        scale: samples of the first streamed input per unit of the root symbol
        offset: and samples besides
    """

    def __init__(self, root: str, rows: str, scale: int, offset: int) -> None:
        self.root = root
        self.rows = rows
        self.scale = scale
        self.offset = offset
        self.samples: List[int] = []  # lengths at which sizes are compared

    def periods(self, sizes: Iterable[Any]) -> List[int]:
        """Numbers of samples after which rounding may begin anew, as far as the divisions in the sizes tell."""
        found = {self.scale * _growth(expression)[0] for expression in {size.node.expr for size in sizes}}
        return sorted(period for period in found if period <= _LONGEST)

    def valid(self, n: int) -> bool:
        """Whether the first streamed input can have ``n`` samples."""
        return n >= 1 and (n - self.offset) % self.scale == 0

    def symbols(self, size: Any) -> set[str]:
        """Names of the symbols that a size depends on."""
        if isinstance(size, int):
            return set()
        return {str(symbol) for symbol in size.node.expr.free_symbols}

    def varies(self, size: Any) -> bool:
        """Whether a size depends on the length of the signal, among the lengths that can occur."""
        if self.root not in self.symbols(size):
            return False
        function = self.function(size)
        return len({function(n) for n in self.samples}) > 1 or not self.samples

    def settled(self, size: Any) -> Any:
        """The size as a number if it is the same for all lengths and rows, else as it is."""
        if isinstance(size, int) or self.varies(size) or self.has_rows(size):
            return size
        return self.at(size, self.samples[0]) if self.symbols(size) else int(size)

    def has_rows(self, size: Any) -> bool:
        """Whether a size depends on the number of rows."""
        return bool(self.rows) and self.rows in self.symbols(size)

    def function(self, size: Any, rows: int = 2) -> LengthFunction:
        """A size as a function of the length."""
        if isinstance(size, int):
            return lambda n: size
        code = compile(_python(size.node.expr), "<size>", "eval")
        root, other, scale, offset = self.root, self.rows, self.scale, self.offset
        known: dict[int, int] = {}

        def evaluate(n: int) -> int:
            if n not in known:
                names = {"math": math, "torch": torch, root: (n - offset) // scale, other or "_": rows}
                try:
                    known[n] = int(eval(code, names))
                except ZeroDivisionError:  # a size inferred beside an empty axis: the model refuses such a length
                    known[n] = 0
            return known[n]

        return evaluate

    def at(self, size: Any, n: int, rows: int = 2) -> int:
        """The size for ``n`` samples and so many rows."""
        return size if isinstance(size, int) else self.function(size, rows)(n)


def _python(expression: Any) -> str:
    from torch.utils._sympy.printers import PythonPrinter

    return str(PythonPrinter().doprint(expression))


def _growth(expression: Any) -> Tuple[int, Fraction]:
    """A number of units of the symbol after which an expression has risen by a constant, and that constant.

    For a function that is not known, its arguments must do.
    """
    if not expression.args:
        return 1, Fraction(0 if expression.is_number else 1)
    name, parts = type(expression).__name__, [_growth(argument) for argument in expression.args]
    period = math.lcm(*(length for length, _ in parts))
    rises = [rise * (period // length) for length, rise in parts]
    divisor = expression.args[1] if name in _DIVISIONS else None
    if divisor is not None and divisor.is_Integer and divisor != 0:
        turned = rises[0] / int(divisor)
        turns = 1 if name in _EXACT else turned.denominator
        return period * turns, Fraction(0) if name in _REMAINDERS else turned * turns
    if expression.is_Add or expression.is_Mul:
        factors = [Fraction(int(f.p), int(f.q)) for f in expression.args if expression.is_Mul and f.is_Rational]
        return period, math.prod(factors) * sum(rises, Fraction(0))
    turns = max(rises).denominator if name in _ROUNDINGS else 1
    return period * turns, max(rises) * turns


def future_least(values: Sequence[int], start: int, period: int, rise: int) -> List[int]:
    """For each length the least value at this or any greater length; of a table as `LengthTable` holds it."""
    longer = list(values) + [value + rise for value in values[start:]]
    least: List[int] = []
    for value in reversed(longer):
        least.append(min(value, least[-1]) if least else value)
    return least[::-1][: len(values)]


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

    def least_ahead(self) -> "LengthTable":
        """The least value at a length or beyond it, as such a function."""
        ahead = future_least(self.values, self.start, self.period, self.rise)
        return LengthTable(ahead, self.start, self.period, self.rise)

    @staticmethod
    def fit(
        function: LengthFunction, part: int, first: int, multiple: int = 1, periods: Sequence[int] = ()
    ) -> Optional["LengthTable"]:
        """The table of a function, or ``None`` if it does not rise periodically.

        Args:
            function: defined at ``first`` and beyond, at multiples of ``multiple``; below it counts as 0
            part: what a period is a multiple of. Of the multiples the first 32 are tried
            first: the least length at which the function is defined
            multiple: what the length is a multiple of. Between multiples the next one above counts
            periods: other periods to try
        """

        def value(n: int) -> int:
            n = -(-n // multiple) * multiple
            return function(n) if n >= first else 0

        part = math.lcm(part, multiple)
        few = [length for length in range(part, 33 * part, part) if length <= _TRIED]
        for length in [*few, *(math.lcm(period, part) for period in periods)]:
            if length > _LONGEST:
                continue
            base = max(first, 0)
            for start in (base, base + length, base + 4 * length, base + 64):
                start = -(-start // multiple) * multiple
                rise = value(start + length) - value(start)
                if rise <= 0:
                    continue
                # Long enough to tell a period from a plateau.
                ends = chain(range(start, start + 3 * length + 1024), range(50_021, 50_021 + length))
                if all(value(n + length) == value(n) + rise for n in ends):
                    return LengthTable([value(n) for n in range(start + length)], start, length, rise)
        return None
