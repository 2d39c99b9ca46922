"""A denoiser like RNNoise (Valin, "A Hybrid DSP/Deep Learning Approach to Real-Time Full-Band Speech Enhancement",
2018): three GRUs, the later of which see what the earlier ones gave."""

import torch
from torch import Tensor, nn


class RNNoise(nn.Module):
    """Features of frames [B, T, features] to gains of bands and a probability of speech: [B, T, bands + 1]."""

    def __init__(
        self, features: int = 42, bands: int = 22, dense: int = 24, vad: int = 24, noise: int = 48, denoise: int = 96
    ) -> None:
        super().__init__()
        self.dense = nn.Linear(features, dense)
        self.vad_gru = nn.GRU(dense, vad, batch_first=True)
        self.vad_output = nn.Linear(vad, 1)
        self.noise_gru = nn.GRU(dense + vad + features, noise, batch_first=True)
        self.denoise_gru = nn.GRU(vad + noise + features, denoise, batch_first=True)
        self.denoise_output = nn.Linear(denoise, bands)

    def forward(self, x: Tensor) -> Tensor:
        dense = torch.tanh(self.dense(x))
        vad, _ = self.vad_gru(dense)
        speech = torch.sigmoid(self.vad_output(vad))
        noise, _ = self.noise_gru(torch.cat([dense, vad, x], 2))
        denoise, _ = self.denoise_gru(torch.cat([vad, noise, x], 2))
        return torch.cat([torch.sigmoid(self.denoise_output(denoise)), speech], 2)
