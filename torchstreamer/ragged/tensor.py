"""A batch of pieces of signals that knows whose they are, through the operations of torch."""

import copy
from typing import Any, Dict, Hashable, List, Optional, Tuple

import torch
import torch.overrides
from torch import Tensor

from ..errors import StreamInputError
from .owned import RUNNING, require_own_thread
from .row_data import Layout, RowData
from .table import TABLE, plainly, set_kind

__all__ = ["StreamTensor", "bare", "lengths_of", "with_layout"]

_plain = torch._C.DisableTorchFunctionSubclass
_NONE: Dict[str, Any] = {}


class StreamTensor(Tensor):
    """Pieces of several signals in one tensor, made by `stream_tensor`.

    Operations of torch run as on a plain tensor. Where their result still has the same rows, or known ones of them, and
    the same time, it is a `StreamTensor` too; any other result is a plain tensor.

    Attributes:
        ids: of the rows' signals, a tuple
        first: whether each row's piece is the first of its signal
        last: whether it is the last
        lengths: samples of each row before padding
        start: position in its signal of each row's first sample, ``None`` where unknown
        batch_axis: the axis of the rows, ``None`` for a single row without one
        time_axis: the axis of time
        batch_dim: ``batch_axis``, as DreamStream calls it
        stream_dim: ``time_axis``, as DreamStream calls it
        sos: ``first``, as DreamStream calls it
        eos: ``last``, as DreamStream calls it

    Example:
        >>> import torch, torchstreamer as pts
        >>> x = pts.stream_tensor([torch.ones(2, 5), torch.ones(2, 3)], ids=["a", "b"], first=True)
        >>> y = torch.relu(x[..., 2:]) + 1
        >>> y.ids, y.lengths, y.start
        (('a', 'b'), (3, 1), (2, 2))
        >>> x.sum(-1)
        tensor([[5., 5.],
                [3., 3.]])
    """

    _layout: Layout

    def __new__(cls, *args: Any, **kwargs: Any) -> "StreamTensor":
        raise StreamInputError(
            "invalid_pieces: StreamTensor was called; rows with ids were expected; use pts.stream_tensor(rows, ids=…)"
        )

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Tuple[Any, ...] = (), kwargs: Optional[Dict[str, Any]] = None
    ) -> Any:
        if RUNNING:
            require_own_thread(func, (*args, *(kwargs or _NONE).values()))
        rule = TABLE.get(func)
        if rule is None:
            return plainly(func, args, kwargs or _NONE)
        return rule(func, args, kwargs or _NONE)

    @property
    def ids(self) -> Tuple[Hashable, ...]:
        return self._layout.rows.ids

    @property
    def first(self) -> Tuple[bool, ...]:
        return self._layout.rows.first

    @property
    def last(self) -> Tuple[bool, ...]:
        return self._layout.rows.last

    @property
    def lengths(self) -> Tuple[int, ...]:
        if torch._C._is_torch_function_mode_enabled():
            return torch.overrides.handle_torch_function(lengths_of, (self,), self)
        return self._layout.rows.lengths

    @property
    def start(self) -> Tuple[Optional[int], ...]:
        return self._layout.rows.start

    @property
    def batch_axis(self) -> Optional[int]:
        return self._layout.batch

    @property
    def time_axis(self) -> int:
        return self._layout.time

    batch_dim = batch_axis
    stream_dim = time_axis
    sos = first
    eos = last

    def tensor(self) -> Tensor:
        """The plain tensor, padding and all; it shares memory."""
        if torch._C._is_torch_function_mode_enabled():
            return torch.overrides.handle_torch_function(_tensor, (self,), self)
        return bare(self)

    def as_subclass(self, cls: Any) -> Any:
        """As of any tensor; the plain tensor is `tensor`."""
        if torch._C._is_torch_function_mode_enabled():
            return torch.overrides.handle_torch_function(_tensor, (self,), self)
        return Tensor.as_subclass(self, cls)

    def unbatch(self) -> "List[StreamTensor]":
        """Each row for itself, without padding and without an axis of rows; they share memory."""
        layout, x = self._layout, bare(self)
        rows = []
        for row, length in enumerate(layout.rows.lengths):
            piece = x if layout.batch is None else x.select(layout.batch, row)
            its = layout if layout.batch is None else layout.without([layout.batch])
            rows.append(with_layout(piece.narrow(its.time, 0, length), its.having(layout.rows.pick([row]))))
        return rows

    def drop_empty(self) -> "StreamTensor":
        """Without the rows that hold no sample; a row may be the last of its signal all the same.

        Raises:
            StreamInputError: there is no axis of rows
        """
        layout = self._layout
        if layout.batch is None:
            raise StreamInputError(
                "invalid_pieces: drop_empty of a single row without an axis of rows; such an axis was expected; "
                "x.unsqueeze(0) does not bring it back, x[i : i + 1] keeps it"
            )
        kept = [row for row, length in enumerate(layout.rows.lengths) if length]
        x = bare(self)
        chosen = x.index_select(layout.batch, torch.tensor(kept, dtype=torch.long, device=x.device))
        return with_layout(chosen, layout.having(layout.rows.pick(kept)))

    def with_data(self, data: Tensor) -> "StreamTensor":
        """The same rows around another tensor, for instance what a compiled or scripted step made of ``x.tensor()``.

        Args:
            data: of as many axes, rows and samples as this one

        Raises:
            StreamInputError: code ``invalid_pieces``: it has others
        """
        layout, mine = self._layout, bare(self).shape
        theirs = data.shape
        if len(theirs) != len(mine) or any(
            axis is not None and theirs[axis] != mine[axis] for axis in (layout.batch, layout.time)
        ):
            raise StreamInputError(
                f"invalid_pieces: a tensor of shape {list(theirs)} came; as many axes, rows and samples as in "
                f"{list(mine)} were expected; make a StreamTensor of its own with pts.stream_tensor"
            )
        return with_layout(bare(data), layout)

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        layout, x = self._layout, bare(self)
        axes = f"time_axis={layout.time}" if layout.batch is None else f"axes={layout.batch, layout.time}"
        return f"StreamTensor(shape={list(x.shape)}, {axes}, rows: {layout.rows}\n{x!r})"

    def __deepcopy__(self, memo: Dict[int, Any]) -> "StreamTensor":
        if id(self) in memo:
            return memo[id(self)]
        with _plain():
            if self.requires_grad and not self.is_leaf:
                copy.deepcopy(self.as_subclass(Tensor), memo)  # raises, as for any tensor in a graph
            copied = with_layout(copy.deepcopy(self.detach().as_subclass(Tensor), memo), self._layout)
            memo[id(self)] = copied.requires_grad_(self.requires_grad)
        return copied

    def __reduce_ex__(self, protocol: Any) -> Any:
        with _plain():
            data = self.detach().as_subclass(Tensor).requires_grad_(self.requires_grad)
        layout = self._layout
        return _rebuild, (data, *layout.rows.fields, layout.batch, layout.time)


def lengths_of(x: StreamTensor) -> Tuple[int, ...]:
    """What a mode of torch sees of ``x.lengths``."""
    return x._layout.rows.lengths


def _tensor(x: StreamTensor) -> Tensor:
    # What a mode sees of ``x.tensor()``.
    return bare(x)


def bare(x: Tensor) -> Tensor:
    """The plain tensor of one with row data; any other as it is."""
    if isinstance(x, StreamTensor):
        with _plain():
            return Tensor.as_subclass(x, Tensor)
    return x


def with_layout(x: Tensor, layout: Layout) -> StreamTensor:
    """A plain tensor with row data."""
    y = x.as_subclass(StreamTensor)
    y._layout = layout
    return y


def _rebuild(data: Tensor, ids: Any, first: Any, last: Any, lengths: Any, start: Any, batch: Any, time: Any) -> Tensor:
    layout = Layout(RowData(ids, first, last, lengths, start), batch, time, data.dim())
    return with_layout(data.detach(), layout).requires_grad_(data.requires_grad)


set_kind(StreamTensor)
torch.serialization.add_safe_globals([_rebuild])
