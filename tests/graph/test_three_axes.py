"""Models of video, [B, C, T, H, W], and pictures interpolated by cubic polynomials: streamed as on the whole."""

import pytest
import torch.nn.functional as F
from feeding import T, real
from small_models import case, check, param
from torch import nn


class CausalConv3d(nn.Conv3d):  # as in the video autoencoders of Wan and CogVideoX
    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        time, height, width = self.padding
        self.around = (width, width, height, height, 2 * time, 0)
        self.padding = (0, 0, 0)

    def forward(self, x):
        return super().forward(F.pad(x, self.around))


def autoencoder(m, x):
    y = F.silu(F.normalize(m.first(x), dim=1) * 2.0)
    y = m.down(m.second(y) + m.shortcut(x))
    return F.interpolate(y, scale_factor=(2.0, 2.0, 2.0), mode="nearest")


def convolved(m, x):  # time first among three axes
    return (
        m.strided(x), m.transposed(x), F.conv3d(x, m.weight, padding="same"), F.conv3d(x, m.weight[:, :, :1]),
        F.pad(x, (1, 0, 0, 1, 2, 0), mode="replicate"),
    )  # fmt: skip


def pooled(m, x):
    return (
        F.max_pool3d(x, 3, 2, 1, ceil_mode=True), F.avg_pool3d(x, 3, 2, 1, count_include_pad=False),
        F.avg_pool3d(x, (3, 1, 2), (1, 1, 2), divisor_override=5), F.max_pool3d(x, (1, 2, 2)), m.averaged(x),
    )  # fmt: skip


def interpolated(m, x):
    return (
        F.interpolate(x, scale_factor=(1.5, 1, 2)), F.interpolate(x, size=(2 * x.shape[2], 8, 5)),
        F.interpolate(x, scale_factor=2, mode="trilinear"),
        F.interpolate(x, size=(2 * x.shape[2] - 1, 4, 7), mode="trilinear", align_corners=True),
    )  # fmt: skip


def time_last(m, x):  # [B, C, H, W, T]
    return m.conv(x), m.transposed(x), F.max_pool3d(x, (2, 1, 3)), F.interpolate(x, scale_factor=(1, 2, 3))


def cubic(m, x):  # [B, C, F, T]
    return tuple(F.interpolate(x, scale_factor=scales, mode="bicubic") for scales in m.scales)


STREAMED = {
    "a causal autoencoder": case(
        autoencoder,
        real(2, 2, T, 4, 4),
        first=CausalConv3d(2, 3, 3, padding=1),
        second=CausalConv3d(3, 3, 3, padding=1),
        shortcut=CausalConv3d(2, 3, 1),
        down=CausalConv3d(3, 2, 3, stride=2, padding=1),
    ),
    "convolutions": case(
        convolved,
        real(2, 2, T, 3, 4),
        strided=nn.Conv3d(2, 4, 3, stride=(2, 1, 2), padding=1, groups=2),
        transposed=nn.ConvTranspose3d(2, 2, (3, 1, 2), stride=(2, 1, 2), padding=(1, 0, 0), output_padding=(1, 0, 0)),
        weight=param(2, 2, 3, 2, 2),
    ),
    "pools": case(pooled, real(2, 2, T, 4, 5), averaged=nn.AvgPool3d(2)),
    "interpolation": case(interpolated, real(2, 2, T, 4, 5)),
    "time last": case(
        time_last,
        real(2, 2, 3, 4, T),
        conv=nn.Conv3d(2, 2, (2, 2, 3), dilation=(1, 1, 2)),
        transposed=nn.ConvTranspose3d(2, 2, (1, 2, 4), stride=(1, 2, 2)),
    ),
    "cubic interpolation up": case(cubic, real(2, 1, 2, T), length=16, scales=((1, 2),)),
    "cubic interpolation": case(cubic, real(2, 1, 2, T), scales=((2, 1.5), (0.5, 0.5), (1, 0.3), (2, 1))),
}


@pytest.mark.sample("convolutions", "pools", "cubic interpolation up")  # the exporter takes seconds for the others
@pytest.mark.parametrize("name", STREAMED)
def test_streamed_as_on_the_whole(name):
    check(STREAMED[name])
