"""From what the lowering found to the parts of a stream, in an order in which every part follows what it needs."""

import math
from typing import Any, Dict, List, Sequence, Set, Tuple

from torch import nn

from ..core.memory import Memory
from .body import Body
from .fusing import fuse_sums
from .layout_of import layout_of
from .lowering import Lowering
from .nodes import AlignNode, EdgeNode, SegmentNode, SettleNode, StreamNode, SumNode
from .values import AlignCall, EdgeCall, Group, SettleCall, Span, Static, StreamCall, SumCall, Value, things_in

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
        self.nodes = self._build()
        self._release()

    def slot(self, thing: Any) -> int:
        """The place of a value."""
        return self.slots.setdefault(thing, len(self.slots))

    def hop(self) -> int:
        """Input period after which all states repeat."""
        clocks = [call.target.clock for call in self.lowering.calls if call in self.needed and hasattr(call, "target")]
        clocks += [
            call.targets[0].clock for call in self.lowering.calls if isinstance(call, AlignCall) and call in self.needed
        ]
        return math.lcm(self.lowering.capture.multiple, *(clock.hop for clock in clocks), 1)

    # ------------------------------------------------------------------ what is needed

    def _needed(self) -> Set[Any]:
        """The values, groups and calls that the outputs depend on."""
        made: Dict[Any, Any] = {}
        for call in self.lowering.calls:
            for target in call.targets if isinstance(call, AlignCall) else [call.target]:
                made[target] = call
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
            elif isinstance(thing, (AlignCall, SumCall)):
                waiting += _sources(thing)
            elif isinstance(thing, (StreamCall, SettleCall, EdgeCall)):
                waiting += _sources(thing)
        return found

    # ------------------------------------------------------------------ building

    def _build(self) -> List[nn.Module]:
        segments: Dict[_Key, List[Any]] = {}
        for thing in self.lowering.recorded:
            if thing in self.needed:
                segments.setdefault((thing.level, id(thing.clock)), []).append(thing)
        calls = [call for call in self.lowering.calls if call in self.needed]
        outside = self._used_outside(segments, calls)
        parts: List[Tuple[int, int, nn.Module]] = []
        for key, things in segments.items():
            outputs = [thing for thing in things if thing in outside]
            if outputs:
                parts.append((key[0], 0, self._segment(key, outputs)))
        for call in calls:
            level = max(value.level for value in _sources(call))
            parts.append((level, 1, self._call(call)))
        parts.sort(key=lambda part: part[:2])
        return [module for _, _, module in parts]

    def _used_outside(self, segments: Dict[_Key, List[Any]], calls: Sequence[Any]) -> Set[Any]:
        """Values computed in a segment that something else needs."""
        used: Set[Any] = set(self.outputs)
        for call in calls:
            used.update(_sources(call))
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

        body = Body(low.tensor_of, low.kept, inside)
        # Rows and lengths are read off an input, so these stand first.
        for thing in low.recorded:
            if thing in self.needed and (thing.level, id(thing.clock)) == key:
                for inner in _inputs_of(thing.recipe):
                    if isinstance(inner, Value) and not inside(inner):
                        body.input(inner)
        streamed = len(body.inputs)
        module = body.finish(outputs)
        assert streamed > 0
        sources = [self.slot(thing) for thing in body.inputs]
        return SegmentNode(module, sources, streamed, [self.slot(value) for value in outputs])

    def _call(self, call: Any) -> nn.Module:
        if isinstance(call, AlignCall):
            layouts = [layout_of(value) for value in call.sources]
            return AlignNode([self.slot(v) for v in call.sources], [self.slot(v) for v in call.targets], layouts)
        if isinstance(call, SumCall):
            return SumNode([self.slot(value) for value in call.sources], self.slot(call.target))
        source, target = self.slot(call.source), self.slot(call.target)
        if isinstance(call, SettleCall):
            return SettleNode(source, target, layout_of(call.source), call.lead, call.table, call.value)
        before, behind = layout_of(call.source), layout_of(call.target)
        if isinstance(call, EdgeCall):
            return EdgeNode(
                [source, self.slot(call.edge)], target, before, layout_of(call.edge), call.last, call.repeats
            )
        if not call.packed:
            if call.source.inner > 1 or call.source.rows is None:
                fold = call.source.inner if call.source.rows is not None else int(call.source.shape[0])
                for module in call.stream.modules():
                    if isinstance(module, Memory):
                        module.fold = fold
            return StreamNode(call.stream, source, target, None, None)
        return StreamNode(
            call.stream, source, target, None if before.plain else before, None if behind.plain else behind
        )

    def _release(self) -> None:
        """Let every value go behind its last use."""
        kept = {self.slots[value] for value in self.outputs}
        kept.update(self.slots[thing] for thing in self.lowering.inputs if isinstance(thing, Static))
        seen: Set[int] = set(kept)
        for part in reversed(self.nodes):
            node: Any = part
            sources = node.sources if hasattr(node, "sources") else [node.source]
            targets = node.targets if hasattr(node, "targets") else [node.target]
            for i in [*sources, *targets]:
                if i not in seen:
                    seen.add(i)
                    node.spent.append(i)


def _sources(call: Any) -> List[Value]:
    """The values that a call reads."""
    if isinstance(call, (AlignCall, SumCall)):
        return list(call.sources)
    return [call.source, call.edge] if isinstance(call, EdgeCall) else [call.source]


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
