"""The Emformer: attention in segments, with a memory bank, and with the right context as copies of its own.

TorchScript compiles this file, so it uses no postponed annotations.
"""

# A ModuleList does not tell the type of its modules, and torch gives `unflatten` none.
# mypy: disable-error-code="operator, union-attr, no-untyped-call"

from typing import List, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .recurrent import ModuleRecurrenceStream

__all__ = ["Emformer1d", "EmformerLayers", "EmformerLayersStream"]

_ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}


class Emformer1d(nn.Module):
    r"""An Emformer encoder (Shi et al., 2021, https://arxiv.org/abs/2010.10759) over ``[B, C, T]``.

    The signal is cut into segments. A frame sees its own segment, so many frames before it, copies of the frames after
    it, and one summary of each of the segments before it. The copies are computed anew in each segment from nothing
    but what that segment sees, so the look-ahead of the whole is that of one layer, however many there are.

    The last segment may be shorter, and what stands after the end of the signal is not seen, by any frame. For a whole
    number of segments, followed by ``right_context_length`` frames more, the frames of these segments are those that
    ``torchaudio.models.Emformer`` gives; its weights load as they are.

    Args:
        input_dim: channels
        num_heads: of the attention
        ffn_dim: channels inside of the feed-forward network
        num_layers: layers
        segment_length: frames of a segment
        dropout: probability, while training
        activation: ``"relu"``, ``"gelu"`` or ``"silu"``
        left_context_length: frames before its segment that a frame sees
        right_context_length: frames after it
        max_memory_size: segments further back of which it sees the summaries; 0 for none
        tanh_on_mem: whether summaries are bounded by tanh, and not clamped to -10 and 10

    Shape:
        - input: ``[B, C, T]`` or ``[C, T]``
        - output: the same

    Raises:
        ValueError: a number does not fit

    Example:
        >>> import torch, torchstreamer as pts
        >>> net = pts.Emformer1d(8, 2, 16, 2, segment_length=4, left_context_length=4, right_context_length=1).eval()
        >>> stream = pts.create_stream(net)
        >>> with torch.no_grad():
        ...     x = torch.randn(1, 8, 10)
        ...     y = torch.cat([stream(x[..., :6]), stream(x[..., 6:], final=True)], -1)
        ...     torch.testing.assert_close(y, net(x))
    """

    def __init__(
        self,
        input_dim: int,
        num_heads: int,
        ffn_dim: int,
        num_layers: int,
        segment_length: int,
        dropout: float = 0.0,
        activation: str = "relu",
        left_context_length: int = 0,
        right_context_length: int = 0,
        max_memory_size: int = 0,
        tanh_on_mem: bool = False,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("input_dim", input_dim, 1),
            ("num_heads", num_heads, 1),
            ("ffn_dim", ffn_dim, 1),
            ("num_layers", num_layers, 1),
            ("segment_length", segment_length, 1),
            ("left_context_length", left_context_length, 0),
            ("right_context_length", right_context_length, 0),
            ("max_memory_size", max_memory_size, 0),
        ):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(
                    f"invalid_emformer: {name}={value!r} came; a whole number of at least {least} was expected; pass "
                    "the number of the model"
                )
        if input_dim % num_heads != 0:
            raise ValueError(
                f"invalid_emformer: input_dim={input_dim} and num_heads={num_heads} came; a multiple of the heads was "
                "expected; pass the numbers of the model"
            )
        if activation not in _ACTIVATIONS:
            raise ValueError(
                f"invalid_emformer: activation={activation!r} came; one of {', '.join(map(repr, _ACTIVATIONS))} was "
                "expected; pass that of the model"
            )
        self.input_dim = input_dim
        self.segment_length = segment_length
        self.right_context_length = right_context_length
        self.emformer_layers = EmformerLayers(
            [_Layer(input_dim, num_heads, ffn_dim, dropout, activation, tanh_on_mem) for _ in range(num_layers)],
            segment_length,
            left_context_length,
            right_context_length,
            max_memory_size,
        )

    def forward(self, x: Tensor) -> Tensor:
        unbatched = x.dim() == 2
        if unbatched:
            x = x.unsqueeze(0)
        segment, seen = self.segment_length, self.segment_length + self.right_context_length
        # A channel that is 1 within the signal tells the segments where it ends.
        marked = F.pad(torch.cat([x, torch.ones_like(x[:, :1])], 1), [0, seen - 1])
        windows = marked.unfold(-1, seen, segment).transpose(2, 3).flatten(1, 2)
        y = self.emformer_layers(windows)
        y = y.unflatten(1, [self.input_dim, segment]).transpose(2, 3).flatten(2)[..., : x.size(-1)]
        return y.squeeze(0) if unbatched else y


class EmformerLayers(nn.ModuleList):
    """The layers of an Emformer, on windows: a recurrence over segments.

    Args:
        layers: the layers
        segment: frames of a segment
        left: frames seen before it
        right: frames seen after it
        memory: segments whose summaries are seen

    Shape:
        - input: ``[B, (C + 1) * (segment + right), N]``: frames of each segment and after it, each with one channel
          more, which is 1 within the signal and 0 after it
        - output: ``[B, C * segment, N]``
    """

    def __init__(self, layers: List[nn.Module], segment: int, left: int, right: int, memory: int) -> None:
        super().__init__(layers)
        self.segment = segment
        self.left = left
        self.right = right
        self.memory = memory
        self.channels = int(layers[0].channels)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.advance(x, self.initial(x))[0]

    @torch.jit.export
    def initial(self, x: Tensor) -> List[Tensor]:
        """What is known before the first segment: of each layer keys and values of summaries and frames; a count."""
        state: List[Tensor] = []
        for _ in self:
            for held in (self.memory, self.left):
                if held > 0:
                    state.append(x.new_zeros([x.size(0), held, 2 * self.channels]))
        state.append(torch.zeros([x.size(0)], dtype=torch.int64, device=x.device))
        return state

    @torch.jit.export
    def advance(self, x: Tensor, state: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        """The outputs of new segments, and what is known after them."""
        rows, n, width = x.size(0), x.size(2), self.segment + self.right
        frames = x.view([rows, self.channels + 1, width, n]).permute(0, 3, 2, 1)
        h = frames[..., : self.channels]
        there = frames[..., self.channels] > 0.5
        inside = there[:, :, : self.segment].unsqueeze(3)
        count = state[-1]
        steps = torch.arange(n, device=x.device)
        seen = self._seen(there, count.unsqueeze(1) + steps)
        memory_at = (steps.unsqueeze(1) + torch.arange(self.memory, device=x.device)).flatten()
        span = torch.arange(self.left + self.segment, device=x.device)
        frames_at = (steps.unsqueeze(1) * self.segment + span).flatten()
        memories = _mean(h[:, :, : self.segment], inside)
        following: List[Tensor] = []
        at = 0
        for layer in self:
            w = layer.layer_norm_input(h)
            kv = layer.attention.emb_to_key_value(w)
            own = kv[:, :, : self.segment].flatten(1, 2)
            parts: List[Tensor] = []
            queries = w
            if self.memory > 0:
                bank = torch.cat([state[at], layer.attention.emb_to_key_value(memories)], 1)
                following.append(bank[:, n:])
                at += 1
                parts.append(bank.index_select(1, memory_at).unflatten(1, [n, self.memory]))
                queries = torch.cat([w, _mean(w[:, :, : self.segment], inside).unsqueeze(2)], 2)
            parts.append(kv[:, :, self.segment :])
            if self.left > 0:
                own = torch.cat([state[at], own], 1)
                following.append(own[:, own.size(1) - self.left :])
                at += 1
                parts.append(own.index_select(1, frames_at).unflatten(1, [n, self.left + self.segment]))
            else:
                parts.append(own.unflatten(1, [n, self.segment]))
            met = layer.attention(queries, torch.cat(parts, 2), seen)
            h = layer.after(met[:, :, :width], h)
            if self.memory > 0:
                memories = layer.attention.bounded(met[:, :, width])
        y = h[:, :, : self.segment].permute(0, 3, 2, 1).flatten(1, 2)
        # What is further back than all that is seen need not be counted.
        enough = max(self.memory, (self.left + self.segment - 1) // self.segment)
        following.append((count + n).clamp(max=enough))
        return y, following

    def _seen(self, there: Tensor, number: Tensor) -> Tensor:
        # Which keys the queries of each segment see, [B, N, 1, Q, K]. `number` [B, N] counts the segments.
        device = there.device
        back = number.unsqueeze(2)
        parts: List[Tensor] = [there[:, :, self.segment :]]
        if self.left > 0:
            parts.append(back * self.segment >= self.left - torch.arange(self.left, device=device))
        parts.append(there[:, :, : self.segment])
        frames = torch.cat(parts, 2).unsqueeze(2)
        if self.memory == 0:
            return frames.unsqueeze(2)
        queries = self.segment + self.right + 1
        bank = (back >= self.memory - torch.arange(self.memory, device=device)).unsqueeze(2)
        # The last query makes the summary of this segment, of its frames alone.
        summing = (torch.arange(queries, device=device) < queries - 1).unsqueeze(1)
        return torch.cat([bank & summing, frames.expand(-1, -1, queries, -1)], 3).unsqueeze(2)


class _Attention(nn.Module):
    def __init__(self, channels: int, heads: int, dropout: float, tanh: bool) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.tanh = tanh
        self.bound = 10.0  # of summaries, unless tanh bounds them
        # The score of what is not seen: no weight beside any other, and no nan where nothing is seen, past the end.
        self.hidden = torch.finfo(torch.float32).min
        self.emb_to_key_value = nn.Linear(channels, 2 * channels)
        self.emb_to_query = nn.Linear(channels, channels)
        self.out_proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor, kv: Tensor, seen: Tensor) -> Tensor:
        # [B, N, Q, C] and [B, N, K, 2C] -> [B, N, Q, C]
        q = self.emb_to_query(x).unflatten(-1, [self.heads, -1]).transpose(2, 3)
        k, v = kv.unflatten(-1, [2, self.heads, -1]).permute(3, 0, 1, 4, 2, 5).unbind(0)
        scores = torch.matmul(q * q.size(-1) ** -0.5, k.transpose(3, 4))
        wide = torch.float64 if scores.dtype == torch.float64 else torch.float32
        scores = scores.to(wide).masked_fill(~seen, self.hidden)
        weights = F.dropout(scores.softmax(-1).to(v.dtype), self.dropout, self.training)
        return self.out_proj(torch.matmul(weights, v).transpose(2, 3).flatten(3))

    def bounded(self, summary: Tensor) -> Tensor:
        return summary.tanh() if self.tanh else summary.clamp(-self.bound, self.bound)


class _Layer(nn.Module):
    def __init__(self, channels: int, heads: int, inner: int, dropout: float, activation: str, tanh: bool) -> None:
        super().__init__()
        self.channels = channels
        self.attention = _Attention(channels, heads, dropout, tanh)
        self.dropout = nn.Dropout(dropout)
        self.pos_ff = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Linear(channels, inner),
            _ACTIVATIONS[activation](),
            nn.Dropout(dropout),
            nn.Linear(inner, channels),
            nn.Dropout(dropout),
        )
        self.layer_norm_input = nn.LayerNorm(channels)
        self.layer_norm_output = nn.LayerNorm(channels)

    def after(self, met: Tensor, x: Tensor) -> Tensor:
        y = self.dropout(met) + x
        return self.layer_norm_output(self.pos_ff(y) + y)


def _mean(frames: Tensor, inside: Tensor) -> Tensor:
    # Over the frames [B, N, S, C] that are within the signal.
    return torch.where(inside, frames, 0.0).sum(2) / inside.sum(2).clamp(min=1).to(frames.dtype)


class EmformerLayersStream(ModuleRecurrenceStream):
    """Streams `EmformerLayers`, segment by segment."""

    def __init__(self, net: EmformerLayers) -> None:
        names: List[str] = []
        for layer in range(len(net)):
            names += [f"{layer}.memory"] if net.memory > 0 else []
            names += [f"{layer}.left"] if net.left > 0 else []
        width = net.segment + net.right
        super().__init__(net, (net.channels + 1) * width, net.channels * net.segment, [*names, "segments"])
