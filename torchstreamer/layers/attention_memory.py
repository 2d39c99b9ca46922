"""`AttentionMemory`: keys and values that later queries see, and queries that wait for later keys.

TorchScript compiles this file, so it uses no postponed annotations.
"""

from typing import List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling
from torch.jit import is_scripting

from ..core.cell import Cell
from ..core.context import Pattern
from ..core.counter import Counter
from ..core.fast_attributes import entry
from ..core.ring import RingBuffer
from ..core.row_clock import RowClock
from ..core.tracing import in_place, plain_inference

__all__ = ["AttentionMemory", "Faced"]


class Faced(NamedTuple):
    """The queries that are answered now, and the keys that they face.

    Attributes:
        q: query-side values ``[B, Cq, m]``, a view of memory that lasts until the next step, not to be written to
        k: key-side values ``[B, Ck, K]``, likewise
        i: positions of the queries, int64, ``[B, m]`` or ``[1, m]``
        j: positions of the keys, ``[B, K]`` or ``[1, K]``; negative where nothing has come yet
        mask: ``[B, m, K]`` or ``[1, m, K]``, ``True`` where a query sees a key; ``None`` where each sees all
    """

    q: Tensor
    k: Tensor
    i: Tensor
    j: Tensor
    mask: Optional[Tensor]


class AttentionMemory(nn.Module):
    """What one attention remembers of a signal that comes in pieces. It is a part of a stream, and no stream itself.

    A step packs all that belongs to a sample, for its query along the channels of one tensor, for its key and value
    along those of another, and gives them to `take`. Of what that gives it computes scores ``[B, H, m, K]``, puts
    ``-inf`` where the mask says ``False``, and takes the softmax over ``K``: operations on ``m`` queries and ``K``
    keys, never on the whole signal, so a model's own may be run on them as they are, each with its two time axes of
    ``m`` and ``K``:

        faced = self.memory.take(q, torch.cat([k, v], 1), final)
        if faced is None:
            return None
        k, v = faced.k.split(channels, 1)
        scores = heads(faced.q).transpose(2, 3) @ heads(k)                # [B, H, m, K]
        if faced.mask is not None:
            scores = scores.masked_fill(~faced.mask.unsqueeze(1), float("-inf"))
        y = scores.softmax(-1) @ heads(v).transpose(2, 3)                 # [B, H, m, D]

    Biases of ``i - j`` come from ``faced.i`` and ``faced.j``; tables and rotations by position are applied before,
    where a sample comes, or here with ``clocked=True``. What several attentions share, such as one matrix for several
    values, is packed into one memory.

    A slot of which nothing has come yet holds zeros, which the mask hides: nothing but finite numbers stands behind it,
    unless the signal itself has others. The number of slots does not depend on how old a row is; how many of them are
    valid is a number of the row. How many queries wait, and where in the period of the pattern the next one stands, is
    the phase. Any number of samples may come at once: keys are dropped once all queries that see them are answered.

    Args:
        pattern: which query sees which key, `Context.pattern`
        clocked: whether ``i`` and ``j`` are positions in the signal, the same in each row of a batch or not. Otherwise
            they count from anywhere, which is enough for differences. With a prefix or a longest signal it always is
        longest: samples of the longest signal, -1 for any: more are refused with ``signal_too_long``
    """

    lo: List[int]
    hi: List[int]
    back: List[int]
    table: Tensor
    steps: Tensor
    slots: Tensor
    seen: Tensor
    unfilled: Tensor
    keys = entry("_modules")
    clock = entry("_modules")

    def __init__(self, pattern: Pattern, clocked: bool = False, longest: int = -1) -> None:
        super().__init__()
        self.longest = longest
        self.pattern_name = repr(pattern)
        self.period = pattern.period
        self.lo = list(pattern.lo)
        self.hi = list(pattern.hi)
        self.prefix = pattern.prefix
        # Keys held before the first query that waits, by its place in the period.
        self.back = [max(place - oldest, 0) for place, oldest in enumerate(pattern.lo)]
        self.level = pattern.hi[0] == pattern.hi[-1]  # all of a period are settled at once
        self.tabled = pattern.table is not None
        self.clocked = clocked or pattern.prefix > 0 or longest >= 0
        table = torch.tensor(pattern.table if pattern.table is not None else [[True]])
        self.register_buffer("table", table, persistent=False)
        self.queries = RingBuffer()
        self.keys = RingBuffer()
        self.keys.again = True
        self.sinks = Cell(["keys"])
        self.turn = Counter()
        # No row that has had so many has a slot that was never filled, whatever the phase.
        enough = max(self.back) + self.period + max(pattern.hi[-1], 0) + pattern.prefix
        self.clock = RowClock(enough, self.clocked)
        # What `_begin` puts there, and then a first chunk is one like any other.
        self.keys.opening = (self.back[0], 0.0)
        self.queries.opening = self.sinks.opening = self.clock.opening = (0, 0.0)
        # Length of the last chunk, if chunks like it change nothing but the keys and the clock of young rows; and
        # whether `seen` is their mask, but for what such rows have not had.
        self.steady = -1
        self.steady_mask = False
        # What the mask and the positions of the last step were made of, and themselves.
        self.made_for = (-1, -1, -1, -1)
        self.register_buffer("steps", torch.empty(0, dtype=torch.int64), persistent=False)
        self.register_buffer("slots", torch.empty(0, dtype=torch.int64), persistent=False)
        self.register_buffer("seen", torch.empty(0, dtype=torch.bool), persistent=False)
        # -inf for as many slots as there are before the first query, and 0 for those after them.
        self.register_buffer("unfilled", torch.empty(0), persistent=False)

    def take(self, q: Optional[Tensor], k: Optional[Tensor], final: bool) -> Optional[Faced]:
        """Take new samples, and give the queries that can be answered now.

        Args:
            q: query-side values of the new samples, ``[B, Cq, t]``, or ``None`` if none came
            k: their key-side values, ``[B, Ck, t]``, or ``None``
            final: whether the signal ends here: then all queries are answered
        """
        t = 0
        if k is not None and q is not None:
            t = k.size(2)
            self.require_room(k)
            if not self.keys.started():
                self._begin(q, k)
        elif not final or not self.keys.started():
            return None
        turn, waiting = self.turn.value, self.queries.held
        total = waiting + t
        m = total if final else self.ready(turn, total)
        keep = self.back[turn]
        rows = self.keys.data if k is None else self.keys.extend(k, plain_inference())
        first = self.keys.begin
        if m <= 0:
            self.keys.retain(rows, first, keep + total)
            if q is not None:
                self.queries.push(q)
            if self.prefix > 0 and k is not None:
                self._remember_sinks(k)
            self.clock.advance(t)
            return None
        asked = self._asked(q, m)
        last = turn + m - 1
        newest = self.hi[last % self.period] + last // self.period * self.period - turn
        n = min(keep + max(newest + 1, 1 - keep), keep + total)
        faced = rows.narrow(1, first, n).transpose(1, 2)
        old = self.clock.old()
        count = self.clock.count()
        if self.prefix > 0 and k is not None:
            self._remember_sinks(k)
        i, j, mask = self._facing(turn, m, keep, n, rows)
        self.steady_mask = mask is not None
        if not old or self.clocked:
            at = (count - waiting).unsqueeze(1)
            start = at - keep  # where the window begins
            if self.clocked:
                i, j = i + (at - turn), j + (at - turn)
            if not old:
                mask = self._of_young_rows(mask, start, n, m, turn, rows)
            if self.prefix > 0:
                faced = torch.cat([self.sinks.rows()[0].transpose(1, 2), faced], 2)
                sunk = torch.arange(self.prefix, device=rows.device).unsqueeze(0)
                j = torch.cat([sunk.expand(j.size(0), -1), j], 1)
                if mask is not None:
                    reached = (sunk < start).unsqueeze(1).expand(-1, m, -1)
                    mask = torch.cat([reached, mask.expand(reached.size(0), -1, -1)], 2)
        self.turn.value = (turn + m) % self.period
        kept = self.back[self.turn.value]
        self.keys.retain(rows, first + keep + m - kept, kept + total - m)
        self.clock.advance(t)
        # From here on chunks of this length change nothing but the keys, and the clock of young rows.
        same = waiting == 0 and t == m and self.turn.value == turn and not self.clocked
        self.steady = t if same else -1
        return Faced(asked, faced, i, j, mask)

    def expect(self) -> None:
        """Let `take_again` serve chunks like the last one, if these change nothing but the keys."""
        if self.steady > 0:
            self.keys.expect(self.steady)

    def take_again(self, k: Tensor, t: int) -> Tensor:
        """What `take` does in its steady state, with chunks of the ring's period; the queries are the chunk's own.

        `mask_again` and `hidden` belong before it.

        Args:
            k: key-side values of the new samples, of the dtype of those held, while memory may be written in place
            t: their number

        Returns:
            the keys that they face; positions are those of the last step
        """
        first = self.keys.advance(k, t)
        self.clock.advance(t)
        return self.keys.data.narrow(1, first, self.made_for[2]).transpose(1, 2)

    def mask_again(self) -> Optional[Tensor]:
        """The mask in the steady state, as of `Faced`."""
        seen = self.seen if self.steady_mask else None
        if self.clock.old():
            return seen
        turn = self.turn.value
        _, m, n, _ = self.made_for
        return self._of_young_rows(seen, self.clock.count().unsqueeze(1) - self.back[turn], n, m, turn, self.keys.data)

    def hidden(self) -> Tensor:
        """What hides slots that were never filled if it is added to scores, in the steady state, ``[B, 1, m, n]``."""
        data, keep, most = self.keys.data, self.back[self.turn.value], self.clock.enough
        _, m, n, _ = self.made_for
        table = self.unfilled
        if table.size(0) != most + n or table.dtype != data.dtype or table.device != data.device:
            table = torch.zeros([most + n], dtype=data.dtype, device=data.device)
            table.narrow(0, 0, keep).fill_(float("-inf"))
            self.unfilled = table
        # A row that has had so many samples reads the table from there on: a fifth of the time that comparisons take.
        rows = table.as_strided([most + 1, n], [1, 1]).index_select(0, self.clock.count())
        return rows.unsqueeze(1).unsqueeze(1).expand(-1, -1, m, -1)

    def require_room(self, x: Tensor) -> None:
        """Refuse a chunk ``[B, C, t]`` that makes the signal of a row longer than the longest."""
        if self.longest >= 0:
            self.clock.require_room(x.size(2), self.longest)

    def ready(self, turn: int, total: int) -> int:
        """How many of the queries that wait can be answered.

        Args:
            turn: place of the first of them in the period
            total: how many there are: keys from its own on
        """
        n = turn + total
        whole = max((n - 1 - self.hi[-1]) // self.period + 1, 0) * self.period
        count = whole
        if not self.level:
            for newest in self.hi:
                if newest + whole < n:
                    count += 1
        return min(count, n) - turn

    def answers_at_once(self, t: int, final: bool) -> bool:
        """Whether `take` gives the queries of the next ``t`` samples, all of them and no others."""
        return self.queries.held == 0 and (final or self.ready(self.turn.value, t) == t)

    def arriving(self, x: Tensor) -> Tensor:
        """Positions of new samples ``[B, C, t]``, ``[B, t]``; right where it is clocked."""
        position = torch.arange(x.size(2), device=x.device).unsqueeze(0)
        if not self.clock.started():
            return position
        return position + self.clock.count().unsqueeze(1)

    # ------------------------------------------------------------------ inside

    def _begin(self, q: Tensor, k: Tensor) -> None:
        self.keys.fill(k, self.back[0], 0.0, plain_inference())
        self.queries.fill(q, 0, 0.0)
        if self.prefix > 0:
            self.sinks.keep([k.new_zeros([k.size(0), self.prefix, k.size(1)])])
        self.clock.begin(k)

    def _asked(self, q: Optional[Tensor], m: int) -> Tensor:
        # The first queries, [B, Cq, m]; the others go on waiting.
        queries = self.queries
        if q is None:
            asked = queries.rows().narrow(1, 0, m).transpose(1, 2)
            queries.forget(m)
            return asked
        if queries.held == 0 and m == q.size(2):
            return q
        total = queries.held + q.size(2)
        rows = queries.extend(q, plain_inference())
        first = queries.begin
        queries.retain(rows, first + m, total - m)
        return rows.narrow(1, first, m).transpose(1, 2)

    def _facing(self, turn: int, m: int, keep: int, n: int, like: Tensor) -> Tuple[Tensor, Tensor, Optional[Tensor]]:
        # Positions from where the period begins, and which query sees which key: `None` if each sees all.
        all_seen = not self.tabled and self.hi[turn] - turn >= n - 1 - keep
        last = turn + m - 1
        all_seen = all_seen and self.lo[last % self.period] + last // self.period * self.period <= turn - keep
        made_for = (turn, m, n, -1 if all_seen else keep)
        reuse = True
        if not is_scripting():
            reuse = in_place() and not is_compiling()
        steps, slots, seen = self.steps, self.slots, self.seen
        stale = steps.is_inference() and torch.is_grad_enabled()  # autograd takes nothing of inference mode
        if not reuse or made_for != self.made_for or steps.device != like.device or stale:
            steps = torch.arange(turn, turn + m, device=like.device).unsqueeze(0)
            slots = torch.arange(turn - keep, turn - keep + n, device=like.device).unsqueeze(0)
            if not all_seen:
                seen = self._visible(steps.unsqueeze(2), slots.unsqueeze(1))
            if reuse:
                self.made_for = made_for
                self.steps, self.slots, self.seen = steps, slots, seen
        if all_seen:
            return steps, slots, None
        return steps, slots, seen

    def _visible(self, i: Tensor, j: Tensor) -> Tensor:
        # `Pattern.visible`, without the prefix, in a script too.
        place = torch.remainder(i, self.period)
        base = i - place
        lo = torch.tensor(self.lo, device=i.device)[place] + base
        hi = torch.tensor(self.hi, device=i.device)[place] + base
        seen = (j >= lo) & (j <= hi)
        if self.tabled:
            width = self.table.size(1)
            column = j - base - min(self.lo)
            inside = (column >= 0) & (column < width)
            seen = seen & inside & self.table[place.expand_as(column), column.clamp(0, width - 1)]
        return seen

    def _of_young_rows(self, seen: Optional[Tensor], start: Tensor, n: int, m: int, turn: int, like: Tensor) -> Tensor:
        # The mask while there are slots that were never filled; `start` [B, 1] is the position of the first one.
        slots = torch.arange(n, device=like.device).unsqueeze(0)
        there = (slots >= -start).unsqueeze(1)
        mask = there.expand(-1, m, -1) if seen is None else seen & there
        if self.prefix > 0:
            position = start + slots
            place = torch.arange(turn, turn + m, device=like.device)
            newest = torch.tensor(self.hi, device=like.device)[torch.remainder(place, self.period)]
            newest = newest + (place - torch.remainder(place, self.period)) - turn
            newest = (start + self.back[turn]).unsqueeze(2) + newest.view(1, m, 1)
            at = position.unsqueeze(1)
            mask = mask | ((at >= 0) & (at < self.prefix) & (at <= newest))
        return mask

    def _remember_sinks(self, k: Tensor) -> None:
        if self.clock.old():
            return
        held = self.sinks.rows()[0]
        came = torch.arange(self.prefix, device=k.device) - self.clock.count().unsqueeze(1)  # [B, s], in the chunk
        inside = (came >= 0) & (came < k.size(2))
        place = came.clamp(0, k.size(2) - 1).unsqueeze(2).expand(-1, -1, k.size(1))
        fresh = k.transpose(1, 2).gather(1, place)
        self.sinks.keep([torch.where(inside.unsqueeze(2), fresh, held)])

    def extra_repr(self) -> str:
        return f"{self.pattern_name}, clocked={self.clocked}"
