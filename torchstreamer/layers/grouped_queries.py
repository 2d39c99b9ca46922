"""Attention in which several heads of queries share one of keys and values."""

from typing import Optional

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["GroupedQueryAttention"]


class GroupedQueryAttention(nn.Module):
    """Attention in which several heads of queries share one of keys and values. Multi-query with ``kv_heads=1``.

    Args:
        embed_dim: channels in and out
        num_heads: heads of queries
        kv_heads: heads of keys and values, a divisor of ``num_heads``
        head_dim: channels of a head, by default ``embed_dim // num_heads``
        bias: whether the projections have biases

    Shape:
        - input: ``[B, T, C]``; mask ``[T, T]`` or ``[B, T, T]``, ``True`` where a query sees a key
        - output: ``[B, T, C]``
    """

    def __init__(
        self, embed_dim: int, num_heads: int, kv_heads: int, head_dim: Optional[int] = None, bias: bool = True
    ) -> None:
        super().__init__()
        if num_heads % kv_heads or (head_dim is None and embed_dim % num_heads):
            raise ValueError(
                f"invalid_heads: embed_dim={embed_dim}, num_heads={num_heads}, kv_heads={kv_heads} came; heads that "
                "divide the channels, and heads of keys that divide those of queries, were expected; pass such numbers"
            )
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.kv_heads = kv_heads
        self.head_dim = embed_dim // num_heads if head_dim is None else head_dim
        self.in_proj = nn.Linear(embed_dim, (num_heads + 2 * kv_heads) * self.head_dim, bias)
        self.out_proj = nn.Linear(num_heads * self.head_dim, embed_dim, bias)

    def forward(self, x: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """Attention of a signal to itself."""
        widths = [self.num_heads * self.head_dim, self.kv_heads * self.head_dim, self.kv_heads * self.head_dim]
        q, k, v = (part.unflatten(2, (-1, self.head_dim)).transpose(1, 2) for part in self.in_proj(x).split(widths, 2))
        if mask is not None:
            mask = mask.unsqueeze(-3)
        y = F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True)
        return self.out_proj(y.transpose(1, 2).flatten(2))

    def extra_repr(self) -> str:
        return f"{self.embed_dim}, num_heads={self.num_heads}, kv_heads={self.kv_heads}, head_dim={self.head_dim}"
