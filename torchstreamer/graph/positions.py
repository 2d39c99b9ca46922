"""Tensors with a time axis that depend on no signal: constants as long as it is, and positions."""

from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from torch import fx

from .clocks import is_pointwise
from .ops.running import PositionStream
from .placing import Placing
from .reasons import REASONS, reason_for
from .values import (
    Clock,
    Replay,
    Rows,
    Span,
    Spread,
    Static,
    StreamCall,
    Value,
    things_in,
)

__all__ = ["Spreading", "place"]

# What makes tensors out of nothing but sizes.
_CONSTRUCTORS = frozenset(["expand", "repeat", "zeros", "ones", "full", "new_zeros", "new_ones", "new_full", "empty"])


class Spreading(Placing):
    """Binds values that are the same at all times, and positions, to what they are used with."""

    def samplewise(self, node: fx.Node, args: Sequence[Any], kwargs: Dict[str, Any]) -> Any:
        """Record an operation that treats every sample alone; see `Lowering`."""
        raise NotImplementedError

    def apply_rule(self, node: fx.Node, args: Sequence[Any], kwargs: Dict[str, Any]) -> Any:
        """What the rule of an operation makes of its arguments; `NotImplemented` if it has none; see `Lowering`."""
        raise NotImplementedError

    def _spread(
        self, node: fx.Node, name: str, args: Sequence[Any], kwargs: Dict[str, Any], bound: Dict[str, Any]
    ) -> Spread:
        meta = node.meta["val"]
        axes = [axis for axis, size in enumerate(meta.shape) if self.sizes.varies(size)]
        if name == "arange" and axes == [0]:
            start = bound.get("start", 0) or 0
            step = 1 if bound.get("step") is None else bound["step"]
            if isinstance(start, (int, float)) and isinstance(step, (int, float)):
                length = self.sizes.function(meta.shape[0])
                return Spread(node, tuple(meta.shape), meta.dtype, 0, length, None, start, step)
        if len(axes) != 1 or name not in _CONSTRUCTORS:
            raise self.refuse(node, "total_length", *REASONS["length"])
        axis = axes[0]
        length = self.sizes.function(meta.shape[axis])
        key = next(key for key in ("size", "sizes", "repeats") if key in bound)
        shift = len(bound[key]) - len(meta.shape)
        size = [None if i - shift == axis else item for i, item in enumerate(bound[key])]
        if any(isinstance(item, torch.SymInt) for item in size):
            raise self.refuse(node, "total_length", *REASONS["length"])
        static = next((bound[key] for key in ("self",) if isinstance(bound.get(key), Static)), None)
        if static is not None and name in ("expand", "repeat"):
            before = tuple(static.node.meta["val"].shape)
            at = axis - (len(meta.shape) - len(before))
            if at >= 0 and before[at] != 1:
                raise self.refuse(
                    node, "total_length", "it repeats a constant as often as the length says", "expand it"
                )
        places = list(args)
        position = list(bound).index(key)
        places[position] = size
        return Spread(
            node, tuple(meta.shape), meta.dtype, axis, length, Replay(node.target, tuple(places), dict(kwargs))
        )

    def _spread_of_spreads(
        self, node: fx.Node, args: Sequence[Any], kwargs: Dict[str, Any], spreads: List[Spread]
    ) -> Spread:
        meta = node.meta["val"]
        axes = [axis for axis, size in enumerate(meta.shape) if self.sizes.varies(size)]
        if len(axes) != 1:
            raise self.refuse(node, "time_mixing", *reason_for(self.name(node)))
        length = self.sizes.function(meta.shape[axes[0]])
        recipe = Replay(node.target, tuple(args), dict(kwargs))
        return Spread(node, tuple(meta.shape), meta.dtype, axes[0], length, recipe)

    def _any_value(self, spread: Spread) -> Value:
        for value in [*self.inputs, *self.recorded, *(call.target for call in self.calls if hasattr(call, "target"))]:
            if isinstance(value, Value) and self.same_length(value.length, spread.length):
                return value
        raise self.refuse(spread.node, "total_length", *REASONS["length"])

    def bind(self, spread: Spread, reference: Value) -> Value:
        """A value without a clock, on the clock of another of the same length."""
        assert reference.clock is not None
        if reference.clock in spread.bound:
            return spread.bound[reference.clock]
        if not self.same_length(spread.length, reference.length):
            raise self.refuse(
                spread.node,
                "total_length",
                "its length is not that of what it is used with",
                "take both from one shape",
            )
        if spread.recipe is None:
            value = self._positions(spread, reference)
        elif any(isinstance(thing, Spread) for thing in things_in([spread.recipe.args, spread.recipe.kwargs])):
            value = self._bind_operation(spread, reference)
        else:
            recipe = Replay(spread.recipe.target, _spanned(spread.recipe.args, reference), spread.recipe.kwargs)
            meta = spread.node.meta["val"]
            found = (
                self.value(spread.node, meta, reference.clock, reference.level, recipe) if self._rowed(meta) else None
            )
            if found is None:
                found = Value(
                    spread.node, spread.shape, spread.dtype, spread.time, None, 1, spread.length, reference.clock,
                    reference.level, recipe,
                )  # fmt: skip
            value = found
            self.recorded.append(value)
        spread.bound[reference.clock] = value
        return value

    def _rowed(self, meta: Any) -> bool:
        return any(self.sizes.has_rows(size) for size in meta.shape)

    def _bind_operation(self, spread: Spread, reference: Value) -> Value:
        recipe = spread.recipe
        assert recipe is not None
        inner = [thing for thing in things_in([recipe.args, recipe.kwargs]) if isinstance(thing, Spread)]
        placed: Dict[Any, Any] = {thing: self.bind(thing, reference) for thing in inner}
        if any(value.lifted for value in placed.values()) and not is_pointwise(spread.node):
            found = self.apply_rule(spread.node, place(recipe.args, placed), place(recipe.kwargs, placed))
            if isinstance(found, Value):
                return found
        found = self.samplewise(spread.node, place(recipe.args, placed), place(recipe.kwargs, placed))
        assert isinstance(found, Value)
        return found

    # ------------------------------------------------------------------ positions

    def _positions(self, spread: Spread, reference: Value) -> Value:
        assert reference.clock is not None
        stream = PositionStream(spread.first, spread.step, spread.dtype)
        value = Value(
            spread.node, spread.shape, spread.dtype, 0, 0, 1, spread.length, reference.clock, reference.level + 1,
            fresh=True, lifted=True,
        )  # fmt: skip
        self.calls.append(StreamCall(spread.node, stream, reference, value, True))
        return value

    def lifted_value(self, node: fx.Node, meta: Any, clock: Optional[Clock], level: int, recipe: Replay) -> Value:
        """A value computed from positions alone, with an axis of rows in front."""
        shape = tuple(self.sizes.settled(size) for size in meta.shape)
        axis = next(axis for axis, size in enumerate(shape) if self.sizes.varies(size))
        length = self.sizes.function(shape[axis])
        return Value(node, shape, meta.dtype, axis, 0, 1, length, clock, level, recipe, lifted=True)

    def _shift_dim(self, node: fx.Node, recipe: Replay, values: Sequence[Value]) -> Replay:
        """An operation on positions alone, along an axis: behind the axis of rows in front its number is one more."""
        names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
        at = names.index("dim") if "dim" in names else -1
        if at < 0 or not all(value.lifted for value in values):
            raise self.refuse(node, "position", *REASONS["arange"])
        args = list(recipe.args)
        dim = args[at] if at < len(args) else recipe.kwargs.get("dim", 0)
        if not isinstance(dim, int):
            raise self.refuse(node, "position", *REASONS["arange"])
        dim = dim if dim < 0 else dim + 1
        if at < len(args):
            args[at] = dim
            return Replay(recipe.target, tuple(args), recipe.kwargs)
        return Replay(recipe.target, recipe.args, {**recipe.kwargs, "dim": dim})

    def _lower_lifted(self, node: fx.Node, recipe: Replay, values: Sequence[Value]) -> Replay:
        """Give positions, which have an axis of rows in front, the rank of the result."""
        rank = len(node.meta["val"].shape)
        plain = [value for value in values if not value.lifted]
        placed: Dict[Any, Any] = {}
        for value in values:
            if not value.lifted:
                if value.rows != 0 or len(value.shape) != rank or value.inner != 1:
                    raise self.refuse(node, "position", *REASONS["arange"])
                continue
            own = [Span(value) if axis == value.time else int(size) for axis, size in enumerate(value.shape)]
            front = rank - len(own)
            if plain:
                if front == 0:
                    if own[0] != 1:
                        raise self.refuse(node, "position", *REASONS["arange"])
                    own = own[1:]
                    front = 1
                shape = [Rows(1), *[1] * (front - 1), *own]
            else:
                shape = [Rows(1), *[1] * front, *own]
            placed[value] = self.step(value.node, value, Replay("reshape", (value, shape)))
        return Replay(recipe.target, place(recipe.args, placed), place(recipe.kwargs, placed))


def place(argument: Any, placed: Dict[Any, Any]) -> Any:
    """An argument with values replaced."""
    if isinstance(argument, tuple):
        return tuple(place(item, placed) for item in argument)
    if isinstance(argument, list):
        return [place(item, placed) for item in argument]
    if isinstance(argument, dict):
        return {key: place(item, placed) for key, item in argument.items()}
    if isinstance(argument, (Value, Spread)):
        return placed.get(argument, argument)
    return argument


def _spanned(args: Tuple[Any, ...], reference: Value) -> Tuple[Any, ...]:
    """Arguments of a constructor whose size along time, which stands as ``None``, is that of a value."""

    def fill(argument: Any) -> Any:
        if isinstance(argument, list):
            return [Span(reference) if item is None else item for item in argument]
        return argument

    return tuple(fill(argument) for argument in args)
