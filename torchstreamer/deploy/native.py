"""A stream as a program of C++: its static plan, part by part."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from ..core.lengths import LengthFunction
from ..core.stream import BaseStream
from ..errors import UnsupportedModuleError
from ..native import Program, Ref, written
from ..native.program import Fault, Input, Output, Raw
from .planning import Edge, Planner
from .rows import Part
from .static import StaticStream

__all__ = ["NativePlan", "Slot", "about", "program_of", "source_of", "source_of_plan"]

Mask = Tuple[int, int, float]

# Bytes of weights that one file holds. A compiler takes some seconds for so many.
_MOST_INSIDE = 48 << 20

_WAYS = "use pts.compile(stream, chunk=…), or write another kind of file"


@dataclass
class Slot:
    """A value of the plan in the program.

    Attributes:
        ref: its rows
        shape: of the tensor in a step
        time: its time axis
        dtype: of the tensor
    """

    ref: Ref
    shape: Tuple[int, ...]
    time: int
    dtype: torch.dtype


class _Recorder(Planner):
    # Remembers what each part was made for, and what it gives.
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.made: Dict[int, Any] = {}
        self.origins: Dict[int, Tuple[int, LengthFunction]] = {}
        self.streams: Dict[int, nn.Module] = {}
        self.times: Dict[int, int] = {}
        self._at: List[nn.Module] = []

    def lower(self, stream: BaseStream, edge: Edge) -> Edge:
        self._at.append(stream)
        try:
            return super().lower(stream, edge)
        finally:
            self._at.pop()

    def add(
        self,
        part: Part,
        edges: Sequence[Edge],
        lag: int,
        length: Optional[LengthFunction] = None,
        time: int = 2,
        rows: int = 0,
    ) -> Edge:
        edge = super().add(part, edges, lag, length, time, rows)
        self.origins[edge.slot] = lag, edge.length
        self.times[edge.slot] = time
        return edge

    def add_several(self, body: nn.Module, edges: Sequence[Edge], axes: Sequence[Tuple[int, int]]) -> List[Edge]:
        made = super().add_several(body, edges, axes)
        for edge in made:
            self.origins[edge.slot] = edge.lag, edge.length
            self.times[edge.slot] = edge.time
        return made

    def _add(self, part: Part, sources: List[int], xs: List[Any]) -> Any:
        y = super()._add(part, sources, xs)
        self.made[part.target] = y
        if self._at:
            self.streams[part.target] = self._at[-1]
        return y


class NativePlan(StaticStream):
    """A static stream of one row and one hop that becomes a program.

    Args:
        stream: the stream
        options: for `StaticStream`
    """

    def __init__(self, stream: BaseStream, **options: Any) -> None:
        super().__init__(stream, stream.hop, 1, validate=False, columns=0, **options)
        self.stream = [stream]
        self.hop = stream.hop

    def _plan(self, stream: BaseStream, plan: Planner) -> None:
        period = plan.period
        recorder = _Recorder(plan.chunk, plan.batch, period, plan.multiple, plan.columns, plan.device)
        self.recorder = [recorder]
        super()._plan(stream, recorder)

    def program(self) -> Program:
        """The program.

        Raises:
            UnsupportedModuleError: ``not_native``
        """
        return _Lowering(self).program


def program_of(stream: BaseStream, **options: Any) -> Program:
    """A stream as a program.

    Args:
        stream: the stream
        options: for `StaticStream`, as ``channels`` and ``dtype``

    Raises:
        UnsupportedModuleError: ``not_native``: something in it cannot be written
    """
    return NativePlan(stream, **options).program()


def source_of(
    stream: BaseStream,
    place: Path,
    rate_hz: Optional[int] = None,
    name: str = "Net",
    weights_file: Optional[bool] = None,
    **options: Any,
) -> Tuple[str, Optional[bytes]]:
    """A stream as the text of a C++ file, and its weights if they are to stand in a file beside it.

    Args:
        stream: the stream
        place: of the file
        rate_hz: samples per second of its input, if that is known
        name: of the class
        weights_file: whether the weights stand in a file beside it, ``None``: where they are many
        options: for `StaticStream`, as ``channels`` and ``dtype``

    Raises:
        UnsupportedModuleError: ``not_native``: something in it cannot be written
        ValueError: ``invalid_name``
    """
    plan = NativePlan(stream, **options)
    program = plan.program()
    beside = program.weights.count * program.dtype.itemsize > _MOST_INSIDE if weights_file is None else weights_file
    weights = place.with_suffix(".bin").name if beside else "inside"
    text = source_of_plan(plan, program, place.suffix == ".hpp", rate_hz, name, weights=weights)
    return text, program.weights.data() if beside else None


def source_of_plan(
    plan: NativePlan, program: Program, header: bool, rate_hz: Optional[int], name: str, **options: Any
) -> str:
    """The same of a stream that is planned already.

    Args:
        plan: the plan
        program: what it becomes
        header: whether the file is to be included
        rate_hz: samples per second of its input, if that is known
        name: of the class
        options: for `written`
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise ValueError(
            f"invalid_name: name={name!r} came; a name of a class in C++ was expected, as 'Denoiser'; letters, digits "
            "and underscores alone"
        )
    program.rate_hz = rate_hz or 0
    return written(program, name, header, about(plan.stream[0], name, program), **options)


def about(stream: BaseStream, name: str, program: Program) -> str:
    """The comment at the top of a file."""
    command = "g++ -std=gnu++17 -O3 -march=native, clang++ likewise; no -ffast-math, no -funroll-loops"
    return (
        f"{name}: a stream of a trained network, written by torchstreamer. It needs a C++17 compiler alone.\n"
        f"  {command}\n\n{type(stream).__name__}, {program.weights.count} weights"
    )


class _Lowering:
    def __init__(self, static: NativePlan) -> None:
        self.static = static
        self.plan = static.recorder[0]
        self.stream = static.stream[0]
        self.names = {id(module): name for name, module in self.stream.named_modules() if name}
        dtypes = {source.dtype for source in static.sources} | {result.dtype for result in static.results}
        if len(dtypes) > 1 or not dtypes <= {torch.float32, torch.float64}:
            found = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
            raise self.refuse(self.stream, f"its signals are of {found}, and float32 or float64 alone can be written")
        self.program = Program(
            next(iter(dtypes)), static.chunk, (self.stream.ratio[0], self.stream.ratio[1]), static.length_multiple
        )
        self.slots: Dict[int, Any] = {}
        self.origins: Dict[int, Tuple[int, LengthFunction]] = {}
        self._done: Dict[Tuple[Ref, Mask], Ref] = {}
        for number, source in enumerate(static.sources):
            if source.time < 0:
                raise self.refuse(self.stream, f"its input '{source.name}' has no time axis")
            shape = tuple(size for axis, size in enumerate(source.shape) if axis != source.time)
            value = self.program.value(source.shape[source.time], _count(shape), f"input {source.name}")
            self.program.inputs.append(Input(source.name, value, shape, source.rate))
            self.slots[number] = Slot(Ref(value), source.shape, source.time, source.dtype)
            if source.rate == (1, 1):
                self.origins[value.index] = 0, _same
        from . import native_attention, native_parts, native_recurrent, native_windows  # noqa: F401

        parts: Any = static.parts
        for part in parts:
            try:
                made = native_parts.written(part, self)
            except Fault as fault:
                raise self.refuse(self.plan.streams.get(part.target, self.stream), fault.reason) from None
            self.slots[part.target] = made
            self._remember(part.target, made)
        for result, table in zip(static.results, static.tables, strict=True):
            slot = self.slots[result.slot]
            slot.ref.hold()
            shape = tuple(size for axis, size in enumerate(result.shape) if axis != result.time)
            most = self._most_at_end(table, result)
            self.program.outputs.append(Output(slot.ref, shape, result.lag, result.key, most))
        self.program.tables = list(self.plan.tables)

    # ------------------------------------------------------------------ for rules

    def refuse(self, stream: nn.Module, reason: str) -> UnsupportedModuleError:
        """An error that names a stream."""
        return UnsupportedModuleError("not_native", stream, f"in C++: {reason}", _WAYS).within(self.stream)

    def made(self, part: Any) -> Tensor:
        """What a part gives in a step of one hop."""
        found: Tensor = self.plan.made[part.target]
        return found

    def note(self, part: Any) -> str:
        """What a value is called: as the stream that makes it."""
        stream = self.plan.streams.get(part.target)
        if stream is None:
            return type(part).__name__
        name = self.names.get(id(stream), "net").replace("streams.", "")
        return f"{name} ({type(stream).__name__.removesuffix('Stream')})"

    def slot(self, part: Any, ref: Ref) -> Slot:
        """What a part gives, as these rows."""
        y = self.made(part)
        return Slot(ref, tuple(y.shape), self.plan.times.get(part.target, 2), y.dtype)

    def sources(self, part: Any) -> List[Any]:
        """What a part takes."""
        return [self.slots[source] for source in part.sources]

    def masked(self, slot: int, mask: Optional[Mask]) -> Ref:
        """A value with padding where its signal does not go; ``mask`` is lag and key of the value, and the padding."""
        ref: Ref = self.slots[slot].ref
        if mask is None:
            return ref
        lag, key, fill = mask
        known = ref, mask
        if known not in self._done:
            self._done[known] = self._outside(ref, lag, key, fill)
        return self._done[known]

    # ------------------------------------------------------------------ inside

    def _remember(self, slot: int, made: Any) -> None:
        # Which signal the rows of a value hold. Slots that show them later, or some of them, are no others.
        fresh = isinstance(made, Slot) and made.ref.back == 0 and made.ref.value.index not in self.origins
        if fresh and slot in self.plan.origins:
            self.origins[made.ref.value.index] = self.plan.origins[slot]

    def _outside(self, ref: Ref, lag: int, key: int, fill: float) -> Ref:
        value = ref.value
        begin = self.program.begin(value, lag)
        if fill == 0 and self._native(ref, lag, key):
            # What lies outside is arbitrary, so nobody minds.
            ref.hold()
            call = f"kernels::outside<{value.stride}>({ref.rows()}, {begin}, n{key}, {value.count}, real(0));"
            self.program.add(Raw([call], [ref], value))
            return ref
        copy = self.program.value(value.rate, value.width, f"{value.note}, padded", fill)
        ref.hold()
        to, count, stride = f"r{copy.index}", value.count, value.stride
        lines = [
            f"std::memcpy({to}, {ref.rows()}, ({count}) * {stride} * sizeof(real));",
            f"kernels::outside<{stride}>({to}, {begin}, n{key}, {count}, {self.program.real(fill)});",
        ]
        self.program.add(Raw(lines, [ref], copy))
        return Ref(copy)

    def _native(self, ref: Ref, lag: int, key: int) -> bool:
        # Whether a mask leaves all of the signal that the rows hold.
        origin = self.origins.get(ref.value.index)
        return origin is not None and origin[0] == lag - ref.back and self.plan.key_of(origin[1]) == key

    def _most_at_end(self, table: Any, result: Any) -> int:
        # Of a signal of n samples the hops that are whole have given all but what lags behind.
        hop, rate = self.static.chunk, result.per_step
        spans = range(len(table.values) + 2 * table.period + (result.lag // rate + 2) * hop)
        return max(max(table(n) - max(n // hop * rate - result.lag, 0), 0) for n in spans)


def _count(sizes: Sequence[int]) -> int:
    count = 1
    for size in sizes:
        count *= size
    return count


def _same(n: int) -> int:
    return n
