"""Tensors with a time axis that depend on no signal: constants as long as it is, and positions."""

from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import torch
from torch import fx

from .alignment import Alignment
from .clocks import Clocks
from .ops.running import LookedUp, PositionStream
from .reasons import REASONS, reason_for
from .refusals import Refusals, operation_name
from .samplewise import is_pointwise, is_samplewise
from .values import Clock, Replay, Rows, Span, Spread, Static, StreamCall, Value, substituted, things_in
from .weights import Weights

__all__ = ["Positions"]

# What makes tensors out of nothing but sizes.
_CONSTRUCTORS = frozenset(["expand", "repeat", "zeros", "ones", "full", "new_zeros", "new_ones", "new_full", "empty"])

# What only moves axes, or repeats them.
_LAYOUTS = frozenset(
    ["view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "transpose", "permute", "expand", "repeat", "_to_copy"]
)


class Positions:
    """Binds values that are the same at all times, and positions, to what they are used with.

    Args:
        clocks: of the values
        alignment: takes the streams that count
        refuse: makes refusals
        operation: lowers an operation whose arguments have become values
        weights: knows weights and constants
    """

    def __init__(
        self,
        clocks: Clocks,
        alignment: Alignment,
        refuse: Refusals,
        operation: Callable[[fx.Node, Sequence[Any], Dict[str, Any]], Value],
        weights: Weights,
    ) -> None:
        self.weights = weights
        self.clocks = clocks
        self.sizes = clocks.sizes
        self.alignment = alignment
        self.refuse = refuse
        self.operation = operation
        self._places: Dict[Any, Spread] = {}

    # ------------------------------------------------------------------ without a clock

    def made(self, node: fx.Node, args: Sequence[Any], kwargs: Dict[str, Any], bound: Dict[str, Any]) -> Spread:
        """What an operation makes of sizes and constants: a range of numbers, or a constant as long as a size says."""
        meta, name = node.meta["val"], operation_name(node)
        axes = self._axes(meta)
        if name == "slice" and len(axes) == 1 and isinstance(bound.get("self"), Static):
            return self._of_table(node, bound, axes[0])
        if name == "arange" and axes == [0]:
            start = bound.get("start", 0) or 0
            step = 1 if bound.get("step") is None else bound["step"]
            if isinstance(start, (int, float)) and isinstance(step, (int, float)):
                return self._spread(node, None, start, step)
        if len(axes) != 1 or name not in _CONSTRUCTORS:
            raise self.refuse(node, "total_length", *REASONS["length"])
        axis = axes[0]
        key = next(key for key in ("size", "sizes", "repeats") if key in bound)
        shift = len(bound[key]) - len(meta.shape)
        size = [None if i - shift == axis else item for i, item in enumerate(bound[key])]
        if any(isinstance(item, torch.SymInt) for item in size):
            raise self.refuse(node, "total_length", *REASONS["length"])
        static = bound.get("self")
        if isinstance(static, Static) and name in ("expand", "repeat"):
            before = tuple(static.node.meta["val"].shape)
            at = axis - (len(meta.shape) - len(before))
            if at >= 0 and before[at] != 1:
                raise self.refuse(
                    node, "total_length", "it repeats a constant as often as the length says", "expand it"
                )
        places = list(args)
        places[list(bound).index(key)] = size
        return self._spread(node, Replay(node.target, tuple(places), dict(kwargs)))

    def _of_table(self, node: fx.Node, bound: Dict[str, Any], axis: int) -> Spread:
        """The beginning of a table, as long as the signal: its entries at the positions of the samples."""
        meta, rank = node.meta["val"], len(node.meta["val"].shape)
        same = int(bound.get("dim") or 0) % rank == axis and bound.get("step") in (1, None)
        if not same or bound.get("start") not in (0, None) or bound["self"].given:
            raise self.refuse(node, "total_length", *REASONS["length"])
        size = meta.shape[axis]
        place = Spread(node, (size,), torch.int64, 0, self.sizes.function(size, 1), None, 0, 1)
        place = self._places.setdefault(size.node.expr, place)
        return self._spread(node, Replay(LookedUp(axis), (bound["self"], place)))

    def of_spreads(self, node: fx.Node, args: Sequence[Any], kwargs: Dict[str, Any]) -> Spread:
        """What an operation makes of nothing but such tensors."""
        if len(self._axes(node.meta["val"])) != 1:
            raise self.refuse(node, "time_mixing", *reason_for(operation_name(node)))
        made = self._spread(node, Replay(node.target, tuple(args), dict(kwargs)))
        spreads = [thing for thing in things_in([args, kwargs]) if isinstance(thing, Spread)]
        if not all(self.clocks.same_length(made.length, each.length) for each in spreads):
            raise self.refuse(node, "time_mixing", *reason_for(operation_name(node)))
        if not is_pointwise(node) and operation_name(node) not in _LAYOUTS and not self._samplewise(made, spreads):
            raise self.refuse(node, "time_mixing", *reason_for(operation_name(node)))
        return made

    def _samplewise(self, made: Spread, spreads: Sequence[Spread]) -> bool:
        assert made.recipe is not None
        tried: Dict[Spread, Value] = {}
        for each in spreads:
            value = self.clocks.value(each.node, each.node.meta["val"], None, 0, shared=True)
            if value is None or value.merged:
                return True  # that is tried when it is bound
            tried[each] = value
        args, kwargs = substituted(made.recipe.args, tried), substituted(made.recipe.kwargs, tried)
        recipe = Replay(made.recipe.target, args, kwargs)
        return is_samplewise(self.weights, recipe, list(tried.values()), [made.time])

    def _axes(self, meta: Any) -> List[int]:
        return [axis for axis, size in enumerate(meta.shape) if self.sizes.varies(size)]

    def _spread(self, node: fx.Node, recipe: Optional[Replay], first: Any = None, step: Any = None) -> Spread:
        meta = node.meta["val"]
        axis = self._axes(meta)[0]
        length = self.sizes.function(meta.shape[axis], 1)
        return Spread(node, tuple(meta.shape), meta.dtype, axis, length, recipe, first, step)

    # ------------------------------------------------------------------ on a clock

    def bind(self, spread: Spread, reference: Value) -> Value:
        """A value without a clock, on the clock of another of the same length."""
        assert reference.clock is not None
        key = (reference.clock, reference.mixed)
        if key in spread.bound:
            return spread.bound[key]
        merged = self.sizes.has_rows(spread.shape[spread.time])
        if merged != reference.merged or not self.clocks.same_length(spread.length, reference.length):
            raise self.refuse(
                spread.node,
                "total_length",
                "its length is not that of what it is used with",
                "take both from one shape",
            )
        recipe = spread.recipe
        if recipe is None:
            value = self._counted(spread, reference)
        elif isinstance(recipe.target, LookedUp):
            table, place = recipe.args
            at = self.bind(place, reference)
            self.clocks.limits.append((place.shape[0], int(table.node.meta["val"].shape[spread.time])))
            recipe = Replay(recipe.target, (table, at))
            value = self.alignment.record(self.value(spread.node, spread.node.meta["val"], at.clock, at.level, recipe))
        elif any(isinstance(thing, Spread) for thing in things_in([recipe.args, recipe.kwargs])):
            value = self._bind_operation(spread.node, recipe, reference)
        else:
            recipe = Replay(recipe.target, _spanned(recipe.args, reference), recipe.kwargs)
            meta, clock, level = spread.node.meta["val"], reference.clock, reference.level
            rowed = any(self.sizes.has_rows(size) for size in meta.shape)
            found = self.clocks.value(spread.node, meta, clock, level, recipe) if rowed else None
            value = self.alignment.record(found or spread.on(clock, level, recipe=recipe))
            value.mixed = reference.mixed  # the same for all, in whatever order they stand
        spread.bound[key] = value
        return value

    def _bind_operation(self, node: fx.Node, recipe: Replay, reference: Value) -> Value:
        bound: Dict[Spread, Value] = {}
        for thing in things_in([recipe.args, recipe.kwargs]):
            if isinstance(thing, Spread):
                merged = self.sizes.has_rows(thing.shape[thing.time])
                bound[thing] = self.bind(thing, reference if merged else _apart(reference))
        return self.operation(node, substituted(recipe.args, bound), substituted(recipe.kwargs, bound))

    def _counted(self, spread: Spread, reference: Value) -> Value:
        assert reference.clock is not None
        if reference.merged:
            raise self.refuse(
                spread.node, "total_length", "it counts samples and rows as one", "count samples, then repeat for rows"
            )
        value = spread.on(reference.clock, reference.level + 1, rows=0, fresh=True, lifted=True)
        stream = PositionStream(spread.first, spread.step, spread.dtype)
        self.alignment.calls.append(StreamCall([reference], [value], stream, True))
        return value

    def for_rows(self, spread: Spread, reference: Value) -> Value:
        """Positions as a value that has rows where another one has them, on its first axis."""
        lifted = self.bind(spread, reference)
        if not lifted.lifted or reference.rows != 0 or reference.inner != 1:
            raise self.refuse(spread.node, "position", *REASONS["arange"])
        own: List[Any] = [Span(lifted) if axis == lifted.time else int(n) for axis, n in enumerate(lifted.shape)]
        if len(own) != len(reference.shape) or own[0] != 1:
            raise self.refuse(spread.node, "position", *REASONS["arange"])
        shape = (reference.shape[0], *lifted.shape[1:])
        recipe = Replay("reshape", (lifted, [Rows(1), *own[1:]]))
        return self.alignment.step(spread.node, lifted, recipe, shape=shape, rows=0, lifted=False)

    # ------------------------------------------------------------------ an axis of rows in front

    def value(self, node: fx.Node, meta: Any, clock: Optional[Clock], level: int, recipe: Replay) -> Value:
        """A value computed from positions alone, with an axis of rows in front."""
        shape = tuple(self.sizes.settled(size) for size in meta.shape)
        axis = self._axes(meta)[0]
        length = self.sizes.function(shape[axis])
        return Value(node, shape, meta.dtype, axis, 0, 1, length, clock, level, recipe, lifted=True)

    def shifted(self, node: fx.Node, recipe: Replay, values: Sequence[Value]) -> Replay:
        """An operation on positions alone, along an axis: after the axis of rows in front its number is one more."""
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

    def _of_one_row(self, recipe: Replay, values: Sequence[Value], rank: int) -> Replay:
        # Where the model has no axis of rows, positions need none.
        placed: Dict[Any, Value] = {}
        for value in values:
            if value.lifted:
                shape = (*[1] * (rank - len(value.shape)), *value.shape)
                wide = Replay("reshape", (value, [*[1] * (rank - len(value.shape)), *_own(value)]))
                time = value.time + rank - len(value.shape)
                changes = {"shape": shape, "time": time, "rows": None, "lifted": False}
                placed[value] = self.alignment.step(value.node, value, wide, **changes)
        return Replay(recipe.target, substituted(recipe.args, placed), substituted(recipe.kwargs, placed))

    def ranked(self, node: fx.Node, recipe: Replay, values: Sequence[Value], lifted: bool) -> Replay:
        """Give positions, which have an axis of rows in front, the rank of the result.

        Args:
            node: the operation
            recipe: the same
            values: what it takes
            lifted: whether the result has that axis in front too; otherwise it is among its own
        """
        rank = len(node.meta["val"].shape)
        plain = [value for value in values if not value.lifted]
        rows = plain[0].rows if plain else 0
        inner = plain[0].inner if plain else 1
        if not self.sizes.rows and all(value.rows is None and len(value.shape) == rank for value in plain) and plain:
            return self._of_one_row(recipe, values, rank)
        if rows is None or any((value.rows, len(value.shape), value.inner) != (rows, rank, inner) for value in plain):
            raise self.refuse(node, "position", *REASONS["arange"])
        placed: Dict[Any, Value] = {}
        for value in values:
            if value.lifted:
                own: List[Any] = [
                    Span(value) if axis == value.time else int(size) for axis, size in enumerate(value.shape)
                ]
                if not lifted:
                    # Rows take the place of an axis of one entry, or of none.
                    own = [*[1] * (rank - len(own)), *own]
                    if own.pop(rows) != 1:
                        raise self.refuse(node, "position", *REASONS["arange"])
                    shape = [Rows(1), *own]
                else:
                    shape = [Rows(1), *[1] * (rank - len(own)), *own]
                found = self.alignment.step(value.node, value, Replay("reshape", (value, shape)))
                if rows != 0:
                    moved = Replay(torch.ops.aten.movedim.int, (found, 0, rows))
                    found = self.alignment.step(value.node, found, moved)
                if inner > 1:
                    more = Replay(torch.ops.aten.repeat_interleave.self_int, (found, inner, rows))
                    found = self.alignment.step(value.node, found, more)
                placed[value] = found
        return Replay(recipe.target, substituted(recipe.args, placed), substituted(recipe.kwargs, placed))


def _own(value: Value) -> List[Any]:
    """The sizes of positions, without the axis of rows."""
    return [Span(value) if axis == value.time else int(size) for axis, size in enumerate(value.shape)]


def _apart(value: Value) -> Value:
    """The value itself, or what it was before its rows and samples became one axis."""
    while value.merged:
        assert value.recipe is not None
        inner = [thing for thing in things_in([value.recipe.args, value.recipe.kwargs]) if isinstance(thing, Value)]
        value = next((each for each in inner if each.clock is value.clock), value)
    return value


def _spanned(args: Tuple[Any, ...], reference: Value) -> Tuple[Any, ...]:
    """Arguments of a constructor whose size along time, which stands as ``None``, is that of a value."""

    def fill(argument: Any) -> Any:
        if isinstance(argument, list):
            return [Span(reference) if item is None else item for item in argument]
        return argument

    return tuple(fill(argument) for argument in args)
