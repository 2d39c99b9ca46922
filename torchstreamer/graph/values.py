"""What stands for the values of a captured graph while it is lowered."""

from dataclasses import dataclass, field, replace
from typing import Any, Callable, Dict, FrozenSet, Iterator, List, Mapping, Optional, Tuple

import torch
from torch import fx

from ..core.lengths import LengthFunction, LengthTable, LinearLength
from ..core.stream import BaseStream
from .layout import Layout

__all__ = [
    "AlignCall",
    "AtEnd",
    "Call",
    "Clock",
    "EndSamples",
    "EdgeCall",
    "Group",
    "PortedCall",
    "Refused",
    "Relation",
    "RelationCall",
    "Replay",
    "Rows",
    "SettleCall",
    "Skew",
    "Span",
    "Spread",
    "Static",
    "StartedCall",
    "StreamCall",
    "SumCall",
    "Unusable",
    "Value",
    "substituted",
    "things_in",
]


Lines = Tuple[LinearLength, LinearLength]


@dataclass(eq=False)
class Clock:
    """How many samples of a value have come, as a function of the input.

    Two values of one clock come in equal chunks at every call, so they can be joined without a ring.

    Attributes:
        available: samples after ``n`` samples of the first streamed input, before or at its end
        hop: input period after which it repeats
        ratio: samples per input sample
        lines: the same before and at the end of the signal as rounded lines, if they are such
    """

    available: Callable[[int, bool], int]
    hop: int
    ratio: Tuple[int, int]
    lines: Optional[Lines] = None


@dataclass(eq=False)
class Replay:
    """An operation that a segment computes on chunks.

    Attributes:
        target: the function
        args: with `Value`, `Static`, `Rows` and `Span` in the places of what is known only then
        kwargs: the same
    """

    target: Any
    args: Tuple[Any, ...]
    kwargs: Dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rows:
    """A size that is the number of rows, times ``factor``."""

    factor: int = 1


@dataclass(eq=False)
class Span:
    """A size that is the length of a chunk of ``value``."""

    value: "Value"


@dataclass(eq=False)
class Value:
    """A tensor with a time axis.

    Attributes:
        node: the operation that gives it
        shape: its sizes, of the whole signal
        dtype: its dtype
        time: its time axis
        rows: its batch axis, or ``None``
        inner: entries of the batch axis per row of the signal
        length: its length, of the whole signal
        clock: how much of it has come; ``None`` for a value that is the same at all times, and as long as is needed
        level: how many streams stand before it
        recipe: how it is computed on a chunk; ``None`` for an input or the output of a stream
        fresh: whether it shares memory with nothing else
        lifted: whether the tensor has an axis of rows in front that the model's value does not have
        merged: whether its time axis holds the samples of all rows, row after row, or
        mixed: sample after sample. It may also hold entries of other axes, then it is called merged, too:
        folds: of these in front of time and rows, between them, and after both
    """

    node: fx.Node
    shape: Tuple[Any, ...]
    dtype: torch.dtype
    time: int
    rows: Optional[int]
    inner: int
    length: LengthFunction
    clock: Optional[Clock]
    level: int
    recipe: Optional[Replay] = None
    fresh: bool = False
    lifted: bool = False
    merged: bool = False
    mixed: bool = False
    folds: Tuple[int, int, int] = (1, 1, 1)

    def others(self) -> List[int]:
        """Sizes of the axes that are neither time nor rows."""
        return [int(size) for axis, size in enumerate(self.shape) if axis not in (self.time, self.rows)]

    def like(self, **changes: Any) -> "Value":
        """A value laid out as this one, but for what is given; nothing computes it yet."""
        return replace(self, **{"recipe": None, "fresh": False, **changes})

    def held_as(self, other: "Value") -> "Value":
        """The value, whose axis of time holds what that of another does."""
        self.merged, self.mixed, self.folds = other.merged, other.mixed, other.folds
        return self

    def layout(self) -> Layout:
        """Where rows and time stand in it."""
        if self.lifted:
            return Layout(self.time + 1, 0, 1, [int(size) for axis, size in enumerate(self.shape) if axis != self.time])
        return Layout(self.time, -1 if self.rows is None else self.rows, self.inner, self.others())


@dataclass(eq=False)
class Spread:
    """A tensor with a time axis that depends on no streamed input, and is as long as it is needed.

    Attributes:
        node: the operation that gives it
        shape: its sizes, of the whole signal
        dtype: its dtype
        time: its time axis
        length: its length, of the whole signal
        recipe: how it is computed; `Span` is not yet bound to a value
        first: the value at time 0, and
        step: the difference of neighbours, of a range of numbers; ``None`` otherwise
        bound: what it is on a clock, and beside values in which rows are ``mixed``
    """

    node: fx.Node
    shape: Tuple[Any, ...]
    dtype: torch.dtype
    time: int
    length: LengthFunction
    recipe: Optional[Replay]
    first: Any = None
    step: Any = None
    bound: Dict[Tuple[Clock, bool], Value] = field(default_factory=dict)

    def on(self, clock: Optional[Clock], level: int, rows: Optional[int] = None, **details: Any) -> Value:
        """The value that it is on a clock."""
        return Value(self.node, self.shape, self.dtype, self.time, rows, 1, self.length, clock, level, **details)


@dataclass(eq=False)
class EndSamples:
    """The first or last samples of a value.

    Attributes:
        value: the value
        last: whether they are the last
        count: how often they are repeated
        samples: how many they are
        beyond: how many stand between them and the end, and
        mirrored: whether their order is reversed
    """

    value: Value
    last: bool
    count: int = 1
    samples: int = 1
    beyond: int = 0
    mirrored: bool = False


@dataclass(eq=False)
class Group:
    """Several tensors that one operation gives; ``like`` is one that it takes."""

    node: fx.Node
    recipe: Replay
    clock: Optional[Clock]
    level: int
    like: Optional[Value] = None


@dataclass(eq=False)
class Static:
    """A tensor without a time axis: a weight, a constant, or what is computed from these and static inputs.

    Attributes:
        node: the operation that gives it
        recipe: how it is computed; ``None`` for a weight, a buffer, a constant or a static input
        weights: whether it depends on weights or buffers
        given: whether it depends on a static input
        sized: whether it depends on the number of rows
    """

    node: fx.Node
    recipe: Optional[Replay]
    weights: bool
    given: bool
    sized: bool


@dataclass(eq=False)
class Refused:
    """What cannot be streamed, or depends on it."""

    error: Any


@dataclass(eq=False)
class AtEnd(Refused):
    """What is known at the end of a signal only, or depends on it; refused if something needs it."""


@dataclass(eq=False)
class Relation:
    """A tensor with an axis of queries and one of keys behind it, its last two, computed from values of both.

    It is never made for the whole signal: a part of the graph computes it for the queries of a step and the keys that
    these see.

    Attributes:
        node: the operation that gives it
        dtype: its dtype
        rank: its number of axes
        rows: the axis that holds the rows, -1 if none does
        fold: entries of that axis for each row
        recipe: how it is computed; values in it are sides, see `Relating`
        hidden: what hides keys from queries, and
        gone: what stands there: 0 or ``-inf``; ``None`` if that is not known, then nothing is hidden
        sides: a query-side value and a key-side one, whose lengths are its own
        softened: whether a softmax has left 0 there, whatever else a query and a key that do not see each other give
    """

    node: fx.Node
    dtype: torch.dtype
    rank: int
    rows: int
    fold: int
    recipe: Replay
    hidden: Tuple[Any, ...]
    gone: Optional[float]
    sides: Tuple["Value", "Value"]
    softened: bool = False


@dataclass(eq=False)
class Skew:
    """A product of queries with rows that stand for distances, of which entries have been moved.

    Attributes:
        node: the operation that gives it
        head: the product
        moved: the operations since then, itself included
        relation: what it is as a relation, once it has been asked for
    """

    node: fx.Node
    head: Any
    moved: FrozenSet[fx.Node] = frozenset()
    relation: Optional[Relation] = None


@dataclass(eq=False)
class Unusable:
    """What no part of the graph can compute; the error is raised if an output depends on it."""

    error: Any


@dataclass(eq=False)
class Call:
    """A part of the graph that is no segment: it takes values and gives others.

    Attributes:
        sources: what it takes
        targets: what it gives
    """

    sources: List[Value]
    targets: List[Value]


@dataclass(eq=False)
class StreamCall(Call):
    """A stream, from one value to another; ``packed`` if it takes ``[B, C, T]`` whatever their layouts."""

    stream: BaseStream
    packed: bool


@dataclass(eq=False)
class PortedCall(Call):
    """A captured stream, whose parts become parts of this graph."""

    stream: Any


@dataclass(eq=False)
class StartedCall(StreamCall):
    """A recurrence whose initial state, ``[layers, rows, H]`` each, is computed by a module from static inputs."""

    statics: List[Static]
    start: Any


class AlignCall(Call):
    """Values met by position."""


class SumCall(Call):
    """The sum of two values, met by position."""


@dataclass(eq=False)
class RelationCall(Call):
    """Queries that are answered by the keys that they see; ``node`` is the part that does it."""

    module: Any


@dataclass(eq=False)
class SettleCall(Call):
    """A value whose end is cropped or padded when the signal's length is known."""

    lead: int
    table: LengthTable
    value: float


@dataclass(eq=False)
class EdgeCall(Call):
    """A value with the first or last sample of another, its second source, beside it."""

    last: bool
    repeats: int


def things_in(argument: Any) -> Iterator[Any]:
    """The values of all kinds in an argument, lists opened."""
    if isinstance(argument, (list, tuple)):
        for item in argument:
            yield from things_in(item)
    elif isinstance(argument, dict):
        for item in argument.values():
            yield from things_in(item)
    else:
        yield argument


def substituted(argument: Any, by: Mapping[Any, Any]) -> Any:
    """An argument with values replaced, lists opened."""
    if isinstance(argument, (list, tuple)):
        return type(argument)(substituted(item, by) for item in argument)
    if isinstance(argument, dict):
        return {key: substituted(item, by) for key, item in argument.items()}
    symbolic = (torch.SymInt, torch.SymFloat, torch.SymBool)  # which have no hash
    return argument if isinstance(argument, symbolic) else by.get(argument, argument)
