"""What a forward that was written for whole signals may do to pieces: what comes out the same for every sample."""

from typing import Any, Dict, Hashable, Iterator, List, NoReturn, Optional, Sequence, Tuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..errors import StreamInputError, StreamOnlineError
from .pointwise import OPERATORS, POINTWISE
from .row_data import Layout
from .table import functions, getter
from .tensor import StreamTensor, bare, with_layout

__all__ = ["PieceLength", "Strict", "rows_of_packed"]

_REMEDY = "give an example of the input, with which the model is captured: pts.patch_module(model, example=x)"

_AXES = """
permute transpose swapaxes swapdims movedim moveaxis t adjoint unsqueeze flatten ravel squeeze view reshape view_as
reshape_as expand expand_as broadcast_to repeat tile unflatten flip roll repeat_interleave
"""
_ROWS = "narrow select index_select unbind gather split split_with_sizes chunk tensor_split"
_JOINS = "cat concat concatenate stack hstack vstack"
_REDUCTIONS = "sum mean amax amin prod any all var std logsumexp argmax argmin max min norm"
_LAYERS = "linear matmul layer_norm rms_norm embedding one_hot batch_norm glu normalize"
_ALONG = "cumsum cumprod logcumsumexp cummax cummin softmax log_softmax softmin"
_ASKED = """
dim ndimension stride is_contiguous is_floating_point is_complex is_nonzero get_device element_size data_ptr
is_inference is_pinned
"""

_POINTWISE = {
    *functions(*POINTWISE),
    *(getattr(Tensor, f"__{name}__") for name in OPERATORS.split() if hasattr(Tensor, f"__{name}__")),
}
_SAMPLE_BY_SAMPLE = _POINTWISE | {
    *functions(*" ".join([_AXES, _ROWS, _JOINS, _REDUCTIONS, _LAYERS]).split()),
    *getter("T", "mT", "data"),
    Tensor.__getitem__,
    Tensor.__matmul__,
}
_ALONG_DIM = {*functions(*_ALONG.split())}
_JOINED = {*functions(*_JOINS.split())}
_QUESTIONS = {
    *functions(*_ASKED.split()),
    *getter("dtype", "device", "ndim", "requires_grad", "is_leaf", "layout", "is_cuda", "grad_fn", "itemsize"),
}
_SHAPE = set(getter("shape"))
_SIZE = {*functions("size")}
_COUNT = {*functions("numel", "nelement")}
_PACK = torch._C._VariableFunctions._pack_padded_sequence
_UNPACK = torch._C._VariableFunctions._pad_packed_sequence


class PieceLength(int):
    """How many samples a piece has: no number to compute with, as the signal has another length."""

    def _refuse(self, *args: Any) -> NoReturn:
        raise StreamOnlineError(
            "online_length: the forward computes with the length of its input, and here that is the length of a piece, "
            f"{int.__repr__(self)}; a forward in which no number depends on it was expected; {_REMEDY}"
        )

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __floordiv__ = __rfloordiv__ = _refuse
    __truediv__ = __rtruediv__ = __mod__ = __rmod__ = __pow__ = __rpow__ = __divmod__ = __rdivmod__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = __neg__ = __abs__ = __float__ = __int__ = __bool__ = __invert__ = _refuse
    __lshift__ = __rshift__ = __and__ = __or__ = __xor__ = __round__ = _refuse


class Strict(TorchFunctionMode):
    """While it is on, operations on `StreamTensor`s give what they would give on the whole signals, or raise.

    Raises:
        StreamOnlineError: an operation touches time in another way, or its operands stand at unequal places
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Tuple[Any, ...] = (), kwargs: Optional[Dict[str, Any]] = None
    ) -> Any:
        named = kwargs or {}
        came = list(_operands((*args, *named.values())))
        counted = any(isinstance(value, PieceLength) for value in came)
        if counted and func not in _SHAPED:
            _refuse(func, "it takes the length of a piece, and a signal has another one")
        rows = [value for value in came if isinstance(value, StreamTensor)]
        if not rows:
            if func is _UNPACK and hasattr(args[0], "_stream_rows"):
                return _unpacked(*args)
            return func(*args, **named)
        if func in _SHAPE:
            return _poisoned(rows[0], func(*args, **named))
        if func in _COUNT:
            return PieceLength(func(*args, **named))
        if func in _SIZE:
            dims = args[1:] or tuple(named.values())
            size = func(*args, **named)
            if not dims or dims[0] is None:
                return _poisoned(rows[0], size)
            return PieceLength(size) if dims[0] % rows[0]._layout.rank == rows[0].time_axis else size
        if func in _QUESTIONS:
            return func(*args, **named)
        if func is _PACK:
            return _packed(*args)
        if func in _ALONG_DIM:
            _require_apart(func, rows[0], args, named)
        elif func not in _SAMPLE_BY_SAMPLE:
            _refuse(func, "it may mix samples, and is none of the operations that are known not to")
        if func in _JOINED and len(rows) < sum(isinstance(value, Tensor) for value in came):
            _refuse(func, "a plain tensor among StreamTensors is of no piece")
        if func in _POINTWISE:
            _require_no_time(func, rows, came)
        try:
            result = func(*args, **named)
        except StreamInputError as error:
            _refuse(func, str(error))
        except RuntimeError as error:
            if counted:  # it has the length of another tensor
                _refuse(func, str(error))
            raise
        _require_spans(func, rows, result)
        return result


_SHAPED = {*functions("view", "reshape", "expand", "broadcast_to", "unflatten"), *_SHAPE, *_SIZE}


def rows_of_packed(packed: Any) -> StreamTensor:
    """The rows that a ``PackedSequence`` was packed of.

    Raises:
        StreamOnlineError: it was not packed of a `StreamTensor`, or something was done to its data
    """
    rows = getattr(packed.data, "_stream_rows", None)
    if rows is None:
        raise StreamOnlineError(
            "online_packed: a PackedSequence came whose data is not what pack_padded_sequence made of a StreamTensor; "
            "that was expected; compute with the padded tensor, and pack it right before the layer"
        )
    return rows


def packed_like(packed: Any, rows: StreamTensor) -> Any:
    """A ``PackedSequence`` of other rows in the same order."""
    data, sizes = _packed(rows, None, rows.batch_axis == 0)
    return type(packed)(data, sizes, packed.sorted_indices, packed.unsorted_indices)


def _operands(values: Sequence[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _operands(value)
        elif isinstance(value, slice):
            yield from (value.start, value.stop, value.step)
        else:
            yield value


def _poisoned(x: StreamTensor, shape: Any) -> Any:
    sizes: List[int] = list(shape)
    sizes[x.time_axis] = PieceLength(sizes[x.time_axis])
    return torch.Size(sizes)


def _require_apart(func: Any, x: StreamTensor, args: Tuple[Any, ...], named: Dict[str, Any]) -> None:
    dim = named.get("dim", args[1] if len(args) > 1 else None)
    if not isinstance(dim, int) or dim % x._layout.rank == x.time_axis:
        _refuse(func, "it goes along time")


def _require_no_time(func: Any, rows: List[StreamTensor], came: List[Any]) -> None:
    # A plain operand may not have an axis of time: which samples of the signal would it be for?
    after = rows[0]._layout.rank - rows[0].time_axis
    for value in came:
        if isinstance(value, Tensor) and not isinstance(value, StreamTensor) and value.dim() >= after:
            if value.shape[-after] != 1:
                _refuse(func, f"a plain tensor of shape {list(value.shape)} meets it sample by sample")


Span = Tuple[Optional[int], int]


def _spans(x: StreamTensor) -> Iterator[Tuple[Hashable, Span]]:
    yield from zip(x.ids, zip(x.start, x.lengths, strict=True), strict=True)


def _require_spans(func: Any, rows: List[StreamTensor], result: Any) -> None:
    results = result if isinstance(result, (tuple, list)) else [result]
    if len(results) == 1 and isinstance(results[0], StreamTensor) and results[0]._layout.rows is rows[0]._layout.rows:
        return
    spans = dict(_spans(rows[0]))
    for other in rows[1:]:
        spans.update(_spans(other))
    for each in results:
        if not isinstance(each, Tensor):
            continue
        if not isinstance(each, StreamTensor):
            _refuse(func, "what it gives has no axis of time, or no rows, any more")
        if any(spans.get(id) != span for id, span in _spans(each)):
            _refuse(func, "it cuts or joins pieces, where the forward was written to cut or join whole signals")


def _refuse(func: Any, reason: str) -> NoReturn:
    name = getattr(func, "__name__", str(func)).strip("_")
    raise StreamOnlineError(
        f"online_time: {name} of pieces: {reason}; operations on single samples were expected of a model that is "
        f"streamed layer by layer; {_REMEDY}"
    )


# --------------------------------------------------------------------------- packed sequences


def _packed(x: StreamTensor, lengths: Optional[Tensor], batch_first: bool) -> Tuple[Tensor, Tensor]:
    if lengths is not None and lengths.tolist() != list(x.lengths):
        raise StreamOnlineError(
            f"online_packed: rows of {list(x.lengths)} samples were packed with the lengths {lengths.tolist()}; "
            "their own were expected; pass x.lengths"
        )
    if (x.batch_axis, x.time_axis) != ((0, 1) if batch_first else (1, 0)):
        raise StreamOnlineError(
            f"online_packed: rows at axis {x.batch_axis} and time at axis {x.time_axis} were packed with "
            f"batch_first={batch_first}; {(0, 1) if batch_first else (1, 0)} were expected; transpose them"
        )
    # A layer takes the rows; only code that reads the packed numbers sees these.
    counts = [sum(length > at for length in x.lengths) for at in range(max(x.lengths, default=0))]
    with torch._C.DisableTorchFunction():
        padded = bare(x) if not batch_first else bare(x).transpose(0, 1)
        kept = [padded[at][torch.tensor([length > at for length in x.lengths])] for at in range(len(counts))]
        data = torch.cat(kept) if kept else padded.new_empty([0, *padded.shape[2:]])
        sizes = torch.tensor(counts, dtype=torch.long)
    data._stream_rows = x  # type: ignore[attr-defined]
    return data, sizes


def _unpacked(data: Tensor, sizes: Tensor, batch_first: bool, padding: float, total: int) -> Tuple[Tensor, Tensor]:
    x: StreamTensor = data._stream_rows  # type: ignore[attr-defined]
    if (x.batch_axis == 0) != batch_first:
        with torch._C.DisableTorchFunctionSubclass():
            moved = bare(x).transpose(0, 1)
        layout = x._layout
        x = with_layout(moved, Layout(layout.rows, layout.time, 0 if layout.batch else 1, layout.rank))
    return x, torch.tensor(x.lengths)
