"""What is made of the length alone, and what is written into parts along time: streamed as on the whole."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from feeding import T, real
from small_models import case, check, param
from torch import nn

import torchstreamer as pts
from torchstreamer.testing import verify_stream


def envelopes(m, x):  # of overlapping windows, as Vocos and others divide by
    length, window = x.shape[-1], torch.hann_window(9, dtype=x.dtype)[1:]
    size = {"output_size": (1, (length - 1) * 4 + 8), "kernel_size": (1, 8), "stride": (1, 4)}
    y = F.fold(x[:, :1] * window[None, :, None], **size)[:, 0, 0, 2:-2]
    one = F.fold(window.square().expand(1, length, -1).transpose(1, 2), **size).squeeze()[2:-2]
    other = F.conv_transpose1d(torch.ones(1, 1, length, dtype=x.dtype), window[None, None], stride=4)
    return y / one, F.conv_transpose1d(x[:, :1], m.kernel, stride=4) / other


def counts(m, x):
    length = x.shape[-1]
    total = x.cumsum(-1)
    step = torch.arange(2, 2 * (length + 1), 2, dtype=x.dtype).view(1, -1).expand_as(total[:, 0]).unsqueeze(1)
    covered = F.conv1d(F.pad(torch.ones(1, length), (1, 1)), torch.ones(1, 1, 3)).squeeze()
    ramp = F.interpolate(torch.sin(torch.arange(length, dtype=x.dtype))[None, None], scale_factor=2)
    return (
        total / torch.ones(length).cumsum(0), total / step, F.avg_pool1d(x, 3, 1, 1) / covered,
        F.interpolate(x, scale_factor=2) * ramp * torch.ones(2 * length).cumsum(0),
        torch.cat([x, (torch.arange(length) % 3).to(x.dtype).view(1, 1, -1).expand(x.shape[0], 1, -1)], 1),
        total / torch.from_numpy(np.arange(3, 3 * (length + 1), 3)).type(x.type()),
        x * torch.tensor(np.arange(length), dtype=x.dtype), x + torch.as_tensor(np.arange(0.5, length)),
        F.pad(x, (2, 1)) + torch.arange(length + 4).unfold(0, 2, 1).sum(1), x + torch.zeros(length).add(0.5),
    )  # fmt: skip


def parts(m, x):
    y, mask, other = x.clone(), torch.ones_like(x), torch.ones(x.shape[-1])
    y[..., 2:] += 0.5 * x[..., :-2]
    y[:, 0, :-1] -= x[:, 1, 1:]
    y[..., 0] = 0
    y[..., :3] *= 0.5
    y[..., -2:] = 1
    mask[:, 1::2, ::2] = -1
    other[1::3] = -1
    return y, x * mask * other


def interleaved(m, x):
    y, z = x.new_zeros(x.shape[0], 4, 2 * x.shape[-1]), x.new_empty(x.shape[0], 4, 2 * x.shape[-1])
    y[..., ::2] = x
    z[..., ::2], z[..., 1::2] = x, -x
    return F.conv1d(y, m.taps, padding=1), z


def written_frames(m, x):  # [B, T, C]
    y = x.clone()
    y[:, 1:] -= 0.97 * x[:, :-1]
    return y


def mirrored(m, x):
    return torch.cat([x[..., 1:4].flip(-1), x, x[..., -3:-1].flip(-1)], -1)


CASES = [
    case(envelopes, kernel=param(1, 1, 8)),
    case(counts, lengths=[2, 3, 5, 17, 40]),
    case(parts, lengths=[3, 4, 5, 17, 40]),
    case(interleaved, taps=param(2, 4, 3)),
    case(written_frames, real(1, T, 3)),
    case(mirrored, lengths=[4, 5, 17, 40]),
]


@pytest.mark.parametrize("which", CASES, ids=lambda which: which.function.__name__)
def test_streamed_as_on_the_whole(which):
    check(which)


class Shifted(nn.Module):
    def forward(self, x):
        y = x / torch.ones(x.shape[-1]).cumsum(0)
        y[..., 1:] += x[..., :-1]
        y[..., -2:] = 0
        return y


@pytest.mark.slow
def test_rows_of_any_age_count_for_themselves():
    verify_stream(Shifted().eval(), (2, 3, 40), graph=True, static=True)


def test_signals_shorter_than_a_shift():
    class Net(nn.Module):
        def forward(self, x):
            y = x.clone()
            y[..., 3:] = x[..., :-3]
            y[..., :-4] += 1
            return y

    stream = pts.create_stream(Net().eval(), example=torch.randn(1, 2, 40))
    for n in range(1, 8):
        x = torch.randn(2, 2, n)
        assert torch.equal(stream(x, final=True), Net()(x))
