"""Conformers made for streams: SpeechBrain's with dynamic chunks, and NeMo's FastConformer with a cache-aware context.

All are on [B, C, T].
"""

import torch
import torch.nn.functional as F
from relative_positions import RelativeAttention, RelativeTable
from torch import Tensor, nn


class Half(nn.Module):
    """A feed-forward half step."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.up(self.norm(x))))


# ---------------------------------------------------------------------- SpeechBrain


class ChunkConvolution(nn.Module):
    """Dynamic chunk convolution: a symmetric kernel that sees zeros beyond the chunk of its sample."""

    def __init__(self, width: int, kernel: int, chunk: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.bottleneck = nn.Conv1d(width, 2 * width, 1)
        self.conv = nn.Conv1d(width, width, kernel, groups=width, padding=kernel // 2)
        self.after = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, width))
        self.chunk, self.pad = chunk, kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        b, t, width = x.shape
        out = F.glu(self.bottleneck(self.norm(x).transpose(1, 2)), dim=1)
        right = -t % self.chunk
        out = F.pad(out, (self.pad, right)).unfold(2, self.chunk + self.pad, self.chunk)
        out = F.pad(out, (0, self.pad)).transpose(1, 2).flatten(0, 1)
        out = F.conv1d(out, self.conv.weight, self.conv.bias, groups=width).transpose(1, 2)
        out = out.unflatten(0, (b, -1)).flatten(1, 2)[:, :t]
        return self.after(out)


def make_transformer_src_mask(x: Tensor, chunk: int, left: int) -> Tensor:
    """True where a query does not see a key."""
    t = x.shape[1]
    chunks = t // chunk
    timesteps = torch.arange(t, device=x.device)
    last = torch.arange(chunk, chunk * (chunks + 2), chunk, device=x.device).repeat_interleave(chunk)[:t]
    mask = timesteps.unsqueeze(0) >= last.unsqueeze(1)
    first = last - chunk * (left + 1)
    return mask + (timesteps.unsqueeze(0) < first.unsqueeze(1))


class ChunkConformer(nn.Module):
    """SpeechBrain's Conformer layers with a dynamic chunk of one size, as in eval mode."""

    def __init__(self, width: int = 8, heads: int = 2, layers: int = 2, chunk: int = 4, left: int = 2) -> None:
        super().__init__()
        self.chunk, self.left = chunk, left
        parts = [
            nn.ModuleDict(
                {
                    "ffn1": Half(width),
                    "norm1": nn.LayerNorm(width),
                    "mha": nn.MultiheadAttention(width, heads, batch_first=True),
                    "conv": ChunkConvolution(width, 5, chunk),
                    "ffn2": Half(width),
                    "norm2": nn.LayerNorm(width),
                }
            )
            for _ in range(layers)
        ]
        self.layers = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        mask = make_transformer_src_mask(x, self.chunk, self.left)
        for layer in self.layers:
            x = x + 0.5 * layer["ffn1"](x)
            skip, y = x, layer["norm1"](x)
            x = layer["mha"](y, y, y, attn_mask=mask, need_weights=False)[0] + skip
            x = x + layer["conv"](x)
            x = layer["norm2"](x + 0.5 * layer["ffn2"](x))
        return x.transpose(1, 2)


# ---------------------------------------------------------------------- NeMo


class CausalSubsampling(nn.Module):
    """Two causal convolutions over frames and bands: [B, F, T] to [B, T / 4, C]."""

    def __init__(self, bands: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, 2)
        self.conv2 = nn.Sequential(nn.Conv2d(width, width, 3, 2, groups=width), nn.Conv2d(width, width, 1))
        self.out = nn.Linear(width * (((bands + 1) // 2 + 1) // 2), width)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2).unsqueeze(1)
        x = F.relu(self.conv1(F.pad(x, (1, 1, 2, 1))))
        x = F.relu(self.conv2(F.pad(x, (1, 1, 2, 1))))
        b, c, t, f = x.size()
        return self.out(x.transpose(1, 2).reshape(b, t, -1))


class MultiHeadAttention(nn.Module):
    """NeMo's attention with absolute positions: scores are hidden by a large number, and weights once more by 0."""

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.h, self.d_k = heads, width // heads
        self.linear_q, self.linear_k = nn.Linear(width, width), nn.Linear(width, width)
        self.linear_v, self.linear_out = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        b = query.size(0)
        q = self.linear_q(query).view(b, -1, self.h, self.d_k).transpose(1, 2)
        k = self.linear_k(key).view(b, -1, self.h, self.d_k).transpose(1, 2)
        v = self.linear_v(value).view(b, -1, self.h, self.d_k).transpose(1, 2)
        scores = torch.matmul(q, k.transpose(-2, -1)) / self.d_k**0.5
        mask = mask.unsqueeze(1)
        scores = scores.masked_fill(mask, -10000.0)
        attn = torch.softmax(scores, dim=-1).masked_fill(mask, 0.0)
        x = torch.matmul(attn, v)
        x = x.transpose(1, 2).reshape(b, -1, self.h * self.d_k)
        return self.linear_out(x)


class CausalConvolution(nn.Module):
    """The convolution module, causal."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.pointwise1, self.pointwise2 = nn.Conv1d(width, 2 * width, 1), nn.Conv1d(width, width, 1)
        self.depthwise = nn.Conv1d(width, width, kernel, groups=width)
        self.norm = nn.BatchNorm1d(width)
        self.left = kernel - 1

    def forward(self, x: Tensor) -> Tensor:
        x = F.glu(self.pointwise1(x.transpose(1, 2)), dim=1)
        x = F.silu(self.norm(self.depthwise(F.pad(x, (self.left, 0)))))
        return self.pointwise2(x).transpose(1, 2)


class FastConformer(nn.Module):
    """NeMo's cache-aware FastConformer encoder, with one of its styles of attention context."""

    def __init__(
        self,
        bands=5,
        width=8,
        heads=2,
        layers=2,
        att_context_size=(4, 1),
        style="chunked_limited",
        rel_pos=True,
        longest=200,
    ) -> None:
        super().__init__()
        self.positions, self.xscale = RelativeTable(width, longest) if rel_pos else None, width**0.5
        self.att_context_size, self.style = list(att_context_size), style
        self.pre_encode = CausalSubsampling(bands, width)
        parts = [
            nn.ModuleDict(
                {
                    "ff1": Half(width),
                    "norm_att": nn.LayerNorm(width),
                    "att": RelativeAttention(heads, width) if rel_pos else MultiHeadAttention(heads, width),
                    "norm_conv": nn.LayerNorm(width),
                    "conv": CausalConvolution(width, 3),
                    "ff2": Half(width),
                    "norm_out": nn.LayerNorm(width),
                }
            )
            for _ in range(layers)
        ]
        self.layers = nn.ModuleList(parts)

    def _create_mask(self, t: int, device: torch.device) -> Tensor:
        left, right = self.att_context_size
        att_mask = torch.ones(1, t, t, dtype=torch.bool, device=device)
        if self.style == "regular":
            att_mask = att_mask.triu(diagonal=-left).tril(diagonal=right)
        else:
            chunk_size = right + 1
            chunk_idx = torch.arange(0, t, dtype=torch.int, device=device)
            chunk_idx = torch.div(chunk_idx, chunk_size, rounding_mode="trunc")
            diff_chunks = chunk_idx.unsqueeze(1) - chunk_idx.unsqueeze(0)
            limited = torch.logical_and(torch.le(diff_chunks, left // chunk_size), torch.ge(diff_chunks, 0))
            att_mask = torch.logical_and(att_mask, limited.unsqueeze(0))
        return ~att_mask

    def forward(self, x: Tensor) -> Tensor:
        x = self.pre_encode(x)
        pos = None
        if self.positions is not None:
            x = x * self.xscale
            pos = self.positions(x)
        mask = self._create_mask(x.shape[1], x.device)
        for layer in self.layers:
            residual = x + 0.5 * layer["ff1"](x)
            y = layer["norm_att"](residual)
            residual = residual + (layer["att"](y, y, y, mask) if pos is None else layer["att"](y, mask, pos))
            residual = residual + layer["conv"](layer["norm_conv"](residual))
            x = layer["norm_out"](residual + 0.5 * layer["ff2"](residual))
        return x.transpose(1, 2)
