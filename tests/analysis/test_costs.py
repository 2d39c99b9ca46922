"""Summaries: rates, multiply-adds and state against closed forms."""

import json

import pytest
import torch
from own_handlers import Differences, SteppedDifferences
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import torchstreamer as pts
from torchstreamer.analysis import receptive_field, summary


def net():
    return nn.Sequential(
        nn.Conv1d(2, 8, 5, padding=2),
        nn.ReLU(),
        nn.Conv1d(8, 6, 4, stride=2, groups=2),
        pts.Residual1d(nn.Conv1d(6, 6, 3, padding=1)),
        nn.ConvTranspose1d(6, 3, 4, stride=2),
    ).eval()


def test_layers_of_containers():
    found = summary(pts.create_stream(net()), 32, 16000, calls=3)
    rows = {layer.path: layer for layer in found.layers}
    assert list(rows) == ["0", "1", "2", "3.net", "3.+", "4"]
    assert [rows[path].handler for path in ("0", "2", "3.+", "4")] == [
        "Conv1dStream",
        "Conv1dStream",
        "Merge1d",
        "ConvTranspose1dStream",
    ]
    assert [(rows[p].rate_in, rows[p].rate_out) for p in ("0", "2", "3.+", "4")] == [
        (16000, 16000),
        (16000, 8000),
        (8000, 8000),
        (8000, 16000),
    ]
    assert [(rows[p].field, rows[p].lookahead) for p in ("0", "1", "2", "3.net")] == [(5, 2), (1, 0), (4, 3), (3, 1)]
    assert rows["0"].macs == 16000 * 2 * 8 * 5
    assert rows["2"].macs == 8000 * 8 * 6 * 4 // 2
    assert rows["3.net"].macs == 8000 * 6 * 6 * 3
    assert rows["4"].macs == 8000 * 6 * 3 * 4
    assert rows["1"].macs == rows["3.+"].macs == 0
    assert found.macs == sum(layer.macs for layer in found.layers)
    assert found.field == receptive_field(net()).size
    assert found.real_time_factor == found.seconds_per_chunk * 16000 / 32


@pytest.mark.parametrize("chunk", [1, 3, 40, 200])  # all kernels of the convolutions
def test_multiply_adds_are_those_of_the_network(chunk):
    model, n = net(), 4000
    with FlopCounterMode(display=False) as counter:
        model(torch.randn(1, 2, n))
    offline = counter.get_total_flops() / 2 / n
    assert summary(pts.create_stream(model), chunk, calls=1).macs == pytest.approx(offline, rel=1e-2)
    assert summary(pts.create_stream(model), chunk, calls=1, x=torch.randn(4, 2, chunk)).macs == pytest.approx(
        offline, rel=1e-2
    )


def test_state_is_that_of_the_stream():
    stream = pts.create_stream(net())
    found = summary(stream, 20, calls=1)
    fed = pts.create_stream(net())
    with torch.no_grad():
        for _ in range(5):
            fed(torch.randn(1, 2, 20))
    assert found.state_nbytes == fed.state_nbytes() == sum(layer.state_nbytes for layer in found.layers)
    assert stream.state_nbytes() == 0  # measured on a copy


def test_in_inference_mode():
    with torch.inference_mode():
        found = summary(pts.create_stream(net()), 20, calls=1)
    assert found.macs == summary(pts.create_stream(net()), 20, calls=1).macs


@pytest.mark.parametrize("handler", [Differences, SteppedDifferences])
def test_a_handler_of_ones_own(handler):
    stream = handler()
    fed = stream(torch.ones(1, 2, 9))
    found = summary(stream, 16, x=torch.randn(1, 2, 16), calls=1)
    assert (found.layers[0].field, found.layers[0].lookahead, found.state_nbytes) == (4, 3, 24)
    assert found.layers[0].rate_out == 1
    assert fed.shape[-1] == 6 and stream(torch.ones(1, 2, 2)).shape[-1] == 2  # the stream is as it was


def test_a_graph_inside_a_container():
    class Block(nn.Conv1d):
        def forward(self, x):
            return x + torch.tanh(super().forward(x))

    model = nn.Sequential(nn.Conv1d(4, 4, 2, stride=2), Block(4, 4, 3, padding=1)).eval()
    found = summary(pts.create_stream(model), 8, 8000, calls=1)
    assert [layer.rate_in for layer in found.layers][1:] == [4000] * (len(found.layers) - 1)
    assert found.macs == 4000 * 16 * 2 + 4000 * 16 * 3


def test_as_text_and_as_dict():
    found = summary(pts.create_stream(net()), 32, 16000, calls=3)
    text = str(found).splitlines()
    assert text[0].split() == "layer handler in/s out/s field look-ahead state, B MAC/s time".split()
    assert len(text) == 1 + 1 + 6 + 1 + 1 + 1
    assert text[-2].startswith("total") and text[-1].endswith("of real time")
    again = json.loads(json.dumps(found.as_dict()))
    assert again["layers"][0]["handler"] == "Conv1dStream" and again["chunk"] == 32
    assert "/sample" in str(summary(pts.create_stream(net()), 32, calls=1))


def test_refusals():
    with pytest.raises(ValueError, match="^invalid_chunk"):
        summary(pts.create_stream(net()), 0)
    with pytest.raises(TypeError, match="^invalid_stream: "):
        summary(torch.jit.script(pts.create_stream(nn.ReLU())))
    with pytest.raises(ValueError, match="^no_example"):
        summary(pts.create_stream(nn.ReLU()))
    assert summary(pts.create_stream(nn.ReLU()), x=torch.zeros(1, 3, 1), calls=1).macs == 0


class Attends(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how = how

    def forward(self, x):  # [B, 2, T, 4]
        t = x.shape[2]
        i = torch.arange(t)
        behind = i[:, None] - i
        mask = (behind >= 0) & (behind < 12)
        if self.how == "fused":
            return nn.functional.scaled_dot_product_attention(x, x, x, mask)
        if self.how == "distances":
            by_distance = x @ torch.sin(torch.arange(1 - t, t) * torch.arange(1.0, 5)[:, None])
            scores = x @ x.mT + by_distance.gather(-1, (t - 1 - behind).expand(x.shape[0], 2, -1, -1))
            return scores.masked_fill(~mask, -torch.inf).softmax(-1) @ x
        scores = torch.einsum("bhid,bhjd->bhij", x, x) if self.how == "einsum" else x @ x.mT
        weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
        return torch.einsum("bhij,bhjd->bhid", weights, x) if self.how == "einsum" else weights @ x


@pytest.mark.sample("fused", rest=2)
@pytest.mark.parametrize("how", ["fused", "product", "einsum", "distances"])
def test_multiply_adds_of_attention_are_those_of_the_keys_seen(how):
    stream = pts.create_stream(Attends(how).eval(), example=torch.randn(1, 2, 30, 4), time_dim=2)
    pairs = 12 * 2 * (4 + 4) + (12 * 2 * 4 if how == "distances" else 0)
    for rows, chunk in ((1, 1), (3, 5)):
        assert summary(stream, chunk, calls=1, x=torch.randn(rows, 2, chunk, 4)).macs == pairs
