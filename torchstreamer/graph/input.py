"""The inputs of a model that takes several, or lays them out otherwise than ``[B, C, T]``. TorchScript compiles this
file."""

from typing import List, Sequence

from torch import Tensor, nn

from ..core.cell import Cell
from ..core.counter import Counter
from ..core.describe import describe, dtype_name, is_plain
from ..errors import StreamInputError

__all__ = ["Port"]


class Port(nn.Module):
    """One input: what its chunks must look like, and how much of it has come.

    Args:
        name: of the argument
        shape: its sizes; those of time and rows do not count
        time: its time axis, -1 for a static input
        rows: its batch axis, -1 if it has none
        like: an empty tensor of its dtype
        factor: ``(p, q, c)``: of ``n`` samples of the first streamed input it has ``(p · n + c) / q``
    """

    like: Tensor
    shape: List[int]

    def __init__(
        self, name: str, shape: Sequence[int], time: int, rows: int, like: Tensor, factor: Sequence[int]
    ) -> None:
        super().__init__()
        self.name = name
        self.shape = list(shape)
        self.time = time
        self.rows = rows
        self.p, self.q, self.c = factor
        self.register_buffer("like", like, persistent=False)
        self.came = Counter()
        self.kept = Cell()  # a static input, once for each row
        self.static = time < 0

    def check(self, x: Tensor, rows: int, unbatched: bool, begins: bool) -> None:
        """Refuse a chunk that does not fit.

        Args:
            x: the chunk
            rows: rows of the signal, -1 if none has come
            unbatched: whether the signal has no batch axis
            begins: whether this is the first call
        """
        rank = len(self.shape)
        alone = self.rows >= 0 and x.dim() == rank - 1
        good = (
            is_plain(x) and (x.dim() == rank or alone) and x.dtype == self.like.dtype and x.device == self.like.device
        )
        if good and not begins:
            good = alone == (unbatched and self.rows >= 0)
        if good:
            axis = 0
            for i, size in enumerate(self.shape):
                if alone and i == self.rows:
                    continue
                if i == self.rows:
                    good = good and (rows < 0 or x.size(axis) == rows)
                elif i != self.time:
                    good = good and x.size(axis) == size
                axis += 1
        if not good:
            raise StreamInputError(
                f"invalid_chunk: for '{self.name}' a chunk came with {describe(x)}; "
                f"{self.describe(rows, unbatched and not begins)} was expected; check the axes, or end the "
                "signal with flush() or reset() before another one"
            )

    def describe(self, rows: int, unbatched: bool) -> str:
        """The shape, dtype and device that are expected."""
        names: List[str] = []
        for i, size in enumerate(self.shape):
            if i == self.rows:
                if not unbatched:
                    names.append("B" if rows < 0 else f"{rows}")
            elif i == self.time:
                names.append("T")
            else:
                names.append(f"{size}")
        return f"[{', '.join(names)}], {dtype_name(self.like)}, on {self.like.device}"

    def unbatched(self, x: Tensor) -> bool:
        """Whether a chunk has no batch axis."""
        return self.rows >= 0 and x.dim() == len(self.shape) - 1

    def batched(self, x: Tensor) -> Tensor:
        """The chunk with its batch axis."""
        return x.unsqueeze(self.rows) if self.unbatched(x) else x

    def hold(self, x: Tensor, rows: int) -> None:
        """Keep a static input for the whole signal."""
        if self.rows >= 0:
            self.kept.keep([x.movedim(self.rows, 0)])
        else:
            self.kept.keep([x.expand([rows] + self.shape)])

    def held(self) -> Tensor:
        """The static input."""
        x = self.kept.rows()[0]
        return x.movedim(0, self.rows) if self.rows >= 0 else x[0]

    def units(self, came: int) -> int:
        """Samples of the first streamed input for which so many samples of this one suffice."""
        return (came * self.q - self.c) // self.p

    def length(self, n: int) -> int:
        """Samples of this input for ``n`` of the first streamed one."""
        return max((n * self.p + self.c) // self.q, 0)
