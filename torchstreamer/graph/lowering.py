"""From a captured graph to streams: every operation is given a rule, or refused with a reason.

The graph is walked once. A value with a time axis is tracked by its axis, its length as a function of the input's, and
its clock. Operations that treat every sample alone are recorded, to be run in segments; the others become streams.
"""

import operator
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence

import torch
from torch import Tensor, fx

from ..errors import UnsupportedModuleError
from .capture import Capture
from .clocks import is_pointwise
from .positions import Spreading, place
from .reasons import REASONS, reason_for
from .samplewise import is_samplewise
from .values import (
    Edge,
    Group,
    Refused,
    Replay,
    Rows,
    Spread,
    Static,
    Value,
    things_in,
)

__all__ = ["Lowering", "Operation", "rule"]

Rule = Callable[["Lowering", fx.Node, Dict[str, Any]], Any]
_rules: Dict[str, Rule] = {}

_IGNORED = frozenset(
    ["_assert_tensor_metadata", "_assert_scalar", "sym_constrain_range_for_size", "sym_constrain_range"]
)
_SAME = frozenset(["clone", "alias", "lift_fresh_copy", "contiguous"])
_PLACEMENT = frozenset(["device", "layout", "pin_memory", "non_blocking", "memory_format"])


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register how operations of these names are lowered; without a rule an operation must treat samples alone."""

    def register(function: Rule) -> Rule:
        for name in names:
            _rules[name] = function
        return function

    return register


class Operation:
    """One operation of the graph, and what became of it, for reports."""

    def __init__(self, node: fx.Node, handler: str, error: Optional[UnsupportedModuleError] = None) -> None:
        self.node = node
        self.handler = handler
        self.error = error


class Lowering(Spreading):
    """Lowers a capture.

    Args:
        capture: the graph
        collect: whether to go on behind a refusal, to list them all

    Attributes:
        operations: every operation, with its handler or the refusal
    """

    def __init__(self, capture: Capture, collect: bool = False) -> None:
        super().__init__(capture)
        self.collect = collect
        self.env: Dict[fx.Node, Any] = {}
        self.operations: List[Operation] = []

    # ------------------------------------------------------------------ the walk

    def run(self) -> List[Any]:
        """Lower everything; the outputs of the model, in order (``None`` for a constant that is ``None``)."""
        ports = {port.name: port for port in self.capture.inputs}
        names: Dict[str, fx.Node] = {}
        for node in self.capture.graph.nodes:
            names[node.name] = node
            if node.op == "placeholder":
                self.env[node] = self._placeholder(node, ports.get(node.name))
            elif node.op == "call_function":
                self._handler = ""
                try:
                    self.env[node] = self._lower(node)
                except UnsupportedModuleError as error:
                    if not self.collect:
                        raise
                    self.env[node] = Refused(error)
                    self._handler = ""
                self._report(node)
        outputs = []
        for name in self.capture.outputs:
            found = None if name is None else self.env[names[name]]
            if isinstance(found, Spread):
                found = self.bind(found, self._any_value(found))
            if isinstance(found, Edge):
                edge_error = self.refuse(names[str(name)], "single_sample", *REASONS["select"])
                if not self.collect:
                    raise edge_error
                found = Refused(edge_error)
            outputs.append(found)
        return outputs

    def _report(self, node: fx.Node) -> None:
        found = self.env.get(node)
        if isinstance(found, Refused):
            self.operations.append(Operation(node, "", found.error))
        elif isinstance(found, (Value, Spread, Edge, Group)) and node.target is not operator.getitem:
            self.operations.append(Operation(node, self._handler or "samplewise"))

    def _placeholder(self, node: fx.Node, port: Any) -> Any:
        if port is None:
            return Static(node, None, node.name in self.capture.tensors, False, False)
        if port.time is None:
            static = Static(node, None, False, True, False)
            self.inputs.append(static)
            return static
        length = self.sizes.function(port.length)
        clock = self.clock(lambda n, final: length(n), 1, (1, 1), port)
        value = self.value(node, node.meta["val"], clock, 0)
        assert value is not None
        self.inputs.append(value)
        return value

    def _lower(self, node: fx.Node) -> Any:
        target, meta = node.target, node.meta.get("val")
        if target is operator.getitem:
            return self._item(node)
        if not isinstance(meta, (Tensor, list, tuple)):
            if any(isinstance(self.env.get(arg), (Value, Static)) for arg in node.all_input_nodes) and not isinstance(
                meta, (int, type(None), torch.SymInt)
            ):
                raise self.refuse(
                    node, "data_dependent", "it makes a number of the signal's values", "keep it a tensor"
                )
            self._known_symbols(node, meta)
            return meta
        name = self.name(node)
        if name in _IGNORED:
            return None
        for tensor in things_in(meta):
            if isinstance(tensor, Tensor):
                for size in tensor.shape:
                    self._known_symbols(node, size)
        args = [self.resolve(arg) for arg in node.args]
        kwargs = {key: self.resolve(arg) for key, arg in node.kwargs.items() if key not in _PLACEMENT}
        things = list(things_in([args, kwargs]))
        refused = next((thing for thing in things if isinstance(thing, Refused)), None)
        if refused is not None:
            return Refused(self.refuse(node, "depends_on_refused", "it needs what is refused before it", "see there"))
        if name in _SAME and things and isinstance(things[0], (Value, Static, Spread, Edge)):
            return things[0]
        bound = self._bind_arguments(node, args, kwargs)
        if self._is_random(node, bound):
            raise self.refuse(node, "random", *REASONS["rand"])
        if any(isinstance(thing, (Value, Spread, Edge)) for thing in things):
            if name in _rules:
                found = _rules[name](self, node, bound)
                if found is not NotImplemented:
                    return found
            return self.samplewise(node, args, kwargs)
        if any(self.sizes.varies(thing) for thing in things if isinstance(thing, torch.SymInt)):
            return self._spread(node, name, args, kwargs, bound)
        return self.static(node, args, kwargs)

    def _is_random(self, node: fx.Node, bound: Dict[str, Any]) -> bool:
        tags = getattr(node.target, "tags", [])
        off = bound.get("dropout_p") == 0 or bound.get("train") is False or bound.get("training") is False
        return torch.Tag.nondeterministic_seeded in tags and not off

    def _bind_arguments(self, node: fx.Node, args: List[Any], kwargs: Dict[str, Any]) -> Dict[str, Any]:
        schema = getattr(node.target, "_schema", None)
        if schema is None:
            return {}
        bound = {}
        for i, argument in enumerate(schema.arguments):
            if i < len(args):
                bound[argument.name] = args[i]
            elif argument.name in kwargs:
                bound[argument.name] = kwargs[argument.name]
            else:
                bound[argument.name] = argument.default_value if argument.has_default_value() else None
        return bound

    def _known_symbols(self, node: fx.Node, size: Any) -> None:
        if isinstance(size, (torch.SymInt, torch.SymFloat, torch.SymBool)):
            strange = {str(s) for s in size.node.expr.free_symbols} - {self.sizes.root, self.sizes.rows}
            if strange:
                raise self.refuse(
                    node, "data_dependent", "it makes a size of the signal's values", "keep sizes independent of values"
                )

    def resolve(self, argument: Any) -> Any:
        """An argument with nodes replaced by what stands for them, and sizes by numbers where they are known."""
        if isinstance(argument, fx.Node):
            argument = self.env[argument]
        if isinstance(argument, (list, tuple)):
            return [self.resolve(item) for item in argument]
        if isinstance(argument, torch.SymInt):
            argument = self.sizes.settled(argument)
            if isinstance(argument, int):
                return argument
            if not self.sizes.varies(argument):
                factor = self.sizes.at(argument, self.lengths[0], 1)
                if self.sizes.at(argument, self.lengths[0], 3) == 3 * factor:
                    return Rows(factor)
        return argument

    def apply_rule(self, node: fx.Node, args: Sequence[Any], kwargs: Dict[str, Any]) -> Any:
        """What the rule of an operation makes of its arguments; `NotImplemented` if it has none."""
        name = self.name(node)
        if name not in _rules:
            return NotImplemented
        return _rules[name](self, node, self._bind_arguments(node, list(args), kwargs))

    # ------------------------------------------------------------------ operations on single samples

    def samplewise(self, node: fx.Node, args: Sequence[Any], kwargs: Dict[str, Any]) -> Any:
        """Record an operation that treats every sample alone, after checking that it does.

        Args:
            node: the operation
            args: its arguments, resolved
            kwargs: the same
        """
        things = list(things_in([args, kwargs]))
        for thing in things:
            if isinstance(thing, Edge):
                raise self.refuse(node, "single_sample", *REASONS["select"])
            if isinstance(thing, torch.SymInt):
                reason = ("it uses the length of the whole signal as a value", "use a constant")
                raise self.refuse(node, "total_length", *REASONS.get(self.name(node), reason))
        spreads = [thing for thing in things if isinstance(thing, Spread)]
        values = [thing for thing in things if isinstance(thing, Value)]
        if not values:
            return self._spread_of_spreads(node, args, kwargs, spreads)
        placed: Dict[Any, Any] = dict(zip(values, self.align(node, values), strict=True))
        reference = placed[values[0]]
        for spread in spreads:
            placed[spread] = self.bind(spread, reference)
        level = max(value.level for value in placed.values())
        pointwise = is_pointwise(node)
        recipe = Replay(node.target, place(tuple(args), placed), place(kwargs, placed))
        streamed = [placed[value] for value in values] + [placed[spread] for spread in spreads]
        if any(value.lifted for value in streamed):
            if pointwise:
                recipe = self._lower_lifted(node, recipe, streamed)
            else:
                recipe = self._shift_dim(node, recipe, streamed)
        clock = reference.clock
        meta = node.meta["val"]
        if isinstance(meta, (list, tuple)):
            group = Group(node, recipe, clock, level)
            self._require_samplewise(node, recipe, streamed, [m for m in meta if isinstance(m, Tensor)])
            self.recorded.append(group)
            return group
        if all(value.lifted for value in streamed):
            value: Optional[Value] = self.lifted_value(node, meta, clock, level, recipe)
        else:
            value = self.value(node, meta, clock, level, recipe)
        if value is None:
            raise self.refuse(node, "time_mixing", *reason_for(self.name(node)))
        if not self.same_length(value.length, reference.length):
            raise self.refuse(node, "time_mixing", *reason_for(self.name(node)))
        if pointwise:
            self._require_broadcast(node, value, things)
        else:
            self._require_samplewise(node, recipe, streamed, [meta])
        value.fresh = pointwise
        self.recorded.append(value)
        return value

    def _require_broadcast(self, node: fx.Node, value: Value, things: Iterable[Any]) -> None:
        behind = len(value.shape) - value.time
        for thing in things:
            if isinstance(thing, (Value, Spread)) and not getattr(thing, "lifted", False):
                if len(thing.shape) - thing.time != behind:
                    raise self.refuse(node, "time_mixing", "it relates time to another axis", "bring time to one axis")
            elif isinstance(thing, Static):
                shape = tuple(thing.node.meta["val"].shape)
                if len(shape) >= behind and shape[-behind] != 1:
                    raise self.refuse(
                        node, "fixed_length", "it holds a constant as long as the signal", "use one sample"
                    )

    def _require_samplewise(self, node: fx.Node, recipe: Replay, values: Sequence[Value], metas: Sequence[Any]) -> None:
        axes = []
        for meta in metas:
            if any(value.lifted for value in values) and all(value.lifted for value in values):
                found: Optional[Value] = self.lifted_value(node, meta, None, 0, recipe)
            else:
                found = self.value(node, meta, None, 0) if isinstance(meta, Tensor) else None
            axes.append(None if found is None else found.time + found.lifted)
        if all(axis is None for axis in axes) or not is_samplewise(self, recipe, values, axes):
            raise self.refuse(node, "time_mixing", *reason_for(self.name(node)))

    def _item(self, node: fx.Node) -> Any:
        source, index = self.env[node.args[0]], node.args[1]  # type: ignore[index]
        if isinstance(source, Refused):
            return Refused(source.error)
        if isinstance(source, Static):
            return self.static(node, [source, index], {})
        if isinstance(source, list):
            return source[index]  # type: ignore[index]
        assert isinstance(source, Group)
        recipe = Replay(operator.getitem, (source, index))
        value = self.value(node, node.meta["val"], source.clock, source.level, recipe)
        if value is None:
            raise self.refuse(node, "time_mixing", *reason_for(self.name(source.node)))
        self.recorded.append(value)
        return value

    def static(self, node: fx.Node, args: Sequence[Any], kwargs: Dict[str, Any]) -> Static:
        """A tensor without a time axis, computed by an operation."""
        things = list(things_in([args, kwargs]))
        inner = [thing for thing in things if isinstance(thing, Static)]
        return Static(
            node,
            Replay(node.target, tuple(args), dict(kwargs)),
            any(thing.weights for thing in inner),
            any(thing.given for thing in inner),
            any(thing.sized for thing in inner) or any(isinstance(thing, Rows) for thing in things),
        )
