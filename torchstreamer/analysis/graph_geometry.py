"""Which inputs the outputs of a captured graph depend on: a rule for each of its parts."""

from typing import Any, Dict, List, Set, Tuple

import torch
from torch import Tensor, fx

from ..core.stream import BaseStream
from ..graph.graph_stream import GraphStream
from ..graph.nodes import AlignNode, EdgeNode, GateNode, SegmentNode, SettleNode, StreamNode, SumNode
from ..graph.relations import RelationNode
from ..graph.several import PortedGraphStream
from .ends import Ends, NoEnds
from .geometry import Need, cropped, needed, needed_by_taps, note_unbounded, register_needs

__all__ = ["graph_needs", "output_samples", "port_samples"]

# Operations that read the shape of a tensor, or nothing of it at all.
_SHAPES = (
    "size",
    "zeros_like",
    "ones_like",
    "full_like",
    "empty_like",
    "new_zeros",
    "new_ones",
    "new_full",
    "sym_size",
)


# ---------------------------------------------------------------------- graphs


def port_samples(stream: BaseStream, n: int) -> Dict[int, int]:
    """Samples of every streamed input for ``n`` of the first one."""
    if isinstance(stream, PortedGraphStream):
        ports: Any = stream.ports
        return {i: port.length(n) for i, port in enumerate(ports) if not port.static}
    return {0: n}


def output_samples(stream: BaseStream, output: int, n: int, final: bool) -> int:
    """Samples of one output for ``n`` of the first streamed input."""
    if isinstance(stream, PortedGraphStream):
        return stream._lengths(n, final)[output]
    return stream.output_length(n, final)


def graph_needs(stream: GraphStream, need: Need, n: int, slot: int) -> Dict[int, Need]:
    """The samples of every input that outputs of a graph depend on.

    Args:
        stream: the graph
        need: as for `needed`, a mask or ends, of the value in ``slot``
        n: length of the whole signal, in samples of the first streamed input
        slot: of the output

    Returns:
        a mask for every streamed input, by its slot; or ends, for those that are needed
    """
    lengths = [0] * stream.slots
    inputs = port_samples(stream, n)
    for i, length in inputs.items():
        lengths[i] = length
    nodes: List[Any] = list(stream.nodes)
    before: List[List[int]] = []
    for node in nodes:
        before.append(list(lengths))
        node.count(lengths, n, True)
    makers = {target: node for node in nodes if isinstance(node, SegmentNode) for target in node.targets}
    needs: Dict[int, Need] = {slot: need}
    for node, known in zip(reversed(nodes), reversed(before), strict=True):
        for source, found in _interleaved(node, needs, makers) or _through(node, needs, known, n):
            needs[source] = needs[source] | found if source in needs else found
    if isinstance(need, Ends):
        return {i: needs[i] for i in inputs if i in needs}
    columns = need.shape[1]
    return {i: needs.get(i, torch.zeros(length, columns, dtype=torch.bool)) for i, length in inputs.items()}


def _through(node: Any, needs: Dict[int, Need], lengths: List[int], n: int) -> List[Any]:
    targets = list(node.targets) if hasattr(node, "targets") else [node.target]
    if isinstance(node, GateNode):
        return []  # what it holds back passes in the end, in the slot in which it came
    asked = {k: needs.pop(i) for k, i in enumerate(targets) if i in needs}
    if not asked:
        return []
    if isinstance(node, StreamNode):
        return [(node.source, needed(node.stream, asked[0], lengths[node.source]))]
    if isinstance(node, SegmentNode):
        used = _read_by(node)
        return [(node.sources[k], need) for t, need in asked.items() for k in used[t] if k < node.streamed]
    if isinstance(node, AlignNode):
        return [(node.sources[k], cropped(need, 0, lengths[node.sources[k]])) for k, need in asked.items()]
    if isinstance(node, SumNode):
        return [(i, cropped(asked[0], 0, lengths[i])) for i in node.sources]
    if isinstance(node, SettleNode):
        return [(node.source, cropped(asked[0], node.lead, lengths[node.source]))]
    if isinstance(asked[0], Ends):
        raise NoEnds  # of a relation, or of an edge
    if isinstance(node, RelationNode):
        return _relation(node, asked[0], lengths)
    assert isinstance(node, EdgeNode), f"{type(node).__name__} has no rule"
    return _edge(node, asked[0], lengths)


def _relation(node: RelationNode, need: Tensor, lengths: List[int]) -> List[Any]:
    # Of what a query needs its own place, and all keys that it sees.
    length = lengths[node.sources[0]]
    if node.memory.prefix > 0:
        note_unbounded(need)
    keys = needed_by_taps(need, node.taps(length), length)
    sources = node.sources[: node.streamed]
    return [(source, need if k < node.queries else keys) for k, source in enumerate(sources)]


def _edge(node: EdgeNode, need: Tensor, lengths: List[int]) -> List[Any]:
    source, other = node.sources
    length = lengths[source]
    body, edge = (need[:length], need[length:]) if node.last else (need[node.repeats :], need[: node.repeats])
    end = torch.zeros(lengths[other], need.shape[1], dtype=torch.bool)
    if lengths[other] > 0:
        end[-1 if node.last else 0] = edge.any(0)
    return [(source, cropped(body, 0, length)), (other, end)]


def _interleaved(node: Any, needs: Dict[int, Need], makers: Dict[int, SegmentNode]) -> List[Any]:
    """Through values that were stacked to be samples one after the other: each sample is computed from its own."""
    if not isinstance(node, StreamNode) or node.target not in needs or node.source in needs:
        return []
    factor, maker = getattr(node.stream, "interleaved", 1), makers.get(node.source)
    if factor == 1 or maker is None:
        return []
    reads, outputs = _reads(maker)
    stack = outputs[maker.targets.index(node.source)]
    name = getattr(stack.target, "__name__", "")
    if name.split(".")[0] != "stack" or stack.args[1:] != (-1,) or len(stack.args[0]) != factor:
        return []
    need = needs.pop(node.target)
    if isinstance(need, Ends):
        raise NoEnds
    parts = [(each, need[k::factor]) for k, each in enumerate(stack.args[0])]
    return [(maker.sources[i], part) for each, part in parts for i in reads[each] if i < maker.streamed]


def _read_by(node: SegmentNode) -> List[Set[int]]:
    """The inputs of a segment from whose values each output is computed."""
    reads, outputs = _reads(node)
    return [reads[value] for value in outputs]


def _reads(node: SegmentNode) -> Tuple[Dict[fx.Node, Set[int]], List[Any]]:
    """The same for every operation of a segment, and its outputs."""
    graph: fx.Graph = node.body.graph
    reads: Dict[fx.Node, Set[int]] = {}
    outputs: List[Any] = []
    for each in graph.nodes:
        name = str(getattr(each.target, "__name__", each.target)).split(".")[0]
        if each.op == "output":
            outputs = list(each.args[0])
        elif each.op == "call_function" and name == "getitem" and each.args[0].op == "placeholder":
            reads[each] = {each.args[1]}
        elif name in _SHAPES:
            reads[each] = set()
        else:
            reads[each] = set().union(*(reads.get(value, set()) for value in each.all_input_nodes))
    return reads, outputs


def _graph(stream: GraphStream, need: Need, n: int) -> Need:
    found = graph_needs(stream, need, n, stream.result)
    if 0 not in found:
        raise NoEnds
    return found[0]


register_needs(GraphStream, _graph)
