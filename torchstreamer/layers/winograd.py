"""Convolutions with fewer products than their definition has, by Winograd's minimal filtering.

Two outputs of a kernel of 3 taps cost 4 products instead of 6, F(2, 3), of 2 taps 3 instead of 4, F(2, 2); longer
kernels are sums of these. With the taps ``g`` and the samples ``d`` under two neighbouring outputs, F(2, 3) is

    m1 = (d0 - d2) g0    m2 = (d1 + d2) (g0 + g1 + g2) / 2    m3 = (d2 - d1) (g0 - g1 + g2) / 2    m4 = (d1 - d3) g2
    y0 = m1 + m2 + m3    y1 = m2 - m3 - m4

and F(2, 2) is

    m1 = (d0 - d1) g0    m2 = d1 (g0 + g1)    m4 = (d1 - d2) g1
    y0 = m1 + m2         y1 = m2 - m4

In F(2, 2) the taps may be filters themselves, of every other tap on every other sample, and the three products
convolutions of half the length, which the same saves products in: so kernels of 6 taps and more are computed, but for
the last tap of an odd number.

No sample takes part in an output that does not depend on it, so that nan stays where a convolution has it; with larger
tiles it would not. An infinite sample may give nan. Rounding errors are those of a convolution, or twice as large.

Source: Winograd, "Arithmetic Complexity of Computations", 1980; Lavin and Gray, "Fast Algorithms for Convolutional
Neural Networks", 2016; Parker and Parhi, "Low-Area/Power Parallel FIR Digital Filter Implementations", 1997.
"""

from typing import List, Optional, Tuple

import torch
from torch import Tensor

__all__ = ["LARGE", "WinogradWeight", "winograd"]

# Values of the samples' differences and sums that are made at once: they should stay in the cache. But a program for
# very long chunks should not become long itself.
_BLOCK = 1 << 19
_BLOCKS = 8

# Products of so many multiplications are as fast in calls of their own, and a compiler can lay out their weights.
LARGE = 1 << 20

# Taps of a kernel that is worth halving.
_LONG = 6


def _split(kernel_size: int) -> List[int]:
    """The kernels of 3 and of 2 taps that make up a longer one."""
    twos = -kernel_size % 3
    return [3] * ((kernel_size - 2 * twos) // 3) + [2] * twos


class WinogradWeight:
    """The weight of a convolution, as the factors of its products.

    Args:
        weight: ``[O, C, K]``, at least 2 taps
        dtype: of the factors, that of the weight by default

    Attributes:
        taps: K
        kernels: taps of the small kernels
        outer: for m1, m2 and m4, ``[3, kernels · C, O]``
        third: for m3, ``[kernels of 3 taps · C, O]``
        halves: for m1, m2 and m4 of a long kernel, weights of half its taps; else empty
        last: the tap that the halves lack, ``[C, O]``, if any
    """

    def __init__(self, weight: Tensor, dtype: Optional[torch.dtype] = None) -> None:
        dtype = dtype or weight.dtype
        exact = weight.detach().to(torch.float64)
        self.taps = exact.size(2)
        self.last: Optional[Tensor] = None
        self.halves: List["WinogradWeight"] = []
        if self.taps >= _LONG:
            even, odd = exact[:, :, : self.taps - 1 : 2], exact[:, :, 1::2]
            self.halves = [WinogradWeight(half, dtype) for half in (even, even + odd, odd)]
            if self.taps % 2:
                self.last = exact[:, :, -1].t().to(dtype)
        taps = exact.permute(2, 1, 0)
        self.kernels = _split(taps.size(0))
        outer, third = [], [taps.new_empty([0, taps.size(2)])]
        for g in torch.split(taps, self.kernels):
            if g.size(0) == 3:
                outer.append(torch.stack([g[0], (g[0] + g[1] + g[2]) / 2, g[2]]))
                third.append((g[0] - g[1] + g[2]) / 2)
            else:
                outer.append(torch.stack([g[0], g[0] + g[1], g[1]]))
        self.outer = torch.cat(outer, 1).to(dtype)
        self.third = torch.cat(third).to(dtype)


def winograd(
    rows: Tensor, first: int, count: int, dilation: int, weight: WinogradWeight, bias: Optional[Tensor]
) -> Tensor:
    """A convolution of stride 1 without groups.

    Args:
        rows: samples ``[B, n, C]``
        first: row at which the first window begins
        count: outputs, a multiple of ``2 · dilation``
        dilation: rows from one tap to the next
        weight: of the convolution
        bias: ``[O]``

    Returns:
        ``[B, count, O]``
    """
    b, _, c = rows.shape
    span = (weight.taps - 1) * dilation
    pieces: List[Tensor] = []
    end = first + count
    if weight.halves:
        halved = count - count % (4 * dilation)
        if b * halved * c * weight.outer.size(2) >= 4 * LARGE:
            pieces.append(_halved(rows.narrow(1, first, halved + span), halved, dilation, weight, bias))
            first += halved
    tile = 2 * dilation
    tiles = max(_BLOCK // (4 * b * dilation * c * len(weight.kernels)), -(-count // (tile * _BLOCKS)), 1)
    for at in range(first, end, tiles * tile):
        part = min(tiles * tile, end - at)
        pieces.append(_tiles(rows.narrow(1, at, part + span), part // tile, dilation, weight, bias))
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, 1)


def _halved(rows: Tensor, count: int, dilation: int, weight: WinogradWeight, bias: Optional[Tensor]) -> Tensor:
    # F(2, 2) with filters for taps. Outputs that lie a dilation apart are the even and the odd ones.
    b, _, c = rows.shape
    half = count // 2
    span = (weight.taps // 2 - 1) * dilation

    def pairs(tap: int) -> Tensor:
        # Under the even and under the odd outputs, and what lies after them, [B, pairs, 2, dilation, C].
        return rows.narrow(1, tap * dilation, 2 * (half + span)).reshape(b, -1, 2, dilation, c)

    d0 = pairs(0).select(2, 0)
    d1, d2 = pairs(1).unbind(2)
    m1, m2, m4 = (
        winograd(samples.reshape(b, half + span, c), 0, half, dilation, part, offset)
        for samples, part, offset in zip((d0 - d1, d1, d1 - d2), weight.halves, (None, bias, None), strict=True)
    )
    shape = [b, half // dilation, dilation, m1.size(2)]
    y = torch.stack([(m1 + m2).view(shape), (m2 - m4).view(shape)], 2).view(b, count, m1.size(2))
    if weight.last is not None:
        tail = rows.narrow(1, (weight.taps - 1) * dilation, count).reshape(b * count, c)
        y = y + torch.mm(tail, weight.last).view(y.shape)
    return y


def _tiles(rows: Tensor, tiles: int, dilation: int, weight: WinogradWeight, bias: Optional[Tensor]) -> Tensor:
    b, _, c = rows.shape
    count = 2 * dilation * tiles

    def samples(tap: int) -> Tuple[Tensor, Tensor]:
        # Under the first and under the second output of every pair, [B, tiles, dilation, C].
        pairs = rows.narrow(1, tap * dilation, count).reshape(b, tiles, 2, dilation, c)
        return pairs.select(2, 0), pairs.select(2, 1)

    factors: List[List[Tensor]] = [[], [], [], []]  # for m1, m2, m4, m3
    tap = 0
    for taps in weight.kernels:
        d0, d1 = samples(tap)
        if taps == 3:
            d2, d3 = samples(tap + 2)
            found = [d0 - d2, d1 + d2, d1 - d3, d2 - d1]
        else:
            d2 = samples(tap + 1)[1]
            found = [d0 - d1, d1, d1 - d2]
        for held, factor in zip(factors, found, strict=False):
            held.append(factor)
        tap += taps
    columns = [torch.cat(held, 3).reshape(b * tiles * dilation, -1) for held in factors if held]
    matrices = [*weight.outer.unbind(0), weight.third][: len(columns)]
    if columns[0].size(0) * matrices[0].numel() >= LARGE:
        products = [torch.mm(column, matrix) for column, matrix in zip(columns, matrices, strict=True)]
    else:  # in one call, but for m3 if that has less to sum
        alike = len(columns) if columns[-1].shape == columns[0].shape else 3
        products = list(torch.bmm(torch.stack(columns[:alike]), torch.stack(matrices[:alike])).unbind(0))
        products += [torch.mm(column, matrix) for column, matrix in zip(columns[alike:], matrices[alike:], strict=True)]
    m1, m2, m4 = products[:3]
    y0, y1 = m1 + m2, m2 - m4
    for m3 in products[3:]:
        y0, y1 = y0 + m3, y1 - m3
    if bias is not None:
        y0, y1 = y0 + bias, y1 + bias
    pair = [y.view(b, tiles, dilation, y.size(1)) for y in (y0, y1)]
    return torch.stack(pair, 2).view(b, count, y0.size(1))
