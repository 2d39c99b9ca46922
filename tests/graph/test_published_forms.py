"""What published models do along the way, each as its authors wrote it: in no way of a stream."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import torchstreamer as pts


class Written(nn.Module):
    """A convolution, and what a function makes of it and of the signal."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.conv = nn.Conv1d(2, 3, 3, padding=1)

    def forward(self, x):
        return self.function(self.conv, x)


def in_segments(conv, x, segment=None):
    """As EnCodec encodes: in one segment, if there is no length of them."""
    length = x.shape[-1]
    segment = length if segment is None else segment
    return torch.cat([conv(x[..., offset : offset + segment]) for offset in range(0, length, segment)], -1)


def shifted(conv, x):
    n, y = x.shape[-1], F.pad(conv(x), (0, 3))
    return sum(y[..., end - n : end] for end in range(n, n + 4))


def filled(conv, x):
    """As DeepFilterNet fills what is empty."""
    re, im = conv(x), conv(x.flip(1))
    y = torch.empty_like(torch.stack([re, im], -1))
    y[..., 0] = re * 2
    y[..., 0] -= im
    y[..., 1] = im * re
    y[..., 1] += re
    return y.sum(-1)


def by_fourier(conv, x):
    """As julius convolves: in blocks that overlap, as strided views, cut to the length and written to in place."""
    x = F.pad(x, (1, 1))
    rows, channels, length = x.shape
    block = min(17, length)
    step = block - 2
    frames = math.ceil((max(length, block) - block) / step) + 1
    x = F.pad(x, (0, (frames - 1) * step + block - length)).contiguous()
    x = x.as_strided([rows, channels, frames, block], [*x.stride()[:2], step, 1])
    weight = torch.fft.rfft(F.pad(conv.weight, (0, block - 3)))
    y = torch.fft.irfft(torch.einsum("bcft,dct->bdft", torch.fft.rfft(x), weight.conj()), block)
    y = y[..., :-2].reshape(rows, 3, -1)[..., ::1][..., : length - 2]
    y += conv.bias[:, None]
    return y


FORMS = {"one segment": in_segments, "a few shifts": shifted, "filled": filled, "by Fourier": by_fourier}


def joined(stream, x, size):
    pieces = [*(stream(chunk) for chunk in x.split(size, -1)), stream.flush()]
    return torch.cat([piece for piece in pieces if piece is not None], -1)


@pytest.mark.parametrize("name", list(FORMS))
def test_form(name):
    net, x = Written(FORMS[name]).double().eval(), torch.randn(1, 2, 40, dtype=torch.float64)
    stream = pts.create_stream(net, example=x)
    assert stream.min_length <= (40 if name == "by Fourier" else 1)  # whose blocks are shorter for short signals
    for n in (n for n in (1, 2, 3, 23, 40) if n >= stream.min_length):
        for size in (1, 7):
            torch.testing.assert_close(joined(stream, x[..., :n], size), net(x[..., :n]), rtol=1e-10, atol=1e-10)


def test_a_loop_over_segments_is_refused():
    net = Written(lambda conv, x: in_segments(conv, x, 8)).eval()
    with pytest.raises(pts.UnsupportedModuleError, match=r"fixed_length: .*it loops over time in Python"):
        pts.create_stream(net, example=torch.randn(1, 2, 40))


class SingleInside(nn.Module):
    """Norms in float32 in a model of float64, as those of transformers; each enlarges the errors before it."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv1d(16, 16, 5, padding=2) for _ in range(6)])

    def forward(self, x):
        for conv in self.convs:
            y = conv(x).float()
            x = x + 3 * (y * torch.rsqrt(y.pow(2).mean(1, keepdim=True) + 1e-6)).to(x.dtype)
        return x


def test_a_model_that_computes_in_a_lower_precision_is_as_exact_as_that():
    net, x = SingleInside().double().eval(), torch.randn(1, 16, 43, dtype=torch.float64)
    stream = pts.create_stream(net, example=x[..., :40])
    torch.testing.assert_close(joined(stream, x, 5), net(x), rtol=1e-5, atol=1e-4)


class Packed(nn.Module):
    """As torchaudio makes deltas: rows and channels are one axis, with a kernel for each."""

    def forward(self, x):
        y = F.pad(x.reshape(1, -1, x.shape[-1]), (2, 2), mode="replicate")
        kernel = torch.arange(-2.0, 3.0, dtype=x.dtype).repeat(y.shape[1], 1, 1)
        return F.conv1d(y, kernel, groups=y.shape[1]).reshape(x.shape)


def test_a_kernel_for_each_row_takes_one_row():
    x = torch.randn(1, 3, 40, dtype=torch.float64)
    stream = pts.create_stream(Packed(), example=x)
    torch.testing.assert_close(joined(stream, x, 7), Packed()(x), rtol=1e-10, atol=1e-10)
    with pytest.raises(pts.StreamInputError):
        stream(torch.cat([x, x]))


class Turning(nn.Module):
    """Positions beside a signal of one row, which has no axis of rows."""

    def forward(self, x):
        y = x[0].reshape(3, 2, -1).transpose(1, 2)
        at = torch.zeros(1, 1).expand(1, 1) + torch.arange(y.shape[1])
        return (y * torch.cos(at.view(1, -1, 1).to(x.dtype))).transpose(1, 2).reshape(1, 6, -1)


def test_positions_beside_one_row():
    x = torch.randn(1, 6, 40, dtype=torch.float64)
    stream = pts.create_stream(Turning(), example=x)
    torch.testing.assert_close(joined(stream, x, 7), Turning()(x), rtol=1e-10, atol=1e-10)
