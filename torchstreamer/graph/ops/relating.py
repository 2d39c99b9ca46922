"""Masks and biases of queries and keys, where these are the few of a step. TorchScript compiles this file."""

from typing import Optional

import torch
from torch import Tensor, nn

__all__ = ["Banded", "Biased", "ByDistance", "FirstPlaces", "Placed"]


class Banded(nn.Module):
    """Of a whole bias ``[…, T, T]`` that repeats itself the entries of each place of the period, by ``j - i``.

    Args:
        period: queries after which it repeats itself
        first: keys at the start that are left out
        left, right: the entries from ``j - i = -left`` to ``right``

    Returns:
        ``[…, period, left + right + 1]``
    """

    def __init__(self, period: int, first: int, left: int, right: int) -> None:
        super().__init__()
        self.period = period
        self.first = first
        self.left = left
        self.right = right

    def forward(self, values: Tensor) -> Tensor:
        whole, period = values.size(-1), self.period
        place = torch.arange(period, device=values.device).unsqueeze(1)
        offset = torch.arange(-self.left, self.right + 1, device=values.device).unsqueeze(0)
        # The earliest query of each place that has such a key.
        turns = torch.div((self.first - offset - place).clamp(min=0) + period - 1, period, rounding_mode="floor")
        i = place + turns * period
        j = i + offset
        index = i.clamp(max=whole - 1) * whole + j.clamp(max=whole - 1)
        found = values.flatten(-2).index_select(-1, index.flatten())
        return found.reshape(list(values.size())[:-2] + [period, self.left + self.right + 1])


class Biased(nn.Module):
    """A bias for queries and keys of a step, laid out as their scores.

    Args:
        rows: the axis of the scores for rows, -1 if there is none
        fold: entries of that axis for each row
        left: the offset of the table's first column is ``-left``
        prefix: first keys that have biases of their own

    Shape:
        - table: what `Banded` gives, with as many axes as the scores
        - i, j: positions of queries and keys, ``[b, m]`` and ``[b, K]``, for all rows or for one
        - first: biases of the first keys, ``[…, b · m, prefix]``
        - output: ``[…, rows · fold, …, m, K]``, or with 1 for the rows
    """

    def __init__(self, rows: int, fold: int, left: int, prefix: int = 0) -> None:
        super().__init__()
        self.rows = rows
        self.fold = fold
        self.left = left
        self.prefix = prefix

    def forward(self, table: Tensor, i: Tensor, j: Tensor, rows: int, first: Optional[Tensor] = None) -> Tensor:
        period, width = table.size(-2), table.size(-1)
        column = (j.unsqueeze(1) - i.unsqueeze(2) + self.left).clamp(0, width - 1)
        index = torch.remainder(i, period).unsqueeze(2) * width + column
        found = table.flatten(-2).index_select(-1, index.flatten())
        found = found.reshape(list(table.size())[:-2] + list(index.size())).movedim(-3, 0)  # [b, …, m, K]
        if first is not None:
            found = self._beside(found, first, i, j)
        if self.rows < 0:
            return found[0]
        if self.fold > 1 and found.size(1) > 1:
            return found.expand([rows] + list(found.size())[1:]).flatten(0, 1)
        if found.dim() > 3:
            found = found.squeeze(1 + self.rows)
        found = found.repeat_interleave(self.fold, 0) if self.fold > 1 and found.size(0) > 1 else found
        return found.movedim(0, self.rows)

    def _beside(self, found: Tensor, first: Tensor, i: Tensor, j: Tensor) -> Tensor:
        # Those of the first keys are taken from where they stand by themselves.
        first = first.reshape(list(first.size())[:-2] + list(i.size()) + [self.prefix]).movedim(-3, 0)
        others = [1 for _ in range(found.dim() - 2)]
        place = j.clamp(0, self.prefix - 1).reshape([j.size(0)] + others + [j.size(1)])
        size = list(found.size())
        first = first.expand(size[:-1] + [self.prefix]).gather(-1, place.expand(size))
        return torch.where((j < self.prefix).reshape([j.size(0)] + others + [j.size(1)]), first, found)


class FirstPlaces(nn.Module):
    """Positions of the first keys of a signal, on the device of other positions."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, i: Tensor) -> Tensor:
        return torch.arange(self.count, device=i.device)


class Placed(nn.Module):
    """A mask ``[b, m, K]`` laid out as scores.

    Args:
        rank: axes of the scores
        rows: which of them holds the rows, -1 if none does
        fold: entries of that axis for each row
    """

    def __init__(self, rank: int, rows: int, fold: int) -> None:
        super().__init__()
        self.rank = rank
        self.rows = rows
        self.fold = fold

    def forward(self, mask: Tensor) -> Tensor:
        if self.rows < 0:
            return mask[0]
        if self.fold > 1 and mask.size(0) > 1:
            mask = mask.repeat_interleave(self.fold, 0)
        size = [1 for _ in range(self.rank - 2)] + [mask.size(1), mask.size(2)]
        size[self.rows] = mask.size(0)
        return mask.reshape(size)


class ByDistance(nn.Module):
    """Scores of queries by distance, put where the keys of these distances stand.

    Args:
        rank: axes of the scores
        rows: which of them holds the rows, -1 if none does
        fold: entries of that axis for each row
        left: the first column is of the key so far before the query

    Shape:
        - input: ``[…, m, distances]``
        - i, j: positions of queries and keys, ``[b, m]`` and ``[b, K]``, for all rows or for one
        - output: ``[…, m, K]``
    """

    def __init__(self, rank: int, rows: int, fold: int, left: int) -> None:
        super().__init__()
        self.place = Placed(rank, rows, fold)
        self.left = left

    def forward(self, x: Tensor, i: Tensor, j: Tensor) -> Tensor:
        column = (j.unsqueeze(1) - i.unsqueeze(2) + self.left).clamp(0, x.size(-1) - 1)
        index = self.place(column)
        return x.gather(-1, index.expand(list(x.size())[:-1] + [j.size(1)]))
