"""Where a stream and its network part."""

import math
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..core.describe import samples
from ..core.registry import create_stream
from ..core.stream import BaseStream
from ..errors import StreamError, StreamInputError
from ..graph.relations import RelationNode
from ..graph.several import PortedGraphStream
from .arguments import tensors, whole_number
from .parts import Part, new_copy, parts_of, samples_in, watch

__all__ = ["ErrorTrace", "trace_error"]

# Largest difference that is rounding, relative to the largest value.
_TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 5e-3}


@dataclass(frozen=True)
class ErrorTrace:
    """What `trace_error` found; true if stream and network are equal.

    Attributes:
        equal: whether all outputs are equal, up to rounding
        layer: path of the first part of the stream that gives something else than it should, ``""`` if none was found
        handler: its type
        compared: with what: a module of the network, by its path, or the part itself on its whole input
        sample: the first sample in which it differs, in samples of its output
        channel: and the channel
        found: the value there
        expected: what it should be
        message: all of that in words
    """

    equal: bool
    layer: str
    handler: str
    compared: str
    sample: int
    channel: int
    found: float
    expected: float
    message: str

    def __bool__(self) -> bool:
        return self.equal

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class _Difference:
    sample: int
    channel: int
    found: float
    expected: float
    shapes: str = ""

    def __str__(self) -> str:
        if self.shapes:
            return self.shapes
        if self.channel < 0:
            return f"{samples(int(self.found))} came; {self.expected:g} were expected"
        return f"sample {self.sample}, channel {self.channel}: {self.found:.9g} came; {self.expected:.9g} was expected"


def trace_error(
    net: nn.Module,
    stream: BaseStream,
    x: Union[Tensor, Sequence[Tensor]],
    *,
    chunk: int = 1,
    tolerance: Optional[float] = None,
) -> ErrorTrace:
    """Find the first layer, and the first sample, in which a stream differs from its network.

    The network is run on the whole signal, a copy of the stream on chunks. Every part of the stream is compared with
    the module that it was made of: the one at its place in containers, the one with the same weights in captured
    models. A part without such a module is compared with itself on the whole of the input that it got, so what it does
    to chunks shows, and what it computes wrongly in either case shows in the next part that has one.

    Args:
        net: the network, in its eval form
        stream: its stream, or a stream that should be
        x: a whole signal ``[B, C, T]``, or a tuple of all inputs
        chunk: samples of the (first) input per call
        tolerance: largest difference that is rounding, relative to the largest value; by default 1e-10 in float64 and
            1e-5 in float32

    Returns:
        what differs, also in words, or that nothing does

    Raises:
        TypeError: not a stream, or a script
        ValueError: ``chunk`` below 1, or the stream is that of another network (``other_network``)

    Example:
        >>> import torch, torchstreamer as pts
        >>> from torchstreamer.analysis import trace_error
        >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 4, 3), torch.nn.ReLU(), torch.nn.Conv1d(4, 1, 3))
        >>> stream = pts.create_stream(net)
        >>> x = torch.randn(1, 1, 50)
        >>> print(trace_error(net, stream, x, chunk=7))
        no difference in 46 samples
        >>> stream.streams[1] = pts.create_stream(torch.nn.Identity())  # not what the network does
        >>> found = trace_error(net, stream, x, chunk=7)
        >>> found.layer, found.compared
        ('1', "the module '1' of the network")
    """
    chunk, given = whole_number(chunk, "chunk"), tensors(x)
    _ensure_same_weights(net, stream)
    run = _Run(net, stream, given, chunk)
    limit = tolerance
    wrong = [
        (k, difference)
        for k, (y, expected) in enumerate(zip(run.outputs, run.expected, strict=True))
        for difference in [_compare(y, expected, limit)]
        if difference is not None
    ]
    if not wrong:
        length = run.expected[0].shape[-1] if run.expected else 0
        return ErrorTrace(True, "", "", "", -1, -1, math.nan, math.nan, f"no difference in {samples(length)}")
    for part, compared, y, expected in run.comparisons():
        difference = _compare(y, expected, limit)
        if difference is not None:
            where = f"'{part.path or '(stream)'}' ({part.name}) differs from {compared}"
            return _told(part, compared, difference, f"{where}: {difference}")
    k, difference = wrong[0]
    message = f"the output differs, and no part of the stream does by itself: {difference}; look at how they are joined"
    return _told(Part("", stream, ""), "the network", difference, message)


def _ensure_same_weights(net: nn.Module, stream: BaseStream) -> None:
    if not isinstance(net, nn.Module) or not isinstance(stream, BaseStream):
        return  # which is told elsewhere
    own, held = list(net.parameters()), list(stream.parameters())
    if any(weight is other for weight in held for other in own):
        return
    shapes = {tuple(weight.shape) for weight in own}
    foreign = [weight for weight in held if tuple(weight.shape) not in shapes]
    if foreign:
        raise StreamInputError(
            f"other_network: the stream has a weight of shape {list(foreign[0].shape)}, and none of its weights is one "
            "of the network's; the network that the stream was made of, or one like it, was expected; pass that one, "
            "or make the stream anew with create_stream(net)"
        )


def _told(part: Part, compared: str, difference: _Difference, message: str) -> ErrorTrace:
    at = difference
    return ErrorTrace(False, part.path, part.name, compared, at.sample, at.channel, at.found, at.expected, message)


def _compare(y: Optional[Tensor], expected: Optional[Tensor], tolerance: Optional[float]) -> Optional[_Difference]:
    """The first difference of two values with time last, or ``None``."""
    if y is None or expected is None:
        one, two = (0 if value is None else value.shape[-1] for value in (y, expected))
        return None if one == two else _Difference(0, -1, one, two)
    y, expected = y.detach(), expected.detach()
    if y.shape[:-1] != expected.shape[:-1]:
        shapes = f"shape {list(y.shape)} came, time last; {list(expected.shape)} was expected"
        return _Difference(0, -1, y.shape[-1], expected.shape[-1], shapes)
    common = min(y.shape[-1], expected.shape[-1])
    if tolerance is None:
        tolerance = _TOLERANCES.get(expected.dtype, 0.0)
    a, b = y[..., :common], expected[..., :common]
    if a.numel():
        wide = torch.complex128 if b.is_complex() else torch.float64
        off = torch.where((a == b) | (a.isnan() & b.isnan()), 0.0, (a.to(wide) - b.to(wide)).abs()).nan_to_num(math.inf)
        finite = b[b.isfinite()]
        scale = float(finite.abs().amax()) if finite.numel() else 1.0
        bad = (off > tolerance * max(scale, 1e-30)).reshape(a.shape[0], -1, common).any(0)
        if bool(bad.any()):
            sample = int(bad.any(0).nonzero()[0])
            channel = int(bad[:, sample].nonzero()[0])
            row = off.reshape(a.shape[0], -1, common)[:, channel, sample].argmax()
            came, wanted = (float(v.reshape(v.shape[0], -1, common)[row, channel, sample].real) for v in (a, b))
            return _Difference(sample, channel, came, wanted)
    if y.shape[-1] != expected.shape[-1]:
        return _Difference(common, -1, y.shape[-1], expected.shape[-1])
    return None


class _Run:
    # The network on the whole, the stream in pieces, and all that was given on the way.

    def __init__(self, net: nn.Module, stream: BaseStream, given: List[Tensor], chunk: int) -> None:
        self.net = net
        self.twin = new_copy(stream)
        self.parts = list(parts_of(stream))
        self.copies = list(parts_of(self.twin))
        self.seen: Dict[int, List[Tuple[Optional[Tensor], Optional[Tensor]]]] = {}
        self.related: Dict[int, _Related] = {}
        for i, part in enumerate(self.copies):
            if part.call == "step":
                watch(part.module, "step", self._recorder(i))
            elif isinstance(part.module, RelationNode):
                self.related[i] = _Related(part.module)
        self.modules: Dict[int, List[Any]] = {}
        with torch.no_grad():
            self.whole = self._offline(given)
            self.pieces = self._stream(given, chunk)
        self.expected, self.outputs, self.axes = [], [], []
        times = self._output_times()
        for k, y in enumerate(self.whole):
            pieces = [call[k] for call in self.pieces]
            axis = times[k]
            self.axes.append(axis)
            self.expected.append(y.movedim(axis, -1))
            joined = _joined(pieces, axis)
            self.outputs.append(None if joined is None else joined.movedim(axis, -1))

    def comparisons(self) -> Iterator[Tuple[Part, str, Optional[Tensor], Optional[Tensor]]]:
        """Every handler, in order, with what it is compared with, what it gave, and what it should have given."""
        owners = _owners(self.net)
        paths = dict(self.net.named_modules())
        turns: Dict[int, int] = {}
        for i, (part, twin) in enumerate(zip(self.parts, self.copies, strict=True)):
            if i in self.related:
                yield part, "itself on its whole input", *self.related[i].comparison()
            if part.call != "step" or i not in self.seen:
                continue
            y = _joined([out for _, out in self.seen[i]])
            module = self._module(part, owners, paths)
            if module is not None and len(self.modules.get(id(module), [])) > 0:
                calls = self.modules[id(module)]
                turn = turns.get(id(module), 0)
                turns[id(module)] = turn + 1
                expected: Optional[Tensor] = _laid_out(_signal_of(module, calls[min(turn, len(calls) - 1)]), part)
                if expected is not None and (y is None or expected.shape[:-1] == y.shape[:-1]):
                    path = next(name for name, each in paths.items() if each is module)
                    yield part, f"the module '{path or '(net)'}' of the network", y, expected
            whole = _joined([came for came, _ in self.seen[i]])
            if whole is not None:
                yield part, "itself on its whole input", y, self._alone(twin.module, whole)

    # ------------------------------------------------------------------ inside

    def _recorder(self, i: int) -> Any:
        self.seen[i] = []

        def record(method: Any, args: Tuple[Any, ...]) -> Any:
            came = None if args[0] is None else args[0].detach().clone()
            y = method(*args)
            self.seen[i].append((came, None if y is None else y.detach().clone()))
            return y

        return record

    def _offline(self, given: List[Tensor]) -> List[Tensor]:
        def note(module: nn.Module, args: Any, y: Any) -> None:
            if isinstance(y, Tensor):
                self.modules.setdefault(id(module), []).append(y.detach().clone())
            elif isinstance(y, tuple):
                self.modules.setdefault(id(module), []).append(y)

        hooks = [module.register_forward_hook(note) for module in self.net.modules()]
        try:
            result = self.net(*(x.clone() for x in given))
        finally:
            for hook in hooks:
                hook.remove()
        return [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]

    def _stream(self, given: List[Tensor], chunk: int) -> List[List[Optional[Tensor]]]:
        ports: Any = getattr(self.twin, "ports", None)
        times = [-1] * len(given) if ports is None else [None if port.static else port.time for port in ports]
        steps = samples_in(self.twin, chunk)
        cuts = [
            [x] if time is None else list(torch.split(x, step, time))
            for x, time, step in zip(given, times, steps, strict=True)
        ]
        count = max(len(pieces) for pieces in cuts)
        found = []
        for k in range(count):
            call = [pieces[k] if k < len(pieces) else None for pieces in cuts]
            found.append(self._leaves(self.twin(*call)))
        found.append(self._leaves(self.twin.flush()))
        return found

    def _output_times(self) -> List[int]:
        if isinstance(self.twin, PortedGraphStream):
            return [axis for axis, slot in zip(self.twin.time_axes, self.twin.outputs, strict=True) if slot >= 0]
        return [-1] * len(self.whole)

    def _leaves(self, result: Any) -> List[Optional[Tensor]]:
        if isinstance(self.twin, PortedGraphStream):
            leaves = pytree.tree_leaves(result, is_leaf=lambda leaf: leaf is None)
            keep = [i for i, slot in enumerate(self.twin.outputs) if slot >= 0]
            return [leaves[i] for i in keep]
        return [result]

    def _module(self, part: Part, owners: Dict[int, nn.Module], paths: Dict[str, nn.Module]) -> Optional[nn.Module]:
        if part.graph is None:
            return paths.get(part.path)
        if not isinstance(part.module, nn.Module):
            return None
        found = {id(owners[id(p)]): owners[id(p)] for p in part.module.parameters() if id(p) in owners}
        return next(iter(found.values())) if len(found) == 1 else None

    def _alone(self, module: Any, whole: Tensor) -> Optional[Tensor]:
        module.reset()
        del module.step  # no longer watched
        with torch.no_grad():
            return module.step(whole.clone(), True)


class _Related:
    # What an attention in a captured model got and gave, as [B, C, T].

    def __init__(self, node: RelationNode) -> None:
        self.node = node
        self.came: List[List[Optional[Tensor]]] = []
        self.gave: List[Optional[Tensor]] = []
        self.static: Dict[int, Tensor] = {}
        watch(node, "run", self._record)

    def comparison(self) -> Tuple[Optional[Tensor], Optional[Tensor]]:
        """What it gave, and what it gives for the whole of that."""
        node: Any = self.node
        del node.run  # no longer watched
        chunks: List[Optional[Tensor]] = [None] * (max(node.slots()) + 1)
        for source, layout, pieces in zip(node.sources, node.layouts, zip(*self.came, strict=True), strict=False):
            whole = _joined(pieces)
            chunks[source] = None if whole is None else layout.unpack(whole)
        for source, value in self.static.items():
            chunks[source] = value
        with torch.no_grad():
            node.run(chunks, 0, True)
        return _joined(self.gave), self._signal(node.layout_out, chunks[node.target])

    def _record(self, method: Any, args: Tuple[Any, ...]) -> None:
        node: Any = self.node
        chunks = args[0]
        streamed = node.sources[: node.streamed]
        self.came.append([self._signal(layout, chunks[i]) for layout, i in zip(node.layouts, streamed, strict=True)])
        self.static.update({i: chunks[i] for i in node.sources[node.streamed :]})
        chunks[node.target] = None
        method(*args)
        self.gave.append(self._signal(node.layout_out, chunks[node.target]))

    @staticmethod
    def _signal(layout: Any, x: Optional[Tensor]) -> Optional[Tensor]:
        return None if x is None else layout.pack(x).detach().clone()


def _owners(net: nn.Module) -> Dict[int, nn.Module]:
    """The module that each parameter belongs to: its own, or the one whose parametrization it is part of."""
    found: Dict[int, nn.Module] = {}
    for module in net.modules():
        inner = "parametrizations" in module._modules
        for parameter in module.parameters(recurse=inner):
            if inner or id(parameter) not in found:
                found[id(parameter)] = module
    return found


def _joined(pieces: Sequence[Optional[Tensor]], axis: int = -1) -> Optional[Tensor]:
    there = [piece for piece in pieces if piece is not None]
    return torch.cat(there, axis) if there else None


def _signal_of(module: nn.Module, y: Any) -> Optional[Tensor]:
    """What of the results of a module is its signal, ``[B, C, T]`` where its handler says how that lies."""
    try:
        axes = create_stream(module).axes
    except StreamError:
        axes = None
    if axes is None or axes.plain:
        return y if isinstance(y, Tensor) else None
    signal = pytree.tree_leaves(y)[axes.signal]
    return axes.turned(signal) if isinstance(signal, Tensor) and signal.dim() == 3 else None


def _laid_out(y: Optional[Tensor], part: Part) -> Optional[Tensor]:
    """The output of a module as the handler in a graph gives it, if that is known."""
    if y is None:
        return None
    layout = None if part.node is None else part.node.layout_out
    if layout is not None:
        return layout.pack(y) if y.dim() == len(layout.order) else None
    if y.dim() == 2:
        return y.unsqueeze(0)
    return y if y.dim() == 3 else None
