"""The recurrence in two recorded turns of a loop over time: see `turns.py`.

What a turn makes is compared with what the next one makes, operation by operation. Where the one takes sample 0 of a
signal and the other sample 1, that is an input. Where the next turn takes what the turn before has made, that is the
state, and it begins with what the first turn takes in its place. What both share is the same in every turn. All else
must be equal. The loop becomes a module with a handler, `SampleLoop`, on the signals that it takes side by side.
"""

import operator
from typing import Any, Dict, List, NoReturn, Optional, Sequence, Tuple

import torch
from torch import Tensor, fx, nn

from ..layers.recurrent import ModuleRecurrenceStream
from ..layers.sample_loop import SampleLoop
from .lengths import Sizes
from .opaque import Leaf
from .places import module_of, source_line
from .refusals import operation_name
from .segment import Body
from .unexportable import FOLLOWED, PlacedError

__all__ = ["roll_loops"]

_aten = torch.ops.aten
_NEW = frozenset(["new_zeros", "new_ones", "new_full", "new_empty"])
Pair = Tuple[fx.Node, fx.Node]


def roll_loops(graph: fx.Graph, tensors: Dict[str, Tensor], sizes: Sizes, net: nn.Module, leaves: List[Leaf]) -> None:
    """Put a module with a handler in the place of every loop over time.

    Args:
        graph: of a model
        tensors: its parameters, buffers and constants, by placeholder
        sizes: evaluates sizes
        net: the model
        leaves: the modules that stay whole; those of the loops are added

    Raises:
        UnsupportedModuleError: a loop is no recurrence of this form
    """
    target = getattr(torch.ops.torchstreamer, "looped", None)
    loops = [
        node
        for node in graph.nodes
        if node.op == "call_function" and target is not None and node.target is target.default
    ]
    for node in loops:
        _Loop(graph, tensors, sizes, net, leaves, node).roll()
    if loops:
        graph.eliminate_dead_code()


class _Loop:
    # One list of what the turns of a loop give.
    def __init__(
        self,
        graph: fx.Graph,
        tensors: Dict[str, Tensor],
        sizes: Sizes,
        net: nn.Module,
        leaves: List[Leaf],
        node: fx.Node,
    ) -> None:
        self.graph, self.tensors, self.sizes, self.net = graph, tensors, sizes, net
        self.leaves, self.node = leaves, node
        args: Sequence[Any] = node.args
        self.first, self.second, firsts, seconds, _, dim = args
        self.dim = int(dim)
        # What the second turn has made, by what the first has made.
        self.next: Dict[fx.Node, fx.Node] = dict(zip(firsts, seconds, strict=True))
        self.kinds: Dict[Pair, str] = {}
        self.inputs: Dict[Pair, Tuple[fx.Node, int]] = {}
        self.states: List[Pair] = []
        self.same: List[fx.Node] = []

    def refuse(self, what: str) -> NoReturn:
        path, module = module_of(self.node, self.net)
        where = f" (its turns are joined at {source_line(self.node)})"
        error = PlacedError(
            "fixed_length",
            module,
            f"it loops over time in Python, and {what}{where}",
            f"{FOLLOWED}; or register a handler for {type(module).__name__}",
        )
        error.path, error.by_values, error.loops = path, True, True
        raise error

    # ------------------------------------------------------------------ two turns

    def kind(self, one: fx.Node, two: fx.Node) -> str:
        """What stands at one place of two turns: the same, an input, a state, or an operation."""
        pair = one, two
        if pair not in self.kinds:
            self.kinds[pair] = self._kind(one, two)
        return self.kinds[pair]

    def _kind(self, one: Any, two: Any) -> str:
        if one is two:
            return "same"
        if two in self.next and one not in self.next:
            self.states.append((one, two))
            return "state"
        if one.op != "call_function" or two.op != "call_function" or one.target is not two.target:
            self.refuse("its turns do not do the same")
        if len(one.args) != len(two.args) or one.kwargs.keys() != two.kwargs.keys():
            self.refuse("its turns do not do the same")
        if one.target is _aten.select.int and self._is_same(one.args[:2], two.args[:2]) and one.args[2] != two.args[2]:
            return self._input(one, two, one.args[2], two.args[2])
        if one.target is _aten.slice.Tensor and len(one.args) >= 4 and one.args[2] != two.args[2]:
            if self._is_same(one.args[:2], two.args[:2]):
                ends = one.args[3], two.args[3]
                if ends != (1, 2):
                    self.refuse("it takes several samples at a time")
                return self._input(one, two, one.args[2], two.args[2])
        same = self._is_same(one.args, two.args) & self._is_same(one.kwargs, two.kwargs)
        return "same" if same else "operation"

    def _input(self, one: Any, two: Any, begin: Any, end: Any) -> str:
        if (begin, end) != (0, 1):
            self.refuse("it takes other samples than those of its own place")
        source, dim = one.args[0], int(one.args[1])
        self.inputs[one, two] = source, dim % source.meta["val"].dim()
        return "input"

    def _is_same(self, one: Any, two: Any) -> bool:
        """Whether arguments are the same in both turns; all that they hold is looked at."""
        if isinstance(one, fx.Node) and isinstance(two, fx.Node):
            return self.kind(one, two) == "same"
        if isinstance(one, (list, tuple)) and isinstance(two, (list, tuple)) and len(one) == len(two):
            return all([self._is_same(a, b) for a, b in zip(one, two, strict=True)])
        if isinstance(one, dict) and isinstance(two, dict):
            return all([self._is_same(one[key], two[key]) for key in one])
        if isinstance(one, (fx.Node, list, tuple, dict)) or type(one) is not type(two) or one != two:
            self.refuse("its turns do not do the same")
        return True

    # ------------------------------------------------------------------ the module

    def roll(self) -> None:
        """Put the module in the place of the loop."""
        if self.kind(self.first, self.second) == "same":
            self.refuse("its turns make nothing of the signal")
        done = 0
        while done < len(self.states):
            made = self.states[done][1]
            if self.kind(made, self.next[made]) == "same":
                self.refuse("its turns make nothing of the signal")
            done += 1
        if not self.inputs:
            self.refuse("its turns take no samples of the signal")
        turn = self._turn()
        self._check_uses()
        sources = list(dict.fromkeys(self.inputs.values()))
        shapes = [[int(n) for n in _without(x.meta["val"].shape, dim)[1:]] for x, dim in sources]
        loop = SampleLoop(
            self._aside([one for one, _ in self.states]), self._aside(self.same), turn, shapes, len(self.states)
        )
        out_shape = [int(n) for n in self.first.meta["val"].shape[1:]]
        channels, out = sum(loop.channels), int(torch.Size(out_shape).numel())
        self.leaves.append(Leaf(loop, ModuleRecurrenceStream(loop, channels, out)))
        self._put(sources, out_shape, out)

    def _check_uses(self) -> None:
        rows = self.sizes.rows
        for source, dim in self.inputs.values():
            shape = source.meta["val"].shape
            front = 1 if dim == 0 else 0
            if not rows or str(shape[front]) != rows:
                self.refuse("its samples have no axis of rows in front")
            if str(shape[dim]) != str(self.node.meta["val"].shape[self.dim]):
                self.refuse("it does not take as many turns as its signal has samples")
            if any(isinstance(n, torch.SymInt) for i, n in enumerate(shape) if i not in (dim, front)):
                self.refuse("its samples have another axis that varies")
            if source.meta["val"].dtype != self.first.meta["val"].dtype:
                self.refuse("its signals have other dtypes than what it gives")
        if str(self.first.meta["val"].shape[0]) != rows:
            self.refuse("what it gives has no axis of rows in front")

    def _turn(self) -> nn.Module:
        """The module of a turn."""
        body = Body(_unknown, _unknown, _unknown)
        sources = list(dict.fromkeys(self.inputs.values()))
        taken = {source: self._listed(body, i) for i, source in enumerate(sources)}
        kept = {pair: self._listed(body, len(sources) + i) for i, pair in enumerate(self.states)}
        self._rows = taken[sources[0]]
        known: Dict[Any, Any] = {}
        same: Dict[fx.Node, fx.Node] = {}

        def filled(one: Any, two: Any) -> Any:
            if isinstance(one, fx.Node):
                return of_pair(one, two)
            if isinstance(one, (list, tuple)):
                return [filled(a, b) for a, b in zip(one, two, strict=True)]
            return one

        def of_pair(one: fx.Node, two: fx.Node) -> Any:
            pair = one, two
            if pair not in known:
                known[pair] = made(one, two)
            return known[pair]

        def made(one: fx.Node, two: fx.Node) -> Any:
            kind = self.kind(one, two)
            if kind == "state":
                return kept[one, two]
            if kind == "input":
                found = self.inputs[one, two]
                one_sample = one.target is _aten.select.int
                return taken[found] if one_sample else body.call(_aten.unsqueeze.default, (taken[found], found[1]))
            if kind == "same":
                if not isinstance(one.meta.get("val"), Tensor):
                    return self._number(body, one.meta.get("val"))
                if one not in same:
                    same[one] = self._listed(body, len(sources) + len(self.states) + len(self.same))
                    self.same.append(one)
                return same[one]
            if torch.Tag.nondeterministic_seeded in getattr(one.target, "tags", ()):
                self.refuse("its turns draw random numbers")
            args = [filled(a, b) for a, b in zip(one.args, two.args, strict=True)]
            kwargs = {key: filled(value, two.kwargs[key]) for key, value in one.kwargs.items()}
            return body.call(one.target, args, kwargs)

        outputs = [of_pair(self.first, self.second), *(of_pair(made, self.next[made]) for _, made in self.states)]
        return self._finished(body, outputs)

    def _aside(self, nodes: Sequence[fx.Node]) -> nn.Module:
        """The module that gives values which depend on weights, constants and the number of rows alone."""
        body = Body(_unknown, _unknown, _unknown)
        self._rows = self._listed(body, 0)
        known: Dict[fx.Node, Any] = {}

        def filled(thing: Any) -> Any:
            if isinstance(thing, fx.Node):
                if thing not in known:
                    known[thing] = made(thing)
                return known[thing]
            if isinstance(thing, (list, tuple)):
                return [filled(item) for item in thing]
            return thing

        def made(node: fx.Node) -> Any:
            if not isinstance(node.meta.get("val"), (Tensor, list, tuple)):
                return self._number(body, node.meta.get("val"))
            if node.op == "placeholder" and node.name in self.tensors:
                tensor = self.tensors[node.name]
                return body.graph.get_attr(body.source.add(tensor, isinstance(tensor, nn.Parameter)))
            if node.op != "call_function":
                self.refuse("its turns take the whole signal, or begin with a part of it")
            kwargs = {key: filled(value) for key, value in node.kwargs.items()}
            if operation_name(node) in _NEW:  # of a tensor's dtype and device
                kwargs["dtype"] = node.meta["val"].dtype
                return body.call(node.target, [self._rows, *(filled(arg) for arg in node.args[1:])], kwargs)
            return body.call(node.target, [filled(arg) for arg in node.args], kwargs)

        return self._finished(body, [filled(node) for node in nodes])

    def _number(self, body: Body, value: Any) -> Any:
        if not isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
            return value
        if str(value) == self.sizes.rows:
            return body.graph.call_method("size", (self._rows, 0))
        self.refuse("its turns compute with the length of the signal")

    def _listed(self, body: Body, at: int) -> fx.Node:
        return body.graph.call_function(operator.getitem, (body.list, at))

    def _finished(self, body: Body, outputs: Sequence[fx.Node]) -> nn.Module:
        for i, node in enumerate(outputs):
            body._nodes[i] = node
        return body.finish(list(range(len(outputs))))

    # ------------------------------------------------------------------ the graph

    def _put(self, sources: Sequence[Tuple[fx.Node, int]], made: List[int], out: int) -> None:
        with self.graph.inserting_before(self.node):
            parts = [self._as_signal(source, dim) for source, dim in sources]
            x = parts[0] if len(parts) == 1 else self._call(_aten.cat.default, (parts, 1))
            shape = x.meta["val"].shape
            y = self._call(
                torch.ops.torchstreamer.leaf.default,
                (x, len(self.leaves) - 1),
                x.meta["val"].new_empty([shape[0], out, shape[2]], dtype=self.first.meta["val"].dtype),
            )
            if not made:
                y = self._call(_aten.squeeze.dim, (y, 1))
            elif len(made) > 1:
                y = self._call(_aten.unflatten.int, (y, 1, made))
            rank = len(made) + 2
            order = list(range(rank - 1))
            order.insert(self.dim, rank - 1)
            if order != list(range(rank)):
                y = self._call(_aten.permute.default, (y, order))
        self.node.replace_all_uses_with(y)
        self.graph.erase_node(self.node)

    def _as_signal(self, source: fx.Node, dim: int) -> fx.Node:
        rank = source.meta["val"].dim()
        order = [i for i in range(rank) if i != dim] + [dim]
        x = source if order == list(range(rank)) else self._call(_aten.permute.default, (source, order))
        if rank == 2:
            return self._call(_aten.unsqueeze.default, (x, 1))
        return x if rank == 3 else self._call(_aten.flatten.using_ints, (x, 1, rank - 2))

    def _call(self, target: Any, args: Tuple[Any, ...], value: Optional[Tensor] = None) -> fx.Node:
        node = self.graph.call_function(target, args)
        if value is None:
            given = [[part.meta["val"] for part in arg] if isinstance(arg, list) and isinstance(arg[0], fx.Node) else
                     arg.meta["val"] if isinstance(arg, fx.Node) else arg for arg in args]  # fmt: skip
            value = target(*given)
        node.meta = {key: item for key, item in self.node.meta.items() if key in ("stack_trace", "nn_module_stack")}
        node.meta["val"] = value
        return node


def _without(shape: Sequence[Any], dim: int) -> List[Any]:
    return [size for axis, size in enumerate(shape) if axis != dim]


def _unknown(thing: Any) -> Any:
    raise AssertionError(f"a turn has no {type(thing).__name__}")
