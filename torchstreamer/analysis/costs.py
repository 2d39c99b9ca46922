"""What a stream costs, layer by layer."""

import math
import time
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

from ..core.describe import samples
from ..core.stream import BaseStream
from ..graph.relations import RelationNode
from ..graph.several import PortedGraphStream
from .arguments import rate, tensors, whole_number
from .delay import latency
from .field import receptive_field
from .parts import Part, chunks_given, example_of, lengths_in_graph, new_copy, parts_of, samples_in, watch
from .probed import Watch

__all__ = ["LayerSummary", "StreamSummary", "summary"]


@dataclass(frozen=True)
class LayerSummary:
    """One part of a stream.

    Attributes:
        path: of its module in the network, or of the part in the stream
        handler: its type
        rate_in: samples in, per sample of the stream's (first) input, or per second where ``fs`` is known
        rate_out: samples out
        field: samples of its input that one of its outputs depends on; ``inf`` for a recurrence
        lookahead: samples of its input by which its outputs wait
        state_nbytes: bytes that it holds
        macs: multiply-adds, per sample of the stream's input, or per second
        share: of the time of all parts, by the median of the calls
    """

    path: str
    handler: str
    rate_in: float
    rate_out: float
    field: float
    lookahead: int
    state_nbytes: int
    macs: float
    share: float


@dataclass(frozen=True)
class StreamSummary:
    """A stream and its parts.

    Attributes:
        layers: the parts, in order
        chunk: samples per call
        fs: samples per second, or ``None``: then rates and multiply-adds are per input sample
        field: receptive field of the stream, in samples
        lookahead: of the stream, in samples
        state_nbytes: bytes that the stream holds
        macs: multiply-adds of all parts
        seconds_per_chunk: time of a call, the median
        real_time_factor: that by the duration of a chunk, where ``fs`` is known
    """

    layers: Tuple[LayerSummary, ...]
    chunk: int
    fs: Optional[float]
    field: float
    lookahead: int
    state_nbytes: int
    macs: float
    seconds_per_chunk: float
    real_time_factor: Optional[float]

    def as_dict(self) -> Dict[str, Any]:
        """All of it as plain numbers and strings; ``layers`` is a list of dictionaries."""
        found = asdict(self)
        found["layers"] = [asdict(layer) for layer in self.layers]
        return found

    def __str__(self) -> str:
        per = "/s" if self.fs is not None else "/sample"
        head = ["layer", "handler", f"in{per}", f"out{per}", "field", "look-ahead", "state, B", f"MAC{per}", "time"]
        rows = [head]
        for layer in self.layers:
            rows.append(
                [
                    layer.path or "(stream)",
                    layer.handler,
                    f"{layer.rate_in:g}",
                    f"{layer.rate_out:g}",
                    _whole(layer.field),
                    str(layer.lookahead),
                    str(layer.state_nbytes),
                    _short(layer.macs),
                    f"{100 * layer.share:.0f} %",
                ]
            )
        total = ["total", "", "", "", _whole(self.field), str(self.lookahead), str(self.state_nbytes)]
        rows.append([*total, _short(self.macs), "100 %"])
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        lines = []
        for row in rows:
            cells = [
                cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  ".join(cells).rstrip())
        rule = "-" * max(len(line) for line in lines)
        lines = [lines[0], rule, *lines[1:-1], rule, lines[-1]]
        speed = f"{1e6 * self.seconds_per_chunk:.0f} µs per chunk of {samples(self.chunk)}"
        if self.real_time_factor is not None:
            speed += f", {self.real_time_factor:.2g} of real time"
        return "\n".join([*lines, speed])


def _whole(value: float) -> str:
    return "unbounded" if math.isinf(value) else f"{value:g}"


def _short(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}"


def summary(
    stream: BaseStream,
    chunk: int = 1,
    fs: Optional[float] = None,
    *,
    x: Union[Tensor, Sequence[Tensor], None] = None,
    calls: int = 30,
) -> StreamSummary:
    """What every layer of a stream does and costs, in the steady state; measured on a copy.

    Args:
        stream: the stream
        chunk: samples of the (first) input per call
        fs: its samples per second
        x: a chunk ``[B, C, T]``, or one of every input; it is fed again and again. Random ones by default
        calls: how many calls are timed

    Returns:
        a table that prints, and can be had as a dictionary

    Raises:
        TypeError: not a stream, or a script
        ValueError: ``chunk`` or ``calls`` below 1, ``x`` is no chunk of this length, or it is missing and the stream
            does not tell what it takes

    Example:
        >>> import torch, torchstreamer as pts
        >>> from torchstreamer.analysis import summary
        >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 8, 5), torch.nn.ReLU(), torch.nn.Conv1d(8, 4, 4, stride=2))
        >>> found = summary(pts.create_stream(net), chunk=16, fs=16000)
        >>> [(layer.handler, layer.field, layer.rate_out, layer.macs) for layer in found.layers][::2]
        [('Conv1dStream', 5, 16000.0, 640000.0), ('Conv1dStream', 4, 8000.0, 1024000.0)]
        >>> found.as_dict()["state_nbytes"]
        80
    """
    chunk, calls, fs = whole_number(chunk, "chunk"), whole_number(calls, "calls"), rate(fs)
    # Multiply-adds cannot be counted in inference mode, which may be the caller's.
    with torch.inference_mode(False), torch.no_grad():
        return _summed(stream, chunk, fs, x, calls)


def _summed(
    stream: BaseStream, chunk: int, fs: Optional[float], x: Union[Tensor, Sequence[Tensor], None], calls: int
) -> StreamSummary:
    twin = new_copy(stream)
    parts = list(parts_of(twin))
    chunks = _chunks(twin, chunk, x)
    meters = [_Meter(part) for part in parts]
    inner = {id(part.graph): part.graph for part in parts if part.graph is not None}
    graphs = {
        key: _Meter(Part("", graph, "step")) for key, graph in inner.items() if not isinstance(graph, PortedGraphStream)
    }
    hop = stream.hop
    start = max(2 * latency(stream).first_output, 1)
    for _ in range(min(-(-start // chunk), 10_000)):
        twin(*chunks)
    chunks = [None if still else c for c, still in zip(chunks, _static(twin), strict=True)]
    # Whole periods, so that rates are what they are.
    turns = hop // math.gcd(hop, chunk)
    for meter in [*meters, *graphs.values()]:
        meter.counting = True
    for _ in range(turns):
        twin(*chunks)
    for meter in [*meters, *graphs.values()]:
        meter.counting = False
    states = [_nbytes(part.module) for part in parts]
    whole = twin.state_nbytes()
    for meter in meters:
        meter.timing = True
    times = []
    for _ in range(calls):
        begin = time.perf_counter()
        twin(*chunks)
        times.append(time.perf_counter() - begin)
    scale = 1.0 if fs is None else fs
    samples, rows = turns * chunk, 1 if not isinstance(chunks[0], Tensor) else chunks[0].shape[0]
    spent = sum(meter.seconds for meter in meters) or 1.0
    layers = []
    # Not those of the copy, which are watched.
    plain = [part.module if isinstance(part.module, BaseStream) else None for part in parts_of(stream)]
    for part, meter, nbytes, own in zip(parts, meters, states, plain, strict=True):
        came, given = _rates(part, meter, graphs, samples)
        layers.append(
            LayerSummary(
                path=part.path,
                handler=part.name,
                rate_in=came * scale,
                rate_out=given * scale,
                field=1 if own is None else receptive_field(own).size,
                lookahead=0 if own is None else latency(own).lookahead,
                state_nbytes=nbytes,
                macs=meter.macs / samples / rows * scale,
                share=meter.seconds / spent,
            )
        )
    layers += _held_inputs(twin)
    typical = median(times)
    return StreamSummary(
        layers=tuple(layers),
        chunk=chunk,
        fs=fs,
        field=receptive_field(stream).size,
        lookahead=latency(stream).lookahead,
        state_nbytes=whole,
        macs=sum(layer.macs for layer in layers),
        seconds_per_chunk=typical,
        real_time_factor=None if fs is None else typical * fs / chunk,
    )


class _Operations(Watch):  # type: ignore[no-untyped-call]
    # Counts as torch's own counter does.

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        known = func._overloadpacket in flop_registry
        if func._overloadpacket is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu:
            q, k, v = (each.shape for each in args[:3])  # which torch's counter leaves out
            self.flops += 2 * q.numel() // q[-1] * k[-2] * (q[-1] + v[-1])
            return func(*args, **kwargs)
        if not known:
            with self:
                y = func.decompose(*args, **kwargs)
            if y is not NotImplemented:
                return y
        y = func(*args, **kwargs)
        if func._overloadpacket is torch.ops.aten.mkldnn_rnn_layer:  # of an LSTM, which torch's counter leaves out
            x, inner, own = args[:3]
            self.flops += 2 * x.shape[0] * x.shape[1] * (inner.numel() + own.numel())
        if known:
            self.flops += flop_registry[func._overloadpacket](*args, **kwargs, out_val=y)
        return y


class _Meter:
    # Counts samples and multiply-adds of a part, or its time.

    def __init__(self, part: Part) -> None:
        self.part = part
        self.counting = self.timing = False
        self.came = self.given = 0
        self.macs = 0.0
        self.times: List[float] = []
        watch(part.module, part.call, self)

    @property
    def seconds(self) -> float:
        """The time of all calls, as if each had taken the median."""
        return len(self.times) * median(self.times) if self.times else 0.0

    def __call__(self, method: Any, args: Tuple[Any, ...]) -> Any:
        if self.timing:
            begin = _now(args)
            y = method(*args)
            self.times.append(_now(args) - begin)
            return y
        if not self.counting:
            return method(*args)
        with _Operations() as counter:
            y = method(*args)
        if self.part.call != "run":
            x = args[0][0] if isinstance(args[0], list) else args[0]
            self.came += 0 if x is None else x.size(2)
            self.given += 0 if y is None else y.size(2)
        macs = self._stated(args[0], y)
        self.macs += counter.flops / 2 if macs is None else macs
        return y

    def _stated(self, x: Any, y: Any) -> Optional[int]:
        # What the stream says of itself, whatever kernel it took.
        node: Any = self.part.module
        if isinstance(node, RelationNode):
            answers = x[node.target]
            if answers is None:
                return 0
            layout: Any = node.layout_out
            rows = answers.size(layout.rows) // layout.inner if layout.has_rows else 1
            return rows * node.multiply_adds(answers.size(layout.time))
        if not isinstance(self.part.module, BaseStream):
            return None
        rows = next((value.size(0) for value in (x, y) if value is not None), 0)
        came, given = (0 if value is None else value.size(2) for value in (x, y))
        macs = self.part.module.multiply_adds(came, given)
        return None if macs is None else macs * rows


def _now(args: Tuple[Any, ...]) -> float:
    values = args[0] if args and isinstance(args[0], list) else args
    if any(isinstance(x, Tensor) and x.is_cuda for x in values):
        torch.cuda.synchronize()
    return time.perf_counter()


def _chunks(stream: BaseStream, chunk: int, x: Union[Tensor, Sequence[Tensor], None]) -> List[Any]:
    if x is None:
        return list(example_of(stream, chunk)) if samples_in(stream, chunk) else []
    return list(chunks_given(stream, chunk, tensors(x)))


def _static(stream: BaseStream) -> List[bool]:
    ports: Any = getattr(stream, "ports", None)
    return [False] if ports is None else [port.static for port in ports]


def _nbytes(module: Any) -> int:
    return sum(int(m._nbytes()) for m in module.modules() if hasattr(m, "_nbytes"))


def _held_inputs(stream: BaseStream) -> List[LayerSummary]:
    """The static inputs of a stream, which it holds for the whole signal."""
    ports: Any = getattr(stream, "ports", [])
    held = [(f"ports.{i}", _nbytes(port)) for i, port in enumerate(ports) if port.static]
    return [LayerSummary(path, "static input", 0.0, 0.0, 0, 0, nbytes, 0.0, 0.0) for path, nbytes in held]


def _rates(part: Part, meter: _Meter, graphs: Dict[int, _Meter], samples: int) -> Tuple[float, float]:
    if part.call != "run":
        return meter.came / samples, meter.given / samples
    # The parts of a graph do not say where time is in what they take, but how long it is.
    assert part.graph is not None
    hop = part.graph.hop
    start = (1 << 18) // hop * hop
    one, two = (lengths_in_graph(part.graph, n)[id(part.node)] for n in (start, start + hop))
    outer = graphs[id(part.graph)].came / samples if id(part.graph) in graphs else 1.0
    return (two[0] - one[0]) / hop * outer, (two[1] - one[1]) / hop * outer
