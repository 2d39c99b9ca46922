"""Streams of what runs along the signal: cumulative sums, and positions. TorchScript compiles this file."""

from typing import Iterator, List, Tuple

import torch
from torch import Tensor, nn

from ...layers.recurrent import RecurrentStream

__all__ = ["CumulativeStream", "LookedUp", "PositionStream"]


class CumulativeStream(RecurrentStream):
    """A cumulative operation over time, which carries its last output.

    Args:
        kind: ``"cumsum"``, ``"cumprod"``, ``"logcumsumexp"``, ``"cummax"`` or ``"cummin"`` (the values)
        like: a tensor of the output's dtype
    """

    like: Tensor

    def __init__(self, kind: str, like: Tensor) -> None:
        super().__init__(names=["last"])
        self.kind = kind
        self.register_buffer("like", like, persistent=False)
        self.keeps_dtype = True
        # What changes nothing, among floating-point numbers and among whole ones.
        self.neutral = {"cumsum": 0.0, "cumprod": 1.0, "cummin": float("inf")}.get(kind, -float("inf"))
        self.whole_neutral = 0 if like.is_floating_point() else _whole_neutral(kind, like.dtype)

    def initial(self, x: Tensor) -> List[Tensor]:
        size = [x.size(0), x.size(1), 1]
        if self.like.is_floating_point():
            return [x.new_full(size, self.neutral)]
        return [torch.full(size, self.whole_neutral, dtype=self.like.dtype, device=x.device)]

    def advance(self, x: Tensor, state: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        if not self.like.is_floating_point():
            x = x.to(self.like.dtype)
        t = x.size(2)
        # What is carried goes first and is left out again: the sum is formed in the order of the whole signal.
        y = self._accumulate(torch.cat([state[0], x], 2)).narrow(2, 1, t)
        return y, [y.narrow(2, t - 1, 1)]

    def _accumulate(self, x: Tensor) -> Tensor:
        if self.kind == "cumsum":
            return torch.cumsum(x, 2)
        if self.kind == "cumprod":
            return torch.cumprod(x, 2)
        if self.kind == "logcumsumexp":
            return torch.logcumsumexp(x, 2)
        if self.kind == "cummax":
            return torch.cummax(x, 2)[0]
        return torch.cummin(x, 2)[0]

    def extra_repr(self) -> str:
        return self.kind


def _whole_neutral(kind: str, dtype: torch.dtype) -> int:
    """What changes nothing among whole numbers."""
    if kind in ("cumsum", "cumprod"):
        return int(kind == "cumprod")
    if dtype == torch.bool:
        return int(kind == "cummin")
    return torch.iinfo(dtype).max if kind == "cummin" else torch.iinfo(dtype).min


class PositionStream(RecurrentStream):
    """The positions of samples: ``first + step · i`` at sample ``i``, one channel.

    Every row counts for itself, so rows of different age share a batch.

    Args:
        first: value at the first sample
        step: difference of neighbours
        dtype: dtype of the values
    """

    like: Tensor

    def __init__(self, first: float, step: float, dtype: torch.dtype) -> None:
        super().__init__(out_channels=1, names=["next"])
        self.memory.clocks = ["next"]
        self.first = first
        self.increment = step
        self.plain = first == 0 and step == 1
        self.register_buffer("like", torch.empty(0, dtype=dtype), persistent=False)

    def initial(self, x: Tensor) -> List[Tensor]:
        return [torch.zeros([x.size(0)], dtype=torch.int64, device=x.device)]

    def advance(self, x: Tensor, state: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        t = x.size(2)
        i = state[0].view([-1, 1, 1])
        if t > 1:
            i = i + torch.arange(t, device=x.device)
        after = [state[0] + t]
        if self.plain:
            return i.to(self.like.dtype), after
        if self.like.is_floating_point():
            return (i.to(torch.float64) * self.increment + self.first).to(self.like.dtype), after
        return (i * int(self.increment) + int(self.first)).to(self.like.dtype), after

    def taps(self, n: int, m: int) -> Iterator[Tensor]:
        """None: the values of the input do not count."""
        return iter(())

    def extra_repr(self) -> str:
        return f"first={self.first}, step={self.increment}"


class LookedUp(nn.Module):
    """The entries of a table at the positions of samples.

    Args:
        dim: the axis of the table that is for positions

    Shape:
        - table: any
        - positions: ``[B, t]``; beyond the table they get its last entry
        - output: ``[B, …]``, the table with ``t`` entries on this axis
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, table: Tensor, positions: Tensor) -> Tensor:
        dim = self.dim
        found = table.index_select(dim, positions.clamp(0, table.size(dim) - 1).flatten())
        size = list(table.size())
        return found.reshape(size[:dim] + list(positions.size()) + size[dim + 1 :]).movedim(dim, 0)
