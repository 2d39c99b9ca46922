"""Proves of rows that depend on no signal that they stand for distances, from the operations that make them."""

from fractions import Fraction
from typing import Any, Dict, List, Optional, Tuple

import torch
from torch import Tensor, fx

from .lengths import line_of
from .mask_arithmetic import MaskError
from .mask_numbers import Line, Number
from .mask_tables import arguments_of
from .masks import Masks
from .refusals import operation_name
from .samplewise import is_pointwise, is_samplewise
from .values import Replay, Value

__all__ = ["CODE", "VIEWS", "Sliding", "entries"]

CODE = "relative_positions"
VIEWS = frozenset(["view", "_unsafe_view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "expand"])


class Sliding:
    """Proves that rows of a tensor depend on how far they stand from a place that moves with the length.

    Args:
        masks: knows numbers and tables
        length: of the signal of queries and keys, as a size

    Attributes:
        limit: the longest signal, if a table ends
    """

    def __init__(self, masks: Masks, length: Any) -> None:
        self.masks = masks
        self.sizes = masks.sizes
        self.length = length
        self.limit: Optional[int] = None
        self._known: Dict[fx.Node, Optional[Tuple[int, Fraction]]] = {}

    def of(self, node: fx.Node) -> Optional[Tuple[int, Fraction]]:
        """The axis that varies, counted from the last, and ``a``, if row ``s`` depends on ``s - a · T`` alone.

        ``None`` if no axis varies.

        Raises:
            MaskError: that is not proved
        """
        if node not in self._known:
            self._known[node] = self._prove(node)
        return self._known[node]

    def _prove(self, node: fx.Node) -> Optional[Tuple[int, Fraction]]:
        shape = node.meta["val"].shape
        axes = [axis - len(shape) for axis, size in enumerate(shape) if self.sizes.varies(size)]
        if not axes:
            return None
        if len(axes) > 1:
            raise self._refused(node, "it has two axes of time")
        found = self._counted(node, axes[0])
        slope = found if found is not None else self._slope(node, operation_name(node), axes[0])
        return axes[0], slope

    def _refused(self, node: fx.Node, reason: str = "") -> MaskError:
        reason = reason or f"'{operation_name(node)}' has no rule here"
        return MaskError(CODE, f"its rows are not proved to stand for distances: {reason}", node)

    def line(self, size: Any) -> Line:
        """A size as a line of the length."""
        if isinstance(size, fx.Node):
            size = size.meta["val"]
        if isinstance(size, int):
            return Line(Fraction(0), Fraction(size))
        samples = self.sizes.samples[: len(self.sizes.samples)]
        of, whole = self.sizes.function(size, 1), self.sizes.function(self.length, 1)
        one, other = line_of(of), line_of(whole)
        for slope in (0, 1, 2, -1, -2):
            found = {of(n) - slope * whole(n) for n in samples if whole(n) > 0}
            sound = one is None or other is None or one.rise * other.period == slope * other.rise * one.period
            if len(found) == 1 and sound:
                return Line(Fraction(slope), Fraction(found.pop()))
        raise MaskError(CODE, "a size is no line of the length of the signal", None)

    def _counted(self, node: fx.Node, axis: int) -> Optional[Fraction]:
        try:
            x = self.masks.number(node, self.length)
        except MaskError:
            return None
        fixed = isinstance(x, Number) and all(bound is None or bound.slope == 0 for bound in (x.cap, x.floor))
        if not fixed or set(x.rises) != {axis} or x.low != x.high:
            return None
        return -Fraction(x.grow) / x.rises[axis]

    def _slope(self, node: fx.Node, name: str, axis: int) -> Fraction:
        a = arguments_of(node)
        first: Any = next(iter(a.values()), None)
        if name == "arange":
            begin, step = self.line(a.get("start") or 0), Fraction(a.get("step") or 1)
            return -begin.slope / step
        if name in ("clone", "alias", "detach", "lift_fresh_copy", "contiguous", "_to_copy", "to", "dropout"):
            return self._one(first, axis)
        if name in VIEWS:
            return self._viewed(node, first, axis)
        if name in ("slice", "narrow"):
            return self._cut(node, a, axis)
        if name == "flip":
            return self._flipped(node, a, axis)
        if name == "cat":
            return self._joined(node, a, axis)
        if name in ("embedding", "index", "index_select"):
            return self._looked_up(node, name, a, axis)
        return self._samplewise(node, axis)

    def _one(self, source: Any, axis: int) -> Fraction:
        found = self.of(source)
        if found is None or found[0] != axis:
            raise self._refused(source, "it is spread along time")
        return found[1]

    def _viewed(self, node: fx.Node, source: fx.Node, axis: int) -> Fraction:
        found = self.of(source)
        if found is None:
            raise self._refused(node, "it is spread along time")
        before, after = source.meta["val"].shape, node.meta["val"].shape
        at = found[0]
        n = self.masks.signal(self.length, 3, None)
        inner = [entries(self.sizes.at(s, n, 1) for s in x[k + 1 :]) for x, k in ((before, at % len(before)),)]
        behind = [*inner, entries(self.sizes.at(s, n, 1) for s in after[axis % len(after) + 1 :])]
        if self.line(before[at]) != self.line(after[axis]) or behind[0] != behind[1]:
            raise self._refused(node, "it lays the rows out anew")
        return found[1]

    def _cut(self, node: fx.Node, a: Dict[str, Any], axis: int) -> Fraction:
        source = next(iter(a.values()))
        before = source.meta["val"].shape
        at = int(a.get("dim") or 0) % len(before) - len(before)
        found = self.of(source)
        if at != axis:
            return self._one(source, axis)
        start = a.get("start")
        begin = self.line(0 if start is None else start)
        whole = self.line(before[at])
        if begin.slope == 0 and begin.offset < 0:
            begin = begin + whole
        if a.get("step", 1) not in (1, None):
            raise self._refused(node, "it takes every other row")
        if found is None:
            length = self.line(node.meta["val"].shape[axis])
            self._require_inside(begin, begin + length, int(before[at]))
            return -begin.slope
        return found[1] - begin.slope

    def _require_inside(self, start: Line, end: Line, size: int) -> None:
        # start >= 0 and end <= size, up to which length
        for rest in (start, Line(-end.slope, size - end.offset)):
            if rest.slope < 0:
                longest = int(rest.offset / -rest.slope)
                self.limit = longest if self.limit is None else min(self.limit, longest)
            elif rest.offset < 0:
                raise MaskError(CODE, "it cuts rows from a table at a place that is not in it", None)

    def _flipped(self, node: fx.Node, a: Dict[str, Any], axis: int) -> Fraction:
        source = next(iter(a.values()))
        slope, rank = self._one(source, axis), len(node.meta["val"].shape)
        if axis + rank not in [dim % rank for dim in a["dims"]]:
            return slope
        return self.line(source.meta["val"].shape[axis]).slope - slope

    def _joined(self, node: fx.Node, a: Dict[str, Any], axis: int) -> Fraction:
        rank = len(node.meta["val"].shape)
        parts = next(iter(a.values()))
        if int(a.get("dim") or 0) % rank != axis + rank:
            return self._same(node, [self.of(part) for part in parts], axis)
        before, slopes = Line(Fraction(0), Fraction(0)), set()
        for part in parts:
            found = self.of(part)
            if before.slope or before.offset:
                slopes.add(before.slope)
            if found is not None:
                slopes.add(found[1] + before.slope)
            before = before + self.line(part.meta["val"].shape[axis])
        if len(slopes) != 1:
            raise self._refused(node, "it joins rows at a place that is none of theirs")
        return slopes.pop()

    def _same(self, node: fx.Node, found: List[Any], axis: int) -> Fraction:
        known = {each for each in found if each is not None}
        if len(known) != 1 or next(iter(known))[0] != axis:
            raise self._refused(node, "it joins rows that move apart")
        return Fraction(next(iter(known))[1])

    def _looked_up(self, node: fx.Node, name: str, a: Dict[str, Any], axis: int) -> Fraction:
        table = next(iter(a.values()))
        index = a["indices"] if name != "index_select" else a["index"]
        index = [each for each in index if each is not None] if isinstance(index, (list, tuple)) else [index]
        if len(index) != 1 or self.of(table) is not None:
            raise self._refused(node)
        found = self.of(index[0])
        x = self.masks.number(index[0], self.length)
        rank, dim = len(table.meta["val"].shape), 0
        if name != "embedding":
            dim = int(a["dim"]) % rank if name == "index_select" else list(a["indices"]).index(index[0])
        behind = found is not None and found[0] - (rank - 1 - dim) == axis
        many = name != "embedding" and len(index[0].meta["val"].shape) > 1
        if found is None or not behind or many or not isinstance(x, Number):
            raise self._refused(node)
        rise, size = x.rises[found[0]], int(table.meta["val"].shape[dim])
        last = self.line(index[0].meta["val"].shape[found[0]]) + Line(Fraction(0), Fraction(-1))
        ends = [Line(x.grow, x.low), Line(x.grow, x.high) + last.times(rise)]
        low, high = ends if rise > 0 else [ends[1], ends[0]]
        if x.floor is not None and x.floor.slope == 0:
            low = x.floor
        if x.cap is not None and x.cap.slope == 0:
            high = x.cap
        self._require_inside(low, high + Line(Fraction(0), Fraction(1)), size)
        return found[1]

    def _samplewise(self, node: fx.Node, axis: int) -> Fraction:
        sources = [each for each in node.all_input_nodes if isinstance(each.meta.get("val"), Tensor)]
        found = {source: self.of(source) for source in sources}
        moving = {source: known for source, known in found.items() if known is not None}
        if is_pointwise(node) and all(not isinstance(s.meta["val"], torch.SymInt) for s in node.all_input_nodes):
            return self._same(node, list(moving.values()), axis)
        slopes = {known[1] for known in moving.values()}
        values: Dict[fx.Node, Any] = {}
        for source, known in found.items():
            meta = source.meta["val"]
            if known is None:
                values[source] = self.masks.static(source, self.masks.signal(self.length, 3, None))
            else:
                shape = tuple(self.sizes.settled(size) for size in meta.shape)
                time = known[0] % len(shape)
                values[source] = Value(source, shape, meta.dtype, time, None, 1, self._nothing, None, 0)

        def fill(argument: Any) -> Any:
            if isinstance(argument, (list, tuple)):
                return [fill(item) for item in argument]
            if isinstance(argument, fx.Node):
                return values[argument]
            return argument

        try:
            recipe = Replay(
                node.target, tuple(fill(each) for each in node.args), {k: fill(v) for k, v in node.kwargs.items()}
            )
        except KeyError:
            raise self._refused(node) from None
        asked = [value for value in values.values() if isinstance(value, Value)]
        time = axis % len(node.meta["val"].shape)
        if len(slopes) != 1 or not is_samplewise(self.masks.weights, recipe, asked, [time]):
            raise self._refused(node)
        return slopes.pop()

    @staticmethod
    def _nothing(n: int) -> int:
        return n


def entries(sizes: Any) -> int:
    """The product of sizes."""
    found = 1
    for size in sizes:
        found *= size
    return found
