"""What a mask takes and writes back, entry by entry, is a choice; what mixes the entries that it takes is refused."""

from typing import Any, Callable

import pytest
import torch
from test_published_forms import joined
from torch import Tensor, nn

import torchstreamer as pts


class Written(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.conv = nn.Conv1d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.conv(x))


def by_position(y: Tensor) -> Tensor:
    """As nnAudio divides by the sum of windows, where that is not 0."""
    weights = torch.arange(y.shape[-1]) % 3 * 1.0
    mask = weights > 0
    y[..., mask] = y[..., mask] / weights[mask]
    return y


def by_value(y: Tensor) -> Tensor:
    mask = y > 0
    y[mask] = y[mask].sqrt() + 1
    return y


def samples(y: Tensor) -> Tensor:
    y = y.transpose(1, 2).contiguous()
    mask = y[..., 0] > 0
    y[mask] = y[mask] * torch.tensor([1.0, 2.0], dtype=y.dtype)
    return y.transpose(1, 2)


def filled(y: Tensor) -> Tensor:
    y[y > 0] = 0.5
    return y


def centred(y: Tensor) -> Tensor:
    mask = y > 0
    y[mask] = y[mask] - y[mask].mean()
    return y


def summed(y: Tensor) -> Tensor:
    mask = y > 0
    y[mask] = y[mask].cumsum(0)
    return y


def turned(y: Tensor) -> Tensor:
    mask = y > 0
    y[mask] = y[mask].flip(0)
    return y


def of_another(y: Tensor) -> Tensor:
    mask = y > 0
    y[mask] = y[y > y.new_zeros(())] * 2
    return y


@pytest.mark.parametrize("function", [by_position, by_value, samples, filled])
def test_streamed(function: Any) -> None:
    net, x = Written(function).double().eval(), torch.randn(2, 2, 41, dtype=torch.float64, requires_grad=True)
    stream = pts.create_stream(net, example=x[:1, :, :40].detach())
    y = joined(stream, x, 3)
    torch.testing.assert_close(y, net(x), rtol=1e-10, atol=1e-10)
    streamed, whole = (torch.autograd.grad(each.square().sum(), x)[0] for each in (y, net(x)))
    assert torch.isfinite(streamed).all()
    torch.testing.assert_close(streamed, whole, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("function", [centred, summed, turned, of_another])
def test_refused(function: Any) -> None:
    with pytest.raises(pts.UnsupportedModuleError, match="data_dependent"):
        pts.create_stream(Written(function).double().eval(), example=torch.randn(1, 2, 40, dtype=torch.float64))
