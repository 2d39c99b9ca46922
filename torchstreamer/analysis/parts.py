"""The parts of a stream: its handlers, and what stands between them."""

import copy
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from ..containers.parallel import Parallel1dStream
from ..containers.residual import Residual1dStream
from ..containers.sequential import Sequential1dStream
from ..core.stream import BaseStream
from ..graph.graph_stream import GraphStream
from ..graph.nodes import StreamNode
from ..graph.several import PortedGraphStream
from .arguments import ensure_stream
from .graph_geometry import port_samples
from .probed import kind_of

__all__ = ["Part", "chunks_given", "example_of", "lengths_in_graph", "new_copy", "parts_of", "samples_in", "watch"]


@dataclass(frozen=True)
class Part:
    """A handler, a merge of branches, or an operation of a graph.

    Attributes:
        path: of the module in the network; of a captured model also the operations outside of layers
        module: the part
        call: the method that does its work
        node: the node of a graph that the handler stands in
        graph: the graph that it stands in
    """

    path: str
    module: Any
    call: str
    node: Optional[Any] = None
    graph: Optional[GraphStream] = None

    @property
    def name(self) -> str:
        """What it is called."""
        return type(self.module).__name__


def parts_of(stream: nn.Module, path: str = "") -> Iterator[Part]:
    """The parts of a stream, in the order in which they work."""

    def below(name: str) -> str:
        return f"{path}.{name}" if path else name

    children: Any
    if isinstance(stream, Sequential1dStream):
        children = stream.streams
        for i, child in enumerate(children):
            yield from parts_of(child, below(str(i)))
    elif isinstance(stream, Residual1dStream):
        yield from parts_of(stream.stream, below("net"))
        yield Part(below("+"), stream.merge, "forward")
    elif isinstance(stream, Parallel1dStream):
        children = stream.streams
        for i, child in enumerate(children):
            yield from parts_of(child, below(f"branches.{i}"))
        yield Part(below(stream.merge.merge), stream.merge, "forward")
    elif isinstance(stream, GraphStream):
        for i, node in enumerate(stream.nodes):
            if isinstance(node, StreamNode):
                for part in parts_of(node.stream, below(stream.node_names[i])):
                    yield Part(part.path, part.module, part.call, part.node or node, part.graph or stream)
            else:
                yield Part(below(stream.node_names[i]), node, "run", node, stream)
    else:
        yield Part(path, stream, "step")


def new_copy(stream: BaseStream) -> BaseStream:
    """A copy of a stream, between signals."""
    ensure_stream(stream)
    twin = copy.deepcopy(stream)
    twin.reset()
    return twin


Watcher = Callable[[Callable[..., Any], Tuple[Any, ...]], Any]


def watch(module: Any, call: str, watcher: Watcher) -> None:
    """Let ``watcher(method, arguments)`` stand in for a method of one module; it must call it."""
    method = getattr(module, call)
    object.__setattr__(module, call, lambda *args: watcher(method, args))


def samples_in(stream: BaseStream, chunk: int) -> List[int]:
    """Samples of every input in a chunk; 0 for a static one.

    Raises:
        ValueError: the chunk is no whole number of samples of every input
    """
    if not isinstance(stream, PortedGraphStream):
        return [chunk]
    ports: Any = stream.ports
    if any(not port.static and chunk * port.p % port.q for port in ports):
        raise ValueError(
            f"invalid_chunk: {chunk} samples came, which is no whole number of samples of every input; a multiple of "
            f"{stream.hop} was expected"
        )
    return [0 if port.static else chunk * port.p // port.q for port in ports]


def chunks_given(stream: BaseStream, chunk: int, given: List[Tensor]) -> List[Tensor]:
    """The inputs of a call, as long as it says.

    Raises:
        ValueError: too many or few of them, or of another length
    """
    lengths = samples_in(stream, chunk)
    ports: Any = getattr(stream, "ports", None)
    times = [-1] if ports is None else [port.time for port in ports]
    came = [tuple(x.shape) for x in given]
    fits = len(given) == len(lengths) and all(
        length == 0 or (-x.dim() <= time < x.dim() and x.shape[time] == length)
        for x, time, length in zip(given, times, lengths, strict=True)
    )
    if not fits:
        raise ValueError(
            f"invalid_chunk: x of shape {', '.join(map(str, came))} came with chunk={chunk}; {len(lengths)} "
            f"inputs of {lengths} samples were expected; make chunk= and x agree"
        )
    return given


def example_of(stream: BaseStream, length: int) -> List[Tensor]:
    """Random inputs of a stream, as far as it tells what it takes.

    Raises:
        ValueError: it does not tell the number of its channels
    """
    generator = torch.Generator().manual_seed(0)
    if isinstance(stream, PortedGraphStream):
        found: List[Tensor] = []
        ports: Any = stream.ports
        for port in ports:
            shape = list(port.shape)
            if not port.static:
                shape[port.time] = port.length(length)
            x = torch.rand(shape, generator=generator)
            found.append(x.to(port.like) if port.like.is_floating_point() else torch.zeros(shape).to(port.like))
        return found
    anchor = stream.anchor()
    dtype, device = kind_of(stream)
    if anchor is not None:
        dtype, device = anchor.dtype, anchor.device
    x = torch.rand(1, _channels(stream), length, generator=generator)
    return [x.to(device, dtype or torch.get_default_dtype())]


def _channels(stream: BaseStream) -> int:
    for module in stream.modules():
        for name in ("in_channels", "num_features", "channels"):
            value = getattr(module, name, None)
            if isinstance(value, int) and value > 0:
                return value
        if isinstance(module, BaseStream) and any(True for _ in module.parameters(recurse=False)):
            break
    raise ValueError(
        f"no_example: {type(stream).__name__} does not tell how many channels it takes; an input was expected; pass x="
    )


def lengths_in_graph(graph: GraphStream, n: int) -> Dict[int, Tuple[int, int]]:
    """Samples that came into every node of a graph, and that it gave, after ``n`` samples; of its first source and
    target."""
    lengths = [0] * graph.slots
    for i, length in port_samples(graph, n).items():
        lengths[i] = length
    found: Dict[int, Tuple[int, int]] = {}
    nodes: Sequence[Any] = list(graph.nodes)
    for node in nodes:
        source = node.sources[0] if hasattr(node, "sources") else node.source
        came = lengths[source]
        node.count(lengths, n, False)
        found[id(node)] = (came, lengths[node.targets[0] if hasattr(node, "targets") else node.target])
    return found
