"""Biases of the first keys of a signal, which queries see however far they are behind.

No table holds a bias of every distance. So the operations that make it run anew, on the positions of the queries at
hand and of the first keys, instead of on those of the whole signal.
"""

from typing import Any, Dict, Tuple

import torch
from torch import fx

from .mask_arithmetic import LENGTH, MaskError
from .mask_numbers import Number
from .mask_proof import CONSTANTS, COPIES, FILLED, PERMUTES, POINTWISE, SAME
from .mask_tables import arguments_of, order_of
from .masks import Board, Masks
from .ops.relating import FirstPlaces
from .refusals import operation_name
from .samplewise import is_pointwise
from .segment import Body

__all__ = ["FirstKeys"]

_RESHAPES = frozenset(["view", "_unsafe_view", "reshape", "unflatten", "flatten", "squeeze", "unsqueeze"])
_EXPANDS = frozenset(["expand", "broadcast_to"])


class FirstKeys:
    """Computes boards at places, as a part of a body.

    Args:
        body: takes the operations
        masks: knows what boards are made of
        queries: positions of queries, ``[b, m]``
        keys: how many the first keys are
    """

    def __init__(self, body: Body, masks: Masks, queries: fx.Node, keys: int) -> None:
        self.body = body
        self.graph = body.graph
        self.masks = masks
        asked = self.graph.call_function(torch.flatten, (queries,))
        self.places = {"queries": asked, "keys": body.module(FirstPlaces(keys), (queries,))}
        self.counts: Dict[str, Any] = {"queries": self.graph.call_method("size", (asked, 0)), "keys": keys}
        self._known: Dict[Any, fx.Node] = {}

    def of(self, board: Board) -> fx.Node:
        """The board ``[…, b · m, keys]``.

        Raises:
            MaskError: an operation needs more than the places of its entries
        """
        self.proof = self.masks.proof(board.node)
        self.n = self.masks.signal(self.proof.length, 1, None)  # of which nothing depends
        roles = {axis: "queries" if axis == -2 else "keys" for axis in self.proof.axes(board.node)}
        made = self._at(board.node, roles)
        return self.graph.call_method("expand", (made, self._shape(board.node, {-2: "queries", -1: "keys"})))

    # ------------------------------------------------------------------ inside

    def _at(self, node: fx.Node, roles: Dict[int, str]) -> fx.Node:
        """A tensor whose axes of time, counted from the last, hold queries or keys."""
        key = node, tuple(sorted(roles.items()))
        if key not in self._known:
            self._known[key] = self._made(node, roles) if roles else self._constant(node)
        return self._known[key]

    def _constant(self, node: fx.Node) -> fx.Node:
        known = self.proof.of(node)
        if isinstance(known, Number) and known.grow != 0:
            raise self._refused(node)
        return self.body.use(self.masks.static(node, self.n))

    def _made(self, node: fx.Node, roles: Dict[int, str]) -> fx.Node:
        name, a, value = operation_name(node), arguments_of(node), node.meta["val"]
        first = next(iter(a.values()), None)
        if name == "arange":
            return self._range(node, a, roles)
        if name in CONSTANTS or name in FILLED:
            fill = CONSTANTS[name] if name in CONSTANTS else a.get("fill_value")
            if not isinstance(fill, (int, float)):
                raise self._refused(node)
            args = (self.places["queries"], self._shape(node, roles), fill)
            return self.body.call("new_full", args, {"dtype": value.dtype})
        if name in ("embedding", "index"):
            return self._looked_up(node, name, a, roles)
        schema = getattr(node.target, "_schema", None)
        if not isinstance(first, fx.Node) or schema is None or schema.is_mutable:
            raise self._refused(node)
        if name in SAME:
            return self._at(first, roles)
        if name in COPIES:
            return self.body.call("to", (self._at(first, roles), value.dtype))
        if name in PERMUTES:
            order = order_of(name, a, value.dim())
            inner = {order[axis] - value.dim(): role for axis, role in roles.items()}
            return self.body.call("permute", (self._at(first, inner), order))
        if name in _RESHAPES:
            inner = dict(zip(self.proof.axes(first), [roles[axis] for axis in sorted(roles)], strict=True))
            return self.body.call(torch.reshape, (self._at(first, inner), self._shape(node, roles)))
        if name in _EXPANDS:
            inner = {axis: roles[axis] for axis in self.proof.axes(first)}
            return self.body.call("expand", (self._at(first, inner), self._shape(node, roles)))
        if name == "slice":
            if a.get("start") or a.get("step", 1) != 1 or (a.get("dim", 0) % value.dim()) - value.dim() not in roles:
                raise self._refused(node)
            return self._at(first, roles)
        if name in ("triu", "tril"):
            return self._triangle(self._at(first, roles), name, a.get("diagonal", 0), roles)
        if is_pointwise(node) or name in POINTWISE:
            named = {key: self._argument(node, item, roles) for key, item in node.kwargs.items()}
            return self.body.call(node.target, self._argument(node, node.args, roles), named)
        raise self._refused(node)

    def _range(self, node: fx.Node, a: Dict[str, Any], roles: Dict[int, str]) -> fx.Node:
        start, step = a.get("start", 0), a.get("step", 1)
        if not isinstance(start, (int, float)) or not isinstance(step, (int, float)):
            raise self._refused(node)
        place = self.places[roles[-1]]
        place = self.body.call(torch.add, (self.body.call(torch.mul, (place, step)), start))
        return self.body.call("to", (place, node.meta["val"].dtype))

    def _looked_up(self, node: fx.Node, name: str, a: Dict[str, Any], roles: Dict[int, str]) -> fx.Node:
        """Entries of a table without time."""
        table, places = (a["weight"], [a["indices"]]) if name == "embedding" else (a["self"], list(a["indices"]))
        *before, index = places
        if self.proof.axes(table) or any(each is not None for each in before):
            raise self._refused(node)
        behind = table.meta["val"].dim() - len(places)  # axes of the table after the one that is looked up
        entries = self._at(index, {axis + behind: role for axis, role in roles.items()})
        if name == "embedding":
            return self.body.call(node.target, (self._at(table, {}), entries))
        return self.body.call(node.target, (self._at(table, {}), [*before, entries]))

    def _triangle(self, x: fx.Node, name: str, diagonal: Any, roles: Dict[int, str]) -> fx.Node:
        row = self.body.call(torch.unsqueeze, (self.places[roles[-2]], 1))
        ahead = self.body.call(torch.sub, (self.places[roles[-1]], row))
        gone = self.body.call(torch.lt if name == "triu" else torch.gt, (ahead, diagonal))
        return self.body.call(torch.masked_fill, (x, gone, 0))

    def _argument(self, node: fx.Node, value: Any, roles: Dict[int, str]) -> Any:
        if isinstance(value, (list, tuple)):
            return type(value)(self._argument(node, item, roles) for item in value)
        if isinstance(value, fx.Node) and isinstance(value.meta["val"], torch.Tensor):
            return self._at(value, {axis: roles[axis] for axis in self.proof.axes(value)})
        if isinstance(value, fx.Node):
            raise self._refused(node)  # a length, as a number
        return value

    def _shape(self, node: fx.Node, roles: Dict[int, str]) -> Tuple[Any, ...]:
        shape, sizes = node.meta["val"].shape, self.masks.sizes
        at = [axis - len(shape) for axis in range(len(shape))]
        return tuple(
            self.counts[roles[axis]] if axis in roles else sizes.at(size, self.n, 1)
            for axis, size in zip(at, shape, strict=True)
        )

    def _refused(self, node: fx.Node) -> MaskError:
        return MaskError(LENGTH, f"'{operation_name(node)}' needs the whole signal", node)
