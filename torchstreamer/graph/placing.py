"""Streams behind values, values met by position, and weights computed from others."""

import math
from typing import Any, Dict, List, Optional, Sequence, Tuple

from torch import Tensor, fx

from ..core.rates import chain_rates
from ..core.stream import BaseStream
from ..errors import StreamError, UnsupportedModuleError
from .capture import Capture
from .clocks import Tracking
from .computed import ComputedWeight, KeptValue
from .lengths import LengthFunction, LengthTable
from .reasons import reason_for
from .segment import Body
from .values import (
    AlignCall,
    Clock,
    Edge,
    EdgeCall,
    Replay,
    SettleCall,
    Static,
    StreamCall,
    Value,
    things_in,
)

__all__ = ["Placing"]


class Placing(Tracking):
    """Puts streams into the graph.

    Args:
        capture: the graph
    """

    def __init__(self, capture: Capture) -> None:
        super().__init__(capture)
        self._aligned: Dict[Tuple[int, ...], List[Value]] = {}

    def align(self, node: fx.Node, values: Sequence[Value]) -> List[Value]:
        """The values met by position: as they are if they have one clock."""
        distinct = list(dict.fromkeys(values))
        for value in distinct:
            self._require_rows(node, value, len({id(other.clock) for other in distinct}) > 1)
        if len({id(value.clock) for value in distinct}) == 1:
            return list(values)
        if any(not self.same_length(value.length, distinct[0].length) for value in distinct):
            raise self.refuse(
                node, "length", "its inputs have different lengths", "crop or pad them to one length before they meet"
            )
        key = tuple(sorted(id(value) for value in distinct))
        if key not in self._aligned:
            clocks = [value.clock for value in distinct if value.clock is not None]
            clock = self._meet(clocks)
            level = max(value.level for value in distinct) + 1
            distinct.sort(key=id)
            targets = [value.like(clock=clock, level=level) for value in distinct]
            self.calls.append(AlignCall(distinct, targets))
            self._aligned[key] = targets
        targets = self._aligned[key]
        order = [id(value) for value in sorted(dict.fromkeys(values), key=id)]
        return [targets[order.index(id(value))] for value in values]

    def _require_rows(self, node: fx.Node, value: Value, needed: bool = True) -> None:
        if needed and value.merged:
            raise self.refuse(
                node,
                "rows_mixed",
                "it works along time where time and rows are one axis",
                "give rows an axis of their own",
            )

    def _meet(self, clocks: Sequence[Clock]) -> Clock:
        def available(n: int, final: bool) -> int:
            return min(clock.available(n, final) for clock in clocks)

        return self.clock(available, math.lcm(*(clock.hop for clock in clocks)), clocks[0].ratio)

    def stream(
        self,
        node: fx.Node,
        source: Value,
        stream: BaseStream,
        packed: bool,
        meta: Any = None,
        name: str = "",
    ) -> Value:
        """Put a stream behind a value.

        Args:
            node: the operation that it stands for
            source: its input
            stream: the stream
            packed: whether it takes ``[B, C, T]`` whatever the value's layout; else the value as it is, ``[N, C, T]``
            meta: the tensor that it gives, if not the node's
            name: what reports call it
        """
        clock = self._clock_behind(node, source, stream, name)
        value = self.value(node, node.meta["val"] if meta is None else meta, clock, source.level + 1)
        if value is None:
            raise self.refuse(node, "time_mixing", *reason_for(self.name(node)))
        return self._stream_call(node, source, stream, packed, value)

    def _clock_behind(self, node: fx.Node, source: Value, stream: BaseStream, name: str) -> Clock:
        assert source.clock is not None
        self._require_rows(node, source)
        self._handler = name or type(stream).__name__
        before = source.clock

        def available(n: int, final: bool) -> int:
            return stream.output_length(before.available(n, final), final)

        hop, ratio = chain_rates([(before.hop, before.ratio), (stream.hop, stream.ratio)])
        try:
            return self.clock(available, hop, ratio)
        except StreamError as error:
            if isinstance(error, UnsupportedModuleError):
                raise
            raise self.refuse(node, "no_output_length", str(error), "define output_length(n, final)") from None

    def _stream_call(self, node: fx.Node, source: Value, stream: BaseStream, packed: bool, value: Value) -> Value:
        value.fresh = stream.aliasing == 0
        self.require_length(node, value)
        self.calls.append(StreamCall(node, stream, source, value, packed))
        return value

    def derived(
        self,
        node: fx.Node,
        source: Value,
        stream: BaseStream,
        length: LengthFunction,
        name: str = "",
        behind: Optional[Value] = None,
    ) -> Value:
        """Put a stream behind a value, for a step of an operation whose result has no node of its own.

        Args:
            node: the operation
            source: its input
            stream: the stream; it takes ``[B, C, T]``
            length: length of what it gives
            name: what reports call it
            behind: a value with the layout of the result, if not that of the input
        """
        clock = self._clock_behind(node, source, stream, name)
        value = (behind or source).like(node=node, length=length, clock=clock, level=source.level + 1)
        return self._stream_call(node, source, stream, True, value)

    def derived_shape(
        self,
        node: fx.Node,
        source: Value,
        stream: BaseStream,
        length: LengthFunction,
        shape: Sequence[Any],
        time: int,
    ) -> Value:
        """As `derived`, with the shape of the result; rows stay where they are."""
        return self.derived(node, source, stream, length, behind=source.like(shape=tuple(shape), time=time))

    def settled(
        self, node: fx.Node, source: Value, lead: int, table: LengthTable, length: LengthFunction, value: float
    ) -> Value:
        """A value cropped by ``lead`` on the left, and on the right as the length of the signal says."""
        assert source.clock is not None
        self._require_rows(node, source)
        self._handler = "settled at the end"
        before, ahead = source.clock, table.least_ahead()

        def available(n: int, final: bool) -> int:
            if final:
                return max(table(n), 0)
            return max(min(ahead(n), before.available(n, False) - lead), 0)

        clock = self.clock(available, math.lcm(before.hop, table.period), before.ratio)
        found = source.like(node=node, length=length, clock=clock, level=source.level + 1)
        self.calls.append(SettleCall(node, source, found, lead, table, value))
        return found

    def edged(self, node: fx.Node, source: Value, edge: Edge) -> Value:
        """A value with another's first sample in front, or last sample behind."""
        before, other, count = source.clock, edge.value.clock, edge.count
        assert before is not None and other is not None

        def available(n: int, final: bool) -> int:
            came = before.available(n, final)
            if edge.last:
                return came + (count if final and other.available(n, True) > 0 else 0)
            return came + count if other.available(n, final) > 0 else 0

        self._handler = "EdgeNode"
        clock = self.clock(available, math.lcm(before.hop, other.hop), before.ratio)
        length, level = source.length, max(source.level, edge.value.level) + 1
        found = source.like(node=node, length=lambda n: length(n) + count, clock=clock, level=level)
        self.calls.append(EdgeCall(node, source, edge.value, found, edge.last, count))
        return found

    def table(self, length: LengthFunction, period: int) -> Optional[LengthTable]:
        """A length as a table for scripts."""
        first = next(n for n in range(self.lengths[0] + 1) if self.capture.valid(n) and self._defined(length, n))
        unit = self.sizes.scale * self.capture.multiple
        # It may depend on a rate somewhere else in the model.
        for candidate in dict.fromkeys([period, *(clock.hop for _, clock in self._clocks)]):
            found = LengthTable.fit(length, candidate, first, unit, self.periods)
            if found is not None:
                return found
        return None

    def _defined(self, length: LengthFunction, n: int) -> bool:
        return length(n) > 0 or n == self.lengths[0]

    # ------------------------------------------------------------------ steps of operations that segments compute

    def recorded_across(self, node: fx.Node, x: Value, recipe: Replay) -> Value:
        """A step that changes other axes than time, whose sizes become those of the node's result."""
        shape = tuple(
            x.shape[axis] if axis in (x.time, x.rows) else self.sizes.settled(size)
            for axis, size in enumerate(node.meta["val"].shape)
        )
        return self.step(node, x, recipe, shape=shape)

    def recorded_like(
        self, node: fx.Node, x: Value, recipe: Replay, spatial: Optional[int] = None, grow: int = 0
    ) -> Value:
        """A step that leaves the shape as it is, but for one of two spatial axes that grows."""
        shape = list(x.shape)
        if spatial is not None:
            shape[len(shape) - 2 + spatial] = int(shape[len(shape) - 2 + spatial]) + grow
        return self.step(node, x, recipe, shape=tuple(shape))

    def reshaped(self, node: fx.Node, x: Value, recipe: Replay, shape: Sequence[Any], time: int) -> Value:
        """A step that only moves axes; rows stay where they are."""
        return self.step(node, x, recipe, shape=tuple(shape), time=time)

    def step(self, node: fx.Node, x: Value, recipe: Replay, **changes: Any) -> Value:
        """A step that a segment computes, whose result is laid out as its input but for what is given."""
        found = x.like(node=node, recipe=recipe, **changes)
        self.recorded.append(found)
        return found

    # ------------------------------------------------------------------ weights

    def tensor_of(self, thing: Static) -> Tuple[Tensor, bool]:
        """The tensor of a weight or constant, and whether it belongs into ``state_dict()``."""
        persistent = thing.recipe is None and self.capture.paths.get(thing.node.name) in self.capture.net.state_dict()
        return self.static_tensor(thing), persistent

    def computed(self, thing: Static) -> ComputedWeight:
        """The module that computes a tensor from the model's weights."""
        body = Body(self.tensor_of, self.kept, lambda other: False)
        sources: List[Tensor] = []
        self._sources(thing, sources, body)
        node = body._replay(thing.recipe)
        body._nodes[thing] = node
        return ComputedWeight(body.finish([thing], single=True), sources)

    def _sources(self, thing: Static, sources: List[Tensor], body: Body) -> None:
        # Everything inside is computed in place, weights of weights too.
        if thing.recipe is None:
            if thing.weights:
                sources.append(self.static_tensor(thing))
            return
        if not thing.weights:
            return
        for inner in things_in([thing.recipe.args, thing.recipe.kwargs]):
            if isinstance(inner, Static):
                self._sources(inner, sources, body)
                if inner.recipe is not None and inner.weights and inner not in body._nodes:
                    body._nodes[inner] = body._replay(inner.recipe)

    def kept(self, thing: Static) -> KeptValue:
        """The module that gives a computed weight to a segment."""
        return KeptValue(self.computed(thing))
