"""How long chunks take, in memory that does not grow with their number."""

import math
from typing import Dict

__all__ = ["Times"]

_STEPS = 100  # of a doubling


class Times:
    """Counts times of chunks by their size, to 1 %.

    Attributes:
        total: seconds of all of them
        count: how many
    """

    def __init__(self) -> None:
        self.total = 0.0
        self.count = 0
        self._counts: Dict[int, int] = {}

    def add(self, seconds: float) -> None:
        """Count one."""
        self.total += seconds
        self.count += 1
        size = round(_STEPS * math.log2(max(seconds, 1e-9)))
        self._counts[size] = self._counts.get(size, 0) + 1

    def quantile(self, share: float) -> float:
        """Seconds that this share of the chunks took at most; 0 where there was none."""
        left = math.ceil(share * self.count)
        for size in sorted(self._counts):
            left -= self._counts[size]
            if left <= 0:
                return float(2 ** (size / _STEPS))
        return 0.0
