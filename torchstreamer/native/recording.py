"""Bodies without memory, recorded as ATen operations, and walked through."""

from typing import Any, Dict, List, Sequence, Union

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx

from . import operations, operations_along  # noqa: F401  (it registers itself)
from .arrays import Array, Arrays
from .program import Fault

__all__ = ["traced"]


def traced(arrays: Arrays, body: nn.Module, inputs: Sequence[Array], dtypes: Sequence[torch.dtype]) -> List[Any]:
    """What a body gives for arrays: arrays, or tensors of what is the same for all samples.

    Args:
        arrays: makes them
        body: takes tensors, gives one or a list of them
        inputs: the arrays
        dtypes: of the tensors

    Raises:
        Fault: an operation in it cannot be written
    """
    examples = [torch.rand(array.shape).to(dtype) for array, dtype in zip(inputs, dtypes, strict=True)]
    with torch.no_grad():
        graph = make_fx(torch.func.functionalize(body), decomposition_table=operations.decompositions())(*examples)
    graph.graph.eliminate_dead_code()
    for array, dtype in zip(inputs, dtypes, strict=True):
        array.whole = not (dtype.is_floating_point or dtype == torch.bool)
    return walked(arrays, graph, inputs)


def walked(arrays: Arrays, graph: fx.GraphModule, inputs: Sequence[Array]) -> List[Any]:
    """The outputs of a recorded graph for arrays."""
    known: Dict[fx.Node, Any] = {}
    given = iter(inputs)
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            known[node] = next(given)
        elif node.op == "get_attr":
            known[node] = getattr(graph, node.target).detach()
        elif node.op == "output":
            result = fx.node.map_arg(node.args[0], known.__getitem__)
            return list(result) if isinstance(result, (tuple, list)) else [result]
        else:
            known[node] = _computed(arrays, node, known)
        value = known[node]
        if isinstance(value, Array):
            value.uses = len(node.users)
    raise AssertionError("a graph without an output")


def _computed(arrays: Arrays, node: fx.Node, known: Dict[fx.Node, Any]) -> Any:
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), known.__getitem__)
    found: List[Union[Array, Tensor]] = []
    fx.node.map_aggregate((args, kwargs), lambda each: found.append(each) if isinstance(each, Array) else each)
    if not found:
        return node.target(*args, **kwargs)  # type: ignore[operator]
    name = _name(node)
    if name.endswith("_") and operations.rule(name) is None and _is_last(node):
        name = name[:-1]
    rule = operations.rule(name)
    if rule is None:
        raise Fault(f"no rule writes the operation {name}")
    if not operations.moves(name) and any(isinstance(each, Array) and each.whole for each in found):
        raise Fault(f"whole numbers, with which {name} computes")
    # What several read is computed once.
    for each in found:
        assert isinstance(each, Array)
        if each.uses > 1 and not operations.costs_nothing(each):
            stored = arrays.stored(each)
            each.expression, each.index = stored.expression, stored.index
    return rule(arrays, node, *args, **kwargs)


# Views that never share what they show.
_APART = {"unsafe_chunk", "unsafe_split", "unsafe_split_with_sizes", "split", "split_with_sizes", "chunk"}


def _is_last(node: fx.Node) -> bool:
    # Whether nobody else sees what an operation writes in place.
    own = node.args[0]
    if not isinstance(own, fx.Node) or len(own.users) != 1 or own.op != "call_function":
        return False
    if getattr(own.target, "__name__", "") == "getitem":
        whole = own.args[0]
        assert isinstance(whole, fx.Node)
        base = whole.args[0]
        return _name(whole) in _APART and isinstance(base, fx.Node) and len(base.users) == 1
    if _name(own).endswith("_"):
        return _is_last(own)
    schema = getattr(own.target, "_schema", None)
    return schema is not None and all(each.alias_info is None for each in schema.returns)


def _name(node: fx.Node) -> str:
    if isinstance(node.target, torch._ops.OpOverload):
        return node.target._schema.name.split("::")[1]
    return getattr(node.target, "__name__", str(node.target))
