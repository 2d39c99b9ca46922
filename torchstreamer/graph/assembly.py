"""From what the lowering found to the parts of a stream, in an order in which every part follows what it needs."""

import math
from typing import Any, Dict, List, Sequence, Set, Tuple

from torch import fx, nn

from ..core.liveness import spent
from ..core.memory import Memory
from .fusing import fuse_sums
from .inlined import renumbered
from .lowering import Lowering
from .naming import names_of
from .nodes import AlignNode, EdgeNode, SegmentNode, SettleNode, StartedNode, StreamNode, SumNode
from .relations import RelationNode
from .values import (
    AlignCall,
    Call,
    EdgeCall,
    Group,
    PortedCall,
    RelationCall,
    SettleCall,
    Span,
    StartedCall,
    Static,
    StreamCall,
    SumCall,
    Value,
    things_in,
)

__all__ = ["Assembly"]

_Key = Tuple[int, int]


class Assembly:
    """Builds the parts.

    Args:
        lowering: what was found
        outputs: the values that the model gives
    """

    def __init__(self, lowering: Lowering, outputs: Sequence[Any]) -> None:
        self.lowering = lowering
        self.outputs = [value for value in outputs if isinstance(value, Value)]
        self.slots: Dict[Any, int] = {}
        for thing in lowering.inputs:
            self.slot(thing)
        fuse_sums(lowering, outputs)
        self.needed = self._needed()
        self.calls = [call for call in lowering.alignment.calls if call in self.needed]
        self.nodes = self._build()
        self._release()

    def slot(self, thing: Any) -> int:
        """The place of a value."""
        return self.slots.setdefault(thing, len(self.slots))

    def hop(self) -> int:
        """Input period after which all states repeat."""
        clocks = [call.targets[0].clock for call in self.calls]
        return math.lcm(self.lowering.capture.multiple, *(clock.hop for clock in clocks if clock is not None), 1)

    # ------------------------------------------------------------------ what is needed

    def _needed(self) -> Set[Any]:
        """The values, groups and calls that the outputs depend on."""
        made = {value: call for call in self.lowering.alignment.calls for value in call.targets}
        found: Set[Any] = set()
        waiting: List[Any] = list(self.outputs)
        while waiting:
            thing = waiting.pop()
            if thing in found:
                continue
            found.add(thing)
            if isinstance(thing, (Value, Group, Static)) and thing.recipe is not None:
                waiting += _inputs_of(thing.recipe)
            elif thing in made:
                waiting.append(made[thing])
            elif isinstance(thing, Call):
                waiting += thing.sources
                waiting += getattr(thing, "statics", [])
        return found

    # ------------------------------------------------------------------ building

    def _build(self) -> List[nn.Module]:
        segments: Dict[_Key, List[Any]] = {}
        for thing in self.lowering.alignment.recorded:
            if thing in self.needed:
                segments.setdefault((thing.level, id(thing.clock)), []).append(thing)
        outside = self._used_outside(segments)
        parts: List[Tuple[int, int, nn.Module, List[fx.Node]]] = []
        for key, things in segments.items():
            outputs = [thing for thing in things if thing in outside]
            if outputs:
                parts.append((key[0], 0, self._segment(key, outputs), [thing.node for thing in things]))
        for call in self.calls:
            level = max(value.level for value in call.sources if isinstance(value, Value))
            made = [] if isinstance(call, AlignCall) else [call.targets[0].node]
            if isinstance(call, PortedCall):
                slots = [self.slot(value) for value in call.sources], [self.slot(value) for value in call.targets]
                parts += [(level, 1, part, made) for part in renumbered(call.stream, *slots, self.slot)]
                continue
            parts.append((level, 1, self._call(call), made))
        parts.sort(key=lambda part: part[:2])
        self.names = names_of([made for _, _, _, made in parts], self.lowering.capture.net)
        return [module for _, _, module, _ in parts]

    def _used_outside(self, segments: Dict[_Key, List[Any]]) -> Set[Any]:
        """Values computed in a segment that something else needs."""
        used: Set[Any] = set(self.outputs)
        for call in self.calls:
            used.update(call.sources)
        for key, things in segments.items():
            for thing in things:
                for inner in _inputs_of(thing.recipe):
                    if isinstance(inner, (Value, Group)) and (inner.level, id(inner.clock)) != key:
                        assert not isinstance(inner, Group), "a group cannot leave its segment"
                        used.add(inner)
        return used

    def _segment(self, key: _Key, outputs: List[Value]) -> nn.Module:
        low = self.lowering

        def inside(thing: Any) -> bool:
            return thing.recipe is not None and (thing.level, id(thing.clock)) == key

        body = low.weights.body(inside)
        # Rows and lengths are read off an input, so these stand first.
        for thing in low.alignment.recorded:
            if thing in self.needed and (thing.level, id(thing.clock)) == key:
                for inner in _inputs_of(thing.recipe):
                    if isinstance(inner, Value) and not inside(inner):
                        body.input(inner)
        streamed = len(body.inputs)
        module = body.finish(outputs)
        assert streamed > 0
        sources = [self.slot(thing) for thing in body.inputs]
        return SegmentNode(module, sources, streamed, [self.slot(value) for value in outputs])

    def _call(self, call: Call) -> nn.Module:
        sources = [self.slot(value) for value in call.sources]
        targets = [self.slot(value) for value in call.targets]
        if isinstance(call, RelationCall):
            module: nn.Module = call.module(sources, targets[0], self.slot)
            return module
        layouts = [value.layout() for value in call.sources]
        if isinstance(call, AlignCall):
            return AlignNode(sources, targets, layouts)
        if isinstance(call, SumCall):
            return SumNode(sources, targets[0])
        if isinstance(call, SettleCall):
            return SettleNode(sources[0], targets[0], layouts[0], call.lead, call.table, call.value)
        if isinstance(call, EdgeCall):
            return EdgeNode(sources, targets[0], layouts[0], layouts[1], call.last, call.repeats)
        assert isinstance(call, StreamCall)
        if isinstance(call, StartedCall):
            starts = [self.slot(static) for static in call.statics]
            return StartedNode(call.stream, sources[0], targets[0], starts, call.start)
        if call.packed:
            around = [None if layout.plain else layout for layout in (layouts[0], call.targets[0].layout())]
            return StreamNode(call.stream, sources[0], targets[0], *around)
        source = call.sources[0]
        fold = int(source.shape[0]) if source.rows is None else source.inner
        if fold > 1 or source.rows is None:
            for module in call.stream.modules():
                if isinstance(module, Memory):
                    module.fold = fold
        return StreamNode(call.stream, sources[0], targets[0], None, None)

    def _release(self) -> None:
        """Let every value go after its last use."""
        kept = {self.slots[value] for value in self.outputs}
        kept.update(self.slots[thing] for thing in self.lowering.inputs if isinstance(thing, Static))
        nodes: List[Any] = self.nodes
        slots = []
        for node in nodes:
            if isinstance(node, RelationNode):
                slots.append(node.slots())
                continue
            sources = node.sources if hasattr(node, "sources") else [node.source]
            slots.append([*sources, *(node.targets if hasattr(node, "targets") else [node.target])])
        for node, free in zip(nodes, spent(slots, kept), strict=True):
            node.spent = free


def _inputs_of(recipe: Any) -> List[Any]:
    """Everything that a recipe needs."""
    if recipe is None:
        return []
    found: List[Any] = []
    for thing in things_in([recipe.args, recipe.kwargs]):
        if isinstance(thing, Span):
            found.append(thing.value)
        elif isinstance(thing, (Value, Group, Static)):
            found.append(thing)
    return found
