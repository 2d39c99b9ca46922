"""Operations along time, in tiny models as users write them: streamed as on the whole."""

import pytest
import torch
import torch.nn.functional as F
from feeding import T, normal, real
from small_models import case, check, param
from torch import nn

# torch says so once a process, which as an error would look like a signal that is too short.


def paddings(m, x):
    y = F.pad(x, (2, 3)) + F.pad(x, (2, 3), value=1.5) + F.pad(x, (2, 3), mode="replicate")
    y = y + F.pad(x, (2, 3), mode="reflect") + m.reflection(x) + m.replication(x) + m.constant(x) + m.zero(x)
    return y, F.pad(x, (-1, 0)), F.pad(x, (0, -2)), F.pad(x, (3, -2)), F.pad(x, (0, 0, 1, 2)), F.pad(x, (1, 0, 0, 1))


def padded_to_whole_frames(m, x):  # as EnCodec's encoder does, where one of the strides is 5
    for conv in (m.by_two, m.by_five):
        x = conv(F.pad(x, (2, -x.shape[-1] % conv.stride[0])))
    return x


def rounded_down_then_up(m, x):  # to whole frames of 3, then of 2: more than torch.export can solve for
    x = m.pool(x)
    x = x[..., : x.shape[-1] - x.shape[-1] % 3]
    x = x.reshape(x.shape[0], 4, x.shape[-1] // 3, 3).transpose(2, 3).reshape(x.shape[0], 12, -1)
    x = F.pad(x, (0, -x.shape[-1] % 2))
    return x.reshape(x.shape[0], 12, x.shape[-1] // 2, 2).amax(-1)


def interpolated(m, x):
    y = F.interpolate(x, scale_factor=2, mode="nearest")
    z = F.interpolate(x, scale_factor=1.5, mode="linear")
    return (
        y, z, F.interpolate(x, scale_factor=2, mode="linear"), F.interpolate(x, scale_factor=0.5),
        F.interpolate(x, scale_factor=3, mode="nearest-exact"), F.interpolate(x, size=2 * x.shape[-1], mode="linear"),
        F.interpolate(x, size=x.shape[2] * 3), F.interpolate(x, size=y.shape[-1], mode="nearest"), m.upsample(x),
        x.repeat_interleave(2, dim=-1),
    )  # fmt: skip


def changed_parts(m, x):
    y = x * 1.0
    later = y.narrow(2, 1, y.shape[2] - 1)
    later.clamp_(-1, 1)
    y = later * 2
    y[:, 0].mul_(3.0)
    turned = y.permute(0, 2, 1)
    later = turned.narrow(1, 1, turned.shape[1] - 1)
    later.clamp_(-1.5, 1.5)
    y = later.transpose(1, 2)
    total = y[:, :1] + y[:, 1:]
    latest = y.narrow(2, 1, y.shape[2] - 1)
    latest.mul_(0.5)
    return total, latest


def interpolated_between_corners(m, x):
    return F.interpolate(x, size=3 * x.shape[-1] - 2, mode="linear", align_corners=True)


def interpolated_like(m, x):
    down = m.down(x)
    return x + F.interpolate(down, size=x.shape[-1], mode="linear", align_corners=False)


def image_scaled(m, x):  # [B, C, F, T]
    return (
        F.interpolate(x, scale_factor=(1, 2), mode="nearest"), F.interpolate(x, scale_factor=2.0, mode="bilinear"),
        F.interpolate(x, scale_factor=(2, 1)), F.pixel_shuffle(x, 2), F.pixel_unshuffle(F.pixel_shuffle(x, 2), 2),
    )  # fmt: skip


def frames(m, x):  # [B, T]
    y = x.unfold(-1, 8, 4) * m.window
    return y.transpose(1, 2), torch.fft.rfft(y).abs().transpose(1, 2), y.square().mean(-1)


def overlap_added(m, x):
    frames = F.unfold(x[:, :, None], (1, 6), stride=(1, 2))
    y = F.fold(frames, (1, (frames.shape[-1] - 1) * 2 + 6), (1, 6), stride=(1, 2))
    return frames, y[:, :, 0]


def overlap_added_padded(m, x):
    return F.fold(x, output_size=(1, x.shape[-1] + 1), kernel_size=(1, 4), padding=(0, 1)).squeeze(2)


def subpixel_up(m, x):
    b, c, t = x.shape
    y = x.reshape(b, c // 2, 2, t).transpose(2, 3).reshape(b, c // 2, 2 * t)
    z = x.view(b, 2, c // 2, t).permute(0, 2, 3, 1).flatten(2)
    return y, z


def subpixel_down(m, x):
    b, c, t = x.shape
    y = x.reshape(b, c, t // 4, 4).transpose(2, 3).reshape(b, 4 * c, t // 4)
    return y, x.unflatten(-1, (t // 4, 4)).mean(-1), x.view(b, c, -1, 4).amax(-1)


def running(m, x):
    mean = torch.cumsum(x, -1) / torch.arange(1, x.shape[-1] + 1, dtype=x.dtype)
    return (
        mean, x.cumsum(2), torch.cumprod(1 + 0.1 * torch.tanh(x), dim=-1), torch.logcumsumexp(x, -1),
        torch.cummax(x, -1).values, x.cummin(2)[0], (x > 0).cumsum(-1), x.float().cumsum(-1),
    )  # fmt: skip


def positions(m, x):
    i = torch.arange(x.shape[-1], dtype=x.dtype)
    t = torch.arange(0, x.size(-1), dtype=torch.float64) * 0.1
    y = x * torch.sin(t) + torch.cos(i)[None, None, :] + (i % 2 == 0)
    return y, torch.where((i % 5 == 0)[None], x[:, 0], x[:, 1]), x + i.view(1, 1, -1) * m.rates[:, None]


def differences(m, x):
    y = torch.diff(x)
    return (
        y,
        x[..., 1:] - x[..., :-1],
        torch.diff(x, n=2, dim=2),
        F.pad(torch.diff(x), (1, 0)),
        x[..., 1:] * x[..., :-1],
    )


def preemphasis(m, x):
    return torch.cat([x[..., :1], x[..., 1:] - 0.97 * x[..., :-1]], dim=-1)


def with_frames(m, x):
    """Constant and learned samples in front and behind."""
    start = m.start.expand(x.shape[0], -1, -1)
    y = torch.cat([start, x], dim=-1)
    z = torch.cat([torch.zeros(x.shape[0], 4, 3, dtype=x.dtype), x, x.new_ones(x.shape[0], 4, 2)], 2)
    return y, z, torch.cat((x, m.start.tanh().repeat(x.size(0), 1, 1)), -1)


def replicated_edges(m, x):
    return torch.cat([x[..., :1].expand(-1, -1, 3), x, x[..., -1:].repeat(1, 1, 2)], dim=-1)


def strided_slices(m, x):
    return (
        x[..., ::2],
        x[..., 1::3],
        x[:, 1::2, 2:-1:2],
        x[..., ::4] + x[..., ::4],
        x[..., 3:],
        x[..., :-3],
        x[..., 2:-2],
    )


def crops(m, x):
    y = m.valid(x)
    d = x.shape[-1] - y.shape[-1]
    return (
        y + x[..., d // 2 : d // 2 + y.shape[-1]],
        y + x[..., : y.shape[-1]],
        y + x[..., -y.shape[-1] :],
        y + x.narrow(2, d, y.shape[-1]),
    )


def crop_behind_stride(m, x):
    y = m.up(m.down(x))
    return x + y[..., : x.shape[-1]]


def pad_to_multiple(m, x):
    y = F.pad(x, (0, (-x.shape[-1]) % 4))
    return m.down(y)


def functional_convs(m, x):
    weight = m.weight / m.weight.norm(dim=(1, 2), keepdim=True) * m.gain
    y = F.conv1d(x, weight, m.bias, padding=1)
    y = y + F.conv1d(x, m.weight, padding="same") + F.conv1d(F.pad(x, (2, 0)), torch.flip(m.weight, [-1]), m.bias.exp())
    return (
        y,
        F.conv1d(x, m.fixed, groups=4, stride=2),
        F.conv_transpose1d(x, m.weight * 2, stride=2, padding=1),
        F.conv1d(x, m.weight, dilation=3, bias=m.bias),
    )


def pools(m, x):
    return (
        F.avg_pool1d(x, 3), F.max_pool1d(x, 3, stride=2, padding=1), F.avg_pool1d(x, 4, 2, ceil_mode=True),
        F.max_pool1d(x, 2, dilation=2), F.lp_pool1d(x, 2.0, 3), m.maximum(x), m.average(x), -F.max_pool1d(-x, 2),
    )  # fmt: skip


def sparse(m, x):
    """Strides longer than the kernel, kernels of one sample."""
    return (
        m.far(x),
        m.one(x),
        m.skipping(x),
        F.conv1d(x, m.weight, stride=5),
        F.max_pool1d(x, 2, stride=5),
        F.conv_transpose1d(x, m.weight, stride=3),
    )


def image_last(m, x):  # [B, C, F, T]
    y = m.conv(x)
    return (
        y, m.transposed(x), F.avg_pool2d(x, (2, 3), stride=(2, 2)),
        F.max_pool2d(x, (1, 3), stride=(1, 1), padding=(0, 1)),
        m.norm(x), F.conv2d(x, m.weight, padding="same"), F.pad(x, (1, 1, 2, 0)), x.mean(2),
        F.pad(x, (2, 0, 1, 1), mode="reflect"), F.max_pool2d(y, 2),
    )  # fmt: skip


def image_first(m, x):  # [B, C, T, F]
    y = m.conv(x)
    return (
        y, m.transposed(x), F.avg_pool2d(x, (3, 2), stride=(2, 2)),
        F.max_pool2d(x, (3, 1), stride=(1, 1), padding=(1, 0)),
        m.norm(x), F.conv2d(x, m.weight, padding="same"), F.pad(x, (2, 0, 1, 1)), x.mean(3), F.max_pool2d(y, 2),
    )  # fmt: skip


IMAGE = {"weight": param(2, 2, 3, 2), "norm": nn.BatchNorm2d(2).double()}


def inferred_beside_empty(m, x):
    # The length of a piece is inferred from the number of its values, divided by sizes that short signals make 0.
    y = x.reshape(x.shape[0], 1, 2, -1).permute(0, 1, 3, 2).reshape(x.shape[0], 1, -1)
    y = y[..., : y.shape[-1] - y.shape[-1] % 4].reshape(y.shape[0], 1, -1, 4).permute(0, 3, 1, 2).flatten(1, 2)[:, ::2]
    y = y.reshape(y.shape[0], 1, 2, -1).permute(0, 1, 3, 2).reshape(y.shape[0], 1, -1)
    return (y.unsqueeze(2) * x[..., : y.shape[-1]].unsqueeze(1)).flatten(1, 2)


STREAMED = {
    "padding": case(
        paddings,
        reflection=nn.ReflectionPad1d((2, 3)),
        replication=nn.ReplicationPad1d((2, 3)),
        constant=nn.ConstantPad1d((2, 3), 0.5),
        zero=nn.ZeroPad1d((2, 3)),
    ),
    "interpolation": case(interpolated, upsample=nn.Upsample(scale_factor=4, mode="linear")),
    "parts changed in place": case(changed_parts),
    "interpolation between corners": case(interpolated_between_corners),
    "interpolation to a size": case(interpolated_like, multiple=2, down=nn.AvgPool1d(2)),
    "interpolation of images": case(image_scaled, real(2, 4, 6, T)),
    "frames": case(frames, real(2, T), window=normal(8)),
    "overlap-add": case(overlap_added),
    "overlap-add, padded": case(overlap_added_padded),
    "subpixels up": case(subpixel_up),
    "subpixels down": case(subpixel_down, multiple=4),
    "running sums": case(running),
    "positions": case(positions, rates=param(4)),
    "differences": case(differences, lengths=(2, 3, 8, 36, 53)),
    "pre-emphasis": case(preemphasis),
    "constant frames": case(with_frames, start=param(1, 4, 2)),
    "repeated edges": case(replicated_edges),
    "strided slices": case(strided_slices),
    "crops": case(crops, valid=nn.Conv1d(4, 4, 6)),
    "crop to the input": case(
        crop_behind_stride, down=nn.Conv1d(4, 4, 4, stride=3, padding=2), up=nn.ConvTranspose1d(4, 4, 5, stride=3)
    ),
    "pad to a multiple": case(pad_to_multiple, down=nn.Conv1d(4, 3, 4, stride=4)),
    "functional convolutions": case(
        functional_convs, weight=param(4, 4, 3), gain=param(4, 1, 1), bias=param(4), fixed=normal(4, 1, 2)
    ),
    "pools": case(pools, maximum=nn.MaxPool1d(3, 1, 1), average=nn.AvgPool1d(3, 2, 1, count_include_pad=False)),
    "stride > kernel": case(
        sparse,
        far=nn.Conv1d(4, 4, 2, stride=7),
        one=nn.Conv1d(4, 4, 1),
        skipping=nn.Conv1d(4, 4, 1, stride=4),
        weight=param(4, 4, 2),
    ),
    "images, time last": case(
        image_last,
        real(2, 2, 6, T),
        conv=nn.Conv2d(2, 4, (3, 3), stride=(2, 2), padding=(1, 1)),
        transposed=nn.ConvTranspose2d(2, 2, (2, 3), stride=(2, 2), padding=(0, 1), output_padding=(0, 1)),
        **IMAGE,
    ),
    "images, time first": case(
        image_first,
        real(2, 2, T, 6),
        conv=nn.Conv2d(2, 4, (3, 3), stride=(2, 2), padding=(1, 1)),
        transposed=nn.ConvTranspose2d(2, 2, (3, 2), stride=(2, 2), padding=(1, 0), output_padding=(1, 0)),
        **IMAGE,
    ),
    "convolution, [B, T, C]": case(
        lambda m, x: m.conv(x.transpose(1, 2)).transpose(1, 2) + x, real(2, T, 4), conv=nn.Conv1d(4, 4, 5, padding=2)
    ),
    "time first, [T, B, C]": case(lambda m, x: m.linear(x).cumsum(0) + x, real(T, 2, 4), linear=nn.Linear(4, 4)),
    "unbatched, [C, T]": case(lambda m, x: m.conv(x) + x, real(4, T), conv=nn.Conv1d(4, 4, 5, padding=2)),
    "unbatched, unsqueezed": case(
        lambda m, x: m.conv(x[None]).squeeze(0) + F.conv1d(x.unsqueeze(0), m.weight, padding=1)[0],
        real(4, T),
        conv=nn.Conv1d(4, 4, 5, padding=2),
        weight=param(4, 4, 3),
    ),
    "one signal, [T]": case(lambda m, x: torch.tanh(x) + F.pad(x, (2, 0))[:-2], real(T)),
    "rows of one signal, [B, T]": case(
        lambda m, x: m.conv(x.unsqueeze(1)).squeeze(1) * x, real(2, T), conv=nn.Conv1d(1, 1, 5, padding=2)
    ),
    "padded to whole frames": case(
        padded_to_whole_frames,
        by_two=nn.Conv1d(4, 4, 4, stride=2),
        by_five=nn.Conv1d(4, 4, 7, stride=5),
    ),
    "rounded down, then up": case(
        rounded_down_then_up, lengths=range(3, 30), pool=nn.MaxPool1d(3, stride=1, padding=1, dilation=2)
    ),
    "sizes inferred beside an empty axis": case(inferred_beside_empty, real(2, 2, T)),
}


@pytest.mark.sample(every=3)
@pytest.mark.parametrize("name", STREAMED)
def test_streamed_as_on_the_whole(name):
    check(STREAMED[name])
