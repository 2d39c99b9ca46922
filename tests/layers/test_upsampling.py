"""Upsampling against the exact formula in rational numbers, also where torch's own float32 indices go astray."""

from fractions import Fraction
from math import floor

import pytest
import torch
from torch import nn

import torchstreamer as pts


def formula(x, scale, mode):
    """The definition, output by output: positions as fractions, values in float64."""
    n, outputs = x.shape[-1], []
    for i in range(floor(n * scale)):
        if mode == "nearest":
            outputs.append(x[..., floor(Fraction(i) / scale)])
        elif mode == "nearest-exact":
            outputs.append(x[..., floor((i + Fraction(1, 2)) / scale)])
        else:
            position = max((i + Fraction(1, 2)) / scale - Fraction(1, 2), Fraction(0))
            left = floor(position)
            weight = float(position - left)
            outputs.append((1 - weight) * x[..., left] + weight * x[..., min(left + 1, n - 1)])
    return torch.stack(outputs, -1)


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "linear"])
@pytest.mark.parametrize("scale", [Fraction(2), Fraction(441, 480), Fraction(7, 3), Fraction(2, 7), Fraction(3, 1000)])
def test_is_the_formula(mode, scale):
    x = torch.randn(2, 700, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    stream = pts.create_stream(nn.Upsample(scale_factor=float(scale), mode=mode))
    assert stream.ratio == (scale.numerator, scale.denominator)
    pieces = [stream(x[:, start : start + 13]) for start in range(0, 700, 13)] + [stream.flush()]
    y = torch.cat([piece for piece in pieces if piece is not None], -1)
    torch.testing.assert_close(y, formula(x, scale, mode), rtol=0, atol=1e-12)


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "linear"])
def test_right_after_a_million_samples(mode):
    """The stream that winds its counters back gives at 10**6 what it gave at 0, as the formula does; torch does not."""
    scale = Fraction(441, 480)
    n = 10**6 // 160 * 160
    x = torch.arange(n, dtype=torch.float64)[None]
    stream = pts.create_stream(nn.Upsample(scale_factor=float(scale), mode=mode))
    pieces = [stream(x[:, start : start + 16000]) for start in range(0, n, 16000)] + [stream.flush()]
    y = torch.cat([piece for piece in pieces if piece is not None], -1)[0]
    i = torch.arange(y.numel())
    assert y.numel() == n * 441 // 480
    if mode == "nearest":
        expected = (i * 480) // 441
    elif mode == "nearest-exact":
        expected = ((2 * i + 1) * 480) // 882
    else:
        expected = ((2 * i + 1) * 480 - 441).double() / 882
        expected = expected.clamp(0, n - 1)  # of a ramp, interpolation is the position itself
    torch.testing.assert_close(y, expected.double(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("scale", [4 / 3, 1.2, 1.05])
def test_very_short_signals_are_copied_as_torch_does(scale):
    net = nn.Upsample(scale_factor=scale, mode="linear")
    stream = pts.create_stream(net)
    for n in range(1, 40):
        x = torch.randn(1, 2, n, dtype=torch.float64)
        pieces = [stream(x[..., i : i + 1]) for i in range(n)] + [stream.flush()]
        y = torch.cat([piece for piece in pieces if piece is not None], -1)
        torch.testing.assert_close(y, net(x), rtol=0, atol=1e-12)


def test_scale_given_as_tuple():
    net = nn.Upsample(scale_factor=(2.0,), mode="linear")
    x = torch.randn(1, 2, 9)
    torch.testing.assert_close(pts.create_stream(net)(x, final=True), net(x))


def test_bytes_are_repeated_as_they_are():
    net = nn.Upsample(scale_factor=3)
    x = torch.randint(0, 255, (1, 2, 9), dtype=torch.uint8)
    y = pts.create_stream(net)(x, final=True)
    assert y.dtype == torch.uint8 and torch.equal(y, net(x))
