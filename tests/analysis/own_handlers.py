"""Handlers as users write them."""

from typing import Optional

import torch

import torchstreamer as pts


class SteppedDifferences(pts.BaseStream):
    """Each sample less the one three before it: a handler with a state, and without a rule for its field."""

    def __init__(self):
        super().__init__()
        self.ring = pts.RingBuffer()

    def step(self, x: Optional[torch.Tensor], final: bool):
        return None if x is None else self.differences(x)

    def differences(self, x: torch.Tensor):
        self.ring.append(x)
        window = self.ring.window()
        if window.size(-1) < 4:
            return None
        y = window[..., 3:] - window[..., :-3]
        self.ring.drop(window.size(-1) - 3)
        return y

    def output_length(self, n: int, final: bool = True) -> int:
        return max(n - 3, 0)


class Differences(SteppedDifferences):
    """The same, with a `forward` instead of a `step`."""

    def forward(self, x: torch.Tensor, final: bool = False):
        return self.differences(x)
