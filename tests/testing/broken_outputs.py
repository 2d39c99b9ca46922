"""Broken handlers: what they give, and when."""

from typing import Optional

import torch
import torch.nn.functional as F
from handlers_by_hand import PaddedStream, StridedStream
from torch import Tensor, nn

import torchstreamer as pts


class WrongValues(StridedStream):
    def forward(self, x: Tensor, final: bool = False) -> Optional[Tensor]:
        y = super().forward(x, final)
        return None if y is None else y * (1 + 1e-8)


class SinglePrecision(StridedStream):
    def forward(self, x: Tensor, final: bool = False) -> Optional[Tensor]:
        y = super().forward(x.float().double(), final)
        return y


class OtherDtype(StridedStream):
    def forward(self, x: Tensor, final: bool = False) -> Optional[Tensor]:
        y = super().forward(x, final)
        return None if y is None else y.float()


class WrongSkip(StridedStream):
    def __init__(self, net: nn.Conv1d) -> None:
        super().__init__(net)
        self.ring = pts.RingBuffer(skip=2)


class Unbatched(StridedStream):
    def forward(self, x: Tensor, final: bool = False) -> Optional[Tensor]:
        y = super().forward(x, final)
        return y + 1 if y is not None and x.dim() == 2 else y


class SmallBatches(StridedStream):
    def forward(self, x: Tensor, final: bool = False) -> Optional[Tensor]:
        y = super().forward(x, final)
        return y * 1.001 if y is not None and x.dim() == 3 and x.size(0) == 1 else y


class ContiguousOnly(StridedStream):
    def forward(self, x: Tensor, final: bool = False) -> Optional[Tensor]:
        if x.dim() == 3 and x.stride(1) == 1 and x.size(2) > 1:
            x = x.contiguous().view(x.size(0), x.size(2), 2).flip(-1).transpose(1, 2)
        return super().forward(x, final)


class GradientsOnly(StridedStream):
    def forward(self, x: Tensor, final: bool = False) -> Optional[Tensor]:
        y = super().forward(x, final)
        return y * 1.001 if y is not None and torch.is_grad_enabled() else y


class HeldBack(StridedStream):
    """Gives everything one output later, and says so."""

    def __init__(self, net: nn.Conv1d) -> None:
        super().__init__(net)
        self.out = pts.RingBuffer()

    def forward(self, x: Optional[Tensor], final: bool = False) -> Optional[Tensor]:
        y = None if x is None else super().forward(x, final)
        if y is None and self.out.length() == 0:
            return None
        window = self.out.window() if y is None else self.out.append(y)
        ready = window.size(-1) - (0 if final else 1)
        if ready <= 0:
            return None
        self.out.drop(ready)
        return window[..., :ready]

    def output_length(self, n: int, final: bool = True) -> int:
        length = super().output_length(n, final)
        return length if final else max(length - 1, 0)


class HeldBackInSecret(HeldBack):
    def output_length(self, n: int, final: bool = True) -> int:
        return StridedStream.output_length(self, n, final)


class TooEarly(PaddedStream):
    """Does not wait for the sample behind the last window."""

    def forward(self, x: Optional[Tensor], final: bool = False) -> Optional[Tensor]:
        if x is None:
            return None
        if self.begun.value == 0:
            x = F.pad(x, (1, 0))
            self.begun.value = 1
        window = self.ring.append(x)
        count = window.size(-1) - 1
        self.ring.drop(count)
        return F.conv1d(F.pad(window, (0, 1)), self.weight, self.bias)

    def output_length(self, n: int, final: bool = True) -> int:
        return n


class LeftPaddingEachChunk(PaddedStream):
    def forward(self, x: Optional[Tensor], final: bool = False) -> Optional[Tensor]:
        if x is not None:
            self.begun.value = 0
        return super().forward(x, final)


class TailLost(PaddedStream):
    def forward(self, x: Optional[Tensor], final: bool = False) -> Optional[Tensor]:
        return super().forward(x, False)


class NoneAtTheEnd(PaddedStream):
    """Loses the tail only when the signal ends without a chunk."""

    def forward(self, x: Optional[Tensor], final: bool = False) -> Optional[Tensor]:
        return None if x is None else super().forward(x, final)


class FlushForgotten(PaddedStream):
    def flush(self) -> Optional[Tensor]:
        self.reset()
        return None


class NotReset(PaddedStream):
    """Pads the first signal only."""

    def __init__(self, net: nn.Conv1d) -> None:
        super().__init__(net)
        self.padded_once = False

    def forward(self, x: Optional[Tensor], final: bool = False) -> Optional[Tensor]:
        if x is not None and self.begun.value == 0 and self.padded_once:
            self.begun.value = 1
        self.padded_once = True
        return super().forward(x, final)


class HalfReset(StridedStream):
    """Resets at the end of a signal, but not when told to."""

    def forward(self, x: Tensor, final: bool = False) -> Optional[Tensor]:
        y = super().forward(x, final)
        if final:
            super().reset()
        return y

    def reset(self) -> None:
        pass


class EmptyTensor(StridedStream):
    pass


def _empty_for_none(self: EmptyTensor, x: Optional[Tensor] = None, final: bool = False) -> Optional[Tensor]:
    y = self._run(x, final)
    return torch.empty(2, 3, 0, dtype=torch.float64) if y is None else y


EmptyTensor.__call__ = _empty_for_none  # type: ignore[method-assign]


class LongerThanSaid(StridedStream):
    def output_length(self, n: int, final: bool = True) -> int:
        return super().output_length(n, final) + (1 if final and n > 7 else 0)


class EmptySignalCounts(PaddedStream):
    def output_length(self, n: int, final: bool = True) -> int:
        return max(super().output_length(n, final), 1)


class WrongHop(StridedStream):
    def __init__(self, net: nn.Conv1d) -> None:
        super().__init__(net)
        self.hop = 3


class WrongRatio(StridedStream):
    def __init__(self, net: nn.Conv1d) -> None:
        super().__init__(net)
        self.ratio = (1, 1)


class WrongHopUnsaid(StridedStream):
    """Its lengths fit, its state does not: it holds an odd sample every other period."""

    def __init__(self, net: nn.Conv1d) -> None:
        super().__init__(net)
        self.odd = pts.Counter()

    def forward(self, x: Tensor, final: bool = False) -> Optional[Tensor]:
        self.odd.value = (self.odd.value + x.size(-1)) % 4
        return super().forward(x, final)
