"""What a forward that was written for whole signals may do to pieces: what comes out the same for every sample."""

from contextlib import contextmanager
from typing import Any, Dict, Hashable, Iterator, List, NoReturn, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import StreamInputError
from .indexing import index_of_time
from .owned import Owned
from .packing import PACK, UNPACK, is_packed, packed_rows, unpacked_rows
from .piece_numbers import REMEDY, PieceLength, RowCount, of_pieces, plain_numbers, refuse, stands_for_pieces
from .pointwise import OPERATORS, POINTWISE
from .table import functions, getter
from .tensor import StreamTensor, lengths_of

__all__ = ["Strict"]

_AXES = """
permute transpose swapaxes swapdims movedim moveaxis t adjoint unsqueeze flatten ravel squeeze view reshape view_as
reshape_as expand expand_as broadcast_to repeat tile unflatten flip roll repeat_interleave
"""
_ROWS = "narrow select index_select unbind gather split split_with_sizes chunk tensor_split"
_JOINS = "cat concat concatenate stack hstack vstack"
_REDUCTIONS = "sum mean amax amin prod any all var std logsumexp argmax argmin max min norm"
_LAYERS = "linear matmul layer_norm rms_norm embedding one_hot batch_norm glu normalize"
_ALONG = "cumsum cumprod logcumsumexp cummax cummin softmax log_softmax softmin"
_ASKED = "dim ndimension is_contiguous is_floating_point is_complex get_device element_size is_inference is_pinned"
_CHANCE = """
bernoulli cauchy exponential geometric log_normal normal random uniform rand randn randint randperm rand_like randn_like
randint_like multinomial poisson
"""
_DROPOUTS = "dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout feature_dropout"

_POINTWISE = {
    *functions(*POINTWISE),
    *(getattr(Tensor, f"__{name}__") for name in OPERATORS.split() if hasattr(Tensor, f"__{name}__")),
    *functions("max", "min"),  # of two tensors
}
_AXIS_FIRST = {*functions("narrow", "select", "index_select", "unbind", "gather")}
_AXIS_SECOND = {*functions("split", "split_with_sizes", "chunk", "tensor_split")}
_JOINED = {*functions(*_JOINS.split())}
_SAMPLE_BY_SAMPLE = _POINTWISE | {
    *functions(*" ".join([_AXES, _ROWS, _JOINS, _REDUCTIONS, _LAYERS]).split()),
    *getter("T", "mT", "data"),
    Tensor.__getitem__,
    Tensor.__iter__,
    Tensor.__matmul__,
    Tensor.__rmatmul__,
}
_ALONG_DIM = {*functions(*_ALONG.split())}
_QUESTIONS = {
    *functions(*_ASKED.split()),
    *getter("dtype", "device", "ndim", "requires_grad", "is_leaf", "layout", "is_cuda", "grad_fn", "itemsize"),
}
_SHAPE = set(getter("shape"))
_SIZE = {*functions("size")}
_COUNT = {*functions("numel", "nelement")}
_VIEWS = {*functions("view", "reshape")}
_VIEWS_AS = {*functions("view_as", "reshape_as")}
_SHAPED = {*functions("view", "reshape", "expand", "broadcast_to", "unflatten"), *_SHAPE, *_SIZE}
_SIZED = _SHAPED | {*functions("zeros", "ones", "empty", "new_zeros", "new_ones", "new_empty", "repeat", "tile")}
_MADE_OF = {torch.tensor, torch.as_tensor}
_BY_CHANCE = {*functions(*_CHANCE.split())}
_DROPPING = {*functions(*_DROPOUTS.split())}
_CHOOSING = {Tensor.__getitem__, *functions("index_select")}


_HIDDEN = "it takes a plain tensor in the memory of pieces, which was made past the functions of torch"


class Strict(TorchFunctionMode):
    """While it is on, operations on `StreamTensor`s give what they would give on the whole signals, or raise.

    What goes past the functions of torch, such as scripted code, is seen and refused where it computes.

    Raises:
        StreamOnlineError: an operation touches time in another way, or its operands stand at unequal places
    """

    def __init__(self) -> None:
        super().__init__()
        self.trusting = 0  # how many functions run that are known to be right
        self.owned = Owned()
        self._wall = _Wall(self)

    def hidden(self, values: Sequence[Any]) -> bool:
        """Whether a tensor that is none of pieces stands in their memory all the same."""
        return any(
            isinstance(value, Tensor)
            and not isinstance(value, StreamTensor)
            and not stands_for_pieces(value)
            and self.owned.holds(value)
            for value in values
        )

    @contextmanager
    def trusted(self) -> Iterator[None]:
        """What runs in it is right."""
        self.trusting += 1
        try:
            yield
        finally:
            self.trusting -= 1

    def __enter__(self) -> "Strict":
        super().__enter__()  # type: ignore[no-untyped-call]
        self._wall.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        self._wall.__exit__(*error)  # type: ignore[no-untyped-call]
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_function__(
        self, func: Any, types: Any, args: Tuple[Any, ...] = (), kwargs: Optional[Dict[str, Any]] = None
    ) -> Any:
        named = kwargs or {}
        came = list(_operands((*args, *named.values())))
        if func is lengths_of:
            return tuple([PieceLength(length) for length in func(*args)])
        counted = any(isinstance(value, PieceLength) for value in came)
        if counted and func in _MADE_OF:
            return of_pieces(func(*plain_numbers(args), **named))
        if counted and func not in _SHAPED:
            _refuse(func, "it takes the length of a piece, and a signal has another one")
        if any(isinstance(value, RowCount) for value in came) and func not in _SIZED:
            _refuse(func, "it takes the number of rows, which is another in every call")
        if (
            func in _BY_CHANCE
            or (func in _DROPPING and _drops(args, named))
            or (func is F.rrelu and _leaks(args, named))
        ):
            _refuse(func, "it draws numbers by chance, in every call others")
        rows = [value for value in came if isinstance(value, StreamTensor)]
        numbers = [value for value in came if stands_for_pieces(value)]
        self.owned.note(rows)
        self.owned.note(numbers)
        with self.trusted():
            if func is PACK and rows:
                return packed_rows(*args)
            if func is UNPACK and args and is_packed(args[0]):
                return unpacked_rows(args[0], args[2])
        plain = (plain_numbers(args), {name: plain_numbers(value) for name, value in named.items()})
        if self.hidden(came):
            _refuse(func, _HIDDEN)
        if not rows:
            if numbers:
                with self.trusted():
                    result = _of_numbers(func, came, *plain)
                self.owned.note(result)
                return result
            return func(*plain[0], **plain[1])
        if numbers and func not in _CHOOSING:
            _refuse(func, "a number that was made of the lengths of pieces goes into it")
        if func in _QUESTIONS:
            return func(*args, **named)
        if func in _SHAPE or func in _SIZE or func in _COUNT:
            return _asked(func, rows[0], args, named)
        if func in _ALONG_DIM:
            _require_apart(func, rows[0], args, named)
        elif func not in _SAMPLE_BY_SAMPLE:
            _refuse(func, "it may mix samples, and is none of the operations that are known not to")
        _require_no_cut(func, rows[0], args, named)
        if func in _JOINED and len(rows) < sum(isinstance(value, Tensor) for value in came):
            _refuse(func, "a plain tensor among StreamTensors is of no piece")
        if func in _POINTWISE and _name(func) != "prelu":
            _require_no_time(func, rows, came)
        with self.trusted():
            try:
                result = func(*plain[0], **plain[1])
            except StreamInputError as error:
                _refuse(func, str(error))
            except RuntimeError as error:
                if counted:  # it has the length of another tensor
                    _refuse(func, str(error))
                raise
        self.owned.note(result)
        _require_spans(func, rows, result)
        if func in _VIEWS or func in _VIEWS_AS:
            _require_time_in_place(func, rows[0], args, named, result)
        return result


class _Wall(TorchDispatchMode):  # type: ignore[no-untyped-call]
    # Behind the functions of torch: sees what was computed all the same.

    def __init__(self, strict: Strict) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.strict = strict

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Tuple[Any, ...] = (), kwargs: Optional[Dict[str, Any]] = None
    ) -> Any:
        if not self.strict.trusting:
            came = list(_operands((*args, *(kwargs or {}).values())))
            for value in came:
                if isinstance(value, StreamTensor) or stands_for_pieces(value):
                    _refuse(func, "it runs in code that torch does not tell of, scripted or mapped for instance")
            if self.strict.hidden(came):
                _refuse(func, _HIDDEN)
        return func(*args, **(kwargs or {}))


# --------------------------------------------------------------------------- what comes


def _operands(values: Sequence[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _operands(value)
        elif isinstance(value, slice):
            yield from (value.start, value.stop, value.step)
        else:
            yield value


def _asked(func: Any, x: StreamTensor, args: Tuple[Any, ...], named: Dict[str, Any]) -> Any:
    # Shapes, in which the numbers of samples and rows are no numbers.
    found = func(*args, **named)
    layout = x._layout
    if func in _COUNT:
        return PieceLength(found)
    if not isinstance(found, torch.Size):
        dim = (args[1:] or tuple(named.values()))[0] % layout.rank
        if dim == layout.time:
            return PieceLength(found, layout.rows)
        return RowCount(found) if dim == layout.batch else found
    sizes: List[Any] = list(found)
    sizes[layout.time] = PieceLength(sizes[layout.time], layout.rows)
    if layout.batch is not None:
        sizes[layout.batch] = RowCount(sizes[layout.batch])
    return torch.Size(sizes)


def _of_numbers(func: Any, came: List[Any], args: Tuple[Any, ...], named: Dict[str, Any]) -> Any:
    # Of the lengths of pieces, which are not those of signals: tensors of them may order and pack rows.
    if any(map(is_packed, came)) and func not in _QUESTIONS:
        refuse(
            f"online_packed: {_name(func)} of the data of a PackedSequence; nothing but a recurrent layer and "
            "pad_packed_sequence was expected to take it; compute with the padded tensor, and pack it right before "
            "the layer"
        )
    result = func(*args, **named)
    if func in _QUESTIONS or func in _SHAPE or func in _SIZE or func in _COUNT:
        return result
    if isinstance(result, Tensor) or (isinstance(result, tuple) and all(isinstance(each, Tensor) for each in result)):
        return of_pieces(result)
    refuse(
        f"online_length: {_name(func)} of the lengths of the rows, which here are those of pieces; a forward in which "
        f"they order and pack rows, and nothing else, was expected; {REMEDY}"
    )


def _argument(name: str, place: int, args: Tuple[Any, ...], named: Dict[str, Any], default: Any = None) -> Any:
    return args[place] if len(args) > place else named.get(name, default)


def _drops(args: Tuple[Any, ...], named: Dict[str, Any]) -> bool:
    return bool(named.get("train", _argument("training", 2, args, named, True)) and _argument("p", 1, args, named, 0.5))


def _leaks(args: Tuple[Any, ...], named: Dict[str, Any]) -> bool:
    return bool(_argument("training", 3, args, named, False))


# --------------------------------------------------------------------------- what is required


def _require_apart(func: Any, x: StreamTensor, args: Tuple[Any, ...], named: Dict[str, Any]) -> None:
    dim = _argument("dim", 1, args, named)
    if not isinstance(dim, int) or dim % x._layout.rank == x.time_axis:
        _refuse(func, "it goes along time")


def _require_no_cut(func: Any, x: StreamTensor, args: Tuple[Any, ...], named: Dict[str, Any]) -> None:
    # What cuts or joins over time may leave a short piece as it is, and not the signal.
    layout = x._layout
    if func is Tensor.__getitem__:
        entry = index_of_time(layout, args[1])
        if not (
            isinstance(entry, slice) and entry.start in (None, 0) and entry.stop is None and entry.step in (None, 1)
        ):
            _refuse(func, "it takes some of the samples")
        return
    if func in _AXIS_FIRST or func in _AXIS_SECOND:
        dim = _argument("dim", 1 if func in _AXIS_FIRST else 2, args, named, 0)
    elif func in _JOINED and _name(func) != "stack":
        dim = {"hstack": min(layout.rank - 1, 1), "vstack": 0}.get(
            _name(func), _argument("dim", 1, args, named, named.get("axis", 0))
        )
    else:
        dim = None
    if isinstance(dim, int) and dim % layout.rank == layout.time:
        _refuse(func, "it cuts or joins pieces, where the forward was written to cut or join whole signals")
    if _name(func) == "gather" and not isinstance(_argument("index", 2, args, named), StreamTensor):
        _refuse(func, "a plain index meets it sample by sample")
    if _name(func) == "one_hot" and _argument("num_classes", 1, args, named, -1) < 0:
        _refuse(func, "it counts the classes that occur; give num_classes")
    if _name(func) == "prelu" and _argument("weight", 1, args, named).numel() > 1 and layout.time == 1:
        _refuse(func, "its weights go along time")


def _require_no_time(func: Any, rows: List[StreamTensor], came: List[Any]) -> None:
    # A plain operand may not have an axis of time: which samples of the signal would it be for?
    after = rows[0]._layout.rank - rows[0].time_axis
    for value in came:
        if isinstance(value, Tensor) and not isinstance(value, StreamTensor) and value.dim() >= after:
            if value.shape[-after] != 1:
                _refuse(func, f"a plain tensor of shape {list(value.shape)} meets it sample by sample")


def _require_time_in_place(
    func: Any, x: StreamTensor, args: Tuple[Any, ...], named: Dict[str, Any], result: StreamTensor
) -> None:
    # Sizes of a piece may equal others by chance.
    if func in _VIEWS_AS:
        other = _argument("other", 1, args, named)
        right = isinstance(other, StreamTensor) and other.time_axis == result.time_axis
    else:
        sizes = [size for size in _operands((*args[1:], *named.values())) if not isinstance(size, torch.dtype)]
        told = [at for at, size in enumerate(sizes) if isinstance(size, PieceLength)]
        at = result.time_axis
        right = not sizes or (_of(sizes[at], x) if told == [at] else not told and sizes[at] == -1)
    if not right:
        _refuse(func, "the axis of time of the result has no size that follows the length of x")


def _of(size: PieceLength, x: StreamTensor) -> bool:
    return size.rows is not None and size.rows.same(x._layout.rows)


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


def _name(func: Any) -> str:
    return getattr(func, "__name__", str(func)).strip("_")


def _refuse(func: Any, reason: str) -> NoReturn:
    refuse(
        f"online_time: {_name(func)} of pieces: {reason}; operations on single samples were expected of a model that "
        f"is streamed layer by layer; {REMEDY}"
    )
