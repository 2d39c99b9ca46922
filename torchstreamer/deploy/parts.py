"""Parts of a static step: modules without memory of their own, which get their state and give the next."""

from typing import List, Optional, Tuple

import torch
from torch import Tensor, nn

from ..graph.ops.running import accumulate
from .rows import Part, Rows, over

__all__ = ["Call", "Delay", "Interpolate", "Pick", "PositionPart", "RunningPart", "Sum"]


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
    """

    left: Tensor
    weight: Optional[Tensor]

    def __init__(self, left: Tensor, weight: Optional[Tensor], held: int, lag: int, key: int) -> None:
        super().__init__(held)
        self.register_buffer("left", left, persistent=False)
        self.register_buffer("weight", weight, persistent=False)
        self.lag = lag
        self.key = key

    def forward(self, xs: List[Tensor], states: List[Tensor], rows: Rows) -> Tuple[Tensor, List[Tensor]]:
        x = xs[0]
        m = x.size(2)
        window, states = self.join(x, states, rows)
        y = window.index_select(2, self.left)
        if self.weight is None:
            return y, states
        right = window.index_select(2, self.left + 1)
        position = self.left + (rows.begin(m, self.lag) - self.held)
        before = over(position < 0, x)
        behind = over(position + 1 >= rows.length(self.key), x)
        first, second = torch.where(before, right, y), torch.where(behind & ~before, y, right)
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        weight = self.weight.to(wide)
        return (first * (1 - weight) + second * weight).to(x.dtype), states


class RunningPart(Part):
    """A cumulative operation over time.

    Args:
        kind: as in the stream
        dtype: of the output
        lag, key: of the input
    """

    like: Tensor

    def __init__(self, kind: str, dtype: torch.dtype, lag: int, key: int) -> None:
        super().__init__(1)
        self.kind = kind
        self.register_buffer("like", torch.empty(0, dtype=dtype), persistent=False)
        self.lag = lag
        self.key = key
        extreme = torch.finfo(dtype) if dtype.is_floating_point else torch.iinfo(dtype)
        infinite = dtype.is_floating_point
        lowest = -float("inf") if infinite else extreme.min
        highest = float("inf") if infinite else extreme.max
        neutral = {"cumsum": 0, "cumprod": 1, "logcumsumexp": lowest, "cummax": lowest, "cummin": highest}
        self.neutral = neutral[kind]

    def empty(self, xs: List[Tensor]) -> List[Tensor]:
        return [xs[0].new_zeros([xs[0].size(0), xs[0].size(1), 1], dtype=self.like.dtype)]

    def forward(self, xs: List[Tensor], states: List[Tensor], rows: Rows) -> Tuple[Tensor, List[Tensor]]:
        x = xs[0].to(self.like.dtype)
        inside = over(rows.inside(x.size(2), self.lag, self.key), x)
        x = torch.where(inside, x, torch.full_like(x, self.neutral))
        state = rows.restart(states[0], self.neutral)
        y = accumulate(self.kind, torch.cat([state, x], 2))[:, :, 1:]
        return y, [rows.keep(state, y[:, :, -1:])]


class PositionPart(Part):
    """The positions of samples, ``first + increment · i``."""

    like: Tensor

    def __init__(self, first: float, increment: float, dtype: torch.dtype, lag: int) -> None:
        super().__init__()
        self.first = first
        self.increment = increment
        self.register_buffer("like", torch.empty(0, dtype=dtype), persistent=False)
        self.lag = lag

    def forward(self, xs: List[Tensor], states: List[Tensor], rows: Rows) -> Tuple[Tensor, List[Tensor]]:
        position = rows.position(xs[0].size(2), self.lag).unsqueeze(1)
        dtype = self.like.dtype
        if dtype.is_floating_point:
            return (position.to(torch.float64) * self.increment + self.first).to(dtype), []
        return (position * int(self.increment) + int(self.first)).to(dtype), []
