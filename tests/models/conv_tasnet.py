"""Conv-TasNet (Luo and Mesgarani, "Conv-TasNet: Surpassing Ideal Time-Frequency Magnitude Masking for Speech
Separation", 2019)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import torchstreamer as pts


class GlobalLayerNorm(nn.Module):
    """gLN: normalizes over the channels and over all time: [B, C, N] to [B, C, N]."""

    def __init__(self, channels: int, eps: float = 1e-8) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(1, channels, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=(1, 2), keepdim=True)
        var = ((x - mean) ** 2).mean(dim=(1, 2), keepdim=True)
        return self.gamma * (x - mean) / torch.sqrt(var + self.eps) + self.beta


class CumulativeLayerNorm(nn.Module):
    """cLN: normalizes over the channels and over the time up to each frame: [B, C, N] to [B, C, N]."""

    def __init__(self, channels: int, eps: float = 1e-8) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(1, channels, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        channels, frames = x.shape[1], x.shape[2]
        count = torch.arange(1, frames + 1, dtype=x.dtype, device=x.device) * channels
        total = torch.cumsum(x.sum(dim=1), dim=-1)
        power = torch.cumsum(x.pow(2).sum(dim=1), dim=-1)
        mean = total / count
        var = power / count - mean.pow(2)
        std = (var + self.eps).sqrt()
        return (x - mean.unsqueeze(1)) / std.unsqueeze(1) * self.gamma + self.beta


class ChannelLayerNorm(nn.Module):
    """Normalizes each frame over its channels: [B, C, N] to [B, C, N]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


NORMS = {
    "gLN": GlobalLayerNorm,
    "cLN": CumulativeLayerNorm,
    "cLN, exact": pts.CumulativeLayerNorm1d,
    "frame": ChannelLayerNorm,
    "BN": nn.BatchNorm1d,
}


class Block(nn.Module):
    """A depthwise separable convolution: [B, C, N] to the next input [B, C, N] and the skip sum [B, S, N]."""

    def __init__(
        self, channels: int, hidden: int, skip: int, kernel: int, dilation: int, norm: str, causal: bool
    ) -> None:
        super().__init__()
        self.causal = causal
        self.padding = (kernel - 1) * dilation if causal else (kernel - 1) * dilation // 2
        self.expand = nn.Conv1d(channels, hidden, 1)
        self.prelu1 = nn.PReLU()
        self.norm1 = NORMS[norm](hidden)
        self.depthwise = nn.Conv1d(hidden, hidden, kernel, dilation=dilation, padding=self.padding, groups=hidden)
        self.prelu2 = nn.PReLU()
        self.norm2 = NORMS[norm](hidden)
        self.residual = nn.Conv1d(hidden, channels, 1)
        self.skip = nn.Conv1d(hidden, skip, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.norm1(self.prelu1(self.expand(x)))
        y = self.depthwise(y)
        if self.causal:
            y = y[:, :, : -self.padding]
        y = self.norm2(self.prelu2(y))
        return x + self.residual(y), self.skip(y)


class ConvTasNet(nn.Module):
    """Mixture [B, 1, T] to sources [B, speakers, T]; T must be a multiple of half the window."""

    def __init__(
        self,
        speakers: int = 2,
        filters: int = 512,
        window: int = 16,
        bottleneck: int = 128,
        hidden: int = 512,
        skip: int = 128,
        kernel_size: int = 3,
        blocks: int = 8,
        repeats: int = 3,
        norm: str = "cLN",
        causal: bool = True,
        mask: str = "sigmoid",
    ) -> None:
        super().__init__()
        self.speakers = speakers
        self.filters = filters
        self.mask = mask
        self.encoder = nn.Conv1d(1, filters, window, stride=window // 2, bias=False)
        self.norm = NORMS[norm](filters)
        self.bottleneck = nn.Conv1d(filters, bottleneck, 1)
        self.blocks = nn.ModuleList(
            Block(bottleneck, hidden, skip, kernel_size, 2**block, norm, causal)
            for _ in range(repeats)
            for block in range(blocks)
        )
        self.prelu = nn.PReLU()
        self.to_masks = nn.Conv1d(skip, speakers * filters, 1)
        self.decoder = nn.ConvTranspose1d(filters, 1, window, stride=window // 2, bias=False)

    def forward(self, mixture: Tensor) -> Tensor:
        batch = mixture.shape[0]
        encoded = F.relu(self.encoder(mixture))
        x = self.bottleneck(self.norm(encoded))
        skips = 0.0
        for block in self.blocks:
            x, skip = block(x)
            skips = skips + skip
        masks = self.to_masks(self.prelu(skips)).view(batch, self.speakers, self.filters, -1)
        masks = torch.softmax(masks, dim=1) if self.mask == "softmax" else torch.sigmoid(masks)
        masked = encoded.unsqueeze(1) * masks
        sources = self.decoder(masked.view(batch * self.speakers, self.filters, -1))
        return sources.view(batch, self.speakers, -1)
