"""The parts of a static step: modules without memory of their own, which get their state and give the next.

Samples of a value stand in its last axis, ``[B, C, m]``: ``m`` per step, the same at every step. At a row's step ``k``
they are those at the positions ``k · m - lag …``; what lies outside of the row's signal is arbitrary.
"""

from typing import Dict, List, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "Attach",
    "Call",
    "ConvolveTaps",
    "Delay",
    "EdgePart",
    "Fit",
    "Frames",
    "Interpolate",
    "Latch",
    "Part",
    "Pick",
    "PoolPart",
    "PositionPart",
    "Rows",
    "RunningPart",
    "Sum",
    "TransposedPart",
    "WindowPart",
]


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
        return torch.where(_like(self.active, new), new, old)

    def restart(self, state: Tensor, value: float) -> Tensor:
        """A state in which rows that start hold ``value`` alone."""
        return torch.where(_like(self.first, state), torch.full_like(state, value), state)


def _like(flags: Tensor, x: Tensor) -> Tensor:
    # [B] against [B·k, …], where another axis is merged into the rows.
    fold = x.size(0) // flags.size(0)
    if fold != 1:
        flags = flags.repeat_interleave(fold)
    return flags.view([-1] + [1] * (x.dim() - 1))


def _over(marks: Tensor, x: Tensor) -> Tensor:
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
        """Empty states for such inputs."""
        return [xs[0].new_zeros([xs[0].size(0), xs[0].size(1), self.held])] if self.held > 0 else []

    def join(
        self, x: Tensor, states: List[Tensor], rows: Rows, value: Optional[float] = None
    ) -> Tuple[Tensor, List[Tensor]]:
        """What is held and the new samples, and what is held next; ``value`` stands before a signal that starts."""
        if not states:
            return x, []
        state = states[0] if value is None else rows.restart(states[0], value)
        window = torch.cat([state, x], 2)
        return window, [rows.keep(state, window[:, :, x.size(2) :])]

    def forward(self, xs: List[Tensor], states: List[Tensor], rows: Rows) -> Tuple[Tensor, List[Tensor]]:
        """The output and the next states."""
        raise NotImplementedError


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
        inside = _over(rows.inside(x.size(2), self.lag, self.key), x)
        return torch.where(inside, x, torch.full_like(x, self.value)), []


# A window is unfolded tap by tap, so that kernels of more taps take torch's convolution.
_MOST_TAPS = 64


class ConvolveTaps(nn.Module):
    """A convolution of a window ``[B, C, n]``.

    Args:
        weight: ``[O, C / groups, K]``
        bias: ``[O]``
        stride, dilation, groups: of the convolution
        columns: up to so many outputs, over all rows, it is computed as one product of unfolded windows
    """

    weight: Tensor
    matrix: Tensor
    bias: Optional[Tensor]

    def __init__(
        self, weight: Tensor, bias: Optional[Tensor], stride: int, dilation: int, groups: int, columns: int
    ) -> None:
        super().__init__()
        self.stride = stride
        self.dilation = dilation
        self.groups = groups
        self.columns = columns if groups == 1 and weight.size(2) <= _MOST_TAPS else 0
        self.register_buffer("weight", weight.detach(), persistent=False)
        self.register_buffer("bias", None if bias is None else bias.detach(), persistent=False)
        if self.columns > 0:
            packed = weight.detach().permute(2, 1, 0).reshape(-1, weight.size(0)).contiguous()
            self.register_buffer("matrix", packed, persistent=False)

    def forward(self, window: Tensor) -> Tensor:
        kernel = self.weight.size(2)
        count = (window.size(2) - (kernel - 1) * self.dilation - 1) // self.stride + 1
        rows = window.size(0)
        if rows * count > self.columns:
            return F.conv1d(window, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)
        span = (count - 1) * self.stride + 1
        time_major = window.transpose(1, 2)
        taps = [time_major[:, k * self.dilation : k * self.dilation + span : self.stride] for k in range(kernel)]
        flat = torch.cat(taps, 2).reshape(rows * count, -1)
        y = torch.mm(flat, self.matrix) if self.bias is None else torch.addmm(self.bias, flat, self.matrix)
        return y.view(rows, count, -1).transpose(1, 2)


class WindowPart(Part):
    """An operation that looks through a sliding window.

    Args:
        body: the operation, on windows ``[B, C, n]``
        held: samples of the state
        need: samples of the window, which may be fewer than there are
        mask: lag and key of the input if what lies outside of the signal counts, else ``None``
        value: what lies there
    """

    def __init__(
        self, body: nn.Module, held: int, need: int, mask: Optional[Tuple[int, int]], value: float = 0.0
    ) -> None:
        super().__init__(held)
        self.body = body
        self.need = need
        self.mask = mask
        self.value = value

    def window(self, x: Tensor, states: List[Tensor], rows: Rows) -> Tuple[Tensor, List[Tensor]]:
        """The window and the next state, with the padding in place."""
        if self.mask is None:
            return self.join(x, states, rows)
        inside = _over(rows.inside(x.size(2), *self.mask), x)
        return self.join(torch.where(inside, x, torch.full_like(x, self.value)), states, rows, self.value)

    def forward(self, xs: List[Tensor], states: List[Tensor], rows: Rows) -> Tuple[Tensor, List[Tensor]]:
        window, states = self.window(xs[0], states, rows)
        return self.body(window[:, :, : self.need]), states


class PoolPart(WindowPart):
    """A pool that divides by the samples it counts, or takes a root.

    Args:
        pool: ``"Avg"`` or ``"LP"``
        kernel_size, stride, padding: of the pool
        held, need, mask: as in `WindowPart`
        lag_out: of the output
        count_include_pad: whether padding counts
        power: of an LP pool
    """

    def __init__(
        self,
        pool: str,
        kernel_size: int,
        stride: int,
        padding: int,
        held: int,
        need: int,
        mask: Optional[Tuple[int, int]],
        lag_out: int,
        count_include_pad: bool,
        power: float,
    ) -> None:
        super().__init__(nn.Identity(), held, need, mask)
        self.pool = pool
        self.kernel_size = kernel_size
        self.stride = stride
        self.padding = padding
        self.lag_out = lag_out
        self.count_include_pad = count_include_pad
        self.power = power

    def forward(self, xs: List[Tensor], states: List[Tensor], rows: Rows) -> Tuple[Tensor, List[Tensor]]:
        window, states = self.window(xs[0], states, rows)
        window = window[:, :, : self.need]
        if self.pool == "LP":
            window = window.pow(self.power)
        y = F.avg_pool1d(window, self.kernel_size, self.stride)
        if self.mask is not None:
            y = y * _over(self._correction(y, rows, self.mask[1]), y)
        if self.pool == "LP":
            y = (torch.sign(y) * F.relu(torch.abs(y))).mul(self.kernel_size).pow(1.0 / self.power)
        return y, states

    def _correction(self, y: Tensor, rows: Rows, key: int) -> Tensor:
        # kernel_size over the number of samples that the module divides by, for each of the windows.
        begin = rows.position(y.size(2), self.lag_out) * self.stride - self.padding
        end, length = begin + self.kernel_size, rows.length(key)
        if self.count_include_pad:
            samples = torch.minimum(end, length + self.padding) - begin
        else:
            samples = torch.minimum(end, length) - begin.clamp(min=0)
        wide = torch.float64 if y.dtype == torch.float64 else torch.float32
        return (self.kernel_size / samples.clamp(min=1).to(wide)).to(y.dtype)


class TransposedPart(WindowPart):
    """Frames added where they overlap.

    Args:
        body: adds the frames of ``[B, C, n]``, uncropped
        held: samples of the state
        mask: lag and key of the input
        begin: first sample of the uncropped output that is given
        count: samples given per step
    """

    def __init__(self, body: nn.Module, held: int, mask: Tuple[int, int], begin: int, count: int) -> None:
        super().__init__(body, held, 0, mask)
        self.begin = begin
        self.count = count

    def forward(self, xs: List[Tensor], states: List[Tensor], rows: Rows) -> Tuple[Tensor, List[Tensor]]:
        window, states = self.window(xs[0], states, rows)
        return self.body(window)[:, :, self.begin : self.begin + self.count], states


class EdgePart(Part):
    """Padding by samples of the signal itself: the first and last ones, mirrored or repeated.

    Args:
        mode: ``"reflect"`` or ``"replicate"``
        held: samples of the state
        lag, key: of the input
        lag_padded: of the output, less the padding on the left
    """

    def __init__(self, mode: str, held: int, lag: int, key: int, lag_padded: int) -> None:
        super().__init__(held)
        self.mode = mode
        self.lag = lag
        self.key = key
        self.lag_padded = lag_padded

    def forward(self, xs: List[Tensor], states: List[Tensor], rows: Rows) -> Tuple[Tensor, List[Tensor]]:
        x = xs[0]
        m = x.size(2)
        window, states = self.join(x, states, rows)
        wanted = rows.position(m, self.lag_padded)
        last = rows.length(self.key) - 1
        if self.mode == "reflect":
            source = wanted.abs()
            source = torch.where(source > last, 2 * last - source, source)
        else:
            source = torch.minimum(wanted.clamp(min=0), last)
        place = (source - (rows.begin(m, self.lag) - self.held)).clamp(0, window.size(2) - 1)
        return window.gather(2, _over(place, x).expand(-1, x.size(1), -1)), states


class Frames(Part):
    """Constants in front of a signal and behind it.

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
            y = torch.where(_over(position < front.size(2), y), _constants(front, position, x), y)
            end = end + front.size(2)
        if back is not None:
            y = torch.where(_over(position >= end, y), _constants(back, position - end, x), y)
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
        here = _over((place >= 0) & (place < m), x)
        found = x.gather(2, _over(place.clamp(0, m - 1), x).expand(-1, x.size(1), -1))
        y = torch.where(here, found, states[0])
        return y, [rows.keep(states[0], y)]


class Attach(Part):
    """A value with a sample repeated in front or behind.

    Args:
        last: whether behind
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
        return torch.where(_over(there, x), sample, window[:, :, :m]), states


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
        before = _over(position < 0, x)
        behind = _over(position + 1 >= rows.length(self.key), x)
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
        inside = _over(rows.inside(x.size(2), self.lag, self.key), x)
        x = torch.where(inside, x, torch.full_like(x, self.neutral))
        state = rows.restart(states[0], self.neutral)
        joined = torch.cat([state, x], 2)
        if self.kind == "cumsum":
            y = torch.cumsum(joined, 2)
        elif self.kind == "cumprod":
            y = torch.cumprod(joined, 2)
        elif self.kind == "logcumsumexp":
            y = torch.logcumsumexp(joined, 2)
        elif self.kind == "cummax":
            y = torch.cummax(joined, 2)[0]
        else:
            y = torch.cummin(joined, 2)[0]
        y = y[:, :, 1:]
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
