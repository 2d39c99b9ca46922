"""Parts that put samples in front of a signal and after it."""

from typing import List, Optional, Tuple

import torch
from torch import Tensor, nn

from ..core.reach import Reach
from ..layers.padding import edge_source
from .kernels import time_major
from .rows import Part, Rows, over

__all__ = ["Attach", "Fit", "Frames", "Latch", "Mirrored"]


class Fit(Part):
    """A value that is padded beyond its own end.

    Args:
        lag, key: of the value
        value: what it is padded with
    """

    def __init__(self, lag: int, key: int, value: float) -> None:
        super().__init__()
        self.lag = lag
        self.key = key
        self.value = value

    def forward(self, xs: List[Tensor], states: List[Tensor], rows: Rows) -> Tuple[Tensor, List[Tensor]]:
        x = xs[0]
        inside = over(rows.inside(x.size(2), self.lag, self.key), x)
        return torch.where(inside, x, torch.full_like(x, self.value)), []


class Mirrored(Part):
    """Windows of a signal that is padded by samples of its own: the first and last ones, mirrored or repeated.

    The padding is read where a window wants it and never stands in a value of its own, so that windows that see none
    of it do not wait for it.

    Args:
        body: the operation, on windows ``[B, C, n]``
        reach: of the operation, with the padding
        mode: ``"reflect"``, ``"symmetric"`` or ``"replicate"``
        lag, key: of the input
        lag_out: of the output
        filled: to how many samples zeros fill a signal of 0, 1, 2 … samples before it is mirrored
    """

    def __init__(
        self, body: nn.Module, reach: Reach, mode: str, lag: int, key: int, lag_out: int, filled: Tuple[int, ...] = ()
    ) -> None:
        # The last window to see the sample that stands `end` after the signal may want its source, as far before it.
        away = reach.end if mode == "replicate" else 2 * reach.end - (1 if mode == "symmetric" else 0)
        turned = reach.last - away
        oldest = reach.oldest(-lag_out) + min(turned - reach.first, 0)
        super().__init__(max(-lag - oldest, 0))
        self.body = body
        self.reach = reach
        self.mode = mode
        self.lag = lag
        self.key = key
        self.lag_out = lag_out
        self.register_buffer("filled", torch.tensor(filled) if filled else None, persistent=False)

    def forward(self, xs: List[Tensor], states: List[Tensor], rows: Rows) -> Tuple[Tensor, List[Tensor]]:
        x = xs[0]
        m = x.size(2)
        outputs = m // self.reach.q
        window, states = self.join(x, states, rows)
        begin = rows.begin(outputs, self.lag_out) * self.reach.q + self.reach.first
        place = begin + torch.arange(self.reach.span(outputs), device=x.device)
        last = rows.length(self.key) - 1
        filled: Optional[Tensor] = self.filled  # type: ignore[assignment]
        if filled is None:
            source = edge_source(place, last, self.mode)
        else:
            source = edge_source(place, last, self.mode, filled[(last + 1).clamp(0, filled.size(0) - 1)])
        place = over((source - (rows.begin(m, self.lag) - self.held)).clamp(0, window.size(2) - 1), x)
        if time_major(x.device, x.dtype):
            padded = window.transpose(1, 2).gather(1, place.transpose(1, 2).expand(-1, -1, x.size(1))).transpose(1, 2)
        else:
            padded = window.gather(2, place.expand(-1, x.size(1), -1))
        if filled is not None:
            padded = torch.where(over(source > last, x), torch.zeros_like(padded), padded)
        return self.body(padded), states


class Frames(Part):
    """Constants in front of a signal and after it.

    Args:
        front, back: ``[1, C, n]``
        held: samples of the state
        lag_out: of the output
        key: of the input
    """

    def __init__(self, front: Optional[Tensor], back: Optional[Tensor], held: int, lag_out: int, key: int) -> None:
        super().__init__(held)
        self.register_buffer("front", front, persistent=False)
        self.register_buffer("back", back, persistent=False)
        self.lag_out = lag_out
        self.key = key

    def forward(self, xs: List[Tensor], states: List[Tensor], rows: Rows) -> Tuple[Tensor, List[Tensor]]:
        x = xs[0]
        m = x.size(2)
        window, states = self.join(x, states, rows)
        y = window[:, :, :m]
        position = rows.position(m, self.lag_out)
        end = rows.length(self.key)
        front: Optional[Tensor] = self.front  # type: ignore[assignment]
        back: Optional[Tensor] = self.back  # type: ignore[assignment]
        if front is not None:
            y = torch.where(over(position < front.size(2), y), _constants(front, position, x), y)
            end = end + front.size(2)
        if back is not None:
            y = torch.where(over(position >= end, y), _constants(back, position - end, x), y)
        return y, states


def _constants(values: Tensor, position: Tensor, x: Tensor) -> Tensor:
    place = position.clamp(0, values.size(2) - 1)
    flat = values[0].index_select(1, place.reshape(-1)).view(values.size(1), *place.shape)
    found = flat.transpose(0, 1)
    fold = x.size(0) // found.size(0)
    return found.repeat_interleave(fold, 0) if fold != 1 else found


class Latch(Part):
    """The first or the last sample of a signal, ``[B, C, 1]``, from when it has come.

    Args:
        last: whether it is the last
        lag, key: of the input
    """

    def __init__(self, last: bool, lag: int, key: int) -> None:
        super().__init__(1)
        self.last = last
        self.lag = lag
        self.key = key

    def forward(self, xs: List[Tensor], states: List[Tensor], rows: Rows) -> Tuple[Tensor, List[Tensor]]:
        x = xs[0]
        m = x.size(2)
        begin = rows.begin(m, self.lag)
        place = -begin
        if self.last:
            place = torch.minimum(rows.length(self.key) - 1 - begin, torch.full_like(begin, m - 1))
        here = over((place >= 0) & (place < m), x)
        found = x.gather(2, over(place.clamp(0, m - 1), x).expand(-1, x.size(1), -1))
        y = torch.where(here, found, states[0])
        return y, [rows.keep(states[0], y)]


class Attach(Part):
    """A value with a sample repeated in front or after.

    Args:
        last: whether after
        held: samples that the value waits
        lag_out: of the output
        count: repeats
        key: of the value
    """

    def __init__(self, last: bool, held: int, lag_out: int, count: int, key: int) -> None:
        super().__init__(held)
        self.last = last
        self.lag_out = lag_out
        self.count = count
        self.key = key

    def forward(self, xs: List[Tensor], states: List[Tensor], rows: Rows) -> Tuple[Tensor, List[Tensor]]:
        x, sample = xs
        m = x.size(2)
        window, states = self.join(x, states, rows)
        position = rows.position(m, self.lag_out)
        there = position >= rows.length(self.key) if self.last else position < self.count
        return torch.where(over(there, x), sample, window[:, :, :m]), states
