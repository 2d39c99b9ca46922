"""Rules for what a model writes into a part of a value, as in `y[..., ::2] = x` and `y[..., 1:] += x[..., :-1]`.

The exporter records such a write as a value with a part of it replaced, `slice_scatter`. Here it is a choice by
position: what is written where the part is, and what was there before elsewhere.
"""

from typing import Any, Dict, List, Optional, Sequence

import torch
from torch import fx, nn

from ..layers.padding import Pad1dStream
from ..layers.upsampling import UpsampleStream
from .lengths import Lengthened
from .lowering import Lowering, rule
from .masks import Board
from .ops.edges import CropStream
from .refusals import operation_name
from .rules_length import constant, held, position, settle
from .samplewise import is_pointwise
from .values import AtEnd, EndSamples, Replay, Rows, Span, Spread, Static, Value

__all__ = ["written"]

_SIGNALS = (Value, Spread, Board, EndSamples)
_FILLS = frozenset(["fill", "zero"])
_MOVES = frozenset(["slice", "select"])
_LAST = (1 << 63) - 1


@rule("copy", takes=None)
def copy(low: Lowering, node: fx.Node, x: Any, a: Dict[str, Any]) -> Any:
    # Of what is written over only shape and dtype count.
    return a["src"] if isinstance(a["src"], _SIGNALS) and _as_given(node, 1) else NotImplemented


def _as_given(node: fx.Node, at: int) -> bool:
    """Whether a node gives a tensor like one that it takes."""
    given: Any = node.args[at]
    one, other = given.meta["val"], node.meta["val"]
    return str(one.shape) == str(other.shape) and one.dtype == other.dtype


def written(low: Lowering, node: fx.Node, args: Sequence[Any]) -> Any:
    """What stands for a value in which a part along time is written; ``NotImplemented`` if the part is not along time,
    or if what is written has no stream."""
    whole, part = args[0], args[1]
    if isinstance(part, _SIGNALS) and _as_given(node, 1) and _every(low, node):
        return part
    if not isinstance(whole, (Value, Spread, Board)) or not isinstance(part, (Value, Spread, Board, AtEnd, Static)):
        return NotImplemented
    shape = node.meta["val"].shape
    times = [axis for axis, size in enumerate(shape) if low.sizes.varies(size)]
    dim = int(_given(low, node, "dim", 0)) % len(shape)
    if len(times) != 1:
        return NotImplemented
    if dim != times[0]:
        return NotImplemented
    return _Write(low, node, dim).value(whole, part)


def _every(low: Lowering, node: fx.Node) -> bool:
    """Whether a part that is as large as the whole is the whole."""
    return operation_name(node) == "slice_scatter" and _given(low, node, "step", 1) == 1


def _given(low: Lowering, node: fx.Node, name: str, default: Any) -> Any:
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    at = names.index(name) if name in names else len(node.args)
    found = node.args[at] if at < len(node.args) else node.kwargs.get(name, default)
    return default if found is None else low.resolve(found)


def _place(low: Lowering, node: fx.Node) -> List[Any]:
    """Where a part begins and ends, and its step."""
    if operation_name(node).startswith("select"):
        index = _given(low, node, "index", 0)
        return [index, index + 1 if index != -1 else _LAST, 1]
    return [_given(low, node, name, default) for name, default in (("start", 0), ("end", _LAST), ("step", 1))]


class _Write:
    # One write along time.
    def __init__(self, low: Lowering, node: fx.Node, dim: int) -> None:
        self.low, self.node, self.dim = low, node, dim
        self.size = node.meta["val"].shape[dim]
        self.length = low.sizes.function(self.size, 1)
        self.selects = operation_name(node) == "select_scatter"
        self.place = _place(low, node)
        self.begin, self.stop = (position(low, at, self.length) for at in self.place[:2])

    def value(self, whole: Any, part: Any) -> Any:
        source = self._source(part)
        if source is None:
            return NotImplemented
        if isinstance(whole, (Spread, Board)):
            whole = self._bound(whole, source)
        if not isinstance(whole, Value) or whole.merged:
            return NotImplemented
        mask = self._mask(whole)
        if mask is None:
            return NotImplemented
        aten = torch.ops.aten
        if isinstance(source, (int, float, bool)):
            return self._pointwise(aten.masked_fill.Scalar, [whole, mask, source])
        if isinstance(source, Static) and source.node.meta["val"].dtype != whole.dtype:
            return NotImplemented
        return self._pointwise(aten.where.self, [mask, source, whole])

    def _pointwise(self, target: Any, args: List[Any]) -> Any:
        twin = fx.Graph().call_function(target, ())
        twin.meta = self.node.meta
        return self.low.samplewise(twin, args, {})

    def _bound(self, whole: Any, source: Any) -> Value:
        low = self.low
        if isinstance(whole, Spread) and isinstance(source, Value) and not source.lifted:
            if (source.rows is None) == (not any(low.sizes.has_rows(size) for size in whole.shape)):
                return low.positions.bind(whole, source)
        return low.carriers.carried(whole)

    # ------------------------------------------------------------------ what is written

    def _source(self, part: Any) -> Any:
        """A number, a constant, or a value as long as the whole, which counts where the part is."""
        found = self._unsliced(self.node.args[1])
        if found is not None:
            return found
        if isinstance(part, (Spread, Board)):
            part = self.low.carriers.carried(part)
        return self._spread_out(part) if isinstance(part, Value) and not self.selects else None

    def _unsliced(self, node: Any) -> Any:
        """What a part is made of, for all samples: where nothing but operations on single samples stand between."""
        low = self.low
        if not isinstance(node, fx.Node):
            return node if isinstance(node, (int, float, bool)) else None
        known, name = low.known(node), operation_name(node)
        if isinstance(known, Static) and not known.given:
            return self._constant(known)
        if node.op != "call_function":
            return None
        if name in _FILLS:
            filled = 0 if name == "zero" else node.args[1]
            return self._unsliced(filled)
        if name in _MOVES:
            return self._moved(node)
        if name == "copy":
            return self._unsliced(node.args[1])
        if not is_pointwise(node) and name != "clone":
            return None
        args = [self._unsliced(arg) if isinstance(arg, fx.Node) else low.resolve(arg) for arg in node.args]
        if any(found is None and given is not None for found, given in zip(args, node.args, strict=True)):
            return None
        if name == "clone":
            return args[0]
        values = [arg for arg in args if isinstance(arg, Value)]
        if not values or node.kwargs:
            return None
        twin = fx.Graph().call_function(node.target, ())  # type: ignore[arg-type]
        was = node.meta["val"]
        with was.fake_mode:
            meta = self.node.meta["val"].new_empty(values[0].node.meta["val"].shape, dtype=was.dtype)
        twin.meta = {**node.meta, "val": meta}
        return low.samplewise(twin, args, {})

    def _constant(self, known: Static) -> Any:
        shape = known.node.meta["val"].shape
        if len(shape) == 0 and not known.weights and not known.sized:
            return self.low.weights.tensor(known).item()
        at = len(self.node.meta["val"].shape) - self.dim
        once = len(shape) < at or shape[-at] == 1
        return known if len(shape) == 0 or (not self.selects and once) else None

    def _moved(self, node: fx.Node) -> Optional[Value]:
        # The part that this one is of another value: that value, moved to where it is written.
        low, source = self.low, node.args[0]
        assert isinstance(source, fx.Node)
        other = source.meta["val"]
        if (operation_name(node) == "select") != self.selects or other.dim() != len(self.node.meta["val"].shape):
            return None
        if int(_given(low, node, "dim", 0)) % other.dim() != self.dim or not low.sizes.varies(other.shape[self.dim]):
            return None
        length = low.sizes.function(other.shape[self.dim], 1)
        place = _place(low, node)
        from_start = low.constant_difference(self.begin, position(low, place[0], length))
        right = low.constant_difference(self.length, length)
        if from_start is None or right is None or place[2] != self.place[2]:
            return None
        found = low.known(source)
        if isinstance(found, (Spread, Board)):
            found = low.carriers.carried(found)
        if not isinstance(found, Value) or found.merged:
            return None
        if from_start == right == 0:
            return found
        return self._resized(self._shifted(found, from_start, right - from_start))

    def _shifted(self, x: Value, left: int, right: int, value: float = 0.0) -> Value:
        # Padded or cropped; signals that are shorter than what is cropped give as many samples as others.
        low, node, grown = self.low, self.node, Lengthened(x.length, left + right)
        if left < 0 < right:
            more = low.derived(node, x, Pad1dStream(0, right, "constant", value), Lengthened(x.length, right))
            return low.derived(node, more, CropStream(-left, 0, 0), grown)
        shortest = 1 if left > 0 > right and left + right >= 0 else None
        return low.derived(node, x, Pad1dStream(left, right, "constant", value, shortest), grown)

    def _resized(self, y: Value) -> Value:
        shape = tuple(self.size if axis == y.time else size for axis, size in enumerate(y.shape))
        return self.low.step(self.node, y, Replay("reshape", (y, _sizes(y))), shape=shape)

    def _spread_out(self, part: Value) -> Optional[Value]:
        """A part, each sample where it is written, in a value as long as the whole."""
        low, step = self.low, int(self.place[2])
        left = constant(low, self.begin)
        if left is None or part.time != self.dim or part.merged:
            return None
        x, own = part, part.length
        if step > 1:
            x = low.derived(
                self.node, x, UpsampleStream(nn.Upsample(scale_factor=float(step))), lambda n: own(n) * step
            )
        if left > 0:
            x = low.derived(self.node, x, Pad1dStream(left, 0), Lengthened(x.length, left))
        right = low.constant_difference(self.length, x.length)
        if right == 0:
            y = x
        elif right is None:
            y = settle(low, self.node, x, 0, self.length)
        elif right > 0:
            y = low.derived(self.node, x, Pad1dStream(0, right), self.length)
        else:
            hold = held(low, x, 0, -right, self.length)
            y = low.derived(self.node, x, CropStream(0, -right, hold), self.length)
        return y if y is part else self._resized(y)

    # ------------------------------------------------------------------ where

    def _mask(self, whole: Value) -> Optional[Value]:
        """Whether each sample is in the part, as a value of every row."""
        low, node, aten = self.low, self.node, torch.ops.aten
        place = Spread(node, (self.size,), torch.int64, 0, self.length, None, 0, 1)
        at = low.positions.bind(place, whole)
        step, from_start = int(self.place[2]), constant(low, self.begin)
        to_end = low.constant_difference(self.length, self.stop)
        until = constant(low, self.stop)
        from_end = low.constant_difference(self.length, self.begin)

        def test(x: Value, target: Any, number: int) -> Value:
            return low.step(node, x, Replay(target, (x, number)), dtype=torch.bool)

        def both(one: Optional[Value], other: Value) -> Value:
            if one is None:
                return other
            one, other = low.alignment.align(node, [one, other])
            return low.step(node, other, Replay(aten.logical_and.default, (one, other)), dtype=torch.bool,
                            level=max(one.level, other.level))  # fmt: skip

        found: Optional[Value] = None
        if from_start is not None:
            if from_start > 0 or step == 1:
                found = test(at, aten.ge.Scalar, from_start)
            if step > 1:
                shifted = low.step(node, at, Replay(aten.sub.Scalar, (at, from_start)))
                rest = low.step(node, at, Replay(aten.remainder.Scalar, (shifted, step)))
                found = both(found, test(rest, aten.eq.Scalar, 0))
        elif from_end is None or step > 1:
            return None
        if to_end is None:
            if until is None or from_start is None:
                return None
            return self._shaped(both(found, test(at, aten.lt.Scalar, until)), whole)
        if to_end > 0 or from_start is None:
            found = both(
                found, test(self._near_end(at, from_end if from_start is None else None, to_end), aten.ne.Scalar, 0)
            )
        assert found is not None
        return self._shaped(found, whole)

    def _near_end(self, at: Value, count: Optional[int], right: int) -> Value:
        # 1 in the part, 0 elsewhere, where the part begins or ends so many samples before the end.
        low, node = self.low, self.node
        number, last = (0, count) if count is not None else (1, right)
        target = torch.ops.aten.zeros_like.default if number == 0 else torch.ops.aten.ones_like.default
        x = low.step(node, at, Replay(target, (at,)))
        if count is not None:
            x = low.derived(node, x, Pad1dStream(0, last - right, "constant", 1.0), Lengthened(x.length, last - right))
        if right > 0:
            x = low.derived(node, x, Pad1dStream(0, right), Lengthened(x.length, right))
        return low.derived(node, x, CropStream(last, 0, 0), self.length)

    def _shaped(self, mask: Value, whole: Value) -> Value:
        after = len(whole.shape) - 1 - whole.time
        if after == 0:
            return mask
        shape = (self.size, *[1] * after)
        recipe = Replay("reshape", (mask, [Rows(1), Span(mask), *[1] * after]))
        return self.low.step(self.node, mask, recipe, shape=shape)


def _sizes(value: Value) -> List[Any]:
    # The sizes of a value as it is.
    own: List[Any] = [
        Span(value)
        if axis == value.time
        else Rows(value.inner)
        if axis == value.rows and not value.lifted
        else int(size)
        for axis, size in enumerate(value.shape)
    ]
    return [Rows(1), *own] if value.lifted else own
