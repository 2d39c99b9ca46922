"""Layers that come down to a linear recurrence over time, h = a·h + b, on [B, C, T].

SRU: Lei et al., "Simple Recurrent Units for Highly Parallelizable Recurrence", first version (2017), whose gates do not
read the state. QRNN: Bradbury et al., "Quasi-Recurrent Neural Networks", 2016. minGRU: Feng et al., "Were RNNs All We
Needed?", 2024. RG-LRU: De et al., "Griffin", 2024. Diagonal state space: Gu et al., "On the Parameterization and
Initialization of Diagonal State Space Models", 2022, written as in Orvieto et al., "Resurrecting Recurrent Neural
Networks for Long Sequences", 2023.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import torchstreamer as pts


class SRU(nn.Module):
    """c = f·c + (1 - f)·(W x), out r·tanh(c) + (1 - r)·x: [B, C, T] to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.project = nn.Conv1d(channels, channels, 1, bias=False)
        self.gates = nn.Conv1d(channels, 2 * channels, 1)
        self.scan = pts.LinearRecurrence()

    def forward(self, x: Tensor) -> Tensor:
        f, r = torch.sigmoid(self.gates(x)).chunk(2, 1)
        c = self.scan(f, (1 - f) * self.project(x))
        return r * torch.tanh(c) + (1 - r) * x


class QRNN(nn.Module):
    """A causal convolution of some samples gives z, f and o; c = f·c + (1 - f)·z, out o·c: [B, C, T] to [B, H, T]."""

    def __init__(self, channels: int, hidden: int, window: int = 2) -> None:
        super().__init__()
        self.window = window
        self.conv = nn.Conv1d(channels, 3 * hidden, window)
        self.scan = pts.LinearRecurrence()

    def forward(self, x: Tensor) -> Tensor:
        z, f, o = self.conv(F.pad(x, (self.window - 1, 0))).chunk(3, 1)
        f = torch.sigmoid(f)
        return torch.sigmoid(o) * self.scan(f, (1 - f) * torch.tanh(z))


class MinGRU(nn.Module):
    """h = (1 - z)·h + z·(W x), z a gate of x alone; h begins with a learned value: [B, C, T] to [B, H, T]."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Conv1d(channels, hidden, 1)
        self.candidate = nn.Conv1d(channels, hidden, 1)
        self.scan = pts.LinearRecurrence(initial=nn.Parameter(torch.zeros(hidden)))

    def forward(self, x: Tensor) -> Tensor:
        z = torch.sigmoid(self.gate(x))
        return self.scan(torch.cat([1 - z, z * self.candidate(x)], 1))


class RGLRU(nn.Module):
    """Griffin's recurrent block: convolution of 4 samples, real-gated linear recurrent unit, times a gate."""

    def __init__(self, channels: int, width: int, c: float = 8.0) -> None:
        super().__init__()
        self.c = c
        self.inner, self.outer = nn.Conv1d(channels, width, 1), nn.Conv1d(channels, width, 1)
        self.conv = nn.Conv1d(width, width, 4, groups=width)
        self.gates = nn.Conv1d(width, 2 * width, 1)
        self.forgetting = nn.Parameter(torch.linspace(2.0, 6.0, width).unsqueeze(1))  # a = sigmoid of it
        self.scan = pts.LinearRecurrence()
        self.out = nn.Conv1d(width, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        u = self.conv(F.pad(self.inner(x), (3, 0)))
        r, i = torch.sigmoid(self.gates(u)).chunk(2, 1)
        log_a = -self.c * F.softplus(-self.forgetting) * r
        b = torch.sqrt(-torch.expm1(2 * log_a)) * (i * u)
        return self.out(self.scan(torch.exp(log_a), b) * F.gelu(self.outer(x)))


class DiagonalStateSpace(nn.Module):
    """h = λ·h + B x with complex diagonal λ, out Re(C h) + D·x: [B, C, T] to the same.

    Complex numbers are tensors of complex numbers, or, with `paired`, real and imaginary parts one after the other.
    """

    def __init__(self, channels: int, states: int, paired: bool = False) -> None:
        super().__init__()
        self.paired = paired
        self.rate = nn.Parameter(torch.linspace(-3.0, 0.0, states))
        self.angle = nn.Parameter(torch.linspace(0.1, 3.0, states))
        self.into = nn.Conv1d(channels, 2 * states, 1, bias=False)
        self.out = nn.Conv1d(2 * states, channels, 1, bias=False)
        self.direct = nn.Parameter(torch.linspace(-1, 1, channels).unsqueeze(1))
        self.scan = pts.LinearRecurrence(paired=paired)

    def forward(self, x: Tensor) -> Tensor:
        radius, b = torch.exp(-torch.exp(self.rate)), self.into(x)
        if self.paired:
            factor = torch.cat([radius * torch.cos(self.angle), radius * torch.sin(self.angle)]).unsqueeze(1)
            real, imaginary = self.scan(factor, b).chunk(2, 1)
        else:
            factor = torch.polar(radius, self.angle).unsqueeze(1)
            h = self.scan(factor, torch.complex(*b.chunk(2, 1)))
            real, imaginary = h.real, h.imag
        return self.out(torch.cat([real, -imaginary], 1)) + self.direct * x
