"""Squeeze and excitation (Hu et al., "Squeeze-and-Excitation Networks", 2018) in one dimension."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SqueezeExcite(nn.Module):
    """Weights for the channels, from their means over all time: [B, C, T] to [B, C, T].

    `pooling`: by `Tensor.mean`, or by `nn.AdaptiveAvgPool1d(1)`.
    """

    def __init__(self, channels: int, reduction: int = 16, pooling: bool = False) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool1d(1) if pooling else None
        self.fc1 = nn.Linear(channels, max(1, channels // reduction))
        self.fc2 = nn.Linear(max(1, channels // reduction), channels)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = x.mean(dim=-1) if self.pool is None else self.pool(x).squeeze(-1)
        weights = torch.sigmoid(self.fc2(F.relu(self.fc1(squeezed))))
        return x * weights.unsqueeze(-1)


class SEBlock(nn.Module):
    """Convolutions, squeeze and excitation, and a residual connection: [B, C, T] to [B, C, T]."""

    def __init__(self, channels: int, kernel: int, reduction: int, pooling: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(channels, channels, kernel, padding=kernel // 2)
        self.conv2 = nn.Conv1d(channels, channels, kernel, padding=kernel // 2)
        self.se = SqueezeExcite(channels, reduction, pooling)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.se(self.conv2(F.relu(self.conv1(x)))))


class SENet1d(nn.Module):
    """[B, in_channels, T] to scores [B, classes, T]."""

    def __init__(
        self,
        in_channels: int = 1,
        classes: int = 10,
        channels: int = 64,
        kernel: int = 5,
        blocks: int = 4,
        reduction: int = 16,
        pooling: bool = False,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv1d(in_channels, channels, kernel, padding=kernel // 2)
        self.blocks = nn.Sequential(*(SEBlock(channels, kernel, reduction, pooling) for _ in range(blocks)))
        self.head = nn.Conv1d(channels, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(F.relu(self.stem(x))))
