"""Layers of ours stay whole in captured models, and where they are captured alone."""

import pytest
import torch
from test_recurrences import differs, joined, normal
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer.testing.live_rows import LiveRows


class Recogniser(nn.Module):
    """[B, 2, T], at half the rate; attention of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 4, 4, stride=2, padding=1)
        self.near = pts.SelfAttention1d(nn.MultiheadAttention(4, 2), pts.Context(3, 1, chunk=2), sinks=1)
        layers = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 6, batch_first=True), 2)
        self.encoder = pts.TransformerEncoder1d(layers, [pts.Context(2, 1), pts.Context(0, 3)])
        self.text = pts.CrossAttention1d(nn.MultiheadAttention(4, 1, batch_first=True), torch.randn(5, 4))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.conv(x))
        y = y + self.near(y)
        return torch.cat([self.encoder(y) * torch.sigmoid(self.text(y)), y], 1)


def test_layers_stay_whole() -> None:
    torch.manual_seed(0)
    net, x = Recogniser().double().eval(), normal(2, 2, 61)
    stream = pts.create_stream(net, example=x[:1, :, :40])
    assert {"near", "encoder.0", "encoder.1"} <= {name.split(":")[0] for name in stream.node_names}
    with torch.no_grad():
        assert differs(joined(stream, x, 1, 7, 16), net(x)) < 1e-10
    LiveRows(stream, net, 4, (4, 2)).run(16).compare(2)


@pytest.mark.parametrize("paired", [False, True])
def test_a_linear_recurrence_of_two_inputs(paired: bool) -> None:
    net, a, b = pts.LinearRecurrence(paired=paired), normal(2, 4, 30).sigmoid() - 0.3, normal(2, 4, 30, seed=1)
    stream = pts.create_stream(net, example=(a[:1], b[:1]))
    for each in (stream, torch.jit.script(stream)):
        y = torch.cat([each(a[..., :7], b[..., :7]), each(a[..., 7:], b[..., 7:], final=True)], -1)
        assert differs(y, net(a, b)) < 1e-10
    with pytest.raises(pts.UnsupportedModuleError, match="handler_layout"):
        pts.create_stream(pts.CumulativeLayerNorm1d(4).double(), example=a[0])


class Sums(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y.flip(1)


def test_a_handler_that_has_its_own_module_captured() -> None:
    x = normal(1, 2, 20)
    pts.register_streamer(Sums, lambda net: pts.create_stream(net, example=(x, x)))
    try:
        assert torch.equal(pts.create_stream(Sums())(x, 3 * x), x + 3 * x.flip(1))
    finally:
        del pts.core.registry._factories[Sums]
