"""The mathematics of attention, on queries and the keys that they face.

Samples stand in rows here, ``[B, t, C]``. TorchScript compiles this file, so it uses no postponed annotations.
"""

import copy
import math
from typing import Any, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.fast_attributes import entry
from ..core.registry import require_plain
from ..core.tracing import recording
from ..errors import UnsupportedModuleError
from .attention_positions import ShawBias
from .grouped_queries import GroupedQueryAttention

__all__ = ["AttentionBody"]


class AttentionBody(nn.Module):
    """Attention of a signal to itself. It holds the parameters of the module, so it sees their changes.

    Args:
        net: a `torch.nn.MultiheadAttention` or `GroupedQueryAttention`
        rope: turns queries and keys by their positions, or ``None``
        bias: of scores, from positions, or ``None``
        softcap: bound of the scores, ``softcap * tanh(scores / softcap)``; 0 for none
        scale: of the scores, by default ``1 / sqrt(D)``
    """

    in_weight = entry("_parameters")
    in_bias = entry("_parameters")
    out_weight = entry("_parameters")
    out_bias = entry("_parameters")

    def __init__(
        self,
        net: nn.Module,
        rope: Optional[nn.Module] = None,
        bias: Optional[nn.Module] = None,
        softcap: float = 0.0,
        scale: Optional[float] = None,
    ) -> None:
        super().__init__()
        require_plain(net, nn.MultiheadAttention, GroupedQueryAttention)
        self.zero = False
        extra_k: Any = None
        extra_v: Any = None
        if isinstance(net, nn.MultiheadAttention):
            if net.in_proj_weight is None:
                raise UnsupportedModuleError(
                    "cross_attention",
                    net,
                    f"its keys have {net.kdim} and its values {net.vdim} channels, its queries {net.embed_dim}",
                    "use kdim and vdim equal to embed_dim, or pts.CrossAttention1d for a fixed memory",
                )
            self.heads = self.kv_heads = net.num_heads
            self.dim = net.head_dim
            in_weight, in_bias, out = net.in_proj_weight, net.in_proj_bias, net.out_proj
            extra_k, extra_v, self.zero = net.bias_k, net.bias_v, net.add_zero_attn
        else:
            assert isinstance(net, GroupedQueryAttention)
            self.heads, self.kv_heads, self.dim = net.num_heads, net.kv_heads, net.head_dim
            in_weight, in_bias, out = net.in_proj.weight, net.in_proj.bias, net.out_proj  # type: ignore[assignment]
        self.in_weight = _parameter(net, "in_proj_weight", in_weight)
        self.in_bias = _parameter(net, "in_proj_bias", in_bias)
        self.out_weight = _parameter(net, "out_proj.weight", out.weight)
        self.out_bias = _parameter(net, "out_proj.bias", out.bias)
        self.extra_k = _parameter(net, "bias_k", extra_k)
        self.extra_v = _parameter(net, "bias_v", extra_v)
        self.rope = rope
        self.bias = bias
        self.shares = bias.values if isinstance(bias, ShawBias) else None  # adds to values by positions
        self.softcap = softcap
        self.scale = 1.0 / math.sqrt(self.dim) if scale is None else float(scale)
        self.width = self.heads * self.dim
        self.kv_width = 2 * self.kv_heads * self.dim
        self.guards = True  # whether keys that are not finite may stand behind the mask
        self.extra = (extra_k is not None) + int(self.zero)  # keys that every query sees
        self.channels = int(self.in_weight.size(1))

    # ------------------------------------------------------------------ the interface of a body

    def project(self, x: Tensor, at: Optional[Tensor]) -> Tuple[Tensor, Tensor]:
        """Queries ``[B, t, H·D]``, and keys and values ``[B, t, 2·H'·D]``, of samples at these positions."""
        y = F.linear(x, self.in_weight, self.in_bias)
        q, kv = y.narrow(2, 0, self.width), y.narrow(2, self.width, self.kv_width)
        return self._turned_queries(q, at), self._turned_keys(kv, at)

    def keys(self, x: Tensor, at: Optional[Tensor]) -> Tensor:
        """Keys and values alone."""
        bias = self.in_bias
        if bias is not None:
            bias = bias.narrow(0, self.width, self.kv_width)
        return self._turned_keys(F.linear(x, self.in_weight.narrow(0, self.width, self.kv_width), bias), at)

    def asks(self, x: Tensor, at: Optional[Tensor]) -> Tensor:
        """Queries alone."""
        bias = self.in_bias
        if bias is not None:
            bias = bias.narrow(0, 0, self.width)
        return self._turned_queries(F.linear(x, self.in_weight.narrow(0, 0, self.width), bias), at)

    def answer(self, x: Tensor, q: Tensor, kv: Tensor, i: Tensor, j: Tensor, mask: Optional[Tensor]) -> Tensor:
        """The output ``[B, m, C]``.

        Args:
            x: the samples that the queries are of, ``[B, m, C]``
            q: the queries, ``[B, m, H·D]``
            kv: keys and values, ``[B, K, 2·H'·D]``
            i: positions of the queries
            j: positions of the keys
            mask: ``[B, m, K]`` or ``[1, m, K]``, or ``None`` where each query sees each key
        """
        return self.attended(q, kv, i, j, mask)

    def attended(self, q: Tensor, kv: Tensor, i: Tensor, j: Tensor, mask: Optional[Tensor]) -> Tensor:
        """The output of attention alone."""
        return F.linear(self.attend(q, kv, i, j, mask), self.out_weight, self.out_bias)

    # ------------------------------------------------------------------ the steady step, on memory as it stands

    def lead(self) -> int:
        """Channels of queries before those of keys and values, where a `Lane` may compute them in one; else 0."""
        plain = self.rope is None and self.bias is None and self.softcap == 0.0 and self.extra == 0
        return self.width if plain and type(self.in_weight) is nn.Parameter else 0

    def quick(self, t: int, masked: bool) -> bool:
        """Whether `seen` serves chunks of this length, with a mask or without."""
        plain = self.rope is None and self.bias is None and self.softcap == 0.0 and self.extra == 0
        # What is behind a mask is looked at, which a GPU would have to wait for.
        seeable = not masked or self.in_weight.device.type == "cpu"
        return plain and seeable and (t == 1 or self.heads == self.kv_heads)

    def fused(self, x: Tensor) -> Tensor:
        """Queries, keys and values side by side, ``[B, t, …]``."""
        return F.linear(x, self.in_weight, self.in_bias)

    def seen(self, fused: Tensor, data: Tensor, first: int, n: int, mask: Optional[Tensor]) -> Optional[Tensor]:
        """The output ``[B, t, C]`` of queries that face ``n`` rows of memory, from ``first`` on.

        Args:
            fused: what `fused` gave
            data: keys and values, ``[B, …, 2·H'·D]``, each contiguous
            mask: what is added to scores, ``[t, n]``, or ``None``

        Returns:
            the output, or ``None`` where something behind the mask may not be finite
        """
        b, t, dim, heads = fused.size(0), fused.size(1), self.dim, self.kv_heads
        step = data.stride(1)
        place = data.storage_offset() + first * step
        size, stride = [b, heads, n, dim], [data.stride(0), dim, step, 1]
        keys = data.as_strided(size, stride, place)
        values = data.as_strided(size, stride, place + self.kv_width // 2)
        if heads == self.heads:
            queries = fused.as_strided([b, heads, t, dim], [fused.stride(0), dim, fused.stride(1), 1])
        else:
            # Heads that share keys are queries of one head.
            group = self.heads // heads
            queries = fused.as_strided([b, heads, group, dim], [fused.stride(0), group * dim, dim, 1])
        y = F.scaled_dot_product_attention(queries, keys, values, mask, 0.0, False, scale=self.scale)
        if mask is not None:
            total = float(y.sum().item())
            if total != total:
                return None
        y = y.transpose(1, 2).reshape(b, t, self.width) if t > 1 else y.reshape(b, 1, self.width)
        return F.linear(y, self.out_weight, self.out_bias)

    def around(self, x: Tensor, y: Tensor) -> Tensor:
        """What becomes of the output of attention, for the samples that asked."""
        return y

    def weight(self) -> Tensor:
        """A weight, which says dtype and device."""
        return self.in_weight

    def kv_channels(self) -> int:
        """Channels of keys and values."""
        return self.kv_width

    def without_guard(self) -> "AttentionBody":
        """The same for keys that are finite."""
        twin = copy.copy(self)
        twin.guards = False
        return twin

    def products_per_sample(self) -> int:
        """Multiply-adds of the projections of a sample."""
        return (self.in_weight.size(0) + self.width) * self.channels

    def products_per_pair(self) -> int:
        """Multiply-adds of a score."""
        return self.width

    # ------------------------------------------------------------------ inside

    def attend(self, q: Tensor, kv: Tensor, i: Tensor, j: Tensor, mask: Optional[Tensor]) -> Tensor:
        """The weighted values ``[B, m, H·D]``; ``nan`` where a key that is seen is not finite, and only there."""
        if mask is None or not self.guards:
            return self._weighted(q, kv, i, j, mask)
        if q.device.type == "cpu" and not recording():
            y = self._weighted(q, kv, i, j, mask)
            total = float(y.sum().item())
            if total == total:
                return y
        # A weight of 0 does not hide what is not finite, so it is taken out.
        finite = torch.isfinite(kv).all(2)
        y = self._weighted(q, torch.where(finite.unsqueeze(2), kv, 0.0), i, j, mask)
        spoilt = (mask & ~finite.unsqueeze(1)).any(2)
        return y.masked_fill(spoilt.unsqueeze(2), float("nan"))

    def _weighted(self, q: Tensor, kv: Tensor, i: Tensor, j: Tensor, mask: Optional[Tensor]) -> Tensor:
        b, m, n = q.size(0), q.size(1), kv.size(1)
        half = self.kv_width // 2
        queries = q.view(b, m, self.heads, self.dim).transpose(1, 2)
        keys = kv.narrow(2, 0, half).view(b, n, self.kv_heads, self.dim).transpose(1, 2)
        values = kv.narrow(2, half, half).view(b, n, self.kv_heads, self.dim).transpose(1, 2)
        if self.extra > 0:
            keys, values, mask = self._with_extra(keys, values, mask)
        if mask is not None:
            mask = mask.unsqueeze(1)
        if self.bias is None and self.softcap == 0.0:
            group = self.heads // self.kv_heads
            if group > 1:
                # Heads that share keys are queries of one head.
                queries = queries.reshape(b, self.kv_heads, group * m, self.dim)
                if mask is not None:
                    mask = mask.repeat(1, 1, group, 1)
            if mask is not None and q.device.type == "cpu" and not recording():
                # 0 and -inf, as torch makes them of it, in a third of the time.
                mask = 1 - mask.to(queries.dtype).reciprocal()
            y = F.scaled_dot_product_attention(queries, keys, values, mask, 0.0, False, scale=self.scale)
            return y.view(b, self.heads, m, self.dim).transpose(1, 2).reshape(b, m, self.width)
        if self.kv_heads < self.heads:
            keys = keys.repeat_interleave(self.heads // self.kv_heads, 1)
            values = values.repeat_interleave(self.heads // self.kv_heads, 1)
        scores = queries @ keys.transpose(2, 3) * self.scale
        if self.bias is not None:
            own = keys.narrow(2, 0, n)
            added = self.bias(queries, own, i, j, self.scale)
            scores = scores + (F.pad(added, [0, self.extra]) if self.extra > 0 else added)
        if self.softcap != 0.0:
            scores = torch.tanh(scores / self.softcap) * self.softcap
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        weights = scores.softmax(-1)
        found = weights @ values
        if self.shares is not None:
            found = found + self.shares(weights.narrow(3, 0, n), i, j)
        return found.transpose(1, 2).reshape(b, m, self.width)

    def _with_extra(
        self, keys: Tensor, values: Tensor, mask: Optional[Tensor]
    ) -> Tuple[Tensor, Tensor, Optional[Tensor]]:
        shape = [keys.size(0), self.kv_heads, 1, self.dim]
        extra_k, extra_v = self.extra_k, self.extra_v
        if extra_k is not None and extra_v is not None:
            more_k = extra_k.to(keys.dtype).view(1, self.kv_heads, 1, self.dim).expand(shape)
            more_v = extra_v.to(keys.dtype).view(1, self.kv_heads, 1, self.dim).expand(shape)
            keys, values = torch.cat([keys, more_k], 2), torch.cat([values, more_v], 2)
        if self.zero:
            keys = torch.cat([keys, keys.new_zeros(shape)], 2)
            values = torch.cat([values, values.new_zeros(shape)], 2)
        if mask is not None:
            mask = F.pad(mask, [0, self.extra], "constant", True)
        return keys, values, mask

    def _turned_queries(self, q: Tensor, at: Optional[Tensor]) -> Tensor:
        if self.rope is not None and at is not None:
            heads = q.view(q.size(0), q.size(1), self.heads, self.dim).transpose(1, 2)
            return self.rope(heads, at).transpose(1, 2).flatten(2)
        return q

    def _turned_keys(self, kv: Tensor, at: Optional[Tensor]) -> Tensor:
        if self.rope is not None and at is not None:
            half = self.kv_width // 2
            heads = kv.narrow(2, 0, half).view(kv.size(0), kv.size(1), self.kv_heads, self.dim).transpose(1, 2)
            turned = self.rope(heads, at).transpose(1, 2).flatten(2)
            return torch.cat([turned, kv.narrow(2, half, half)], 2)
        return kv

    def extra_repr(self) -> str:
        return f"{self.channels}, heads={self.heads}, kv_heads={self.kv_heads}, dim={self.dim}, extra={self.extra}"


def _parameter(net: nn.Module, name: str, value: Any) -> Any:
    if value is not None and not isinstance(value, nn.Parameter):
        raise UnsupportedModuleError(
            "computed_parameter",
            net,
            f"its {name} is computed from something else, in a way that a stream cannot follow",
            "make it a parameter, for instance with remove_parametrizations",
        )
    return value
