"""Wav2Letter (Collobert et al., "Wav2Letter: an End-to-End ConvNet-based Speech Recognition System", 2016)."""

import torch.nn.functional as F
from torch import Tensor, nn


class Wav2Letter(nn.Module):
    """Features [B, features, T], or samples [B, 1, T] where `raw`, to log probabilities [B, letters, T / stride]."""

    def __init__(
        self,
        features: int = 40,
        letters: int = 30,
        width: int = 250,
        wide: int = 2000,
        first_kernel: int = 48,
        middle_kernel: int = 7,
        middle_layers: int = 7,
        last_kernel: int = 32,
        raw: bool = False,
        raw_kernel: int = 250,
        raw_stride: int = 160,
        hard: bool = False,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()

        def layer(channels: int, out_channels: int, kernel: int, stride: int = 1, padding: int = 0) -> list[nn.Module]:
            return [
                nn.Conv1d(channels, out_channels, kernel, stride=stride, padding=padding),
                nn.Hardtanh(0.0, 20.0, inplace=True) if hard else nn.ReLU(inplace=True),
                nn.Dropout(dropout),
            ]

        layers: list[nn.Module] = []
        if raw:
            layers += layer(1, width, raw_kernel, raw_stride, (raw_kernel - raw_stride) // 2)
            features = width
        layers += layer(features, width, first_kernel, 2, (first_kernel - 1) // 2)
        for _ in range(middle_layers):
            layers += layer(width, width, middle_kernel, padding=middle_kernel // 2)
        layers += layer(width, wide, last_kernel, padding=last_kernel // 2)
        layers += layer(wide, wide, 1)
        layers.append(nn.Conv1d(wide, letters, 1))
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return F.log_softmax(self.model(x), dim=1)
