"""Networks on windows: the stream against windows cut by hand, for networks that need the end of the signal first."""

from typing import Any, List

import pytest
import torch
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer.analysis import receptive_field
from torchstreamer.testing import verify_stream
from torchstreamer.testing.live_rows import LiveRows


class Bidirectional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 2, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x.transpose(1, 2))[0].transpose(1, 2)


def nets() -> Any:
    torch.manual_seed(0)
    nets = {
        "bidirectional": pts.Chunked1d(Bidirectional(), 4, 5, 3),
        "whole softmax": pts.Chunked1d(nn.Softmax(dim=-1), 3, 0, 7),
        "no context": pts.Chunked1d(nn.Softmax(dim=-1), 5, 0),
        "between": nn.Sequential(
            nn.Conv1d(3, 3, 4, stride=2, padding=1), pts.Chunked1d(Bidirectional(), 3, 2, 1), nn.Conv1d(4, 2, 3)
        ),
    }
    return {name: net.double().eval() for name, net in nets.items()}


def by_hand(net: pts.Chunked1d, x: Tensor) -> Tensor:
    chunk, left, right = net.context.chunk, net.context.left, net.context.right
    out: List[Tensor] = []
    for begin in range(0, x.size(2), chunk):
        window = torch.zeros(x.size(0), x.size(1), left + chunk + right, dtype=x.dtype)
        for place, at in enumerate(range(begin - left, begin + chunk + right)):
            if 0 <= at < x.size(2):
                window[:, :, place] = x[:, :, at]
        out.append(net.net(window)[:, :, left : left + chunk])
    return torch.cat(out, 2)[:, :, : x.size(2)]


@pytest.mark.parametrize("name", ["bidirectional", "whole softmax", "no context"])
def test_windows(name):
    net = nets()[name]
    stream = pts.create_stream(net)
    with torch.no_grad():
        for length in (1, 2, 3, 7, 41):
            x = torch.randn(2, 3, length, dtype=torch.float64)
            expected = by_hand(net, x)
            torch.testing.assert_close(net(x), expected)
            for size in (1, 2, 7, 50):
                y = [stream(chunk) for chunk in x.split(size, -1)] + [stream.flush()]
                torch.testing.assert_close(torch.cat([each for each in y if each is not None], -1), expected)


@pytest.mark.parametrize("name", list(nets()))
def test_static_rows_of_any_age(name):
    net = nets()[name]
    stream = pts.create_stream(net)
    LiveRows(stream, net, stream.hop, (5, 3), seed=1, dtype=torch.float64, channels=3).run(50).compare(10)
    LiveRows(stream, net, 2 * stream.hop, (16,), seed=2, dtype=torch.float64, channels=3).run(30).compare(16)


@pytest.mark.sample(rest=4)
@pytest.mark.parametrize("name", list(nets()))
def test_the_whole_contract(name):
    verify_stream(nets()[name], (2, 3, 30), static=True)


def test_fields_and_refusals():
    assert receptive_field(nets()["whole softmax"], torch.zeros(1, 3, 40)).phases == ((0, 9), (1, 8), (2, 7))
    with pytest.raises(pts.UnsupportedModuleError, match="training_mode"):
        pts.create_stream(pts.Chunked1d(nn.Dropout(), 3, 0))
    with pytest.raises(pts.StreamError, match="invalid_output"):
        pts.Chunked1d(nn.Conv1d(3, 3, 3), 3, 2)(torch.zeros(1, 3, 9))
    with pytest.raises(pts.UnsupportedModuleError, match="Chunked1d"):
        pts.create_stream(nn.TransformerEncoderLayer(8, 2))
