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


class Turned(nn.Module):
    """[B, T, 2] and [B, T] to a pair, [B, T - 2, 2] and [B, 1, T - 2]; no export can follow it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 2, 3)

    def forward(self, x: Tensor, gain: Tensor) -> Any:
        y = self.conv(x.mT * gain.unsqueeze(1)) * self.conv.bias.sum()  # type: ignore[union-attr]
        return (y.mT, y[:, :1]) if bool(y.abs().sum() >= 0) else None


class Followed(Turned):
    def forward(self, x: Tensor, gain: Tensor) -> Any:
        y = self.conv(x.mT * gain.unsqueeze(1)) * self.conv.bias.sum()  # type: ignore[union-attr]
        return y.mT, y[:, :1]


class AroundTurned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(2, 2, 2, stride=2)
        self.turned = nn.ModuleList([Turned(), Turned()])

    def forward(self, x: Tensor) -> Any:
        h = self.first(x).mT
        for turned in self.turned:
            h, g = turned(h, h.sum(-1))
        return h, g + self.first(x)[..., 4:]


def test_a_captured_handler_of_several_inputs_and_outputs() -> None:
    def handler(turned: Turned) -> pts.BaseStream:
        twin = pts.replace_modules(turned, {"": lambda old: Followed().double()})
        twin.conv = turned.conv
        return pts.create_stream(twin, example=(normal(1, 20, 2), normal(1, 20)), time_dim=(1, 1))

    pts.register_streamer(Turned, handler)
    model, x = AroundTurned().double(), normal(2, 2, 61)
    stream: Any = pts.create_stream(model, example=x)
    wanted = model(x)
    pieces = [stream(chunk) for chunk in x.split([1, 2, 0, 9, 30, 19], 2)] + [stream.flush()]
    for i, axis in enumerate((1, 2)):
        y = torch.cat([piece[i] for piece in pieces if piece[i] is not None], axis)
        torch.testing.assert_close(y, wanted[i], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(torch.jit.script(stream)(x, final=True)[1], wanted[1])
    step, flag = pts.StaticStream(stream, chunk=4), torch.tensor([True])
    assert step.outputs == (2, 2)
    for k in range(15):
        ys, starts, stops = step(x[:1, :, 4 * k : 4 * k + 4], torch.tensor([4]), flag & (k == 0), ~flag)
    begin = 2 * 14 + int(starts[0]) - step.lag[0]
    torch.testing.assert_close(ys[0][0, starts[0] : stops[0]], wanted[0][0, begin : begin + int(stops[0] - starts[0])])


def test_a_captured_handler_that_cannot_be_a_part() -> None:
    def handler(turned: Turned) -> pts.BaseStream:
        example = normal(1, 20, 2), normal(1, 20)
        return pts.create_stream(Followed().double(), example=example, time_dim=(1, 1), length_multiple=4)

    pts.register_streamer(Turned, handler)
    with pytest.raises(pts.UnsupportedModuleError, match="^handler_layout: Turned at 'turned.0' .*multiples"):
        pts.create_stream(AroundTurned().double(), example=normal(2, 2, 80))
