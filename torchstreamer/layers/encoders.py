"""Encoders of several layers with a context, and attention to a fixed memory, on signals ``[B, C, T]``."""

from typing import Any, List, Sequence, Union

from torch import Tensor, nn

from ..core.context import Context
from ..core.frozen import in_training
from ..core.registry import require_plain
from ..core.stream import BaseStream
from ..errors import UnsupportedModuleError
from .attention import TransformerEncoderLayer1d
from .elementwise import PointwiseStream

__all__ = ["ChannelNorm", "CrossAttention1d", "TransformerEncoder1d", "cross_attention_stream"]


class ChannelNorm(nn.Module):
    """A norm over the last axis, on the channels of ``[B, C, T]``."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


class TransformerEncoder1d(nn.Sequential):
    """The layers of a `torch.nn.TransformerEncoder`, each with a context, and its last norm, one after the other.

    Args:
        encoder: the encoder
        context: of all layers, or one for each. Look-ahead adds up over layers, but for chunks without a right context

    Shape:
        - input: ``[B, C, T]``
        - output: ``[B, C, T]``
    """

    def __init__(self, encoder: nn.TransformerEncoder, context: Union[Context, Sequence[Context]]) -> None:
        require_plain(encoder, nn.TransformerEncoder)
        contexts = [context] * len(encoder.layers) if isinstance(context, Context) else list(context)
        if len(contexts) != len(encoder.layers):
            raise ValueError(
                f"invalid_context: {len(contexts)} contexts came; one for each of {len(encoder.layers)} layers was "
                "expected; pass as many, or one for all"
            )
        layers: List[nn.Module] = [
            TransformerEncoderLayer1d(layer, each) for layer, each in zip(encoder.layers, contexts, strict=True)
        ]
        super().__init__(*layers, *([] if encoder.norm is None else [ChannelNorm(encoder.norm)]))

    def __getitem__(self, index: Any) -> Any:
        parts = list(self)[index]
        return nn.Sequential(*parts) if isinstance(index, slice) else parts


class CrossAttention1d(nn.Module):
    """Attention of a signal to a fixed memory, such as an encoded text: each sample for itself.

    Args:
        attention: the attention
        memory: what it looks at, ``[S, C']`` for all rows or ``[B, S, C']``; it is not copied

    Shape:
        - input: ``[B, C, T]``
        - output: ``[B, C, T]``
    """

    memory: Tensor

    def __init__(self, attention: nn.MultiheadAttention, memory: Tensor) -> None:
        super().__init__()
        self.attention = attention
        self.register_buffer("memory", memory, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """What each sample takes from the memory."""
        memory = self.memory
        if memory.dim() == 2:
            memory = memory.unsqueeze(0).expand(x.size(0), -1, -1)
        if self.attention.batch_first:
            return self.attention(x.transpose(1, 2), memory, memory, need_weights=False)[0].transpose(1, 2)
        memory = memory.transpose(0, 1)
        return self.attention(x.permute(2, 0, 1), memory, memory, need_weights=False)[0].permute(1, 2, 0)


def cross_attention_stream(net: CrossAttention1d) -> BaseStream:
    """The stream of a `CrossAttention1d`: every sample for itself."""
    require_plain(net, CrossAttention1d)
    require_plain(net.attention, nn.MultiheadAttention)
    if in_training(net.attention) and net.attention.dropout > 0:
        raise UnsupportedModuleError(
            "training_mode", net.attention, "in training mode its dropout is random", "call eval() first"
        )
    return PointwiseStream(net, net.attention.embed_dim)
