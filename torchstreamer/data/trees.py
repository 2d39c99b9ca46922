"""Chunks of any structure: known by their kind, copied, blanked.

A chunk is a number, an array or a tensor, or a tuple, list or dict of these; anything else is carried along in a list.
"""

import copy
import operator
from typing import Any, Callable, List, Optional, Union

import torch
from torch import Tensor

from ..errors import StreamInputError, StreamReadError

__all__ = [
    "Number",
    "Others",
    "TimeDim",
    "axis_of",
    "blank",
    "checked_time_dim",
    "copied",
    "filled",
    "is_number",
    "kind_of",
    "like",
    "map_tensors",
    "part_of",
    "tensor_of",
]

Number = Union[bool, int, float, complex]
TimeDim = Any  # an axis, or the structure of a chunk with an axis for each part of it

_PLAIN = (bool, int, float, complex)
_IMMUTABLE = (str, bytes, type(None), *_PLAIN)
_DTYPES = {bool: torch.bool, int: torch.int64, float: torch.float64, complex: torch.complex128}


class Others(List[Any]):
    """What could not be stacked: one entry for each row."""


def kind_of(tree: Any) -> str:
    """``"array"`` for a tensor, an array or a number, ``"dict"``, ``"sequence"``, or ``"other"``."""
    if isinstance(tree, (Tensor, *_PLAIN)) or _is_array(tree):
        return "array"
    if isinstance(tree, dict):
        return "dict"
    return "sequence" if isinstance(tree, (tuple, list)) and not isinstance(tree, Others) else "other"


def map_tensors(function: Callable[[Tensor], Any], tree: Any) -> Any:
    """The same structure with every tensor replaced by what the function makes of it."""
    if isinstance(tree, Tensor):
        return function(tree)
    kind = kind_of(tree)
    if kind == "dict":
        return {key: map_tensors(function, value) for key, value in tree.items()}
    if kind == "sequence":
        return like(tree, [map_tensors(function, value) for value in tree])
    return tree


def copied(chunk: Any) -> Any:
    """The chunk in memory of its own, its containers of their own types."""
    if isinstance(chunk, Tensor):
        return chunk.clone()
    if isinstance(chunk, _IMMUTABLE):
        return chunk
    if _is_array(chunk):
        return chunk.copy()
    if type(chunk) is dict:
        return {key: copied(value) for key, value in chunk.items()}
    if type(chunk) in (tuple, list) or hasattr(chunk, "_fields"):
        return like(chunk, [copied(value) for value in chunk])
    try:
        return copy.deepcopy(chunk)
    except Exception:  # what cannot be copied is nobody's buffer
        return chunk


def blank(chunk: Any, fill: Number) -> Any:
    """A chunk of the same structure that holds nothing but ``fill``; ``None`` for what is no number."""
    if isinstance(chunk, Tensor):
        return filled(chunk, chunk.shape, fill)
    if isinstance(chunk, _PLAIN):
        return filled(tensor_of(chunk, -1), (), fill).item()
    if _is_array(chunk):
        full = filled(tensor_of(chunk, -1), chunk.shape, fill).numpy().astype(chunk.dtype)
        return full if chunk.shape else full[()]
    kind = kind_of(chunk)
    if kind == "dict":
        return {key: blank(value, fill) for key, value in chunk.items()}
    if kind == "sequence":
        return like(chunk, [blank(value, fill) for value in chunk])
    return None


def filled(x: Tensor, shape: Any, fill: Number) -> Tensor:
    """A tensor of the kind of ``x`` that holds nothing but ``fill``.

    Raises:
        StreamInputError: code ``invalid_padding_value``: the tensor's dtype does not hold it
    """
    try:
        full = x.new_full(shape, fill)
        alike = not full.numel() or full.flatten()[0].item() == fill or fill != fill
    except (RuntimeError, TypeError, OverflowError):
        alike = False
    if not alike and not (x.dtype.is_floating_point and isinstance(fill, (int, float)) or x.dtype.is_complex):
        raise StreamInputError(
            f"invalid_padding_value: {fill!r} cannot stand in a tensor of {x.dtype}; a number of that kind was "
            "expected; give padding_value another number, or a whole chunk"
        )
    return full


def like(tree: Any, values: List[Any]) -> Any:
    """A tuple or list of values, a named tuple where ``tree`` is one."""
    if hasattr(tree, "_fields"):
        return type(tree)(*values)
    return tuple(values) if isinstance(tree, tuple) else values


def tensor_of(value: Any, index: int) -> Tensor:
    """A number, an array or a tensor as a tensor, where it can be in the same memory.

    Args:
        value: the number, array or tensor
        index: its stream's, for messages
    """
    if isinstance(value, Tensor):
        return value
    try:
        if isinstance(value, _PLAIN):
            return torch.tensor(value, dtype=_DTYPES[type(value)]) if type(value) in _DTYPES else torch.tensor(value)
        # Read-only arrays and those that run backwards are copied; torch takes neither.
        usable = value.flags.writeable and all(stride >= 0 for stride in value.strides)
        return torch.as_tensor(value if usable else value.copy())
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        dtype = getattr(value, "dtype", type(value).__name__)
        raise StreamReadError(
            f"invalid_chunk: stream {index} gave {list(getattr(value, 'shape', []))} of {dtype}, which torch cannot "
            f"hold ({error}); numbers were expected; convert them before they are given",
            index,
        ) from error


# ------------------------------------------------------------------ the axis of time


def checked_time_dim(time_dim: TimeDim) -> TimeDim:
    """``time_dim`` with plain numbers in it.

    Raises:
        StreamInputError: code ``invalid_time_dim``
    """
    if time_dim is None:
        return None
    kind = "other" if _is_array(time_dim) else kind_of(time_dim)
    if kind == "dict":
        return {key: checked_time_dim(value) for key, value in time_dim.items()}
    if kind == "sequence":
        return [checked_time_dim(value) for value in time_dim]
    try:
        if isinstance(time_dim, bool):
            raise TypeError
        return operator.index(time_dim)
    except TypeError:
        raise StreamInputError(
            f"invalid_time_dim: {time_dim!r}; expected an axis, None, or the structure of the chunks with one for each "
            "part; count axes of a chunk, without the batch"
        ) from None


def part_of(time_dim: TimeDim, key: Any, index: int) -> TimeDim:
    """The axis of a part of the chunk."""
    if isinstance(time_dim, int) or time_dim is None:
        return time_dim
    try:
        return time_dim[key]
    except (KeyError, IndexError, TypeError):
        raise StreamReadError(
            f"invalid_time_dim: {time_dim!r} says nothing of the part {key!r} of what stream {index} gave; expected an "
            "axis or None for each part; give one, or one axis for all",
            index,
        ) from None


def axis_of(time_dim: TimeDim, rank: int, index: int, alone: bool) -> Optional[int]:
    """The axis of time of a tensor, counted from the front; ``None`` where it has none.

    Args:
        time_dim: for the tensor
        rank: of the tensor, without the batch
        index: of a stream, for messages
        alone: whether the tensor is the whole chunk, so that it must have the axis
    """
    if time_dim is None or (rank == 0 and isinstance(time_dim, int)):
        return None
    axis = time_dim + rank if isinstance(time_dim, int) and time_dim < 0 else time_dim
    if isinstance(axis, int) and 0 <= axis < rank:
        return axis
    if alone or not isinstance(axis, int):
        raise StreamReadError(
            f"invalid_time_dim: {time_dim!r} came for a tensor of {rank} dimensions of stream {index}; an axis of it, "
            "or None, was expected; count axes of a chunk, without the batch",
            index,
        )
    return None


# ------------------------------------------------------------------ inside


def _is_array(value: Any) -> bool:
    # A NumPy array or one of its scalars, known without importing NumPy.
    return hasattr(value, "__array__") and hasattr(value, "dtype") and not isinstance(value, Tensor)


def is_number(value: Any) -> bool:
    """Whether a value is one number: plain, of NumPy, or a tensor without axes."""
    return isinstance(value, _PLAIN) or (kind_of(value) == "array" and not value.shape)
