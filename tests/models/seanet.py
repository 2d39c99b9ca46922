"""SEANet (Tagliasacchi et al., "SEANet: A Multi-modal Speech Enhancement Network", 2020), with the encoder and decoder
of EnCodec (Defossez et al., "High Fidelity Neural Audio Compression", 2022), without its LSTM."""

import math
from typing import Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


class PaddedConv(nn.Module):
    """A convolution that pads its input: [B, C, T] to [B, D, T / stride].

    Padding stands wholly before the signal if `causal`, or else on both sides. With `extra_padding` there is as much
    behind the signal as its last frame lacks, so that each sample is in a frame: how much depends on the length.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        dilation: int = 1,
        causal: bool = False,
        pad_mode: str = "constant",
        extra_padding: bool = False,
    ) -> None:
        super().__init__()
        self.conv = weight_norm(nn.Conv1d(channels, out_channels, kernel, stride=stride, dilation=dilation))
        self.span = (kernel - 1) * dilation + 1
        self.stride = stride
        self.causal = causal
        self.pad_mode = pad_mode
        self.extra_padding = extra_padding

    def forward(self, x: Tensor) -> Tensor:
        total = self.span - self.stride
        extra = 0
        if self.extra_padding:
            length = x.shape[-1]
            frames = math.ceil((length - self.span + total) / self.stride) + 1
            extra = (frames - 1) * self.stride + self.span - total - length
        right = 0 if self.causal else total // 2
        return self.conv(F.pad(x, (total - right, right + extra), mode=self.pad_mode))


class TrimmedConvTranspose(nn.Module):
    """A transposed convolution that cuts its overhang off: [B, C, N] to [B, D, N * stride]."""

    def __init__(self, channels: int, out_channels: int, kernel: int, stride: int, causal: bool = False) -> None:
        super().__init__()
        self.conv = weight_norm(nn.ConvTranspose1d(channels, out_channels, kernel, stride=stride))
        self.overhang = kernel - stride
        self.causal = causal

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        right = self.overhang if self.causal else self.overhang // 2
        left = self.overhang - right
        return y[..., left : y.shape[-1] - right]


class ResidualUnit(nn.Module):
    """A dilated convolution in a bottleneck, added to the input: [B, C, T] to [B, C, T]."""

    def __init__(self, channels: int, kernel: int, dilation: int, true_skip: bool, **padding: object) -> None:
        super().__init__()
        hidden = channels // 2
        self.block = nn.Sequential(
            nn.ELU(),
            PaddedConv(channels, hidden, kernel, dilation=dilation, **padding),
            nn.ELU(),
            PaddedConv(hidden, channels, 1, **padding),
        )
        self.shortcut = nn.Identity() if true_skip else PaddedConv(channels, channels, 1, **padding)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.block(x)


class SEANetEncoder(nn.Module):
    """Samples [B, in_channels, T] to latents [B, dimension, T / stride]; stride is the product of the strides."""

    def __init__(
        self,
        in_channels: int = 1,
        dimension: int = 128,
        filters: int = 32,
        strides: Sequence[int] = (2, 4, 5, 8),
        units: int = 1,
        dilation_base: int = 2,
        kernel_size: int = 7,
        residual_kernel_size: int = 3,
        causal: bool = False,
        pad_mode: str = "reflect",
        true_skip: bool = False,
        extra_padding: bool = False,
    ) -> None:
        super().__init__()
        padding = {"causal": causal, "pad_mode": pad_mode, "extra_padding": extra_padding}
        layers: list[nn.Module] = [PaddedConv(in_channels, filters, kernel_size, **padding)]
        for stride in strides:
            for unit in range(units):
                layers.append(ResidualUnit(filters, residual_kernel_size, dilation_base**unit, true_skip, **padding))
            layers.append(nn.ELU())
            layers.append(PaddedConv(filters, 2 * filters, 2 * stride, stride=stride, **padding))
            filters *= 2
        layers.append(nn.ELU())
        layers.append(PaddedConv(filters, dimension, kernel_size, **padding))
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class SEANetDecoder(nn.Module):
    """Latents [B, dimension, N] to samples [B, out_channels, N * stride]: the encoder, reversed."""

    def __init__(
        self,
        out_channels: int = 1,
        dimension: int = 128,
        filters: int = 32,
        strides: Sequence[int] = (2, 4, 5, 8),
        units: int = 1,
        dilation_base: int = 2,
        kernel_size: int = 7,
        residual_kernel_size: int = 3,
        causal: bool = False,
        pad_mode: str = "reflect",
        true_skip: bool = False,
    ) -> None:
        super().__init__()
        padding = {"causal": causal, "pad_mode": pad_mode}
        filters *= 2 ** len(strides)
        layers: list[nn.Module] = [PaddedConv(dimension, filters, kernel_size, **padding)]
        for stride in reversed(strides):
            layers.append(nn.ELU())
            layers.append(TrimmedConvTranspose(filters, filters // 2, 2 * stride, stride, causal))
            filters //= 2
            for unit in range(units):
                layers.append(ResidualUnit(filters, residual_kernel_size, dilation_base**unit, true_skip, **padding))
        layers.append(nn.ELU())
        layers.append(PaddedConv(filters, out_channels, kernel_size, **padding))
        self.model = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        return self.model(z)


class SEANet(nn.Module):
    """Speech enhancement, [B, 1, T] to [B, 1, T]: encoder and decoder, and the input added to the output."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.encoder = SEANetEncoder(**options)
        self.decoder = SEANetDecoder(**options)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.decoder(self.encoder(x))
