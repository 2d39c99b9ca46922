"""What a recorded step computes from weights alone is computed once."""

from typing import Any, Dict, Set

import torch
from torch import Tensor, fx

__all__ = ["fold_constants"]


def fold_constants(graph: fx.GraphModule) -> None:
    """Replace all that depends on neither chunk nor states by its value, as weights in another layout.

    Args:
        graph: of ATen operations
    """
    changed: Set[fx.Node] = set()
    for node in graph.graph.nodes:
        if _changes(node):
            changed.update(_memory_of(node))
    known: Dict[fx.Node, Any] = {}
    for node in graph.graph.nodes:
        if node in changed or any(user.op == "output" for user in node.users):
            continue  # what a step gives is the caller's, so it is made anew
        needs = node.all_input_nodes
        if node.op == "get_attr":
            known[node] = getattr(graph, node.target)
        elif node.op == "call_function" and needs and all(need in known for need in needs) and not _random(node):
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), known.__getitem__)
            known[node] = node.target(*args, **kwargs)
    for node, value in known.items():
        if node.op == "get_attr" or not isinstance(value, Tensor) or all(user in known for user in node.users):
            continue
        name = f"folded_{node.name}"
        graph.register_buffer(name, value.detach().clone(memory_format=torch.contiguous_format))
        with graph.graph.inserting_before(node):
            node.replace_all_uses_with(graph.graph.get_attr(name))
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _changes(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _random(node: fx.Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _memory_of(node: fx.Node) -> Set[fx.Node]:
    # What a changed tensor may share its memory with, among what it was computed from.
    found: Set[fx.Node] = set()
    ends = [node]
    while ends:
        node = ends.pop()
        if node not in found:
            found.add(node)
            schema = getattr(node.target, "_schema", None)
            if schema is None or any(value.alias_info is not None for value in schema.returns):
                ends += node.all_input_nodes
    return found
