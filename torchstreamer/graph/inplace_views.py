"""Views that a model changes in place: in the exported graph, reads of what was just written."""

import sys
from typing import Any, List, Optional

import torch
from torch import fx

__all__ = ["read_back"]

# What writes a part of a value, and what reads such a part.
_PARTS = {
    torch.ops.aten.slice.Tensor: torch.ops.aten.slice_scatter.default,
    torch.ops.aten.select.int: torch.ops.aten.select_scatter.default,
}
_VIEWS = (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default)


def read_back(graph: fx.Graph) -> None:
    """Let readers of a part that was just written take what was written; drop what nobody reads.

    A view that is changed in place is exported as a write into the viewed value and a read of the same part, where
    need be with the axes brought back and forth in between, or taken apart and put together.
    """
    nodes: List[Any] = list(graph.nodes)
    for node in nodes:
        moved = _order(node)
        if moved is not None:
            before = _order(node.args[0])
            if before is not None and [before[axis] for axis in moved] == list(range(len(moved))):
                node.replace_all_uses_with(node.args[0].args[0])
        if node.target in _VIEWS and node.args[0].target in _VIEWS:
            whole = node.args[0].args[0]
            if str(whole.meta["val"].shape) == str(node.meta["val"].shape):
                node.replace_all_uses_with(whole)
        written = node.args[0] if node.target in _PARTS else None
        if isinstance(written, fx.Node) and written.target is _PARTS[node.target]:
            if _place(node, 1) == _place(written, 2):
                node.replace_all_uses_with(written.args[1])
        if node.target is torch.ops.aten.copy.default and node.args[0] is node.args[1]:
            node.replace_all_uses_with(node.args[0])
        if node.target in _PARTS.values() and isinstance(node.args[0], fx.Node):
            # What is written twice in one place, as `y[1:] += x` is exported, counts the second time alone.
            earlier = node.args[0]
            if earlier.target is node.target and _place(earlier, 2) == _place(node, 2):
                node.replace_input_with(earlier, earlier.args[0])
    graph.eliminate_dead_code()


def _order(node: Any) -> Optional[List[int]]:
    # The order into which a node brings the axes, if that is all it does.
    if node.op != "call_function" or node.target not in (torch.ops.aten.permute.default, torch.ops.aten.transpose.int):
        return None
    rank = node.meta["val"].dim()
    if node.target is torch.ops.aten.permute.default:
        return [axis % rank for axis in node.args[1]]
    order = list(range(rank))
    one, other = node.args[1] % rank, node.args[2] % rank
    order[one], order[other] = other, one
    return order


def _place(node: Any, first: int) -> List[str]:
    # Which part it is, of arguments from `first` on; what is left out has its default.
    names = ("dim", "start", "end", "step") if "slice" in str(node.target) else ("dim", "index")
    given = dict(zip(names, node.args[first:], strict=False)) | {k: v for k, v in node.kwargs.items() if k in names}
    given = {"dim": 0, "start": 0, "end": sys.maxsize, "step": 1} | {k: v for k, v in given.items() if v is not None}
    return [str(v.meta["val"] if isinstance(v, fx.Node) else v) for v in (given.get(name) for name in names)]
