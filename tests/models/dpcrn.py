"""DPCRN (Le et al., "DPCRN: Dual-Path Convolution Recurrent Network for Single Channel Speech Enhancement",
2021): convolutions that look back, and between them recurrences over the bands of a frame, in both directions, and over
time."""

from typing import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DPRNN(nn.Module):
    """A recurrence over the bands of each frame, one over the frames of each band: [B, T, F, C] to the same."""

    def __init__(self, channels: int, bands: int) -> None:
        super().__init__()
        self.intra = nn.LSTM(channels, channels // 2, batch_first=True, bidirectional=True)
        self.intra_fc, self.intra_norm = nn.Linear(channels, channels), nn.LayerNorm([bands, channels])
        self.inter = nn.LSTM(channels, channels, batch_first=True)
        self.inter_fc, self.inter_norm = nn.Linear(channels, channels), nn.LayerNorm([bands, channels])

    def forward(self, x: Tensor) -> Tensor:
        rows, frames, bands, channels = x.shape
        y = self.intra(x.reshape(rows * frames, bands, channels))[0]
        x = x + self.intra_norm(self.intra_fc(y).view(rows, frames, bands, channels))
        y = x.permute(0, 2, 1, 3).reshape(rows * bands, frames, channels)
        y = self.inter_fc(self.inter(y)[0]).view(rows, bands, frames, channels)
        return x + self.inter_norm(y.permute(0, 2, 1, 3))


class DPCRN(nn.Module):
    """Spectra [B, 2, F, T], real and imaginary parts, to spectra of the same shape, by a complex mask."""

    def __init__(self, bands: int = 201, channels: Sequence[int] = (32, 32, 32, 64, 128), blocks: int = 2) -> None:
        super().__init__()
        encoder, decoder, sizes, before = [], [], [bands], 2
        for i, after in enumerate(channels):
            stride = 2 if i < 2 else 1
            encoder.append(nn.Conv2d(before, after, (3, 2), stride=(stride, 1), padding=(1, 0)))
            extra = (sizes[-1] - 1) % stride
            last = [nn.BatchNorm2d(before), nn.PReLU()] if i > 0 else []
            up = nn.ConvTranspose2d(2 * after, before, (3, 1), (stride, 1), (1, 0), (extra, 0))
            decoder.append(nn.Sequential(up, *last))
            sizes.append((sizes[-1] - 1) // stride + 1)
            before = after
        self.encoder = nn.ModuleList(encoder)
        self.norms = nn.ModuleList(nn.Sequential(nn.BatchNorm2d(after), nn.PReLU()) for after in channels)
        self.dprnn = nn.Sequential(*(DPRNN(before, sizes[-1]) for _ in range(blocks)))
        self.decoder = nn.ModuleList(decoder[::-1])

    def forward(self, x: Tensor) -> Tensor:
        y, skips = x, []
        for conv, norm in zip(self.encoder, self.norms, strict=True):
            y = norm(conv(F.pad(y, (1, 0))))  # looks back by a frame
            skips.append(y)
        y = self.dprnn(y.permute(0, 3, 2, 1)).permute(0, 3, 2, 1)
        for layer in self.decoder:
            y = layer(torch.cat([y, skips.pop()], 1))
        real = x[:, :1] * y[:, :1] - x[:, 1:] * y[:, 1:]
        return torch.cat([real, x[:, :1] * y[:, 1:] + x[:, 1:] * y[:, :1]], 1)
