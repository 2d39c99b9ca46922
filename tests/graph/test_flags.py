"""Branches by flags in buffers, which forward does not write: constants of the stream. Others are refused."""

from typing import Any, Callable

import pytest
import torch
from test_published_forms import joined
from torch import Tensor, nn

import torchstreamer as pts


class Flagged(nn.Module):
    def __init__(self, function: Callable[[Any, Tensor], Tensor], value: bool) -> None:
        super().__init__()
        self.function = function
        self.register_buffer("flag", torch.tensor(value))
        self.register_buffer("one", torch.tensor([int(value)]))
        self.register_buffer("count", torch.tensor(int(value)))
        self.conv = nn.Conv1d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def begun(m: Any, x: Tensor) -> Tensor:
    """As a codebook of vector-quantize-pytorch is set up once."""
    if not m.flag:
        m.flag.data.copy_(torch.tensor(True))
        return x
    return m.conv(x)


FORMS = {
    "flag": lambda m, x: m.conv(x) if m.flag else x,
    "not": lambda m, x: x if not m.flag else m.conv(x),
    "inverted": lambda m, x: m.conv(x) if ~m.flag or m.flag.logical_not() else x,
    "item": lambda m, x: m.conv(x) if m.flag.item() else x,
    "all": lambda m, x: m.conv(x) if bool(m.flag.all()) else x,
    "of one entry": lambda m, x: m.conv(x) if m.one else x,
    "compared": lambda m, x: m.conv(x) if m.count > 0 else x,
    "a tensor": lambda m, x: torch.where(m.flag, m.conv(x), x) + x * ~m.flag,
    "begun": begun,
}


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize("name", list(FORMS))
def test_a_flag_is_a_constant(name: str, value: bool) -> None:
    net, x = Flagged(FORMS[name], value).double().eval(), torch.randn(1, 2, 40, dtype=torch.float64)
    stream = pts.create_stream(net, example=x)
    torch.testing.assert_close(joined(stream, x, 7), net(x), rtol=1e-10, atol=1e-10)


def added_later(m: Any, x: Tensor) -> Tensor:
    y = m.conv(x) if m.count > 3 else x
    m.count += 1
    return y


def added_before(m: Any, x: Tensor) -> Tensor:
    m.count += 1
    return m.conv(x) if m.count > 3 else x


def replaced_later(m: Any, x: Tensor) -> Tensor:
    y = m.conv(x) if m.count > 3 else x
    m.count = m.count + 1
    return y


def replaced_before(m: Any, x: Tensor) -> Tensor:
    m.count = m.count + 1
    return m.conv(x) if m.count > 3 else x


def of_the_signal(m: Any, x: Tensor) -> Tensor:
    m.flag = x.sum() > 0
    return m.conv(x) if m.flag else x


def toggled(m: Any, x: Tensor) -> Tensor:
    m.flag = m.flag.logical_not()
    return m.conv(x) if m.flag else x


@pytest.mark.parametrize(
    "function", [added_later, added_before, replaced_later, replaced_before, of_the_signal, toggled]
)
def test_what_forward_writes_is_no_constant(function: Any) -> None:
    net = Flagged(function, True).double().eval()
    net.count += 40  # far from where it matters
    with pytest.raises(pts.UnsupportedModuleError, match="data_dependent|branch_on_length|not_exact"):
        pts.create_stream(net, example=torch.randn(1, 2, 40, dtype=torch.float64))
