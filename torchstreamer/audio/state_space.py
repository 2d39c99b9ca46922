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

From chunk to chunk the state is that of direct form II transposed, SciPy's ``zi``. Within a chunk it has other
coordinates, see `_coordinates`: powers of ``A`` in the former lose digits where poles are near 1.
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
    return 32 if order <= 16 else 64


def block_tables(sections: Tensor, like: Tensor) -> List[Tensor]:
    """What a cascade of filters makes of blocks.

    Args:
        sections: coefficients ``[G, S, 2, n + 1]`` of numerators and denominators, whose first one is 1, for each of
            ``G`` channels or for all
        like: a signal, which says the dtype of the products with samples

    Returns:
        ``T [G, L, L]`` in the dtype of the signal, ``O [G, N, L]``, ``R [G, L, N]``, the powers ``A^0 … A^(L-1)``,
        ``[G, L, N, N]``; ``[G, N, N]`` to and from the coordinates in which all this is; and for groups of each level
        ``[G, 17·N, 17·N]``
    """
    step, enter, leave, through, into, back = _cascade(sections)
    size = block_length(enter.size(1))
    powers, step = _powers(step, size)
    seen = torch.matmul(powers, leave.unsqueeze(1).unsqueeze(3)).squeeze(3)  # [G, L, N]
    left = torch.matmul(enter.unsqueeze(1).unsqueeze(2), powers).squeeze(2)  # [G, L, N]
    response = torch.cat([through.unsqueeze(1), (seen * enter.unsqueeze(1)).sum(2).narrow(1, 0, size - 1)], 1)
    lag = _lags(size, sections)
    direct = torch.where(lag >= 0, response[:, lag.clamp(min=0)], torch.zeros_like(response[:, :1]).unsqueeze(2))
    tables = [direct.to(working(like)), seen.transpose(1, 2), left.flip([1]), powers, into, back]
    for _ in range(6):  # half a billion samples
        edges, step = _edges(step)
        tables.append(edges)
    smooth: List[Tensor] = []
    for table in tables:
        smooth.append(without_smallest(table, table).contiguous())
    return smooth


def _cascade(sections: Tensor) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    # A, B, C and D of filters one after the other, and how their coordinates are found and given up. `seen` and
    # `through` say how the signal between sections depends on state and input.
    groups, count, order = sections.size(0), sections.size(1), sections.size(3) - 1
    n = count * order
    unit = torch.eye(n, dtype=sections.dtype, device=sections.device).unsqueeze(0).expand([groups, n, n])
    seen = torch.zeros_like(unit.select(1, 0))
    through = torch.ones_like(seen.select(1, 0))
    columns: List[Tensor] = []
    enter: List[Tensor] = []
    into: List[Tensor] = []
    back: List[Tensor] = []
    for i in range(count):
        b, a = sections.select(1, i).select(1, 0), sections.select(1, i).select(1, 1)
        sign, found, given, last = _coordinates(a)
        direct = b.narrow(1, 0, 1)
        left = torch.bmm((b - a * direct).narrow(1, 1, order).unsqueeze(1), found).squeeze(1)
        for k in range(order):
            place = i * order + k
            column = sign * unit.select(1, place) + left.narrow(1, k, 1) * seen
            if k + 1 < order:
                column = column + unit.select(1, place + 1)
            else:
                column = column - F.pad(last, [i * order, n - (i + 1) * order])
            columns.append(column)
            enter.append(left.select(1, k) * through)
        around = [i * order, n - (i + 1) * order]
        into.append(F.pad(found, around))
        back.append(F.pad(given, around))
        seen = unit.select(1, i * order) + direct * seen
        through = direct.squeeze(1) * through
    return torch.stack(columns, 2), torch.stack(enter, 1), seen, through, torch.cat(into, 1), torch.cat(back, 1)


def _coordinates(a: Tensor) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    """Coordinates in which a filter with poles near 1 or -1 is no small difference of large numbers.

    Those of direct form II transposed, ``z``, are what its response to silence, ``y[0], y[1], …``, and the denominator
    add up to. Here they are its differences, ``w[k] = Δ^k y[0]`` with ``Δy[t] = y[t + 1] - sign · y[t]``. So
    ``w[k]`` becomes ``sign · w[k] + w[k + 1]``, and the last difference follows from the denominator as a polynomial
    in ``Δ``.

    Args:
        a: denominators ``[G, n + 1]``

    Returns:
        the sign, ``[G, 1]``; ``Q`` and its inverse, for ``w = z·Q``; and the polynomial, the least power first
    """
    n = a.size(1) - 1
    sign = torch.where(a.narrow(1, 1, 1) > 0, -1.0, 1.0).to(a.dtype)
    # Row i: of the power i of `sign + Δ` the coefficients, [G, n + 1, n + 1].
    row = F.pad(torch.ones_like(sign), [0, n])
    rows = [row]
    for _ in range(n):
        row = sign * row + F.pad(row, [1, -1])
        rows.append(row)
    powers = torch.stack(rows, 1)
    polynomial = torch.bmm(a.flip([1]).unsqueeze(1), powers).squeeze(1)
    # z[k] = y[k] + a[1]·y[k-1] + … + a[k]·y[0]
    lag = _lags(n, a)
    sums = torch.where(lag >= 0, a[:, lag.clamp(min=0)], torch.zeros_like(a[:, :1]).unsqueeze(2))
    back = torch.bmm(powers.narrow(1, 0, n).narrow(2, 0, n).transpose(1, 2), sums)
    row = F.pad(torch.ones_like(sign), [0, n - 1])
    found = [row]
    for _ in range(n - 1):
        first = -(a.narrow(1, 1, n) * row).sum(1, keepdim=True)
        row = torch.cat([first, row.narrow(1, 0, n - 1)], 1) - sign * row
        found.append(row)
    return sign, torch.stack(found, 2), back, polynomial.narrow(1, 0, n)


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
    if x.numel() == 0:
        return x, state
    groups, size = tables[0].size(0), tables[0].size(1)
    whole = x.to(working(x))
    # 0 up to the first sample that is no finite number, and nan from it on.
    marks = (whole.detach() * 0).cumsum(2)
    whole = torch.nan_to_num(whole, 0.0, 0.0, 0.0)
    apart = groups > 1
    rows = whole.transpose(0, 1) if apart else whole.reshape(1, -1, x.size(2))
    s = (state.transpose(0, 1) if apart else state.reshape(1, -1, state.size(2))).to(accumulator(x))
    s = torch.bmm(s, tables[4])
    longest = size
    for _ in range(len(tables) - 6):
        longest *= group_length()
    ys: List[Tensor] = []
    for part in torch.split(rows, longest, 2):
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
    s = torch.bmm(s, tables[5])
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
        edges = tables[6 + len(waiting)]
        waiting.append(left)
        counts.append(count)
        left = torch.bmm(left, edges.narrow(1, n, group * n).narrow(2, group * n, n)).view(groups, rows, -1, n)
    edges = tables[6 + len(waiting)]
    width = (left.size(2) + 1) * n
    states = torch.cat([s.unsqueeze(2), left], 2).view(groups, rows, width)
    states = torch.bmm(states, edges.narrow(1, 0, width).narrow(2, 0, width)).view(groups, rows, -1, n)
    while len(waiting) > 0:
        left = waiting.pop()
        last = states.narrow(2, states.size(2) - 1, 1)
        starts = states.narrow(2, 0, states.size(2) - 1).reshape(groups, -1, n)
        found = torch.bmm(torch.cat([starts, left], 2), tables[6 + len(waiting)].narrow(2, 0, group * n))
        states = torch.cat([found.view(groups, rows, -1, n), last], 2).narrow(2, 0, counts.pop() + 1)
    return states
