"""Scores laid out as ``[queries, keys, …]``: in the exported graph, the same with queries and keys last.

A product of queries and keys whose axes are not last is computed with them last and brought back. What treats single
scores, a softmax and the sum over the keys are then computed before that, so nothing is left to bring back.
"""

from typing import Any, Dict, List, NamedTuple, Optional

import torch
from torch import Tensor, fx

from .lengths import Sizes

__all__ = ["turn_scores"]

_PERMUTE = torch.ops.aten.permute.default
_PLAIN = frozenset(["clone", "alias", "detach", "contiguous", "_to_copy", "to", "type_as", "dropout"])


class _Turned(NamedTuple):
    """Scores with queries and keys last, and the order of axes in which the model has them."""

    node: fx.Node
    order: List[int]


def turn_scores(graph: fx.Graph, sizes: Sizes) -> None:
    """Bring queries and keys to the end of the scores that products by letters give."""
    known: Dict[fx.Node, _Turned] = {}
    for node in list(graph.nodes):
        if not isinstance(node.target, torch._ops.OpOverload) or not isinstance(node.meta.get("val"), Tensor):
            continue
        name = node.target._schema.name.split("::")[-1]
        with graph.inserting_before(node):
            if name == "einsum":
                _summed(graph, node, known)
                _product(graph, node, sizes, known)
                continue
            turned = next((known[each] for each in node.all_input_nodes if each in known), None)
            if turned is None:
                continue
            if name in ("softmax", "_softmax"):
                dim = turned.order[node.args[1] % len(turned.order)]
                made = graph.call_function(node.target, (turned.node, dim, *node.args[2:]), node.kwargs)
            elif torch.Tag.pointwise in node.target.tags or name in _PLAIN:
                made = _pointwise(graph, node, turned.order, known)
            else:
                continue
            _bring_back(graph, node, made, turned.order, known)
    if known:
        graph.eliminate_dead_code()


def _product(graph: fx.Graph, node: fx.Node, sizes: Sizes, known: Dict[fx.Node, _Turned]) -> None:
    shape = node.meta["val"].shape
    times = [axis for axis, size in enumerate(shape) if sizes.varies(size)]
    equation = str(node.args[0]).replace(" ", "")
    if len(times) != 2 or times == [len(shape) - 2, len(shape) - 1] or "->" not in equation or "." in equation:
        return
    terms, letters = equation.split("->")
    inner = [
        axis for axis in range(len(shape)) if axis not in times
    ] + times  # axes as they stand, queries and keys last
    turned = "".join(letters[axis] for axis in inner)
    target: Any = node.target
    made = graph.call_function(target, (f"{terms}->{turned}", *node.args[1:]), node.kwargs)
    _bring_back(graph, node, made, [inner.index(axis) for axis in range(len(shape))], known)


def _summed(graph: fx.Graph, node: fx.Node, known: Dict[fx.Node, _Turned]) -> None:
    terms, arrow, letters = str(node.args[0]).replace(" ", "").partition("->")
    tensors: List[Any] = list(node.args[1])  # type: ignore[arg-type]
    each = terms.split(",")
    for at, tensor in enumerate(tensors):
        if tensor in known and len(each) == len(tensors) and "." not in terms:
            turned = known[tensor]
            each[at] = "".join(each[at][turned.order.index(axis)] for axis in range(len(turned.order)))
            tensors[at] = turned.node
    node.args = (",".join(each) + arrow + letters, tensors, *node.args[2:])


def _pointwise(graph: fx.Graph, node: fx.Node, order: List[int], known: Dict[fx.Node, _Turned]) -> fx.Node:
    back = [order.index(axis) for axis in range(len(order))]

    def placed(thing: Any) -> Any:
        if not isinstance(thing, fx.Node) or not isinstance(thing.meta.get("val"), Tensor):
            return thing
        if thing in known and known[thing].order == order:
            return known[thing].node
        value = thing.meta["val"]
        if value.dim() == 0:
            return thing
        while value.dim() < len(order):
            value = value.unsqueeze(0)
            thing = _like(graph, thing, torch.ops.aten.unsqueeze.default, (thing, 0), value)
        return _like(graph, thing, _PERMUTE, (thing, back), value.permute(back))

    args = fx.node.map_aggregate(node.args, placed)
    kwargs = fx.node.map_aggregate(node.kwargs, placed)
    return graph.call_function(node.target, args, kwargs)  # type: ignore[arg-type]


def _like(graph: fx.Graph, node: fx.Node, target: Any, args: Any, value: Optional[Tensor]) -> fx.Node:
    made = graph.call_function(target, args)
    made.meta = {**node.meta, "val": value}
    return made


def _bring_back(graph: fx.Graph, node: fx.Node, made: fx.Node, order: List[int], known: Dict[fx.Node, _Turned]) -> None:
    value = node.meta["val"]
    made.meta = {**node.meta, "val": value.permute([order.index(axis) for axis in range(len(order))])}
    back = _like(graph, node, _PERMUTE, (made, order), value)
    node.replace_all_uses_with(back)
    known[back] = _Turned(made, order)
    graph.erase_node(node)
