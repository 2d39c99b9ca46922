"""A program on rows: values that run at rates, and operations that make one of others."""

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

import torch

from ..core.lengths import LengthTable
from .weights import Weights, padded

__all__ = ["Fault", "Input", "Operation", "Output", "Program", "Raw", "Ref", "Value"]


class Fault(Exception):
    """An operation cannot be written.

    Args:
        reason: why
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(eq=False)
class Value:
    """Rows of numbers, one for each sample.

    Attributes:
        index: its number in the program
        rate: rows in each hop of the program; 0 of a single row, inside of a loop over samples
        width: numbers in a row
        note: what it is
        held: rows of the past that are read, too
        fill: what stands before the first row
        extra: more rows of a step than the rate says
        shows: of a value without rows of its own the one whose rows it shows, several of them as one
        several: how many come next with the next one
        first: the first of them, counted from the first of a step
    """

    index: int
    rate: int
    width: int
    note: str = ""
    held: int = 0
    fill: float = 0.0
    extra: int = 0
    shows: "Optional[Ref]" = None
    several: int = 1
    first: int = 0

    @property
    def stride(self) -> int:
        """Numbers from one row to the next."""
        return padded(self.width) if self.shows is None else self.shows.value.stride * self.several

    @property
    def count(self) -> str:
        """Rows of a step, in C++."""
        return "k" if self.rate == 1 else f"k * {self.rate}" if self.rate else "1"


@dataclass(frozen=True)
class Ref:
    """A value as it was some rows ago.

    Attributes:
        value: the value
        back: so many rows ago
    """

    value: Value
    back: int = 0

    def rows(self, first: int = 0) -> str:
        """A pointer to a row of this step, ``first`` counted from its first, in C++."""
        offset = (first - self.back) * self.value.stride
        sign = "+" if offset > 0 else "-"
        return f"r{self.value.index}" + (f" {sign} {abs(offset)}" if offset else "")

    def hold(self, rows: int = 0) -> None:
        """Keep so many rows before those of this step."""
        self.value.held = max(self.value.held, self.back + rows)


class Operation:
    """Makes a value of others."""

    def __init__(self, reads: Sequence[Ref], makes: Optional[Value]) -> None:
        self.reads = list(reads)
        self.makes = makes

    @property
    def inside(self) -> List[Value]:
        """Values that nobody else sees."""
        return []

    def text(self) -> List[str]:
        """Lines of C++."""
        raise NotImplementedError


class Raw(Operation):
    """An operation that is its text.

    Args:
        lines: in C++
        reads: what it reads
        makes: what it makes
    """

    def __init__(self, lines: Sequence[str], reads: Sequence[Ref], makes: Optional[Value]) -> None:
        super().__init__(reads, makes)
        self.lines = list(lines)

    def text(self) -> List[str]:
        return self.lines


@dataclass
class Input:
    """A signal that comes in.

    Attributes:
        name: of the argument
        value: its rows
        shape: of a sample
        rate: samples per sample of the first input, a pair of integers
    """

    name: str
    value: Value
    shape: Tuple[int, ...]
    rate: Tuple[int, int] = (1, 1)


@dataclass
class Output:
    """A signal that goes out.

    Attributes:
        ref: its rows
        shape: of a sample
        lag: samples by which it lags behind
        key: of its length
        most_at_end: samples that the end of a signal may give
    """

    ref: Ref
    shape: Tuple[int, ...]
    lag: int
    key: int
    most_at_end: int


@dataclass
class Program:
    """All of a net.

    Attributes:
        dtype: of its numbers, ``torch.float32`` or ``torch.float64``
        hop: samples of the first input in each hop
        ratio: samples out per samples in
        multiple: what the lengths of signals are multiples of
        tables: lengths of the values, by their keys
        rate_hz: samples per second of the input, 0 if that is not known
    """

    dtype: torch.dtype
    hop: int
    ratio: Tuple[int, int] = (1, 1)
    multiple: int = 1
    tables: List[LengthTable] = field(default_factory=list)
    rate_hz: int = 0
    values: List[Value] = field(default_factory=list)
    operations: List[Operation] = field(default_factory=list)
    inputs: List[Input] = field(default_factory=list)
    outputs: List[Output] = field(default_factory=list)
    states: List[Tuple[str, int, str]] = field(default_factory=list)
    functors: Dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.weights = Weights(self.dtype)

    def value(self, rate: int, width: int, note: str = "", fill: float = 0.0) -> Value:
        """A new value."""
        made = Value(len(self.values), rate, width, note, 0, fill)
        self.values.append(made)
        return made

    def shown(self, ref: Ref, first: int, count: int, several: int, note: str) -> Value:
        """A value whose rows are so many of another's, side by side with what stands between them.

        Args:
            ref: the other one
            first: its first row of the first one, counted from the first of a step
            count: its rows of each
            several: its rows from one to the next
            note: what it is
        """
        ref.hold(-first)
        made = self.value(ref.value.rate // several, count * ref.value.stride, note)
        made.shows, made.several, made.first = ref, several, first
        return made

    def add(self, operation: Operation) -> None:
        """Another operation, after all others."""
        self.operations.append(operation)

    @contextmanager
    def apart(self) -> Iterator[List[Operation]]:
        """Collect the operations that are added meanwhile, instead of adding them."""
        kept, self.operations = self.operations, []
        try:
            yield self.operations
        finally:
            self.operations = kept

    def state(self, count: int, note: str) -> str:
        """So many numbers that a signal carries along, zeros in front of it; gives their name."""
        name = f"h{len(self.states)}"
        self.states.append((name, count, note))
        return name

    def begin(self, value: Value, lag: int) -> str:
        """The position of a value's first row in this step, in C++."""
        at = "at" if value.rate == 1 else f"at * {value.rate}"
        return f"{at} - {lag}" if lag > 0 else f"{at} + {-lag}" if lag < 0 else at

    def real(self, number: float) -> str:
        """A number in C++."""
        if number != number:
            return "real(NAN)"
        if number in (float("inf"), float("-inf")):
            return "real(INFINITY)" if number > 0 else "-real(INFINITY)"
        return f"real({number!r})"
