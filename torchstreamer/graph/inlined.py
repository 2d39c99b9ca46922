"""Captured streams as handlers of modules inside another capture: with several inputs and outputs, in any layout.

Their parts become parts of the graph around them.
"""

import itertools
from typing import Any, Callable, Dict, List, Optional

from torch import Tensor, fx, nn

from ..core.lengths import LengthTable, LinearLength
from ..core.rates import chain_rates
from ..errors import UnsupportedModuleError
from .nodes import GateNode, SettleNode
from .several import PortedGraphStream
from .values import Clock, PortedCall, Value

__all__ = ["inlined", "line_up", "ported_shapes", "renumbered", "takes"]


def takes(stream: PortedGraphStream, xs: List[Tensor]) -> bool:
    """Whether a stream has an input for each of these."""
    ports: Any = stream.ports
    return len(ports) == len(xs) and all(len(port.shape) == x.dim() for port, x in zip(ports, xs, strict=True))


def line_up(module: nn.Module, stream: PortedGraphStream) -> List[LinearLength]:
    """The length of each output, as a rounded line.

    Raises:
        UnsupportedModuleError: ``handler_layout``, for streams whose parts cannot stand in another graph
    """
    ports: Any = stream.ports
    reasons = {
        "has a static input": any(port.static for port in ports),
        "takes lengths that are multiples of a number only": stream.length_multiple > 1,
        "takes inputs of different lengths": any((port.p, port.q, port.c) != (1, 1, 0) for port in ports),
        "waits for the length of the whole signal": any(isinstance(n, (SettleNode, GateNode)) for n in stream.nodes),
        "gives an input as it is, or one value twice": len({*range(len(ports)), *stream.outputs})
        < len(ports) + len(stream.outputs),
    }
    reason = next((text for text, so in reasons.items() if so), "")
    lines: List[LinearLength] = []
    for k in range(0 if reason else len(stream.outputs)):
        line = _line(stream, k)
        if line is None:
            reason = "has an output whose length rises irregularly"
            break
        lines.append(line)
    if reason:
        raise UnsupportedModuleError(
            "handler_layout",
            module,
            f"its handler gives a captured stream that {reason}, which cannot be a part of another capture",
            "register the handler for a module inside, or let it give a stream of one signal [B, C, T]",
        )
    return lines


def ported_shapes(stream: PortedGraphStream, lines: List[LinearLength], xs: List[Tensor]) -> List[Tensor]:
    """Tensors of the shapes that a stream gives at the end of a signal."""
    ports: Any = stream.ports
    port, x = ports[stream.first], xs[stream.first]
    found = []
    for line, (shape, dtype), time, rows in zip(lines, stream.gives, stream.time_axes, stream.row_axes, strict=True):
        sizes: List[Any] = list(shape)
        sizes[time] = line.formula(x.shape[port.time])
        if rows >= 0:
            sizes[rows] = shape[rows] * x.shape[port.rows]
        found.append(x.new_empty(sizes, dtype=dtype))
    return found


def inlined(low: Any, node: fx.Node, values: List[Any], module: nn.Module, stream: PortedGraphStream) -> List[Value]:
    """Put a captured stream after values; the values that it gives."""
    ports: Any = stream.ports
    for value, port in zip(values, ports, strict=True):
        rows = None if port.rows < 0 else port.rows
        plain = isinstance(value, Value) and not value.lifted and not value.merged
        if not plain or (value.time, value.rows) != (port.time, rows) or value.inner != 1:
            raise low.refuse(
                node,
                "handler_layout",
                f"the handler of {type(module).__name__} takes '{port.name}' as {port.describe(-1, False)}; it got "
                "time or rows on other axes",
                "transpose first",
            )
    values = low.alignment.align(node, values)
    before = values[0].clock
    low.alignment.handler = type(stream).__name__
    found = []
    lines = line_up(module, stream)
    for k, (line, meta) in enumerate(zip(lines, node.meta["val"], strict=True)):
        hop, ratio = chain_rates([(before.hop, before.ratio), (stream.hop, (line.rise, line.period))])
        clock = low.clocks.clock(_available(before, stream, k), hop, ratio)
        value = low.value(node, meta, clock, max(each.level for each in values) + 1)
        low.clocks.require_length(node, value)
        found.append(value)
    if stream._limit >= 0:
        low.clocks.limits.append((values[0].shape[values[0].time], stream._limit))
    low.alignment.calls.append(PortedCall(values, found, stream))
    return found


def _line(stream: PortedGraphStream, k: int) -> Optional[LinearLength]:
    table = LengthTable.fit(lambda n: stream.lengths(n, True)[k], [stream.hop])
    if table is None:
        return None
    first = next(n for n in itertools.count() if table(n) > 0)
    start = max(table.start, first)  # a table that ends where nothing comes yet tells no line
    return LengthTable([table(n) for n in range(start + table.period)], start, table.period, table.rise).linear()


def _available(before: Clock, stream: PortedGraphStream, k: int) -> Callable[[int, bool], int]:
    return lambda n, final: stream.lengths(before.available(n, final), final)[k]


def renumbered(stream: PortedGraphStream, sources: List[int], targets: List[int], slot: Any) -> List[nn.Module]:
    """The parts of a stream, with the slots of the graph around them.

    Args:
        stream: the stream
        sources: slots of its inputs
        targets: slots of its outputs
        slot: gives a slot for a name
    """
    places: Dict[int, int] = dict(enumerate(sources))
    places.update(zip(stream.outputs, targets, strict=True))

    def place(i: int) -> int:
        return i if i < 0 else places.setdefault(i, slot((stream, i)))

    for node in stream.nodes:
        for name in ("source", "target", "shared", "given"):
            if isinstance(getattr(node, name, None), int):
                setattr(node, name, place(getattr(node, name)))
        for name in ("sources", "targets", "starts"):
            if isinstance(getattr(node, name, None), list):
                setattr(node, name, [place(i) for i in getattr(node, name)])
    return list(stream.nodes)
