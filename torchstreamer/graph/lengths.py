"""Lengths as functions of the length of the input.

The export writes every size as an expression of one symbol. Here it becomes a Python function of ``n``, the length of
the first streamed input. Nearly all are one rounded line; such functions are compared by their numbers.
"""

import math
from fractions import Fraction
from typing import Any, Dict, Iterable, List, Optional, Set, Tuple

import torch

from ..core.lengths import LengthFunction, LinearLength
from .periodic import Periodic, periodic

__all__ = ["Lengthened", "Sizes", "form_of", "line_of"]

# Functions in sizes, as the exporter names them: those that divide by their second argument, and those that round.
_EXACT = frozenset(["IntTrueDiv", "FloatTrueDiv"])
_REMAINDERS = frozenset(["Mod", "PythonMod"])
_DIVISIONS = _EXACT | _REMAINDERS | {"FloorDiv", "CleanDiv", "CeilDiv"}
_ROUNDINGS = frozenset(["CeilToInt", "FloorToInt", "TruncToInt", "RoundToInt", "ceiling", "floor"])

# Periods are no longer than this.
_LONGEST = 1 << 16


class Sizes:
    """Evaluates the sizes in a captured graph for any length of the signal.

    Args:
        root: the symbol of the time axis, by name
        rows: the symbol of the batch axis, or ''
        scale: samples of the first streamed input per unit of the root symbol
        offset: and samples besides
        remainders: expressions that stand for others, see `remainders`
    """

    def __init__(
        self, root: str, rows: str, scale: int, offset: int, remainders: Optional[Dict[Any, Any]] = None
    ) -> None:
        self.root = root
        self.rows = rows
        self.scale = scale
        self.offset = offset
        self.remainders = remainders or {}
        self.samples: List[int] = []  # lengths at which sizes are compared
        self._symbols: Dict[Any, Set[str]] = {}
        self._with_rows: Dict[Any, bool] = {}
        self._functions: Dict[Tuple[Any, int], _SizeFunction] = {}

    def look_at(self, samples: List[int]) -> None:
        """Compare sizes at these lengths from now on."""
        self.samples = samples
        self._with_rows.clear()

    def periods(self, sizes: Iterable[Any]) -> List[int]:
        """Numbers of samples after which rounding may begin anew, as far as the divisions in the sizes tell."""
        found = {self.scale * _growth(expression)[0] for expression in {self._expression(size) for size in sizes}}
        return sorted(period for period in found if period <= _LONGEST)

    def symbols(self, size: Any) -> Set[str]:
        """Names of the symbols that a size depends on."""
        if isinstance(size, int):
            return set()
        expression = size.node.expr
        if expression not in self._symbols:
            self._symbols[expression] = {str(symbol) for symbol in expression.free_symbols}
        return self._symbols[expression]

    def varies(self, size: Any) -> bool:
        """Whether a size depends on the length of the signal, among the lengths that can occur."""
        if self.root not in self.symbols(size):
            return False
        function = self.function(size)
        if line_of(function) is not None or not self.samples:
            return True
        return len({function(n) for n in self.samples}) > 1

    def settled(self, size: Any) -> Any:
        """The size as a number if it is the same for all lengths and rows, else as it is."""
        if isinstance(size, int) or self.varies(size) or self.has_rows(size):
            return size
        return self.at(size, self.samples[0]) if self.symbols(size) else int(size)

    def has_rows(self, size: Any) -> bool:
        """Whether a size depends on the number of rows, among those that are looked at."""
        if not self.rows or self.rows not in self.symbols(size):
            return False
        expression = size.node.expr
        if expression.is_Symbol or not self.samples:
            return True
        if expression not in self._with_rows:
            few = [*self.samples[:8], self.samples[-1]]
            self._with_rows[expression] = any(
                self.at(size, n, rows) != self.at(size, n, 1) for n in few for rows in (2, 3, 7)
            )
        return self._with_rows[expression]

    def function(self, size: Any, rows: int = 2) -> LengthFunction:
        """A size as a function of the length."""
        if isinstance(size, int):
            return lambda n: size
        expression = self._expression(size)
        if (expression, rows) not in self._functions:
            self._functions[expression, rows] = _SizeFunction(self, expression, rows)
        return self._functions[expression, rows]

    def _expression(self, size: Any) -> Any:
        found = size.node.expr
        return found.xreplace(self.remainders) if self.remainders else found

    def end(self, size: Any) -> LengthFunction:
        """A place in a signal as a function of the length of the first; below 0 if it is counted from the end."""
        place = self.function(size)
        if isinstance(size, int) or self._expression(size) == size.node.expr:
            return place
        plain = Sizes(self.root, self.rows, self.scale, self.offset).function(size)
        if any(plain(n) >= 0 for n in self.samples):
            return place
        far = 1 << 62  # where it is counted from the end, 0 is the end itself
        return lambda n: place(n) or far

    def same(self, one: LengthFunction, other: LengthFunction) -> Optional[bool]:
        """Whether two lengths are equal at every length that is looked at and beyond; ``None`` if that is not known."""
        first, second = form_of(one), form_of(other)
        if first is None or second is None or not self.samples:
            return None
        least = (min(self.samples) - self.offset) // self.scale
        return first.is_line(second) or None if max(first.start, second.start) <= least else None

    def at(self, size: Any, n: int, rows: int = 2) -> int:
        """The size for ``n`` samples and so many rows."""
        return size if isinstance(size, int) else self.function(size, rows)(n)


class _SizeFunction:
    """A size as a function of the length.

    Attributes:
        line: the same as a rounded line, if it is one; from some length on
        form: the same as a periodic function of the symbol, if it is one; from some value on
    """

    def __init__(self, sizes: Sizes, expression: Any, rows: int) -> None:
        self.code = compile(_python(expression), "<size>", "eval")
        self.names = {"math": math, "torch": torch, sizes.rows or "_": rows}
        self.sizes = sizes
        self.known: Dict[int, int] = {}
        self.line: Optional[LinearLength] = None
        found = _rounded(expression, sizes.root, {sizes.rows: rows})
        if found is not None and found[0] > 0:
            self.line = LinearLength(*found).after(LinearLength(1, -sizes.offset, sizes.scale))
        self.form = periodic(expression, sizes.root, {sizes.rows: rows})
        if self.form is not None and self.form.unit > 1:
            self.form = None  # a quotient that the exporter takes for a whole number

    def __call__(self, n: int) -> int:
        if n not in self.known:
            symbol = (n - self.sizes.offset) // self.sizes.scale
            if self.form is not None and symbol >= self.form.start:
                self.known[n] = int(self.form(symbol))  # exact, where floats round what is far
                return self.known[n]
            self.names[self.sizes.root] = symbol
            try:
                self.known[n] = int(eval(self.code, self.names))
            except ZeroDivisionError:  # a size inferred beside an empty axis: the model refuses such a length
                self.known[n] = 0
        return self.known[n]


class Lengthened:
    """A length and so many samples more, or fewer.

    Attributes:
        line: the same as a rounded line, if it is one; from some length on
        form: the same as a periodic function, if it is one
    """

    def __init__(self, length: LengthFunction, amount: int) -> None:
        self.length = length
        self.amount = amount
        line = line_of(length)
        self.line = None if line is None else LinearLength(line.rise, line.offset + amount * line.period, line.period)
        form = form_of(length)
        self.form = None if form is None else form.plus(amount)

    def __call__(self, n: int) -> int:
        return self.length(n) + self.amount


def line_of(length: LengthFunction) -> Optional[LinearLength]:
    """The rounded line that a length is, from some length on; ``None`` if it is none, or not known to be one."""
    return length if isinstance(length, LinearLength) else getattr(length, "line", None)


def form_of(length: LengthFunction) -> Optional[Periodic]:
    """The periodic function of the symbol that a length is, from some value on; ``None`` if that is not known."""
    found: Optional[Periodic] = getattr(length, "form", None)
    return found


def _rounded(expression: Any, root: str, known: Dict[str, int]) -> Optional[Tuple[int, int, int]]:
    """An expression as ``(rise · symbol + offset) // period``, if it is one."""
    if expression.is_Integer:
        return 0, int(expression), 1
    if expression.is_Symbol:
        name = str(expression)
        return (1, 0, 1) if name == root else (0, known[name], 1) if name in known else None
    name, parts = type(expression).__name__, [_rounded(part, root, known) for part in expression.args]
    lines = [part for part in parts if part is not None]
    rounded = [line for line in lines if line[2] > 1]
    if len(lines) < len(parts) or len(rounded) > 1:
        return None
    if name == "Add":
        period = math.prod(line[2] for line in lines)
        # A whole number goes into the quotient: x // p + y = (x + p·y) // p.
        scaled = [(line if line[2] == period else (line[0] * period, line[1] * period)) for line in lines]
        return sum(line[0] for line in scaled), sum(line[1] for line in scaled), period
    if name == "Mul" and not rounded:
        rising = [line for line in lines if line[0] != 0]
        factor = math.prod(line[1] for line in lines if line[0] == 0)
        if len(rising) == 1:
            return rising[0][0] * factor, rising[0][1] * factor, 1
    if name in ("FloorDiv", "CleanDiv") and lines[1][0] == 0 and lines[1][1] > 0 and lines[1][2] == 1:
        rise, offset, period = lines[0]
        return rise, offset, period * lines[1][1]
    return None


def _python(expression: Any) -> str:
    from torch.utils._sympy.printers import PythonPrinter

    return str(PythonPrinter().doprint(expression))


def _late(expression: Any) -> Optional[int]:
    """The number that an expression is for all long signals; ``None`` if that is not known."""
    if expression.is_Integer:
        return int(expression)
    parts = [_late(part) for part in expression.args]
    if type(expression).__name__ == "Min":
        return min((part for part in parts if part is not None), default=None)
    numbers = [part for part in parts if part is not None]
    if not parts or len(numbers) < len(parts) or not (expression.is_Add or expression.is_Mul):
        return None
    return sum(numbers) if expression.is_Add else math.prod(numbers)


def _growth(expression: Any) -> Tuple[int, Fraction]:
    """A number of units of the symbol after which an expression has risen by a constant, and that constant.

    For a function that is not known, its arguments must do.
    """
    if not expression.args:
        return 1, Fraction(0 if expression.is_number else 1)
    if _late(expression) is not None:
        return 1, Fraction(0)
    name, parts = type(expression).__name__, [_growth(argument) for argument in expression.args]
    period = math.lcm(*(length for length, _ in parts))
    rises = [rise * (period // length) for length, rise in parts]
    divisor = _late(expression.args[1]) if name in _DIVISIONS else None
    if divisor:
        turned = rises[0] / divisor
        turns = 1 if name in _EXACT else turned.denominator
        return period * turns, Fraction(0) if name in _REMAINDERS else turned * turns
    if expression.is_Add or expression.is_Mul:
        factors = [Fraction(int(f.p), int(f.q)) for f in expression.args if expression.is_Mul and f.is_Rational]
        return period, math.prod(factors) * sum(rises, Fraction(0))
    turns = max(rises).denominator if name in _ROUNDINGS else 1
    return period * turns, max(rises) * turns
