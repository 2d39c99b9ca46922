"""Parts of a value that a mask takes and that are written back, as in ``y[m] = y[m] / w[m]``, as a choice.

How many entries a mask takes depends on values. Where operations on single entries alone stand between the taking and
the writing, with one mask, the same comes of ``torch.where(m, y / w, y)``. What is computed where nothing is written is
computed of ones, so that no gradient comes from there.
"""

from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor, fx

__all__ = ["choose_parts"]

_aten = torch.ops.aten
_CHECKS = frozenset(["_assert_scalar", "_assert_async", "sym_constrain_range_for_size", "sym_constrain_range"])


class _Part(NamedTuple):
    """What a mask takes, or what it is written to: the value, the mask, and how many axes stand behind those of it."""

    value: fx.Node
    mask: fx.Node
    behind: int


def choose_parts(graph: fx.Graph) -> None:
    """Let choices stand for what is taken and written by one mask."""
    changed = False
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target is not _aten.index_put.default:
            continue
        place = _part(node)
        if place is None or (len(node.args) > 3 and node.args[3]) or not isinstance(node.args[2], fx.Node):
            continue
        with graph.inserting_before(node):
            made = _Made(graph, place)
            found = made.whole(node.args[2])
            if found is not None:
                chosen = made.call(_aten.where.self, (made.seen, found, place.value))
                if str(chosen.meta["val"].shape) == str(node.meta["val"].shape):
                    node.replace_all_uses_with(chosen)
                    changed = True
    if changed:
        for node in list(graph.nodes):
            if node.op == "call_function" and getattr(node.target, "_opname", "") in _CHECKS and not node.users:
                graph.erase_node(node)
    graph.eliminate_dead_code()


def _part(node: fx.Node) -> Optional[_Part]:
    value, indices = node.args[0], node.args[1]
    masks = [each for each in indices if each is not None]  # type: ignore[union-attr]
    if len(masks) != 1 or not isinstance(value, fx.Node) or not isinstance(masks[0], fx.Node):
        return None
    mask = masks[0].meta["val"]
    if mask.dtype != torch.bool or indices[-1] is not masks[0]:  # type: ignore[index]
        return None
    before = len(indices) - 1  # type: ignore[arg-type]
    behind = value.meta["val"].dim() - before - mask.dim()
    wide = value.meta["val"].shape[before : before + mask.dim()]
    return _Part(value, masks[0], behind) if str(wide) == str(mask.shape) else None


class _Made:
    # Makes of all entries what a graph makes of those that a mask takes.
    def __init__(self, graph: fx.Graph, place: _Part) -> None:
        self.graph = graph
        self.place = place
        self.known: Dict[fx.Node, Optional[fx.Node]] = {}
        self.seen = place.mask
        for _ in range(place.behind):
            self.seen = self.call(_aten.unsqueeze.default, (self.seen, -1))

    def whole(self, node: fx.Node) -> Optional[fx.Node]:
        """The same of all entries; ``None`` if it is made of more than single entries."""
        if node not in self.known:
            self.known[node] = self._whole(node)
        return self.known[node]

    def _whole(self, node: fx.Node) -> Optional[fx.Node]:
        if node.op != "call_function":
            return None
        if node.target is _aten.index.Tensor:
            part = _part(node)
            if part is None or (part.mask, part.behind) != (self.place.mask, self.place.behind):
                return None
            unseen = self.call(_aten.logical_not.default, (self.seen,))
            return self.call(_aten.masked_fill.Scalar, (part.value, unseen, 1))
        if not isinstance(node.target, torch._ops.OpOverload) or torch.Tag.pointwise not in node.target.tags:
            return None
        args: List[Any] = []
        for arg in (*node.args, *node.kwargs.values()):
            inner = arg
            if isinstance(arg, fx.Node) and isinstance(arg.meta.get("val"), Tensor):
                inner = self.whole(arg)
                if inner is None and arg.meta["val"].dim() <= self.place.behind and not _unknown(arg):
                    inner = arg  # beside the axes of the mask
                if inner is None:
                    return None
            elif isinstance(arg, (fx.Node, list, tuple)):
                return None
            args.append(inner)
        count = len(node.args)
        return self.call(node.target, tuple(args[:count]), dict(zip(node.kwargs, args[count:], strict=True)))

    def call(self, target: Any, args: Tuple[Any, ...], kwargs: Optional[Dict[str, Any]] = None) -> fx.Node:
        """An operation."""
        node = self.graph.call_function(target, args, kwargs or {})
        given = [arg.meta["val"] if isinstance(arg, fx.Node) else arg for arg in args]
        with torch.no_grad(), self.place.value.meta["val"].fake_mode:
            value = target(*given, **(kwargs or {}))
        trace = {key: item for key, item in self.place.value.meta.items() if key in ("nn_module_stack", "stack_trace")}
        node.meta = {**trace, "val": value}
        return node


def _unknown(node: fx.Node) -> bool:
    """Whether a tensor has a size that depends on values."""
    sizes = [size for size in node.meta["val"].shape if isinstance(size, torch.SymInt)]
    return any(str(symbol).startswith("u") for size in sizes for symbol in size.node.expr.free_symbols)
