"""Between a value as the model lays it out and ``[B, C, T]``, as streams take it. TorchScript compiles this file."""

from typing import List, Sequence

from torch import Tensor, nn

__all__ = ["Layout"]


class Layout(nn.Module):
    """Where rows and time stand in a tensor.

    Args:
        time: the time axis
        rows: the batch axis, -1 if there is none
        inner: entries of the batch axis per row of the signal
        others: sizes of the other axes, in order
    """

    order: List[int]
    back: List[int]
    others: List[int]
    marks: List[int]

    def __init__(self, time: int, rows: int, inner: int, others: Sequence[int]) -> None:
        super().__init__()
        rank = len(others) + (1 if rows < 0 else 2)
        middle = [axis for axis in range(rank) if axis not in (time, rows)]
        self.order = ([] if rows < 0 else [rows]) + middle + [time]
        self.back = [self.order.index(axis) for axis in range(rank)]
        self.moved = self.order != list(range(rank))
        self.has_rows = rows >= 0
        self.marks = [1] * rank  # sizes of a mark for each sample
        self.time, self.rows = time, rows
        self.inner = inner
        self.others = list(others)
        channels = inner
        for size in others:
            channels *= size
        self.channels = channels
        self.plain = rows == 0 and time == 2 and rank == 3 and inner == 1

    def pack(self, x: Tensor) -> Tensor:
        """The tensor as ``[B, C, T]``."""
        if self.plain:
            return x
        if self.moved:
            x = x.permute(self.order)
        rows = x.size(0) // self.inner if self.has_rows else 1
        return x.reshape([rows, self.channels, x.size(-1)])

    def unpack(self, y: Tensor) -> Tensor:
        """The tensor as the model has it."""
        if self.plain:
            return y
        shape = [y.size(0) * self.inner] + self.others if self.has_rows else self.others
        y = y.reshape(shape + [y.size(2)])
        return y.permute(self.back) if self.moved else y

    def spoilt(self, y: Tensor, bad: Tensor) -> Tensor:
        """The tensor, as the model has it, with ``nan`` in samples ``[B, T]`` that are bad."""
        if self.has_rows:
            bad = bad.repeat_interleave(self.inner, 0) if self.inner > 1 else bad
            bad = bad.transpose(0, 1) if self.rows > self.time else bad
        size = list(self.marks)
        size[self.time] = y.size(self.time)
        if self.has_rows:
            size[self.rows] = y.size(self.rows)
        return y.masked_fill(bad.reshape(size), float("nan"))
