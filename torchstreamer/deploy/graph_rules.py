"""How the streams of captured graphs run in a static step."""

from dataclasses import replace
from functools import cache, partial
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from ..graph.graph_stream import GraphStream
from ..graph.layout import Layout
from ..graph.nodes import AlignNode, EdgeNode, GateNode, SegmentNode, SettleNode, StreamNode, SumNode
from ..graph.ops.edges import CropStream, FilledMirrorStream, FramesStream
from ..graph.ops.rates import CubicStream, MergeTimeStream
from ..graph.relations import RelationNode
from ..graph.several import PortedGraphStream
from .attention import query_lag
from .bodies import body_of
from .ends import Attach, Fit, Frames, Latch
from .parts import Call, Sum
from .planning import Edge, Margin, Packing, Planner, Unpacking, static_rule
from .relations import Ended, RelationPart

__all__ = ["ported"]


@static_rule(GraphStream)
def graph(plan: Planner, stream: GraphStream, edge: Edge) -> Edge:
    if stream.rows == 1:
        raise plan.refuse(
            stream, "fixed_batch", "the model does not treat the rows of a batch apart", "use pts.compile(stream, …)"
        )

    result = _lowered(plan, stream, {0: edge}, edge.length)[stream.result]
    return _ended(plan, stream, result)


def ported(plan: Planner, stream: PortedGraphStream, edges: Sequence[Edge]) -> List[Edge]:
    """The outputs of a captured model for its inputs; static ones have no time axis. Those that are ``None`` are left
    out."""
    values = _lowered(plan, stream, dict(enumerate(edges)), edges[stream.first].length)
    return [_ended(plan, stream, values[slot]) for slot in stream.outputs if slot >= 0]


def _lowered(plan: Planner, stream: GraphStream, values: Dict[int, Edge], length: Any) -> Dict[int, Edge]:
    lengths = cache(partial(_lengths, stream))

    def length_of(slot: int) -> Any:
        return cache(lambda n: lengths(length(n))[slot])

    known: Dict[int, Any] = {}
    for node in stream.nodes:
        rule = _NODES.get(type(node))
        if rule is None:
            raise _static_input(plan, stream)
        for made in rule(plan, stream, node, values):
            slot, value = made
            known.setdefault(slot, length_of(slot))
            values[slot] = replace(value, length=known[slot])
    return values


def _ended(plan: Planner, stream: GraphStream, result: Edge) -> Edge:
    if stream._limit >= 0 and result.example.is_floating_point():
        result = plan.whole(result)
        part = Ended(stream._limit, plan.chunk, result.rows)
        result = plan.add(part, [result], result.lag, result.length, result.time, result.rows)
    return result


def _lengths(stream: GraphStream, n: int) -> List[int]:
    # Of every value, for a whole signal of n samples.
    found = [0] * stream.slots
    found[0] = n
    if isinstance(stream, PortedGraphStream):
        ports: Any = stream.ports
        for i, port in enumerate(ports):
            found[i] = 0 if port.static or n == 0 else port.length(n)
    for node in stream.nodes:
        node.count(found, n, True)
    return found


def _static_input(plan: Planner, stream: GraphStream) -> Exception:
    return plan.refuse(
        stream,
        "static_input",
        "a recurrence or an attention in it takes a static input",
        "give it as one that comes with every sample, or use the stream itself",
    )


# ---------------------------------------------------------------------- nodes

Made = List[Tuple[int, Edge]]


def _axes(layout: Layout) -> Tuple[int, int]:
    return layout.order[-1], layout.order[0] if layout.has_rows else -1


def _packed(plan: Planner, stream: nn.Module, edge: Edge, layout: Optional[Layout]) -> Edge:
    if layout is None or layout.plain:
        return edge
    if not layout.has_rows:
        raise _without_rows(plan, stream)
    return plan.laid_out(edge, Packing(layout))


def _laid_out(plan: Planner, edge: Edge, layout: Optional[Layout]) -> Edge:
    if layout is None or layout.plain:
        return edge
    return plan.laid_out(edge, Unpacking(layout), *_axes(layout))


def _without_rows(plan: Planner, stream: nn.Module) -> Exception:
    return plan.refuse(
        stream,
        "shared_by_rows",
        "a value inside is the same for all rows, which are of different age here",
        "let the model compute it for every row, or use pts.compile(stream, chunk=…)",
    )


def _stream(plan: Planner, stream: GraphStream, node: Any, values: Dict[int, Edge]) -> Made:
    edge = _packed(plan, stream, values[node.source], node.layout_in)
    return [(node.target, _laid_out(plan, plan.lower(node.stream, edge), node.layout_out))]


def _segment(plan: Planner, stream: GraphStream, node: Any, values: Dict[int, Edge]) -> Made:
    edges = plan.aligned([values[i] for i in node.sources[: node.streamed]])
    edges += [values[i] for i in node.sources[node.streamed :]]  # static inputs
    axes = _output_axes(plan, stream, node.body, edges)
    return list(zip(node.targets, plan.add_several(_Listed(node.body), edges, axes), strict=True))


class _Listed(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, *xs: Tensor) -> List[Tensor]:
        return self.body(list(xs))


def _output_axes(plan: Planner, stream: GraphStream, body: nn.Module, edges: Sequence[Edge]) -> List[Tuple[int, int]]:
    # The axes of the outputs that grow with time and with the rows.
    def shapes(times: int, rows: int) -> List[torch.Size]:
        xs = []
        for edge in edges:
            size = list(edge.example.shape)
            if edge.time >= 0:
                size[edge.time] *= times
            size[edge.rows] *= rows
            xs.append(edge.example.new_zeros(size))
        with torch.no_grad():
            return [y.shape for y in body(xs)]

    found = []
    for plain, longer, wider in zip(shapes(1, 1), shapes(2, 1), shapes(1, 2), strict=True):
        time = [axis for axis in range(len(plain)) if longer[axis] != plain[axis]]
        rows = [axis for axis in range(len(plain)) if wider[axis] != plain[axis]]
        if len(time) != 1 or len(rows) != 1 or time == rows:
            raise _without_rows(plan, stream)
        found.append((time[0], rows[0]))
    return found


def _align(plan: Planner, stream: GraphStream, node: Any, values: Dict[int, Edge]) -> Made:
    edges = plan.aligned([values[i] for i in node.sources])
    return list(zip(node.targets, edges, strict=True))


def _sum(plan: Planner, stream: GraphStream, node: Any, values: Dict[int, Edge]) -> Made:
    edges = plan.aligned([values[i] for i in node.sources])
    return [(node.target, plan.add(Sum("add"), edges, edges[0].lag))]


def _settle(plan: Planner, stream: GraphStream, node: Any, values: Dict[int, Edge]) -> Made:
    source = plan.whole(values[node.source])
    table = node.length
    local = range(table.start + table.period)
    if any(table(n) > max(_lengths(stream, n)[node.source] - node.lead, 0) for n in local):
        edge = plan.settled(_packed(plan, stream, source, node.layout))
        edge = plan.add(Fit(edge.lag, plan.key(edge), node.value), [edge], edge.lag)
        source = _laid_out(plan, edge, node.layout)
    return [(node.target, source.shifted(-node.lead, source.length))]


def _edge(plan: Planner, stream: GraphStream, node: Any, values: Dict[int, Edge]) -> Made:
    value = plan.whole(_packed(plan, stream, values[node.sources[0]], node.layout))
    other = plan.whole(_packed(plan, stream, values[node.sources[1]], node.other))
    sample = plan.add(Latch(node.last, other.lag, plan.key(other)), [other], other.lag)
    # The value waits until the sample has come, in the same step or before.
    m, held = value.per_step, 0
    if node.last:
        value = plan.settled(value)
        ends = [n for n in _whole_lengths(plan, value) if other.length(n) > 0]
        there = [(value.length(n), (other.length(n) - 1 + other.lag) // other.per_step) for n in ends]
        while any((length + value.lag + held) // m < step for length, step in there):
            held += 1
        lag = value.lag + held
    else:
        held = max(node.repeats - value.lag, 0)
        while (value.lag + held - node.repeats) // m < other.lag // other.per_step:
            held += 1
        lag = value.lag + held - node.repeats
    part = Attach(node.last, held, lag, node.repeats, plan.key(value))
    made = plan.add(part, [value, sample], lag)
    return [(node.target, _laid_out(plan, made, node.layout))]


def _whole_lengths(plan: Planner, edge: Edge) -> range:
    return range(plan.multiple, len(plan.tables[plan.key(edge)].values) + 2 * plan.period, plan.multiple)


def _gate(plan: Planner, stream: GraphStream, node: Any, values: Dict[int, Edge]) -> Made:
    return [(node.source, values[node.source])]


def _relation(plan: Planner, stream: GraphStream, node: Any, values: Dict[int, Edge]) -> Made:
    if len(node.sources) > node.streamed:
        raise _static_input(plan, stream)
    if not all(layout.has_rows for layout in [*node.layouts, node.layout_out]):
        raise _without_rows(plan, stream)
    edges = plan.aligned([values[i] for i in node.sources])
    late = plan.settled(edges[0], max(edges[0].lag, 0))
    edges = [plan.delayed(edge, late.lag - edge.lag) for edge in edges]
    pattern = node.pattern()
    lag = query_lag(pattern, late.lag)
    key, m = plan.key(late), late.per_step
    part = RelationPart(node.body, list(node.layouts), node.layout_out, node.queries, pattern, late.lag, lag, key, m)
    made = plan.add(part.to(late.example.device), edges, lag, late.length, *_axes(node.layout_out))
    return [(node.target, made)]


_NODES = {
    RelationNode: _relation,
    StreamNode: _stream,
    SegmentNode: _segment,
    AlignNode: _align,
    SumNode: _sum,
    SettleNode: _settle,
    EdgeNode: _edge,
    GateNode: _gate,
}


# ---------------------------------------------------------------------- streams


@static_rule(MergeTimeStream)
def merge_time(plan: Planner, stream: MergeTimeStream, edge: Edge) -> Edge:
    assert stream.reach is not None
    return plan.add(Call(body_of(stream, plan, edge)), [edge], stream.reach.lag(edge.lag), plan.through(edge, stream))


@static_rule(CubicStream)
def cubic(plan: Planner, stream: CubicStream, edge: Edge) -> Edge:
    return plan.lower(stream.filters, plan.lower(stream.pad, edge))


@static_rule(FilledMirrorStream)
def filled_mirror(plan: Planner, stream: FilledMirrorStream, edge: Edge) -> Edge:
    length, inner = plan.through(edge, stream), stream.inner
    margin = Margin(inner.left, inner.right, inner.mode, 0.0, edge.length, stream.filled())
    return replace(edge, length=length, margin=margin)


@static_rule(CropStream)
def crop(plan: Planner, stream: CropStream, edge: Edge) -> Edge:
    return edge.shifted(-stream.left, plan.through(edge, stream))


@static_rule(FramesStream)
def frames(plan: Planner, stream: FramesStream, edge: Edge) -> Edge:
    length = plan.through(edge, stream)
    edge = plan.settled(edge)
    x = edge.example

    def constants(body: Optional[nn.Module]) -> Optional[Tensor]:
        if body is None:
            return None
        with torch.no_grad():
            return stream.layout.pack(body([stream.layout.unpack(x)])[0])[:1].to(x.dtype).contiguous()

    held = max(stream.fronts - edge.lag, 0)
    lag = edge.lag + held - stream.fronts
    part = Frames(constants(stream.front), constants(stream.back), held, lag, plan.key(edge))
    return plan.add(part, [edge], lag, length)
