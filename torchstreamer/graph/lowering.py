"""From a captured graph to streams: every operation is given a rule, or refused with a reason.

The graph is walked once. A value with a time axis is tracked by its axis, its length as a function of the input's, and
its clock. Operations that treat every sample alone are recorded, to be run in segments; the others become streams.
"""

import operator
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Sequence, TypeVar

import torch
from torch import Tensor, fx

from ..core.context import Context
from ..errors import UnsupportedModuleError
from .alignment import Alignment
from .capture import Capture
from .carriers import Carriers
from .clocks import Clocks
from .cutting import given_instead
from .lengths import line_of
from .mask_rows import seen_by_all
from .masks import Board
from .positions import Positions
from .reasons import REASONS, reason_for
from .refusals import Refusals, operation_name
from .relating import Relating
from .requirements import bound_arguments, is_random, require_broadcast, require_samplewise, returned, two_times
from .samplewise import is_pointwise
from .spared import with_spared
from .values import (
    AtEnd,
    EndSamples,
    Group,
    Refused,
    Relation,
    Replay,
    Rows,
    Skew,
    Spread,
    Static,
    Unusable,
    Value,
    substituted,
    things_in,
)
from .weights import Weights

__all__ = ["Lowering", "Operation", "remade", "rule"]

Rule = TypeVar("Rule", bound=Callable[["Lowering", fx.Node, Any, Dict[str, Any]], Any])
_rules: Dict[str, List[Callable[["Lowering", fx.Node, Dict[str, Any]], Any]]] = {}
_remade: Dict[str, Callable[..., Replay]] = {}

_IGNORED = frozenset(
    ["_assert_tensor_metadata", "_assert_scalar", "sym_constrain_range_for_size", "sym_constrain_range"]
)
_SEEN = (Value, Spread, EndSamples, Group, Relation, Skew, Board)  # what reports speak of
_SAME = frozenset(["clone", "alias", "lift_fresh_copy", "contiguous"])
_RESHAPES = frozenset(["view", "_unsafe_view", "reshape"])
_SHAPED = frozenset(["zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full", "new_empty"])
_PLACEMENT = frozenset(["device", "layout", "pin_memory", "non_blocking", "memory_format"])


def rule(
    *names: str, takes: Any = Value, lifted: Optional[bool] = False, last: int = 0, along: str = ""
) -> Callable[[Rule], Rule]:
    """Register how operations of these names are lowered.

    A rule gets the lowering, the node, the first argument of the operation, and all of them by name. Of the rules of a
    name the first that fits and does not give ``NotImplemented`` counts; without one an operation must treat samples
    alone.

    Args:
        names: of the operations
        takes: what the first argument must be; ``None`` for anything
        lifted: whether that value must be one with an axis of rows in front; ``None`` for either
        last: among how many last axes of it time must be, if not 0
        along: the argument that must name its axis of time, if any
    """

    def fits(x: Any, a: Dict[str, Any]) -> bool:
        if takes is None:
            return True
        if not isinstance(x, takes) or lifted not in (None, getattr(x, "lifted", lifted)):
            return False
        if last and x.time < len(x.shape) - last:
            return False
        return not along or (a.get(along) is not None and a[along] % len(x.shape) == x.time)

    def register(function: Rule) -> Rule:
        def guarded(low: "Lowering", node: fx.Node, a: Dict[str, Any]) -> Any:
            x = next(iter(a.values()))
            return function(low, node, x, a) if fits(x, a) else NotImplemented

        for name in names:
            _rules.setdefault(name, []).append(guarded)
        return function

    return register


def remade(name: str, recipe: Callable[..., Replay]) -> None:
    """Say how an operation of this package, which no other program knows, is computed where nothing has a time axis."""
    _remade[name] = recipe


@dataclass
class Operation:
    """One operation of the graph, and what became of it, for reports."""

    node: fx.Node
    handler: str
    error: Optional[UnsupportedModuleError] = None


class Lowering:
    """Lowers a capture.

    Args:
        capture: the graph
        collect: whether to go on after a refusal, to list them all
        context: hides keys in every attention, besides the model's own masks
        fills: whether zeros fill what is too short to be mirrored

    Attributes:
        mirrors: of each reflect padding the length before it, and its amounts
        refuse: makes refusals
        clocks: knows axes, lengths and clocks of values
        weights: gives tensors without a time axis
        alignment: takes streams and steps
        positions: gives tensors that depend on no signal
        relating: gives relations between queries and keys
        inputs: the inputs of the model
        operations: every operation, with its handler or the refusal
        cuts: refused operations whose results are taken as given, to find what else is refused
    """

    def __init__(
        self, capture: Capture, collect: bool = False, context: Optional[Context] = None, fills: bool = False
    ) -> None:
        self.capture = capture
        self.fills = fills
        self.mirrors: List[Any] = []
        self.collect = collect
        self.refuse = Refusals(capture.net)
        self.clocks = Clocks(capture, self.refuse)
        self.weights = Weights(capture)
        self.alignment = Alignment(self.clocks, self.refuse)
        self.positions = Positions(self.clocks, self.alignment, self.refuse, self._of_values, self.weights)
        self.carriers, self.placement = Carriers(self), _PLACEMENT
        self.inputs: List[Any] = []
        self.operations: List[Operation] = []
        self.cuts: Dict[fx.Node, UnsupportedModuleError] = {}
        self._env: Dict[fx.Node, Any] = {}
        self.relating = Relating(self.clocks, self.alignment, self.weights, self.refuse, self._env, context)
        # What rules say most.
        self.sizes, self.lengths = capture.sizes, self.clocks.lengths
        self.value, self.same_length = self.clocks.value, self.clocks.same_length
        self.constant_difference = self.clocks.constant_difference
        self.stream, self.derived = self.alignment.stream, self.alignment.derived
        self.step, self.step_across = self.alignment.step, self.alignment.step_across
        self.record = self.alignment.record

    # ------------------------------------------------------------------ the walk

    def run(self) -> List[Any]:
        """Lower everything; the outputs of the model, in order (``None`` for a constant that is ``None``)."""
        ports = {port.name: port for port in self.capture.inputs}
        names: Dict[str, fx.Node] = {}
        turns = {node for region in self.capture.loops.values() for node in region}
        for node in self.capture.graph.nodes:
            names[node.name] = node
            if node in turns:
                self._env[node] = None
                continue
            if node.op == "placeholder":
                self._env[node] = self._placeholder(node, ports.get(node.name))
            elif node.op == "call_function":
                self.alignment.handler = ""
                try:
                    self._env[node] = self._lower(node)
                except UnsupportedModuleError as error:
                    if not self.collect:
                        raise with_spared(error, node, self.capture) from None
                    self._cut(node, error)
                except Exception:
                    if not self.cuts:
                        raise
                    needs = self.refuse(node, "depends_on_refused", "it needs what is refused before it", "see there")
                    self._env[node] = Refused(needs)
                self._report(node)
        outputs = []
        for name in self.capture.outputs:
            found = None if name is None else self._env[names[name]]
            if isinstance(found, AtEnd):
                if not self.collect:
                    raise found.error
                self.operations.append(Operation(names[str(name)], "", found.error))
            if isinstance(found, Spread):
                found = self.positions.bind(found, self._any_value(found))
            if isinstance(found, Board) and not two_times(self, names[str(name)]):
                found = self.carriers.carried(found)
            if isinstance(found, (Board, Relation, Skew, Unusable)):
                refusal = returned(self, names[str(name)], found)
                if not self.collect:
                    raise refusal
                self.operations.append(Operation(names[str(name)], "", refusal))
                found = Refused(refusal)
            if isinstance(found, EndSamples):
                refusal = self.refuse(names[str(name)], "single_sample", *REASONS["select"])
                if not self.collect:
                    raise refusal
                self.operations.append(Operation(names[str(name)], "", refusal))
                found = Refused(refusal)
            outputs.append(found)
        return outputs

    def _any_value(self, spread: Spread) -> Value:
        """A value of the same length."""
        given = [value for call in self.alignment.calls for value in call.targets]
        for value in [*self.inputs, *self.alignment.recorded, *given]:
            if isinstance(value, Value) and self.same_length(value.length, spread.length):
                return value
        raise self.refuse(spread.node, "total_length", *REASONS["length"])

    def _cut(self, node: fx.Node, error: UnsupportedModuleError) -> None:
        # What comes after it is told as if it were streamed.
        self.cuts[node] = error
        self.alignment.handler = ""
        self._env[node] = given_instead(self, node, error)

    def _report(self, node: fx.Node) -> None:
        found = self._env.get(node)
        if node in self.cuts:
            self.operations.append(Operation(node, "", self.cuts[node]))
            return
        if isinstance(found, Refused) and not isinstance(found, AtEnd):
            self.operations.append(Operation(node, "", found.error))
        elif isinstance(found, (*_SEEN, list)) and node.target is not operator.getitem:
            self.operations.append(Operation(node, self.alignment.handler or "samplewise"))

    def _placeholder(self, node: fx.Node, port: Any) -> Any:
        if port is None:
            return Static(node, None, node.name in self.capture.tensors, False, False)
        if port.time is None:
            static = Static(node, None, False, True, False)
            self.inputs.append(static)
            return static
        length = self.sizes.function(port.length)
        line = line_of(length)
        lines = None if line is None else (line, line)
        hop, rise = (1, 1) if line is None else (line.period, line.rise)
        clock = self.clocks.clock(lambda n, final: length(n), hop, (rise, hop), lines, port=True)
        value = self.value(node, node.meta["val"], clock, 0)
        assert value is not None
        self.inputs.append(value)
        return value

    def _lower(self, node: fx.Node) -> Any:
        target, meta = node.target, node.meta.get("val")
        if target is operator.getitem:
            return self._item(node)
        if not isinstance(meta, (Tensor, list, tuple)):
            if any(isinstance(self._env.get(arg), (Value, Static)) for arg in node.all_input_nodes) and not isinstance(
                meta, (int, type(None), torch.SymInt)
            ):
                raise self.refuse(
                    node, "data_dependent", "it makes a number of the signal's values", "keep it a tensor"
                )
            self._known_symbols(node, meta)
            return meta
        name = operation_name(node)
        if name in _IGNORED:
            return None
        for tensor in things_in(meta):
            if isinstance(tensor, Tensor):
                for size in tensor.shape:
                    self._known_symbols(node, size)
        args = [self.resolve(arg) for arg in node.args]
        kwargs = {key: self.resolve(arg) for key, arg in node.kwargs.items() if key not in _PLACEMENT}
        things = list(things_in([args, kwargs]))
        if any(isinstance(thing, (Value, AtEnd, EndSamples)) for thing in things):
            found = self.write(node, args)
            if found is not NotImplemented:
                return found
        refused = next((thing for thing in things if isinstance(thing, Refused)), None)
        if isinstance(refused, AtEnd):
            # Where only its shape counts, it is no matter what it holds.
            return self.of_signals(node, args, kwargs) if name in _SHAPED else refused
        if refused is not None:
            return Refused(self.refuse(node, "depends_on_refused", "it needs what is refused before it", "see there"))
        if name in _SAME and things and isinstance(things[0], (Value, Static, Spread, EndSamples, Relation)):
            return things[0]
        bound = bound_arguments(node, args, kwargs)
        unusable = next((thing for thing in things if isinstance(thing, Unusable)), None)
        if unusable is not None:
            return unusable
        if name == "scaled_dot_product_attention" and is_random(node, bound):
            raise self.refuse(node, "training_mode", *REASONS["chance"])
        if is_random(node, bound):
            raise self.refuse(node, "random", *REASONS["rand"])
        if name == "chance" and not (isinstance(args[0], Value) and not args[0].lifted):
            raise self.refuse(node, "training_mode", *REASONS["chance"])
        if any(isinstance(thing, (Relation, Skew)) for thing in things):
            from .rules_relation import related  # which knows this module

            try:
                return related(self, node, args, kwargs, bound)
            except UnsupportedModuleError as error:
                return Unusable(error)  # weights of an attention that nobody asks for
        if name == "loop_end" or any(isinstance(thing, (Value, EndSamples)) for thing in things):
            return self.of_signals(node, args, kwargs)
        try:
            if any(isinstance(thing, Board) for thing in things):
                asked = seen_by_all(self, node)
                if asked is not None:
                    return asked
                raise next(thing for thing in things if isinstance(thing, Board)).error
            if any(isinstance(thing, Spread) for thing in things):
                return self.of_signals(node, args, kwargs)
            if any(self.sizes.varies(thing) for thing in things if isinstance(thing, torch.SymInt)):
                return self.positions.made(node, args, kwargs, bound)
        except UnsupportedModuleError as error:
            return Board(node, error)  # it may be a mask
        return self.static(node, args, kwargs)

    def write(self, node: fx.Node, args: Sequence[Any]) -> Any:
        """What stands for a value of which a part is written; ``NotImplemented`` if that is not what a node does."""
        if operation_name(node) not in ("slice_scatter", "select_scatter"):
            return NotImplemented
        from .rules_write import written  # which knows this module

        return written(self, node, args)

    def known(self, node: fx.Node) -> Any:
        """What stands for a node."""
        return self._env[node]

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
            argument = self._env[argument]
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

    # ------------------------------------------------------------------ operations on values

    def of_signals(self, node: fx.Node, args: Sequence[Any], kwargs: Dict[str, Any]) -> Any:
        """What the rule of an operation makes of its arguments; without one it must treat samples alone."""
        for apply in _rules.get(operation_name(node), ()):
            found = apply(self, node, bound_arguments(node, args, kwargs))
            if found is not NotImplemented:
                return found
        board = next((thing for thing in things_in([args, kwargs]) if isinstance(thing, Board)), None)
        if board is not None:
            if not two_times(self, board.node):
                found = {board: self.carriers.carried(board)}
                return self.of_signals(node, substituted(list(args), found), substituted(kwargs, found))
            if two_times(self, node):
                raise self.refuse(
                    node,
                    "mask_data",
                    "it makes a mask that depends on values of the signal",
                    "leave it out: rows of a batch end by final or by lengths, each for itself",
                )
            raise board.error
        return self.samplewise(node, args, kwargs)

    def _of_values(self, node: fx.Node, args: Sequence[Any], kwargs: Dict[str, Any]) -> Value:
        """The value of an operation on values that depend on no signal."""
        lifted = any(isinstance(thing, Value) and thing.lifted for thing in things_in([args, kwargs]))
        ruled = operation_name(node) in _RESHAPES or (lifted and not is_pointwise(node))
        found = self.of_signals(node, args, kwargs) if ruled else self.samplewise(node, args, kwargs)
        assert isinstance(found, Value)
        return found

    def samplewise(self, node: fx.Node, args: Sequence[Any], kwargs: Dict[str, Any]) -> Any:
        """Record an operation that treats every sample alone, after checking that it does.

        Args:
            node: the operation
            args: its arguments, resolved
            kwargs: the same
        """
        things = list(things_in([args, kwargs]))
        reshaped = operation_name(node) in _RESHAPES and isinstance(args[0], Spread)
        for thing in things:
            if isinstance(thing, EndSamples):
                return AtEnd(self.refuse(node, "single_sample", *REASONS["select"]))
            if isinstance(thing, torch.SymInt) and not reshaped:
                reason = ("it uses the length of the whole signal as a value", "use a constant")
                raise self.refuse(node, "total_length", *REASONS.get(operation_name(node), reason))
        spreads = [thing for thing in things if isinstance(thing, Spread)]
        values = [thing for thing in things if isinstance(thing, Value)]
        if not values:
            return self.positions.of_spreads(node, args, kwargs)
        placed: Dict[Any, Any] = dict(zip(values, self.alignment.align(node, values), strict=True))
        reference = placed[values[0]]
        for spread in spreads:
            placed[spread] = self.positions.bind(spread, reference)
        if any(value.lifted for value in placed.values()):
            placed = {thing: self.carriers.lifted(value) for thing, value in placed.items()}
        level = max(value.level for value in placed.values())
        pointwise = is_pointwise(node)
        recipe = Replay(node.target, substituted(tuple(args), placed), substituted(kwargs, placed))
        streamed = [placed[value] for value in values] + [placed[spread] for spread in spreads]
        lifted = all(value.lifted for value in streamed)
        if any(value.lifted for value in streamed):
            if pointwise:
                # With what is made for each row, positions are values of rows as others are.
                lifted = lifted and not self._has_rows_in_front(node)
                recipe = self.positions.ranked(node, recipe, streamed, lifted)
            else:
                recipe = self.positions.shifted(node, recipe, streamed)
        merged = [value for value in streamed if value.merged]
        if len({(value.mixed, value.folds) for value in merged}) > 1:
            raise self.refuse(node, "rows_mixed", "it mixes the rows of a batch", "keep rows and time in one order")
        clock = reference.clock
        meta = node.meta["val"]
        if isinstance(meta, (list, tuple)):
            group = Group(node, recipe, clock, level, merged[0] if merged else None)
            require_samplewise(self, node, recipe, streamed, [m for m in meta if isinstance(m, Tensor)])
            self.alignment.recorded.append(group)
            return group
        if lifted:
            value: Optional[Value] = self.positions.value(node, meta, clock, level, recipe)
        else:
            value = self.value(node, meta, clock, level, recipe, all(each.rows is None for each in streamed))
        if value is None:
            raise self.refuse(node, "time_mixing", *reason_for(operation_name(node)))
        if not self.same_length(value.length, reference.length):
            raise self.refuse(node, "time_mixing", *reason_for(operation_name(node)))
        if pointwise:
            require_broadcast(self, node, value, things)
        else:
            require_samplewise(self, node, recipe, streamed, [meta])
        value.fresh = pointwise
        return self.record(value.held_as(merged[0]) if merged else value)

    def _has_rows_in_front(self, node: fx.Node) -> bool:
        meta = node.meta["val"]
        return isinstance(meta, Tensor) and meta.dim() > 0 and self.sizes.has_rows(meta.shape[0])

    def _item(self, node: fx.Node) -> Any:
        source, index = self._env[node.args[0]], node.args[1]  # type: ignore[index]
        if isinstance(source, (AtEnd, Unusable)):
            return source
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
            raise self.refuse(node, "time_mixing", *reason_for(operation_name(source.node)))
        return self.record(value if source.like is None else value.held_as(source.like))

    def static(self, node: fx.Node, args: Sequence[Any], kwargs: Dict[str, Any]) -> Static:
        """A tensor without a time axis, computed by an operation."""
        things = list(things_in([args, kwargs]))
        inner = [thing for thing in things if isinstance(thing, Static)]
        remade = _remade.get(operation_name(node))
        return Static(
            node,
            Replay(node.target, tuple(args), dict(kwargs)) if remade is None else remade(*args),
            any(thing.weights for thing in inner),
            any(thing.given for thing in inner),
            any(thing.sized for thing in inner) or any(isinstance(thing, Rows) for thing in things),
        )
