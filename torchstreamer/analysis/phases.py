"""Fields of outputs, relative to their places, and how they repeat."""

import math
from typing import List, Optional, Sequence, Tuple

__all__ = ["Period", "Phase", "least_period", "place", "relative"]

Phase = Optional[Tuple[float, float]]
Period = Tuple[int, int]


def place(output: int, period: Period) -> int:
    """The input at which an output stands."""
    return output * period[0] // period[1]


def relative(first: Sequence[int], last: Sequence[int], begin: int, period: Period) -> List[Phase]:
    """Left and right of neighbouring outputs.

    Args:
        first: first input that each depends on
        last: and the last one, smaller than the first if there is none
        begin: number of the first of the outputs
        period: inputs and outputs of a period
    """
    found: List[Phase] = []
    for i, (low, high) in enumerate(zip(first, last, strict=True)):
        here = place(begin + i, period)
        found.append((here - low, high - here) if high >= low else None)
    return found


def least_period(period: Period, phases: Sequence[Phase]) -> Tuple[Period, Tuple[Phase, ...]]:
    """The shortest period of the same fields."""
    ins, outs = period
    for turns in range(math.gcd(ins, outs), 0, -1):
        if ins % turns == 0 and outs % turns == 0:
            short = outs // turns
            if all(phases[i] == phases[i % short] for i in range(outs)):
                return (ins // turns, short), tuple(phases[:short])
    raise AssertionError("one turn is the period itself")
