"""Wave-U-Net (Stoller et al., "Wave-U-Net: A Multi-Scale Neural Network for End-to-End Audio Source Separation",
2018)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def crop_like(x: Tensor, reference: Tensor) -> Tensor:
    """The middle of x, as long as the reference."""
    surplus = x.shape[-1] - reference.shape[-1]
    start = surplus // 2
    return x[..., start : start + reference.shape[-1]]


class LearnedUpsampling(nn.Module):
    """Puts between two samples a learned mean of both, by channel: [B, C, N] to [B, C, 2 N - 1]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        share = torch.sigmoid(self.weight)
        between = share * x[..., :-1] + (1 - share) * x[..., 1:]
        pairs = torch.stack([x[..., :-1], between], dim=-1).flatten(-2)
        return torch.cat([pairs, x[..., -1:]], dim=-1)


class WaveUNet(nn.Module):
    """Mixture [B, channels, T] to sources [B, sources, channels, T]; T must be a multiple of 2 ** levels.

    `context`: convolutions do not pad. Instead the input is padded once, by as much as the network takes from the
    multiples of 2 ** levels, and the skip connections are cut to the middle. Or else each convolution pads.
    `learned`: upsampling is learned instead of linear; only with `context`.
    """

    def __init__(
        self,
        channels: int = 1,
        sources: int = 2,
        levels: int = 12,
        filters: int = 24,
        down_kernel: int = 15,
        up_kernel: int = 5,
        context: bool = True,
        learned: bool = False,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.sources = sources
        self.context = context
        widths = [filters * level for level in range(1, levels + 2)]
        down_padding = 0 if context else down_kernel // 2
        up_padding = 0 if context else up_kernel // 2
        self.downs = nn.ModuleList(
            nn.Conv1d(before, after, down_kernel, padding=down_padding)
            for before, after in zip([channels, *widths[:-2]], widths[:-1], strict=True)
        )
        self.bottom = nn.Conv1d(widths[-2], widths[-1], down_kernel, padding=down_padding)
        self.upsamplings = nn.ModuleList()
        self.ups = nn.ModuleList()
        for below, width in zip(widths[:0:-1], widths[-2::-1], strict=True):
            if learned:
                self.upsamplings.append(LearnedUpsampling(below))
            self.ups.append(nn.Conv1d(below + width, width, up_kernel, padding=up_padding))
        self.last = nn.Conv1d(filters + channels, sources * channels, 1)
        self.padding, self.crop = self.margins(levels, down_kernel, up_kernel) if context else ((0, 0), (0, 0))

    @staticmethod
    def margins(levels: int, down_kernel: int, up_kernel: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """What to pad to a multiple of 2 ** levels, and what to cut from the output, so that it is as long."""
        shorter = 1  # the output's and the input's lengths, where the lowest level gives one sample
        longer = down_kernel
        for _ in range(levels):
            shorter = 2 * shorter - 1 - (up_kernel - 1)
            longer = 2 * longer - 1 + (down_kernel - 1)
        step = 2**levels
        frames = math.ceil((step - shorter) / step)
        surplus = frames * step + shorter - step
        missing = frames * step + longer - step
        cut = surplus // 2, surplus - surplus // 2
        left = (longer - shorter) // 2 + cut[0]
        return (left, missing - left), cut

    def forward(self, mixture: Tensor) -> Tensor:
        x = F.pad(mixture, self.padding) if self.context else mixture
        whole = x
        skips = []
        for down in self.downs:
            x = F.leaky_relu(down(x), 0.2)
            skips.append(x)
            x = x[..., ::2]
        x = F.leaky_relu(self.bottom(x), 0.2)
        for level, up in enumerate(self.ups):
            if len(self.upsamplings) > 0:
                x = self.upsamplings[level](x)
            elif self.context:
                x = F.interpolate(x, size=2 * x.shape[-1] - 1, mode="linear", align_corners=True)
            else:
                x = F.interpolate(x, scale_factor=2, mode="linear", align_corners=False)
            x = torch.cat([crop_like(skips.pop(), x), x], dim=1)
            x = F.leaky_relu(up(x), 0.2)
        x = torch.cat([crop_like(whole, x), x], dim=1)
        x = torch.tanh(self.last(x))
        x = x[..., self.crop[0] : x.shape[-1] - self.crop[1]]
        return x.view(x.shape[0], self.sources, self.channels, x.shape[-1])
