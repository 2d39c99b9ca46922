"""The computation of a segment: recorded operations as a small FX graph, which runs, scripts and exports.

Weights that are computed from parameters (weight norm, functional layers) become modules that keep their value while
gradients are off and the parameters do not change.
"""

import copy
import math
from operator import floordiv, getitem, mul
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, fx, nn

from ..core.fast_attributes import entry
from .values import Group, Replay, Rows, Span, Static, Value

__all__ = ["Body", "TensorSource", "scriptable_target"]


class Segment(fx.GraphModule):
    """The module of a segment. A copy shares the code, which never changes."""

    def __deepcopy__(self, memo: Dict[int, Any]) -> "Segment":
        twin: Segment = object.__new__(type(self))
        memo[id(self)] = twin
        for name, value in self.__dict__.items():
            tables = name in ("_parameters", "_buffers", "_modules")
            twin.__dict__[name] = copy.deepcopy(value, memo) if tables else value
        return twin


class TensorSource:
    """Reads the tensors of a model for a body: registers them once, under short names."""

    def __init__(self) -> None:
        self.root = nn.Module()
        self.names: Dict[int, str] = {}

    def add(self, tensor: Tensor, persistent: bool) -> str:
        """The name under which a tensor is registered."""
        if id(tensor) not in self.names:
            name = f"t{len(self.names)}"
            if isinstance(tensor, nn.Parameter):
                self.root.register_parameter(name, tensor)
            else:
                self.root.register_buffer(name, tensor, persistent=persistent)
            self.names[id(tensor)] = name
        return self.names[id(tensor)]

    def module(self, module: nn.Module, key: int) -> str:
        """The name under which a module is registered."""
        if key not in self.names:
            name = f"m{len(self.names)}"
            self.root.add_module(name, module)
            self.names[key] = name
        return self.names[key]


# Operations that torch has as functions with the arguments of the operator, whose call costs a short step half as much.
_NAMES = """abs add addmm bmm cat clamp clone cos cumsum div erf exp layer_norm log logical_and logical_not masked_fill
matmul maximum mean minimum mm mul neg permute pow relu rsqrt select sigmoid sin softmax split_with_sizes sqrt square
squeeze stack sub sum tanh transpose unbind unsqueeze where"""
_BUILT_IN = "elu gelu glu hardtanh leaky_relu linear scaled_dot_product_attention silu softplus"
_FUNCTIONS: Dict[str, Any] = {
    **{name: getattr(torch, name) for name in _NAMES.split()},
    **{name: getattr(torch._C._nn, name) for name in _BUILT_IN.split()},
}


def copied(x: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    """What ``x.copy_(source)`` leaves in ``x``; torch's own functional form has no derivative."""
    return source.to(x.dtype).expand_as(x).clone()


def scriptable_target(target: Any) -> Any:
    """An operator as TorchScript knows it: its overloads are chosen by their arguments. Where there is one, a function
    of torch that does the same."""
    if target is torch.ops.aten.copy.default:
        return copied
    if not isinstance(target, torch._ops.OpOverload):
        return target
    plain = target.namespace == "aten"
    return _FUNCTIONS.get(target._opname, target.overloadpacket) if plain else target.overloadpacket


class Body:
    """Builds the module of a segment.

    Args:
        tensor: gives the tensor of a weight or constant, and whether it is persistent
        kept: gives the module of a computed static value
        inside: whether a value is computed in this segment
    """

    def __init__(
        self,
        tensor: Callable[[Static], Tuple[Tensor, bool]],
        kept: Callable[[Static], nn.Module],
        inside: Callable[[Any], bool],
    ) -> None:
        self._tensor = tensor
        self._kept = kept
        self._inside = inside
        self.source = TensorSource()
        self.graph = fx.Graph()
        self.list = self.graph.placeholder("xs", type_expr=List[Tensor])
        self.inputs: List[Any] = []
        self._nodes: Dict[Any, fx.Node] = {}
        self._first: Optional[Value] = None  # whose rows say how many there are

    def of_window(self, x: Value, recipe: Replay) -> fx.GraphModule:
        """The module of an operation on windows of one value."""
        self.input(x)
        result = x.like(recipe=recipe)
        self.compute(result)
        return self.finish([result])

    def input(self, thing: Any) -> fx.Node:
        """A value that comes from outside."""
        if thing not in self._nodes:
            self._nodes[thing] = self.graph.call_function(getitem, (self.list, len(self.inputs)))
            self.inputs.append(thing)
            if isinstance(thing, Value) and self._first is None and thing.rows is not None:
                self._first = thing
        return self._nodes[thing]

    def use(self, thing: Any) -> fx.Node:
        """The node of a value, computed here if need be."""
        if thing in self._nodes:
            return self._nodes[thing]
        if isinstance(thing, Static):
            node = self._static(thing)
        elif isinstance(thing, Group) or self._inside(thing):
            node = self._replay(thing.recipe)
        else:
            return self.input(thing)
        self._nodes[thing] = node
        return node

    def compute(self, thing: Any) -> None:
        """Compute a value here, whatever segment it belongs to."""
        if thing not in self._nodes:
            self._nodes[thing] = self._replay(thing.recipe)

    def module(self, module: nn.Module, args: Sequence[Any]) -> fx.Node:
        """A call of a module."""
        return self.graph.call_module(self.source.module(module, id(module)), tuple(args))

    def call(self, target: Any, args: Sequence[Any], kwargs: Optional[Dict[str, Any]] = None) -> fx.Node:
        """A call of an operation, or of a method by its name, with nodes, values and constants as its arguments."""
        given = tuple(self._argument(value) for value in args)
        named = {name: self._argument(value) for name, value in (kwargs or {}).items()}
        if isinstance(target, str):
            return self.graph.call_method(target, given, named)
        return self.graph.call_function(scriptable_target(target), given, named)

    def finish(self, outputs: Sequence[Any], single: bool = False) -> fx.GraphModule:
        """The module; it gives the list of ``outputs``, or with ``single`` the only one."""
        nodes = [self.use(thing) for thing in outputs]
        self.graph.output(nodes[0] if single else nodes)
        module = Segment(self.source.root, self.graph, class_name="Segment")
        module.graph.eliminate_dead_code()
        if single and not self.inputs:
            module.graph.erase_node(next(iter(module.graph.nodes)))  # the list, which nothing needs
        module.recompile()
        for table in ("_parameters", "_buffers", "_modules"):
            for name in getattr(module, table):
                setattr(type(module), name, entry(table, name))  # a graph module has a class of its own
        return module

    # ------------------------------------------------------------------ inside

    def _static(self, thing: Static) -> fx.Node:
        if thing.given and thing.recipe is None:
            return self.input(thing)
        if thing.given or thing.sized:
            assert thing.recipe is not None
            return self._replay(thing.recipe)
        if thing.weights and thing.recipe is not None:
            return self.graph.call_module(self.source.module(self._kept(thing), id(thing)))
        tensor, persistent = self._tensor(thing)
        return self.graph.get_attr(self.source.add(tensor, persistent))

    def _replay(self, recipe: Optional[Replay]) -> fx.Node:
        assert recipe is not None
        if isinstance(recipe.target, nn.Module):
            return self.module(recipe.target, [self._argument(value) for value in recipe.args])
        target = torch.reshape if recipe.target == "reshape" else recipe.target
        return self.call(target, recipe.args, recipe.kwargs)

    def _argument(self, value: Any) -> Any:
        if isinstance(value, (Value, Static, Group)):
            return self.use(value)
        if isinstance(value, Rows):
            return self._rows(value.factor)
        if isinstance(value, Span):
            node = self.use(value.value)
            return self.graph.call_method("size", (node, value.value.time + value.value.lifted))
        if isinstance(value, (list, tuple)):
            return [self._argument(item) for item in value]
        if isinstance(value, float) and not math.isfinite(value):
            return self.graph.call_function(float, (str(value),))  # a script knows no name for it
        return value

    def _rows(self, factor: int) -> fx.Node:
        first = self._first
        assert first is not None and first.rows is not None
        size = self.graph.call_method("size", (self.use(first), first.rows))
        if factor == first.inner:
            return size
        if first.inner != 1:
            size = self.graph.call_function(floordiv, (size, first.inner))
        return self.graph.call_function(mul, (size, factor)) if factor != 1 else size
