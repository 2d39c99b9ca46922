"""What is remembered begins with the first sample, chosen by a mask that is the same for all rows."""

from typing import Any, Callable

import pytest
import torch
from test_published_forms import joined
from torch import Tensor, nn

import torchstreamer as pts


class Begun(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.conv = nn.Conv1d(2, 2, 4, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        before = self.function(x)
        return self.conv(torch.cat([before, x], -1))


def zeros(x: Tensor) -> Tensor:
    return torch.zeros(x.shape[0], 2, 2, dtype=x.dtype)


def ones(x: Tensor) -> Tensor:
    return torch.ones(x.shape[0], dtype=torch.bool)


def replicated(x: Tensor) -> Tensor:
    """As moshi pads."""
    before, runs = zeros(x), ones(x)
    before[:] = torch.where(ones(x).view(-1, 1, 1) & runs.view(-1, 1, 1), x[..., :1], before)
    return before


def constant(x: Tensor) -> Tensor:
    before = zeros(x) + 1
    before[:] = torch.where(ones(x).logical_not().view(-1, 1, 1), x[..., :1], before)
    return before


def by_row(x: Tensor) -> Tensor:
    return torch.where((torch.arange(x.shape[0]) < 2).view(-1, 1, 1), x[..., :1], zeros(x))


def by_the_last(x: Tensor) -> Tensor:
    return torch.where(ones(x).view(-1, 1, 1), x[..., -1:], zeros(x))


def in_part(x: Tensor) -> Tensor:
    before = zeros(x)
    before[:, :1] = torch.where(ones(x).view(-1, 1, 1), x[:, :1, :1], before[:, :1])
    return before


@pytest.mark.parametrize("function", [replicated, constant])
def test_streamed(function: Any) -> None:
    net, x = Begun(function).double().eval(), torch.randn(3, 2, 41, dtype=torch.float64)
    stream = pts.create_stream(net, example=x[:1, :, :40])
    for n in (2, 3, 41):
        torch.testing.assert_close(joined(stream, x[..., :n], 3), net(x[..., :n]), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("function", [by_row, by_the_last, in_part])
def test_refused(function: Any) -> None:
    with pytest.raises(pts.UnsupportedModuleError, match="single_sample|one_behind_other"):
        pts.create_stream(Begun(function).double().eval(), example=torch.randn(1, 2, 40, dtype=torch.float64))
