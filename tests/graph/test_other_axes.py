"""Complex values, memory, frames by positions, and patches with time on either axis: streamed as on the whole."""

import pytest
import torch
import torch.nn.functional as F
from feeding import T, real
from small_models import case, check
from torch import nn

import torchstreamer as pts


def casts(m, x):  # [B, T, F, 2]
    z = torch.view_as_complex(F.pad(x, (0, 0, 0, 0, 2, 1)).contiguous())
    return torch.view_as_real(z * (1 + 2j)), x.contiguous().view(torch.complex128).abs()


def casts_of_time(m, x):
    return x.contiguous().view(torch.complex128).abs(), torch.complex(x, 2 * x).view(torch.float64)


def frames(m, x):
    b, c, t = x.shape
    strided = x.contiguous().as_strided((b, c, 4, (t - 8) // 3 + 1), (c * t, t, 2, 3), 1)
    return strided, x[:, :, 1 + 2 * torch.arange(3) + 3 * torch.arange((t - 7) // 3 + 1)[:, None]]


def samples(m, x):
    t = x.shape[-1]
    every = x[..., torch.arange(0, t, 2)], x.index_select(-1, torch.arange(1, t, 3))
    return *every, x[:, :, torch.arange(t - 2) + 2], x[..., None, torch.arange(t)]


def overlap_added(m, x):
    b, c, t = x.shape
    y = x.new_zeros(b, 3 * (t - 1) + 10)
    y = y.index_add(1, (torch.arange(4)[:, None] + 3 * torch.arange(t)).reshape(-1), x.reshape(b, -1))
    places = (2 * torch.arange(4) + 3 * torch.arange(t)[:, None]).flatten() + 1
    return y, x.new_zeros(b, 3 * (t - 1) + 8).index_add_(1, places, x.transpose(1, 2).flatten(1))


def patches(m, x):  # [B, C, T, F]
    b, c, t, f = x.shape
    y = F.unfold(F.pad(x, (0, 0, 1, 0)), (2, 3), padding=(0, 1)).reshape(b, 6 * c, t, f)
    turned = x.transpose(2, 3)
    z = F.unfold(turned, (3, 2), padding=(1, 0)).reshape(b, 6 * c, f, t - 1)
    return y, z, F.unfold(turned, (3, t)).reshape(b, 3 * c, t, f - 2)


def attention_over_bands(m, x):  # [B, C, T, F]
    b, c, t, f = x.shape
    y = x.permute(0, 2, 3, 1).reshape(b * t, f, c)
    return m.attention(y, y, y, need_weights=False)[0].reshape(b, t, f, c)


def flattened(m, x):
    return torch.tanh(x.permute(0, 2, 1).reshape(-1)).reshape(x.shape[0], -1, x.shape[1])


STREAMED = {
    "casts": case(casts, real(2, T, 3, 2)),
    "casts of time": case(casts_of_time, multiple=2),
    "frames": case(frames, lengths=(8, 9, 20, 36)),
    "samples": case(samples, lengths=(3, 4, 9, 20)),
    "overlap-add": case(overlap_added),
    "patches": case(patches, real(2, 2, T, 5), lengths=(2, 3, 20)),
    "attention": case(attention_over_bands, real(2, 4, T, 5), attention=nn.MultiheadAttention(4, 2, batch_first=True)),
    "flattened": case(flattened),
}


@pytest.mark.sample("casts", "frames", "samples", "overlap-add", "attention")
@pytest.mark.parametrize("name", STREAMED)
def test_streamed_as_on_the_whole(name):
    check(STREAMED[name])


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda m, x: x[:, :, torch.arange(x.shape[2]) ** 2 % 5], "positions that do not move on by a constant"),
        (lambda m, x: x.as_strided((x.shape[0], x.shape[2] // 2), (4 * x.shape[2], 2)), "strided view"),
    ],
)
def test_refused_by_name(function, reason):
    with pytest.raises(pts.UnsupportedModuleError, match=reason):
        pts.create_stream(case(function).model(), example=torch.randn(2, 4, 8, dtype=torch.float64))
