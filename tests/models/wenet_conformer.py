"""WeNet's U2++ Conformer (Zhang et al., "WeNet 2.0", 2022) with its absolute positions in the scores, [B, T, C].

In eval mode the mask of the chunks is made in a loop over the signal; it is that of `pts.Context.chunks`.
"""

import math
from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RelPositionalEncoding(nn.Module):
    """Scales a signal, and gives positions as long as it is."""

    def __init__(self, width: int, max_len: int = 5000) -> None:
        super().__init__()
        self.xscale = math.sqrt(width)
        position = torch.arange(0, max_len, dtype=torch.float32).unsqueeze(1)
        div_term = torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * -(math.log(10000.0) / width))
        pe = torch.stack([torch.sin(position * div_term), torch.cos(position * div_term)], -1).flatten(1)
        self.register_buffer("pe", pe.unsqueeze(0))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * self.xscale, self.pe[:, : x.size(1)]


class RelPositionMultiHeadedAttention(nn.Module):
    """Attention with scores of queries and positions, without the shift of Transformer-XL."""

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.h, self.d_k = heads, width // heads
        self.linear_q, self.linear_k = nn.Linear(width, width), nn.Linear(width, width)
        self.linear_v, self.linear_out = nn.Linear(width, width), nn.Linear(width, width)
        self.linear_pos = nn.Linear(width, width, bias=False)
        self.pos_bias_u = nn.Parameter(torch.randn(heads, self.d_k))
        self.pos_bias_v = nn.Parameter(torch.randn(heads, self.d_k))

    def forward(self, x: Tensor, mask: Optional[Tensor], pos_emb: Tensor) -> Tensor:
        b = x.size(0)
        q = self.linear_q(x).view(b, -1, self.h, self.d_k)
        k = self.linear_k(x).view(b, -1, self.h, self.d_k).transpose(1, 2)
        v = self.linear_v(x).view(b, -1, self.h, self.d_k).transpose(1, 2)
        p = self.linear_pos(pos_emb).view(pos_emb.size(0), -1, self.h, self.d_k).transpose(1, 2)
        matrix_ac = torch.matmul((q + self.pos_bias_u).transpose(1, 2), k.transpose(-2, -1))
        matrix_bd = torch.matmul((q + self.pos_bias_v).transpose(1, 2), p.transpose(-2, -1))
        scores = (matrix_ac + matrix_bd) / math.sqrt(self.d_k)
        if mask is not None:
            mask = mask.unsqueeze(1).eq(0)
            scores = scores.masked_fill(mask, -float("inf"))
            attn = torch.softmax(scores, dim=-1).masked_fill(mask, 0.0)
        else:
            attn = torch.softmax(scores, dim=-1)
        x = torch.matmul(attn, v)
        return self.linear_out(x.transpose(1, 2).contiguous().view(b, -1, self.h * self.d_k))


class ConvolutionModule(nn.Module):
    """The convolution module; zeros are put in front before the first layer makes something of them."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.pointwise1, self.pointwise2 = nn.Conv1d(width, 2 * width, 1), nn.Conv1d(width, width, 1)
        self.depthwise, self.norm = nn.Conv1d(width, width, kernel, groups=width), nn.LayerNorm(width)
        self.lorder = kernel - 1

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x.transpose(1, 2), (self.lorder, 0))
        x = self.depthwise(F.glu(self.pointwise1(x), dim=1)).transpose(1, 2)
        return self.pointwise2(F.silu(self.norm(x)).transpose(1, 2)).transpose(1, 2)


class WeNetConformer(nn.Module):
    """Layers of the encoder; `decoding_chunk_size` 0 is full context."""

    def __init__(self, width: int = 8, heads: int = 2, layers: int = 2, max_len: int = 5000) -> None:
        super().__init__()
        self.decoding_chunk_size, self.num_left_chunks = 0, -1
        self.embed = RelPositionalEncoding(width, max_len)
        parts = [
            nn.ModuleDict(
                {
                    "norm1": nn.LayerNorm(width),
                    "attn": RelPositionMultiHeadedAttention(heads, width),
                    "norm2": nn.LayerNorm(width),
                    "conv": ConvolutionModule(width, 5),
                    "norm3": nn.LayerNorm(width),
                    "up": nn.Linear(width, 2 * width),
                    "down": nn.Linear(2 * width, width),
                }
            )
            for _ in range(layers)
        ]
        self.layers = nn.ModuleList(parts)

    def subsequent_chunk_mask(self, size: int) -> Tensor:
        """As WeNet makes it."""
        ret = torch.zeros(size, size, dtype=torch.bool)
        chunk = self.decoding_chunk_size
        for i in range(size):
            start = 0 if self.num_left_chunks < 0 else max((i // chunk - self.num_left_chunks) * chunk, 0)
            ret[i, start : min((i // chunk + 1) * chunk, size)] = True
        return ret

    def forward(self, x: Tensor) -> Tensor:
        mask = self.subsequent_chunk_mask(x.size(1))[None] if self.decoding_chunk_size > 0 else None
        x, pos_emb = self.embed(x)
        for layer in self.layers:
            x = x + layer["attn"](layer["norm1"](x), mask, pos_emb)
            x = x + layer["conv"](layer["norm2"](x))
            x = x + layer["down"](F.silu(layer["up"](layer["norm3"](x))))
        return x
