"""What attention makes of positions: rotation of queries and keys, and biases of scores.

TorchScript compiles this file.

All take positions as whole numbers, ``[B, m]`` of the queries and ``[B, K]`` of the keys (or ``[1, …]``, the same in
all rows), and compute in a dtype of their own: what they give at a position does not depend on how it was reached.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["AlibiBias", "Rotary", "ShawBias", "ShawValues", "T5Bias", "TransformerXLBias", "WithSinks"]


class Rotary(nn.Module):
    """Rotary positions: pairs of channels of each head are turned by angles that grow with the absolute position.

    Args:
        dim: channels of a head that are turned, the first ones; an even number
        base: of the wave lengths
        interleaved: whether neighbours are pairs, as in the paper and in moshi; otherwise channel ``c`` and
            ``c + dim // 2``, as in Llama
        dtype: in which angles are computed

    Shape:
        - x: ``[B, H, T, D]``, positions ``[B, T]``
        - output: as x
    """

    inverse: Tensor

    def __init__(
        self, dim: int, base: float = 10000.0, interleaved: bool = False, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        if dim < 2 or dim % 2 != 0:
            raise ValueError(f"invalid_rotary: dim={dim} came; an even number was expected; pass such a number")
        self.dim = dim
        self.interleaved = interleaved
        inverse = 1.0 / base ** (torch.arange(0, dim, 2, dtype=torch.float64) / dim)
        self.register_buffer("inverse", inverse.to(dtype), persistent=False)

    def forward(self, x: Tensor, at: Tensor) -> Tensor:
        """The same, turned."""
        angle = (at.to(self.inverse.dtype).unsqueeze(2) * self.inverse).unsqueeze(1)  # [B, 1, T, dim / 2]
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        turned = x.narrow(3, 0, self.dim)
        if self.interleaved:
            pairs = turned.reshape([x.size(0), x.size(1), x.size(2), self.dim // 2, 2])
            a, b = pairs.select(4, 0), pairs.select(4, 1)
            y = torch.stack([a * cos - b * sin, a * sin + b * cos], 4).flatten(3)
        else:
            a, b = turned.narrow(3, 0, self.dim // 2), turned.narrow(3, self.dim // 2, self.dim // 2)
            y = torch.cat([a * cos - b * sin, a * sin + b * cos], 3)
        rest = x.size(3) - self.dim
        return torch.cat([y, x.narrow(3, self.dim, rest)], 3) if rest > 0 else y

    def extra_repr(self) -> str:
        return f"{self.dim}, interleaved={self.interleaved}"


class AlibiBias(nn.Module):
    """ALiBi: a penalty that grows with the distance, with a slope of its own for each head.

    Args:
        heads: number of heads; slopes are those of the paper
    """

    slopes: Tensor

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.register_buffer("slopes", torch.tensor(_slopes(heads)), persistent=False)

    def forward(self, q: Tensor, k: Tensor, i: Tensor, j: Tensor, scale: float) -> Tensor:
        """The bias of scores, ``[B, H, m, K]``."""
        distance = (i.unsqueeze(2) - j.unsqueeze(1)).abs().unsqueeze(1)
        return (-self.slopes.view(1, -1, 1, 1) * distance).to(q.dtype)

    def extra_repr(self) -> str:
        return f"{self.heads}"


class T5Bias(nn.Module):
    """T5: a learned number for each head and each bucket of distances, which are wider the further away.

    Args:
        heads: number of heads
        buckets: number of buckets
        longest: from this distance on all are in the last bucket
        bidirectional: whether keys after the query have buckets of their own; otherwise they are in that of distance 0

    Note:
        T5 does not scale its scores: ``SelfAttention1d(…, scale=1.0)``.
    """

    def __init__(self, heads: int, buckets: int = 32, longest: int = 128, bidirectional: bool = True) -> None:
        super().__init__()
        self.buckets = buckets
        self.longest = longest
        self.bidirectional = bidirectional
        self.weight = nn.Parameter(torch.zeros(buckets, heads))

    def bucket(self, ahead: Tensor) -> Tensor:
        """The bucket of keys so far ahead of the query."""
        buckets = self.buckets
        offset = torch.zeros_like(ahead)
        if self.bidirectional:
            buckets = buckets // 2
            offset = (ahead > 0).to(ahead.dtype) * buckets
            distance = ahead.abs()
        else:
            distance = (-ahead).clamp(min=0)
        exact = buckets // 2
        ratio = torch.log(distance.clamp(min=1).to(torch.float32) / exact) / math.log(self.longest / exact)
        far = (exact + (ratio * (buckets - exact)).to(ahead.dtype)).clamp(max=buckets - 1)
        return offset + torch.where(distance < exact, distance, far)

    def forward(self, q: Tensor, k: Tensor, i: Tensor, j: Tensor, scale: float) -> Tensor:
        """The bias of scores, ``[B, H, m, K]``."""
        ahead = j.unsqueeze(1) - i.unsqueeze(2)
        return F.embedding(self.bucket(ahead), self.weight).permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        return f"{self.buckets}, {self.longest}, bidirectional={self.bidirectional}"


class ShawBias(nn.Module):
    """Shaw et al.: a learned key for each distance up to a limit, added to the key: ``q_i · (k_j + a[j - i])``.

    Args:
        dim: channels of a head
        distance: distances beyond it, on either side, count as it
        values: whether a learned value for each distance is added to the value too: ``v_j + b[j - i]``
    """

    def __init__(self, dim: int, distance: int, values: bool = False) -> None:
        super().__init__()
        self.distance = distance
        self.weight = nn.Parameter(torch.randn(2 * distance + 1, dim) * dim**-0.5)
        self.values = ShawValues(dim, distance) if values else None

    def forward(self, q: Tensor, k: Tensor, i: Tensor, j: Tensor, scale: float) -> Tensor:
        """The bias of scores, ``[B, H, m, K]``."""
        ahead = (j.unsqueeze(1) - i.unsqueeze(2)).clamp(-self.distance, self.distance) + self.distance
        every = q @ self.weight.t()  # [B, H, m, distances]
        place = ahead.unsqueeze(1).expand(q.size(0), q.size(1), -1, -1)
        return every.gather(3, place) * scale

    def extra_repr(self) -> str:
        return f"{self.weight.size(1)}, {self.distance}"


class ShawValues(nn.Module):
    """The part of values in Shaw et al.: what a learned value for each distance adds to the answers.

    Args:
        dim: channels of a head
        distance: distances beyond it, on either side, count as it
    """

    def __init__(self, dim: int, distance: int) -> None:
        super().__init__()
        self.distance = distance
        self.weight = nn.Parameter(torch.randn(2 * distance + 1, dim) * dim**-0.5)

    def forward(self, weights: Tensor, i: Tensor, j: Tensor) -> Tensor:
        """The sum by weights ``[B, H, m, K]``, ``[B, H, m, D]``."""
        ahead = (j.unsqueeze(1) - i.unsqueeze(2)).clamp(-self.distance, self.distance) + self.distance
        place = ahead.unsqueeze(1).expand(weights.size(0), weights.size(1), -1, -1)
        share = weights.new_zeros([weights.size(0), weights.size(1), weights.size(2), self.weight.size(0)])
        return share.scatter_add(3, place, weights) @ self.weight.to(weights.dtype)


class TransformerXLBias(nn.Module):
    """Transformer-XL, as in Conformers: ``(q_i + u) · k_j + (q_i + v) · W r[i - j]`` instead of ``q_i · k_j``.

    Here ``r`` are sinusoids of the distance, sines and cosines interleaved.

    Args:
        channels: of the sinusoids
        heads: number of heads
        dim: channels of a head
    """

    inverse: Tensor

    def __init__(self, channels: int, heads: int, dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.dim = dim
        self.project = nn.Linear(channels, heads * dim, bias=False)
        self.u = nn.Parameter(torch.zeros(heads, dim))
        self.v = nn.Parameter(torch.zeros(heads, dim))
        inverse = torch.exp(torch.arange(0, channels, 2, dtype=torch.float64) * -(math.log(10000.0) / channels))
        self.register_buffer("inverse", inverse.to(torch.float32), persistent=False)

    def forward(self, q: Tensor, k: Tensor, i: Tensor, j: Tensor, scale: float) -> Tensor:
        """What is added to the scaled products of queries and keys, ``[B, H, m, K]``."""
        return self.of_run(q, k, i[:1], j[:1], scale)  # the distances are the same in all rows

    def of_run(self, q: Tensor, k: Tensor, i: Tensor, j: Tensor, scale: float) -> Tensor:
        """The same where keys follow each other, at distances of each row or of all."""
        m, n = i.size(1), j.size(1)
        # All distances from the nearest to the furthest, once each, [b, m + n - 1].
        nearest = (i.select(1, 0) - j.select(1, 0)) - (n - 1)
        distance = nearest.unsqueeze(1) + torch.arange(m + n - 1, device=i.device)
        angle = distance.to(self.inverse.dtype).unsqueeze(2) * self.inverse
        waves = torch.stack([angle.sin(), angle.cos()], 3).flatten(2).to(self.project.weight.dtype)
        r = self.project(waves).unflatten(2, [self.heads, self.dim]).permute(0, 2, 3, 1)  # [b, H, D, distances]
        place = torch.arange(m, device=i.device).unsqueeze(1) + (n - 1 - torch.arange(n, device=i.device))
        by_distance = (q + self.v.unsqueeze(1)) @ r
        moved = by_distance.gather(3, place.expand(q.size(0), q.size(1), -1, -1))
        return ((self.u.unsqueeze(1) @ k.transpose(2, 3)) + moved) * scale

    def extra_repr(self) -> str:
        return f"{self.heads}, {self.dim}"


class WithSinks(nn.Module):
    """A `TransformerXLBias` where the first keys are those of the start of the signal, and the others are a run.

    Args:
        bias: the bias
        sinks: how many the first ones are
    """

    def __init__(self, bias: TransformerXLBias, sinks: int) -> None:
        super().__init__()
        self.bias = bias
        self.sinks = sinks

    def forward(self, q: Tensor, k: Tensor, i: Tensor, j: Tensor, scale: float) -> Tensor:
        """What is added to the scaled products of queries and keys, ``[B, H, m, K]``."""
        n = min(self.sinks, j.size(1))
        early = self.bias.of_run(q, k.narrow(2, 0, n), i, j.narrow(1, 0, n), scale)
        rest = j.size(1) - n
        if rest == 0:
            return early
        return torch.cat([early, self.bias(q, k.narrow(2, n, rest), i, j.narrow(1, n, rest), scale)], 3)


def _slopes(heads: int) -> "list[float]":
    # Powers of 2^(-8 / n) for n a power of two; for others every other one of twice as many is taken in between.
    closest = 2 ** math.floor(math.log2(heads))
    slopes = [2.0 ** (-8.0 * (h + 1) / closest) for h in range(closest)]
    if closest < heads:
        slopes += _slopes(2 * closest)[0::2][: heads - closest]
    return slopes
