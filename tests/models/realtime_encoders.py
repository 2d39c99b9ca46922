"""Encoders of Moonshine's streaming models and of Voxtral's realtime ones, as transformers has them, on [B, C, T]."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def repeat_kv(x: Tensor, n: int) -> Tensor:
    """[B, G, T, D] to [B, n·G, T, D]."""
    b, groups, t, d = x.shape
    return x if n == 1 else x[:, :, None].expand(b, groups, n, t, d).reshape(b, groups * n, t, d)


class EagerAttention(nn.Module):
    """Attention with a mask that is added, and a softmax of its own."""

    def __init__(self, width: int, heads: int, groups: int) -> None:
        super().__init__()
        self.heads, self.groups, self.d = heads, groups, width // heads
        self.q_proj = nn.Linear(width, heads * self.d)
        self.k_proj = nn.Linear(width, groups * self.d, bias=False)
        self.v_proj = nn.Linear(width, groups * self.d)
        self.o_proj = nn.Linear(heads * self.d, width)

    def forward(self, x: Tensor, mask: Tensor, rotary=None) -> Tensor:
        b, t, _ = x.shape
        q = self.q_proj(x).view(b, t, -1, self.d).transpose(1, 2)
        k = self.k_proj(x).view(b, t, -1, self.d).transpose(1, 2)
        v = self.v_proj(x).view(b, t, -1, self.d).transpose(1, 2)
        if rotary is not None:
            q, k = rotary(q), rotary(k)
        k, v = repeat_kv(k, self.heads // self.groups), repeat_kv(v, self.heads // self.groups)
        weights = torch.matmul(q, k.transpose(2, 3)) * self.d**-0.5
        weights = weights + mask[:, :, :, : k.shape[-2]]
        weights = F.softmax(weights, dim=-1, dtype=weights.dtype)
        y = torch.matmul(weights, v).transpose(1, 2).contiguous()
        return self.o_proj(y.reshape(b, t, -1).contiguous())


class MoonshineLayer(nn.Module):
    """A layer of the encoder, with a window of its own."""

    def __init__(self, width: int, heads: int, window: tuple[int, int]) -> None:
        super().__init__()
        self.window = window
        self.self_attn = EagerAttention(width, heads, heads)
        self.input_layernorm = nn.LayerNorm(width, bias=False)
        self.post_attention_layernorm = nn.LayerNorm(width, bias=False)
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.window
        i = torch.arange(x.shape[1], device=x.device)[:, None]
        j = torch.arange(x.shape[1], device=x.device)[None, :]
        distance = i - j
        seen = ((distance >= 0) & (distance < left)) | ((distance < 0) & (-distance < right))
        mask = torch.full_like(seen, torch.finfo(x.dtype).min, dtype=x.dtype).masked_fill(seen, 0.0)
        x = x + self.self_attn(self.input_layernorm(x), mask[None, None])
        return x + self.fc2(F.gelu(self.fc1(self.post_attention_layernorm(x))))


class MoonshineEncoder(nn.Module):
    """Frames of samples, two causal convolutions, and layers that look ahead at the start and at the end of the
    stack: [B, 1, T] to [B, C, T / 16]."""

    def __init__(self, width: int = 8, heads: int = 2, windows=((5, 2), (5, 0), (4, 1))) -> None:
        super().__init__()
        self.frame = nn.Conv1d(1, width, 4, 4, bias=False)
        self.conv1 = nn.Conv1d(width, 2 * width, 5, 2)
        self.conv2 = nn.Conv1d(2 * width, width, 5, 2)
        self.layers = nn.ModuleList(MoonshineLayer(width, heads, window) for window in windows)
        self.final_norm = nn.LayerNorm(width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.asinh(self.frame(x))
        x = F.silu(self.conv1(F.pad(x, (4, 0))))
        x = self.conv2(F.pad(x, (4, 0))).transpose(1, 2)
        for layer in self.layers:
            x = layer(x)
        return self.final_norm(x).transpose(1, 2)


class VoxtralRotary(nn.Module):
    """Rotates the halves of the channels."""

    def __init__(self, dim: int, base: float = 1e4) -> None:
        super().__init__()
        self.register_buffer("inv_freq", 1.0 / base ** (torch.arange(0, dim, 2).float() / dim), persistent=False)

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        inv_freq = self.inv_freq[None, :, None].to(x.dtype).expand(position_ids.shape[0], -1, 1)
        freqs = (inv_freq @ position_ids[:, None, :].to(x.dtype)).transpose(1, 2)
        angles = torch.cat((freqs, freqs), dim=-1)
        return angles.cos(), angles.sin()


def rotate_half(x: Tensor) -> Tensor:
    """Exchanges the halves of the channels."""
    return torch.cat((-x[..., x.shape[-1] // 2 :], x[..., : x.shape[-1] // 2]), dim=-1)


class VoxtralLayer(nn.Module):
    """A layer with RMSNorm and a gated feed-forward part."""

    def __init__(self, width: int, heads: int, groups: int) -> None:
        super().__init__()
        self.self_attn = EagerAttention(width, heads, groups)
        self.norm1, self.norm2 = nn.RMSNorm(width, eps=1e-5), nn.RMSNorm(width, eps=1e-5)
        self.gate, self.up = nn.Linear(width, 2 * width, bias=False), nn.Linear(width, 2 * width, bias=False)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: Tensor, mask: Tensor, rotary) -> Tensor:
        x = x + self.self_attn(self.norm1(x), mask, rotary)
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class VoxtralEncoder(nn.Module):
    """Causal convolutions, rotary positions and causal attention to a sliding window: [B, F, T] to [B, C, T / 2]."""

    def __init__(self, bands: int = 5, width: int = 8, heads: int = 4, layers: int = 2, window: int = 7) -> None:
        super().__init__()
        self.window = window
        self.conv1, self.conv2 = nn.Conv1d(bands, width, 3), nn.Conv1d(width, width, 3, 2)
        self.rotary = VoxtralRotary(width // heads)
        self.layers = nn.ModuleList(VoxtralLayer(width, heads, heads // 2) for _ in range(layers))
        self.norm = nn.RMSNorm(width, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.conv1(F.pad(x, (2, 0))))
        x = F.gelu(self.conv2(F.pad(x, (1, 0)))).transpose(1, 2)
        t = x.shape[1]
        positions = torch.arange(t, device=x.device)
        cos, sin = self.rotary(x, positions[None])
        cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)

        def rotary(y: Tensor) -> Tensor:
            return y * cos + rotate_half(y) * sin

        seen = (positions[None, :] <= positions[:, None]) & (positions[None, :] > positions[:, None] - self.window)
        mask = torch.zeros(t, t, dtype=x.dtype, device=x.device).masked_fill(~seen, torch.finfo(x.dtype).min)
        for layer in self.layers:
            x = layer(x, mask[None, None], rotary)
        return self.norm(x).transpose(1, 2)
