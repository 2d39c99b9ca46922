"""HiFi-GAN's generator (Kong et al., "HiFi-GAN: Generative Adversarial Networks for Efficient and High Fidelity
Speech Synthesis", 2020), variant 1 by default."""

from typing import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

SLOPE = 0.1


def same(kernel: int, dilation: int = 1) -> int:
    return (kernel - 1) * dilation // 2


def maybe_normed(conv: nn.Module, normed: bool) -> nn.Module:
    return weight_norm(conv) if normed else conv


class ResBlock(nn.Module):
    """Pairs of convolutions, the first of a pair dilated: [B, C, T] to [B, C, T]."""

    def __init__(self, channels: int, kernel: int, dilations: Sequence[int], normed: bool) -> None:
        super().__init__()
        self.dilated = nn.ModuleList(
            maybe_normed(nn.Conv1d(channels, channels, kernel, dilation=d, padding=same(kernel, d)), normed)
            for d in dilations
        )
        self.plain = nn.ModuleList(
            maybe_normed(nn.Conv1d(channels, channels, kernel, padding=same(kernel)), normed) for _ in dilations
        )

    def forward(self, x: Tensor) -> Tensor:
        for dilated, plain in zip(self.dilated, self.plain, strict=True):
            y = dilated(F.leaky_relu(x, SLOPE))
            y = plain(F.leaky_relu(y, SLOPE))
            x = x + y
        return x


class SmallResBlock(nn.Module):
    """Variant 3's block, one convolution for each dilation: [B, C, T] to [B, C, T]."""

    def __init__(self, channels: int, kernel: int, dilations: Sequence[int], normed: bool) -> None:
        super().__init__()
        self.dilated = nn.ModuleList(
            maybe_normed(nn.Conv1d(channels, channels, kernel, dilation=d, padding=same(kernel, d)), normed)
            for d in dilations
        )

    def forward(self, x: Tensor) -> Tensor:
        for dilated in self.dilated:
            x = x + dilated(F.leaky_relu(x, SLOPE))
        return x


class HiFiGAN(nn.Module):
    """Mel spectrogram [B, mels, N] to samples [B, 1, N * hop]; hop is the product of the upsample rates."""

    def __init__(
        self,
        mels: int = 80,
        upsample_rates: Sequence[int] = (8, 8, 2, 2),
        upsample_kernels: Sequence[int] = (16, 16, 4, 4),
        initial_channels: int = 512,
        block_kernels: Sequence[int] = (3, 7, 11),
        block_dilations: Sequence[Sequence[int]] = ((1, 3, 5), (1, 3, 5), (1, 3, 5)),
        small_blocks: bool = False,
        normed: bool = True,
    ) -> None:
        super().__init__()
        self.blocks_each = len(block_kernels)
        block = SmallResBlock if small_blocks else ResBlock
        channels = initial_channels
        self.first = maybe_normed(nn.Conv1d(mels, channels, 7, padding=3), normed)
        self.ups = nn.ModuleList()
        self.blocks = nn.ModuleList()
        for rate, kernel in zip(upsample_rates, upsample_kernels, strict=True):
            up = nn.ConvTranspose1d(channels, channels // 2, kernel, stride=rate, padding=(kernel - rate) // 2)
            self.ups.append(maybe_normed(up, normed))
            channels //= 2
            for block_kernel, dilations in zip(block_kernels, block_dilations, strict=True):
                self.blocks.append(block(channels, block_kernel, dilations, normed))
        self.last = maybe_normed(nn.Conv1d(channels, 1, 7, padding=3), normed)

    def forward(self, mel: Tensor) -> Tensor:
        x = self.first(mel)
        for i, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, SLOPE))
            fused = None
            for block in self.blocks[i * self.blocks_each : (i + 1) * self.blocks_each]:
                fused = block(x) if fused is None else fused + block(x)
            x = fused / self.blocks_each
        x = self.last(F.leaky_relu(x))
        return torch.tanh(x)
