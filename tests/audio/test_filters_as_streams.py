"""Filters, fades and meters against every rule of the contract, and in files."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import torchstreamer as pts
from torchstreamer.audio import (
    FIR,
    Fade,
    Gain,
    Level,
    LFilter,
    Loudness,
    Preemphasis,
    RemoveDC,
    SOSFilter,
    biquad,
    butterworth,
)
from torchstreamer.testing import verify_stream

sys.path.insert(0, str(Path(__file__).parents[1] / "deploy"))

from runner_calls import GRAPH, PACKAGE, SCRIPT


def values(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)) / shape[-1] ** 0.5


def sections() -> torch.Tensor:
    return torch.stack([butterworth("lowpass", 100, 20), butterworth("highpass", 100, 5)])


NETS: dict[str, Callable[[], nn.Module]] = {
    "LFilter": lambda: LFilter([0.2, 0.3, 0.1], [2.0, -1.2, 0.5, 0.1]),
    "FIR": lambda: FIR(values(2, 5)),
    "Fade": lambda: Fade(0, 4, "exponential"),
    "SOSFilter": lambda: SOSFilter(torch.cat([butterworth("lowpass", 100, 20, 5), biquad("peaking", 100, 9, 3, 6)])),
    "SOSFilter, each channel": lambda: SOSFilter(sections()),
    "LFilter, trained": lambda: LFilter(nn.Parameter(torch.tensor([0.2, 0.3])), nn.Parameter(torch.tensor([2, 0.3]))),
    "SOSFilter, trained": lambda: SOSFilter(nn.Parameter(sections())),
    "FIR, trained": lambda: FIR(nn.Parameter(values(7))),
    "FIR, one tap": lambda: FIR([2.0]),
    "FIR, transformed": lambda: FIR(values(3000)),
    "Preemphasis": lambda: Preemphasis(initial="first"),
    "RemoveDC": lambda: RemoveDC(100, 5.0),
    "Gain": lambda: Gain(nn.Parameter(torch.tensor([3.0, -3.0]))),
    "Fade, in": lambda: Fade(50),
    "Fade, both": lambda: Fade(5, 3, "half_sine"),
    "Level, peak": lambda: Level("peak", 5, 2),
    "Level, rms": lambda: Level("rms", 3, 4),
    "Loudness": lambda: Loudness(4000, (1, 1.41), 0.01, 0.002),
}


# One of each kind; the others run with the great counts.
SLOW = ("SOSFilter, trained", "FIR, transformed", "Fade, both", "Level, rms")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else pytest.mark.long) for name in NETS]
)
def test_every_rule(name: str) -> None:
    # That the first sample of a fade in is 0 is known before that sample is known to be none of the end.
    single = False if name == "Fade, both" else None
    verify_stream(NETS[name]().eval(), (2, 2, 80), static=True, single=single)


@pytest.mark.parametrize("name", ["LFilter", "FIR", "Fade"])
def test_static_rows(name: str) -> None:
    net, x = NETS[name]().eval(), values(2, 2, 60)
    static = pts.StaticStream(pts.create_stream(net), chunk=20, batch=2, channels=2)
    lengths, pieces = torch.tensor([20, 20]), []
    with torch.no_grad():
        for i in range(3 + static.flush_steps):
            piece = x[..., 20 * i : 20 * i + 20] if i < 3 else torch.zeros(2, 2, 20)
            y, start, stop = static(
                piece, lengths if i < 3 else 0 * lengths, lengths == (20 if i == 0 else -1), lengths == 20 * (i == 2)
            )
            pieces.append(y[..., int(start[0]) : int(stop[0])])
        torch.testing.assert_close(torch.cat(pieces, -1), net(x), rtol=0, atol=1e-6)


@pytest.mark.slow
def test_models_that_hold_filters_are_captured() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.low, self.room, self.fade = NETS["SOSFilter"](), FIR(values(500)), Fade(3, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fade(self.room(self.low(x) * 2 + 1)).abs()

    net, x = Model().eval(), values(1, 2, 300)
    stream = pts.create_stream(net, example=x)
    with torch.no_grad():
        pieces = [stream(piece) for piece in x.split([1, 50, 100, 149], -1)] + [stream.flush()]
        y = torch.cat([piece for piece in pieces if piece is not None], -1)
        torch.testing.assert_close(y, net(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("net", [SOSFilter(butterworth("lowpass", 100, 20)), FIR(values(500))])
def test_modules_export_by_themselves(net: nn.Module) -> None:
    x = values(1, 2, 300)
    torch.testing.assert_close(torch.export.export(net, (x,)).module()(x), net(x))


@pytest.mark.parametrize("suffix", [SCRIPT, PACKAGE, GRAPH])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("FIR, transformed", marks=pytest.mark.long),
        pytest.param("Loudness", marks=pytest.mark.slow),
        pytest.param("SOSFilter, each channel", marks=pytest.mark.long),
        pytest.param("Fade, both", marks=pytest.mark.long),
    ],
)
def test_files(name: str, suffix: str, tmp_path: Path) -> None:
    net, x = NETS[name]().eval(), values(1, 2, 330)
    path = tmp_path / f"filter{suffix}"
    options = {} if suffix == ".pt" else {"chunk": 32, "channels": 2}
    pts.export(pts.create_stream(net), path, **options)
    runner = pts.load(path)
    with torch.no_grad():
        pieces = [runner(piece) for piece in x.split([1, 9, 100, 220], -1)] + [runner.flush()]
        y = torch.cat([piece for piece in pieces if piece is not None], -1)
        torch.testing.assert_close(y, net(x), rtol=1e-5, atol=1e-6)
