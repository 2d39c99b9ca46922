"""Makes a `GraphStream` of a model: capture, lowering, assembly, and a trial against the model itself."""

import math
from contextlib import suppress
from fractions import Fraction
from typing import Any, List, Optional, Sequence, Set, Tuple

import torch
from torch import Tensor, nn

from ..core.context import Context
from ..core.example import Example, Select, TimeDim, ensure_works, inputs_of
from ..core.frozen import is_twin
from ..core.telling import Telling
from ..core.whole_numbers import whole_number
from ..errors import UnsupportedModuleError
from ..layers.elementwise import refuse_training
from ..layers.unknown_module import refuse_opaque
from . import (  # noqa: F401  (they register themselves)
    rules_attention,
    rules_chance,
    rules_index,
    rules_interpolation,
    rules_inverse,
    rules_length,
    rules_loop,
    rules_memory,
    rules_padding,
    rules_patches,
    rules_position,
    rules_recurrent,
    rules_relation,
    rules_shape,
    rules_window,
    rules_write,
)
from .another_length import of_broken_blocks
from .answers import Answer
from .assembly import Assembly
from .capture import Capture, ModelInput, capture
from .graph_stream import GraphStream
from .input import Port
from .longest_taken import longest_taken
from .lowering import Lowering
from .model_trial import BranchError, shortest_length
from .nodes import GateNode
from .refusals import OperationError
from .several import PortedGraphStream
from .unexportable import PlacedError
from .values import RelationCall, Value

__all__ = ["finished", "graph_stream", "recurrent_refusal"]

# How a loop takes samples one by one.
_PARTED = frozenset(["select", "unbind", "split", "split_with_sizes", "squeeze", "slice"])


def graph_stream(
    net: nn.Module,
    example: Example,
    time_dim: TimeDim = -1,
    length_multiple: int = 1,
    telling: Optional[Telling] = None,
    context: Optional[Context] = None,
    select: Optional[Select] = None,
    taps: Sequence[str] = (),
    min_length: int = 1,
) -> GraphStream:
    """Capture a model and make its stream; see `create_stream`."""
    telling = telling or Telling()
    examples, times = inputs_of(example, time_dim, length_multiple)
    min_length = whole_number(min_length, "min_length")
    if not is_twin(net):
        refuse_training(net)
    refuse_opaque(net)
    answer = Answer(net, select, taps)
    with answer.flat():
        ensure_works(net, examples)
    try:
        return _made(net, examples, times, length_multiple, telling, True, answer, context=context, least=min_length)
    except UnsupportedModuleError as error:
        several = sum(time is not None for time in times) > 1
        if isinstance(error, PlacedError) and error.by_values:
            raise (recurrent_refusal(net, error) or error) from None
        if error.code in ("independent_lengths", "not_exportable") and several:
            other = {"dynamic_rows": True, "tied": True}
        elif error.code in ("fixed_batch", "rows_mixed", "not_exportable"):
            other = {"dynamic_rows": False, "tied": False}
        else:
            raise (recurrent_refusal(net, error) or error) from None
        try:
            least = min_length
            return _made(
                net, examples, times, length_multiple, telling, answer=answer, context=context, least=least, **other
            )
        except UnsupportedModuleError as later:
            later = recurrent_refusal(net, later) or later
            raise (error if later.code in ("not_exportable", "fixed_batch") else later) from None


def recurrent_refusal(net: nn.Module, error: UnsupportedModuleError) -> Optional[UnsupportedModuleError]:
    """The refusal of a recurrent cell, which a loop over time calls that the exporter unrolls for one length.

    Args:
        net: the model
        error: what it is refused for: a fixed length, or, where several lengths have the same number of samples after
            a stride, that the loop takes single samples
    """
    parted = isinstance(error, OperationError) and error.operation in _PARTED
    for path, module in net.named_modules():
        if isinstance(module, nn.RNNCellBase):
            unplaced = error.code == "fixed_length" and not getattr(error, "loops", False)
            if unplaced or (parted and path.rpartition(".")[0] == error.path):
                whole = type(module).__name__.removesuffix("Cell")
                return UnsupportedModuleError(
                    "fixed_length",
                    module,
                    "it is called in a loop over time, which works for signals of one length only when it is captured",
                    f"use nn.{whole}, which is the cell along time, or register a handler for the module that loops",
                ).within(net)
    return None


def _made(
    net: nn.Module,
    examples: List[Tensor],
    times: List[Optional[int]],
    multiple: int,
    telling: Telling,
    dynamic_rows: bool,
    answer: Answer,
    tied: bool = False,
    context: Optional[Context] = None,
    least: int = 1,
) -> GraphStream:
    telling.expect(3)

    def captured(given: List[Tensor]) -> Capture:
        found = capture(net, given, times, multiple, dynamic_rows, answer, tied, telling)
        found.longest = longest_taken(found)
        return found

    found = captured(examples)
    try:
        return _stream_of(found, telling, context, least)
    except UnsupportedModuleError as error:
        try:
            other = of_broken_blocks(found, captured)
            if other is not None:
                telling.note("trying it for signals that do not end with a whole block")
                return _stream_of(other, telling, context, least)
        except UnsupportedModuleError:
            pass
        raise error


def _stream_of(found: Capture, telling: Telling, context: Optional[Context], least: int) -> GraphStream:
    net = found.net
    telling.begin("finding a stream for every operation")
    low, outputs = _lowered(found, context)
    found = low.capture
    if context is not None and not any(isinstance(call, RelationCall) for call in low.alignment.calls):
        raise UnsupportedModuleError(
            "no_attention", net, "a context came, and no attention in it takes one", "leave context= out"
        )
    found.altered = low.relating.altered
    return finished(found, low, outputs, telling, least, context)


def _lowered(found: Capture, context: Optional[Context]) -> Tuple[Lowering, List[Any]]:
    """What a capture is lowered to, and the outputs; or the capture of a signal whose last frame is filled up, where
    that of whole frames has no stream."""
    low = Lowering(found, context=context)
    try:
        return low, low.run()
    except UnsupportedModuleError:
        filled = found.elsewhere()
        if filled is None:
            raise
        with suppress(UnsupportedModuleError):
            low = Lowering(filled, context=context)
            return low, low.run()
        raise


def finished(
    found: Capture,
    low: Lowering,
    outputs: List[Any],
    telling: Telling,
    least: int = 1,
    context: Optional[Context] = None,
) -> GraphStream:
    """The stream of a lowered capture, with zeros before what is too short to be mirrored, where the model adds them.

    Args:
        found: the capture
        low: what it was lowered to
        outputs: of the model
        telling: is told what is at work
        least: the shortest signal that will come
        context: what attention sees, if the model does not say it
    """
    try:
        return _tried(found, low, outputs, telling, least, context)
    except BranchError as error:
        other = found.elsewhere(error.length)
        if other is None:
            raise
        with suppress(UnsupportedModuleError):
            low, other.altered = Lowering(other, context=context), found.altered
            return _tried(other, low, low.run(), telling, least, context)
        raise


def _tried(
    found: Capture,
    low: Lowering,
    outputs: List[Any],
    telling: Telling,
    least: int,
    context: Optional[Context],
) -> GraphStream:
    stream: Optional[GraphStream] = None
    try:
        stream = assembled(found, low, outputs, telling, least, later=not low.mirrors)
    except BranchError:
        if not low.mirrors:
            raise
    if low.mirrors and (stream is None or stream.min_length > least):
        low = Lowering(found, context=context, fills=True)
        try:
            return assembled(found, low, low.run(), telling, least, _short_mirrors(low))
        except BranchError as error:
            if stream is None and error.length > low.lengths[0]:
                raise  # whatever is filled
        except UnsupportedModuleError:
            pass
    if stream is None:
        low = Lowering(found, context=context)
        return assembled(found, low, low.run(), telling, least)
    return stream


def _short_mirrors(low: Lowering) -> List[int]:
    """Lengths of the signal among which every padding meets every signal that is too short to be mirrored for it."""
    lengths: List[int] = []
    seen: Set[Tuple[int, int, int]] = set()
    typical = low.lengths[0]
    for n in range(1, typical):
        if not low.capture.valid(n):
            continue
        places = [(i, length(n), amount(n), left) for i, (length, left, amount) in enumerate(low.mirrors)]
        short = {place[:3] for place in places if 0 < place[1] <= max(place[2:])}
        if short - seen:
            seen |= short
            lengths.append(n)
    return lengths


def assembled(
    found: Capture,
    low: Lowering,
    outputs: List[Any],
    telling: Optional[Telling] = None,
    least: int = 1,
    short: Sequence[int] = (),
    later: bool = True,
) -> GraphStream:
    """The stream of a lowered capture.

    Args:
        found: the capture
        low: what it was lowered to
        outputs: of the model
        telling: is told what is at work
        least: the shortest signal that will come
        short: lengths at which it must agree with the model besides those that are tried anyway
        later: whether it may begin to agree with the model at any length
    """
    names = found.answer.names
    for value, name in zip(outputs, names, strict=True):
        what = f"its output {name!r}" if name and len(names) > 1 else "its output"
        if isinstance(value, Value) and value.merged:
            raise UnsupportedModuleError(
                "rows_mixed", found.net, f"{what} has time and rows as one axis", "give rows an axis of their own"
            )
        if value is not None and not isinstance(value, Value):
            raise UnsupportedModuleError(
                "constant_output",
                found.net,
                f"{what} does not depend on time",
                "choose the other outputs with select=" if len(names) > 1 else "return a signal",
            )
    parts = Assembly(low, outputs)
    if not parts.outputs:
        raise UnsupportedModuleError("no_output", found.net, "it returns no tensor", "return what is to be streamed")
    stream = _plain(found, low, parts) if _is_plain(found, parts, outputs) else _ported(found, low, parts, outputs)
    stream.node_names = parts.names
    shortest, stream.min_length = shortest_length(found, stream, telling or Telling(), least, short, later)
    gates = _gates(found, low, stream, max(shortest, stream.min_length))
    if gates:
        stream.nodes = nn.ModuleList([*gates, *stream.nodes])
        stream.node_names = [*(f"gate of {port.name}" for port in found.streamed), *parts.names]
    return stream


def _is_plain(found: Capture, parts: Assembly, outputs: Sequence[Any]) -> bool:
    port = found.inputs[0]
    if len(found.inputs) != 1 or len(outputs) != 1 or not found.answer.structure.is_leaf():
        return False
    rows = 0 if found.sizes.rows else None
    if rows is None and port.example.shape[0] != 1:
        return False
    y = parts.outputs[0]
    return port.example.dim() == 3 and port.time == 2 and y.time == len(y.shape) - 1 and y.rows == rows and y.time > 0


def _plain(found: Capture, low: Lowering, parts: Assembly) -> GraphStream:
    source, result = low.inputs[0], parts.outputs[0]
    assert result.clock is not None
    return GraphStream(
        parts.nodes,
        len(parts.slots),
        parts.slots[result],
        (int(source.shape[1]), int(result.shape[1]) if len(result.shape) == 3 else -1),
        parts.hop(),
        result.clock.ratio,
        found.inputs[0].example.new_empty(0),
        found.multiple,
        result.fresh,
        result.dtype == source.dtype,
        -1 if found.sizes.rows else 1,
        low.relating.longest(),
    )


def _ported(found: Capture, low: Lowering, parts: Assembly, outputs: Sequence[Any]) -> GraphStream:
    ports, denominators = [], [1]
    for port in found.inputs:
        factor = (1, 1, 0)
        if port.time is not None:
            factor = _factor(found, low, port)
            denominators.append(factor[1])
        shape = [1 if axis in (port.time, port.rows) else size for axis, size in enumerate(port.example.shape)]
        rows = port.rows if port.rows is not None and found.sizes.rows else -1
        time = -1 if port.time is None else port.time
        ports.append(Port(port.name, shape, time, rows, port.example.new_empty(0), factor))
    first = parts.outputs[0]
    assert first.clock is not None
    stream = PortedGraphStream(
        parts.nodes,
        len(parts.slots),
        ports,
        [-1 if value is None else parts.slots[value] for value in outputs],
        [(-1, -1) if v is None else (v.time, -1 if v.rows is None else v.rows) for v in outputs],
        found.answer.structure,
        math.lcm(parts.hop(), *denominators),
        first.clock.ratio,
        found.streamed[0].example.new_empty(0),
        found.multiple,
        low.relating.longest(),
    )
    stream.gives = [_sizes(value) for value in parts.outputs]
    return stream


def _sizes(value: Value) -> Tuple[List[int], torch.dtype]:
    places = {value.time: -1, value.rows: value.inner}
    return [int(places.get(axis, size)) for axis, size in enumerate(value.shape)], value.dtype


def _factor(found: Capture, low: Lowering, port: ModelInput) -> Tuple[int, int, int]:
    length = found.sizes.function(port.length)
    one, two = low.lengths[:2]
    slope = Fraction(length(two) - length(one), two - one)
    c = slope.denominator * length(one) - slope.numerator * one
    if slope <= 0 or any(slope.denominator * length(n) != slope.numerator * n + c for n in low.lengths):
        raise UnsupportedModuleError(
            "independent_lengths",
            found.net,
            f"the length of '{port.name}' is in no constant ratio to the first",
            "pad it",
        )
    return slope.numerator, slope.denominator, c


def _gates(found: Capture, low: Lowering, stream: GraphStream, shortest: int) -> List[nn.Module]:
    """What holds a signal back that the model would refuse; nothing, where nothing comes out of it anyway."""

    def gives(n: int) -> bool:
        lengths = stream.lengths(n, False)
        if n % found.multiple == 0:
            lengths = [*lengths, *stream.lengths(n, True)]
        return any(length > 0 for length in lengths)

    if not any(gives(n) for n in range(1, shortest)):
        return []
    gates: List[nn.Module] = []
    for i, (thing, port) in enumerate(zip(low.inputs, found.inputs, strict=True)):
        if port.time is not None:
            p, q, c = _factor(found, low, port)
            gates.append(GateNode(i, thing.layout(), -(-(shortest * p + c) // q)))
    return gates
