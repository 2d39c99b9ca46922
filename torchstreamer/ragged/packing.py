"""``PackedSequence``s of rows, in a model that is streamed layer by layer."""

from typing import Any, Optional, Tuple

import torch
from torch import Tensor

from .piece_numbers import of_pieces, refuse
from .row_data import Layout
from .tensor import StreamTensor, bare, with_layout

__all__ = ["PACK", "UNPACK", "is_packed", "packed_like", "packed_rows", "rows_of_packed", "unpacked_rows"]

PACK = torch._C._VariableFunctions._pack_padded_sequence
UNPACK = torch._C._VariableFunctions._pad_packed_sequence


def is_packed(value: Any) -> bool:
    """Whether this is what `packed_rows` made."""
    return isinstance(value, Tensor) and hasattr(value, "_stream_rows")


def rows_of_packed(packed: Any) -> StreamTensor:
    """The rows that a ``PackedSequence`` was packed of.

    Raises:
        StreamOnlineError: it was not packed of a `StreamTensor`, or something was done to its data
    """
    rows = getattr(packed.data, "_stream_rows", None)
    if rows is None:
        refuse(
            "online_packed: a PackedSequence came whose data is not what pack_padded_sequence made of a StreamTensor; "
            "that was expected; compute with the padded tensor, and pack it right before the layer"
        )
    return rows


def packed_like(packed: Any, rows: StreamTensor) -> Any:
    """A ``PackedSequence`` of other rows in the same order."""
    data, sizes = packed_rows(rows, None, rows.batch_axis == 0)
    return type(packed)(data, sizes, packed.sorted_indices, packed.unsorted_indices)


def packed_rows(x: StreamTensor, lengths: Optional[Tensor], batch_first: bool) -> Tuple[Tensor, Tensor]:
    """What ``pack_padded_sequence`` gives.

    Raises:
        StreamOnlineError: the lengths are not those of the rows, or time and rows stand elsewhere
    """
    own = list(x._layout.rows.lengths)
    if lengths is not None and lengths.tolist() != own:
        refuse(
            f"online_packed: rows of {own} samples were packed with the lengths {lengths.tolist()}; "
            "their own were expected; pass x.lengths"
        )
    if (x.batch_axis, x.time_axis) != ((0, 1) if batch_first else (1, 0)):
        refuse(
            f"online_packed: rows at axis {x.batch_axis} and time at axis {x.time_axis} were packed with "
            f"batch_first={batch_first}; {(0, 1) if batch_first else (1, 0)} were expected; transpose them"
        )
    # A layer takes the rows; nothing else may be done with the packed numbers, so they need not be put together.
    with torch._C.DisableTorchFunction():
        data = bare(x).new_empty([0, *bare(x).shape[2:]])
        counts = [
            sum(length > at for length in x._layout.rows.lengths)
            for at in range(max(x._layout.rows.lengths, default=0))
        ]
        sizes = torch.tensor(counts, dtype=torch.long)
    data._stream_rows = x  # type: ignore[attr-defined]
    of_pieces((data, sizes))
    return data, sizes


def unpacked_rows(data: Tensor, batch_first: bool) -> Tuple[Tensor, Tensor]:
    """What ``pad_packed_sequence`` gives."""
    x: StreamTensor = data._stream_rows  # type: ignore[attr-defined]
    if (x.batch_axis == 0) != batch_first:
        with torch._C.DisableTorchFunctionSubclass():
            moved = bare(x).transpose(0, 1)
        layout = x._layout
        x = with_layout(moved, Layout(layout.rows, layout.time, 0 if layout.batch else 1, layout.rank))
    return x, of_pieces(torch.tensor(x._layout.rows.lengths))
