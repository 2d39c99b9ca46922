"""Attention with a bounded context, on signals ``[B, C, T]``: modules with an offline forward, and their streams.

TorchScript compiles the streams of this file, so it uses no postponed annotations.
"""

from typing import Any, Iterator, Optional, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.jit import is_scripting

from ..core.context import Context, Pattern
from ..core.fast_attributes import entry
from ..core.frozen import in_training
from ..core.reach import Reach
from ..core.registry import require_plain
from ..core.stream import BaseStream
from ..core.tracing import settled
from ..core.whole_numbers import require_length
from ..errors import StreamInputError, UnsupportedModuleError
from .attention_body import AttentionBody
from .attention_lane import Lane
from .attention_memory import AttentionMemory
from .attention_positions import TransformerXLBias, WithSinks
from .elementwise import refuse_training
from .encoder_body import EncoderLayerBody
from .grouped_queries import GroupedQueryAttention

__all__ = [
    "SelfAttention1d",
    "SelfAttentionStream",
    "TransformerEncoderLayer1d",
]


class _Attends(nn.Module):
    # What the modules below have in common: how queries are masked, and the options of their scores.
    def __init__(
        self,
        context: Context,
        rope: Optional[nn.Module],
        bias: Optional[nn.Module],
        softcap: Optional[float],
        scale: Optional[float],
        sinks: int,
    ) -> None:
        super().__init__()
        if not isinstance(context, Context):
            raise TypeError(f"invalid_context: {context!r} came; a pts.Context was expected; pass one")
        self.context = context
        self.rope = rope
        self.bias = bias
        self.softcap = softcap or 0.0
        self.scale = scale
        self.sinks = sinks

    @property
    def plain(self) -> bool:
        """Whether torch's own module computes it."""
        return self.rope is None and self.bias is None and not self.softcap and self.scale is None

    def placed_bias(self) -> Optional[nn.Module]:
        """The bias, for keys that follow each other, or that do so after the sinks."""
        bias = self.bias
        return WithSinks(bias, self.sinks) if self.sinks > 0 and isinstance(bias, TransformerXLBias) else bias

    def pattern(self) -> Pattern:
        """Which query sees which key."""
        pattern = self.context.pattern()
        return Pattern(pattern.lo, pattern.hi, None, self.sinks)

    def mask(self, length: int, device: torch.device) -> Tensor:
        """Which query sees which key, ``True`` where it does."""
        mask = self.context.mask(length, device=device)
        if self.sinks:
            position = torch.arange(length, device=device)
            newest = position // self.context.chunk * self.context.chunk + self.context.lookahead
            mask = mask | ((position < self.sinks) & (position <= newest.unsqueeze(1)))
        return mask

    def whole(self, body: Any, x: Tensor, mask: Tensor) -> Tensor:
        """The body on a whole signal ``[B, C, T]``."""
        position = torch.arange(x.size(2), device=x.device).unsqueeze(0)
        rows = x.transpose(1, 2)
        q, kv = body.project(rows, position)
        return body.answer(rows, q, kv, position, position, mask.unsqueeze(0)).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """The output of each sample, from those that it sees; ``nan`` where one of these is not finite."""
        mask = self.mask(x.size(2), x.device)
        # A weight of 0 does not hide what is not finite, so it is taken out.
        finite = torch.isfinite(x).all(1)
        y = self.masked(torch.where(finite.unsqueeze(1), x, 0.0), mask)
        spoilt = (mask & ~finite.unsqueeze(1)).any(2)
        return y.masked_fill(spoilt.unsqueeze(1), float("nan"))

    def masked(self, x: Tensor, mask: Tensor) -> Tensor:
        """The output of a finite signal."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        parts = [f"{self.context}"]
        parts += [f"softcap={self.softcap}"] if self.softcap else []
        parts += [f"scale={self.scale}"] if self.scale is not None else []
        parts += [f"sinks={self.sinks}"] if self.sinks else []
        return ", ".join(parts)


class SelfAttention1d(_Attends):
    """Attention of a signal to itself, as far as a context lets its queries see.

    Without options it is the module of torch with two transposes and the mask of the context.

    Args:
        attention: a `torch.nn.MultiheadAttention`, ``batch_first`` or not, or a `GroupedQueryAttention`
        context: which keys a query sees
        rope: turns queries and keys by their positions, such as a `Rotary`: a module of heads ``[B, H, T, D]`` and
            positions ``[B, T]``
        bias: adds to scores by positions: `AlibiBias`, `T5Bias`, `ShawBias`, `TransformerXLBias`, or a module of
            ``(q, k, i, j, scale)``
        softcap: bounds scores smoothly, as Gemma does
        scale: of the scores, by default ``1 / sqrt(D)``
        sinks: keys at the start of the signal that every later query sees, as attention sinks

    Shape:
        - input: ``[B, C, T]``
        - output: ``[B, C, T]``

    Example:
        >>> import torch, torchstreamer as pts
        >>> attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)
        >>> net = pts.SelfAttention1d(attention, pts.Context(left=16, chunk=4)).eval()
        >>> stream, x = pts.create_stream(net), torch.randn(1, 8, 50)
        >>> y = [stream(chunk) for chunk in x.split(7, -1)] + [stream.flush()]
        >>> torch.testing.assert_close(torch.cat([each for each in y if each is not None], -1), net(x))
    """

    def __init__(
        self,
        attention: nn.Module,
        context: Context,
        rope: Optional[nn.Module] = None,
        bias: Optional[nn.Module] = None,
        softcap: Optional[float] = None,
        scale: Optional[float] = None,
        sinks: int = 0,
    ) -> None:
        super().__init__(context, rope, bias, softcap, scale, sinks)
        self.attention = attention

    def masked(self, x: Tensor, mask: Tensor) -> Tensor:
        attention = self.attention
        if not self.plain or not isinstance(attention, (nn.MultiheadAttention, GroupedQueryAttention)):
            return self.whole(self.body(), x, mask)
        if isinstance(attention, GroupedQueryAttention):
            return attention(x.transpose(1, 2), mask).transpose(1, 2)
        there, back = ((0, 2, 1), (0, 2, 1)) if attention.batch_first else ((2, 0, 1), (1, 2, 0))
        rows = x.permute(there)
        return attention(rows, rows, rows, attn_mask=~mask, need_weights=False)[0].permute(back)

    def body(self) -> AttentionBody:
        """Its mathematics, with its parameters."""
        return AttentionBody(self.attention, self.rope, self.placed_bias(), self.softcap, self.scale)


class TransformerEncoderLayer1d(_Attends):
    """A `torch.nn.TransformerEncoderLayer` whose queries see as far as a context lets them.

    Args:
        layer: the layer, ``batch_first`` or not
        context: which keys a query sees
        rope: of its attention, see `SelfAttention1d`; so are the others
        bias: adds to scores by positions
        softcap: bounds scores smoothly
        scale: of the scores
        sinks: keys at the start of the signal that every later query sees

    Shape:
        - input: ``[B, C, T]``
        - output: ``[B, C, T]``
    """

    def __init__(
        self,
        layer: nn.TransformerEncoderLayer,
        context: Context,
        rope: Optional[nn.Module] = None,
        bias: Optional[nn.Module] = None,
        softcap: Optional[float] = None,
        scale: Optional[float] = None,
        sinks: int = 0,
    ) -> None:
        super().__init__(context, rope, bias, softcap, scale, sinks)
        self.layer = layer

    def masked(self, x: Tensor, mask: Tensor) -> Tensor:
        layer = self.layer
        if not self.plain:
            return self.whole(self.body(), x, mask)
        there, back = ((0, 2, 1), (0, 2, 1)) if layer.self_attn.batch_first else ((2, 0, 1), (1, 2, 0))
        return layer(x.permute(there), src_mask=~mask, is_causal=False).permute(back)

    def body(self) -> EncoderLayerBody:
        """Its mathematics, with its parameters."""
        return EncoderLayerBody(self.layer, self.rope, self.placed_bias(), self.softcap, self.scale)


# ---------------------------------------------------------------------- streams


_WORTH = 16  # keys before a query


class SelfAttentionStream(BaseStream):
    """Stream of a `SelfAttention1d` or a `TransformerEncoderLayer1d`.

    A query is answered when the last key that it sees is there, so with ``chunk > 1`` in whole chunks. The state is
    ``left`` keys and values, as many whatever the signal's age, and the samples that wait.

    Args:
        net: the module

    Raises:
        UnsupportedModuleError: ``unbounded_context``, ``training_mode``, or parameters that are computed

    Shape:
        - input: ``[B, C, T]`` or ``[C, T]``
        - output: as many samples
    """

    memory = entry("_modules")
    body = entry("_modules")
    added: Tensor = entry("_buffers")

    def __init__(self, net: Union[SelfAttention1d, TransformerEncoderLayer1d]) -> None:
        require_plain(net, SelfAttention1d, TransformerEncoderLayer1d)
        module = net.attention if isinstance(net, SelfAttention1d) else net.layer
        context = net.context
        if not context.bounded:
            raise UnsupportedModuleError(
                "unbounded_context",
                net,
                f"with {context} every query sees all keys before it, so memory would grow for ever",
                "pts.Context(left=…), or max_length=, the longest signal, for which memory is kept and computed",
            )
        refuse_training(net)
        for part in net.modules():
            if isinstance(part, nn.MultiheadAttention) and in_training(part) and part.dropout > 0:
                raise UnsupportedModuleError(
                    "training_mode", part, "in training mode its dropout is random", "call eval() first"
                )
        pattern = net.pattern()
        # What bounds all outputs; which of a chunk read less is told by `taps`.
        back, ahead = pattern.lookback, pattern.lookahead
        super().__init__(Reach(first=-back, last=ahead))
        del module
        self.pattern_ = pattern
        self.hop = context.chunk
        self.right = context.right
        self.chunk = context.chunk
        self._limit = -1 if context.max_length is None else context.max_length
        self.sinks = net.sinks
        self.body = net.body()
        self.memory = AttentionMemory(pattern, net.rope is not None, self._limit)
        # Queries beside keys and values take memory of their own, which a few keys are not worth.
        self.memory.keys.lead = self.body.lead() if pattern.lookback >= _WORTH else 0
        self.lane: Any = Lane() if self.memory.keys.lead > 0 else None
        self.bare = isinstance(self.body, AttentionBody)
        self.clocked = self.memory.clocked
        self.channels = self.body.channels
        self.kv_width = self.body.kv_channels()
        self.aliasing = 0
        # What the quick way adds to scores, if anything.
        self.masked = False
        self.register_buffer("added", torch.empty(0), persistent=False)

    __jit_ignored_attributes__ = [*BaseStream.__jit_ignored_attributes__, "pattern_", "lane"]

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        at: Optional[Tensor] = None
        if x is None:
            faced = self.memory.take(None, None, final)
        else:
            t = x.size(2)
            ring = self.memory.keys
            quick = ring.period == t and not final and settled()
            if not is_scripting():
                if quick and self.lane is not None:
                    done = self._in_lane(x, t)
                    if done is not None:
                        return done
            rows = x.transpose(1, 2)
            if quick:
                done = self._quick(rows, t)
                if done is not None:
                    return done
            if self.clocked:
                at = self.memory.arriving(x)
            if self.memory.answers_at_once(t, final):
                q, kv = self.body.project(rows, at)
                direct = self.memory.take(x, kv.transpose(1, 2), final)
                assert direct is not None
                y = self.body.answer(rows, q, direct.k.transpose(1, 2), direct.i, direct.j, direct.mask)
                self._expect(y, t)
                return y.transpose(1, 2)
            faced = self.memory.take(x, self.body.keys(rows, at).transpose(1, 2), final)
        if faced is None:
            return None
        asking = faced.q.transpose(1, 2)
        q = self.body.asks(asking, faced.i if self.clocked else None)
        y = self.body.answer(asking, q, faced.k.transpose(1, 2), faced.i, faced.j, faced.mask)
        return y.transpose(1, 2)

    def _require_room(self, x: Tensor) -> None:
        if not self.memory.keys.started() and x.size(2) > self._limit:
            self._like = self._like.new_empty([0])  # as if nothing had come
        self.memory.require_room(x)

    def _expect(self, y: Tensor, t: int) -> None:
        # Go the quick way from here on, if the next chunk is as long and everything stays as it is.
        memory = self.memory
        if memory.steady != t or memory.keys.free < 0 or not self.body.quick(t, memory.steady_mask):
            return
        self.masked = memory.steady_mask
        if self.masked:
            hidden = torch.zeros(memory.seen.size(), dtype=memory.keys.data.dtype, device=y.device)
            self.added = hidden.masked_fill(~memory.seen, float("-inf")).squeeze(0)
        memory.keys.expect(t)

    @torch.jit.unused
    def _in_lane(self, x: Tensor, t: int) -> Optional[Tensor]:
        # The same for one row of a batch, with the fewest operations; samples are rows [t, C] here.
        body, memory = self.body, self.memory
        ring = memory.keys
        attention = body if self.bare else body.attention
        clock = memory.clock
        if x.size(0) > 1 or clock.known < clock.enough:
            return None
        rows = x.squeeze(2) if t == 1 else x.squeeze(0).t()
        asking = body.norm1(rows) if not self.bare and body.norm_first else rows
        if not self.lane.takes(ring, asking, attention.in_weight):
            return None
        mask = self.added if self.masked else None
        width = attention.width
        y = self.lane.attend(attention, ring, asking, t, mask)
        y = y.reshape(1, width) if t == 1 else y.transpose(1, 2).reshape(t, width)
        if mask is not None:
            most = y.amax().item()  # the cheapest that shows nan
            if most != most:
                # What is behind the mask may not be finite.
                y = self.lane.guarded(attention, ring, t, memory.steps, memory.slots, memory.seen)
        bias = attention.out_bias
        if self.bare and t > 1 and bias is not None:
            return torch.addmm(bias.unsqueeze(1), attention.out_weight, y.t()).unsqueeze(0)  # channels first at once
        y = F.linear(y, attention.out_weight, bias)
        if not self.bare:
            y = body.around(rows, y)
        return y.unsqueeze(2) if t == 1 else y.t().unsqueeze(0)

    def _quick(self, rows: Tensor, t: int) -> Optional[Tensor]:
        # The steady state, in which the mask changes for young rows at most: memory is written and read where it is.
        body = self.body
        memory = self.memory
        ring = memory.keys
        fused = body.fused(rows)
        if fused.dtype != ring.data.dtype:
            return None
        mask: Optional[Tensor] = None
        if self.masked:
            mask = self.added
        clock = memory.clock
        young = clock.known < clock.enough and not clock.old()
        if young:
            if fused.device.type != "cpu":
                return None  # see `AttentionBody.quick`
            hidden = memory.hidden()
            mask = hidden if mask is None else hidden + mask
            clock.advance(t)
        width = self.kv_width
        place = fused.storage_offset() + fused.size(2) - width
        held = ring.held
        kv = fused.as_strided([fused.size(0), width, t], [fused.stride(0), 1, fused.stride(1)], place)
        first = ring.advance(kv, t)
        data = ring.data
        y = body.seen(fused, data, first, held + t, mask)
        if y is None:
            q = fused.narrow(2, 0, fused.size(2) - width)
            seen = memory.seen
            if young and mask is not None:
                seen = mask.squeeze(1) == 0.0
            y = body.attended(q, data.narrow(1, first, held + t), memory.steps, memory.slots, seen)
        return body.around(rows, y).transpose(1, 2)

    @torch.jit.export
    def output_length(self, n: int, final: bool = True) -> int:
        """Number of samples out after ``n`` samples in; see `BaseStream.output_length`."""
        require_length(n)
        return n if final else max((n - self.right) // self.chunk * self.chunk, 0)

    def output_channels(self, channels: int) -> int:
        """Channels out for channels in."""
        if channels != -1 and channels != self.channels:
            raise StreamInputError(
                f"invalid_chunk: {channels} channels came; {self.channels} were expected by an attention; check the "
                "axes, a chunk is [B, C, T] or [C, T]"
            )
        return self.channels

    def anchor(self) -> Optional[Tensor]:
        """The projections say dtype and device."""
        return self.body.weight()

    def taps(self, n: int, m: int) -> Iterator[Tensor]:
        """Which inputs the outputs are computed from; see `BaseStream.taps`."""
        pattern = self.pattern_
        position = torch.arange(m)
        begin = position // self.chunk * self.chunk
        for offset in range(pattern.lo[0], pattern.hi[0] + 1):
            yield begin + offset
        for sink in range(self.sinks):
            yield torch.where(begin + pattern.hi[0] >= sink, sink, -1)

    def multiply_adds(self, came: int, given: int) -> Optional[int]:
        """Multiply-adds of one row: projections of the new samples, and the keys that each query sees."""
        seen = self.pattern_.hi[0] - self.pattern_.lo[0] + 1 + self.sinks
        return came * self.body.products_per_sample() + given * 2 * seen * self.body.products_per_pair()
