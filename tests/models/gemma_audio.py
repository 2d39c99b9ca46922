"""The audio encoder of Gemma 3n.

Its attention goes by chunks of queries, each with a window of keys around it that is cut by ``unfold``, products with
relative positions that are shifted inside a chunk, and bounded logits. Convolutions that subsample are normalized by
all that came before; conformer blocks follow.
"""

import math
from typing import Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GemmaAudioAttention(nn.Module):
    """Queries in chunks see ``left - 1`` keys before each of them, their own, and ``right`` after it.

    Args:
        width: of the signal
        heads: number of heads
        chunk: queries that share a window
        left: keys that a query sees up to its own, and
        right: after it
        cap: bound of the logits
    """

    def __init__(
        self, width: int = 8, heads: int = 2, chunk: int = 4, left: int = 5, right: int = 0, cap: float = 50.0
    ) -> None:
        super().__init__()
        self.heads, self.dim, self.chunk, self.cap = heads, width // heads, chunk, cap
        self.past, self.future = left - 1, right
        self.window = chunk + self.past + self.future
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.pos = nn.Linear(width, width, bias=False)
        self.scale = nn.Parameter(torch.zeros(self.dim))
        rates = torch.exp(-math.log(1e4) * torch.arange(width // 2) / max(width // 2 - 1, 1))
        self.register_buffer("rates", rates, persistent=False)
        near = torch.arange(self.window) - torch.arange(chunk)[:, None]
        self.register_buffer("near", (near >= 0) & (near <= self.past + self.future), persistent=False)

    def padded(self, x: Tensor, before: int, after: int) -> Tensor:
        zeros = (x.new_zeros(x.shape[0], count, *x.shape[2:]) for count in (before, after))
        return torch.cat([next(zeros), x, next(zeros)], dim=1)

    def chunks(self, x: Tensor) -> Tensor:
        """``[B, T, …]`` as ``[B, U, chunk, …]``."""
        count = (x.shape[1] + self.chunk - 1) // self.chunk
        x = self.padded(x, 0, count * self.chunk - x.shape[1])
        return x.reshape(x.shape[0], count, self.chunk, *x.shape[2:])

    def windows(self, x: Tensor) -> Tensor:
        """``[B, T, …]`` as ``[B, U, window, …]``."""
        x = self.padded(x, self.past, self.future + self.chunk - 1)
        return x.unfold(1, self.window, self.chunk).movedim(-1, 2)

    def by_distance(self, q: Tensor) -> Tensor:
        """Products of queries ``[B, H, U, chunk, D]`` with positions, shifted to the keys of the window."""
        distance = torch.arange(self.past, -self.future - 1, -1, device=q.device, dtype=q.dtype)
        angle = distance[:, None] * self.rates.to(q.dtype)
        rows = self.pos(torch.cat([angle.sin(), angle.cos()], -1)).view(-1, self.heads, self.dim)
        y = q @ rows.permute(1, 2, 0)[:, None]
        y = F.pad(y, (0, self.window + 1 - y.shape[-1])).flatten(-2)
        return y[..., : self.chunk * self.window].unflatten(-1, (self.chunk, self.window))

    def attend(self, x: Tensor, padded: Optional[Tensor] = None) -> Tensor:
        """Answers ``[B, T, C]``; keys are hidden where ``padded``."""
        b, t, width = x.shape
        q, k, v = (part.view(b, t, self.heads, self.dim) for part in self.qkv(x).chunk(3, -1))
        q = self.chunks(q * (self.dim**-0.5 / math.log(2) * F.softplus(self.scale))).permute(0, 3, 1, 2, 4)
        k, v = (self.windows(part).permute(0, 3, 1, 2, 4) for part in (k, v))
        valid = self.windows(torch.ones_like(x[..., 0], dtype=torch.bool) if padded is None else ~padded)
        logits = q @ k.mT + self.by_distance(q)
        logits = self.cap * torch.tanh(logits / self.cap)
        seen = valid[:, None, :, None] & self.near
        weights = torch.where(seen, logits, torch.finfo(logits.dtype).min).softmax(-1)
        y = (weights @ v).permute(0, 2, 3, 1, 4).reshape(b, -1, width)[:, :t]
        return self.out(y)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        return (x + self.attend(x)).transpose(1, 2)


class CumulativeNorm(nn.Module):
    """Over [B, T, …, C], by the mean of all that came, and by the squares of distances from the mean of each time."""

    def __init__(self, channels: int, eps: float = 1e-3) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(channels)), eps

    def forward(self, x: Tensor) -> Tensor:
        x_calc = x.to(torch.promote_types(x.dtype, torch.float32))
        axes = list(range(2, x.dim()))
        count = torch.cumsum(torch.sum(torch.ones_like(x_calc), axes, keepdim=True), 1).clamp(min=1.0)
        mean = torch.cumsum(torch.sum(x_calc, axes, keepdim=True), 1) / count
        squares = torch.sum((x_calc - mean).pow(2), axes, keepdim=True)
        var = torch.cumsum(squares, 1) / count
        return ((x_calc - mean) * torch.rsqrt(var + self.eps) * self.weight.to(x_calc.dtype)).to(x.dtype)


class Subsampling(nn.Module):
    """Two convolutions that look ahead over frames, [B, T, F] to [B, T / 4, width]."""

    def __init__(self, bands: int, channels: Sequence[int], width: int) -> None:
        super().__init__()
        before = 1
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        for after in channels:
            self.convs.append(nn.Conv2d(before, after, 3, 2, bias=False))
            self.norms.append(CumulativeNorm(after))
            before, bands = after, (bands - 1) // 2 + 1
        self.out = nn.Linear(before * bands, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(1)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = conv(F.pad(x, (1, 1, 0, 2)))
            x = torch.relu(norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
        b, c, t, f = x.shape
        return self.out(x.permute(0, 2, 3, 1).reshape(b, t, f * c))


class FeedForward(nn.Module):
    """A feed-forward half step between two norms."""

    def __init__(self, width: int, clip: float) -> None:
        super().__init__()
        self.before, self.after = nn.RMSNorm(width), nn.RMSNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)
        self.clip = clip

    def forward(self, x: Tensor) -> Tensor:
        y = self.down(F.silu(self.up(self.before(x.clamp(-self.clip, self.clip)))))
        return x + 0.5 * self.after(y.clamp(-self.clip, self.clip))


class LightConvolution(nn.Module):
    """A gated causal convolution of each channel."""

    def __init__(self, width: int, kernel: int, clip: float) -> None:
        super().__init__()
        self.before, self.norm = nn.RMSNorm(width), nn.RMSNorm(width)
        self.start, self.end = nn.Linear(width, 2 * width, bias=False), nn.Linear(width, width, bias=False)
        self.conv = nn.Conv1d(width, width, kernel, groups=width, bias=False)
        self.pad, self.clip = kernel - 1, clip

    def forward(self, x: Tensor) -> Tensor:
        y = F.glu(self.start(self.before(x)), dim=-1)
        y = self.conv(F.pad(y.transpose(1, 2), (self.pad, 0))).transpose(1, 2)
        return x + self.end(F.silu(self.norm(y.clamp(-self.clip, self.clip))))


class GemmaAudioBlock(nn.Module):
    """A conformer block on [B, T, C]; where ``padded``, [B, T], there is no signal."""

    def __init__(self, width: int, kernel: int, clip: float, **attention: int) -> None:
        super().__init__()
        self.first, self.last = FeedForward(width, clip), FeedForward(width, clip)
        self.norm_in, self.norm_out = nn.RMSNorm(width), nn.RMSNorm(width)
        self.attention = GemmaAudioAttention(width, **attention)
        self.conv, self.norm, self.clip = LightConvolution(width, kernel, clip), nn.RMSNorm(width), clip

    def forward(self, x: Tensor, padded: Tensor) -> Tensor:
        x = self.first(x)
        y = self.attention.attend(self.norm_in(x.clamp(-self.clip, self.clip)), padded)
        x = x + self.norm_out(y.clamp(-self.clip, self.clip))
        x = self.last(self.conv(x * (~padded).unsqueeze(-1).to(x.dtype)))
        return self.norm(x.clamp(-self.clip, self.clip))


class GemmaAudioEncoder(nn.Module):
    """Features [B, F, T] to [B, C, T / 4 / reduction].

    Args:
        bands: of the features
        channels: of the convolutions that subsample
        width: of the blocks
        layers: number of blocks
        kernel: of their convolutions
        reduction: blocks' outputs for each one that is given
        clip: bound of all values in the blocks
        attention: of `GemmaAudioAttention`
    """

    def __init__(
        self,
        bands: int = 5,
        channels: Sequence[int] = (3, 2),
        width: int = 8,
        layers: int = 2,
        kernel: int = 3,
        reduction: int = 2,
        clip: float = 1e10,
        **attention: int,
    ) -> None:
        super().__init__()
        self.subsampling, self.reduction = Subsampling(bands, channels, width), reduction
        self.blocks = nn.ModuleList(GemmaAudioBlock(width, kernel, clip, **attention) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        x = self.subsampling(x.transpose(1, 2))
        padded = torch.zeros_like(x[..., 0], dtype=torch.bool)  # a signal alone ends where it ends
        for block in self.blocks:
            x = block(x, padded)
        x, padded = x[:, :: self.reduction], padded[:, :: self.reduction]
        return x.masked_fill(padded.unsqueeze(-1), 0.0).transpose(1, 2)
