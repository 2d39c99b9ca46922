"""Lengths of the values in a network, as functions of the total length of a signal, on tensors."""

import torch
from torch import Tensor, nn

from ..core.lengths import LengthTable
from .exported_file import OPEN

__all__ = ["OPEN", "RowLength"]


class RowLength(nn.Module):
    """Lengths of a value for the total length of each row; `OPEN` where that is open.

    Args:
        table: the function
    """

    values: Tensor

    def __init__(self, table: LengthTable) -> None:
        super().__init__()
        line = table.linear()
        self.closed = line is not None
        self.start, self.period, self.rise = table.start, table.period, table.rise
        self.offset = self.shortest = 0
        if line is None:
            self.register_buffer("values", torch.tensor(table.values), persistent=False)
        else:
            self.rise, self.offset, self.period = line.rise, line.offset, line.period
            # Where the line itself is above 0 too early.
            early = any(line.formula(n) > 0 for n in range(line.shortest))
            self.shortest = line.shortest if early else 0

    def forward(self, total: Tensor) -> Tensor:
        """Lengths ``[B]`` for total lengths ``[B]``."""
        if self.closed:
            n = total * self.rise if self.rise != 1 else total
            n = n + self.offset if self.offset != 0 else n
            if self.period > 1:
                n = torch.div(n.clamp(min=0), self.period, rounding_mode="floor")
            elif self.offset < 0:
                n = n.clamp(min=0)
            if self.shortest > 0:
                n = torch.where(total < self.shortest, torch.zeros_like(n), n)
        else:
            turns = torch.div((total - self.start).clamp(min=0), self.period, rounding_mode="floor")
            place = (total - turns * self.period).clamp(0, self.start + self.period - 1)
            n = self.values.index_select(0, place) + turns * self.rise
        return torch.where(total >= OPEN, torch.full_like(n, OPEN), n)
