"""The attention of the audio encoder of Gemma 3n, on [B, C, T]: chunks of queries, each with a window of keys around it
that is cut by ``unfold``, products with relative positions that are shifted inside a chunk, and bounded logits."""

import math

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

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        b, t, width = x.shape
        q, k, v = (part.view(b, t, self.heads, self.dim) for part in self.qkv(x).chunk(3, -1))
        q = self.chunks(q * (self.dim**-0.5 / math.log(2) * F.softplus(self.scale))).permute(0, 3, 1, 2, 4)
        k, v = (self.windows(part).permute(0, 3, 1, 2, 4) for part in (k, v))
        valid = self.windows(torch.ones_like(x[..., 0], dtype=torch.bool))
        logits = q @ k.mT + self.by_distance(q)
        logits = self.cap * torch.tanh(logits / self.cap)
        seen = valid[:, None, :, None] & self.near
        weights = torch.where(seen, logits, torch.finfo(logits.dtype).min).softmax(-1)
        y = (weights @ v).permute(0, 2, 3, 1, 4).reshape(b, -1, width)[:, :t]
        return (x + self.out(y)).transpose(1, 2)
