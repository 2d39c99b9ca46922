"""A linear filter with a state, computed block by block. TorchScript compiles this file.

A filter is ``s' = s·A + x·B`` and ``y = s·C + x·D``. Of a block of ``L`` samples, a row ``x``, it makes

.. code-block:: text

    y  = x·T + s·O       T: the impulse response as a triangular matrix; O: what each output sees of the state
    s' = x·R + s·A^L     R: what each sample leaves in the state

The states at the edges of blocks follow each other by the same law, with ``A^L`` instead of ``A``, so groups of blocks
are computed as blocks are, and groups of groups: nothing is a loop over samples, and nothing is divided.

States, and what is computed from them, are in double precision whatever the signal. So the length of a block decides
what it costs, and nothing else: rounding errors of a state, which a filter with poles near the unit circle amplifies
by some powers of ten, are those of float64. Only ``x·T``, a sum of at most ``L`` products within a block that nothing
feeds back, is in the dtype of the signal.
"""

from typing import List, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..layers.accumulating import accumulator, working
from ..layers.scan import without_infinite, without_smallest

__all__ = ["block_tables", "filtered"]


def group_length() -> int:
    """Blocks of a group, groups of a group of groups."""
    return 16


def block_length(order: int) -> int:
    """Samples of a block: with a larger state its edges cost more."""
    return 32 if order <= 4 else 64


def block_tables(sections: Tensor, like: Tensor) -> List[Tensor]:
    """What a cascade of filters makes of blocks.

    Args:
        sections: coefficients ``[G, S, 2, n + 1]`` of numerators and denominators, whose first one is 1, for each of
            ``G`` channels or for all
        like: a signal, which says the dtype of the products with samples

    Returns:
        ``T [G, L, L]`` in the dtype of the signal, ``O [G, N, L]``, ``R [G, L, N]``, the powers ``A^0 … A^(L-1)``,
        ``[G, L, N, N]``, and for groups of each level ``[G, 17·N, 17·N]``
    """
    step, enter, leave, through = _cascade(sections)
    size = block_length(enter.size(1))
    powers, step = _powers(step, size)
    seen = torch.matmul(powers, leave.unsqueeze(1).unsqueeze(3)).squeeze(3)  # [G, L, N]
    left = torch.matmul(enter.unsqueeze(1).unsqueeze(2), powers).squeeze(2)  # [G, L, N]
    response = torch.cat([through.unsqueeze(1), (seen * enter.unsqueeze(1)).sum(2).narrow(1, 0, size - 1)], 1)
    lag = _lags(size, sections)
    direct = torch.where(lag >= 0, response[:, lag.clamp(min=0)], torch.zeros_like(response[:, :1]).unsqueeze(2))
    tables = [direct.to(working(like)), seen.transpose(1, 2), left.flip([1]), powers]
    for _ in range(6):  # half a billion samples
        edges, step = _edges(step)
        tables.append(edges)
    smooth: List[Tensor] = []
    for table in tables:
        smooth.append(without_smallest(table, table).contiguous())
    return smooth


def _cascade(sections: Tensor) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    # A, B, C and D of filters one after the other, in direct form II transposed: the state is that of SciPy, section by
    # section. `seen` and `through` say how the signal between sections depends on state and input.
    groups, count, order = sections.size(0), sections.size(1), sections.size(3) - 1
    n = count * order
    unit = torch.eye(n, dtype=sections.dtype, device=sections.device).unsqueeze(0).expand([groups, n, n])
    seen = torch.zeros_like(unit.select(1, 0))
    through = torch.ones_like(seen.select(1, 0))
    columns: List[Tensor] = []
    enter: List[Tensor] = []
    for i in range(count):
        b, a = sections.select(1, i).select(1, 0), sections.select(1, i).select(1, 1)
        given = unit.select(1, i * order) + b.narrow(1, 0, 1) * seen
        passed = b.select(1, 0) * through
        for j in range(1, order + 1):
            column = b.narrow(1, j, 1) * seen - a.narrow(1, j, 1) * given
            columns.append(column + unit.select(1, i * order + j) if j < order else column)
            enter.append(b.select(1, j) * through - a.select(1, j) * passed)
        seen, through = given, passed
    return torch.stack(columns, 2), torch.stack(enter, 1), seen, through


def _powers(step: Tensor, count: int) -> Tuple[Tensor, Tensor]:
    """The powers from 0 on, as many as a power of two says, and the next one."""
    n = step.size(1)
    powers = torch.eye(n, dtype=step.dtype, device=step.device).expand([step.size(0), 1, n, n])
    while powers.size(1) < count:
        powers = torch.cat([powers, torch.matmul(powers, step.unsqueeze(1))], 1)
        step = torch.matmul(step, step)
    return powers, step


def _lags(size: int, like: Tensor) -> Tensor:
    place = torch.arange(size, device=like.device)
    return place.unsqueeze(0) - place.unsqueeze(1)


def _edges(step: Tensor) -> Tuple[Tensor, Tensor]:
    # From a state and what 16 blocks bring to that state and the 16 after them.
    n, count = step.size(1), group_length()
    powers, end = _powers(step, count)
    powers = torch.cat([powers, end.unsqueeze(1), torch.zeros_like(end).unsqueeze(1)], 1)
    lag = _lags(count + 1, step)
    blocks = powers[:, torch.where(lag >= 0, lag, count + 1)]  # [G, 17, 17, N, N]
    return blocks.transpose(2, 3).reshape(step.size(0), (count + 1) * n, (count + 1) * n), end


def filtered(x: Tensor, state: Tensor, tables: List[Tensor]) -> Tuple[Tensor, Tensor]:
    """A chunk through a filter, and the state after it.

    From the first sample on that is no finite number, all outputs of its row and channel are ``nan``, and the state.

    Args:
        x: the chunk, ``[B, C, t]``
        state: before it, ``[B, C, N]``, in double precision
        tables: of the filter, `block_tables`
    """
    groups, size = tables[0].size(0), tables[0].size(1)
    whole = x.to(working(x))
    # 0 up to the first sample that is no finite number, and nan from it on.
    marks = (whole.detach() * 0).cumsum(2)
    whole = torch.nan_to_num(whole, 0.0, 0.0, 0.0)
    apart = groups > 1
    rows = whole.transpose(0, 1) if apart else whole.reshape(1, -1, x.size(2))
    s = (state.transpose(0, 1) if apart else state.reshape(1, -1, state.size(2))).to(accumulator(x))
    longest = size
    for _ in range(len(tables) - 4):
        longest *= group_length()
    ys: List[Tensor] = []
    for part in torch.split(rows, longest, 2):  # type: ignore[no-untyped-call]
        t = part.size(2)
        rest = t % size
        if t > rest:
            y, s = _blocks(part.narrow(2, 0, t - rest), s, tables)
            ys.append(y)
        if rest > 0:
            part = part.narrow(2, t - rest, rest)
            direct = tables[0].narrow(1, 0, rest).narrow(2, 0, rest)
            ys.append(torch.baddbmm(torch.bmm(s, tables[1].narrow(2, 0, rest)).to(part.dtype), part, direct))
            left = torch.bmm(part.to(s.dtype), tables[2].narrow(1, size - rest, rest))
            s = torch.baddbmm(left, s, tables[3].select(1, rest))
    y = ys[0] if len(ys) == 1 else torch.cat(ys, 2)
    y = y.transpose(0, 1) if apart else y.view(x.size())
    s = s.transpose(0, 1) if apart else s.view(state.size())
    s = without_infinite(s + marks.narrow(2, x.size(2) - 1, 1))
    return (y + marks).to(x.dtype), without_smallest(s, x)


def _blocks(x: Tensor, s: Tensor, tables: List[Tensor]) -> Tuple[Tensor, Tensor]:
    groups, rows, size = x.size(0), x.size(1), tables[0].size(1)
    count, n = x.size(2) // size, s.size(2)
    blocks = x.reshape(groups, rows * count, size)
    left = torch.bmm(blocks.to(s.dtype), tables[2]).view(groups, rows, count, n)
    states = _states(left, s, tables)
    before = without_smallest(states.narrow(2, 0, count), x).reshape(groups, rows * count, n)
    y = torch.baddbmm(torch.bmm(before, tables[1]).to(x.dtype), blocks, tables[0])
    return y.view(groups, rows, count * size), states.select(2, count)


def _states(left: Tensor, s: Tensor, tables: List[Tensor]) -> Tensor:
    """The states before blocks that leave ``[G, R, k, N]``, and the one after the last, ``[G, R, k + 1, N]``."""
    groups, rows, n = s.size(0), s.size(1), s.size(2)
    group = group_length()
    waiting: List[Tensor] = []
    counts: List[int] = []
    while left.size(2) > group:
        count = left.size(2)
        left = F.pad(left, [0, 0, 0, -count % group]).view(groups, -1, group * n)
        edges = tables[4 + len(waiting)]
        waiting.append(left)
        counts.append(count)
        left = torch.bmm(left, edges.narrow(1, n, group * n).narrow(2, group * n, n)).view(groups, rows, -1, n)
    edges = tables[4 + len(waiting)]
    width = (left.size(2) + 1) * n
    states = torch.cat([s.unsqueeze(2), left], 2).view(groups, rows, width)
    states = torch.bmm(states, edges.narrow(1, 0, width).narrow(2, 0, width)).view(groups, rows, -1, n)
    while len(waiting) > 0:
        left = waiting.pop()
        last = states.narrow(2, states.size(2) - 1, 1)
        starts = states.narrow(2, 0, states.size(2) - 1).reshape(groups, -1, n)
        found = torch.bmm(torch.cat([starts, left], 2), tables[4 + len(waiting)].narrow(2, 0, group * n))
        states = torch.cat([found.view(groups, rows, -1, n), last], 2).narrow(2, 0, counts.pop() + 1)
    return states
