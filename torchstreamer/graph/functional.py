"""An exported graph made functional: without in-place work, and with composite operations taken apart.

`ExportedProgram.run_decompositions` does that by tracing the whole program once more, which takes longer than the
export itself. It changes only operations that write in place, regions with a mode of their own, and operations that
torch computes by others of which some may be views. Where nothing is written but whole values of the model's own, and
there are no such regions, these operations are changed alone, and the rest stays as it is.
"""

# The tracer's private parts have no types.
# mypy: disable-error-code="no-untyped-call"

import inspect
import operator
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Tuple, Union

import torch
from torch import Tensor, fx
from torch._C import DispatchKey
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import ExportedProgram, exported_program
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from .written_values import Unclear, as_new_values, written_values

__all__ = ["made_functional", "takes_apart"]

_aten = torch.ops.aten

_SIZES = frozenset(["is_contiguous", "size", "sym_size", "stride", "sym_stride", "numel", "sym_numel", "dim"])


def takes_apart(operation: Any) -> bool:
    """Whether a functional graph has other operations in the place of this one, which writes nothing."""
    if not isinstance(operation, torch._ops.OpOverload):
        return False
    if any(argument.alias_info is not None for argument in operation._schema.arguments):
        return operation._can_decompose()
    hidden = torch.Tag.maybe_aliasing_or_mutating in operation.tags or operation is _aten.native_batch_norm.default
    return hidden or DispatchKey.Autograd in operation.py_kernels


def made_functional(program: ExportedProgram) -> bool:
    """Take the composite operations of a program's graph apart, and make new values of those that are written, where
    nothing else has to be done.

    Returns:
        whether the graph is functional now; if not, it is as it was
    """
    graph, composite = program.graph, []
    _keep_literals(graph)
    for node in graph.nodes:
        if node.op not in ("placeholder", "call_function", "output"):
            return False  # a graph inside the graph, as of a region without gradients
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            return False
        writes = isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable
        if node.op == "call_function" and takes_apart(node.target) and not writes:
            composite.append(node)
    try:
        written = written_values(graph)
        steps = [_steps(node) for node in composite]
    except (_Unknown, Unclear, RuntimeError, TypeError, ValueError):
        return False
    renewed = as_new_values(graph, written)
    replaced: Dict[fx.Node, fx.Node] = {}
    for node, found in zip(composite, steps, strict=True):
        taken, result = _renewed(found, node, renewed)
        _put(graph, node, taken, result, replaced)
    if composite:  # what they are made of may hold for some lengths only
        program._guards_code = _guards(program.graph_module)
    return True


def _keep_literals(graph: fx.Graph) -> None:
    # `torch.tensor(…)` in a model is a copy that is detached in place, which changes no value.
    for node in graph.find_nodes(op="call_function", target=_aten.detach_.default):
        made = node.args[0]
        if made.target is _aten.lift_fresh_copy.default:
            node.replace_all_uses_with(made)
            graph.erase_node(node)


def _guards(graph_module: fx.GraphModule) -> List[str]:
    convert: Any = exported_program._convert_guards_to_code
    takes_sizes = "shape_env" in inspect.signature(convert).parameters  # up to torch 2.9
    return convert(exported_program._get_shape_env(graph_module) if takes_sizes else graph_module)


class _Unknown(Exception):
    pass


@dataclass(frozen=True)
class _Made:
    """An output of a step."""

    step: int
    item: int  # of its list of outputs; -1 if it has one


@dataclass
class _Step:
    target: Any
    args: Tuple[Any, ...]
    kwargs: Dict[str, Any]
    value: Any


_Source = Union[fx.Node, _Made]
_Steps = Tuple[List[_Step], Any]


def _steps(node: fx.Node) -> _Steps:
    """The operations that a composite one is made of, and what it gives: sources in the place of tensors."""
    values = [source.meta.get("val") for source in node.all_input_nodes]
    fakes = [value for value in values if isinstance(value, FakeTensor)]
    if not fakes or len({id(value) for value in fakes}) != len(fakes):
        raise _Unknown
    recorder = _Recorder({id(source.meta["val"]): source for source in node.all_input_nodes if "val" in source.meta})

    def value_of(argument: Any) -> Any:
        return argument.meta["val"] if isinstance(argument, fx.Node) else argument

    args, kwargs = pytree.tree_map(value_of, (list(node.args), dict(node.kwargs)))
    with torch.no_grad(), fakes[0].fake_mode, torch._C._AutoDispatchBelowAutograd(), recorder:
        result = _apart(node.target, args, kwargs)
    found = pytree.tree_map(recorder.source, result)
    expected, got = pytree.tree_leaves(node.meta["val"]), pytree.tree_leaves(result)
    if [(str(x.shape), x.dtype) for x in expected] != [(str(x.shape), x.dtype) for x in got]:
        raise _Unknown
    return recorder.steps, found


def _apart(operation: Any, args: List[Any], kwargs: Dict[str, Any]) -> Any:
    if operation is _aten.dropout.default:
        x, _, train = args
        if train:
            raise _Unknown
        return _aten.clone.default(x)
    if operation is _aten.batch_norm.default:
        x, weight, bias, mean, variance, training, momentum, eps, _ = args
        if training or mean is None or variance is None:
            raise _Unknown
        return _aten._native_batch_norm_legit_no_training.default(x, weight, bias, mean, variance, momentum, eps)[0]
    if torch.Tag.maybe_aliasing_or_mutating in operation.tags or DispatchKey.Autograd in operation.py_kernels:
        raise _Unknown
    return operation.decompose(*args, **kwargs)


class _Recorder(TorchDispatchMode):
    # Writes down every operation that is not composite, with nodes and steps in the place of its tensors.
    def __init__(self, known: Dict[int, _Source]) -> None:
        super().__init__()
        self.known = known
        self.kept: List[Any] = []  # so that no identity is used twice
        self.steps: List[_Step] = []

    def source(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if id(value) not in self.known:
            raise _Unknown
        return self.known[id(value)]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._schema.is_mutable:
            raise _Unknown
        if str(func._schema.name).split("::")[-1] in _SIZES:
            return func(*args, **kwargs)
        if takes_apart(func):
            with self:
                return _apart(func, list(args), kwargs)
        value = func(*args, **kwargs)
        if not isinstance(value, (Tensor, list, tuple)):
            return value
        sources, named = pytree.tree_map(self.source, (tuple(args), dict(kwargs)))
        outputs = list(value) if isinstance(value, (list, tuple)) else [value]
        for i, output in enumerate(outputs):
            if isinstance(output, Tensor) and id(output) not in self.known:
                self.known[id(output)] = _Made(len(self.steps), i if isinstance(value, (list, tuple)) else -1)
        self.kept.append(value)
        self.steps.append(_Step(func, sources, named, value))
        return value


def _put(graph: fx.Graph, node: fx.Node, steps: List[_Step], result: Any, replaced: Dict[fx.Node, fx.Node]) -> None:
    """Put operations in the place of the composite one that they make up; add what was replaced by what."""
    made: Dict[_Made, fx.Node] = {}

    def call(target: Any, args: Any, kwargs: Any, value: Any) -> fx.Node:
        new = graph.call_function(target, args, kwargs)
        new.meta = {**node.meta, "val": value}
        return new

    def resolved(source: Any) -> Any:
        if isinstance(source, fx.Node):
            return replaced.get(source, source)
        if not isinstance(source, _Made):
            return source
        if source not in made:
            group, value = made[_Made(source.step, -1)], steps[source.step].value
            made[source] = call(operator.getitem, (group, source.item), {}, value[source.item])
        return made[source]

    with graph.inserting_before(node):
        for i, step in enumerate(steps):
            args, kwargs = _mapped(resolved, (step.args, step.kwargs))
            made[_Made(i, -1)] = call(step.target, args, kwargs, step.value)
        sources = _mapped(resolved, result)
    items = [(node, sources)]
    if not isinstance(sources, fx.Node):
        items = [(user, sources[user.args[1]]) for user in node.users] + [(node, None)]  # each user takes an item
    for old, new in items:
        if new is not None:
            old.replace_all_uses_with(new)
            replaced[old] = new
        graph.erase_node(old)


def _renewed(found: _Steps, node: fx.Node, renewed: Dict[Tuple[fx.Node, fx.Node], fx.Node]) -> _Steps:
    """The steps of a composite operation, with the values as they are when it comes."""

    def now(source: Any) -> Any:
        return renewed.get((node, source), source) if isinstance(source, fx.Node) else source

    for step in found[0]:
        step.args, step.kwargs = _mapped(now, (step.args, step.kwargs))
    return found[0], _mapped(now, found[1])


def _mapped(function: Callable[[Any], Any], nest: Any) -> Any:
    return pytree.tree_map(function, nest, is_leaf=lambda leaf: isinstance(leaf, _Made))
