"""WaveNet (van den Oord et al., "WaveNet: A Generative Model for Raw Audio", 2016).

Also the non-causal form of Rethage et al. ("A Wavenet for Speech Denoising", 2018), which pads on both sides.
"""

from typing import Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MelUpsampler(nn.Module):
    """Frames [B, M, N] to samples [B, M, N * hop], by transposed convolutions."""

    def __init__(self, channels: int, rates: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ConvTranspose1d(channels, channels, 2 * rate, stride=rate, padding=rate // 2) for rate in rates
        )

    def forward(self, mel: Tensor) -> Tensor:
        for layer in self.layers:
            mel = F.leaky_relu(layer(mel), 0.4)
        return mel


class GatedLayer(nn.Module):
    """One dilated layer: [B, R, T] to the next layer's input [B, R, T] and to the skip sum [B, S, T]."""

    def __init__(
        self, residual: int, gate: int, skip: int, kernel: int, dilation: int, causal: bool, local: int, speaker: int
    ) -> None:
        super().__init__()
        self.context = (kernel - 1) * dilation
        self.causal = causal
        self.dilated = nn.Conv1d(residual, 2 * gate, kernel, dilation=dilation)
        self.local = nn.Conv1d(local, 2 * gate, 1, bias=False) if local else None
        self.speaker = nn.Linear(speaker, 2 * gate, bias=False) if speaker else None
        self.to_residual = nn.Conv1d(gate, residual, 1)
        self.to_skip = nn.Conv1d(gate, skip, 1)

    def forward(self, x: Tensor, mel: Optional[Tensor], speaker: Optional[Tensor]) -> tuple[Tensor, Tensor]:
        left = self.context if self.causal else self.context // 2
        h = self.dilated(F.pad(x, (left, self.context - left)))
        if self.local is not None:
            h = h + self.local(mel)
        if self.speaker is not None:
            h = h + self.speaker(speaker).unsqueeze(-1)
        content, gate = h.chunk(2, dim=1)
        h = torch.tanh(content) * torch.sigmoid(gate)
        return x + self.to_residual(h), self.to_skip(h)


class WaveNet(nn.Module):
    """Samples [B, in_channels, T] to scores [B, classes, T].

    With `local_channels`, `forward` takes conditions as its second argument: [B, M, T], or frames [B, M, T / hop]
    where `upsample_rates` are given, of which hop is the product. With `speaker_channels` it takes a vector for each
    speaker as its third: [B, G].
    """

    def __init__(
        self,
        in_channels: int = 1,
        classes: int = 256,
        residual_channels: int = 64,
        gate_channels: int = 64,
        skip_channels: int = 256,
        kernel_size: int = 2,
        layers: int = 10,
        stacks: int = 3,
        causal: bool = True,
        local_channels: int = 0,
        upsample_rates: Sequence[int] = (),
        speaker_channels: int = 0,
    ) -> None:
        super().__init__()
        self.causal = causal
        self.kernel_size = kernel_size
        self.first = nn.Conv1d(in_channels, residual_channels, kernel_size)
        self.upsampler = MelUpsampler(local_channels, upsample_rates) if upsample_rates else None
        self.layers = nn.ModuleList(
            GatedLayer(
                residual_channels,
                gate_channels,
                skip_channels,
                kernel_size,
                2**layer,
                causal,
                local_channels,
                speaker_channels,
            )
            for _ in range(stacks)
            for layer in range(layers)
        )
        self.post1 = nn.Conv1d(skip_channels, skip_channels, 1)
        self.post2 = nn.Conv1d(skip_channels, classes, 1)

    def forward(self, x: Tensor, mel: Optional[Tensor] = None, speaker: Optional[Tensor] = None) -> Tensor:
        if self.upsampler is not None:
            mel = self.upsampler(mel)
        context = self.kernel_size - 1
        left = context if self.causal else context // 2
        x = self.first(F.pad(x, (left, context - left)))
        skips = 0
        for layer in self.layers:
            x, skip = layer(x, mel, speaker)
            skips = skips + skip
        y = self.post1(F.relu(skips))
        return self.post2(F.relu(y))
