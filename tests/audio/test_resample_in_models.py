"""Resampling as a part of models, and in files."""

import pytest
import torch
from resampling import formula, off, stream_in
from torch import nn

import torchstreamer as pts
from torchstreamer.audio import Resample, ResampleStream
from torchstreamer.core.counter import Counter
from torchstreamer.testing import verify_stream


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_equal_rates_copy():
    x = torch.randn(2, 50)
    net, stream = Resample(16000, 16000), ResampleStream(16000, 16000)
    for y in (net(x), stream(x)):
        assert torch.equal(x, y) and y.data_ptr() != x.data_ptr()
    assert (stream.hop, stream.ratio, stream.output_length(3, False)) == (1, (1, 1), 3)


class Denoiser(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.up = Resample(3, 2), Resample(2, 3, lowpass_filter_width=3)
        self.conv = nn.Conv1d(2, 2, 3, padding=1)

    def forward(self, x):
        low = self.down(x)
        return torch.tanh(self.up(low + self.conv(low)))


def test_stands_in_models():
    nets = {
        "sequential": nn.Sequential(
            nn.Conv1d(2, 3, 3, stride=2), Resample(147, 160), nn.Conv1d(3, 2, 5), Resample(2, 1)
        ),
        "parallel": pts.Parallel1d(Resample(3, 2), nn.Sequential(Resample(3, 2, lowpass_filter_width=2), nn.ReLU())),
        "residual": pts.Residual1d(nn.Sequential(Resample(1, 2), nn.Conv1d(2, 2, 1), Resample(2, 1))),
    }
    x = torch.randn(2, 2, 240, dtype=torch.float64)
    with torch.no_grad():
        for name, net in nets.items():
            net = net.double().eval()
            stream = pts.create_stream(net)
            assert stream.output_length(240) == net(x).shape[-1], name
            for size in (1, 37, 240):
                assert off(stream_in(stream, x, size), net(x)) < 1e-12, name


def test_streams_of_one_net_keep_apart():
    """They share its filters, whatever dtype and place each is at."""
    net = Resample(147, 160)
    a, b = pts.create_stream(net), pts.create_stream(net)
    x = torch.randn(2, 1, 400, dtype=torch.float64)
    ys, zs = [], []
    for k in range(0, 400, 20):
        ys.append(a(x[:1, :, k : k + 20]))
        zs.append(b(x[1:, :, max(k - 13, 0) : k + 7].float()))
    assert not any(isinstance(part, Counter) for part in net.modules())
    y = torch.cat([part for part in ys + [a.flush()] if part is not None], -1)
    z = torch.cat([part for part in zs + [b(x[1:, :, 387:].float(), final=True)] if part is not None], -1)
    assert off(y, formula(x[:1], 147, 160)) < 1e-12
    assert off(z, formula(x[1:], 147, 160)) < 1e-6


@pytest.mark.slow
def test_stands_in_captured_models():
    net, x = Denoiser().double().eval(), torch.randn(2, 2, 241, dtype=torch.float64)
    stream = pts.create_stream(net, example=x)
    with torch.no_grad():
        for size in (1, 37, 241):
            assert off(stream_in(stream, x, size), net(x)) < 1e-12


@pytest.mark.parametrize(
    ("source", "target", "settings"),
    [
        pytest.param(3, 2, {}, marks=pytest.mark.slow),
        pytest.param(147, 160, {}, marks=pytest.mark.slow),
        pytest.param(7, 1, {"lowpass_filter_width": 2}, marks=pytest.mark.long),
        pytest.param(1, 2, {"rolloff": 1.0, "lowpass_filter_width": 1}, marks=pytest.mark.long),
        pytest.param(5, 5, {}, marks=pytest.mark.long),
        pytest.param(520, 521, {"lowpass_filter_width": 2}, marks=pytest.mark.long),
    ],
)
def test_verified(source, target, settings):
    verify_stream(Resample(source, target, **settings), (2, 2, 40 if source < 500 else 700), static=True)


@pytest.mark.long
def test_verified_in_models():
    verify_stream(Denoiser(), (2, 2, 60), graph=True, static=True)
    net = nn.Sequential(nn.Conv1d(2, 3, 3, padding=1), Resample(3, 2), nn.ConvTranspose1d(3, 2, 4, stride=2))
    verify_stream(net, (2, 2, 60), static=True)


@pytest.mark.parametrize(
    "form", [pytest.param("pt2", marks=pytest.mark.long), pytest.param("onnx", marks=pytest.mark.slow), "pt"]
)
def test_exported(form, tmp_path):
    if form == "onnx":
        pytest.importorskip("onnxruntime")
    net, x = Resample(147, 160), torch.randn(1, 2, 147 * 8)
    path = tmp_path / f"resampler.{form}"
    pts.export(pts.create_stream(net), path, **({} if form == "pt" else {"chunk": 294, "channels": 2}))
    loaded = pts.load(path)
    assert off(stream_in(loaded, x, 147 * 8), formula(x, 147, 160)) < 1e-6
