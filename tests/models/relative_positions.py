"""Attention with relative positions as in Transformer-XL: a product with a table of distances, whose rows are shifted
until column ``j`` of query ``i`` belongs to the distance of key ``j``. These are ways to write it."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def padded(x: Tensor) -> Tensor:
    """A column in front, and the rows read anew: NeMo's."""
    b, h, t, n = x.shape
    x = F.pad(x, pad=(1, 0)).view(b, h, -1, t)
    return x[:, :, 1:].view(b, h, t, n)[:, :, :, :t]


def joined(x: Tensor) -> Tensor:
    """The same with a column of zeros put in front, and a half taken at the end: ESPnet's, and Hugging Face's."""
    zeros = torch.zeros((*x.size()[:3], 1), device=x.device, dtype=x.dtype)
    y = torch.cat([zeros, x], dim=-1).view(*x.size()[:2], x.size(3) + 1, x.size(2))
    return y[:, :, 1:].view_as(x)[:, :, :, : x.size(-1) // 2 + 1]


def strided(x: Tensor) -> Tensor:
    """A view whose rows overlap: icefall's."""
    b, h, t, n = x.shape
    s0, s1, s2, s3 = x.stride()
    return x.as_strided((b, h, t, t), (s0, s1, s2 - s3, s3), storage_offset=s3 * (t - 1))


def traced(x: Tensor) -> Tensor:
    """Columns gathered row by row: icefall's where it is traced."""
    b, h, t, n = x.shape
    rows = torch.arange(t - 1, -1, -1)
    columns = torch.arange(t)
    index = rows.repeat(b * h).unsqueeze(-1) + columns
    return torch.gather(x.reshape(-1, n), dim=1, index=index).reshape(b, h, t, t)


def gathered(x: Tensor) -> Tensor:
    """Columns gathered by j - i."""
    t = x.shape[2]
    i = torch.arange(t, device=x.device)
    index = i[None, :] - i[:, None] + t - 1
    return x.gather(-1, index.expand(x.shape[0], x.shape[1], -1, -1))


def indexed(x: Tensor) -> Tensor:
    """Rows and columns by number."""
    i = torch.arange(x.shape[2])
    return x[:, :, i[:, None], i[None, :] - i[:, None] + x.shape[2] - 1]


SHIFTS: dict[str, Callable[[Tensor], Tensor]] = {
    "pad": padded,
    "cat": joined,
    "strided": strided,
    "traced": traced,
    "gather": gathered,
    "index": indexed,
}


def sinusoids(distance: Tensor, width: int) -> Tensor:
    """Sines and cosines, interleaved, of distances."""
    rate = torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * -(math.log(10000.0) / width))
    angle = distance[:, None] * rate.to(distance.dtype)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)


class RelativeTable(nn.Module):
    """Positions from the largest distance to the smallest, kept for signals up to ``longest`` and cut in the middle."""

    def __init__(self, width: int, longest: int) -> None:
        super().__init__()
        self.register_buffer("pe", sinusoids(torch.arange(longest - 1, -longest, -1.0), width)[None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        middle = self.pe.size(1) // 2 + 1
        return self.pe[:, middle - x.size(1) : middle + x.size(1) - 1]


class ComputedPositions(nn.Module):
    """The same, computed for each signal."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        t = x.size(1)
        return sinusoids(torch.arange(t - 1, -t, -1.0, dtype=x.dtype), self.width)[None]


class RelativeAttention(nn.Module):
    """``(q + u) · k + shift((q + v) · p)`` on ``[B, T, C]``, with a mask ``[1, T, T]``, true where keys are hidden.

    Args:
        heads: number of heads
        width: of the signal
        shift: one of `SHIFTS`
        fused: whether the second term is the mask of a fused attention, as in later versions of NeMo
    """

    def __init__(self, heads: int, width: int, shift: str = "pad", fused: bool = False) -> None:
        super().__init__()
        self.heads, self.dim = heads, width // heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.pos = nn.Linear(width, width, bias=False)
        self.u = nn.Parameter(torch.randn(heads, self.dim))
        self.w = nn.Parameter(torch.randn(heads, self.dim))
        self.shift, self.fused = SHIFTS[shift], fused

    def forward(self, x: Tensor, mask: Tensor, pos: Tensor) -> Tensor:
        b = x.shape[0]
        q = self.q(x).view(b, -1, self.heads, self.dim)
        k = self.k(x).view(b, -1, self.heads, self.dim).transpose(1, 2)
        v = self.v(x).view(b, -1, self.heads, self.dim).transpose(1, 2)
        p = self.pos(pos).view(pos.size(0), -1, self.heads, self.dim).transpose(1, 2)
        near = self.shift(torch.matmul((q + self.w).transpose(1, 2), p.transpose(-2, -1)))
        hidden = mask.unsqueeze(1)
        content = (q + self.u).transpose(1, 2)
        if self.fused:
            bias = (near * self.dim**-0.5).masked_fill(hidden, -10000.0)
            y = F.scaled_dot_product_attention(content, k, v, bias)
        else:
            scores = (torch.matmul(content, k.transpose(-2, -1)) + near) / math.sqrt(self.dim)
            y = torch.softmax(scores.masked_fill(hidden, -10000.0), dim=-1).masked_fill(hidden, 0.0) @ v
        return self.out(y.transpose(1, 2).reshape(b, -1, self.heads * self.dim))


class TransformerXL(nn.Module):
    """The first one (Dai et al., 2019), whose scores are laid out as ``[i, j, rows, heads]``, on ``[T, B, C]``.

    Args:
        heads: number of heads
        width: of the signal
        memory: keys that a query sees before its own
    """

    def __init__(self, heads: int, width: int, memory: int = 6) -> None:
        super().__init__()
        self.heads, self.dim, self.memory = heads, width // heads, memory
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.pos = nn.Linear(width, width, bias=False)
        self.u = nn.Parameter(torch.randn(heads, self.dim))
        self.w = nn.Parameter(torch.randn(heads, self.dim))

    @staticmethod
    def shift(x: Tensor) -> Tensor:
        rest = x.size()[2:]
        zeros = torch.zeros((x.size(0), 1, *rest), device=x.device, dtype=x.dtype)
        return torch.cat([zeros, x], dim=1).view(x.size(1) + 1, x.size(0), *rest)[1:].view_as(x)

    def forward(self, x: Tensor) -> Tensor:
        t, b, width = x.shape
        q, k, v = (part.view(t, b, self.heads, self.dim) for part in self.qkv(x).chunk(3, dim=-1))
        angle = torch.outer(torch.arange(t - 1, -1, -1.0, dtype=x.dtype), 0.1 ** torch.arange(0, 1, 2 / width))
        pos = torch.cat([angle.sin(), angle.cos()], dim=-1)[:, None, :].to(x.dtype)
        pos = self.pos(pos).view(t, self.heads, self.dim)
        content = torch.einsum("ibnd,jbnd->ijbn", q + self.u, k)
        place = torch.einsum("ibnd,jnd->ijbn", q + self.w, pos)
        scores = (content + self.shift(place)).mul_(self.dim**-0.5)
        ones = torch.ones(t, t, dtype=torch.uint8, device=x.device)
        hidden = (torch.triu(ones, 1) + torch.tril(ones, -self.memory - 1))[:, :, None].bool()
        scores = scores.masked_fill(hidden[:, :, :, None], -65000.0).type_as(scores)
        weights = F.dropout(F.softmax(scores, dim=1), 0.1, self.training)
        y = torch.einsum("ijbn,jbnd->ibnd", (weights, v))
        return x + self.out(y.contiguous().view(t, b, width))
