"""Recurrent layers that run over the bands of every sample: what they may begin with.

Samples and rows are one axis there, row after row, ``[B·T, …]``, or sample after sample, ``[T·B, …]``; what meets must
have one order.
"""

from typing import Any, Tuple

import pytest
import torch
from test_recurrences import differs, joined, normal
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer.testing.live_rows import LiveRows

BANDS = 3


class PerSample(nn.Module):
    """[B, 2·bands, T], or with a static input [B, 4]; a layer over the bands of every sample.

    Args:
        rnn: takes 2 channels and gives 3 or, in both directions, 6
        start: how its initial state is made
        by_sample: whether rows stand sample after sample
    """

    def __init__(self, rnn: nn.RNNBase, start: str, by_sample: bool = False) -> None:
        super().__init__()
        self.rnn, self.start, self.by_sample = rnn, start, by_sample
        runs = rnn.num_layers * (2 if rnn.bidirectional else 1)
        self.h, self.c = nn.Parameter(torch.randn(runs, 1, 3)), nn.Parameter(torch.randn(runs, 1, 3))
        self.of_sample, self.of_input = nn.Linear(2, 3), nn.Linear(4, 3)

    def state(self, x: Tensor, given: Any, count: int) -> Any:
        rows, samples = x.shape[0], x.shape[3]
        if self.start == "parameter":
            return torch.tanh(self.h).expand(-1, count, -1)
        if self.start == "two":
            return self.h.repeat(1, count, 1), x.new_zeros(self.h.shape[0], count, 3)
        by_sample = self.by_sample != self.start.endswith("turned")
        if self.start.startswith("signal"):
            mean = self.of_sample(x.mean(2).permute(2, 0, 1) if by_sample else x.mean(2).mT)
            return mean.reshape(1, count, 3)
        given = self.of_input(given).view(rows, 3)
        if by_sample:
            return given.unsqueeze(0).expand(samples, -1, -1).reshape(1, count, 3)
        return given.unsqueeze(1).expand(-1, samples, -1).reshape(1, count, 3)

    def forward(self, x: Tensor, given: Any = None) -> Tensor:
        x = x.unflatten(1, (2, BANDS))
        rows, _, bands, samples = x.shape
        y = x.permute((3, 0, 2, 1) if self.by_sample else (0, 3, 2, 1)).reshape(rows * samples, bands, 2)
        y = self.rnn(y, self.state(x, given, rows * samples))[0]
        y = y.reshape(samples, rows, -1).permute(1, 2, 0) if self.by_sample else y.reshape(rows, samples, -1).mT
        return y


def gru(**keywords: Any) -> nn.RNNBase:
    return nn.GRU(2, 3, batch_first=True, **keywords)


STARTS: Any = {
    "a parameter": lambda: PerSample(gru(bidirectional=True), "parameter"),
    "a parameter, by sample": lambda: PerSample(nn.RNN(2, 3, 2, batch_first=True), "parameter", True),
    "a parameter and zeros": lambda: PerSample(nn.LSTM(2, 3, batch_first=True, bidirectional=True), "two"),
    "the sample": lambda: PerSample(gru(), "signal"),
    "the sample, by sample": lambda: PerSample(gru(), "signal", True),
    "an input": lambda: PerSample(gru(), "input"),
    "an input, by sample": lambda: PerSample(gru(), "input", True),
}


def made(net: nn.Module, channels: int = 2 * BANDS) -> Tuple[Any, Tensor, Tuple[Tensor, ...]]:
    """The stream, a signal, and the static inputs."""
    net.double().eval()
    static = (normal(2, 4, seed=1),) if "input" in getattr(net, "start", "") else ()
    example = normal(2, channels, 20)
    if not static:
        return pts.create_stream(net, example=example), normal(2, channels, 31), ()
    return pts.create_stream(net, example=(example, *static), time_dim=(-1, None)), normal(2, channels, 31), static


@pytest.mark.parametrize("start", list(STARTS))
def test_begins_with(start: str) -> None:
    torch.manual_seed(0)
    net = STARTS[start]()
    stream, x, static = made(net)
    with torch.no_grad():
        for each in (stream, torch.jit.script(stream)) if start in ("a parameter", "an input") else (stream,):
            pieces = [each(x[..., :1], *static), each(x[..., 1:9]), each(x[..., 9:], final=True)]
            y = torch.cat([piece for piece in pieces if piece is not None], -1)
            assert differs(y, net(x, *static)) < 1e-10
    if start == "a parameter":
        LiveRows(stream, net, 2, (3, x.shape[1])).run(12).compare(2)


@pytest.mark.parametrize("start", ["signal, turned", "input, turned"])
def test_rows_in_another_order(start: str) -> None:
    with pytest.raises(pts.UnsupportedModuleError) as caught:
        made(PerSample(gru(), start))
    assert caught.value.code == "initial_state" and "in the order" in str(caught.value)


class Folded(nn.Module):
    """[B, 2, T]; what depends on no signal, where rows and samples are one axis."""

    def __init__(self, which: str) -> None:
        super().__init__()
        self.which, self.gain = which, nn.Parameter(torch.randn(1, 2))

    def forward(self, x: Tensor) -> Tensor:
        rows, channels, samples = x.shape
        count = rows * samples
        y = x.mT.reshape(count, channels)
        if self.which == "gain":
            y = y * self.gain.expand(count, -1) + torch.ones(count, 1, dtype=x.dtype)
        elif self.which == "numbers":
            y = y * torch.arange(count).unsqueeze(1)
        else:
            y = y + x.permute(2, 0, 1).reshape(count, channels)
        return y.view(rows, samples, channels).mT


def test_what_is_the_same_for_all() -> None:
    net = Folded("gain")
    stream, x, _ = made(net, 2)
    assert differs(joined(stream, x, 1, 9), net(x)) < 1e-10


@pytest.mark.parametrize("which", ["numbers", "another order"])
def test_what_counts_rows_and_samples_as_one(which: str) -> None:
    with pytest.raises(pts.UnsupportedModuleError):
        made(Folded(which), 2)
