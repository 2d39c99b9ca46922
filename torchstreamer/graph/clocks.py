"""What is known of the values of a captured graph: their axes, their lengths, and when their samples come."""

import math
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from ..core.lengths import LengthFunction, LengthTable, LinearLength
from ..core.rates import chain_rates
from ..core.stream import BaseStream
from .capture import Capture
from .lengths import line_of
from .refusals import Refusals
from .values import Clock, Lines, Replay, Value

__all__ = ["Clocks"]

# Tables of lengths have no longer periods than this, nor than that where no division says so.
_LONGEST = 1 << 16
_TRIED = 4096


def _sizes(graph: fx.Graph) -> Iterator[Any]:
    # Every size in a graph that the exporter did not fix.
    for node in graph.nodes:
        for thing in pytree.tree_leaves(node.meta.get("val")):
            if isinstance(thing, Tensor):
                yield from (size for size in thing.shape if isinstance(size, torch.SymInt))
            elif isinstance(thing, torch.SymInt):
                yield thing


class Clocks:
    """Knows lengths and clocks.

    Args:
        capture: the graph
        refuse: makes refusals

    Attributes:
        lengths: lengths of the signal at which lengths of values are compared
        periods: after which lengths may begin anew to be rounded
        limits: lengths, as sizes, that tables of the model end at, and where
    """

    def __init__(self, capture: Capture, refuse: Refusals) -> None:
        self.capture = capture
        self.sizes = capture.sizes
        self.refuse = refuse
        self._clocks: List[Clock] = []
        self.limits: List[Tuple[Any, int]] = []
        if capture.longest is not None:
            self.limits.append((capture.streamed[0].length, capture.longest))
        self._samples: Dict[Clock, Tuple[int, ...]] = {}
        start = self._example_length()
        unit = self.sizes.scale * capture.multiple
        near = [n for n in range(start, start + 48 * unit) if capture.valid(n)]
        far = [n for n in range(3 * start, 3 * start + 8 * unit) if capture.valid(n)]
        # Where a model pads to whole frames, what varies may do so with a long period only.
        spread = range(near[-1], near[-1] + 32 * 131 * unit, 131 * unit)
        self.periods = self.sizes.periods(_sizes(capture.graph))
        whole = [(start // period + 1) * period for period in self.periods]
        around = [n for end in whole for n in (end - unit, end, end + unit) if capture.valid(n)]
        lengths = [*near, *far, *around, *spread]
        if capture.regular:
            lengths = [n for n in lengths if not capture.broken_guards(n)]
        self.lengths = lengths
        self.sizes.look_at(lengths)

    def _example_length(self) -> int:
        port = self.capture.streamed[0]
        assert port.time is not None
        return int(port.example.shape[port.time])

    def value(
        self,
        node: fx.Node,
        meta: Any,
        clock: Optional[Clock],
        level: int,
        recipe: Optional[Replay] = None,
        shared: bool = False,
    ) -> Optional[Value]:
        """The value of a tensor with one time axis; ``None`` if it has none. One that is ``shared`` is the same for all
        rows."""
        shape = tuple(self.sizes.settled(size) for size in meta.shape)
        axes = [axis for axis, size in enumerate(shape) if self.sizes.varies(size)]
        if not axes:
            return None
        if len(axes) > 1:
            raise self.refuse(
                node,
                "time_mixing",
                "it has two axes of time: it relates every sample to every other",
                "bound its context",
            )
        rows, inner = None, 1
        for axis, size in enumerate(shape):
            if axis != axes[0] and self.sizes.has_rows(size):
                rows, inner = axis, self.sizes.at(size, self.lengths[0], 2) // 2
        length = self.sizes.function(shape[axes[0]], 1)
        merged = self.sizes.has_rows(shape[axes[0]])
        if merged:
            double = self.sizes.function(shape[axes[0]], 2)
            whole = rows is None and all(double(n) == 2 * length(n) for n in self.lengths)
        if (merged and not whole) or (self.sizes.rows and rows is None and not merged and not shared):
            raise self.refuse(node, "rows_mixed", "it mixes the rows of a batch", "keep rows apart, or give one row")
        return Value(node, shape, meta.dtype, axes[0], rows, inner, length, clock, level, recipe, merged=merged)

    def same_length(self, one: LengthFunction, other: LengthFunction) -> bool:
        """Whether two lengths are equal for every length of the signal."""
        return (
            self._same_line(one, other) or self.sizes.same(one, other) or all(one(n) == other(n) for n in self.lengths)
        )

    def _same_line(self, one: LengthFunction, other: LengthFunction) -> bool:
        first, second = line_of(one), line_of(other)
        if first is None or second is None or max(first.shortest, second.shortest) > min(self.lengths):
            return one is other
        return (first.rise, first.offset, first.period) == (second.rise, second.offset, second.period)

    def constant_difference(self, one: LengthFunction, other: LengthFunction) -> Optional[int]:
        """``one - other`` if it is the same for every length of the signal."""
        found = one(self.lengths[0]) - other(self.lengths[0])
        return found if all(one(n) - other(n) == found for n in self.lengths) else None

    # ------------------------------------------------------------------ clocks

    def clock(
        self,
        available: Callable[[int, bool], int],
        hop: int,
        ratio: Tuple[int, int],
        lines: Optional[Lines] = None,
        port: bool = False,
    ) -> Clock:
        """The clock with such lengths: one that is known, if all its lengths are these.

        Args:
            available: samples after ``n`` of the first streamed input, before or at its end
            hop: input period after which it repeats
            ratio: samples per input sample
            lines: what ``available`` is, if that is known
            port: whether it is that of an input
        """
        if len(self.capture.streamed) > 1:
            # Several inputs need not come in step.
            clock = Clock(_memoized(available), hop, ratio)
            if port:
                self._clocks.append(clock)
            return clock
        if lines is not None:
            clock = Clock(lambda n, final: lines[final](n), hop, ratio, lines)
        else:
            clock = Clock(_memoized(available), hop, ratio)
            if max(256, 2 * hop + 64) > 8192:
                return clock
        for other in self._clocks:
            if (other.hop, other.ratio) == (hop, ratio) and self._equal(clock, other):
                return other
        self._clocks.append(clock)
        return clock

    def _equal(self, one: Clock, other: Clock) -> bool:
        if one.lines is not None and other.lines is not None:
            return one.lines == other.lines
        return self._sampled(one) == self._sampled(other)

    def _sampled(self, clock: Clock) -> Tuple[int, ...]:
        if clock not in self._samples:
            ends = [*range(max(256, 2 * clock.hop + 64)), *range(10_007, 10_007 + min(clock.hop, 64))]
            self._samples[clock] = tuple(clock.available(n, final) for n in ends for final in (False, True))
        return self._samples[clock]

    def after(self, before: Clock, stream: BaseStream) -> Clock:
        """The clock of what a stream gives."""

        def available(n: int, final: bool) -> int:
            return stream.output_length(before.available(n, final), final)

        hop, ratio = chain_rates([(before.hop, before.ratio), (stream.hop, stream.ratio)])
        lines = None
        own = stream.lines()
        if before.lines is not None and own is not None:
            early, late = own[0].after(before.lines[0]), own[1].after(before.lines[1])
            lines = (early, late) if early is not None and late is not None else None
        return self.clock(available, hop, ratio, lines)

    def meet(self, clocks: Sequence[Clock]) -> Clock:
        """The clock of values met by position."""

        def available(n: int, final: bool) -> int:
            return min(clock.available(n, final) for clock in clocks)

        lines = [clock.lines for clock in clocks if clock.lines is not None]
        early, late = _least([line for line, _ in lines]), _least([line for _, line in lines])
        known = len(lines) == len(clocks) and early is not None and late is not None
        hop = math.lcm(*(clock.hop for clock in clocks))
        return self.clock(available, hop, clocks[0].ratio, (early, late) if known else None)  # type: ignore[arg-type]

    def require_length(self, node: fx.Node, value: Value) -> None:
        """Refuse if the stream's own formula does not give the length that the exporter found."""
        assert value.clock is not None
        if value.clock.lines is not None and self._same_line(value.clock.lines[1], value.length):
            return
        for n in self.lengths:
            if value.clock.available(n, True) != value.length(n):
                raise self.refuse(
                    node,
                    "length",
                    f"for {n} samples its stream gives {value.clock.available(n, True)} samples, the model "
                    f"{value.length(n)}",
                    "register a handler for the module",
                )

    def table(self, length: LengthFunction, period: int) -> Optional[LengthTable]:
        """A length as a table for scripts."""
        first = next(n for n in range(self.lengths[0] + 1) if self.capture.valid(n) and self._defined(length, n))
        unit = self.sizes.scale * self.capture.multiple
        # It may depend on a rate somewhere else in the model.
        for part in dict.fromkeys([period, *(clock.hop for clock in self._clocks)]):
            part = math.lcm(part, unit)
            few = [length for length in range(part, 33 * part, part) if length <= _TRIED]
            long = [math.lcm(period, part) for period in self.periods]
            found = LengthTable.fit(length, [*few, *(period for period in long if period <= _LONGEST)], first, unit)
            if found is not None:
                return found
        return None

    def _defined(self, length: LengthFunction, n: int) -> bool:
        return length(n) > 0 or n == self.lengths[0]


def _memoized(available: Callable[[int, bool], int]) -> Callable[[int, bool], int]:
    known: Dict[Tuple[int, bool], int] = {}

    def memoized(n: int, final: bool) -> int:
        if (n, final) not in known:
            known[n, final] = available(n, final)
        return known[n, final]

    return memoized


def _least(lines: Sequence[LinearLength]) -> Optional[LinearLength]:
    """The least of several lines that rise alike."""
    if len({(line.rise, line.period) for line in lines}) != 1:
        return None
    offset, shortest = min(line.offset for line in lines), max(line.shortest for line in lines)
    return LinearLength(lines[0].rise, offset, lines[0].period, shortest)
