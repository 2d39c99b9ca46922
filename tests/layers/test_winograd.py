"""Convolutions with fewer products, compared with torch's."""

import pytest
import torch
import torch.nn.functional as F

from torchstreamer.layers import winograd as module
from torchstreamer.layers.winograd import WinogradWeight, winograd

DOUBLE = torch.float64


def compute(x, weight, bias, dilation, first=0):
    """The outputs on ``x``, ``[B, C, n]``, as many as are whole pairs, behind ``first`` samples of something else."""
    count = x.size(2) - (weight.size(2) - 1) * dilation
    rows = F.pad(x, (first, 0), value=5.0).transpose(1, 2).contiguous()
    return winograd(rows, first, count - count % (2 * dilation), dilation, WinogradWeight(weight), bias).transpose(1, 2)


@pytest.fixture(params=[False, True], ids=["sums", "halves"])
def halves(request, monkeypatch):
    """Both ways to compute long kernels: as sums of short ones, and with every product large, of halves."""
    monkeypatch.setattr(module, "LARGE", 1 if request.param else 1 << 40)


@pytest.mark.parametrize("kernel", range(2, 20))
@pytest.mark.parametrize("dilation", [1, 2, 5])
@pytest.mark.usefixtures("halves")
def test_equals_the_convolution(kernel, dilation):
    torch.manual_seed(kernel)
    for batch, c, o, tiles, bias in ((1, 4, 6, 1, True), (3, 5, 2, 4, False), (1, 1, 1, 7, True)):
        weight, offset = torch.randn(o, c, kernel, dtype=DOUBLE), torch.randn(o, dtype=DOUBLE) if bias else None
        x = torch.randn(batch, c, 2 * dilation * tiles + (kernel - 1) * dilation, dtype=DOUBLE)
        expected = F.conv1d(x, weight, offset, dilation=dilation)
        y = compute(x, weight, offset, dilation, first=batch)
        assert y.shape == expected.shape
        torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kernel", [2, 3, 5, 7])
@pytest.mark.parametrize("large", [1, 1 << 30])  # products in calls of their own, or in one
def test_in_blocks(kernel, large, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(module, "LARGE", large)
    monkeypatch.setattr(module, "_BLOCK", 100)
    monkeypatch.setattr(module, "_BLOCKS", 4)  # 3 tiles of 11 at a time, and a rest
    weight, offset = torch.randn(6, 4, kernel, dtype=DOUBLE), torch.randn(6, dtype=DOUBLE)
    x = torch.randn(2, 4, 2 * 3 * 11 + (kernel - 1) * 3, dtype=DOUBLE)
    expected = F.conv1d(x, weight, offset, dilation=3)
    torch.testing.assert_close(compute(x, weight, offset, 3), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kernel", [2, 3, 4, 5, 6, 7, 8, 11, 16])
@pytest.mark.usefixtures("halves")
def test_nan_stays_where_a_convolution_has_it(kernel):
    weight = torch.randn(3, 2, kernel)
    for at in range(kernel + 13):
        x = torch.randn(1, 2, 14 + kernel - 1)
        x[:, 1, at] = float("nan")
        assert torch.equal(compute(x, weight, None, 1).isnan(), F.conv1d(x, weight).isnan())


@pytest.mark.parametrize("kernel", [2, 3, 5, 7, 8, 11, 16])
@pytest.mark.usefixtures("halves")
def test_rounding_errors_are_those_of_a_convolution(kernel):
    torch.manual_seed(0)
    weight, x = torch.randn(64, 64, kernel), torch.randn(1, 64, 1000 + kernel - 1)
    exact = F.conv1d(x.double(), weight.double())
    ours = (compute(x, weight, None, 1) - exact).square().mean().sqrt()
    theirs = (F.conv1d(x, weight) - exact).square().mean().sqrt()
    assert ours <= 2.5 * theirs


def test_fewer_products():
    # Per pair of outputs: 4 for 3 taps, 3 for 2 taps.
    for kernel, products in ((2, 3), (3, 4), (4, 6), (5, 7), (7, 10), (11, 15)):
        weight = WinogradWeight(torch.randn(1, 1, kernel))
        assert weight.outer.numel() + weight.third.numel() == products < 2 * kernel


def test_fewer_products_of_halves():
    # Per four outputs: three halves of two outputs each, and the tap of an odd number four times.
    def count(weight):
        if weight.halves:
            return sum(map(count, weight.halves)) + (4 if weight.last is not None else 0)
        return weight.outer.numel() + weight.third.numel()

    for kernel, products in ((6, 12), (7, 16), (8, 18), (11, 25)):
        weight = WinogradWeight(torch.randn(1, 1, kernel))
        assert count(weight) == products < 2 * (weight.outer.numel() + weight.third.numel())
