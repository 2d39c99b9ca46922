"""What the outputs of a layer read of its input, stated once. TorchScript compiles the functions of this file.

Output ``i`` of a layer is computed from the inputs ``(q·i + first) // p`` to ``(q·i + last) // p``, where ``//`` rounds
down and inputs outside of the signal are padding. These four numbers say nearly all that streaming a layer takes:

- *Prompt.* Of ``n`` inputs the newest is ``n - 1``, so output ``i`` is settled when ``(q·i + last) // p ≤ n - 1``,
  which is ``q·i + last < n·p``. That holds for ``ceil((n·p - last) / q)`` outputs.
- *Rate.* ``p`` outputs belong to ``q`` inputs, so the least period is ``q / gcd(p, q)`` inputs.
- *End.* At the end a layer acts as if ``end / p`` inputs more had come: right padding, output padding, ceil mode.
- *Static step.* Let a step bring inputs up to position ``k·m - lag``. Its last output must need no later one, so
  outputs lag by ``(last + lag·p) // q``.
"""

import math
from typing import Iterator, List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from .lengths import LinearLength

__all__ = ["ALWAYS", "Numbers", "Reach", "offline_length", "settled_length"]

# p, q, last, end and shortest of a reach, for scripts, which keep no named tuples of a base class.
Numbers = Tuple[int, int, int, int, int]

# `first` of a layer that remembers everything that ever came.
ALWAYS = -(1 << 62)


class Reach(NamedTuple):
    """The inputs that outputs read: output ``i`` those from ``(q·i + first) // p`` to ``(q·i + last) // p``.

    Attributes:
        p: outputs that belong to ``q`` inputs
        q: inputs that belong to ``p`` outputs
        first: of the oldest input, see above; `ALWAYS` where there is no bound
        last: of the newest input
        end: what the end of the signal adds, in ``p``-ths of an input; negative where outputs never come
        shortest: the least length of a signal of which anything comes
        spacing: inputs from one that is read to the next, where ``p`` is 1

    Example:
        >>> import torchstreamer as pts
        >>> reach = pts.Reach.window(field=5, stride=2, left=2, right=2)
        >>> reach.settled(10), reach.length(10), reach.hop, reach.ratio
        (4, 5, 2, (1, 2))
    """

    p: int = 1
    q: int = 1
    first: int = 0
    last: int = 0
    end: int = 0
    shortest: int = 1
    spacing: int = 1

    # ------------------------------------------------------------------ kinds

    @staticmethod
    def window(
        field: int, stride: int = 1, left: int = 0, right: int = 0, spacing: int = 1, shortest: int = 1
    ) -> "Reach":
        """A window of ``field`` samples that moves by ``stride``, with so much padding left and right."""
        return Reach(1, stride, -left, field - 1 - left, right, shortest, spacing)

    @staticmethod
    def frames(field: int, stride: int, left: int = 0, right: int = 0) -> "Reach":
        """Frames of ``field`` samples added, one every ``stride``; ``left`` and ``right`` samples cropped.

        Input ``i`` adds to the outputs ``i·stride - left`` to ``i·stride - left + field - 1``.
        """
        return Reach(stride, 1, left - field + stride, left, field - right - stride)

    @staticmethod
    def shift(left: int, right: int, shortest: int = 1) -> "Reach":
        """So many samples more on the left and on the right, or fewer."""
        return Reach(1, 1, -left, -left, right, shortest)

    @staticmethod
    def recurrence() -> "Reach":
        """Sample by sample, with a memory of everything before."""
        return Reach(first=ALWAYS)

    # ------------------------------------------------------------------ what follows

    @property
    def bounded(self) -> bool:
        """Whether outputs look back over a bounded number of samples."""
        return self.first != ALWAYS

    @property
    def hop(self) -> int:
        """Inputs after which the state repeats its shape."""
        return self.q // math.gcd(self.p, self.q)

    @property
    def ratio(self) -> Tuple[int, int]:
        """Outputs per inputs, without a common factor."""
        common = math.gcd(self.p, self.q)
        return self.p // common, self.q // common

    def settled(self, n: int) -> int:
        """Outputs that ``n`` inputs settle, as far as the inputs that they read go."""
        return settled_length(self.numbers, n)

    def length(self, n: int) -> int:
        """Outputs of a whole signal of ``n`` samples."""
        return offline_length(self.numbers, n)

    @property
    def numbers(self) -> Numbers:
        """What lengths follow from, for scripts."""
        return self.p, self.q, self.last, self.end, self.shortest

    def lines(self) -> Tuple[LinearLength, LinearLength]:
        """Outputs before the end, ``min(settled, length)``, and at the end, as functions with numbers to compare."""
        # ceil(x / q) = (x + q - 1) // q
        end = LinearLength(self.p, self.end - self.last + self.q - 1, self.q, self.shortest)
        settled = LinearLength(self.p, min(self.end, 0) - self.last + self.q - 1, self.q, self.shortest)
        # Both rise alike, so the smaller one is so at every length from which on both are 1 or more.
        return settled, end

    def span(self, outputs: int) -> int:
        """Inputs from the oldest to the newest that so many neighbouring outputs of a window read."""
        assert self.p == 1
        return (outputs - 1) * self.q + self.last - self.first + 1

    @property
    def depth(self) -> int:
        """The most inputs that one output reads, where they lie side by side."""
        return (self.last - self.first + self.p - 1) // self.p + 1

    def oldest(self, output: int) -> int:
        """The oldest input that an output reads."""
        assert self.bounded
        return (self.q * output + self.first) // self.p

    def newest(self, output: int) -> int:
        """The newest input that an output reads."""
        return (self.q * output + self.last) // self.p

    def lag(self, lag: int) -> int:
        """The least lag of the output in a static step, for the lag of the input."""
        # Outputs from position 0 on must appear, so none may come before its step.
        return max((self.last + lag * self.p) // self.q, 0)

    def held(self, lag: int, lag_out: int) -> int:
        """Inputs that a static step holds back at these lags; negative if the first of the new ones are not read."""
        return -lag - self.oldest(-lag_out)

    def after(self, before: "Reach") -> "Optional[Reach]":
        """The reach of this layer after another one, or ``None`` where it is no such function.

        Both roundings fall together where this layer has ``p = 1``, or the one before has ``q = 1``. What one adds at
        the end and the other takes away is no longer seen in the sum.
        """
        if min(self.end, before.end) < 0 < max(self.end, before.end):
            return None
        first, last, end = self.first, self.last, self.end
        if self.p == 1:
            scale, p, q = before.q, before.p, before.q * self.q
            moved = (scale * first + before.first, scale * last + before.last, scale * end + before.end)
        elif before.q == 1:
            scale, p, q = self.p, before.p * self.p, self.q
            moved = (first + scale * before.first, last + scale * before.last, end + scale * before.end)
        else:
            return None
        oldest = moved[0] if self.bounded and before.bounded else ALWAYS
        shortest = max(before.shortest, _least(before, self.shortest))
        return Reach(p, q, oldest, moved[1], moved[2], shortest)

    def padded(self, pad: "Reach") -> "Reach":
        """The reach of this layer on a padded signal."""
        found = self.after(pad)
        assert found is not None and pad.first == pad.last and pad.p == pad.q == 1
        return found._replace(spacing=self.spacing)

    def taps(self, m: int) -> Iterator[Tensor]:
        """The inputs that the first ``m`` outputs read, ``[m]`` each; -1 or a place outside of the signal for none."""
        assert self.bounded, "a memory without bound is no list of taps"
        i = torch.arange(m)
        oldest = torch.div(self.q * i + self.first, self.p, rounding_mode="floor")
        if self.p == 1:
            yield from (oldest + k for k in range(0, self.last - self.first + 1, self.spacing))
            return
        newest = torch.div(self.q * i + self.last, self.p, rounding_mode="floor")
        for k in range((self.last - self.first) // self.p + 2):
            tap = oldest + k
            yield torch.where(tap <= newest, tap, -1)

    def phases(self) -> List[Tuple[float, float]]:
        """How far the outputs of one period look back and ahead, from the inputs at which they stand."""
        ins, outs = self.hop, self.ratio[0]
        places = [i * ins // outs for i in range(outs)]
        back = [place - self.oldest(i) if self.bounded else math.inf for i, place in enumerate(places)]
        return [(left, self.newest(i) - place) for i, (left, place) in enumerate(zip(back, places, strict=True))]


def settled_length(numbers: Numbers, n: int) -> int:
    """Outputs that ``n`` inputs settle: ``ceil((n·p - last) / q)``."""
    p, q, last, end, shortest = numbers
    return max(-((last - n * p) // q), 0) if n > 0 else 0


def offline_length(numbers: Numbers, n: int) -> int:
    """Outputs of a whole signal of ``n`` samples: ``ceil((n·p + end - last) / q)``."""
    p, q, last, end, shortest = numbers
    return max(-((last - end - n * p) // q), 0) if n >= shortest else 0


def _least(reach: Reach, wanted: int) -> int:
    # The least n of which `wanted` outputs come: n·p + end - last > (wanted - 1)·q.
    return max(((wanted - 1) * reach.q + reach.last - reach.end) // reach.p + 1, 1)
