"""Two right handlers written by hand as users write them; the broken ones differ from them in one place each."""

from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import torchstreamer as pts


def strided() -> nn.Conv1d:
    torch.manual_seed(0)
    return nn.Conv1d(2, 3, 3, stride=2).double().eval()


def padded() -> nn.Conv1d:
    torch.manual_seed(1)
    return nn.Conv1d(2, 3, 3, padding=1).double().eval()


class StridedStream(pts.BaseStream):
    """The stream of ``strided()``: a ring, and no padding."""

    def __init__(self, net: nn.Conv1d) -> None:
        super().__init__()
        self.net = net
        self.hop = 2
        self.ratio = (1, 2)
        self.ring = pts.RingBuffer()

    def forward(self, x: Tensor, final: bool = False) -> Optional[Tensor]:
        window = self.ring.append(x)
        count = (window.size(-1) - 1) // 2
        if count <= 0:
            return None
        self.ring.drop(2 * count)
        return self.net(window[..., : 2 * count + 1])

    @torch.jit.export
    def output_length(self, n: int, final: bool = True) -> int:
        return max((n - 1) // 2, 0)

    def output_channels(self, channels: int) -> int:
        if channels != 2:
            raise pts.StreamInputError(f"invalid_chunk: {channels} channels came; 2 were expected; check the axes")
        return 3

    def anchor(self) -> Optional[Tensor]:
        return self.net.weight


class PaddedStream(pts.BaseStream):
    """The stream of ``padded()``: a zero before the first sample, and one behind the last."""

    def __init__(self, net: nn.Conv1d) -> None:
        super().__init__()
        self.weight = net.weight
        self.bias = net.bias
        self.ring = pts.RingBuffer()
        self.begun = pts.Counter()

    def forward(self, x: Optional[Tensor], final: bool = False) -> Optional[Tensor]:
        if x is None and self.begun.value == 0:
            return None
        if x is not None:
            if self.begun.value == 0:
                x = F.pad(x, (1, 0))
                self.begun.value = 1
            window = self.ring.append(x)
        else:
            window = self.ring.window()
        if final:
            window = F.pad(window, (0, 1))
        count = window.size(-1) - 2
        if count <= 0:
            return None
        self.ring.drop(count)
        return F.conv1d(window, self.weight, self.bias)

    @torch.jit.export
    def output_length(self, n: int, final: bool = True) -> int:
        return n if final else max(n - 1, 0)

    def output_channels(self, channels: int) -> int:
        if channels != 2:
            raise pts.StreamInputError(f"invalid_chunk: {channels} channels came; 2 were expected; check the axes")
        return 3

    def anchor(self) -> Optional[Tensor]:
        return self.weight
