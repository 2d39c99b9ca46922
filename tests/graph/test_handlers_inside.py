"""Handlers of modules inside a captured model: that have a module captured themselves, or read numbers of weights."""

from typing import Any, Iterator, Optional

import pytest
import torch
from feeding import normal
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer.core import registry


class Loud(nn.Module):
    """What it computes no export can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 2, 3, stride=2)
        self.register_buffer("gain", torch.tensor(3.0))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y * self.gain if bool(y.abs().sum() >= 0) else y


class Around(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.loud = Loud()
        self.out = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.loud(self.loud(x.transpose(1, 2))).transpose(1, 2))


class Plain(nn.Module):
    def __init__(self, conv: nn.Module, gain: float) -> None:
        super().__init__()
        self.conv, self.gain = conv, gain

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * self.gain


@pytest.fixture(autouse=True)
def unregistered() -> Iterator[None]:
    kept = dict(registry._factories)
    yield
    registry._factories.clear()
    registry._factories.update(kept)


def check(handler: Any) -> None:
    pts.register_streamer(Loud, handler)
    model, x = Around().double(), normal(2, 61, 2)
    stream = pts.create_stream(model, example=x, time_dim=1)
    pieces = [stream(chunk) for chunk in x.split(7, 1)] + [stream.flush()]
    y = torch.cat([piece for piece in pieces if piece is not None], 1)
    torch.testing.assert_close(y, model(x), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(torch.jit.script(stream)(x, final=True), y)


def test_a_factory_that_captures_and_reads_a_buffer() -> None:
    def handler(loud: Loud) -> pts.BaseStream:
        example = loud.conv.weight.new_zeros([1, 2, 30])
        return pts.create_stream(Plain(loud.conv, loud.gain.item()), example=example)

    check(handler)


def test_a_factory_that_fails() -> None:
    def handler(loud: Loud) -> pts.BaseStream:
        raise KeyError("no such gain")

    pts.register_streamer(Loud, handler)
    with pytest.raises(pts.UnsupportedModuleError, match="^handler_fails: Loud at 'loud' .*KeyError.*no such gain"):
        pts.create_stream(Around(), example=torch.randn(1, 61, 2), time_dim=1)


def test_a_handler_that_is_not_called_says_nothing() -> None:
    class Unused(Around):
        def forward(self, x: Tensor, other: Optional[Tensor] = None) -> Tensor:
            return self.out(x)

    pts.register_streamer(Loud, lambda loud: 1 / 0)
    assert pts.is_streamable(Unused(), example=torch.randn(1, 61, 2), time_dim=1)
