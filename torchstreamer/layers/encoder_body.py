"""The mathematics of encoder layers, on queries and the keys that they face.

Samples stand in rows here, ``[B, t, C]``. TorchScript compiles this file, so it uses no postponed annotations.
"""

import copy
from typing import Any, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.fast_attributes import entry
from ..core.registry import require_plain
from .attention_body import AttentionBody

__all__ = ["EncoderLayerBody"]


class EncoderLayerBody(nn.Module):
    """A `torch.nn.TransformerEncoderLayer`: attention, and what stands around it.

    Args:
        layer: the layer
        rope: of its attention, see `AttentionBody`; so are the others
        bias: adds to scores by positions
        softcap: bounds scores smoothly
        scale: of the scores
    """

    attention = entry("_modules")

    def __init__(
        self,
        layer: nn.TransformerEncoderLayer,
        rope: Optional[nn.Module] = None,
        bias: Optional[nn.Module] = None,
        softcap: float = 0.0,
        scale: Optional[float] = None,
    ) -> None:
        super().__init__()
        require_plain(layer, nn.TransformerEncoderLayer)
        self.attention = AttentionBody(layer.self_attn, rope, bias, softcap, scale)
        self.norm_first = layer.norm_first
        # Those of torch are modules that treat every row alone; as modules they see changes of their parameters.
        for part in (layer.norm1, layer.norm2, layer.linear1, layer.linear2):
            require_plain(part, nn.LayerNorm, nn.Linear)
        self.norm1, self.norm2 = layer.norm1, layer.norm2
        self.linear1, self.linear2 = layer.linear1, layer.linear2
        activation: Any = layer.activation
        kinds = {F.relu: nn.ReLU, torch.relu: nn.ReLU, F.gelu: nn.GELU}
        self.activation = kinds[activation]() if activation in kinds else activation
        if not isinstance(self.activation, nn.Module):
            self.activation = _Calls(activation)
        self.channels = self.attention.channels

    def project(self, x: Tensor, at: Optional[Tensor]) -> Tuple[Tensor, Tensor]:
        return self.attention.project(self.norm1(x) if self.norm_first else x, at)

    def keys(self, x: Tensor, at: Optional[Tensor]) -> Tensor:
        return self.attention.keys(self.norm1(x) if self.norm_first else x, at)

    def asks(self, x: Tensor, at: Optional[Tensor]) -> Tensor:
        return self.attention.asks(self.norm1(x) if self.norm_first else x, at)

    def answer(self, x: Tensor, q: Tensor, kv: Tensor, i: Tensor, j: Tensor, mask: Optional[Tensor]) -> Tensor:
        return self.around(x, self.attended(q, kv, i, j, mask))

    def attended(self, q: Tensor, kv: Tensor, i: Tensor, j: Tensor, mask: Optional[Tensor]) -> Tensor:
        return self.attention.attended(q, kv, i, j, mask)

    def lead(self) -> int:
        return self.attention.lead()

    def quick(self, t: int, masked: bool) -> bool:
        return self.attention.quick(t, masked)

    def fused(self, x: Tensor) -> Tensor:
        return self.attention.fused(self.norm1(x) if self.norm_first else x)

    def seen(self, fused: Tensor, data: Tensor, first: int, n: int, mask: Optional[Tensor]) -> Optional[Tensor]:
        return self.attention.seen(fused, data, first, n, mask)

    def around(self, x: Tensor, y: Tensor) -> Tensor:
        y = x + y
        if self.norm_first:
            return y + self._feed(self.norm2(y))
        y = self.norm1(y)
        return self.norm2(y + self._feed(y))

    def weight(self) -> Tensor:
        return self.attention.in_weight

    def kv_channels(self) -> int:
        return self.attention.kv_channels()

    def without_guard(self) -> "EncoderLayerBody":
        twin = copy.copy(self)
        twin._modules = {**self._modules, "attention": self.attention.without_guard()}
        return twin

    def products_per_sample(self) -> int:
        return self.attention.products_per_sample() + 2 * self.linear1.in_features * self.linear1.out_features

    def products_per_pair(self) -> int:
        return self.attention.products_per_pair()

    def _feed(self, x: Tensor) -> Tensor:
        return self.linear2(self.activation(self.linear1(x)))

    def extra_repr(self) -> str:
        return f"norm_first={self.norm_first}"


class _Calls(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)
