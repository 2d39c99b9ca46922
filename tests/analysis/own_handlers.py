"""Handlers as users write them."""

import torch

import torchstreamer as pts


class Differences(pts.BaseStream):
    """Each sample less the one three before it: a handler with a state, and without a rule for its field."""

    def __init__(self):
        super().__init__()
        self.ring = pts.RingBuffer()

    def forward(self, x: torch.Tensor, final: bool = False):
        self.ring.append(x)
        window = self.ring.window()
        if window.size(-1) < 4:
            return None
        y = window[..., 3:] - window[..., :-3]
        self.ring.drop(window.size(-1) - 3)
        return y

    def output_length(self, n: int, final: bool = True) -> int:
        return max(n - 3, 0)
