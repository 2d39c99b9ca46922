"""ResNet (He et al., "Deep Residual Learning for Image Recognition", 2016) in one dimension, as used for sensor data
(Wang et al., "Time Series Classification from Scratch with Deep Neural Networks", 2017), with scores for each frame
instead of a mean over all time."""

from typing import Optional, Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """[B, C, T] to [B, D, T / stride]."""

    def __init__(self, channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm1d(out_channels)
        self.conv2 = nn.Conv1d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm1d(out_channels)
        self.downsample: Optional[nn.Module] = None
        if stride != 1 or channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv1d(channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm1d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        y += identity
        return F.relu(y, inplace=True)


class ResNet1d(nn.Module):
    """Sensors [B, sensors, T] to scores [B, classes, T / stride]; stride is 4 * 2 ** (stages - 1)."""

    def __init__(
        self,
        sensors: int = 12,
        classes: int = 6,
        widths: Sequence[int] = (64, 128, 256, 512),
        blocks: Sequence[int] = (2, 2, 2, 2),
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(sensors, widths[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm1d(widths[0])
        self.maxpool = nn.MaxPool1d(3, stride=2, padding=1)
        layers = []
        channels = widths[0]
        for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            for block in range(count):
                layers.append(BasicBlock(channels, width, 2 if stage > 0 and block == 0 else 1))
                channels = width
        self.layers = nn.Sequential(*layers)
        self.head = nn.Conv1d(channels, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        return self.head(self.layers(x))
