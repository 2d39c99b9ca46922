"""Rates of streams one after the other."""

import math
from typing import Sequence, Tuple

__all__ = ["Rate", "chain_rates"]

Rate = Tuple[int, Tuple[int, int]]


def chain_rates(rates: Sequence[Rate]) -> Rate:
    """Hop and ratio of streams one after the other.

    The hop is the smallest input period that brings every stream a multiple of its own hop.

    Args:
        rates: hop and ratio of each
    """
    hop, up, down = 1, 1, 1
    for own, ratio in rates:
        # hop · up / down samples reach this stream in a period; it wants a multiple of its hop.
        arriving = hop * up
        wanted = own * down
        hop *= wanted // math.gcd(arriving, wanted)
        up, down = up * ratio[0], down * ratio[1]
        common = math.gcd(up, down)
        up, down = up // common, down // common
    return hop, (up, down)
