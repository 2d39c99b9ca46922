"""The part of a graph stream in which queries meet keys. TorchScript compiles this file."""

# A ModuleList does not tell the type of its modules.
# mypy: disable-error-code="operator, union-attr, assignment"

from typing import Any, Iterator, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from ..core.context import Pattern
from ..core.fast_attributes import entry
from ..core.tracing import recording, settled
from ..layers.attention_memory import AttentionMemory, Faced
from .layout import Layout

__all__ = ["RelationNode"]


class _Nothing(nn.Module):
    def forward(self, xs: List[Tensor]) -> List[Tensor]:
        return xs


class RelationNode(nn.Module):
    """Operations of the model between queries and keys, from a product of both to sums over the keys.

    The model's own operations run on the queries that can be answered and the keys that these see.

    Args:
        pattern: which query sees which key
        bodies: what is computed. The first takes a list of tensors: the query-side values, the key-side values, both in
            the model's layout, a mask ``[b, m, K]``, the positions of queries and keys, and static values; it gives a
            list with the answers. The second is the same where every query sees all the keys; the mask is empty. A
            third takes besides, at the end, weights that another part has made for the same queries and keys
        sources: slots of the query-side values, of the key-side values, and of static ones
        queries: how many the query-side ones are
        layouts: of both
        target: slot of the answers
        layout_out: of these
        products: multiply-adds for each key that a query sees, and for each distance of a query
        shared: slot of weights that the bodies give behind the answers, for other parts; -1 if they give none
        given: slot of weights that another part may have given; -1 if none does
    """

    sources: List[int]
    channels: List[int]
    spent: List[int]
    memory = entry("_modules")
    body = entry("_modules")
    plain = entry("_modules")
    short = entry("_modules")
    layouts = entry("_modules")

    def __init__(
        self,
        pattern: Pattern,
        bodies: Sequence[nn.Module],
        sources: Sequence[int],
        queries: int,
        layouts: Sequence[Layout],
        target: int,
        layout_out: Layout,
        products: Tuple[int, int],
        shared: int = -1,
        given: int = -1,
    ) -> None:
        super().__init__()
        self.memory = AttentionMemory(pattern)
        self.body, self.plain = bodies[0], bodies[1]
        self.short = bodies[2] if given >= 0 else _Nothing()
        self.shared, self.given = shared, given
        self.sources = list(sources)
        self.queries = queries
        self.streamed = len(layouts)
        self.layouts = nn.ModuleList(layouts)
        self.channels = [layout.channels for layout in layouts]
        self.target = target
        self.layout_out = layout_out
        self.spent = []
        self.per_key, self.per_distance = products

    def extra_repr(self) -> str:
        return f"{self.sources} -> {self.target}"

    def run(self, chunks: List[Optional[Tensor]], came: int, final: bool) -> None:
        if not final:
            again = self._taken_again(chunks)
            if again is not None:
                asked: List[Tensor] = []
                for i in self.sources[: self.queries]:
                    query = chunks[i]
                    assert query is not None
                    asked.append(query)
                chunks[self.target] = self._answers(chunks, asked, again)
                return
        packed: List[Tensor] = []
        for k, layout in enumerate(self.layouts):
            x = chunks[self.sources[k]]
            if x is not None:
                packed.append(layout.pack(x))
        q: Optional[Tensor] = None
        key: Optional[Tensor] = None
        if len(packed) > 0:
            assert len(packed) == self.streamed, "values of one clock came apart"
            n = self.queries
            q = packed[0] if n == 1 else torch.cat(packed[:n], 1)
            key = packed[n] if n + 1 == self.streamed else torch.cat(packed[n:], 1)
        faced = self.memory.take(q, key, final)
        if faced is None:
            return
        waited: List[Tensor] = []
        parts = torch.split(faced.q, self.channels[: self.queries], 1)
        for k, back in enumerate(self.layouts):
            if k < self.queries:
                waited.append(back.unpack(parts[k]))
        chunks[self.target] = self._answers(chunks, waited, faced)
        self.memory.expect()

    def _taken_again(self, chunks: List[Optional[Tensor]]) -> Optional[Faced]:
        # In the steady state queries need no memory, and keys are written where they stay.
        ring = self.memory.keys
        if ring.period < 0 or not settled():
            return None
        packed: List[Tensor] = []
        t = ring.period
        for k, layout in enumerate(self.layouts):
            x = chunks[self.sources[k]]
            if x is None:
                return None
            if x.size(layout.time) != t:
                return None
            if k >= self.queries:
                packed.append(layout.pack(x))
        key = packed[0] if len(packed) == 1 else torch.cat(packed, 1)
        if key.dtype != ring.data.dtype:
            return None
        memory = self.memory
        mask = memory.mask_again()
        keys = memory.take_again(key, t)
        return Faced(key, keys, memory.steps, memory.slots, mask)

    @torch.jit.unused
    def slots(self) -> List[int]:
        """What it reads and writes."""
        return [*self.sources, self.target, *(slot for slot in (self.shared, self.given) if slot >= 0)]

    def _answers(self, chunks: List[Optional[Tensor]], asked: List[Tensor], faced: Faced) -> Tensor:
        """The answers; ``nan`` where a key that is seen is not finite, and only there."""
        mask = faced.mask
        if mask is None:
            return self._computed(chunks, asked, faced, faced.k, True)
        looked = faced.k.device.type == "cpu" and not recording()
        if looked:
            y = self._computed(chunks, asked, faced, faced.k, True)
            if not y.is_floating_point():
                return y
            total = float(y.sum().item())
            if total == total:
                return y
        # A weight of 0 does not hide what is not finite, so it is taken out.
        sound = torch.isfinite(faced.k)
        finite = sound.all(1)
        y = self._computed(chunks, asked, faced, torch.where(sound, faced.k, torch.zeros_like(faced.k)), not looked)
        return self.layout_out.spoilt(y, (mask & ~finite.unsqueeze(1)).any(2))

    def _computed(
        self, chunks: List[Optional[Tensor]], asked: List[Tensor], faced: Faced, keys: Tensor, shares: bool
    ) -> Tensor:
        n = self.queries
        parts = torch.split(keys, self.channels[n:], 1)
        xs: List[Tensor] = []
        for k, back in enumerate(self.layouts):
            xs.append(asked[k] if k < n else back.unpack(parts[k - n]))
        mask = faced.mask
        xs.append(faced.i if mask is None else mask)  # what sees all asks for none
        xs.append(faced.i)
        xs.append(faced.j)
        for i in self.sources[self.streamed :]:
            static = chunks[i]
            assert static is not None
            xs.append(static)
        if self.given >= 0 and shares:
            weights = chunks[self.given]
            if weights is not None:
                xs.append(weights)
                found: List[Tensor] = self.short.forward(xs)
                return found[0]
        ys: List[Tensor] = self.plain.forward(xs) if mask is None else self.body.forward(xs)
        if self.shared >= 0:
            # Whoever looks at the answers alone would not see that a key was not finite.
            chunks[self.shared] = ys[1] if shares else None
        return ys[0]

    def count(self, lengths: List[int], n: int, final: bool) -> None:
        length = lengths[self.sources[0]]
        lengths[self.target] = length if final else self.memory.ready(0, length)

    @torch.jit.unused
    def pattern(self) -> Pattern:
        """Which query sees which key."""
        memory: Any = self.memory
        table = tuple(tuple(row) for row in memory.table.tolist()) if memory.tabled else None
        return Pattern(tuple(memory.lo), tuple(memory.hi), table, memory.prefix)

    @torch.jit.unused
    def multiply_adds(self, given: int) -> int:
        """Multiply-adds of one row for so many answers: of the keys that a query sees, on an average of the pattern."""
        pattern = self.pattern()
        i = torch.arange(pattern.period).unsqueeze(1)
        j = torch.arange(min(pattern.lo), max(pattern.hi) + 1).unsqueeze(0)
        within = Pattern(pattern.lo, pattern.hi, pattern.table)
        seen = int(within.visible(i, j).sum()) / pattern.period + pattern.prefix
        distances = pattern.lookback + max(pattern.lookahead, 0) + 1
        return round(given * (seen * self.per_key + distances * self.per_distance))

    @torch.jit.unused
    def taps(self, n: int) -> Iterator[Tensor]:
        """Keys that the queries of a signal see, one by one; -1 for none."""
        pattern, i = self.pattern(), torch.arange(n)
        for offset in range(-pattern.lookback, pattern.lookahead + 1):
            yield torch.where(pattern.visible(i, i + offset), i + offset, -1)
        for key in range(pattern.prefix):
            j = torch.full_like(i, key)
            yield torch.where(pattern.visible(i, j) & (i - j > pattern.lookback), j, -1)
