"""Upsampling by reordering channels into time (Shi et al., "Real-Time Single Image and Video Super-Resolution Using an
Efficient Sub-Pixel Convolutional Neural Network", 2016, in one dimension), and its inverse."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def channels_to_time(x: Tensor, rate: int) -> Tensor:
    """[B, C * rate, T] to [B, C, T * rate]."""
    batch, channels, length = x.shape
    x = x.reshape(batch, channels // rate, rate, length)
    return x.permute(0, 1, 3, 2).reshape(batch, channels // rate, length * rate)


def time_to_channels(x: Tensor, rate: int) -> Tensor:
    """[B, C, T] to [B, C * rate, T / rate]; T must be a multiple of the rate."""
    batch, channels, length = x.shape
    x = x.reshape(batch, channels, length // rate, rate)
    return x.permute(0, 1, 3, 2).reshape(batch, channels * rate, length // rate)


class SubpixelUpsampler(nn.Module):
    """[B, in_channels, T] to [B, 1, T * rate]."""

    def __init__(self, in_channels: int = 1, channels: int = 64, rate: int = 4, kernel: int = 9) -> None:
        super().__init__()
        self.rate = rate
        self.conv1 = nn.Conv1d(in_channels, channels, kernel, padding=kernel // 2)
        self.conv2 = nn.Conv1d(channels, channels, 3, padding=1)
        self.to_phases = nn.Conv1d(channels, channels * rate, 3, padding=1)
        self.smooth = nn.Conv1d(channels, 1, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.conv1(x), 0.2)
        x = F.leaky_relu(self.conv2(x), 0.2)
        x = channels_to_time(self.to_phases(x), self.rate)
        return self.smooth(F.leaky_relu(x, 0.2))


class SpaceToDepth(nn.Module):
    """An encoder-decoder without strided convolutions: [B, 1, T] to [B, 1, T]; T must be a multiple of the rate."""

    def __init__(self, channels: int = 64, rate: int = 4, kernel: int = 5, layers: int = 3) -> None:
        super().__init__()
        self.rate = rate
        self.enter = nn.Conv1d(rate, channels, 1)
        self.convs = nn.ModuleList(nn.Conv1d(channels, channels, kernel, padding=kernel // 2) for _ in range(layers))
        self.leave = nn.Conv1d(2 * channels, rate, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = entered = self.enter(time_to_channels(x, self.rate))
        for conv in self.convs:
            x = x + F.relu(conv(x))
        x = self.leave(torch.cat((entered, x), 1))
        return channels_to_time(x, self.rate)
