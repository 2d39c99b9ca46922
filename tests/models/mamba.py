"""A Mamba block (Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", 2023)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import torchstreamer as pts


class Mamba(nn.Module):
    """Causal convolution, selective scan over a diagonal state, gate: [B, D, T] to the same.

    h = exp(dt·A)·h + dt·B·x, y = C·h + D·x, where dt, B and C are computed from x, and h has `states` for each channel.
    """

    def __init__(self, channels: int, expand: int = 2, states: int = 16, kernel: int = 4, rank: int = 1) -> None:
        super().__init__()
        width = expand * channels
        self.states, self.kernel, self.rank = states, kernel, rank
        self.in_proj = nn.Conv1d(channels, 2 * width, 1, bias=False)
        self.conv = nn.Conv1d(width, width, kernel, groups=width, padding=kernel - 1)
        self.x_proj = nn.Conv1d(width, rank + 2 * states, 1, bias=False)
        self.dt_proj = nn.Conv1d(rank, width, 1)
        self.A_log = nn.Parameter(torch.arange(1.0, states + 1).log().repeat(width, 1))
        self.D = nn.Parameter(torch.ones(width, 1))
        self.scan = pts.LinearRecurrence()
        self.out_proj = nn.Conv1d(width, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        u, z = self.in_proj(x).chunk(2, 1)
        u = F.silu(self.conv(u)[..., : u.shape[-1]])
        dt, b, c = self.x_proj(u).split([self.rank, self.states, self.states], 1)
        dt = F.softplus(self.dt_proj(dt)).unsqueeze(2)  # [B, E, 1, T]
        a = torch.exp(dt * -torch.exp(self.A_log).unsqueeze(2))  # [B, E, N, T]
        h = self.scan(a.flatten(1, 2), (dt * b.unsqueeze(1) * u.unsqueeze(2)).flatten(1, 2))
        y = (h.unflatten(1, (-1, self.states)) * c.unsqueeze(1)).sum(2) + self.D * u
        return self.out_proj(y * F.silu(z))


class MambaLayer(nn.Module):
    """The block as it stands in a model: x + block(norm(x))."""

    def __init__(self, channels: int, **options: int) -> None:
        super().__init__()
        self.norm = pts.RMSNorm1d(channels, eps=1e-5)
        self.mixer = Mamba(channels, **options)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mixer(self.norm(x))
