"""What a step knows of its rows, and the base of its parts.

Samples of a value stand in its last axis, ``[B, C, m]``: ``m`` per step, the same at every step. At a row's step ``k``
they are those at the positions ``k · m - lag …``; what lies outside of the row's signal is arbitrary.
"""

from typing import Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from .kernels import time_major

__all__ = ["Part", "Rows", "like", "over"]


class Rows:
    """What one step knows of its rows.

    Args:
        age: steps that each row has done, ``[B]``
        first: whether a signal starts, ``[B]``
        active: whether a row takes this step, ``[B]``
        total: length of each row's signal, `OPEN` if it goes on, ``[B]``
        lengths: lengths of the values in the network
    """

    def __init__(self, age: Tensor, first: Tensor, active: Tensor, total: Tensor, lengths: Sequence[nn.Module]) -> None:
        self.age = age
        self.first = first
        self.active = active
        self.total = total
        self.counters = lengths
        self._known: Dict[Tuple[str, int, int, int], Tensor] = {}

    def length(self, key: int) -> Tensor:
        """Length of a value in each row, ``[B, 1]``."""
        at = ("length", key, 0, 0)
        if at not in self._known:
            self._known[at] = self.counters[key](self.total).unsqueeze(1)
        return self._known[at]

    def begin(self, m: int, lag: int) -> Tensor:
        """Position of a value's first sample in this step, ``[B, 1]``."""
        at = ("begin", m, lag, 0)
        if at not in self._known:
            self._known[at] = (self.age * m - lag).unsqueeze(1)
        return self._known[at]

    def position(self, m: int, lag: int) -> Tensor:
        """Positions of a value's samples, ``[B, m]``."""
        at = ("position", m, lag, 0)
        if at not in self._known:
            self._known[at] = self.begin(m, lag) + torch.arange(m, device=self.age.device)
        return self._known[at]

    def inside(self, m: int, lag: int, key: int) -> Tensor:
        """Whether samples belong to the row's signal, ``[B, m]``."""
        at = ("inside", m, lag, key)
        if at not in self._known:
            position = self.position(m, lag)
            self._known[at] = (position >= 0) & (position < self.length(key))
        return self._known[at]

    def keep(self, old: Tensor, new: Tensor) -> Tensor:
        """The next state: the old one in rows that rest."""
        return torch.where(like(self.active, new), new, old)

    def restart(self, state: Tensor, value: float) -> Tensor:
        """A state in which rows that start hold ``value`` alone."""
        return torch.where(like(self.first, state), torch.full_like(state, value), state)


def like(flags: Tensor, x: Tensor) -> Tensor:
    # [B] against [B·k, …], where another axis is merged into the rows.
    fold = x.size(0) // flags.size(0)
    if fold != 1:
        flags = flags.repeat_interleave(fold)
    return flags.view([-1] + [1] * (x.dim() - 1))


def over(marks: Tensor, x: Tensor) -> Tensor:
    # [B, m] against [B·k, C, m].
    fold = x.size(0) // marks.size(0)
    if fold != 1:
        marks = marks.repeat_interleave(fold, 0)
    return marks.unsqueeze(1)


class Part(nn.Module):
    """A part of the step.

    Args:
        held: samples of its state
    """

    def __init__(self, held: int = 0) -> None:
        super().__init__()
        self.held = held
        self.sources: List[int] = []
        self.target = -1

    def empty(self, xs: List[Tensor]) -> List[Tensor]:
        """Empty states for such inputs: any tensors, rows first."""
        return [xs[0].new_zeros([xs[0].size(0), xs[0].size(1), self.held])] if self.held > 0 else []

    def join(
        self, x: Tensor, states: List[Tensor], rows: Rows, value: Optional[float] = None
    ) -> Tuple[Tensor, List[Tensor]]:
        """What is held and the new samples, and what is held next; ``value`` stands before a signal that starts."""
        if not states:
            return x, []
        state = states[0] if value is None else rows.restart(states[0], value)
        if time_major(x.device, x.dtype):
            window = torch.cat([state.transpose(1, 2), x.transpose(1, 2)], 1).transpose(1, 2)
        else:
            window = torch.cat([state, x], 2)
        return window, [rows.keep(state, window[:, :, x.size(2) :])]

    def forward(self, xs: List[Tensor], states: List[Tensor], rows: Rows) -> Tuple[Tensor, List[Tensor]]:
        """The output and the next states."""
        raise NotImplementedError
