"""Lengths that models compute with floats and with tensors: folded for every length, or refused."""

import math
import random

import pytest
import torch
import torch.nn.functional as F
import user_code
from sympy import Integer, Max, Min, Symbol
from torch import nn
from torch.utils._sympy.functions import CeilToInt, FloorDiv, IntTrueDiv, Mod, TruncToInt

import torchstreamer as pts
from torchstreamer.graph.periodic import periodic

LENGTHS = {
    "ceil of a tensor": lambda n: torch.ceil(torch.as_tensor(5 * n / 2)).long(),
    "a shape as a tensor": lambda n: (torch.tensor([2, n])[-1] * 5 // 2).item(),
    "int of a product": lambda n: int(n * 2.5),
    "divmod": lambda n: 4 * sum(divmod(n, 2)),
    "down and up": lambda n: user_code.valid_length(n, 2, 8, 4, True, 2),
    "a decimal fraction": lambda n: int(math.ceil(n * 0.2)),
}
UNSURE = {
    "divided and multiplied": lambda n: int((n / 49) * 49),
    "two quotients": lambda n: int(n / 3 + n / 6),
    "a root": lambda n: int(n**0.5) + 1,
}


def written(n):
    """What a tensor is written in place with is its number from then on."""
    size, sizes = torch.tensor(n), torch.tensor([n, 5])
    size.add_(3).mul_(2)
    size -= 4
    sizes[1] = n
    other = torch.tensor(n)
    other.copy_(torch.tensor(3))
    return int(size) - int(sizes[-1]) + int(other)


LENGTHS["written in place"] = written


def written_through_a_view(n):
    size = torch.tensor([n])
    part = size.view(-1)
    part += n
    return int(size[0])


def written_out(n):
    size = torch.tensor(n)
    torch.add(size, n, out=size)
    return int(size)


class Cropped(nn.Module):
    def __init__(self, length):
        super().__init__()
        self.length = length

    def forward(self, x):
        return F.interpolate(x, scale_factor=3)[..., : self.length(x.shape[-1])]


def joined(stream, x, size):
    pieces = [*(stream(chunk) for chunk in x.split(size, -1)), stream.flush()]
    return torch.cat([piece for piece in pieces if piece is not None], -1)


@pytest.mark.parametrize("name", list(LENGTHS))
def test_lengths(name):
    net, x = Cropped(LENGTHS[name]), torch.randn(1, 2, 67, dtype=torch.float64)
    stream = pts.create_stream(net, example=x)
    for n in (1, 2, 40, 67):
        if net(x[..., :n]).shape[-1]:
            for size in (1, 7):
                torch.testing.assert_close(joined(stream, x[..., :n], size), net(x[..., :n]))


@pytest.mark.parametrize("name", list(UNSURE))
def test_unsure_roundings_are_refused(name):
    with pytest.raises(pts.UnsupportedModuleError, match=r"rounded_length: .*test_numbers\.py, line") as caught:
        pts.create_stream(Cropped(UNSURE[name]), example=torch.randn(1, 2, 67))
    assert "whole numbers" in caught.value.remedy


@pytest.mark.parametrize("length", [written_through_a_view, written_out])
def test_numbers_that_are_written_otherwise_are_not_known(length):
    with pytest.raises(pts.UnsupportedModuleError, match="data_dependent|not_exportable"):  # the latter on torch 2.9
        pts.create_stream(Cropped(length), example=torch.randn(1, 2, 67))


class Codec(nn.Module):
    """With the numbers of its layers in buffers, as EnCodec of transformers."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 2, 8, stride=4)
        for name, number in {"kernel": 8, "stride": 4, "total": 4}.items():
            self.register_buffer(name, torch.tensor(number), persistent=False)

    def forward(self, x):
        extra = user_code.extra_padding_of_tensors(x, self.kernel, self.stride, self.total)
        return self.conv(user_code.pad1d(x, (self.total, extra), "reflect"))


def test_numbers_in_buffers():
    net, x = Codec().double(), torch.randn(1, 1, 41, dtype=torch.float64)
    stream = pts.create_stream(net, example=x)
    assert stream.min_length == 1
    with torch.no_grad():
        for n in (*range(1, 12), 41):
            torch.testing.assert_close(joined(stream, x[..., :n], 3), net(x[..., :n]))


def expression(draw, symbol, depth):
    if depth == 0:
        return symbol
    inner, number = expression(draw, symbol, depth - 1), Integer(draw.randint(1, 7))
    other = expression(draw, symbol, draw.randint(0, depth - 1))
    return draw.choice(
        [
            lambda: inner * number - draw.randint(-9, 9),
            lambda: FloorDiv(inner, number),
            lambda: Mod(inner, number) + other,
            lambda: CeilToInt(IntTrueDiv(inner, number)),
            lambda: TruncToInt(IntTrueDiv(inner - 40, number)),
            lambda: Max(inner, other - number),
            lambda: Min(inner, 2 * other + number),
            lambda: inner - other,
        ]
    )()


def test_periodic_functions_are_the_expressions():
    draw, symbol, found = random.Random(5), Symbol("s", integer=True, positive=True), 0
    for _ in range(60):
        whole = expression(draw, symbol, 3)
        form = periodic(whole, "s", {})
        if form is not None:
            found += 1
            for s in (*range(form.start, form.start + 30), 10**6 + 17):
                assert form(s) == whole.subs(symbol, s), (whole, s)
    assert found > 40
