"""Rules for operations on relations of queries and keys: what they make of scores, weights and biases."""

import math
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, fx

from .distances import LIKE, MOVES
from .lowering import Lowering
from .masks import Board, Hidden
from .reasons import reason_for
from .refusals import operation_name
from .relation_body import Bias, Softened, Zeroed
from .rules_shape import constructor
from .samplewise import is_pointwise
from .values import EndSamples, Group, Relation, Replay, Rows, Skew, Span, Spread, Static, Value, things_in

__all__ = ["added", "board_of", "related"]

_LOW = -1e3  # instead of a score hides a key as -inf does, where another is seen


def board_of(thing: Any) -> Board:
    """A tensor that depends on no signal, as a mask or bias."""
    return thing if isinstance(thing, Board) else Board(thing.node, None)


def related(low: Lowering, node: fx.Node, args: Sequence[Any], kwargs: Dict[str, Any], bound: Dict[str, Any]) -> Any:
    """What an operation makes of relations: another one, or a value.

    Raises:
        UnsupportedModuleError: it has no rule
    """
    name = operation_name(node)
    if name in LIKE:
        return constructor(low, node, None, bound)  # scores only say its dtype and device
    skews = [thing for thing in things_in([args, kwargs]) if isinstance(thing, Skew)]
    if skews:
        if name in MOVES and len(skews) == 1 and not any(isinstance(x, Value) for x in things_in([args, kwargs])):
            return Skew(node, skews[0].head, skews[0].moved | {node})
        by = {skew: low.relating.shifted(skew) for skew in skews}
        args, kwargs, bound = (_put(each, by) for each in (args, kwargs, bound))
    first = next(iter(bound.values()), None)
    if name in _RULES:
        found = _RULES[name](low, node, first, bound)
        if found is not NotImplemented:
            return found
    if is_pointwise(node) or name in _RULES_POINTWISE:
        return _pointwise(low, node, name, args, kwargs)
    raise _refused(low, node)


def _put(argument: Any, by: Dict[Any, Any]) -> Any:
    if isinstance(argument, (list, tuple)):
        return type(argument)(_put(item, by) for item in argument)
    if isinstance(argument, dict):
        return {key: _put(item, by) for key, item in argument.items()}
    return by.get(argument, argument) if isinstance(argument, Skew) else argument


def _refused(low: Lowering, node: fx.Node) -> Exception:
    name = operation_name(node)
    return low.refuse(
        node, "attention_layout", f"'{name}' of scores between queries and keys has no stream", reason_for("matmul")[1]
    )


def _softmax(low: Lowering, node: fx.Node, x: Any, a: Dict[str, Any]) -> Any:
    if not isinstance(x, Relation) or a["dim"] % x.rank != x.rank - 1:
        return NotImplemented
    hidden = x.hidden + low.relating.context
    if x.gone != -math.inf and not low.relating.context:
        low.relating.bounded(node, (), x.sides[0])
    target, rest = node.target, [thing for key, thing in a.items() if key not in ("self", "input")]
    made = low.relating.like(node, x, Replay(target, (Softened(x), *rest)), hidden, 0.0)
    made.softened = True
    return made


def _answers(low: Lowering, node: fx.Node, x: Any, a: Dict[str, Any]) -> Any:
    one, other = [a["batch1"], a["batch2"]] if "batch1" in a else list(a.values())[:2]
    if not isinstance(one, Relation) or not isinstance(other, Value) or other.time != len(other.shape) - 2:
        return NotImplemented
    if "batch1" in a:
        return NotImplemented
    return _answered(low, node, one, Replay(node.target, (one, low.relating.side(other, True))))


def _answered(low: Lowering, node: fx.Node, x: Relation, recipe: Replay) -> Value:
    if x.gone != 0:
        low.relating.bounded(node, (), x.sides[0])
    if not x.softened:
        recipe = Replay(recipe.target, _instead(recipe.args, x, Zeroed(x)), recipe.kwargs)
    return low.relating.answered(node, recipe, x.hidden)


def _instead(argument: Any, x: Relation, by: Any) -> Any:
    if isinstance(argument, (list, tuple)):
        return type(argument)(_instead(item, x, by) for item in argument)
    return by if argument is x else argument


def _einsum(low: Lowering, node: fx.Node, equation: Any, a: Dict[str, Any]) -> Any:
    tensors = a["tensors"]
    if len(tensors) != 2 or "." in equation:
        return NotImplemented
    left, right = equation.replace(" ", "").split("->")
    terms = left.split(",")
    for at in (0, 1):
        x, v = tensors[at], tensors[1 - at]
        if isinstance(x, Relation) and isinstance(v, Value) and not v.lifted:
            key, query = terms[at][-1], terms[at][-2]
            if terms[1 - at][v.time] == key and key not in right and query in right:
                side = low.relating.side(v, True)
                pair = [x, side] if at == 0 else [side, x]
                return _answered(low, node, x, Replay(node.target, (equation, pair)))
    return NotImplemented


def _view(low: Lowering, node: fx.Node, x: Any, a: Dict[str, Any]) -> Any:
    if not isinstance(x, Relation) or ("dtype" in a and "size" not in a):
        return NotImplemented
    rank, rows, fold = low.relating.placed(node, low.relating.whole(x))
    shape = node.meta["val"].shape
    sizes: List[Any] = [low.sizes.settled(size) for size in shape]
    if rows >= 0:
        sizes[rows] = Rows(fold)
    sizes[-2], sizes[-1] = Span(x.sides[0]), Span(x.sides[1])
    return low.relating.like(node, x, Replay("reshape", (x, sizes)), x.hidden, x.gone)


def _sliced(low: Lowering, node: fx.Node, x: Any, a: Dict[str, Any]) -> Any:
    if not isinstance(x, Relation) or a["dim"] % x.rank >= x.rank - 2 or a["dim"] % x.rank == x.rows:
        return NotImplemented
    arguments = tuple(a.values())
    if any(isinstance(each, torch.SymInt) for each in arguments):
        return NotImplemented
    return low.relating.like(node, x, Replay(node.target, arguments), x.hidden, x.gone)


def _copied(low: Lowering, node: fx.Node, x: Any, a: Dict[str, Any]) -> Any:
    if not isinstance(x, Relation):
        return NotImplemented
    dtype = node.meta["val"].dtype
    return low.relating.like(node, x, Replay(torch.ops.aten.to.dtype, (x, dtype)), x.hidden, x.gone)


def _masked(low: Lowering, node: fx.Node, x: Any, a: Dict[str, Any]) -> Any:
    """`masked_fill`."""
    board, value = a["mask"], _number(low, a["value"])
    if not isinstance(x, Relation) or not isinstance(board, (Board, Spread)) or value is None:
        return NotImplemented
    board = board_of(board)
    return _filled(low, node, x, board, "masked", value, lambda bias: Replay(node.target, (x, bias, a["value"])))


def _where(low: Lowering, node: fx.Node, x: Any, a: Dict[str, Any]) -> Any:
    board, one, other = list(a.values())[:3]
    if not isinstance(board, (Board, Spread)):
        return NotImplemented
    board = board_of(board)
    for scores, number, sense in ((one, other, "seen"), (other, one, "masked")):
        value = _number(low, number)
        if isinstance(scores, Relation) and value is not None:
            return _filled(low, node, scores, board, sense, value, lambda bias: Replay(node.target, (bias, one, other)))
    return NotImplemented


def _filled(
    low: Lowering,
    node: fx.Node,
    x: Relation,
    board: Board,
    sense: str,
    value: float,
    recipe: Callable[[Bias], Replay],
) -> Relation:
    hidden: Tuple[Any, ...] = ()
    gone = None
    if value <= _LOW:
        hidden, gone = (*_kept(x, -math.inf), Hidden(board, sense, math.isfinite(value))), -math.inf
    elif value == 0:
        hidden, gone = (*_kept(x, 0.0), Hidden(board, sense)), 0.0
    bias = Bias(board, x.rank, x.fold, x.rows)
    return low.relating.like(node, x, recipe(bias), hidden, gone)


def _kept(x: Relation, value: float) -> Tuple[Any, ...]:
    """What hides keys by this value already; another value is overwritten, or counts."""
    return x.hidden if x.gone == value else ()


def _number(low: Lowering, thing: Any) -> Optional[float]:
    if isinstance(thing, (int, float)):
        return float(thing)
    if isinstance(thing, Static) and not thing.given:
        tensor = low.weights.tensor(thing)
        if tensor.numel() == 1 and not isinstance(tensor, torch.nn.Parameter):
            return float(tensor.item())
    return None


def _add(low: Lowering, node: fx.Node, x: Any, a: Dict[str, Any]) -> Any:
    one, other = list(a.values())[:2]
    if a.get("alpha", 1) != 1:
        return NotImplemented
    return added(low, node, node.target, (one, other), {})


def added(low: Lowering, node: fx.Node, target: Any, pair: Sequence[Any], kwargs: Dict[str, Any]) -> Any:
    """A relation with a mask or bias added to it."""
    for x, other in (pair, tuple(reversed(pair))):
        if isinstance(x, Relation) and isinstance(other, (Board, Spread)):
            board = board_of(other)
            hidden = (*_kept(x, -math.inf), Hidden(board, "add"))
            bias = Bias(board, x.rank, x.fold, x.rows)
            return low.relating.like(node, x, Replay(target, (x, bias), kwargs), hidden, -math.inf)
    return NotImplemented


def _mul(low: Lowering, node: fx.Node, x: Any, a: Dict[str, Any]) -> Any:
    one, other = list(a.values())[:2]
    for scores, board in ((one, other), (other, one)):
        if isinstance(scores, Relation) and isinstance(board, (Board, Spread)):
            board = board_of(board)
            bias = Bias(board, scores.rank, scores.fold, scores.rows)
            hidden: Tuple[Any, ...] = ()
            gone = None
            if scores.gone in (None, 0):
                hidden, gone = (*scores.hidden, Hidden(board, "seen")), 0.0
            return low.relating.like(node, scores, Replay(node.target, (scores, bias)), hidden, gone)
    return NotImplemented


def _pointwise(low: Lowering, node: fx.Node, name: str, args: Sequence[Any], kwargs: Dict[str, Any]) -> Relation:
    relations = [thing for thing in things_in([args, kwargs]) if isinstance(thing, Relation)]
    first = relations[0]
    placed: Dict[Any, Any] = {}
    for thing in things_in([args, kwargs]):
        if isinstance(thing, (Group, EndSamples, torch.SymInt)):
            raise _refused(low, node)
        if isinstance(thing, Static):
            shape = thing.node.meta["val"].shape
            if any(size != 1 for size in shape[-2:]):
                raise _refused(low, node)
        if isinstance(thing, Value):
            axis = thing.time - len(thing.shape)
            if axis not in (-1, -2) or not low.same_length(thing.length, low.relating.whole(first).length):
                raise _refused(low, node)
            placed[thing] = low.relating.side(thing, axis == -1)

    def fill(thing: Any) -> Any:
        if isinstance(thing, (list, tuple)):
            return type(thing)(fill(item) for item in thing)
        if isinstance(thing, dict):
            return {key: fill(item) for key, item in thing.items()}
        if isinstance(thing, (Board, Spread)):
            return Bias(board_of(thing), first.rank, first.fold, first.rows)
        return placed.get(thing, thing) if isinstance(thing, Value) else thing

    recipe = Replay(node.target, fill(tuple(args)), fill(dict(kwargs)))
    hidden, gone = _left_hidden(low, name, node, args, kwargs, relations)
    return low.relating.like(node, first, recipe, hidden, gone)


def _left_hidden(
    low: Lowering, name: str, node: fx.Node, args: Sequence[Any], kwargs: Dict[str, Any], relations: Sequence[Relation]
) -> Tuple[Tuple[Any, ...], Optional[float]]:
    """What is still hidden after an operation, and what stands there."""
    nothing: Tuple[Tuple[Any, ...], Optional[float]] = ((), None)
    if name in ("add", "sub") and len(relations) == 2:
        low_ones = [each for each in relations if each.gone == -math.inf]
        if name == "sub" and relations[1] in low_ones:
            return nothing
        return (sum((each.hidden for each in low_ones), ()), -math.inf) if low_ones else nothing
    if name == "mul" and len(relations) == 2:
        zeros = [each for each in relations if each.gone == 0]
        return (sum((each.hidden for each in zeros), ()), 0.0) if zeros else nothing
    x = relations[0]
    if len(relations) != 1 or x.gone is None:
        return nothing
    others = [thing for thing in things_in([list(args), kwargs]) if isinstance(thing, (Value, Board, Spread, Static))]
    if name in ("add", "sub") and x.gone == -math.inf and args[0] is x:
        return x.hidden, x.gone
    if name == "add" and x.gone == -math.inf:
        return x.hidden, x.gone
    if name == "mul" and x.gone == 0:
        return x.hidden, x.gone
    if name in ("div", "true_divide") and x.gone == 0 and args[0] is x:
        return x.hidden, x.gone
    if others:
        positive = all(isinstance(thing, Static) and (_number(low, thing) or -1) > 0 for thing in others)
        keeps = name in ("mul", "div") and x.gone == -math.inf and positive and (name == "mul" or args[0] is x)
        return (x.hidden, x.gone) if keeps else nothing

    # By numbers alone: what the operation makes of what stands there.
    def fill(thing: Any) -> Any:
        if isinstance(thing, (list, tuple)):
            return [fill(item) for item in thing]
        return torch.tensor(x.gone, dtype=x.dtype) if thing is x else thing

    made = node.target(*fill(list(args)), **{key: fill(item) for key, item in kwargs.items()})  # type: ignore[operator]
    number = float(made) if isinstance(made, Tensor) and made.dtype.is_floating_point else None
    return (x.hidden, number) if number in (0.0, -math.inf) else nothing


def _biased(low: Lowering, node: fx.Node, q: Any, a: Dict[str, Any]) -> Any:
    """A fused attention whose mask is a relation."""
    k, v, x = a["key"], a["value"], a["attn_mask"]
    sound = all(isinstance(each, Value) and each.time == len(each.shape) - 2 and not each.lifted for each in (q, k, v))
    if not sound or not isinstance(x, Relation) or a["is_causal"] or len(q.shape) != x.rank:
        return NotImplemented
    relating = low.relating
    hidden = (x.hidden if x.gone == -math.inf else ()) + relating.context
    sides = relating.side(q, False), relating.side(k, True), relating.side(v, True)
    options = {"attn_mask": Softened(x), "scale": a["scale"]}
    if a.get("enable_gqa"):
        options["enable_gqa"] = True
    return relating.answered(node, Replay(node.target, sides, options), hidden)


_RULES: Dict[str, Callable[[Lowering, fx.Node, Any, Dict[str, Any]], Any]] = {
    **dict.fromkeys(["softmax", "_softmax"], _softmax),
    **dict.fromkeys(["matmul", "bmm"], _answers),
    **dict.fromkeys(["view", "_unsafe_view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze"], _view),
    **dict.fromkeys(["_to_copy", "to", "type_as"], _copied),
    **dict.fromkeys(["slice", "select"], _sliced),
    "scaled_dot_product_attention": _biased,
    "einsum": _einsum,
    "masked_fill": _masked,
    "where": _where,
    "add": _add,
    "mul": _mul,
}
_RULES_POINTWISE = frozenset(["where", "masked_fill", "floor_divide", "remainder", "clamp"])
