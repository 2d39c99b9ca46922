"""A causal layer of Zipformer 2, in chunks: relative positions whose resolution falls with the distance, one matrix of
attention for three modules, and a convolution that sees the rest of its chunk; on [B, C, T]."""

import math

import torch
import torch.nn.functional as F
from relative_positions import SHIFTS
from torch import Tensor, nn


class CompactPositions(nn.Module):
    """Distances, compressed like logarithms and bent into an angle, as a Fourier series; cut in the middle."""

    def __init__(self, dim: int, longest: int = 64) -> None:
        super().__init__()
        self.dim, self.pe = dim, None
        self.extend(torch.zeros(longest, 1))

    def extend(self, x: Tensor) -> None:
        t = x.size(0)
        if self.pe is not None and self.pe.size(0) >= 2 * t - 1:
            return
        distance = torch.arange(-(t - 1), t).to(torch.float32).unsqueeze(1)
        span = self.dim**0.5
        bent = span * distance.sign() * ((distance.abs() + span).log() - math.log(span))
        angle = (bent / (self.dim / (2.0 * math.pi))).atan() * (1 + torch.arange(self.dim // 2))
        pe = torch.zeros(distance.shape[0], self.dim)
        pe[:, 0::2], pe[:, 1::2] = angle.cos(), angle.sin()
        pe[:, -1] = 1.0
        self.pe = pe.to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        self.extend(x)
        middle, t = self.pe.size(0) // 2, x.size(0)
        return self.pe[middle - t + 1 : middle + t].to(x.dtype).unsqueeze(0)


class AttentionWeights(nn.Module):
    """The matrix of attention ``[H, B, T, T]`` that the modules of a layer share."""

    def __init__(self, width: int, pos_dim: int, heads: int, dim: int, pos_head: int, shift: str) -> None:
        super().__init__()
        self.heads, self.dim, self.pos_head = heads, dim, pos_head
        self.in_proj = nn.Linear(width, (2 * dim + pos_head) * heads)
        self.linear_pos = nn.Linear(pos_dim, heads * pos_head, bias=False)
        self.shift = SHIFTS[shift]

    def forward(self, x: Tensor, pos: Tensor, hidden: Tensor) -> Tensor:
        t, b, _ = x.shape
        x, wide = self.in_proj(x), self.heads * self.dim
        q, k, p = x[..., :wide], x[..., wide : 2 * wide], x[..., 2 * wide :]
        q = q.reshape(t, b, self.heads, self.dim).permute(2, 1, 0, 3)
        p = p.reshape(t, b, self.heads, self.pos_head).permute(2, 1, 0, 3)
        k = k.reshape(t, b, self.heads, self.dim).permute(2, 1, 3, 0)
        pos = self.linear_pos(pos).reshape(-1, 2 * t - 1, self.heads, self.pos_head).permute(2, 0, 3, 1)
        scores = torch.matmul(q, k) + self.shift(torch.matmul(p, pos))
        assert scores.shape == (self.heads, b, t, t)
        return scores.masked_fill(hidden, -1000).softmax(dim=-1)


class Values(nn.Module):
    """Values of its own, by weights that come from outside."""

    def __init__(self, width: int, heads: int, dim: int) -> None:
        super().__init__()
        self.in_proj, self.out_proj = nn.Linear(width, heads * dim), nn.Linear(heads * dim, width)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        t, b, _ = x.shape
        heads = weights.shape[0]
        v = self.in_proj(x).reshape(t, b, heads, -1).permute(2, 1, 0, 3)
        v = torch.matmul(weights, v).permute(2, 1, 0, 3).contiguous().view(t, b, -1)
        return self.out_proj(v)


class GatedValues(nn.Module):
    """Like attention with one head, between two gates."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.in_proj, self.out_proj = nn.Linear(width, 3 * hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        t, b, _ = x.shape
        s, x, y = self.in_proj(x).chunk(3, dim=-1)
        x = (x * torch.tanh(s)).reshape(t, b, weights.shape[0], -1).permute(2, 1, 0, 3)
        x = torch.matmul(weights, x).permute(2, 1, 0, 3).reshape(t, b, -1)
        return self.out_proj(x * y)


class ChunkCausalConvolution(nn.Module):
    """A causal kernel, and besides a symmetric one that sees its own chunk alone, weaker at its edges."""

    def __init__(self, width: int, kernel: int, chunk: int) -> None:
        super().__init__()
        self.chunk, self.left = chunk, kernel // 2
        self.in_proj, self.out_proj = nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.causal = nn.Conv1d(width, width, (kernel + 1) // 2, groups=width)
        self.within = nn.Conv1d(width, width, kernel, groups=width, padding=kernel // 2)
        self.scale = nn.Parameter(torch.randn(2, width, kernel) * 0.1)

    def edges(self) -> Tensor:
        left, right = self.scale
        k = left.size(1)
        if self.chunk < k:
            return 1 + left[:, : self.chunk] + right[:, -self.chunk :]
        rest = left.new_zeros(left.size(0), self.chunk - k)
        return 1 + torch.cat([left, rest], -1) + torch.cat([rest, right], -1)

    def forward(self, x: Tensor) -> Tensor:
        x, s = self.in_proj(x).chunk(2, dim=2)
        x = (x * torch.sigmoid(s)).permute(1, 2, 0)
        b, c, t = x.shape
        x = F.pad(x, (self.left, -t % self.chunk))
        causal = self.causal(x[..., : self.left + t])
        within = x[..., self.left :]
        count = within.shape[2] // self.chunk
        within = within.reshape(b, c, count, self.chunk).permute(0, 2, 1, 3).reshape(-1, c, self.chunk)
        within = self.within(within) * self.edges()
        within = within.reshape(b, count, c, self.chunk).permute(0, 2, 1, 3).reshape(b, c, count * self.chunk)
        y = causal + within[..., :t]
        return self.out_proj(swoosh(y.permute(2, 0, 1), 1.0, 0.313261687))


def swoosh(x: Tensor, offset: float, constant: float) -> Tensor:
    """log(1 + exp(x - offset)) - 0.08 x - constant."""
    return F.softplus(x - offset) - 0.08 * x - constant


class Feed(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(swoosh(self.up(x), 4.0, 0.035))


class Bypass(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(width))

    def forward(self, before: Tensor, x: Tensor) -> Tensor:
        return before + (x - before) * self.scale


class BiasNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.bias, self.log_scale = nn.Parameter(torch.randn(width) * 0.1), nn.Parameter(torch.tensor(0.3))

    def forward(self, x: Tensor) -> Tensor:
        return x * ((x - self.bias) ** 2).mean(-1, keepdim=True) ** -0.5 * self.log_scale.exp()


class Zipformer(nn.Module):
    """One layer, in chunks of ``chunk`` frames that see ``left`` chunks before them."""

    def __init__(
        self, width: int = 8, heads: int = 2, chunk: int = 4, left: int = 2, longest: int = 120, shift: str = "strided"
    ) -> None:
        super().__init__()
        self.chunk, self.left = chunk, left
        self.positions = CompactPositions(12, longest)
        self.weights = AttentionWeights(width, 12, heads, 4, 3, shift)
        self.values = nn.ModuleList(Values(width, heads, 3) for _ in range(2))
        self.gated = GatedValues(width, 3 * width // 4)
        self.convs = nn.ModuleList(ChunkCausalConvolution(width, 5, chunk) for _ in range(2))
        self.feeds = nn.ModuleList(Feed(width) for _ in range(3))
        self.middle, self.whole, self.norm = Bypass(width), Bypass(width), BiasNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        src = x.permute(2, 0, 1)
        c = torch.arange(src.shape[0], dtype=torch.int32, device=x.device) // self.chunk
        hidden = torch.logical_or(c > c.unsqueeze(-1), c < c.unsqueeze(-1) - self.left)
        weights = self.weights(src, self.positions(src), hidden)
        y = src + self.feeds[0](src)
        y = y + self.gated(y, weights[0:1])
        y = y + self.values[0](y, weights)
        y = y + self.convs[0](y)
        y = self.middle(src, y + self.feeds[1](y))
        y = y + self.values[1](y, weights)
        y = y + self.convs[1](y)
        y = self.norm(y + self.feeds[2](y))
        return self.whole(src, y).permute(1, 2, 0)
