"""Masks and biases of queries and keys, where these are the few of a step. TorchScript compiles this file."""

from typing import List

import torch
from torch import Tensor

__all__ = ["banded", "biased", "hidden_at", "placed"]


def banded(values: Tensor, period: int, first: int, left: int, right: int) -> Tensor:
    """Of a whole bias ``[…, T, T]`` that repeats itself the entries of each place of the period, by ``j - i``.

    Args:
        values: the bias
        period: queries after which it repeats itself
        first: keys at the start that are left out
        left, right: the entries from ``j - i = -left`` to ``right``

    Returns:
        ``[…, period, left + right + 1]``
    """
    whole = values.size(-1)
    place = torch.arange(period, device=values.device).unsqueeze(1)
    offset = torch.arange(-left, right + 1, device=values.device).unsqueeze(0)
    # The earliest query of each place that has such a key.
    turns = torch.div((first - offset - place).clamp(min=0) + period - 1, period, rounding_mode="floor")
    i = place + turns * period
    j = i + offset
    index = i.clamp(max=whole - 1) * whole + j.clamp(max=whole - 1)
    found = values.flatten(-2).index_select(-1, index.flatten())
    return found.reshape(list(values.size())[:-2] + [period, left + right + 1])


def biased(table: Tensor, i: Tensor, j: Tensor, rows: int, fold: int, left: int) -> Tensor:
    """A bias for queries and keys of a step, laid out as their scores.

    Args:
        table: what `banded` gave, with as many axes as the scores have
        i: positions of the queries, ``[b, m]`` with ``b`` of 1 or ``rows``
        j: positions of the keys, ``[b, K]``
        rows: rows of the batch; 0 if the scores have no axis for them
        fold: entries of the first axis of the scores for each row
        left: the offset of the table's first column is ``-left``

    Returns:
        ``[rows · fold, …, m, K]``, or with 1 in the place of the first
    """
    period, width = table.size(-2), table.size(-1)
    column = (j.unsqueeze(1) - i.unsqueeze(2) + left).clamp(0, width - 1)
    index = torch.remainder(i, period).unsqueeze(2) * width + column
    found = table.flatten(-2).index_select(-1, index.flatten())
    found = found.reshape(list(table.size())[:-2] + list(index.size())).movedim(-3, 0)  # [b, …, m, K]
    if rows == 0:
        return found[0]
    if fold > 1 and found.size(1) > 1:
        size = [rows] + list(found.size())[1:]
        return found.expand(size).flatten(0, 1)
    found = found.squeeze(1)
    return found.repeat_interleave(fold, 0) if fold > 1 and found.size(0) > 1 else found


def placed(mask: Tensor, rank: int, fold: int) -> Tensor:
    """A mask ``[b, m, K]`` laid out as scores of so many axes, whose first holds the rows, ``fold`` times."""
    if rank == 2:
        return mask[0]
    if fold > 1 and mask.size(0) > 1:
        mask = mask.repeat_interleave(fold, 0)
    size: List[int] = [mask.size(0)] + [1 for _ in range(rank - 3)] + [mask.size(1), mask.size(2)]
    return mask.reshape(size)


def hidden_at(scores: Tensor, seen: Tensor) -> Tensor:
    """Scores with ``-inf`` at the keys that are not seen."""
    return scores.masked_fill(seen.logical_not(), -float("inf"))
