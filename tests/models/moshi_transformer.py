"""The transformer of Mimi and moshi (Défossez et al., "Moshi: a speech-text foundation model for real-time dialogue",
2024), over the frames of the codec, [B, C, T]."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def apply_rope(q: Tensor, k: Tensor, offset: Tensor, max_period: float = 10_000) -> tuple[Tensor, Tensor]:
    """Turns pairs of neighbouring channels of [B, H, T, D] by the positions, which begin at an offset of each row."""
    t, d = q.shape[-2:]
    ds = torch.arange(d // 2, device=q.device, dtype=q.dtype)
    freqs = torch.exp(ds * (-math.log(max_period) * 2 / d))
    ts = offset.to(q.dtype).view(-1, 1) + torch.arange(t, device=q.device, dtype=q.dtype)
    ts = ts.view(q.shape[0], 1, -1, 1)
    cos, sin = torch.cos(freqs * ts), torch.sin(freqs * ts)

    def turn(x: Tensor) -> Tensor:
        x = x.unflatten(-1, (d // 2, 2))
        real, imaginary = x[..., 0], x[..., 1]
        return torch.stack([real * cos - imaginary * sin, real * sin + imaginary * cos], dim=-1).flatten(-2)

    return turn(q), turn(k)


class LayerScale(nn.Module):
    """A learned scale of each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(0.1 * torch.randn(channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x


class StreamingMultiheadAttention(nn.Module):
    """Causal attention to the last ``context`` frames."""

    def __init__(self, embed_dim: int, num_heads: int, context: int) -> None:
        super().__init__()
        self.num_heads, self.context = num_heads, context
        self.in_proj_weight = nn.Parameter(torch.randn(3 * embed_dim, embed_dim) / embed_dim**0.5)
        self.out_proj = nn.Linear(embed_dim, embed_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        projected = F.linear(x, self.in_proj_weight)
        q, k, v = projected.view(b, t, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        offset = torch.zeros(b, device=x.device, dtype=torch.long)  # no state outside of streaming
        q, k = apply_rope(q, k, offset)
        pos_k = torch.arange(t, device=x.device)
        pos_q = offset.view(-1, 1, 1) + torch.arange(t, device=x.device).view(-1, 1)
        delta = pos_q - pos_k
        bias = ((pos_k >= 0) & (delta >= 0) & (delta < self.context))[:, None]
        y = F.scaled_dot_product_attention(q, k, v, bias, dropout_p=0.0)
        return self.out_proj(y.transpose(1, 2).reshape(b, t, -1))


class StreamingTransformerLayer(nn.Module):
    """A layer of the transformer."""

    def __init__(self, d_model: int, num_heads: int, dim_feedforward: int, context: int) -> None:
        super().__init__()
        self.self_attn = StreamingMultiheadAttention(d_model, num_heads, context)
        self.norm1, self.norm2 = nn.LayerNorm(d_model, eps=1e-5), nn.LayerNorm(d_model, eps=1e-5)
        self.layer_scale_1, self.layer_scale_2 = LayerScale(d_model), LayerScale(d_model)
        self.linear1 = nn.Linear(d_model, dim_feedforward, bias=False)
        self.linear2 = nn.Linear(dim_feedforward, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.layer_scale_1(self.self_attn(self.norm1(x)))
        return x + self.layer_scale_2(self.linear2(F.gelu(self.linear1(self.norm2(x)))))


class MoshiTransformer(nn.Module):
    """The transformer between encoder and quantizer: [B, C, T] to [B, C, T]."""

    def __init__(self, d_model: int = 8, num_heads: int = 2, num_layers: int = 2, context: int = 6) -> None:
        super().__init__()
        layers = [StreamingTransformerLayer(d_model, num_heads, 2 * d_model, context) for _ in range(num_layers)]
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        for layer in self.layers:
            x = layer(x)
        return x.transpose(1, 2)
