"""The parts of a graph stream, which read and write a list of chunks. TorchScript compiles this file.

A part has ``run(chunks, came, final)``, which computes the chunks of its targets from those of its sources, and
``count(lengths, n, final)``, which does the same with their lengths. Its representation tells which these are, so that
states of models that differ in nothing else are told apart.
"""

# A ModuleList does not tell the type of its modules.
# mypy: disable-error-code="operator, union-attr, assignment"

from typing import List, Optional, Sequence

import torch
from torch import Tensor, nn

from ..core.cell import Cell
from ..core.counter import Counter
from ..core.fast_attributes import entry
from ..core.lengths import LengthTable
from ..core.ring import RingBuffer
from ..core.stream import BaseStream
from ..layers.merge import Align1d, Merge1d
from .layout import Layout

__all__ = [
    "AlignNode",
    "EdgeNode",
    "GateNode",
    "SegmentNode",
    "SettleNode",
    "StartedNode",
    "StreamNode",
    "SumNode",
]


class StreamNode(nn.Module):
    """A stream, from one value to another.

    Args:
        stream: the stream
        source: slot of its input
        target: slot of its output
        layout_in: layout of the input, if the stream takes it as ``[B, C, T]``
        layout_out: layout of the output
    """

    spent: List[int]
    stream = entry("_modules")
    layout_in = entry("_modules")
    layout_out = entry("_modules")

    def __init__(
        self, stream: BaseStream, source: int, target: int, layout_in: Optional[Layout], layout_out: Optional[Layout]
    ) -> None:
        super().__init__()
        self.stream = stream
        self.source = source
        self.target = target
        self.layout_in = layout_in
        self.layout_out = layout_out
        self.spent = []

    def extra_repr(self) -> str:
        return f"{self.source} -> {self.target}"

    def run(self, chunks: List[Optional[Tensor]], came: int, final: bool) -> None:
        x = chunks[self.source]
        if x is not None and self.layout_in is not None:
            x = self.layout_in.pack(x)
        y = self.stream.step(x, final)
        if y is not None and self.layout_out is not None:
            y = self.layout_out.unpack(y)
        chunks[self.target] = y

    def count(self, lengths: List[int], n: int, final: bool) -> None:
        lengths[self.target] = self.stream.output_length(lengths[self.source], final)


class StartedNode(StreamNode):
    """A recurrence, from one value to another, that begins with a state made of static values.

    Args:
        stream: the stream
        source: slot of its input, ``[B, C, T]``
        target: slot of its output
        starts: slots of the static values
        start: makes of them the tensors of the state, rows on the second axis
    """

    starts: List[int]
    start = entry("_modules")

    def __init__(self, stream: BaseStream, source: int, target: int, starts: Sequence[int], start: nn.Module) -> None:
        super().__init__(stream, source, target, None, None)
        self.starts = list(starts)
        self.start = start
        stream.memory.opening = (-1, 0.0)  # a state of its own

    def run(self, chunks: List[Optional[Tensor]], came: int, final: bool) -> None:
        x = chunks[self.source]
        if x is not None and not self.stream.memory.started():
            given: List[Tensor] = []
            for i in self.starts:
                value = chunks[i]
                if value is not None:
                    given.append(value)
            states: List[Tensor] = []
            made: List[Tensor] = self.start(given)
            for state in made:
                states.append(state.transpose(0, 1))
            self.stream.memory.keep(states)
        chunks[self.target] = self.stream.step(x, final)


class SegmentNode(nn.Module):
    """A run of operations that treat every sample alone, on values that come in equal chunks.

    Args:
        body: takes and gives lists of tensors
        sources: slots of its inputs; the first has a time axis
        streamed: how many of them have a time axis; static values follow
        targets: slots of its outputs
    """

    sources: List[int]
    targets: List[int]
    spent: List[int]
    body = entry("_modules")

    def __init__(self, body: nn.Module, sources: Sequence[int], streamed: int, targets: Sequence[int]) -> None:
        super().__init__()
        self.body = body
        self.sources = list(sources)
        self.streamed = streamed
        self.targets = list(targets)
        self.spent = []

    def extra_repr(self) -> str:
        return f"{self.sources} -> {self.targets}"

    def run(self, chunks: List[Optional[Tensor]], came: int, final: bool) -> None:
        xs: List[Tensor] = []
        for i in self.sources:
            x = chunks[i]
            if x is None:
                assert len(xs) == 0 or len(xs) >= self.streamed, "values of one clock came apart"
                return
            xs.append(x)
        ys: List[Tensor] = self.body.forward(xs)  # without the hooks that a call looks for
        for k, i in enumerate(self.targets):
            chunks[i] = ys[k]

    def count(self, lengths: List[int], n: int, final: bool) -> None:
        for i in self.targets:
            lengths[i] = lengths[self.sources[0]]


class AlignNode(nn.Module):
    """Values met by position: each gives as much as all have.

    Args:
        sources: slots of the values
        targets: slots of what they have in common
        layouts: of the values
    """

    sources: List[int]
    targets: List[int]
    spent: List[int]
    layouts = entry("_modules")
    align = entry("_modules")

    def __init__(self, sources: Sequence[int], targets: Sequence[int], layouts: Sequence[Layout]) -> None:
        super().__init__()
        self.sources = list(sources)
        self.targets = list(targets)
        self.layouts = nn.ModuleList(layouts)
        self.align = Align1d([0 for _ in sources])
        self.spent = []

    def extra_repr(self) -> str:
        return f"{self.sources} -> {self.targets}"

    def run(self, chunks: List[Optional[Tensor]], came: int, final: bool) -> None:
        if self._level(chunks):
            for k, i in enumerate(self.sources):
                chunks[self.targets[k]] = chunks[i]
            return
        packed: List[Optional[Tensor]] = []
        for k, layout in enumerate(self.layouts):
            x = chunks[self.sources[k]]
            packed.append(None if x is None else layout.pack(x))
        parts = self.align(packed)
        if len(parts) > 0:
            for j, back in enumerate(self.layouts):
                chunks[self.targets[j]] = back.unpack(parts[j])

    def _level(self, chunks: List[Optional[Tensor]]) -> bool:
        # Whether as much came of every value, and nothing waits.
        if not self.align.empty():
            return False
        t = -1
        for k, layout in enumerate(self.layouts):
            x = chunks[self.sources[k]]
            if x is None:
                return False
            if t >= 0 and x.size(layout.time) != t:
                return False
            t = x.size(layout.time)
        return True

    def count(self, lengths: List[int], n: int, final: bool) -> None:
        least = lengths[self.sources[0]]
        for i in self.sources:
            least = min(least, lengths[i])
        for i in self.targets:
            lengths[i] = least


class SumNode(nn.Module):
    """The sum of two values ``[B, C, T]``, met by position.

    Args:
        sources: slots of the values
        target: slot of the sum
    """

    sources: List[int]
    spent: List[int]
    merge = entry("_modules")

    def __init__(self, sources: Sequence[int], target: int) -> None:
        super().__init__()
        self.sources = list(sources)
        self.target = target
        self.merge = Merge1d([0, 0])
        self.spent = []

    def extra_repr(self) -> str:
        return f"{self.sources} -> {self.target}"

    def run(self, chunks: List[Optional[Tensor]], came: int, final: bool) -> None:
        pair: List[Optional[Tensor]] = [chunks[self.sources[0]], chunks[self.sources[1]]]
        chunks[self.target] = self.merge(pair)

    def count(self, lengths: List[int], n: int, final: bool) -> None:
        lengths[self.target] = min(lengths[self.sources[0]], lengths[self.sources[1]])


class SettleNode(nn.Module):
    """A value whose length depends on the length of the signal otherwise than its source's: the end is cropped, or
    padded, when it is known.

    Until then what survives every continuation is given.

    Args:
        source: slot of the value
        target: slot of the result
        layout: of the value
        lead: samples cropped from its start
        length: the result's length, for each length of the signal
        value: what the end is padded with, where it is
    """

    spent: List[int]

    def __init__(
        self,
        source: int,
        target: int,
        layout: Layout,
        lead: int,
        length: LengthTable,
        value: float = 0.0,
    ) -> None:
        super().__init__()
        self.source = source
        self.target = target
        self.layout = layout
        self.lead = lead
        self.length = length
        self.settled = length.least_ahead()
        self.value = value
        self.ring = RingBuffer(lead)
        self.came = Counter()  # samples of the signal, and
        self.sent = Counter()  # samples given; both wind back together by a period
        self.spent = []

    def extra_repr(self) -> str:
        return f"{self.source} -> {self.target}, lead={self.lead}, value={self.value}"

    def run(self, chunks: List[Optional[Tensor]], came: int, final: bool) -> None:
        x = chunks[self.source]
        if x is not None:
            x = self.layout.pack(x)
        n = self.came.value + came
        sent = self.sent.value
        have = sent + self.ring.held - self.ring.skip + (0 if x is None else x.size(2))
        stop = self.length(n) if final else min(self.settled(n), have)
        turns = (n - self.length.start) // self.length.period if n >= self.length.start else 0
        self.came.value = n - turns * self.length.period
        self.sent.value = max(stop, sent) - turns * self.length.rise
        if stop <= sent:
            if x is not None:
                self.ring.push(x)
            return
        if x is None:
            if not self.ring.started():
                return
            data = self.ring.data
            x = data.new_empty([data.size(0), data.size(2), 0])
        window = self.ring.join(x)
        count = min(stop, have) - sent
        y = window.narrow(2, 0, count)
        if stop > have:
            y = torch.nn.functional.pad(y, [0, stop - have], "constant", self.value)
        self.ring.keep(window, count)
        chunks[self.target] = self.layout.unpack(y)

    def count(self, lengths: List[int], n: int, final: bool) -> None:
        have = max(lengths[self.source] - self.lead, 0)
        stop = self.length(n) if final else min(self.settled(n), have)
        lengths[self.target] = max(stop, 0) if lengths[self.source] > 0 else 0


class EdgeNode(nn.Module):
    """A value with the first sample of another in front, or its last sample at the end.

    Args:
        sources: slots of the value and of the other
        target: slot of the result
        layout: of the value
        other: layout of the other
        last: whether the last sample is taken
        repeats: how often
    """

    sources: List[int]
    spent: List[int]

    def __init__(
        self, sources: Sequence[int], target: int, layout: Layout, other: Layout, last: bool, repeats: int
    ) -> None:
        super().__init__()
        self.sources = list(sources)
        self.target = target
        self.layout = layout
        self.other = other
        self.last = last
        self.repeats = repeats
        self.sample = Cell()
        self.waiting = RingBuffer()  # what came before it
        self.open = Counter()
        self.spent = []

    def extra_repr(self) -> str:
        return f"{self.sources} -> {self.target}, last={self.last}, repeats={self.repeats}"

    def run(self, chunks: List[Optional[Tensor]], came: int, final: bool) -> None:
        x = chunks[self.sources[0]]
        edge = chunks[self.sources[1]]
        if x is not None:
            x = self.layout.pack(x)
        if edge is not None:
            edge = self.other.pack(edge)
            if self.last or (self.open.value == 0 and not self.sample.started()):
                self.sample.keep([edge.narrow(2, edge.size(2) - 1 if self.last else 0, 1)])
        if self.last:
            if final and self.sample.started():
                end = self.sample.rows()[0].expand(-1, -1, self.repeats)
                x = end if x is None else torch.cat([x, end], 2)
        elif self.open.value == 0:
            if not self.sample.started():
                if x is not None:
                    self.waiting.push(x)
                return
            self.open.value = 1
            front = self.sample.rows()[0].expand(-1, -1, self.repeats)
            if x is not None:
                x = self.waiting.join(x)
                self.waiting.fill(x, 0, 0.0)
            elif self.waiting.started():
                x = self.waiting.rows().transpose(1, 2)
                self.waiting.fill(x, 0, 0.0)
            x = front if x is None else torch.cat([front, x], 2)
            self.sample.forget()
        if x is not None:
            chunks[self.target] = self.layout.unpack(x)

    def count(self, lengths: List[int], n: int, final: bool) -> None:
        length = lengths[self.sources[0]]
        other = lengths[self.sources[1]]
        if self.last:
            lengths[self.target] = length + (self.repeats if final and other > 0 else 0)
        else:
            lengths[self.target] = length + self.repeats if other > 0 else 0


class GateNode(nn.Module):
    """Holds an input back until the signal is long enough for the model, and lets it pass from then on.

    Args:
        source: slot of the input
        layout: of the input
        shortest: the least length at which the model works, in samples of this input
    """

    spent: List[int]

    def __init__(self, source: int, layout: Layout, shortest: int) -> None:
        super().__init__()
        self.source = source
        self.target = source
        self.layout = layout
        self.shortest = shortest
        self.ring = RingBuffer()
        self.missing = Counter(shortest)
        self.spent = []

    def extra_repr(self) -> str:
        return f"{self.source}, shortest={self.shortest}"

    def run(self, chunks: List[Optional[Tensor]], came: int, final: bool) -> None:
        x = chunks[self.source]
        if self.missing.value > 0 and x is not None:
            x = self.layout.pack(x)
            if x.size(2) < self.missing.value:
                self.missing.value -= x.size(2)
                self.ring.push(x)
                chunks[self.source] = None
            else:
                self.missing.value = 0
                chunks[self.source] = self.layout.unpack(self.ring.join(x))
                self.ring.fill(x, 0, 0.0)

    def count(self, lengths: List[int], n: int, final: bool) -> None:
        if lengths[self.source] < self.shortest:
            lengths[self.source] = 0
