"""Descript Audio Codec's encoder and decoder (Kumar et al., "High-Fidelity Audio Compression with Improved RVQGAN",
2023)."""

import math
from typing import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


class Snake(nn.Module):
    """x + sin(alpha x)^2 / alpha, with an alpha for each channel (Ziyin et al., 2020): [B, C, T] to [B, C, T]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        shape = x.shape
        x = x.reshape(shape[0], shape[1], -1)
        x = x + (self.alpha + 1e-9).reciprocal() * torch.sin(self.alpha * x).pow(2)
        return x.reshape(shape)


class ResidualUnit(nn.Module):
    """[B, C, T] to [B, C, T], or shorter without padding, and then the input is cut to the middle."""

    def __init__(self, channels: int, dilation: int, padded: bool) -> None:
        super().__init__()
        padding = 3 * dilation if padded else 0
        self.block = nn.Sequential(
            Snake(channels),
            weight_norm(nn.Conv1d(channels, channels, 7, dilation=dilation, padding=padding)),
            Snake(channels),
            weight_norm(nn.Conv1d(channels, channels, 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.block(x)
        pad = (x.shape[-1] - y.shape[-1]) // 2
        if pad > 0:
            x = x[..., pad:-pad]
        return x + y


class EncoderBlock(nn.Module):
    """[B, C / 2, T] to [B, C, T / stride]."""

    def __init__(self, channels: int, stride: int, dilations: Sequence[int], padded: bool) -> None:
        super().__init__()
        padding = math.ceil(stride / 2) if padded else 0
        self.block = nn.Sequential(
            *(ResidualUnit(channels // 2, dilation, padded) for dilation in dilations),
            Snake(channels // 2),
            weight_norm(nn.Conv1d(channels // 2, channels, 2 * stride, stride=stride, padding=padding)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class DecoderBlock(nn.Module):
    """[B, C, N] to [B, C / 2, N * stride]."""

    def __init__(self, channels: int, stride: int, dilations: Sequence[int], padded: bool) -> None:
        super().__init__()
        padding = math.ceil(stride / 2)
        up = nn.ConvTranspose1d(
            channels, channels // 2, 2 * stride, stride=stride, padding=padding, output_padding=stride % 2
        )
        self.block = nn.Sequential(
            Snake(channels),
            weight_norm(up),
            *(ResidualUnit(channels // 2, dilation, padded) for dilation in dilations),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class DACEncoder(nn.Module):
    """Samples [B, 1, T] to latents [B, latent, T / stride]; stride is the product of the strides.

    Without `padded` no convolution pads, and the output is shorter.
    """

    def __init__(
        self,
        channels: int = 64,
        strides: Sequence[int] = (2, 4, 8, 8),
        latent: int = 1024,
        dilations: Sequence[int] = (1, 3, 9),
        padded: bool = True,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [weight_norm(nn.Conv1d(1, channels, 7, padding=3 if padded else 0))]
        for stride in strides:
            channels *= 2
            layers.append(EncoderBlock(channels, stride, dilations, padded))
        layers.append(Snake(channels))
        layers.append(weight_norm(nn.Conv1d(channels, latent, 3, padding=1 if padded else 0)))
        self.block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class DACDecoder(nn.Module):
    """Latents [B, latent, N] to samples [B, 1, N * stride]; shorter if not `padded`."""

    def __init__(
        self,
        latent: int = 1024,
        channels: int = 1536,
        strides: Sequence[int] = (8, 8, 4, 2),
        dilations: Sequence[int] = (1, 3, 9),
        padded: bool = True,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [weight_norm(nn.Conv1d(latent, channels, 7, padding=3 if padded else 0))]
        for stride in strides:
            layers.append(DecoderBlock(channels, stride, dilations, padded))
            channels //= 2
        layers.append(Snake(channels))
        layers.append(weight_norm(nn.Conv1d(channels, 1, 7, padding=3 if padded else 0)))
        layers.append(nn.Tanh())
        self.model = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        return self.model(z)
