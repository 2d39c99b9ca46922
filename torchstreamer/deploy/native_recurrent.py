"""How recurrences are written in C++: what they do to one sample is recorded, and stands in a loop."""

from functools import singledispatch
from typing import Any, List, Tuple

import torch
from torch import Tensor, nn

from ..graph.ops.running import PositionStream
from ..native.arrays import SAMPLES, Array, Arrays
from ..native.program import Fault, Raw, Ref
from ..native.recording import traced
from ..native.samplewise import Loop, Rows
from ..native.sequences import Recurrence
from .native import Slot
from .native_parts import written
from .recurrence import RecurrentPart

__all__: List[str] = []


@written.register
def _(part: RecurrentPart, at: Any) -> Slot:
    return recurrence(part.stream, part, at)


@singledispatch
def recurrence(stream: Any, part: RecurrentPart, at: Any) -> Slot:
    """Add a recurrence of this stream's; see `written`."""
    (source,) = at.sources(part)
    program, note = at.program, at.note(part)
    width = source.ref.value.width
    if at.made(part).size(0) != 1:
        raise Fault("a recurrence of rows that another axis is merged into")
    if source.dtype != program.dtype:
        raise Fault("a recurrence of whole numbers")
    y = at.made(part)
    arrays = Arrays(program, 0, note)
    row = program.value(0, width, f"{note}, a sample")
    x = _rows_of(row, [width, 1])
    with torch.no_grad():
        one = torch.rand(1, width, 1, dtype=program.dtype)
        shapes = [tuple(each.shape[1:]) for each in stream.advance(one, stream.initial(one))[1]]
    dtypes = [program.dtype] * (1 + len(shapes))
    with program.apart() as begins:
        starts = [
            _start(arrays, each, shape)
            for each, shape in zip(traced(arrays, _Initial(stream), [x], dtypes[:1]), shapes, strict=True)
        ]
    states = [program.value(0, max(_count(shape), 1), f"{note}, state {i}") for i, shape in enumerate(shapes)]
    held = [_rows_of(state, list(shape)) for state, shape in zip(states, shapes, strict=True)]
    with program.apart() as advances:
        out, *following = traced(arrays, _Advance(stream), [x, *held], dtypes)
        refs = [_start(arrays, each, shape) for each, shape in zip(following, shapes, strict=True)]
        # A state that becomes another one is copied before that is written.
        refs = [_apart(arrays, ref) if any(ref.value is state for state in states) else ref for ref in refs]
        last = arrays.ref(out)[0]
    makes = program.value(source.ref.value.rate, y.size(1), note)
    names = [program.state(state.stride, state.note) for state in states]
    program.add(
        Recurrence(program, source.ref, part.lag, makes, row, last, begins, advances, starts, states, refs, names)
    )
    return at.slot(part, Ref(makes))


@recurrence.register
def _(stream: PositionStream, part: RecurrentPart, at: Any) -> Slot:
    # It carries no more than the position, which is known.
    (source,) = at.sources(part)
    program = at.program
    dtype = at.made(part).dtype
    rows = source.ref.value
    made = program.value(rows.rate, 1, at.note(part))
    place = f"{program.begin(rows, part.lag)} + i"
    if dtype == torch.int64:
        number = f"real(({place}) * {int(stream.increment)} + {int(stream.first)})"
    elif dtype == program.dtype:
        number = (
            f"real({place})" if stream.plain else f"real(double({place}) * {stream.increment!r} + {stream.first!r})"
        )
    else:
        raise Fault(f"positions of {str(dtype).removeprefix('torch.')}")
    line = f"for (int64_t i = 0; i < {made.count}; ++i) r{made.index}[i * {made.stride}] = {number};"
    program.add(Raw([line], [source.ref], made))
    return at.slot(part, Ref(made))


def _rows_of(value: Any, shape: List[int]) -> Array:
    # A single row as one row of a batch.
    index = torch.arange(SAMPLES * value.width).reshape(SAMPLES, *shape)
    return Array(Rows(Ref(value)), index)


def _start(arrays: Arrays, found: Any, shape: Tuple[int, ...]) -> Ref:
    if isinstance(found, Tensor):
        found = found.expand(SAMPLES, *shape)
        if not torch.equal(found, found[:1].expand_as(found)):
            raise Fault("a state that is not alike in all rows")
        return arrays.constant(found[0].reshape(-1))
    if tuple(found.shape[1:]) != tuple(shape):
        raise Fault("a state that changes its shape")
    return arrays.ref(found)[0]


def _apart(arrays: Arrays, ref: Ref) -> Ref:
    value = arrays.program.value(0, ref.value.width, arrays.note)
    arrays.program.add(Loop(arrays.program, Rows(ref), value))
    return Ref(value)


def _count(sizes: Tuple[int, ...]) -> int:
    count = 1
    for size in sizes:
        count *= size
    return count


class _Initial(nn.Module):
    def __init__(self, stream: Any) -> None:
        super().__init__()
        self.stream = stream

    def forward(self, x: Tensor) -> List[Tensor]:
        return list(self.stream.initial(x))


class _Advance(nn.Module):
    def __init__(self, stream: Any) -> None:
        super().__init__()
        self.stream = stream

    def forward(self, x: Tensor, *state: Tensor) -> List[Tensor]:
        y, following = self.stream.advance(x, list(state))
        return [y, *following]
