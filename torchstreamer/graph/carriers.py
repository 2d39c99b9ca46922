"""Values that depend on nothing but the length, as signals: every rule for signals then holds for them.

What a model makes of the length alone (`torch.ones(T)`, `torch.arange(T)`, a window repeated `T` times) has no rows,
and is bound to whatever has its length. Where an operation works on it along time, as a convolution or a cumulative sum
does, it is carried by a signal of that length: it gets an axis of rows in front, as each row has an age of its own.
"""

from typing import Any, Dict, List, Tuple

import torch
from torch import Tensor, fx, nn

from ..core.lengths import LengthFunction
from ..errors import UnsupportedModuleError
from ..layers.padding import Pad1dStream
from ..layers.upsampling import UpsampleStream
from .clocks import Clocks
from .lengths import line_of
from .masks import Board
from .ops.edges import CropStream
from .ops.windows import WindowedStream
from .refusals import operation_name
from .samplewise import is_pointwise
from .values import Replay, Rows, Span, Spread, Static, Value, things_in

__all__ = ["Carriers"]

# Operations whose first axis is a batch if there are so many: more axes than these they do not take.
_RANKS = {
    **dict.fromkeys(["conv1d", "conv_transpose1d", "max_pool1d", "avg_pool1d", "ceil_pool", "col2im"], 3),
    **dict.fromkeys(["adaptive_avg_pool1d", "reflection_pad1d", "replication_pad1d"], 3),
    **dict.fromkeys(["upsample_nearest1d", "_upsample_nearest_exact1d", "upsample_linear1d"], 3),
    **dict.fromkeys(["upsample_nearest2d", "_upsample_nearest_exact2d", "upsample_bilinear2d"], 4),
    **dict.fromkeys(["conv2d", "conv_transpose2d", "max_pool2d", "avg_pool2d", "im2col"], 4),
    "stft": 2,
}
_AXES = frozenset(["dim", "dim0", "dim1", "dims", "dimension", "start_dim", "end_dim"])
_SIZES = {"view": "size", "_unsafe_view": "size", "reshape": "shape", "expand": "size", "repeat": "repeats"}


class Carriers:
    """Gives values that depend on the length alone as signals.

    Args:
        low: the lowering that they belong to
    """

    def __init__(self, low: Any) -> None:
        self.low = low
        self.clocks: Clocks = low.clocks
        self._known: Dict[fx.Node, Value] = {}
        self._driven: List[Value] = []

    def carried(self, thing: Any) -> Value:
        """A tensor that depends on the length alone, and that no binding to a value of its length serves.

        Args:
            thing: what stands for it, `Board` or `Spread`

        Raises:
            UnsupportedModuleError: it depends on the length in another way than along one axis of time
        """
        if isinstance(thing, Value):
            return thing
        node: fx.Node = thing.node
        if node not in self._known:
            if isinstance(thing, Spread):
                found = self.lifted(self.low.positions.bind(thing, self.reference(thing.node, thing.length)))
            else:
                try:
                    found = self._made(node, thing)
                except UnsupportedModuleError:
                    raise thing.error from None
            self._known[node] = found
        return self._known[node]

    # ------------------------------------------------------------------ what carries

    def reference(self, node: fx.Node, length: LengthFunction) -> Value:
        """A value of a length, of those that come earliest; one made of the input if there is none."""
        low = self.low
        given = [value for call in low.alignment.calls for value in call.targets]
        found: List[Value] = []
        for value in [*low.inputs, *low.alignment.recorded, *given, *self._driven]:
            if isinstance(value, Value) and not value.merged and (value.rows is not None or not low.sizes.rows):
                if value.clock is not None and low.same_length(value.length, length):
                    found.append(value)
        if not found:
            return self._drive(node, length)

        def late(value: Value) -> Tuple[int, int]:
            assert value.clock is not None
            return -sum(value.clock.available(n, False) for n in low.lengths[:16]), value.level

        return min(found, key=late)

    def _drive(self, node: fx.Node, length: LengthFunction) -> Value:
        # A rounded line of the input's length: samples repeated, some more in front or fewer, every so many taken.
        low = self.low
        line, source = line_of(length), low.inputs[0]
        if line is None or not isinstance(source, Value) or line_of(source.length) is None:
            raise low.refuse(
                node, "total_length", "no signal of the model has its length", "take the length from a shape"
            )
        like = source.dtype if source.dtype.is_floating_point else torch.float32
        size = source.shape[source.time]
        place = Spread(source.node, (size,), like, 0, source.length, None, 0, 1)
        x: Value = low.positions.bind(place, source)
        base = source.length

        def grown(n: int) -> int:
            return base(n) * line.rise + line.offset

        if line.rise > 1:
            stream = UpsampleStream(nn.Upsample(scale_factor=float(line.rise)))
            x = low.derived(node, x, stream, lambda n: base(n) * line.rise)
        if line.offset > 0:
            x = low.derived(node, x, Pad1dStream(line.offset, 0), grown)
        elif line.offset < 0:
            x = low.derived(node, x, CropStream(-line.offset, 0, 0), grown)
        if line.period > 1:
            recipe = Replay(torch.ops.aten.slice.Tensor, (x, 1, line.period - 1, None, line.period))
            body = low.weights.body().of_window(x, recipe)
            stride = WindowedStream(body, line.period, line.period, x.layout(), x.layout(), "slice")
            x = low.derived(node, x, stride, lambda n: grown(n) // line.period)
        self._driven.append(x)
        return x

    # ------------------------------------------------------------------ operations

    def _made(self, node: fx.Node, board: Board) -> Value:
        low = self.low
        meta = node.meta["val"]
        if not isinstance(meta, Tensor) or sum(low.sizes.varies(size) for size in meta.shape) != 1:
            raise board.error
        found: Any = low.write(node, [low.resolve(arg) for arg in node.args])
        if found is not NotImplemented:
            return self.lifted(found)
        args = [self._argument(low.resolve(arg)) for arg in node.args]
        kwargs = {k: self._argument(low.resolve(arg)) for k, arg in node.kwargs.items() if k not in low.placement}
        values = [thing for thing in things_in([args, kwargs]) if isinstance(thing, Value)]
        if not values:
            raise board.error
        if is_pointwise(node):
            found = low.samplewise(node, args, kwargs)
        elif not all(value.lifted for value in values):
            found = low.of_signals(node, args, kwargs)
        else:
            try:
                found = low.of_signals(node, args, kwargs)
            except UnsupportedModuleError:
                found = self._with_rows(node, args, kwargs, values)
        if not isinstance(found, Value):
            raise board.error
        return found

    def _argument(self, thing: Any) -> Any:
        if isinstance(thing, list):
            return [self._argument(item) for item in thing]
        return self.carried(thing) if isinstance(thing, (Board, Spread)) else thing

    def _with_rows(self, node: fx.Node, args: List[Any], kwargs: Dict[str, Any], values: List[Value]) -> Any:
        """An operation on values with rows in front, as one on signals, of which the rows are the first axis."""
        low, name, meta = self.low, operation_name(node), node.meta["val"]
        first = values[0]
        fold = len(first.shape) == _RANKS.get(name, 0) and first.time > 0
        placed = {value: self._with_first_axis(value, fold) for value in values}

        def place(argument: Any) -> Any:
            if isinstance(argument, list):
                return [place(item) for item in argument]
            if isinstance(argument, Static) and name in ("cat", "concat", "stack") and not fold:
                recipe = Replay(torch.ops.aten.unsqueeze.default, (argument, 0))
                return Static(argument.node, recipe, argument.weights, argument.given, argument.sized)
            return placed.get(argument, argument) if isinstance(argument, Value) else argument

        arguments = list(node.target._schema.arguments)  # type: ignore[union-attr]
        positional, named = [], {}
        for i, argument in enumerate(arguments):
            key, default = argument.name, argument.default_value if argument.has_default_value() else None
            given = args[i] if i < len(args) else kwargs.get(key, default)
            if given is None and name == "repeat_interleave" and key == "dim" and len(first.shape) == 1:
                given = 0
            changed = given if fold else _behind(name, key, given)
            if i < len(args):
                positional.append(place(changed))
            elif key in kwargs or changed is not default:
                named[key] = place(changed)
        rows = self._rows()
        with meta.fake_mode:
            size = (rows * meta.shape[0], *meta.shape[1:]) if fold else (rows, *meta.shape)
            grown = meta.new_empty(size)
        twin = fx.Graph().call_function(node.target, ())  # type: ignore[arg-type]
        twin.meta = {**node.meta, "val": grown}
        found = low.of_signals(twin, positional, named)
        return self._with_rows_in_front(node, found, fold) if isinstance(found, Value) else found

    def _rows(self) -> Any:
        port = self.low.capture.streamed[0]
        if not self.low.sizes.rows:
            return 1
        holder = next(node for node in self.low.capture.graph.nodes if node.name == port.name)
        return holder.meta["val"].shape[port.rows]

    def _with_first_axis(self, value: Value, fold: bool) -> Value:
        rows, own = self._rows(), _own(value)
        axis = 0 if self.low.sizes.rows else None
        if fold:
            inner = int(value.shape[0])
            shape, size, time = (rows * inner, *value.shape[1:]), [Rows(inner), *own[1:]], value.time
        else:
            inner, shape, size, time = 1, (rows, *value.shape), [Rows(1), *own], value.time + 1
        recipe = Replay("reshape", (value, size))
        changes = {"shape": shape, "time": time, "rows": axis, "inner": inner, "lifted": False}
        found: Value = self.low.step(value.node, value, recipe, **changes)
        return found

    def _with_rows_in_front(self, node: fx.Node, value: Value, fold: bool) -> Value:
        meta = node.meta["val"]
        time = value.time if fold else value.time - 1
        own = [Span(value) if axis == time else int(self.low.sizes.settled(n)) for axis, n in enumerate(meta.shape)]
        recipe = Replay("reshape", (value, [Rows(1), *own]))
        found: Value = self.low.record(self.low.positions.value(node, meta, value.clock, value.level, recipe))
        return found

    def lifted(self, value: Value) -> Value:
        """A value that is the same for all rows, given to each."""
        if value.lifted or value.rows is not None or value.merged or not self.low.sizes.rows:
            return value
        recipe = Replay(torch.ops.aten.expand.default, (value, [Rows(1), *_own(value)]))
        found: Value = self.low.step(value.node, value, recipe, rows=0, lifted=True)
        return found


def _own(value: Value) -> List[Any]:
    return [Span(value) if axis == value.time else int(size) for axis, size in enumerate(value.shape)]


def _behind(operation: str, name: str, given: Any) -> Any:
    """An argument of an operation, of which an axis of rows comes first."""
    if name in _AXES:
        if isinstance(given, int):
            return given if given < 0 else given + 1
        if isinstance(given, list):
            moved = [axis if axis < 0 else axis + 1 for axis in given]
            return [0, *moved] if operation == "permute" else moved
    if _SIZES.get(operation) == name:
        return [1 if name == "repeats" else Rows(1), *given]
    return given
