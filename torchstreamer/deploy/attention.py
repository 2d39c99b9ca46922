"""How attention, and networks on windows, run in a static step.

With ``m`` samples per step, keys come at lag ``d`` and queries are answered at a lag ``D``, by which the newest key
that they see is there. Both stand at the same places of the pattern in every step and row, so which slot a query sees
is a constant; which slots hold samples of the row's signal follows from its age and length. Samples outside of it are
zeroed before they are written: a weight of 0 would not hide ``nan``. What a row held before is hidden by its positions.
"""

from typing import Any, List, Tuple

import torch
from torch import Tensor, nn

from ..core.context import Context, Pattern
from ..layers.attention import SelfAttentionStream
from ..layers.chunked import Chunked1dStream, on_windows
from .planning import Edge, Planner, static_rule
from .rows import Part, Rows

__all__ = ["AttentionPart", "ChunkedPart", "query_lag"]


def query_lag(pattern: Pattern, lag: int) -> int:
    """The least lag of queries in a static step, for the lag of keys: when the newest key that they see is there."""
    found = lag
    while pattern.newest(-1 - found) > -1 - lag:
        found += 1
    return found


class AttentionPart(Part):
    """Attention of a signal to itself.

    Args:
        body: its mathematics, `AttentionBody` or another with the same methods
        pattern: which query sees which key
        lag: of the input, at least 0
        lag_out: of the queries
        key: of the input's length
        m: samples per step
        longest: samples of the longest signal, -1 for any; what is later is ``nan``
    """

    band: Tensor
    newest: Tensor

    def __init__(self, body: Any, pattern: Pattern, lag: int, lag_out: int, key: int, m: int, longest: int) -> None:
        super().__init__()
        self.body = body
        self.lag, self.lag_out, self.key = lag, lag_out, key
        self.prefix = pattern.prefix
        self.longest = longest
        first = -lag_out
        place = first % pattern.period
        self.oldest = min(first - place + pattern.lo[place], -lag)  # of the slots, from where the step begins
        self.slots = -lag - self.oldest  # held from step to step
        i = torch.arange(first, first + m).unsqueeze(1)
        j = torch.arange(self.oldest, m - lag).unsqueeze(0)
        self.register_buffer("band", Pattern(pattern.lo, pattern.hi, pattern.table).visible(i, j), persistent=False)
        newest = [pattern.newest(int(at)) for at in i]
        self.register_buffer("newest", torch.tensor(newest), persistent=False)

    def empty(self, xs: List[Tensor]) -> List[Tensor]:
        # Samples that wait, keys and values, whether one of them is spoilt; and those at the start of the signal.
        x = xs[0]
        rows, width = x.size(0), self.body.kv_channels()
        kv = self.body.keys(x.transpose(1, 2), torch.zeros([1, x.size(2)], dtype=torch.int64, device=x.device))
        states = [x.new_zeros([rows, x.size(1), self.lag_out - self.lag])] if self.lag_out > self.lag else []
        for held in (self.slots, self.prefix):
            if held > 0:
                states.append(kv.new_zeros([rows, held, width]))
                states.append(x.new_zeros([rows, held]))  # no flags, of which ONNX Runtime takes no choice
        return states

    def forward(self, xs: List[Tensor], states: List[Tensor], rows: Rows) -> Tuple[Tensor, List[Tensor]]:
        x = xs[0]
        m = x.size(2)
        fold = x.size(0) // rows.age.size(0)
        inside = _each(rows.inside(m, self.lag, self.key), fold)
        finite = torch.isfinite(x).all(1)
        sound = torch.where((inside & finite).unsqueeze(1), x, torch.zeros_like(x))
        new = self.body.keys(sound.transpose(1, 2), _each(rows.position(m, self.lag), fold))
        held = iter(states)
        kept: List[Tensor] = []
        came = (inside & ~finite).to(x.dtype)
        waiting, kv, spoilt = x, new, came
        if self.lag_out > self.lag:
            waiting = torch.cat([next(held), x], 2)
            kept.append(waiting[:, :, m:])
        if self.slots > 0:
            kv, spoilt = torch.cat([next(held), new], 1), torch.cat([next(held), spoilt], 1)
            kept += [kv[:, m:], spoilt[:, m:]]
        begin = _each(rows.begin(m, 0), fold)
        length = _each(rows.length(self.key), fold)
        j = begin + torch.arange(self.oldest, m - self.lag, device=x.device)
        i = _each(rows.position(m, self.lag_out), fold)
        there = (j >= 0) & (j < length)
        mask = self.band.unsqueeze(0) & there.unsqueeze(1)
        if self.prefix > 0:
            newest = begin + self.newest
            sunk = (j < self.prefix).unsqueeze(1) & (j.unsqueeze(1) <= newest.unsqueeze(2)) & there.unsqueeze(1)
            at = torch.arange(self.prefix, device=x.device).unsqueeze(0)
            ago = at - (begin - self.lag)
            fresh = (ago >= 0) & (ago < m)
            place = ago.clamp(0, m - 1)
            sinks = new.gather(1, place.unsqueeze(2).expand(-1, -1, new.size(2)))
            sinks = torch.where(fresh.unsqueeze(2), sinks, next(held))
            marked = torch.where(fresh, came.gather(1, place), next(held))
            kept += [sinks, marked]
            before = ((at < j[:, :1]) & (at < length)).unsqueeze(1).expand(-1, m, -1)
            mask = torch.cat([before, mask | sunk], 2)
            kv = torch.cat([sinks, kv], 1)
            spoilt = torch.cat([marked, spoilt], 1)
            j = torch.cat([at.expand(j.size(0), -1), j], 1)
        asking = waiting[:, :, :m].transpose(1, 2)
        y = self.body.answer(asking, self.body.asks(asking, i), kv, i, j, mask).transpose(1, 2)
        bad = (mask & (spoilt > 0).unsqueeze(1)).any(2)
        if self.longest >= 0:
            bad = bad | (i >= self.longest)
        y = y.masked_fill(bad.unsqueeze(1), float("nan"))
        return y, [rows.keep(old, each.to(old.dtype)) for old, each in zip(states, kept, strict=True)]


def _each(tensor: Tensor, fold: int) -> Tensor:
    # [B, …] for each of the rows [B·k, …].
    return tensor.repeat_interleave(fold, 0) if fold != 1 else tensor


@static_rule(SelfAttentionStream)
def attention(plan: Planner, stream: SelfAttentionStream, edge: Edge) -> Edge:
    edge = plan.settled(edge)
    edge = plan.delayed(edge, max(-edge.lag, 0))
    lag = query_lag(stream.pattern_, edge.lag)
    part = AttentionPart(
        stream.body.without_guard(), stream.pattern_, edge.lag, lag, plan.key(edge), edge.per_step, stream._limit
    )
    return plan.add(part.to(edge.example.device), [edge], lag, plan.through(edge, stream))


class ChunkedPart(Part):
    """A network on windows around each chunk, whose middles are kept.

    Args:
        net: the network
        chunk, left, right: of the windows
        lag: of the input, at least 0
        lag_out: of the output
        key: of the input's length
    """

    def __init__(self, net: nn.Module, chunk: int, left: int, right: int, lag: int, lag_out: int, key: int) -> None:
        place = -lag_out % chunk
        # Held are the samples from the first window's on, counted from where the step begins.
        super().__init__(lag_out + place + left - lag)
        self.place = place  # of the first output in its chunk
        self.net = net
        self.chunk, self.left, self.right = chunk, left, right
        self.lag, self.lag_out, self.key = lag, lag_out, key

    def forward(self, xs: List[Tensor], states: List[Tensor], rows: Rows) -> Tuple[Tensor, List[Tensor]]:
        x = xs[0]
        m = x.size(2)
        inside = _each(rows.inside(m, self.lag, self.key), x.size(0) // rows.age.size(0))
        x = torch.where(inside.unsqueeze(1), x, torch.zeros_like(x))
        window, states = self.join(x, states, rows, 0.0)
        count = -(-(self.place + m) // self.chunk)
        y = on_windows(self.net, window[:, :, : count * self.chunk + self.left + self.right], *self._sizes())
        return y[:, :, self.place : self.place + m], states

    def _sizes(self) -> Tuple[int, int, int]:
        return self.chunk, self.left, self.right


@static_rule(Chunked1dStream)
def chunked(plan: Planner, stream: Chunked1dStream, edge: Edge) -> Edge:
    edge = plan.settled(edge)
    edge = plan.delayed(edge, max(-edge.lag, 0))
    lag = query_lag(Context(stream.left, stream.right, stream.chunk).pattern(), edge.lag)
    part = ChunkedPart(stream.net, stream.chunk, stream.left, stream.right, edge.lag, lag, plan.key(edge))
    return plan.add(part, [edge], lag, plan.through(edge, stream))
