"""Streams put after values, values met by position, and steps that segments compute."""

import math
from typing import Any, Dict, FrozenSet, List, Optional, Sequence

from torch import fx

from ..core.lengths import LengthFunction, LengthTable
from ..core.stream import BaseStream
from ..errors import StreamError, UnsupportedModuleError
from .clocks import Clocks
from .lengths import Lengthened
from .reasons import reason_for
from .refusals import Refusals, operation_name
from .values import AlignCall, Call, Clock, EdgeCall, EndSamples, Replay, Rows, SettleCall, StreamCall, Value

__all__ = ["Alignment"]


class Alignment:
    """Puts streams into the graph.

    Args:
        clocks: of the values
        refuse: makes refusals

    Attributes:
        calls: streams and alignments, in order
        recorded: values and groups that segments compute, in order
        handler: what reports call the last call
    """

    def __init__(self, clocks: Clocks, refuse: Refusals) -> None:
        self.clocks = clocks
        self.refuse = refuse
        self.calls: List[Call] = []
        self.recorded: List[Any] = []
        self.handler = ""
        self._aligned: Dict[FrozenSet[Value], Dict[Value, Value]] = {}

    def align(self, node: fx.Node, values: Sequence[Value]) -> List[Value]:
        """The values met by position: as they are if they have one clock."""
        distinct = list(dict.fromkeys(values))
        if len({id(value.clock) for value in distinct}) == 1:
            return list(values)
        if any(value.merged for value in distinct):
            return self._align_merged(node, values)
        if any(not self.clocks.same_length(value.length, distinct[0].length) for value in distinct):
            raise self.refuse(
                node, "length", "its inputs have different lengths", "crop or pad them to one length before they meet"
            )
        key = frozenset(distinct)
        if key not in self._aligned:
            clock = self.clocks.meet([value.clock for value in distinct if value.clock is not None])
            level = max(value.level for value in distinct) + 1
            found = self._aligned[key] = {value: value.like(clock=clock, level=level) for value in distinct}
            self.calls.append(AlignCall(distinct, list(found.values())))
        return [self._aligned[key][value] for value in values]

    def _align_merged(self, node: fx.Node, values: Sequence[Value]) -> List[Value]:
        """The same for values of which time and rows are one axis: they are axes of their own meanwhile."""
        if any(value.folds != (1, 1, 1) for value in values):
            self._require_rows(node, next(value for value in values if value.folds != (1, 1, 1)))
        apart = [self._with_rows_apart(node, value) if value.merged else value for value in values]
        met = self.align(node, apart)
        return [
            self._with_rows_merged(node, each, value) if value.merged else each
            for each, value in zip(met, values, strict=True)
        ]

    def _with_rows_apart(self, node: fx.Node, value: Value) -> Value:
        at = value.time
        place: List[Any] = [-1, Rows(1)] if value.mixed else [Rows(1), -1]
        before, after = list(value.shape[:at]), list(value.shape[at + 1 :])
        recipe = Replay("reshape", (value, [*before, *place, *after]))
        shape = (*before, value.shape[at], value.shape[at], *after)
        changes = {"merged": False, "mixed": False, "rows": at + value.mixed, "time": at + (not value.mixed)}
        return self.step(node, value, recipe, shape=shape, **changes)

    def _with_rows_merged(self, node: fx.Node, value: Value, like: Value) -> Value:
        at = like.time
        recipe = Replay("reshape", (value, [*like.shape[:at], -1, *like.shape[at + 1 :]]))
        changes = {"merged": True, "mixed": like.mixed, "rows": None, "time": at}
        return self.step(node, value, recipe, shape=like.shape, **changes)

    def _require_rows(self, node: fx.Node, value: Value) -> None:
        if value.merged:
            raise self.refuse(
                node,
                "rows_mixed",
                "it works along time where time and rows are one axis",
                "give rows an axis of their own",
            )

    # ------------------------------------------------------------------ streams

    def stream(self, node: fx.Node, source: Value, stream: BaseStream, packed: bool, meta: Any = None) -> Value:
        """Put a stream after a value.

        Args:
            node: the operation that it stands for
            source: its input
            stream: the stream
            packed: whether it takes ``[B, C, T]`` whatever the value's layout; else the value as it is, ``[N, C, T]``
            meta: the tensor that it gives, if not the node's
        """
        clock = self._clock_after(node, source, stream)
        value = self.clocks.value(node, node.meta["val"] if meta is None else meta, clock, source.level + 1)
        if value is None:
            raise self.refuse(node, "time_mixing", *reason_for(operation_name(node)))
        return self._called(node, source, stream, packed, value)

    def derived(
        self, node: fx.Node, source: Value, stream: BaseStream, length: LengthFunction, result: Optional[Value] = None
    ) -> Value:
        """Put a stream after a value, for a step of an operation whose result has no node of its own.

        Args:
            node: the operation
            source: its input
            stream: the stream; it takes ``[B, C, T]``
            length: length of what it gives
            result: a value with the layout of the result, if not that of the input
        """
        clock = self._clock_after(node, source, stream)
        value = (result or source).like(node=node, length=length, clock=clock, level=source.level + 1)
        return self._called(node, source, stream, True, value)

    def _clock_after(self, node: fx.Node, source: Value, stream: BaseStream) -> Clock:
        assert source.clock is not None
        self._require_rows(node, source)
        self.handler = type(stream).__name__
        try:
            return self.clocks.after(source.clock, stream)
        except StreamError as error:
            if isinstance(error, UnsupportedModuleError):
                raise
            raise self.refuse(node, "no_output_length", str(error), "define output_length(n, final)") from None

    def _called(self, node: fx.Node, source: Value, stream: BaseStream, packed: bool, value: Value) -> Value:
        value.fresh = stream.aliasing == 0
        self.clocks.require_length(node, value)
        self.calls.append(StreamCall([source], [value], stream, packed))
        return value

    def settled(
        self, node: fx.Node, source: Value, lead: int, table: LengthTable, length: LengthFunction, value: float
    ) -> Value:
        """A value cropped by ``lead`` on the left, and on the right as the length of the signal says."""
        assert source.clock is not None
        self._require_rows(node, source)
        self.handler = "settled at the end"
        before, ahead = source.clock, table.least_ahead()

        def available(n: int, final: bool) -> int:
            if final:
                return max(table(n), 0)
            return max(min(ahead(n), before.available(n, False) - lead), 0)

        clock = self.clocks.clock(available, math.lcm(before.hop, table.period), before.ratio)
        found = source.like(node=node, length=length, clock=clock, level=source.level + 1)
        self.calls.append(SettleCall([source], [found], lead, table, value))
        return found

    def edged(self, node: fx.Node, source: Value, end: EndSamples) -> Value:
        """A value with another's first sample in front, or its last sample at the end."""
        before, other, count = source.clock, end.value.clock, end.count
        assert before is not None and other is not None

        def available(n: int, final: bool) -> int:
            came = before.available(n, final)
            if end.last:
                return came + (count if final and other.available(n, True) > 0 else 0)
            return came + count if other.available(n, final) > 0 else 0

        self.handler = "EdgeNode"
        clock = self.clocks.clock(available, math.lcm(before.hop, other.hop), before.ratio)
        length, level = source.length, max(source.level, end.value.level) + 1
        found = source.like(node=node, length=Lengthened(length, count), clock=clock, level=level)
        self.calls.append(EdgeCall([source, end.value], [found], end.last, count))
        return found

    # ------------------------------------------------------------------ steps that segments compute

    def step(self, node: fx.Node, x: Value, recipe: Replay, **changes: Any) -> Value:
        """A step whose result is laid out as its input, but for what is given."""
        return self.record(x.like(node=node, recipe=recipe, **changes))

    def step_across(self, node: fx.Node, x: Value, recipe: Replay) -> Value:
        """A step that changes other axes than time, whose sizes become those of the node's result."""
        shape = tuple(
            x.shape[axis] if axis in (x.time, x.rows) else self.clocks.sizes.settled(size)
            for axis, size in enumerate(node.meta["val"].shape)
        )
        return self.step(node, x, recipe, shape=shape)

    def record(self, value: Value) -> Value:
        """Let a segment compute a value."""
        self.recorded.append(value)
        return value
