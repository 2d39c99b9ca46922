"""QuartzNet (Kriman et al., "QuartzNet: Deep Automatic Speech Recognition with 1D Time-Channel Separable Convolutions",
2019)."""

from typing import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


def separable(channels: int, out_channels: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """A convolution in time for each channel, one of channels for each frame, and batch norm."""
    padding = dilation * (kernel - 1) // 2
    return nn.Sequential(
        nn.Conv1d(
            channels, channels, kernel, stride, padding, dilation=dilation, groups=channels, bias=False
        ),  # depthwise
        nn.Conv1d(channels, out_channels, 1, bias=False),  # pointwise
        nn.BatchNorm1d(out_channels, eps=1e-3),
    )


class QuartzBlock(nn.Module):
    """Separable convolutions with a residual connection around all of them: [B, C, T] to [B, D, T]."""

    def __init__(self, channels: int, out_channels: int, kernel: int, repeats: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        width = channels
        for _ in range(repeats):
            self.layers.append(separable(width, out_channels, kernel))
            width = out_channels
        self.residual = nn.Sequential(
            nn.Conv1d(channels, out_channels, 1, bias=False), nn.BatchNorm1d(out_channels, eps=1e-3)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer in self.layers[:-1]:
            y = self.dropout(F.relu(layer(y)))
        y = self.layers[-1](y) + self.residual(x)
        return self.dropout(F.relu(y))


class QuartzNet(nn.Module):
    """Mel spectrogram [B, mels, T] to log probabilities [B, classes, T / 2]; 15x5 by default."""

    def __init__(
        self,
        mels: int = 64,
        classes: int = 29,
        first: int = 256,
        first_kernel: int = 33,
        widths: Sequence[int] = (256, 256, 512, 512, 512),
        kernels: Sequence[int] = (33, 39, 51, 63, 75),
        blocks_each: int = 3,
        repeats: int = 5,
        second_last: int = 512,
        second_last_kernel: int = 87,
        last: int = 1024,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [separable(mels, first, first_kernel, stride=2), nn.ReLU()]
        channels = first
        for width, kernel in zip(widths, kernels, strict=True):
            for _ in range(blocks_each):
                layers.append(QuartzBlock(channels, width, kernel, repeats, dropout))
                channels = width
        layers += [separable(channels, second_last, second_last_kernel, dilation=2), nn.ReLU()]
        layers += [nn.Conv1d(second_last, last, 1, bias=False), nn.BatchNorm1d(last, eps=1e-3), nn.ReLU()]
        self.encoder = nn.Sequential(*layers)
        self.decoder = nn.Conv1d(last, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.log_softmax(self.decoder(self.encoder(x)), dim=1)
