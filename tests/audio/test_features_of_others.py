"""Features of sound against kaldi-native-fbank and torchaudio."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchaudio_reference import torchaudio

import torchstreamer as pts
from torchstreamer.audio import (
    MFCC,
    Deltas,
    KaldiFbank,
    MelSpectrogram,
    Spectrogram,
)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --------------------------------------------------------------------------- Kaldi


@pytest.mark.parametrize("length", [200, 399, 400, 1000, 8079, 8080])
@pytest.mark.parametrize("snip_edges", [True, False])
def test_fbank_is_kaldis(length, snip_edges):
    knf = pytest.importorskip("kaldi_native_fbank")
    options = knf.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.snip_edges = snip_edges
    options.mel_opts.num_bins = 80
    x = noise(1, length) * 3000
    online = knf.OnlineFbank(options)
    online.accept_waveform(16000, x[0].tolist())
    online.input_finished()
    expected = np.array([online.get_frame(i) for i in range(online.num_frames_ready)]).reshape(-1, 80).T
    got = KaldiFbank(16000, 80, snip_edges=snip_edges).double()(x).numpy()
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, atol=2e-4)  # of single precision there, on a logarithm


def test_frames_of_fbank_are_as_early_as_kaldis():
    knf = pytest.importorskip("kaldi_native_fbank")
    online = knf.OnlineFbank(knf.FbankOptions())
    stream = pts.create_stream(KaldiFbank(16000, 23))
    x, frames = noise(1, 1600).float(), 0
    for chunk in x.split(160, -1):
        online.accept_waveform(16000, chunk[0].tolist())
        y = stream(chunk)
        frames += 0 if y is None else y.size(-1)
        assert frames == online.num_frames_ready


def test_a_signal_too_short_to_mirror_is_refused():
    with pytest.raises(pts.StreamInputError, match="a signal of 199 samples came; at least 200 were"):
        KaldiFbank(16000, 80, snip_edges=False)(torch.zeros(1, 199))


# --------------------------------------------------------------------------- torchaudio


@pytest.mark.parametrize("scale", ["htk", "slaney"])
@pytest.mark.parametrize("norm", [None, "slaney"])
def test_mels_are_torchaudios(scale, norm):
    transforms = torchaudio("transforms")
    options: Any = {"n_fft": 256, "hop_length": 64, "win_length": 200, "n_mels": 20, "norm": norm, "mel_scale": scale}
    x = noise(2, 1000)
    expected = transforms.MelSpectrogram(8000, **options).double()(x)
    # Its filters are computed in float32, ours in float64.
    torch.testing.assert_close(MelSpectrogram(8000, **options).double()(x.unsqueeze(1)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("power", [1.0, 2.0, 0.5])
def test_spectrograms_are_torchaudios(power):
    x = noise(2, 700)
    expected = torchaudio("transforms").Spectrogram(128, power=power).double()(x)
    torch.testing.assert_close(Spectrogram(128, power=power).double()(x.unsqueeze(1)), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("log_mels", [True, False])
def test_cepstra_are_torchaudios_but_for_its_limit(log_mels):
    transforms = torchaudio("transforms")
    options: Any = {"n_fft": 256, "n_mels": 20}
    theirs = transforms.MFCC(8000, 13, log_mels=log_mels, melkwargs=options).double()
    theirs.amplitude_to_DB.top_db = None
    x = noise(2, 1000)
    got = MFCC(8000, 13, log_mels=log_mels, **options).double()(x.unsqueeze(1))
    torch.testing.assert_close(got, theirs(x), rtol=1e-4, atol=1e-3)


def test_deltas_are_torchaudios():
    x = noise(2, 3, 20)
    torch.testing.assert_close(Deltas(7).double()(x), torchaudio().compute_deltas(x, 7))


@pytest.mark.parametrize("snip_edges", [True, False])
@pytest.mark.parametrize("window", ["povey", "hamming", "hanning", "blackman", "rectangular"])
def test_fbank_is_torchaudios(window, snip_edges):
    kaldi, x = torchaudio("compliance.kaldi"), noise(1, 4000) * 3000
    options = {"window_type": window, "num_mel_bins": 23, "sample_frequency": 8000.0, "snip_edges": snip_edges}
    expected = kaldi.fbank(x, dither=0.0, **options).T
    got = KaldiFbank(8000, 23, window=window, snip_edges=snip_edges).double()(x)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)
