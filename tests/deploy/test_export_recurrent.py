"""Recurrent layers and attention in every format, run in processes of their own: their states are inside the files."""

from pathlib import Path
from typing import Any

import pytest
import torch
from blocks import BLOCKS
from runner_calls import GRAPH, PACKAGE, SCRIPT, compare, cut, fed, normal, whole
from test_export_models import in_a_fresh_process
from torch import Tensor, nn

import torchstreamer as pts

pytestmark = pytest.mark.timeout(1800)  # compilers take a while, more on a busy machine


# Captured models with attention, in all formats.
ATTENTION = [
    f"{name}-{suffix}" for name in ("moshi", "speechbrain", "fastconformer") for suffix in ("script", "package", "onnx")
]


class Detector(nn.Module):
    """[B, C, T]; strided convolutions, a GRU over time, a layer over the bands of every frame in both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 4, 4, stride=2, padding=1)
        self.gru = nn.GRU(4, 3, 2, batch_first=True)
        self.bands = nn.LSTM(2, 2, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.conv(x)).transpose(1, 2)
        rows, n, _ = y.shape
        across = self.bands(y.reshape(rows * n, 2, 2))[0].reshape(rows, n, 8)
        return torch.cat([self.gru(y)[0], across], 2).transpose(1, 2)


def made(name: str) -> Any:
    torch.manual_seed(0)
    if name == "detector":
        net = Detector().eval()
        return net, pts.create_stream(net, example=normal(1, 2, 24)), 2
    if name not in ("gru", "lstm"):
        block = next(block for block in BLOCKS if block.name == name)
        net = block.module(torch.float32)
        return net, block.stream(net), block.shape[1]
    rnn = {"gru": lambda: nn.GRU(3, 4, 2), "lstm": lambda: nn.LSTM(3, 4)}[name]().eval()
    return pts.Recurrent1d(rnn), pts.create_stream(rnn), 3


@pytest.mark.sample("gru-onnx", rest=6, long=("detector-onnx", "lstm-script", *ATTENTION))
@pytest.mark.parametrize("suffix", [SCRIPT, PACKAGE, GRAPH])
@pytest.mark.parametrize("name", ["gru", "lstm", "detector", "moshi", "speechbrain", "fastconformer"])
@torch.no_grad()
def test_recurrent_layers(name: str, suffix: str, tmp_path: Path) -> None:
    net, stream, channels = made(name)
    chunk = 3 * stream.hop
    path = tmp_path / f"model{suffix}"
    pts.export(stream, path, **({} if suffix == ".pt" else {"chunk": chunk}))
    runner = pts.load(path)
    signals = []
    for i, n in enumerate((24, 31, 77 if channels < 5 else 40 * chunk + 5)):
        x = normal(1, channels, n, seed=i)
        y = whole(net, x)
        sizes = cut(n, i, 3 * chunk)
        compare([*fed(runner, x, sizes), runner.flush()], y)
        signals.append((x, sizes, y))
    in_a_fresh_process(path, signals, tmp_path)
