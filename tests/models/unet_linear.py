"""U-Net (Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation", 2015) in one dimension,
with convolutions that pad and linear upsampling (Odena et al., "Deconvolution and Checkerboard Artifacts", 2016)."""

from typing import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DoubleConv(nn.Module):
    """Two convolutions: [B, C, T] to [B, D, T]."""

    def __init__(self, channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(channels, out_channels, kernel, padding="same")
        self.conv2 = nn.Conv1d(out_channels, out_channels, kernel, padding="same")

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.conv2(F.gelu(self.conv1(x))))


class UNetLinear(nn.Module):
    """[B, in_channels, T] to [B, out_channels, T]; T must be a multiple of 2 ** (widths - 1).

    `down`: "strided" convolutions, or an "average" of, or the "maximum" of each two samples.
    `mode`: "linear" or "nearest" upsampling.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        widths: Sequence[int] = (64, 128, 256, 512, 1024),
        kernel: int = 3,
        down: str = "average",
        mode: str = "linear",
    ) -> None:
        super().__init__()
        self.mode = mode
        self.first = DoubleConv(in_channels, widths[0], kernel)
        self.downs = nn.ModuleList()
        self.encoders = nn.ModuleList()
        self.decoders = nn.ModuleList()
        for above, below in zip(widths[:-1], widths[1:], strict=True):
            if down == "strided":
                self.downs.append(nn.Conv1d(above, above, 4, stride=2, padding=1))
            elif down == "average":
                self.downs.append(nn.AvgPool1d(2))
            else:
                self.downs.append(nn.MaxPool1d(2))
            self.encoders.append(DoubleConv(above, below, kernel))
            self.decoders.insert(0, DoubleConv(above + below, above, kernel))
        self.last = nn.Conv1d(widths[0], out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        skips = []
        for down, encoder in zip(self.downs, self.encoders, strict=True):
            skips.append(x)
            x = encoder(down(x))
        for decoder, skip in zip(self.decoders, reversed(skips), strict=True):
            if self.mode == "linear":
                x = F.interpolate(x, scale_factor=2, mode="linear", align_corners=False)
            else:
                x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = decoder(torch.cat([skip, x], dim=1))
        return self.last(x)
