"""MelGAN's generator (Kumar et al., "MelGAN: Generative Adversarial Networks for Conditional Waveform Synthesis",
2019)."""

from typing import Sequence

from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


class ResidualStack(nn.Module):
    """A dilated convolution on the mirrored signal, and a 1x1 shortcut: [B, C, T] to [B, C, T]."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.LeakyReLU(0.2),
            nn.ReflectionPad1d(dilation),
            weight_norm(nn.Conv1d(channels, channels, 3, dilation=dilation)),
            nn.LeakyReLU(0.2),
            weight_norm(nn.Conv1d(channels, channels, 1)),
        )
        self.shortcut = weight_norm(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.block(x)


class MelGAN(nn.Module):
    """Mel spectrogram [B, mels, N] to samples [B, 1, N * hop]; hop is the product of the rates."""

    def __init__(
        self,
        mels: int = 80,
        channels: int = 512,
        rates: Sequence[int] = (8, 8, 2, 2),
        dilations: Sequence[int] = (1, 3, 9),
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.ReflectionPad1d(3), weight_norm(nn.Conv1d(mels, channels, 7))]
        for rate in rates:
            layers.append(nn.LeakyReLU(0.2))
            up = nn.ConvTranspose1d(
                channels,
                channels // 2,
                2 * rate,
                stride=rate,
                padding=rate // 2 + rate % 2,
                output_padding=rate % 2,
            )
            layers.append(weight_norm(up))
            channels //= 2
            for dilation in dilations:
                layers.append(ResidualStack(channels, dilation))
        layers += [nn.LeakyReLU(0.2), nn.ReflectionPad1d(3), weight_norm(nn.Conv1d(channels, 1, 7)), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, mel: Tensor) -> Tensor:
        return self.model(mel)
