"""Deep Speech 2's convolutions (Amodei et al., "Deep Speech 2: End-to-End Speech Recognition in English and Mandarin",
2016). Without its recurrent layers: the convolutions' frames go to the lookahead and to the linear layer."""

from typing import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class Lookahead(nn.Module):
    """The paper's row convolution, a weighted sum of a frame and the next `context` ones: [B, T, C] to [B, T, C]."""

    def __init__(self, features: int, context: int) -> None:
        super().__init__()
        self.context = context
        self.conv = nn.Conv1d(features, features, context + 1, groups=features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        x = F.pad(x, pad=(0, self.context), value=0)
        return self.conv(x).transpose(1, 2).contiguous()


class DeepSpeech2(nn.Module):
    """Spectrogram [B, 1, F, T] to log probabilities [B, T / stride, classes].

    Kernels and strides are of (frequency, time); the first layer's stride in time is that of the network.
    """

    def __init__(
        self,
        frequencies: int = 161,
        classes: int = 29,
        channels: Sequence[int] = (32, 32, 96),
        kernels: Sequence[tuple[int, int]] = ((41, 11), (21, 11), (21, 11)),
        strides: Sequence[tuple[int, int]] = ((2, 2), (2, 1), (2, 1)),
        lookahead: int = 0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for after, kernel, stride in zip(channels, kernels, strides, strict=True):
            padding = (kernel[0] // 2, kernel[1] // 2)
            layers.append(nn.Conv2d(before, after, kernel, stride=stride, padding=padding))
            layers.append(nn.BatchNorm2d(after))
            layers.append(nn.Hardtanh(0, 20, inplace=True))
            frequencies = (frequencies + 2 * padding[0] - kernel[0]) // stride[0] + 1
            before = after
        self.conv = nn.Sequential(*layers)
        features = before * frequencies
        self.lookahead = (
            nn.Sequential(Lookahead(features, lookahead), nn.Hardtanh(0, 20, inplace=True)) if lookahead else None
        )
        self.norm = nn.LayerNorm(features)
        self.fc = nn.Linear(features, classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        sizes = x.size()
        x = x.view(sizes[0], sizes[1] * sizes[2], sizes[3])
        x = x.transpose(1, 2).contiguous()
        if self.lookahead is not None:
            x = self.lookahead(x)
        x = self.fc(self.norm(x))
        return F.log_softmax(x, dim=-1)
