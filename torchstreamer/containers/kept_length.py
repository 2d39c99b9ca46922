"""The stream of a network whose output is as long as its input. TorchScript compiles this file."""

from typing import Optional

import torch
from torch import Tensor

from ..core.counter import Counter
from ..core.fast_attributes import entry
from ..core.registry import part_stream, require_plain
from ..core.ring import RingBuffer
from ..core.whole_numbers import require_length
from ..errors import UnsupportedModuleError
from ..layers.kept_length import KeptLength1d, fitted
from .composite import BoundedStream

__all__ = ["KeptLength1dStream"]


class KeptLength1dStream(BoundedStream):
    """Stream of a `KeptLength1d`. Samples that the input is not yet long enough for are held back.

    Args:
        net: the `KeptLength1d`

    Raises:
        UnsupportedModuleError: the inner network cannot be streamed, or changes the rate (``changed_rate``)
    """

    fresh = True
    stream = entry("_modules")
    ring = entry("_modules")
    owed = entry("_modules")

    def __init__(self, net: KeptLength1d) -> None:
        super().__init__()
        require_plain(net, KeptLength1d)
        try:
            self.stream = part_stream(net.net)
        except UnsupportedModuleError as error:
            raise error.within(net) from None
        if self.stream.ratio != (1, 1):
            outputs, inputs = self.stream.ratio
            raise UnsupportedModuleError(
                "changed_rate",
                net.net,
                f"it gives {outputs} samples for {inputs}, where as many as came were expected",
                "make its strides up for each other",
            )
        self.hop = self.stream.hop
        self.bound_by(self.stream)
        self.ring = RingBuffer()  # what the input is not long enough for
        self.owed = Counter()  # samples that came, and were not answered
        self.aliasing = self.stream.aliasing
        self.keeps_dtype = self.stream.keeps_dtype
        self.fresh = self.fresh and self.stream.fresh

    def own_input(self) -> None:
        """What comes in is the network's own."""
        self.stream.own_input()

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        owed = self.owed.value + (0 if x is None else x.size(2))
        y = self.stream.step(x, final)
        ring = self.ring
        if y is not None and y.size(2) > 0:
            if not final and ring.held == 0 and y.size(2) <= owed:
                if not ring.started():
                    ring.fill(y, 0, 0.0)
                self.owed.value = owed - y.size(2)
                return y
            y = ring.join(y)
        elif ring.started():
            y = ring.rows().transpose(1, 2)
        else:
            self.owed.value = owed
            return None
        if final:
            return fitted(y, owed)
        n = min(y.size(2), owed)
        ring.keep(y, n)
        self.owed.value = owed - n
        return y.narrow(2, 0, n)

    @torch.jit.export
    def output_length(self, n: int, final: bool = True) -> int:
        """Number of samples out after ``n`` samples in; see `BaseStream.output_length`."""
        require_length(n)
        length = self.stream.output_length(n, final)
        if final and length > 0:
            return n
        return min(length, n)

    def output_channels(self, channels: int) -> int:
        """Channels out for channels in."""
        return self.stream.output_channels(channels)

    def anchor(self) -> Optional[Tensor]:
        """The first weight of the network says dtype and device."""
        return self.stream.anchor()
