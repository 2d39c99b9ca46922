"""Fourier transforms as products, in steps that are recorded: against NumPy in float64, and when they are taken."""

from typing import List

import numpy as np
import pytest
import torch

import torchstreamer as pts
from torchstreamer.audio import STFT, KaldiFbank, MelSpectrogram, Spectrogram
from torchstreamer.audio.fourier import rfft_parts
from torchstreamer.core.tracing import tracing
from torchstreamer.deploy.steady import SteadyStep

FRAMES = [(400, 400), (400, 512), (441, 441), (300, 960), (1024, 1024), (19, 19), (5, 7), (2, 2), (1, 1)]


def operations(stream: pts.BaseStream, chunk: int, form: str = "rows") -> List[str]:
    graph = SteadyStep(stream, torch.zeros(1, 1, chunk)).record(form).graph
    return [str(node.target) for node in graph.nodes]


@pytest.mark.parametrize(("m", "n"), FRAMES)
@pytest.mark.parametrize("norm", ["backward", "ortho"])
def test_every_bin(m, n, norm):
    x = torch.randn(2, 1, 3, m, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    expected = np.fft.rfft(x.numpy(), n, norm=norm)
    for dtype, most in ((torch.float64, 2e-14), (torch.float32, 1e-6)):
        with tracing("rows"):
            real, imaginary = rfft_parts(x.to(dtype), n, norm)
        assert real.dtype == imaginary.dtype == dtype
        error = np.abs(torch.complex(real, imaginary).numpy() - expected).max()
        assert error <= most * np.abs(expected).max()


def test_a_frame_that_is_no_number_spoils_no_other():
    x = torch.randn(1, 1, 4, 400)
    x[0, 0, 1, 7], x[0, 0, 2, 8] = torch.nan, torch.inf
    with tracing("rows"):
        real, imaginary = rfft_parts(x, 512)
    for part in (real, imaginary):
        assert part.isfinite().all(3).tolist() == [[[True, False, False, True]]]


@pytest.mark.parametrize(
    "net",
    [
        MelSpectrogram(16000, 512, 400, 160, n_mels=20),
        pytest.param(Spectrogram(64, hop_length=16, power=1.0), marks=pytest.mark.slow),
        pytest.param(KaldiFbank(16000, 20), marks=pytest.mark.slow),
        pytest.param(STFT(64, 16, 40, normalized=True), marks=pytest.mark.slow),
    ],
    ids=["mels", "magnitudes", "fbank", "stft"],
)
def test_steps_of_few_frames(net):
    net, x = net.double(), torch.randn(1, 2, 2400, dtype=torch.float64)
    stream = pts.compile(pts.create_stream(net), chunk=320, channels=2, backend="eager")
    pieces = [stream(chunk) for chunk in x.split(320, 2)] + [stream.flush()]
    torch.testing.assert_close(torch.cat([y for y in pieces if y is not None], 2), net(x))
    named = " ".join(operations(pts.create_stream(net.float()), 320))
    assert "mm" in named
    assert "fft" not in named


def test_torchs_transform_where_it_pays():
    mels = MelSpectrogram(16000, 512, 400, 160, n_mels=20)
    for net, chunk, form in ((mels, 16000, "rows"), (mels, 320, "channels"), (STFT(499), 499 // 4 * 8, "rows")):
        named = operations(pts.create_stream(net), chunk, form)
        assert any("_fft_r2c" in name for name in named)
