"""Temporal convolutional network (Bai et al., "An Empirical Evaluation of Generic Convolutional and Recurrent
Networks for Sequence Modeling", 2018)."""

from typing import Sequence

from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


class Chomp1d(nn.Module):
    """Cuts off what padding on both sides has put behind the signal: [B, C, T + size] to [B, C, T]."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, : -self.size].contiguous()


class TemporalBlock(nn.Module):
    """Two causal convolutions and a residual connection: [B, C, T] to [B, D, T]."""

    def __init__(self, channels: int, out_channels: int, kernel: int, dilation: int, dropout: float) -> None:
        super().__init__()
        padding = (kernel - 1) * dilation
        self.net = nn.Sequential(
            weight_norm(nn.Conv1d(channels, out_channels, kernel, padding=padding, dilation=dilation)),
            Chomp1d(padding),
            nn.ReLU(),
            nn.Dropout(dropout),
            weight_norm(nn.Conv1d(out_channels, out_channels, kernel, padding=padding, dilation=dilation)),
            Chomp1d(padding),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.downsample = nn.Conv1d(channels, out_channels, 1) if channels != out_channels else None
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out = self.net(x)
        res = x if self.downsample is None else self.downsample(x)
        return self.relu(out + res)


class TCN(nn.Module):
    """Sequence [B, in_channels, T] to scores [B, T, classes], or [B, classes, T] where `channels_first`."""

    def __init__(
        self,
        in_channels: int = 88,
        classes: int = 88,
        channels: Sequence[int] = (150, 150, 150, 150),
        kernel_size: int = 5,
        dropout: float = 0.25,
        channels_first: bool = True,
    ) -> None:
        super().__init__()
        self.channels_first = channels_first
        blocks = []
        for level, width in enumerate(channels):
            blocks.append(TemporalBlock(in_channels, width, kernel_size, 2**level, dropout))
            in_channels = width
        self.network = nn.Sequential(*blocks)
        self.linear = nn.Linear(in_channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(self.network(x).transpose(1, 2))
        return y.transpose(1, 2) if self.channels_first else y
