"""Plans a static step: which parts, in which order, and at which lag each value runs."""

import functools
import math
from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple, Type

import torch
from torch import Tensor, nn

from ..core.lengths import LengthFunction, LengthTable
from ..core.reach import Reach
from ..core.stream import BaseStream
from ..errors import UnsupportedModuleError
from ..graph.layout import Layout
from ..layers.padding import Pad1dStream
from .counting import OPEN, RowLength
from .ends import Fit, Mirrored
from .parts import Call, Delay, Pick
from .rows import Part, Rows

__all__ = ["Edge", "Margin", "Packing", "Planner", "Unpacking", "static_rule"]

# The longest period, and the latest start of one, that lengths are tried for.
_LONGEST = 1 << 18


class Margin(NamedTuple):
    """Padding around a value that no part has put there yet.

    Attributes:
        left: samples before the first
        right: samples after the last
        mode: ``"constant"``, ``"reflect"``, ``"symmetric"`` or ``"replicate"``
        value: of constant ones
        length: of the value without them, for each total length
        filled: to how many samples zeros fill a signal of 0, 1, 2 … samples before it is mirrored
    """

    left: int
    right: int
    mode: str
    value: float
    length: LengthFunction
    filled: Tuple[int, ...] = ()

    def settled(self, n: int) -> int:
        """Samples that are sure of the padded value after ``n`` of the value."""
        return Pad1dStream(self.left, self.right, self.mode, self.value).output_length(n, False)


@dataclass(frozen=True)
class Edge:
    """A value between two parts.

    Attributes:
        slot: where it stands
        lag: its first sample in step ``k`` has position ``k · m - lag``
        length: its length for each total length
        example: the value in a step, zeros
        time, rows: its time axis and its batch axis
        margin: what is still to be put around it, if anything; slot, lag and example are those without it. A window
            puts it there itself, for which nothing has to wait
    """

    slot: int
    lag: int
    length: LengthFunction
    example: Tensor
    time: int = 2
    rows: int = 0
    margin: Optional[Margin] = None

    @property
    def per_step(self) -> int:
        """Samples per step."""
        return self.example.size(self.time)

    @property
    def packed(self) -> bool:
        """Whether it is ``[B, C, m]``."""
        return self.example.dim() == 3 and self.time == 2 and self.rows == 0

    def shifted(self, samples: int, length: LengthFunction) -> "Edge":
        """The same samples as ones that stand so much further on in their signal."""
        assert self.margin is None
        return replace(self, lag=self.lag - samples, length=length)


Rule = Callable[["Planner", Any, Edge], Edge]

_RULES: Dict[Type[nn.Module], Tuple[Rule, bool]] = {}


class _Through:
    # The length of a stream's output. Without recursion, however many streams stand in front of it.
    def __init__(self, before: LengthFunction, stream: BaseStream) -> None:
        self.before = before
        self.stream = stream
        self.known: Dict[int, int] = {}

    def __call__(self, n: int) -> int:
        missing: List[_Through] = []
        at: Any = self
        while isinstance(at, _Through) and n not in at.known:
            missing.append(at)
            at = at.before
        for each in reversed(missing):
            each.known[n] = each.stream.output_length(each.before(n), True)
        return self.known[n]


def static_rule(*kinds: Type[nn.Module], margins: bool = False) -> Callable[[Rule], Rule]:
    """Registers how streams of these types run in a static step, as a decorator of a function.

    The function takes the planner, a stream and the value that goes into it, an `Edge`, adds parts to the planner and
    gives the value that comes out. A stream that treats every sample alone is a `Call` of its module, one that looks
    through a sliding window is an `add_window`; other parts are subclasses of `Part`, added with `Planner.add`.

    Args:
        kinds: classes of streams; the rule also takes their subclasses, unless these have a ``forward`` of their own
        margins: whether it takes values of which constants on both sides are still to be made, `Edge.margin`

    Example:
        >>> import torch, torchstreamer as pts
        >>> from torchstreamer import deploy
        >>> class Smooth(torch.nn.Module):
        ...     def forward(self, x):
        ...         return x.unfold(-1, 8, 1).mean(-1)
        >>> @pts.register_streamer(Smooth)
        ... class SmoothStream(pts.BaseStream):
        ...     def __init__(self, net):
        ...         super().__init__()
        ...         self.net, self.ring = net, pts.RingBuffer()
        ...     def forward(self, x, final=False):
        ...         window = self.ring.join(x)
        ...         self.ring.keep(window, max(window.size(-1) - 7, 0))
        ...         return self.net(window) if window.size(-1) > 7 else None
        ...     def output_length(self, n, final=True):
        ...         return max(n - 7, 0)
        >>> @deploy.static_rule(SmoothStream)
        ... def smooth(plan, stream, edge):
        ...     return deploy.add_window(plan, edge, stream.net, 8, 1, plan.through(edge, stream))
        >>> pts.StaticStream(pts.create_stream(Smooth()), chunk=16, channels=2).lag
        7
    """

    def register(rule: Rule) -> Rule:
        for kind in kinds:
            _RULES[kind] = rule, margins
        return rule

    return register


class Planner:
    """Collects the parts of a static step.

    Args:
        chunk: samples per step
        batch: rows
        hop: input period of the whole stream
        multiple: what total lengths are multiples of
        columns: up to so many outputs a convolution is computed as one product, or ``None``: as many as pay
        device: of the values
    """

    def __init__(
        self, chunk: int, batch: int, hop: int, multiple: int, columns: Optional[int], device: torch.device
    ) -> None:
        self.device = device
        self.chunk = chunk
        self.batch = batch
        self.period = math.lcm(hop, multiple)
        self.multiple = multiple
        self.columns = columns
        self.parts: List[Part] = []
        self.empty: List[List[Tensor]] = []
        self.slots = 1
        self.tables: List[LengthTable] = []
        self.counters: List[RowLength] = []
        self._keys: Dict[Tuple[Any, ...], int] = {}
        self._known: Dict[int, Tuple[LengthFunction, int]] = {}
        self._last: nn.Module = nn.Identity()  # the stream that was lowered last

    # ------------------------------------------------------------------ for rules

    def lower(self, stream: BaseStream, edge: Edge) -> Edge:
        """Add the parts of a stream after a value ``[B, C, m]``."""
        self._last = stream
        for kind in type(stream).__mro__:
            if kind in _RULES:
                if kind is not type(stream) and "handle" in type(stream).__dict__:
                    break  # it computes something else than the class that it extends
                rule, margins = _RULES[kind]
                return rule(self, stream, edge if margins else self.whole(edge))
        raise self.refuse(
            stream,
            "no_static_rule",
            "no rule says how it runs in a static step",
            "use pts.compile(stream, chunk=…), which takes every stream, or give a rule with static_rule",
        )

    def refuse(self, stream: nn.Module, code: str, reason: str, remedy: str) -> UnsupportedModuleError:
        """An error that names the stream."""
        return UnsupportedModuleError(code, stream, f"in a static step: {reason}", remedy)

    def add(
        self,
        part: Part,
        edges: Sequence[Edge],
        lag: int,
        length: Optional[LengthFunction] = None,
        time: int = 2,
        rows: int = 0,
    ) -> Edge:
        """Add a part after values; gives its output."""
        assert not any(edge.margin for edge in edges), "a part for values without their margins"
        y = self._add(part, [edge.slot for edge in edges], [edge.example for edge in edges])
        return Edge(part.target, lag, length or edges[0].length, y, time, rows)

    def add_several(self, body: nn.Module, edges: Sequence[Edge], axes: Sequence[Tuple[int, int]]) -> List[Edge]:
        """Add a module that treats every sample alone and gives several values.

        Args:
            body: takes the values one by one, gives a list
            edges: values at one lag
            axes: time axis and batch axis of each output
        """
        several = Call(body)
        ys = self._add(several, [edge.slot for edge in edges], [edge.example for edge in edges])
        made = []
        for i, (time, rows) in enumerate(axes):
            pick = Pick(i)
            y = self._add(pick, [several.target], [ys])
            made.append(Edge(pick.target, edges[0].lag, edges[0].length, y, time, rows))
        return made

    def _add(self, part: Part, sources: List[int], xs: List[Any]) -> Any:
        part.sources = sources
        part.target = self.slots
        self.slots += 1
        empty = part.empty(xs)
        with torch.no_grad():
            y, _ = part(xs, empty, self._still())
        self.parts.append(part)
        self.empty.append(empty)
        return y

    def key(self, edge: Edge) -> int:
        """The number under which the parts find the length of a value."""
        return self.key_of(edge.length)

    def key_of(self, length: LengthFunction) -> int:
        """The number under which the parts find a length."""
        if id(length) not in self._known:
            starts = [0, *(turns for turns in (2 << 2 * i for i in range(18)) if turns * self.period <= _LONGEST)]
            table = LengthTable.fit(functools.cache(length), [self.period], multiple=self.multiple, starts=starts)
            if table is None:
                raise UnsupportedModuleError(
                    "irregular_length",
                    self._last,
                    "in a static step: a length inside does not rise regularly with the length of the signal, or only "
                    "beyond 262144 samples",
                    "use pts.compile(stream, chunk=…)",
                )
            same = (tuple(table.values), table.start, table.period, table.rise)
            if same not in self._keys:
                self._keys[same] = len(self.counters)
                self.counters.append(RowLength(table).to(self.device))
                self.tables.append(table)
            self._known[id(length)] = length, self._keys[same]
        return self._known[id(length)][1]

    def through(self, edge: Edge, stream: BaseStream) -> LengthFunction:
        """The length of a stream's output."""
        return _Through(edge.length, stream)

    def delayed(self, edge: Edge, samples: int) -> Edge:
        """The same value, so much later."""
        if samples == 0:
            return edge
        if not edge.packed:
            return self.unpacked(self.delayed(self.packed(edge), samples), edge)
        return self.add(Delay(samples), [edge], edge.lag + samples)

    def whole(self, edge: Edge) -> Edge:
        """The value with its margin put around it."""
        if edge.margin is None:
            return edge
        left, right, mode, value, length, filled = edge.margin
        inner = self.packed(replace(edge, margin=None, length=length))
        if mode != "constant":
            reach = Reach.shift(left, right)
            made = self.mirrored(inner, nn.Identity(), reach, mode, edge.margin.settled, edge.length, filled)
            return self.unpacked(made, edge)
        # Of the first step the first sample is at least at position 0.
        inner = self.settled(inner, left)
        made = self.add(Fit(inner.lag, self.key(inner), value), [inner], inner.lag - left, edge.length)
        return self.unpacked(made, edge)

    def mirrored(
        self,
        edge: Edge,
        body: nn.Module,
        reach: Reach,
        mode: str,
        settled: LengthFunction,
        length: LengthFunction,
        filled: Tuple[int, ...] = (),
    ) -> Edge:
        """An operation on the windows of a value that is padded by samples of its own.

        Args:
            edge: the value
            body: the operation
            reach: of the operation, with the padding
            mode: ``"reflect"``, ``"symmetric"`` or ``"replicate"``
            settled: outputs that are sure after so many samples of the value
            length: of the output
            filled: to how many samples zeros fill a signal of 0, 1, 2 … samples before it is mirrored
        """
        edge = self.settled(edge)
        lag = self.late(edge, reach, settled, reach.depth - reach.first + reach.end)
        return self.add(Mirrored(body, reach, mode, edge.lag, self.key(edge), lag, filled), [edge], lag, length)

    def late(self, edge: Edge, reach: Reach, settled: LengthFunction, start: int) -> int:
        """The least lag of the output of a layer whose first outputs wait for more than its reach says.

        Args:
            edge: its input
            reach: of the layer
            settled: outputs that are sure after so many samples of the input
            start: from so many samples on it is as many as the reach says
        """
        m = edge.per_step
        outputs = m * reach.p // reach.q
        early = (
            (step + 1) * outputs - settled(max((step + 1) * m - edge.lag, 0))
            for step in range((start + edge.lag) // m + 1)
        )
        return max(reach.lag(edge.lag), *early)

    def aligned(self, edges: Sequence[Edge], crops: Optional[Sequence[int]] = None) -> List[Edge]:
        """Values at one lag, after their first samples have been cropped."""
        edges = [self.whole(edge) for edge in edges]
        leads = crops or [0] * len(edges)
        lag = max(edge.lag + lead for edge, lead in zip(edges, leads, strict=True))
        later = [self.delayed(edge, lag - lead - edge.lag) for edge, lead in zip(edges, leads, strict=True)]
        return [edge.shifted(-lead, edge.length) for edge, lead in zip(later, leads, strict=True)]

    def settled(self, edge: Edge, lag: int = 0) -> Edge:
        """The value, at this lag or later, and so late that no sample of it comes before it is sure to exist."""
        edge = self.whole(edge)
        least = self.tables[self.key(edge)].least_ahead()
        steps = (len(least.values) + 2 * self.period) // self.chunk + 2
        m = edge.per_step
        early = max((k + 1) * m - edge.lag - least(self.ceiling((k + 1) * self.chunk)) for k in range(steps))
        # Nothing is early as long as nothing has come at all.
        return self.delayed(edge, max(early, lag - edge.lag, 0))

    def packed(self, edge: Edge) -> Edge:
        """The value as ``[B, C, m]``."""
        return edge if edge.packed else self.laid_out(edge, Packing(self._layout(edge)))

    def unpacked(self, edge: Edge, like: Edge) -> Edge:
        """The value laid out as another."""
        return edge if like.packed else self.laid_out(edge, Unpacking(self._layout(like)), like.time, like.rows)

    def laid_out(self, edge: Edge, change: nn.Module, time: int = 2, rows: int = 0) -> Edge:
        """The value in another layout, its margin still to be made."""
        made = self.add(Call(change), [replace(edge, margin=None)], edge.lag, edge.length, time, rows)
        return replace(made, margin=edge.margin)

    def ceiling(self, n: int) -> int:
        """The least total length from ``n`` on that can occur."""
        return -(-n // self.multiple) * self.multiple

    # ------------------------------------------------------------------ inside

    def _layout(self, edge: Edge) -> Layout:
        shape = edge.example.shape
        others = [size for axis, size in enumerate(shape) if axis not in (edge.time, edge.rows)]
        return Layout(edge.time, edge.rows, shape[edge.rows] // self.batch, others)

    def _still(self) -> Rows:
        zeros = torch.zeros([self.batch], dtype=torch.int64, device=self.device)
        return Rows(zeros, zeros > 0, zeros > 0, zeros + OPEN, list(self.counters))


class Packing(nn.Module):
    """Brings a value to ``[B, C, m]``."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout

    def forward(self, x: Tensor) -> Tensor:
        return self.layout.pack(x)


class Unpacking(Packing):
    """Brings ``[B, C, m]`` back."""

    def forward(self, x: Tensor) -> Tensor:
        return self.layout.unpack(x)
