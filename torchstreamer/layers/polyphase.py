"""Streams of filters that take turns, between two rates. TorchScript compiles this file."""

from typing import Optional

import torch.nn.functional as F
from torch import Tensor

from ..core.counter import Counter
from ..core.fast_attributes import entry
from ..core.reach import Reach
from ..core.ring import RingBuffer
from ..core.stream import BaseStream
from .filter_bank import FilterBank
from .samples import require_real

__all__ = ["PolyphaseStream"]


class PolyphaseStream(BaseStream):
    """A layer that runs a `FilterBank` over every channel. Before the signal and after its end stand zeros.

    Args:
        reach: which inputs an output reads
        bank: its filters, which streams may share
    """

    fresh = True
    reach: Reach
    ring = entry("_modules")
    next = entry("_modules")
    bank = entry("_modules")

    def __init__(self, reach: Reach, bank: FilterBank) -> None:
        super().__init__(reach)
        self.aliasing = 0
        self.keeps_dtype = True
        self.bank = bank
        self.left = max(-bank.oldest(0), 0)
        self.ring = RingBuffer()  # from the oldest input of the next output on
        self.next = Counter()  # the next output, counted in its period

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        ring = self.ring
        bank = self.bank
        i = self.next.value
        if x is None:
            if not final or not ring.started():
                return None
            window = ring.rows().transpose(1, 2).contiguous()
        else:
            if not ring.started():
                require_real(x)  # after a module whose dtype is not known, nobody has looked yet
                ring.fill(x, self.left, 0.0)
            window = ring.join(x)
        m = window.size(2)
        oldest = bank.oldest(i)
        # Inputs so far, counted from the period of the next output; `Reach.settled` and `Reach.length`.
        n = (oldest + m) * bank.p
        stop = -(-(n + self._reach_numbers[3] - bank.last) // bank.q) if final else -((bank.last - n) // bank.q)
        if stop <= i:
            if x is not None:
                ring.keep(window, 0)
            return None
        seen = window
        if final:
            seen = F.pad(window, [0, max(bank.newest(stop - 1) - oldest + 1 - m, 0)])
        y = bank.forward(seen, i, stop - i)  # which is quicker than to call it
        ring.keep(window, bank.oldest(stop) - oldest)
        self.next.value = stop % bank.p
        return y

    def multiply_adds(self, came: int, given: int) -> Optional[int]:
        """Multiply-adds of one row, of all channels."""
        return given * self.bank.taps * self.ring.data.size(2) if self.ring.started() else None

    def output_channels(self, channels: int) -> int:
        """Channels out for channels in."""
        return channels
