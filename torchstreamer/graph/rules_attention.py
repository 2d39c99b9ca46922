"""Rules for operations that relate samples of signals to each other: products of queries and keys, attention."""

from typing import Any, Callable, Dict, List, Tuple

import torch
from torch import fx

from .distances import Head
from .lowering import Lowering, rule
from .masks import Board, Bound, Hidden
from .relation_body import Attended, Bias
from .rules_relation import added, board_of
from .values import EndSamples, Replay, Skew, Spread, Static, Value

__all__: List[str] = []


@rule("scaled_dot_product_attention")
def attention(low: Lowering, node: fx.Node, q: Value, a: Dict[str, Any]) -> Any:
    k, v, mask = a["key"], a["value"], a["attn_mask"]
    if not any(isinstance(x, Value) and x.time == len(x.shape) - 2 for x in (q, k, v)):
        return NotImplemented
    if not isinstance(k, Value) and not isinstance(v, Value) and not isinstance(mask, (Board, Spread)):
        return NotImplemented  # to a memory that is no signal
    for x in (q, k, v):
        if not isinstance(x, Value) or x.time != len(x.shape) - 2 or x.lifted:
            raise low.refuse(
                node, "cross_attention", "it attends from one signal to what is none", "give both as signals"
            )
    if isinstance(mask, (Value, EndSamples)):
        raise low.refuse(
            node,
            "mask_data",
            "its mask depends on values of the signal",
            "leave it out: rows of a batch end by final or by lengths, each for itself",
        )
    if isinstance(mask, Static):
        raise low.refuse(node, "mask_length", "its mask has a fixed length", "make it from the length of the signal")
    relating = low.relating
    rank = len(q.shape)
    rows, fold = (-1, 1) if q.rows is None else (q.rows, q.inner)
    hidden: Tuple[Any, ...] = relating.context
    bias = None
    if isinstance(mask, (Board, Spread)):
        board = board_of(mask)
        hidden += (Hidden(board, "seen" if mask.node.meta["val"].dtype == torch.bool else "add"),)
        bias = Bias(board, rank, fold, rows)
    if a["is_causal"]:
        hidden += (Bound.causal(),)
    if rows >= rank - 2 or (rows > 0 and fold > 1) or (rank < 3 and low.sizes.rows):
        raise low.refuse(node, "attention_layout", "its rows are not in front", "bring rows to the front")
    sides = relating.side(q, False), relating.side(k, True), relating.side(v, True)
    options = {"attn_mask": Attended(bias, rank, rows, fold), "scale": a["scale"]}
    if a.get("enable_gqa"):
        options["enable_gqa"] = True
    return relating.answered(node, Replay(node.target, sides, options), hidden)


@rule("matmul", "bmm")
def product(low: Lowering, node: fx.Node, x: Value, a: Dict[str, Any]) -> Any:
    one, other = list(a.values())[:2]
    if not _is_relation(low, node):
        return NotImplemented
    if isinstance(other, Spread) and not low.same_length(other.length, one.length):
        other = board_of(other)  # rows of distances
    if isinstance(other, Board):
        if one.time != len(one.shape) - 2:
            return NotImplemented
        return _by_distance(low, node, one, other, -1, lambda q, p: Replay(torch.ops.aten.matmul.default, (q, p)))
    if isinstance(other, Spread):
        other = low.positions.for_rows(other, one)
    if not isinstance(other, Value):
        return NotImplemented
    if one.time != len(one.shape) - 2 or other.time != len(other.shape) - 1:
        return NotImplemented
    return low.relating.product(node, one, other, lambda q, k: Replay(node.target, (q, k)))


def _by_distance(
    low: Lowering, node: fx.Node, q: Value, board: Board, axis: int, recipe: Callable[[Value, Static], Replay]
) -> Any:
    """The product of queries with rows of distances, if the rows stand on that axis, from the last."""
    shape = board.node.meta["val"].shape
    axes = [at - len(shape) for at, size in enumerate(shape) if low.sizes.varies(size)]
    many = any(low.sizes.has_rows(size) and low.sizes.at(size, low.lengths[0], 1) > 1 for size in shape)
    if axes != [axis] or many or q.lifted or q.merged:
        return NotImplemented
    return Skew(node, Head(node, q, board, axis, recipe))


@rule("baddbmm", takes=None)
def added_product(low: Lowering, node: fx.Node, x: Any, a: Dict[str, Any]) -> Any:
    one, other = a["batch1"], a["batch2"]
    if not isinstance(one, Value) or not isinstance(other, Value) or not _is_relation(low, node):
        return NotImplemented
    if one.time != len(one.shape) - 2 or other.time != len(other.shape) - 1:
        return NotImplemented
    alpha, beta = a.get("alpha", 1), a.get("beta", 1)
    scores = low.relating.product(node, one, other, lambda q, k: Replay(torch.ops.aten.bmm.default, (q, k)))
    if alpha != 1:
        scores = low.relating.like(node, scores, Replay(torch.ops.aten.mul.Tensor, (scores, alpha)), (), None)
    if not isinstance(x, (Board, Spread)) or beta != 1:
        return NotImplemented
    return added(low, node, torch.ops.aten.add.Tensor, (scores, x), {})


@rule("einsum", takes=None)
def einsum(low: Lowering, node: fx.Node, equation: str, a: Dict[str, Any]) -> Any:
    tensors = a["tensors"]
    if len(tensors) != 2 or not _is_relation(low, node) or "." in equation:
        return NotImplemented
    if isinstance(tensors[0], Value) and isinstance(tensors[1], Board):
        return _einsum_by_distance(low, node, equation, tensors[0], tensors[1])
    if not all(isinstance(x, Value) and not x.lifted for x in tensors):
        return NotImplemented
    left, right = equation.replace(" ", "").split("->")
    terms = left.split(",")
    letters = [term[x.time] for term, x in zip(terms, tensors, strict=True)]
    if letters[0] == letters[1] or sorted(right[-2:]) != sorted(letters):
        return NotImplemented
    first = letters.index(right[-2])
    one, other = tensors[first], tensors[1 - first]

    def recipe(q: Value, k: Value) -> Replay:
        return Replay(node.target, (equation, [q, k] if first == 0 else [k, q]))

    return low.relating.product(node, one, other, recipe)


def _einsum_by_distance(low: Lowering, node: fx.Node, equation: str, q: Value, board: Board) -> Any:
    left, right = equation.replace(" ", "").split("->")
    one, other = left.split(",")
    if right[-1] in one or right[-1] not in other or right[-2] != one[q.time]:
        return NotImplemented
    axis = other.index(right[-1]) - len(other)
    return _by_distance(low, node, q, board, axis, lambda side, p: Replay(node.target, (equation, [side, p])))


def _is_relation(low: Lowering, node: fx.Node) -> bool:
    shape = node.meta["val"].shape
    return [axis - len(shape) for axis, size in enumerate(shape) if low.sizes.varies(size)] == [-2, -1]
