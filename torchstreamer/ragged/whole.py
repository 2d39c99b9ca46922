"""Signals that are there as a whole, of which pieces are read, and results that are put together of pieces."""

from typing import Any, List, Optional, Sequence, Tuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.describe import describe
from ..errors import StreamInputError

__all__ = ["Result", "Signal", "device_of"]


class Signal:
    """A tensor, or an array such as a memory map, of which pieces are read.

    Args:
        x: it; an array has a shape and gives NumPy arrays when it is sliced

    Attributes:
        shape: its shape
        device: where it stands
    """

    def __init__(self, x: Any) -> None:
        if not isinstance(x, Tensor) and not (hasattr(x, "shape") and hasattr(x, "__getitem__")):
            raise StreamInputError(
                f"invalid_chunk: the input is a {type(x).__name__}; a tensor or a NumPy array was expected; convert it "
                "with torch.as_tensor"
            )
        self._x = x
        self.shape = tuple(x.shape)
        self.device = x.device if isinstance(x, Tensor) else torch.device("cpu")

    def piece(
        self,
        begin: int,
        end: int,
        axis: int,
        device: torch.device,
        rows: Optional[Sequence[int]] = None,
        lead: int = 0,
    ) -> Tensor:
        """Samples from ``begin`` to ``end``, of all rows, which stand along ``lead``, or of some, on a device."""
        axis %= len(self.shape)
        index: List[Any] = [slice(None)] * len(self.shape)
        index[axis] = slice(begin, end)
        x = _tensor(self._x[tuple(index)])
        if rows is not None and list(rows) != list(range(self.shape[lead])):
            x = x.index_select(lead, torch.tensor(list(rows), device=x.device))
        return x.to(device)

    def whole(self, device: torch.device) -> Tensor:
        """All of it, on a device."""
        return _tensor(self._x[...]).to(device)


def _tensor(x: Any) -> Tensor:
    # A part of a memory map may be read-only, and no tensor should share its memory then.
    return x if isinstance(x, Tensor) else torch.as_tensor(x.copy())


def device_of(stream: Any, inputs: Sequence[Any]) -> torch.device:
    """Where the weights of a stream stand, or, if it has none, the first input that is a tensor."""
    anchor = stream.anchor()
    if anchor is not None:
        found: torch.device = anchor.device
        return found
    return next((x.device for x in inputs if isinstance(x, Tensor)), torch.device("cpu"))


class Result:
    """An output, put together of pieces: in place where no gradients are needed.

    Args:
        out: where to put it: a tensor, a NumPy array, or ``None`` for new memory
        device: where new memory stands

    Attributes:
        begun: whether anything came
    """

    def __init__(self, out: Any, device: torch.device) -> None:
        self._out = out
        self._device = device
        self._buffer: Optional[Tensor] = None
        self._pieces: List[Tensor] = []
        self._rows: List[List[Tensor]] = []
        self._axis = -1
        self._lead = 0
        self._width = 0
        self._at = 0
        self.begun = False

    def add(self, y: Tensor, axis: int, total: int) -> None:
        """The next piece.

        Args:
            y: it
            axis: of time
            total: length of the whole output
        """
        if not self.begun:
            self._begin(y, axis, [*y.shape[: axis % y.dim()], total, *y.shape[axis % y.dim() + 1 :]])
        if self._buffer is None:
            self._pieces.append(y.to(self._device))
        else:
            self._buffer.narrow(axis, self._at, y.shape[axis]).copy_(y)
        self._at += y.shape[axis]

    def get(self) -> Any:
        """The whole output, ``None`` if nothing came."""
        if self._buffer is None:
            return torch.cat(self._pieces, self._axis) if self._pieces else None
        return self._buffer if self._out is None else self._out

    def add_rows(
        self, y: Tensor, rows: Sequence[int], at: int, count: int, width: int, axes: Tuple[int, int] = (0, -1)
    ) -> None:
        """A piece of some rows.

        Args:
            y: it
            rows: whose it is
            at: where in their outputs it begins
            count: number of all rows
            width: length of the output
            axes: of rows and of time
        """
        lead, axis = axes[0], axes[1] % y.dim()
        if not self.begun:
            sizes = {lead: count, axis: width}
            self._begin(y, axis, [sizes.get(i, n) for i, n in enumerate(y.shape)])
            self._lead = lead
            self._rows = [[] for _ in range(count)]
        y = y.movedim((lead, axis), (0, -1))
        if self._buffer is None:
            for row, piece in zip(rows, y.to(self._device).unbind(0), strict=True):
                self._rows[row].append(piece)
        else:
            into = self._buffer.movedim((lead, axis), (0, -1))
            into[list(rows), ..., at : at + y.shape[-1]] = y.to(into.device, into.dtype)

    def get_rows(self, lengths: Sequence[int]) -> Any:
        """The output, zero beyond the length of each row; ``None`` if nothing came."""
        if not self.begun:
            return None
        if self._buffer is None:
            empty = next(row[0] for row in self._rows if row)[..., :0]
            whole = [torch.cat([empty, *row], -1) for row in self._rows]
            y = torch.stack([F.pad(row, (0, self._width - row.shape[-1])) for row in whole])
            return y.movedim((0, -1), (self._lead, self._axis))
        for row, n in zip(self._buffer.movedim((self._lead, self._axis), (0, -1)), lengths, strict=True):
            row[..., n:] = 0
        return self._buffer if self._out is None else self._out

    def _begin(self, y: Tensor, axis: int, shape: Sequence[int]) -> None:
        self.begun = True
        self._axis = axis
        self._width = shape[axis]
        if self._out is not None:
            self._buffer = self._checked(y, list(shape))
        elif not (torch.is_grad_enabled() and y.requires_grad):
            self._buffer = torch.empty(list(shape), dtype=y.dtype, device=self._device)

    def _checked(self, y: Tensor, shape: List[int]) -> Tensor:
        out = self._out
        if torch.is_grad_enabled() and y.requires_grad:
            raise StreamInputError(
                "invalid_out: out came, and gradients are on; no gradient goes through memory that is written to; call "
                "it under torch.no_grad(), or leave out= out"
            )
        if not isinstance(out, Tensor):
            flags = getattr(out, "flags", None)
            if flags is None or not flags.writeable:
                raise StreamInputError(
                    f"invalid_out: a {type(out).__name__} came as out; a tensor, or a NumPy array that may be written "
                    "to, was expected; open memory maps with mode='r+' or 'w+'"
                )
            out = torch.from_numpy(out)
        if list(out.shape) != shape:
            raise StreamInputError(
                f"invalid_out: out came with {describe(out)}; shape {shape} was expected; make it so, by "
                "output_length(n)"
            )
        return out
