"""The rule for loops over time that a model wrote in Python."""

import math
import operator
from types import SimpleNamespace
from typing import Any, Dict, List, Optional

import torch
from torch import fx, nn

from .lowering import Lowering, rule
from .ops.loops import LoopStream
from .refusals import operation_name
from .segment import Body
from .values import AtEnd, Group, Replay, Rows, Spread, Static, Value, things_in

__all__: List[str] = []

_aten = torch.ops.aten
_STATE = (
    "the last state of its loop over time is used, which is known at the end of the signal only",
    "return what all turns give; a stream carries its state by itself",
)
_TURN = "in its loop over time, "
_REMEDY = "write the loop with samples of the signal, x[:, t], and a state [B, …]; or register a handler for the module"


@rule("loop_end", takes=None)
def loop(low: Lowering, node: fx.Node, x: Any, a: Dict[str, Any]) -> Any:
    given: Any = node.args
    states, news, outs = (list(nodes) for nodes in given[:3])
    region = low.capture.loops[node]
    samples = [each for each in region if operation_name(each) == "loop_sample"]
    rows = bool(low.sizes.rows)
    firsts = _first_samples(low, states)
    values = _sampled(low, node, samples, list(firsts.values()))
    body, dummies = low.weights.body(_is_made), {}
    for each in [*samples, *states]:
        shape = [low.resolve(size) for size in each.meta["val"].shape]
        if not shape or shape[0] != (1 if not rows else shape[0]) or (rows and getattr(shape[0], "factor", 0) != 1):
            raise low.refuse(node, "rows_mixed", _TURN + "a state or a sample has no rows first", _REMEDY)
        if not all(isinstance(size, int) for size in shape[1:]):
            raise low.refuse(node, "time_mixing", _TURN + "a state is as long as the signal", _REMEDY)
        dummies[each] = _dummy(each, rows)
    for thing in [*(dummies[s] for s in samples), *(_dummy(s, rows) for s in firsts), *(dummies[s] for s in states)]:
        body.input(thing)
    for each in region:
        if each not in dummies:
            dummies[each] = _of_turn(low, each, dummies, rows)
    places = [_rows_of(low, node, each) for each in outs]
    fronted = [_fronted(dummies[each], place) for each, place in zip(outs, places, strict=True)]
    turn = body.finish([*fronted, *(dummies[each] for each in news)])
    shapes = [[int(size) for size in each.meta["val"].shape[1:]] for each in [*samples, *firsts]]
    made = [
        [int(low.sizes.settled(size)) for axis, size in enumerate(each.meta["val"].shape) if axis != place]
        for each, place in zip(outs, places, strict=True)
    ]
    kinds = {each.meta["val"].dtype for each in [*samples, *firsts, *outs]}
    if len(kinds) > 1:
        raise low.refuse(node, "time_mixing", _TURN + "samples and results have several dtypes", _REMEDY)
    counts = [math.prod(shape) for shape in made]
    begin = _begin(low, node, states, rows, list(firsts), shapes)
    stream = LoopStream(begin, turn, shapes, len(outs), sum(counts), bool(states))
    packed = _packed(low, node, values, shapes)
    _require_rows_apart(low, node, stream, packed)
    meta = node.meta["val"]
    row_size = packed.shape[0]
    whole = SimpleNamespace(shape=[row_size, sum(counts), meta[0].shape[0]], dtype=packed.dtype)
    y = low.stream(node, packed, stream, False, whole)
    found: List[Any] = []
    for i, (shape, count) in enumerate(zip(made, counts, strict=True)):
        part = low.step(
            node, y, Replay(_aten.narrow.default, (y, 1, sum(counts[:i]), count)), shape=(row_size, count, y.shape[2])
        )
        first = Rows(1) if rows else 1
        wide = (row_size, *shape, y.shape[2])
        part = low.step(node, part, Replay("reshape", (part, [first, *shape, -1])), shape=wide, time=len(wide) - 1)
        recipe = Replay(_aten.movedim.int, (part, -1, 0))
        moved = (y.shape[2], row_size, *shape)
        part = low.step(node, part, recipe, shape=moved, time=0, rows=None if part.rows is None else 1)
        if places[i] > 0:
            recipe = Replay(_aten.movedim.int, (part, 1, places[i] + 1))
            at = None if part.rows is None else places[i] + 1
            part = low.step(node, part, recipe, shape=tuple(meta[i].shape), rows=at)
        found.append(part)
    ended = AtEnd(low.refuse(node, "final_state", *_STATE))
    return [*found, *(ended for _ in news)]


def _rows_of(low: Lowering, node: fx.Node, out: fx.Node) -> int:
    """The axis of rows of what a turn makes."""
    shape = [low.resolve(size) for size in out.meta["val"].shape]
    found = [axis for axis, size in enumerate(shape) if not isinstance(size, int)]
    if not low.sizes.rows:
        found = [axis for axis, size in enumerate(shape) if size == 1][:1] if not found else [-1, -1]
    elif len(found) == 1 and getattr(shape[found[0]], "factor", 0) != 1:
        found = []
    if len(found) != 1:
        raise low.refuse(node, "rows_mixed", _TURN + "what a turn makes has no rows of its own", _REMEDY)
    return found[0]


def _fronted(value: Value, place: int) -> Value:
    return value if place == 0 else value.like(recipe=Replay(_aten.movedim.int, (value, place, 0)))


def _is_made(thing: Any) -> bool:
    return isinstance(thing, Value) and thing.recipe is not None


def _first_samples(low: Lowering, states: List[fx.Node]) -> Dict[fx.Node, Value]:
    """The states that begin with the first sample of a value, which has its rows first, and that value."""
    found: Dict[fx.Node, Value] = {}
    for state in states:
        start: Any = state.args[0]
        source = low.known(start.args[0]) if operation_name(start) == "select" else None
        if isinstance(source, Value) and isinstance(low.known(start), AtEnd) and start.args[2] == 0:
            rank = len(source.shape)
            front = next(axis for axis in range(rank) if axis != source.time)
            if start.args[1] % rank == source.time and source.rows in (None, front):
                found[state] = source
    return found


def _sampled(low: Lowering, node: fx.Node, samples: List[fx.Node], firsts: List[Value]) -> List[Value]:
    """What samples are taken of, and firsts of, met by position."""
    things = [low.known(each.args[0]) for each in samples]  # type: ignore[arg-type]
    reference = next((thing for thing in things if isinstance(thing, Value)), None)
    if reference is None:
        raise low.refuse(node, "time_mixing", _TURN + "no sample of the signal is taken", _REMEDY)
    found: List[Value] = []
    for thing, each in zip(things, samples, strict=True):
        value = low.positions.bind(thing, reference) if isinstance(thing, Spread) else thing
        if not isinstance(value, Value) or value.lifted or value.merged or value.time != each.args[1]:
            raise low.refuse(node, "rows_mixed", _TURN + "samples are taken along another axis than time", _REMEDY)
        if value.rows is None and low.sizes.rows:
            raise low.refuse(node, "rows_mixed", _TURN + "samples are the same for all rows", _REMEDY)
        found.append(value)
    if any(value.lifted or value.merged or (value.rows is None) != (found[0].rows is None) for value in firsts):
        raise low.refuse(node, "rows_mixed", _TURN + "a state begins with what has other rows", _REMEDY)
    return low.alignment.align(node, [*found, *firsts])


def _packed(low: Lowering, node: fx.Node, values: List[Value], shapes: List[List[int]]) -> Value:
    """All samples as channels, ``[B, C, T]``."""
    parts: List[Value] = []
    rows: Any = Rows(1) if low.sizes.rows else 1
    for value, shape in zip(values, shapes, strict=True):
        front = value.rows if value.rows is not None else 0
        front = next(axis for axis in range(len(value.shape)) if axis != value.time) if value.rows is None else front
        others = [axis for axis in range(len(value.shape)) if axis not in (front, value.time)]
        order = [front, *others, value.time]
        moved = tuple(value.shape[axis] for axis in order)
        at = None if value.rows is None else 0
        part = low.step(
            node, value, Replay(_aten.permute.default, (value, order)), shape=moved, time=len(order) - 1, rows=at
        )
        wide = (moved[0], math.prod(shape), moved[-1])
        recipe = Replay("reshape", (part, [rows, math.prod(shape), -1]))
        parts.append(low.step(node, part, recipe, shape=wide, time=2))
    total = sum(int(part.shape[1]) for part in parts)
    joined = (parts[0].shape[0], total, parts[0].shape[2])
    return low.step(node, parts[0], Replay(_aten.cat.default, (parts, 1)), shape=joined)


def _dummy(node: fx.Node, rows: bool, recipe: Optional[Replay] = None) -> Value:
    # A tensor of a turn: its axis of time is none.
    meta = node.meta["val"]
    return Value(node, tuple(meta.shape), meta.dtype, -1, 0 if rows else None, 1, lambda n: n, None, 0, recipe)


def _of_turn(low: Lowering, node: fx.Node, known: Dict[Any, Any], rows: bool) -> Any:
    """What stands for an operation of a turn."""
    if not isinstance(node.meta["val"], torch.Tensor) and node.target is not operator.getitem:
        if not isinstance(node.meta["val"], (list, tuple)):
            raise low.refuse(node, "data_dependent", _TURN + "it makes a number of the signal's values", _REMEDY)
    seeded = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
    if seeded or getattr(node.target, "namespace", "") == "torchstreamer":
        raise low.refuse(node, "time_mixing", _TURN + f"'{operation_name(node)}' has no form for one sample", _REMEDY)

    def of(argument: Any) -> Any:
        if isinstance(argument, (list, tuple)):
            return [of(item) for item in argument]
        if isinstance(argument, fx.Node) and argument in known:
            return known[argument]
        thing = low.resolve(argument)
        for each in things_in(thing):
            fits = not isinstance(each, (fx.Node, torch.SymInt, torch.SymFloat))
            if not fits or (hasattr(each, "node") and not (isinstance(each, Static) and not each.given)):
                raise low.refuse(node, "time_mixing", _TURN + "a turn uses more of the signal than its sample", _REMEDY)
        return thing

    kwargs = {key: of(value) for key, value in node.kwargs.items() if key not in low.placement}
    recipe = Replay(node.target, tuple(of(argument) for argument in node.args), kwargs)
    if isinstance(node.meta["val"], (list, tuple)):
        return Group(node, recipe, None, 0)
    return _dummy(node, rows, recipe)


def _begin(
    low: Lowering, node: fx.Node, states: List[fx.Node], rows: bool, firsts: List[fx.Node], shapes: List[List[int]]
) -> nn.Module:
    """The module that gives the states before the first turn."""
    body: Body = low.weights.body(_is_made)
    x = _dummy(_node_of_rows(low), rows)
    body.input(x)
    starts: List[Any] = []
    counts = [math.prod(shape) for shape in shapes]
    for state in states:
        start = low.known(state.args[0])  # type: ignore[arg-type]
        if state in firsts:
            at = len(shapes) - len(firsts) + firsts.index(state)
            part = x.like(recipe=Replay(_aten.narrow.default, (x, 1, sum(counts[:at]), counts[at])))
            part = x.like(recipe=Replay(_aten.select.int, (part, 2, 0)))
            starts.append(x.like(recipe=Replay("reshape", (part, [Rows(1) if rows else 1, *shapes[at]]))))
            continue
        starts.append(start)
        if not isinstance(start, Static) or start.given:
            raise low.refuse(
                node,
                "initial_state",
                _TURN + "a state begins with what is neither zeros nor made of parameters",
                _REMEDY,
            )
    return body.finish(starts)


def _node_of_rows(low: Lowering) -> fx.Node:
    """The first input of the model, whose rows are those of every chunk."""
    found: fx.Node = next(each for each in low.capture.graph.nodes if each.op == "placeholder" and "val" in each.meta)
    return found


def _require_rows_apart(low: Lowering, node: fx.Node, stream: LoopStream, x: Value) -> None:
    """Refuse a turn that mixes rows, tried on some."""
    if not low.sizes.rows:
        return
    probe = torch.rand(3, stream.in_channels, 2).to(x.dtype)
    with torch.no_grad():
        whole = stream.advance(probe, stream.initial(probe))[0]
        alone = [stream.advance(row, stream.initial(row))[0] for row in torch.split(probe, 1)]
    if not torch.allclose(whole, torch.cat(alone), rtol=1e-3, atol=1e-5, equal_nan=True):
        raise low.refuse(node, "rows_mixed", _TURN + "it mixes the rows of a batch", "keep rows apart")
