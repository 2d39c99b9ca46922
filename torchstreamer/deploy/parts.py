"""Parts of a static step: modules without memory of their own, which get their state and give the next."""

from typing import List, Optional, Tuple

import torch
from torch import Tensor, nn

from .rows import Part, Rows, over

__all__ = ["Call", "Delay", "Interpolate", "Pick", "Sum"]


class Call(Part):
    """A module that treats every sample alone."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, xs: List[Tensor], states: List[Tensor], rows: Rows) -> Tuple[Tensor, List[Tensor]]:
        return self.body(*xs), []


class Pick(Part):
    """One of the outputs of a part that gives several.

    Args:
        index: which
    """

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index

    def forward(self, xs: List[Tensor], states: List[Tensor], rows: Rows) -> Tuple[Tensor, List[Tensor]]:
        return xs[0][self.index], []


class Delay(Part):
    """The same samples, ``held`` later."""

    def __init__(self, held: int) -> None:
        super().__init__(held)

    def forward(self, xs: List[Tensor], states: List[Tensor], rows: Rows) -> Tuple[Tensor, List[Tensor]]:
        window, states = self.join(xs[0], states, rows)
        return window[:, :, : xs[0].size(2)], states


class Sum(Part):
    """Values with equal lags, added, multiplied or joined along the channels."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, xs: List[Tensor], states: List[Tensor], rows: Rows) -> Tuple[Tensor, List[Tensor]]:
        if self.kind == "cat":
            return torch.cat(xs, 1), []
        y = xs[0]
        for x in xs[1:]:
            y = y * x if self.kind == "mul" else y + x
        return y, []


class Interpolate(Part):
    """Upsampling: output ``i`` lies between the inputs ``floor(i · q / p + c)`` and the next.

    Args:
        left: place of the left neighbour in the window, for each output of a step
        weight: of the right neighbour, or ``None`` for the left one alone
        held: samples of the state
        lag, key: of the input
        starts: whether outputs stand before the first input
    """

    left: Tensor
    weight: Optional[Tensor]

    def __init__(self, left: Tensor, weight: Optional[Tensor], held: int, lag: int, key: int, starts: bool) -> None:
        super().__init__(held)
        self.register_buffer("left", left, persistent=False)
        self.register_buffer("weight", weight, persistent=False)
        self.lag = lag
        self.key = key
        self.starts = starts

    def forward(self, xs: List[Tensor], states: List[Tensor], rows: Rows) -> Tuple[Tensor, List[Tensor]]:
        x = xs[0]
        m = x.size(2)
        window, states = self.join(x, states, rows)
        y = window.index_select(2, self.left)
        if self.weight is None:
            return y, states
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        weight = self.weight.to(wide)
        right = window.index_select(2, self.left + 1)
        position = self.left + (rows.begin(m, self.lag) - self.held)
        if self.starts:
            # What stands before the first sample is this one, and torch reads the next one too, of which it takes none.
            before = over(position < 0, x)
            next_but_one = window.index_select(2, (self.left + 2).clamp(max=window.size(2) - 1))
            y, right = torch.where(before, right, y), torch.where(before, next_but_one, right)
            weight = torch.where(before, 0.0, weight)
            position = position.clamp(min=0)
        right = torch.where(over(position + 1 >= rows.length(self.key), x), y, right)
        return (y * (1 - weight) + right * weight).to(x.dtype), states
