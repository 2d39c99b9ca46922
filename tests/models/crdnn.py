"""CRDNN as SpeechBrain defines it (Ravanelli et al., "SpeechBrain: A General-Purpose Speech Toolkit", 2021): blocks of
convolutions, pooling over time, LSTMs and dense layers; the recurrence in one direction."""

from typing import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CNNBlock(nn.Module):
    """Two convolutions over time and features, with norms, and half of the features, [B, T, F, C] to
    [B, T, F / 2, D]."""

    def __init__(self, channels: int, out_channels: int, features: int) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.norm_1 = nn.LayerNorm([features, out_channels])
        self.conv_2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.norm_2 = nn.LayerNorm([features, out_channels])
        self.drop = nn.Dropout2d(0.15)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.norm_1(self.conv_1(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)))
        x = F.leaky_relu(self.norm_2(self.conv_2(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)))
        x = F.max_pool2d(x.permute(0, 3, 1, 2), (1, 2)).permute(0, 2, 3, 1)
        return self.drop(x)


class CRDNN(nn.Module):
    """Filterbanks [B, T, F] to [B, T / time_pooling, dnn_neurons]."""

    def __init__(
        self,
        features: int = 40,
        cnn_channels: Sequence[int] = (128, 256),
        time_pooling: int = 4,
        rnn_layers: int = 4,
        rnn_neurons: int = 512,
        dnn_blocks: int = 2,
        dnn_neurons: int = 512,
    ) -> None:
        super().__init__()
        blocks, before = [], 1
        for channels in cnn_channels:
            blocks.append(CNNBlock(before, channels, features))
            before, features = channels, features // 2
        self.cnn = nn.Sequential(*blocks)
        self.time_pooling = time_pooling
        self.rnn = nn.LSTM(before * features, rnn_neurons, rnn_layers, batch_first=True, dropout=0.15)
        dense: list[nn.Module] = []
        before = rnn_neurons
        for _ in range(dnn_blocks):
            dense += [nn.Linear(before, dnn_neurons), nn.LayerNorm(dnn_neurons), nn.LeakyReLU(), nn.Dropout(0.15)]
            before = dnn_neurons
        self.dnn = nn.Sequential(*dense)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cnn(x.unsqueeze(3)).flatten(2)
        x = F.max_pool1d(x.transpose(1, 2), self.time_pooling).transpose(1, 2)
        x, _ = self.rnn(x)
        return self.dnn(torch.tanh(x))
