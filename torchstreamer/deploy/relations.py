"""How queries meet keys in a static step.

With ``m`` samples per step, keys come at lag ``d`` and queries are answered at a lag ``D``, by which the newest key
that they see is there. Both stand at the same places of the pattern in every step and row, so which slot a query sees
is a constant; which slots hold samples of the row's signal follows from the row's age and length. What lies outside of
the signal, or is not finite, is zeroed before it is written, for a weight of 0 does not hide ``nan``; a channel besides
says where something was not finite, and what sees it gets ``nan``.
"""

from typing import Any, List, Sequence, Tuple

import torch
from torch import Tensor, nn

from ..core.context import Pattern
from ..graph.layout import Layout
from .rows import Part, Rows

__all__ = ["Ended", "RelationPart"]


class Ended(Part):
    """``nan`` in rows whose signal has become longer than the tables of the model.

    Args:
        longest: samples of the input
        chunk: samples per step
        rows: the batch axis
    """

    def __init__(self, longest: int, chunk: int, rows: int) -> None:
        super().__init__()
        self.longest = longest
        self.chunk = chunk
        self.axis = rows

    def forward(self, xs: List[Tensor], states: List[Tensor], rows: Rows) -> Tuple[Tensor, List[Tensor]]:
        x = xs[0]
        came = torch.minimum((rows.age + 1) * self.chunk, rows.total)
        size = [1] * x.dim()
        size[self.axis] = -1
        return x.masked_fill((came > self.longest).reshape(size), float("nan")), []


class RelationPart(Part):
    """Operations between queries and keys.

    Args:
        body: computes the answers, see `RelationNode`
        layouts: of the query-side values, then of the key-side ones
        layout_out: of the answers
        queries: how many the first are
        pattern: which query sees which key
        lag: of the values, at least 0
        lag_out: of the answers
        key: of the values' length
        m: samples per step
    """

    band: Tensor
    newest: Tensor

    def __init__(
        self,
        body: nn.Module,
        layouts: Sequence[Layout],
        layout_out: Layout,
        queries: int,
        pattern: Pattern,
        lag: int,
        lag_out: int,
        key: int,
        m: int,
    ) -> None:
        super().__init__()
        self.body = body
        self.layouts = nn.ModuleList(layouts)
        self.channels = [layout.channels for layout in layouts]
        self.layout_out = layout_out
        self.queries = queries
        self.lag, self.lag_out, self.key = lag, lag_out, key
        self.prefix = pattern.prefix
        first = -lag_out
        place = first % pattern.period
        self.oldest = min(first - place + pattern.lo[place], -lag)  # slot, counted from where the step begins
        self.slots = -lag - self.oldest  # held from step to step
        i = torch.arange(first, first + m).unsqueeze(1)
        j = torch.arange(self.oldest, m - lag).unsqueeze(0)
        self.register_buffer("band", Pattern(pattern.lo, pattern.hi, pattern.table).visible(i, j), persistent=False)
        newest = [pattern.newest(int(at)) for at in i]
        self.register_buffer("newest", torch.tensor(newest), persistent=False)

    def empty(self, xs: List[Tensor]) -> List[Tensor]:
        # Queries that wait, keys, and those at the start of the signal.
        packed: Any = [layout.pack(x) for layout, x in zip(self.layouts, xs, strict=True)]  # type: ignore[operator]
        rows, queries, keys = (
            packed[0].size(0),
            sum(self.channels[: self.queries]),
            sum(self.channels[self.queries :]) + 1,
        )
        sizes = [(queries, self.lag_out - self.lag), (keys, self.slots), (keys, self.prefix)]
        return [packed[0].new_zeros([rows, *size]) for size in sizes if size[1] > 0]

    def forward(self, xs: List[Tensor], states: List[Tensor], rows: Rows) -> Tuple[Tensor, List[Tensor]]:
        packed: List[Tensor] = [layout.pack(x) for layout, x in zip(self.layouts, xs, strict=True)]  # type: ignore[operator]
        q, new = torch.cat(packed[: self.queries], 1), torch.cat(packed[self.queries :], 1)
        m = q.size(2)
        inside = rows.inside(m, self.lag, self.key).unsqueeze(1)
        finite = torch.isfinite(new).all(1, keepdim=True)
        new = torch.where(inside & finite, new, torch.zeros_like(new))
        new = torch.cat([new, (inside & ~finite).to(new.dtype)], 1)
        held = [rows.restart(state, 0.0) for state in states]
        waiting = torch.where(inside, q, torch.zeros_like(q))
        keys, kept = new, []
        if self.lag_out > self.lag:
            waiting = torch.cat([held[0], waiting], 2)
            kept.append(waiting[:, :, m:])
        if self.slots > 0:
            keys = torch.cat([held[len(kept)], new], 2)
            kept.append(keys[:, :, m:])
        begin, length = rows.begin(m, 0), rows.length(self.key)
        i = torch.arange(-self.lag_out, m - self.lag_out, device=q.device).unsqueeze(0)
        j = torch.arange(self.oldest, m - self.lag, device=q.device).unsqueeze(0)
        at = begin + j
        there = (at >= 0) & (at < length)
        mask = self.band.unsqueeze(0) & there.unsqueeze(1)
        if self.prefix > 0:
            sunk = torch.arange(self.prefix, device=q.device).unsqueeze(0)
            came = sunk - (begin - self.lag)
            place = came.clamp(0, m - 1).unsqueeze(1).expand(-1, new.size(1), -1)
            fresh = ((came >= 0) & (came < m)).unsqueeze(1)
            sinks = torch.where(fresh, new.gather(2, place), held[-1])
            kept.append(sinks)
            # Those that stand in slots are seen there, up to the newest that a query sees.
            seen = (at < self.prefix).unsqueeze(1) & (at.unsqueeze(1) <= (begin + self.newest).unsqueeze(2))
            mask = mask | (seen & there.unsqueeze(1))
            before = ((sunk < at[:, :1]) & (sunk < length)).unsqueeze(1).expand(-1, m, -1)
            mask = torch.cat([before, mask], 2)
            keys = torch.cat([sinks, keys], 2)
            # Positions in the signal, for the distance of the first keys grows.
            i = i + begin
            j = torch.cat([sunk.expand(at.size(0), -1), at], 1)
        parts = list(torch.split(waiting[:, :, :m], self.channels[: self.queries], 1))
        *faced, spoilt = torch.split(keys, [*self.channels[self.queries :], 1], 1)
        parts += faced
        given = [layout.unpack(part) for layout, part in zip(self.layouts, parts, strict=True)]  # type: ignore[operator]
        y = self.body([*given, mask, i, j])[0]
        if y.is_floating_point():
            y = self.layout_out.spoilt(y, (mask & (spoilt > 0)).any(2))
        return y, [rows.keep(old, each.to(old.dtype)) for old, each in zip(held, kept, strict=True)]
