"""Values that a model changes in place, in an exported graph: each change gives a new value instead."""

from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Tuple

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils import _pytree as pytree

__all__ = ["Unclear", "as_new_values", "written_values"]


class Unclear(Exception):
    """What is written may be seen through something else."""


@dataclass
class Written:
    """A value that is written as a whole, and all that writes it."""

    made: fx.Node
    changes: List[Tuple[fx.Node, Any, Any]] = field(default_factory=list)  # each with its functional form and result

    def nodes(self) -> List[fx.Node]:
        """All that stand for the value, early or late."""
        return [self.made, *(node for node, _, _ in self.changes)]


def written_values(graph: fx.Graph) -> List[Written]:
    """The values that a graph changes in place.

    Raises:
        Unclear: one of them is an input or a weight, or is written through a view or seen through one later
    """
    writers = [node for node in graph.nodes if _writes(node)]
    if not writers:
        return []
    place = {node: i for i, node in enumerate(graph.nodes)}
    sharing: Dict[int, List[fx.Node]] = {}
    for node in graph.nodes:
        for memory in _memories(node):
            sharing.setdefault(memory, []).append(node)
    found: Dict[int, Written] = {}
    for node in writers:
        functional, memories = _functional(node.target), _memories(node)
        written = node.args[0] if node.args else None
        if functional is None or len(memories) != 1 or not isinstance(written, fx.Node):
            raise Unclear
        if _memories(written) != memories:
            raise Unclear
        group = sharing[memories[0]]
        one = found.setdefault(memories[0], Written(group[0]))
        if one.made.op != "call_function" or _writes(one.made) or written not in one.nodes():
            raise Unclear
        one.changes.append((node, functional, _result(node, functional)))
    for memory, one in found.items():
        _require_unseen(one, sharing[memory], place)
    return list(found.values())


def as_new_values(graph: fx.Graph, values: List[Written]) -> Dict[Tuple[fx.Node, fx.Node], fx.Node]:
    """Let each change give a new value, which all take that come after it.

    Returns:
        what each user takes now, by the user and what it took before
    """
    renewed: Dict[Tuple[fx.Node, fx.Node], fx.Node] = {}
    place = {node: i for i, node in enumerate(graph.nodes)}
    for value in values:
        latest = []
        for node, functional, result in value.changes:
            with graph.inserting_before(node):
                new = graph.call_function(functional, node.args, node.kwargs)
            new.meta = {**node.meta, "val": result}
            place[new] = place[node]
            latest.append((place[node], new))
        for old in value.nodes():
            for user in list(old.users):
                before = [new for at, new in latest if at < place[user]]
                renewed[user, old] = before[-1] if before else value.made
                user.replace_input_with(old, renewed[user, old])
        for node, _, _ in value.changes:
            graph.erase_node(node)
    return renewed


def _writes(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _memories(node: fx.Node) -> List[int]:
    # Of the tensors that a node gives: who views one of them shares its memory, in the exporter's stand-ins too.
    leaves = pytree.tree_leaves(node.meta.get("val"))
    return [leaf.untyped_storage()._cdata for leaf in leaves if isinstance(leaf, Tensor)]


def _functional(operation: Any) -> Optional[Any]:
    """The operation that gives what this one leaves in its first argument, if it writes nothing else."""
    schema = operation._schema
    name = schema.name.split("::")[-1]
    plain = operation.namespace == "aten" and name.endswith("_") and not name.startswith("_")
    packet = getattr(torch.ops.aten, name[:-1], None) if plain else None
    if packet is None or operation._overloadname not in packet.overloads():
        return None
    written = [bool(each.alias_info and each.alias_info.is_write) for each in schema.arguments]
    found = getattr(packet, operation._overloadname)
    same = [each.name for each in found._schema.arguments] == [each.name for each in schema.arguments]
    views = any(each.alias_info for each in [*found._schema.arguments, *found._schema.returns])
    chance = torch.Tag.nondeterministic_seeded in operation.tags
    if not same or views or chance or written != [True] + [False] * (len(written) - 1):
        return None
    return found


def _result(node: fx.Node, functional: Any) -> Any:
    # A value keeps its dtype and shape however it is written; a new one may have others.
    def value_of(argument: Any) -> Any:
        return argument.meta["val"] if isinstance(argument, fx.Node) else argument

    args, kwargs = pytree.tree_map(value_of, (tuple(node.args), dict(node.kwargs)))
    was = args[0]
    if not isinstance(was, FakeTensor):
        raise Unclear
    with torch.no_grad(), was.fake_mode:
        result = functional(*args, **kwargs)
    if not isinstance(result, Tensor) or result.dtype != was.dtype or str(result.shape) != str(was.shape):
        raise Unclear
    return result


def _require_unseen(value: Written, group: List[fx.Node], place: Dict[fx.Node, int]) -> None:
    # Whatever views the value may be used until it is written next.
    same = set(value.nodes())
    changes = sorted(place[node] for node, _, _ in value.changes)
    for node in group:
        if node not in same:
            following = [at for at in changes if at > place[node]]
            if following and any(place[user] >= following[0] for user in node.users):
                raise Unclear
