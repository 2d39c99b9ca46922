"""Demucs, time domain (Defossez et al., "Music Source Separation in the Waveform Domain", 2019), without its LSTM."""

import math

import torch.nn.functional as F
from torch import Tensor, nn


def center_trim(x: Tensor, reference: Tensor) -> Tensor:
    """The middle of x, as long as the reference."""
    delta = x.shape[-1] - reference.shape[-1]
    if delta:
        x = x[..., delta // 2 : -(delta - delta // 2)]
    return x


class Demucs(nn.Module):
    """Mixture [B, audio_channels, T] to sources [B, sources, audio_channels, T]; T must be a multiple of
    stride ** depth.

    Convolutions do not pad; the input is padded once, and skip connections and output are cut to the middle.
    `normalize` divides the mixture by its standard deviation over all time, and multiplies the sources by it.
    """

    def __init__(
        self,
        sources: int = 4,
        audio_channels: int = 2,
        channels: int = 64,
        depth: int = 6,
        growth: float = 2.0,
        kernel_size: int = 8,
        stride: int = 4,
        context: int = 3,
        normalize: bool = False,
    ) -> None:
        super().__init__()
        self.sources = sources
        self.audio_channels = audio_channels
        self.depth = depth
        self.kernel_size = kernel_size
        self.stride = stride
        self.context = context
        self.normalize = normalize
        self.encoder = nn.ModuleList()
        self.decoder = nn.ModuleList()
        incoming = audio_channels
        outgoing = sources * audio_channels
        for index in range(depth):
            self.encoder.append(
                nn.Sequential(
                    nn.Conv1d(incoming, channels, kernel_size, stride),
                    nn.ReLU(),
                    nn.Conv1d(channels, 2 * channels, 1),
                    nn.GLU(dim=1),
                )
            )
            decode = [
                nn.Conv1d(channels, 2 * channels, context),
                nn.GLU(dim=1),
                nn.ConvTranspose1d(channels, outgoing, kernel_size, stride),
            ]
            if index > 0:
                decode.append(nn.ReLU())
            self.decoder.insert(0, nn.Sequential(*decode))
            incoming = outgoing = channels
            channels = int(growth * channels)
        step = stride**depth
        self.padding = self.valid_length(100 * step) - 100 * step

    def valid_length(self, length: int) -> int:
        """The shortest length, not below the one given, for which each layer's windows fit in."""
        for _ in range(self.depth):
            length = math.ceil((length - self.kernel_size) / self.stride) + 1
            length = max(1, length)
            length += self.context - 1
        for _ in range(self.depth):
            length = (length - 1) * self.stride + self.kernel_size
        return length

    def forward(self, mixture: Tensor) -> Tensor:
        length = mixture.shape[-1]
        x = mixture
        if self.normalize:
            std = mixture.mean(dim=1, keepdim=True).std(dim=-1, keepdim=True)
            x = x / (std + 1e-3)
        x = F.pad(x, (self.padding // 2, self.padding - self.padding // 2))
        skips = []
        for encode in self.encoder:
            x = encode(x)
            skips.append(x)
        for decode in self.decoder:
            skip = center_trim(skips.pop(), x)
            x = decode(x + skip)
        start = (x.shape[-1] - length) // 2
        x = x[..., start : start + length]
        if self.normalize:
            x = x * std
        return x.view(x.shape[0], self.sources, self.audio_channels, x.shape[-1])
