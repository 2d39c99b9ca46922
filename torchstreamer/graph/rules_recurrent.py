"""Rules for recurrent layers, and for modules that stay whole."""

from functools import partial
from types import SimpleNamespace
from typing import Any, Dict, List, Optional

import torch
from torch import fx, nn

from ..core.axes import Axes
from ..core.stream import BaseStream
from ..layers.rnn import GRUStream, LSTMStream, RNNStream
from ..layers.rnn_weights import RecurrentWeights, refuse_bidirectional
from .inlined import inlined
from .lowering import Lowering, remade, rule
from .ops.recurrences import outputs_of_rows, states_and_outputs
from .recurrent_calls import RECURRENCES
from .refusals import operation_name
from .several import PortedGraphStream
from .values import AtEnd, Replay, Rows, Spread, StartedCall, Static, StreamCall, Value

__all__: List[str] = []

_KINDS: Dict[str, Any] = {"gru": GRUStream, "lstm": LSTMStream, "rnn_tanh": RNNStream, "rnn_relu": RNNStream}
_STATE = (
    "its last state is used, which is known at the end of the signal only",
    "return its outputs alone, whose last sample is the state of the last layer; a stream carries its state by itself",
)
_PER_ROW = (
    "its initial state is none of these: zeros, a parameter that is the same for all rows, or a static input",
    "leave it out, make it of a parameter [layers, 1, H] by expand, or give it to the model as an input",
)

_PER_SAMPLE = (
    "it runs over every sample alone, and its initial state comes neither from the sample nor from a parameter that is "
    "the same for all samples and rows",
    "leave it out, make it of a parameter [layers, 1, H] by expand, or of the signal, with time and rows in the order "
    "that the layer's input has",
)


def _at_end(low: Lowering, node: fx.Node) -> AtEnd:
    return AtEnd(low.refuse(node, "final_state", *_STATE))


def _along(low: Lowering, node: fx.Node, x: Value, axes: Axes, stream: BaseStream, meta: Any) -> Value:
    """Put a stream after a value whose axes are those that a module takes; the result has those that it gives."""
    given = axes.outputs()[axes.signal]
    order = [axes.takes.index(axis) for axis in "bct"]
    if order != [0, 1, 2]:
        rows = None if x.rows is None else order.index(x.rows)
        recipe = Replay(torch.ops.aten.permute.default, (x, order))
        shape = tuple(x.shape[axis] for axis in order)
        x = low.step(node, x, recipe, shape=shape, time=2, rows=rows)
    turned = SimpleNamespace(shape=[meta.shape[given.index(axis)] for axis in "bct"], dtype=meta.dtype)
    y = low.stream(node, x, stream, False, turned)
    back = ["bct".index(axis) for axis in given]
    if back == [0, 1, 2]:
        return y
    shape = tuple(y.shape[axis] for axis in back)
    rows = None if y.rows is None else back.index(y.rows)
    recipe = Replay(torch.ops.aten.permute.default, (y, back))
    return low.step(node, y, recipe, shape=shape, time=back.index(2), rows=rows)


# ---------------------------------------------------------------------- torch's own layers


@rule(*RECURRENCES, takes=None)
def recurrence(low: Lowering, node: fx.Node, x: Any, a: Dict[str, Any]) -> Any:
    if not isinstance(x, Value) or x.lifted:
        raise low.refuse(
            node, "time_mixing", "it runs over what does not depend on the signal", "register a handler for the module"
        )
    for weight in a["weights"]:
        if not isinstance(weight, Static) or weight.given or weight.sized:
            raise low.refuse(
                node, "signal_weight", "its weight depends on the input", "register a handler for the module"
            )
    if a["drops"]:
        raise low.refuse(
            node, "training_mode", "in training mode it drops random values between its layers", "call eval() first"
        )
    rows, time = (0, 1) if a["batch_first"] else (1, 0)
    if x.time == time and x.rows in (rows, None) and not x.merged:
        y = _over_time(low, node, x, a)
    elif x.time == rows and x.rows is None:
        y = _row_by_row(low, node, x, a)
    elif x.time == 2:
        raise low.refuse(
            node,
            "time_mixing",
            "time is the axis of its features, so it is made for one length",
            "give it [B, T, C] with batch_first=True, or [T, B, C]",
        )
    else:
        raise low.refuse(
            node, "rows_mixed", "it runs over the rows of a batch", "give it [B, T, C] with batch_first=True"
        )
    return [y, *(_at_end(low, node) for _ in node.meta["val"][1:])]


def _over_time(low: Lowering, node: fx.Node, x: Value, a: Dict[str, Any]) -> Value:
    if a["bidirectional"]:
        reason = refuse_bidirectional(low.capture.net)
        raise low.refuse(node, "bidirectional", reason.reason, reason.remedy)
    given = [state for state in a["hx"] if isinstance(state, Static) and state.given]
    starts = [] if given else [_start(low, node, state) for state in a["hx"]]
    if any(start is None for start in starts):
        if any(start is not None for start in starts):
            raise low.refuse(node, "initial_state", *_PER_ROW)
        starts = []
    mode, layers = operation_name(node), a["layers"]
    sources = [low.weights.source(weight) for weight in a["weights"]]
    bias = len(sources) // layers > 3
    weights = RecurrentWeights(sources, layers, bias, "relu" if mode == "rnn_relu" else "tanh")
    axes = "btc" if a["batch_first"] else "tbc"
    stream = _KINDS[mode](weights, starts or None)
    y = _along(low, node, x, Axes(axes, axes), stream, node.meta["val"][0])
    if given:
        _begin_with(low, node, stream, a["hx"], given)
    return y


def _begin_with(low: Lowering, node: fx.Node, stream: BaseStream, states: List[Any], given: List[Static]) -> None:
    """Let the stream that was put last begin with states that are made of static inputs."""
    if len(given) != len(states) or any(state.sized for state in given):
        raise low.refuse(node, "initial_state", *_PER_ROW)
    body = low.weights.body()
    module = body.finish(given)
    call = low.alignment.calls[-1]
    assert isinstance(call, StreamCall) and call.stream is stream
    low.alignment.calls[-1] = StartedCall(call.sources, call.targets, stream, False, list(body.inputs), module)


def _start(low: Lowering, node: fx.Node, state: Any) -> Optional[nn.Module]:
    """The module that gives an initial state, for one row; ``None`` for zeros."""
    if not isinstance(state, Static) or state.given:
        raise low.refuse(node, "initial_state", *_PER_ROW)
    if not state.weights and not bool(low.weights.tensor(state).any()):
        return None
    one = _of_one_row(state)
    found = low.weights.tensor(one)
    if found.dim() != 3 or found.shape[1] != 1:
        raise low.refuse(node, "initial_state", *_PER_ROW)
    return low.weights.source(one)


def _of_one_row(thing: Any) -> Any:
    """What a tensor is that is made for a number of rows, for one."""
    if isinstance(thing, Rows):
        return thing.factor
    if isinstance(thing, (list, tuple)):
        return type(thing)(_of_one_row(item) for item in thing)
    if not isinstance(thing, Static) or thing.recipe is None or not thing.sized:
        return thing
    recipe = thing.recipe
    kwargs = {name: _of_one_row(value) for name, value in recipe.kwargs.items()}
    one = Replay(recipe.target, tuple(_of_one_row(value) for value in recipe.args), kwargs)
    return Static(thing.node, one, thing.weights, thing.given, False)


def _row_by_row(low: Lowering, node: fx.Node, x: Value, a: Dict[str, Any]) -> Value:
    """A recurrence over another axis than time, which is among the rows: every sample alone, its state too."""
    given = [state for state in a["hx"] if isinstance(state, Value)]
    x, *aligned = low.alignment.align(node, [x, *given])
    placed: Dict[Any, Value] = dict(zip(given, aligned, strict=True))
    states = [_state_of_rows(low, node, x, placed.get(state, state)) for state in a["hx"]]
    args = (operation_name(node), x, states, a["weights"], a["layers"], a["bidirectional"], a["batch_first"])
    level = max(value.level for value in (x, *states))
    y = low.value(node, node.meta["val"][0], x.clock, level, Replay(outputs_of_rows, args))
    assert y is not None and (y.time, y.rows) == (x.time, x.rows)
    y.fresh = True
    return low.record(y.held_as(x))


def _state_of_rows(low: Lowering, node: fx.Node, x: Value, state: Any) -> Value:
    """An initial state ``[layers, rows, H]`` whose rows are those of ``x``, samples among them."""
    value = low.positions.bind(state, x) if isinstance(state, Spread) else state
    if not isinstance(value, Value) or value.lifted or (value.time, value.rows) != (1, None):
        raise low.refuse(node, "initial_state", *_PER_SAMPLE)
    if (value.merged, value.mixed, value.folds) != (x.merged, x.mixed, x.folds):
        raise low.refuse(node, "initial_state", *_PER_SAMPLE)
    return value


def _alone(
    mode: str, x: Any, hx: Any, weights: Any, layers: int, both: bool, first: bool, drops: bool = False
) -> Replay:
    return Replay(states_and_outputs, (mode, x, hx, weights, layers, both, first))


for _mode in RECURRENCES:
    remade(_mode, partial(_alone, _mode))


# ---------------------------------------------------------------------- modules with a handler


@rule("leaf", takes=None)
def leaf(low: Lowering, node: fx.Node, x: Any, a: Dict[str, Any]) -> Any:
    call = low.capture.leaves[a["call"]]
    if isinstance(call.stream, PortedGraphStream):
        return inlined(low, node, x, call.module, call.stream)
    if call.stream.axes is not None and not call.stream.axes.plain:
        return _turned(low, node, x, call.stream, call.stream.axes, a["state"])
    name = type(call.module).__name__
    if not isinstance(x, Value) or x.lifted or len(x.shape) != 3 or x.time != 2 or x.rows not in (0, None):
        raise low.refuse(
            node,
            "handler_layout",
            f"the handler of {name} takes [B, C, T]; it got time on another axis",
            "transpose first",
        )
    return _bounded(low, x, call.stream, low.stream(node, x, call.stream, False))


def _bounded(low: Lowering, x: Value, stream: BaseStream, y: Value) -> Value:
    if stream._limit >= 0:  # the longest signal that it takes
        low.clocks.limits.append((x.shape[x.time], stream._limit))
    return y


def _turned(low: Lowering, node: fx.Node, x: Any, stream: BaseStream, axes: Axes, states: Any) -> List[Any]:
    time, rows = axes.takes.index("t"), axes.takes.index("b")
    if not isinstance(x, Value) or x.lifted or x.merged or len(x.shape) != 3:
        fits = False
    else:
        fits = x.time == time and x.rows in (rows, None)
    if not fits:
        raise low.refuse(
            node,
            "handler_layout",
            f"its handler says that it takes axes '{axes.takes}'; it got time or rows on other axes",
            "transpose first",
        )
    if any(_start(low, node, state) is not None for state in states):
        raise low.refuse(
            node,
            "initial_state",
            "its initial state is none of zeros, which is all that its handler may know",
            "leave it out, and let the handler's initial() give it",
        )
    y = _bounded(low, x, stream, _along(low, node, x, axes, stream, node.meta["val"][axes.signal]))
    return [y if i == axes.signal else _at_end(low, node) for i in range(len(node.meta["val"]))]
