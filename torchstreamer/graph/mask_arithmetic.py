"""What operations on numbers and truths make of what is known of them; comparisons above all."""

import math
import operator
from abc import ABC, abstractmethod
from fractions import Fraction
from typing import Any, Callable, Dict, Optional, Sequence, Set

import torch
from torch import fx

from .mask_numbers import Distance, Known, Line, Number, Regular, constant, difference, highest, lowest, regular

__all__ = ["COMPARISONS", "DATA", "LENGTH", "TRUTHS", "TURNED", "Arithmetic", "MaskError", "Unsettled"]

LENGTH = "mask_length"
DATA = "mask_data"

COMPARISONS = {"lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge}
COMPARISONS |= {"eq": operator.eq, "ne": operator.ne}
TURNED = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le", "eq": "eq", "ne": "ne"}
_ANDS = frozenset(["logical_and", "bitwise_and", "__and__", "and_"])
_ORS = frozenset(["logical_or", "bitwise_or", "__or__", "or_"])
_XORS = frozenset(["logical_xor", "bitwise_xor", "__xor__"])
TRUTHS = _ANDS | _ORS | _XORS


class MaskError(Exception):
    """A mask that is not proved: ``code`` says of which kind, and ``node`` where it fails."""

    def __init__(self, code: str, reason: str, node: Optional[fx.Node]) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.node = node


class Unsettled(Exception):
    """A comparison that comes out otherwise at the ``first`` keys of the signal than at all later ones."""

    def __init__(self, first: int) -> None:
        super().__init__(first)
        self.first = first


class Arithmetic(ABC):
    """Knows what operations do to numbers, by their names.

    Args:
        first: whether of keys `Unsettled` is assumed that they stand at the start of the signal

    Attributes:
        divisors: what the period must be a multiple of
        firsts: of how many keys at the start that was assumed
    """

    def __init__(self, first: Optional[bool]) -> None:
        self.first = first
        self.firsts: Set[int] = set()
        self.divisors: Set[int] = {1}

    @abstractmethod
    def argument(self, value: Any, node: fx.Node) -> Known:
        """What is known of an argument."""

    @abstractmethod
    def refused(self, node: fx.Node, reason: str = "") -> MaskError:
        """The error that says why nothing is proved."""

    @abstractmethod
    def lengths(self, node: fx.Node) -> Dict[int, Line]:
        """The lengths of a tensor's axes of time, as far as they are known."""

    def computed(self, node: fx.Node, name: str, a: Dict[str, Any]) -> Known:
        things = [thing for key, thing in a.items() if key not in ("alpha", "rounding_mode", "min", "max")]
        found = [self.argument(thing, node) for thing in things if isinstance(thing, (fx.Node, int, float))]
        truths = node.meta["val"].dtype == torch.bool
        if all(isinstance(x, Number) for x in found) and not truths:
            made = self._arithmetic(node, name, a, found)  # type: ignore[arg-type]
            if made is not None:
                return made
        patterns = [regular(x) for x in found]
        if any(x is None for x in patterns):
            raise self.refused(node, "it makes of positions what does not repeat itself along the signal")
        sides = [x for x in patterns if x is not None]
        fars = [_far(name, [getattr(x, side) for x in sides], truths) for side in ("left", "right")]
        return Regular(fars[0], fars[1], max([x.reach for x in sides], default=0))

    def _arithmetic(self, node: fx.Node, name: str, a: Dict[str, Any], found: Sequence[Number]) -> Optional[Known]:
        x = found[0]
        if name in ("add", "sub", "rsub") and len(found) == 2:
            one, other = (found[1], x) if name == "rsub" else (x, found[1])
            factor = Fraction(a.get("alpha") or 1)
            if name == "rsub" and factor != 1:
                return None
            return one.plus(other.times(factor if name == "add" else -factor))
        if name == "neg":
            return x.times(Fraction(-1))
        if name == "abs" and x.settled and x.rises and x.exact:
            return Distance(rise=abs(next(iter(x.rises.values()))), spread=max(abs(x.low), abs(x.high)))
        if name == "mul":
            for one, other in ((x, found[1]), (found[1], x)):
                factor_of = other.value()
                if factor_of is not None:
                    return one.times(factor_of)
            return None
        if name in ("div", "floor_divide", "true_divide"):
            by = found[1].value()
            mode = a.get("rounding_mode") if name == "div" else "floor" if name == "floor_divide" else None
            if by is None or by == 0:
                return None
            return self._divided(node, x, by, mode)
        if name in ("remainder", "fmod"):
            by = found[1].value()
            if by is None or by <= 0 or x.clamped or x.grow != 0 or not x.exact:
                return None
            if name == "fmod" and not self._positive(node, x):
                return None
            self.divide(x.shift, by)
            return Number({}, low=Fraction(0), high=by)
        if name in ("floor", "ceil", "trunc"):
            return self.rounded(node, x, name)
        if name in ("maximum", "minimum", "clamp", "clamp_min", "clamp_max") and x.settled and x.rises:
            return None
        if name in ("maximum", "minimum"):
            for one, other in ((x, found[1]), (found[1], x)):
                if not other.rises and other.low == other.high and not other.clamped and (one.rises or one.grow):
                    return self._bounded(one, Line(other.grow, other.low), name == "minimum")
            return None
        if name in ("clamp", "clamp_min", "clamp_max"):
            for key, upper in (("min", False), ("max", True)):
                if a.get(key) is not None:
                    bound = self.argument(a[key], node)
                    if not isinstance(bound, Number) or bound.rises or bound.low != bound.high or bound.clamped:
                        return None
                    x = self._bounded(x, Line(bound.grow, bound.low), upper)
            return x
        return None

    @staticmethod
    def _bounded(x: Number, bound: Line, upper: bool) -> Number:
        cap, floor = x.cap, x.floor
        if upper:
            if cap is None or bound.at_most(cap):
                cap = bound
            elif not cap.at_most(bound):
                raise ValueError("it is cut off at two bounds")
        elif floor is None or floor.at_most(bound):
            floor = bound
        elif not bound.at_most(floor):
            raise ValueError("it is cut off at two bounds")
        if cap is not None and floor is not None and not floor.at_most(cap):
            # The order of the two counts where they cross, as for the first samples: no lower bound is above these.
            if not (floor.slope == 0 and floor.offset <= 0 and cap.slope == 1):
                raise ValueError("it is cut off at two bounds")
        return Number(x.rises, x.grow, x.low, x.high, cap, floor, x.exact)

    def divide(self, shift: Fraction, by: Fraction) -> None:
        if shift != 0:
            self.divisors.add(abs(by / shift).numerator)

    def _divided(self, node: fx.Node, x: Number, by: Fraction, mode: Optional[str]) -> Optional[Number]:
        if by < 0 or not x.exact:
            return None
        made = x.times(1 / by)
        dtype = node.meta["val"].dtype
        if mode is None:
            power = by.numerator & (by.numerator - 1) == 0 and by.denominator & (by.denominator - 1) == 0
            # A quotient that is rounded may be rounded once more, to a whole number, but not compared.
            wide = dtype in (torch.float32, torch.float64)
            return Number(made.rises, made.grow, made.low, made.high, made.cap, made.floor, exact=power and wide)
        return self.rounded(node, made, mode)

    def rounded(self, node: fx.Node, x: Number, mode: str) -> Number:
        if x.value() is not None:
            round_it: Any = {"floor": math.floor, "ceil": math.ceil, "trunc": math.trunc}[mode]
            number = round_it(x.low)
            return Number({}, low=Fraction(number), high=Fraction(number))
        if x.grow != 0:
            raise self.refused(node, "it rounds what grows with the length of the signal")
        if mode == "trunc" and not self._positive(node, x):
            raise self.refused(node, "it rounds negative numbers towards zero, so it does not repeat itself")
        if any(bound is not None and (bound.slope != 0) for bound in (x.cap, x.floor)):
            raise self.refused(node, "it rounds what is cut off at the length of the signal")
        self.divide(x.shift, Fraction(1))
        down = math.ceil if mode == "ceil" else math.floor
        cap, floor = (None if b is None else Line(b.slope, Fraction(down(b.offset))) for b in (x.cap, x.floor))
        low, high = (x.low, x.high + 1) if mode == "ceil" else (x.low - 1, x.high)
        return Number(x.rises, x.grow, low, high, cap, floor)

    def _positive(self, node: fx.Node, x: Number) -> bool:
        source = next(iter(node.all_input_nodes))
        found = lowest(x, self.lengths(source))
        return found is not None and Line(Fraction(0), Fraction(0)).at_most(found)

    # ------------------------------------------------------------------ comparisons

    def compared(self, node: fx.Node, name: str, one: Number, other: Number) -> Known:
        if not one.exact or not other.exact:
            raise self.refused(node, "it compares quotients that are rounded; use // or rounding_mode='floor'")
        lengths = self.lengths(node)
        for u, w, op in ((one, other, name), (other, one, TURNED[name])):
            self._require_idle(node, u, w, op, lengths)
        gap = difference(one, other)
        compare = COMPARISONS[name]
        if gap.shift == 0 and gap.grow == 0:
            return self._of_places(compare, gap, node)
        high, low = highest(gap, lengths), lowest(gap, lengths)
        nothing = Line(Fraction(0), Fraction(0))
        if high is not None and high.at_most(nothing, less=True):
            return constant(compare(-1, 0))
        if low is not None and nothing.at_most(low, less=True):
            return constant(compare(1, 0))
        if name in ("lt", "ge") and low is not None and nothing.at_most(low):
            return constant(name == "ge")
        if name in ("le", "gt") and high is not None and high.at_most(nothing):
            return constant(name == "le")
        return self._of_first_keys(node, name, gap)

    def _require_idle(self, node: fx.Node, x: Number, bounded: Number, op: str, lengths: Dict[int, Line]) -> None:
        """Refuse a comparison whose result depends on where a number is cut off."""
        if bounded.cap is not None:
            high = highest(x, lengths)
            strict = op in ("lt", "ge", "eq", "ne")
            if high is None or not high.at_most(bounded.cap, less=strict):
                raise self.refused(node, "a bound that is cut off does not reach to the end of the signal")
        if bounded.floor is not None:
            low = lowest(x, lengths)
            strict = op in ("gt", "le", "eq", "ne")
            if low is None or not bounded.floor.at_most(low, less=strict):
                raise self.refused(node, "a bound that is cut off does not reach to the start of the signal")

    def _of_places(self, compare: Callable[[Any, Any], bool], gap: Number, node: fx.Node) -> Known:
        if not gap.rises:
            same = gap.value()
            return Regular() if same is None else constant(compare(same, 0))
        query = min(gap.rises)
        rise = gap.rises[query]
        reach = int(max(abs(gap.low), abs(gap.high)) / abs(rise)) + 1
        sign = 1 if rise > 0 else -1
        # Far on the left the query is by far the larger one.
        return Regular(float(compare(sign, 0)), float(compare(-sign, 0)), reach)

    def _of_first_keys(self, node: fx.Node, name: str, gap: Number) -> Regular:
        # A comparison of a place with a constant: it is decided once the place is large enough.
        if gap.grow != 0 or len(gap.rises) != 1 or gap.low != gap.high or name in ("eq", "ne"):
            raise self.refused(node, "it compares positions with what depends on the length of the signal")
        rise, e = next(iter(gap.rises.values())), gap.low
        border = -e / rise  # rise · x + e changes its sign there
        first = math.ceil(border) if (name in ("lt", "ge")) == (rise > 0) else math.floor(border) + 1
        self.firsts.add(first)
        if self.first is None:
            raise Unsettled(first)
        early = COMPARISONS[name](-rise, 0)
        truth = float(early if self.first else not early)
        return Regular(truth, truth)


def _far(name: str, values: Sequence[Any], truths: bool) -> Optional[float]:
    """What an operation makes of values of which some are not known."""
    if truths and name in _ANDS | {"mul"} and any(value == 0 for value in values):
        return 0.0
    if truths and name in _ORS | {"add"} and any(value == 1 for value in values):
        return 1.0
    if name in ("add", "minimum") and -math.inf in values:
        return -math.inf  # finite numbers change nothing
    if (name == "sub" and values[0] == -math.inf) or (name == "rsub" and values[1] == -math.inf):
        return -math.inf
    if name == "mul" and any(value == 0 for value in values):
        return 0.0
    if any(value is None for value in values):
        return None
    if name in _ANDS:
        return float(all(values)) if truths else None
    if name in _ORS:
        return float(any(values)) if truths else None
    if name in _XORS:
        return float(bool(values[0]) != bool(values[1])) if truths else None
    if name in ("logical_not", "bitwise_not"):
        return float(not values[0]) if truths else None
    if name in COMPARISONS:
        return float(COMPARISONS[name](values[0], values[1]))
    simple: Dict[str, Any] = {"add": operator.add, "mul": operator.mul, "sub": operator.sub}
    if name in simple and len(values) == 2:
        found = float(any(values)) if truths and name == "add" else simple[name](values[0], values[1])
        return None if found != found else found
    if name == "rsub":
        return float(values[1] - values[0])
    if name == "neg":
        return -float(values[0])
    if name in ("div", "true_divide") and len(values) == 2 and values[1]:
        return float(values[0] / values[1])
    return None
