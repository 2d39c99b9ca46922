"""Features of sound against SciPy, plain loops and formulas in float64; and as streams."""

import math
from typing import Any, Callable, Dict, Tuple

import numpy as np
import pytest
import scipy.fft
import torch
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer.audio import (
    DCT,
    MFCC,
    PCEN,
    Deltas,
    DynamicRange,
    KaldiFbank,
    Logarithm,
    LogMel,
    Magnitude,
    MelScale,
    MelSpectrogram,
    Spectrogram,
    Standardize,
    hz_to_mel,
    mel_filters,
    mel_to_hz,
)
from torchstreamer.testing import verify_stream


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


Case = Tuple[Callable[[], nn.Module], Tuple[int, int, int], Dict[str, Any]]

positive = {"domain": torch.abs}
small = {"n_fft": 32, "hop_length": 8, "n_mels": 6}

CASES: Dict[str, Case] = {
    "magnitude": (lambda: Magnitude(1.0), (2, 6, 20), {}),
    "energy": (lambda: Magnitude(), (2, 6, 20), {}),
    "root": (lambda: Magnitude(0.5), (2, 6, 20), {"gradients": False}),  # infinite at 0
    "mels": (lambda: MelScale(16, 16000, 5), (2, 18, 10), {}),
    "cosines": (lambda: DCT(6, 4), (2, 12, 10), {}),
    "decibels": (lambda: Logarithm(), (2, 3, 10), positive),
    "log": (lambda: Logarithm("ln", 1e-6, "add"), (2, 3, 10), positive),
    "fixed range": (lambda: DynamicRange(1.0, 0.5), (2, 3, 20), {}),
    "running range": (lambda: DynamicRange(1.0, "running"), (2, 3, 20), {}),
    "standardize": (lambda: Standardize(torch.tensor([1.0, 2.0]), 3.0), (2, 2, 10), {}),
    "deltas": (lambda: Deltas(), (2, 3, 30), {}),
    "pcen": (lambda: PCEN(), (2, 3, 30), positive),
    "trained pcen": (lambda: PCEN(channels=3, initial="zero"), (2, 3, 30), positive),
    "fbank": (lambda: KaldiFbank(1000, 6), (2, 2, 120), {}),
    "fbank, mirrored": (lambda: KaldiFbank(1000, 6, snip_edges=False), (2, 1, 120), {}),
    "fbank, gaps": (lambda: KaldiFbank(1000, 4, 4.0, 10.0, snip_edges=False), (2, 1, 80), {}),
    "fbank, magnitudes": (lambda: KaldiFbank(1000, 6, power=False, log=False, scale=2.0), (2, 1, 80), {}),
    "spectrogram": (lambda: Spectrogram(32, power=1.0), (2, 2, 120), {}),
    "causal spectrogram": (
        lambda: Spectrogram(32, hop_length=8, padding="causal", pad_mode="constant"),
        (2, 1, 120),
        {},
    ),
    "mel spectrogram": (lambda: MelSpectrogram(16000, **small), (2, 2, 120), {}),
    "mfcc": (lambda: MFCC(16000, 4, log_mels=True, **small), (2, 1, 120), {}),
}


def verify(name: str, **options: Any) -> None:
    make, shape, more = CASES[name]
    verify_stream(make().eval(), shape, static=True, **more, **options)


@pytest.mark.parametrize("name", ["energy", "running range", "fbank, mirrored", "mel spectrogram"])
def test_streams_in_double_precision(name):
    verify(name, dtypes=[torch.float64], script=False)


IN_CI = (
    "root",
    "cosines",
    "log",
    "running range",
    "deltas",
    "trained pcen",
    "fbank, gaps",
    "causal spectrogram",
    "mfcc",
)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in IN_CI else pytest.mark.long) for name in CASES]
)
def test_every_stream(name):
    verify(name)


@pytest.mark.long
@pytest.mark.timeout(1800)  # minutes by itself, more on a busy machine
@pytest.mark.parametrize("maximum", [1.5, "running"])
def test_streams_of_whole_front_ends(maximum):
    verify_stream(LogMel.whisper(12, maximum).eval(), (2, 1, 1500), static=True, gradients=False)
    verify_stream(LogMel.nemo(12).eval(), (2, 1, 1500), static=True, gradients=False)


# --------------------------------------------------------------------------- mels


@pytest.mark.parametrize("scale", ["htk", "slaney", "kaldi"])
def test_mels_and_back(scale):
    for hz in (0.0, 30.0, 999.0, 1000.0, 1001.0, 8000.0):
        assert mel_to_hz(hz_to_mel(hz, scale), scale) == pytest.approx(hz, abs=1e-9)


def test_scales_of_the_definitions():
    assert hz_to_mel(1000.0, "slaney") == pytest.approx(15.0)
    assert hz_to_mel(6400.0, "slaney") == pytest.approx(42.0)  # 27 for a factor of 6.4
    assert hz_to_mel(700.0, "htk") == pytest.approx(2595 * math.log10(2))
    assert hz_to_mel(700.0, "kaldi") == pytest.approx(1127 * math.log(2))


@pytest.mark.parametrize("scale", ["htk", "slaney"])
def test_triangles_by_their_definition(scale):
    bins, rate, count, low, high = 129, 8000, 11, 100.0, 3900.0
    table = mel_filters(bins, rate, count, low, high, scale, "slaney").numpy()
    edges = np.linspace(hz_to_mel(low, scale), hz_to_mel(high, scale), count + 2)
    points = [mel_to_hz(edge, scale) for edge in edges]
    for m in range(count):
        left, middle, right = points[m : m + 3]
        for b in range(bins):
            hz = b * rate / 2 / (bins - 1)
            expected = max(0.0, min((hz - left) / (middle - left), (right - hz) / (right - middle)))
            assert table[m, b] == pytest.approx(expected * 2 / (right - left), abs=1e-12)


def test_cosines_are_scipys():
    x = noise(2, 12, 5)
    for norm in ("ortho", None):
        expected = scipy.fft.dct(x.numpy(), axis=1, norm=norm)[:, :7]
        np.testing.assert_allclose(DCT(12, 7, norm).double()(x).numpy(), expected, atol=1e-12)


def test_tables_are_as_exact_as_the_dtype():
    net = MelScale(64, 16000, 8).half().double()
    torch.testing.assert_close(net.filters, mel_filters(33, 16000, 8), rtol=0, atol=0)


def test_channels_have_their_own_mels():
    net, x = MelScale(64, 16000, 8).double(), noise(2, 66, 5).abs()
    y = net(x)
    torch.testing.assert_close(y[:, 8:], net(x[:, 33:]))


# --------------------------------------------------------------------------- front ends


def spectrum(x: Tensor, n_fft: int, hop: int, window: Tensor, mode: str = "reflect") -> Tensor:
    return torch.stft(
        x, n_fft, hop, window.numel(), window=window, center=True, pad_mode=mode, return_complex=True
    ).abs()


@pytest.mark.parametrize("length", [1600, 4000, 4159, 4160, 4161])
def test_whispers_features(length):
    # With the maximum of the recording in place of that of the preset, these are Whisper's own.
    x = noise(2, length)
    energy = spectrum(x, 400, 160, torch.hann_window(400, dtype=torch.float64))[..., :-1] ** 2
    mels = (mel_filters(201, 16000, 80, mel_scale="slaney", norm="slaney") @ energy).clamp(min=1e-10).log10()
    for row in range(2):
        largest = mels[row].max().item()
        expected = (mels[row].clamp(min=largest - 8.0) + 4.0) / 4.0
        got = LogMel.whisper(80, largest).double()(x[row : row + 1])
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)
    running = LogMel.whisper(80, "running").double()(x.unsqueeze(1))
    so_far = mels.amax(1, keepdim=True).cummax(-1)[0]
    torch.testing.assert_close(running, (torch.maximum(mels, so_far - 8.0) + 4.0) / 4.0, rtol=0, atol=1e-10)


@pytest.mark.parametrize("length", [1000, 4000, 4001])
def test_nemos_features(length):
    x = noise(2, length)
    flat = torch.cat([x[:, :1], x[:, 1:] - 0.97 * x[:, :-1]], 1)
    energy = spectrum(flat, 512, 160, torch.hann_window(400, periodic=False, dtype=torch.float64), "constant") ** 2
    mels = mel_filters(257, 16000, 80, mel_scale="slaney", norm="slaney") @ energy[..., : length // 160]
    expected = (mels + 2**-24).log()
    got = LogMel.nemo().double()(x.unsqueeze(1))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-9)


def test_whole_maxima_are_refused_by_name():
    with pytest.raises(ValueError, match="whole_maximum: maximum='whole' came"):
        LogMel.whisper(80, "whole")
    with pytest.raises(ValueError, match="whole_maximum: top_db came"):
        MFCC(16000, top_db=80.0)


def test_cepstra_by_hand():
    x = noise(1, 2, 900)
    mels = MelSpectrogram(16000, n_fft=128, n_mels=10).double()(x)
    db = 10 * torch.log10(mels.clamp(min=1e-10))
    expected = np.concatenate([scipy.fft.dct(part.numpy(), axis=1, norm="ortho")[:, :5] for part in db.chunk(2, 1)], 1)
    got = MFCC(16000, 5, n_fft=128, n_mels=10).double()(x).numpy()
    np.testing.assert_allclose(got, expected, atol=1e-9)


def test_a_part_of_the_stages_is_a_sequence():
    net = MFCC(16000, 4, **small)
    x = noise(1, 1, 100).float()
    assert type(net[:1]) is nn.Sequential
    torch.testing.assert_close(net[:1](x), net[0](x))


# --------------------------------------------------------------------------- over time


@pytest.mark.parametrize("initial", ["first", "zero"])
def test_pcen_by_a_loop(initial):
    x, smooth, gain, bias, power, eps = noise(2, 3, 40).abs(), 0.04, 0.9, 1.5, 0.4, 1e-5
    expected, mean = torch.empty_like(x), x[:, :, 0] if initial == "first" else torch.zeros(2, 3, dtype=x.dtype)
    for t in range(40):
        mean = (1 - smooth) * mean + smooth * x[:, :, t]
        expected[:, :, t] = (x[:, :, t] / (eps + mean) ** gain + bias) ** power - bias**power
    got = PCEN(smooth, gain, bias, power, eps, initial=initial).double()(x)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def test_time_constants_of_pcen():
    # Of librosa: 400 ms at 22050 Hz and a hop of 512.
    assert PCEN.smoothing(0.4, 22050 / 512) == pytest.approx(0.05638943879134889)


@pytest.mark.parametrize("win_length", [3, 5, 9])
def test_deltas_by_a_loop(win_length):
    x, half = noise(2, 3, 12), win_length // 2
    expected = torch.zeros_like(x)
    for t in range(12):
        for n in range(1, half + 1):
            expected[:, :, t] += n * (x[:, :, min(t + n, 11)] - x[:, :, max(t - n, 0)])
    expected /= 2 * sum(n * n for n in range(1, half + 1))
    torch.testing.assert_close(Deltas(win_length).double()(x), expected, rtol=0, atol=1e-12)


def test_deltas_beside_their_features():
    net = pts.Parallel1d(nn.Identity(), Deltas(), nn.Sequential(Deltas(), Deltas()), merge="cat").double()
    x = noise(1, 2, 30)
    stream = pts.create_stream(net)
    y = [stream(chunk) for chunk in x.split(7, -1)] + [stream.flush()]
    torch.testing.assert_close(torch.cat([each for each in y if each is not None], -1), net(x))


# --------------------------------------------------------------------------- what is not a number


@pytest.mark.parametrize("name", ["fbank", "fbank, mirrored", "mel spectrogram", "deltas"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_reaches_frames_that_see_it_and_no_others(name, value):
    make, (_, channels, length), _ = CASES[name]
    net, x = make().double(), noise(1, channels, length)
    at = length // 2
    clean = net(x)
    x[..., at] = value
    whole = net(x)
    touched = ~whole.isfinite().all(1)[0]
    reach = pts.create_stream(net).reach
    for frame in range(whole.size(-1)):
        sees = reach.oldest(frame) <= at <= reach.newest(frame)
        assert bool(touched[frame]) <= sees
        if not touched[frame]:
            torch.testing.assert_close(whole[..., frame], clean[..., frame])
    stream = pts.create_stream(net)
    pieces = [stream(chunk) for chunk in x.split(1, -1)] + [stream.flush()]
    joined = torch.cat([y for y in pieces if y is not None], -1)
    torch.testing.assert_close(joined, whole, equal_nan=True)


# --------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: hz_to_mel(1.0, "bark"), "invalid_mel_scale"),
        (lambda: mel_filters(33, 16000, 8, 0.0, 9000.0), "invalid_mels"),
        (lambda: mel_filters(33, 16000, 8, norm="area"), "invalid_mel_norm"),
        (lambda: mel_filters(33, 16000, 8, slopes="x"), "invalid_slopes"),
        (lambda: mel_filters(33, 16000, 0), "invalid_mels"),
        (lambda: DCT(4, 5), "invalid_coefficients"),
        (lambda: DCT(4, norm="x"), "invalid_norm"),
        (lambda: Logarithm("dB"), "invalid_unit"),
        (lambda: Logarithm(floor=0.0), "invalid_floor"),
        (lambda: Logarithm(guard="max"), "invalid_guard"),
        (lambda: DynamicRange(-1.0, 0.0), "invalid_range"),
        (lambda: DynamicRange(1.0, "mean"), "invalid_maximum"),
        (lambda: Magnitude(0.0), "invalid_power"),
        (lambda: Spectrogram(power=None), "invalid_power"),
        (lambda: Standardize(0.0, 0.0), "invalid_deviation"),
        (lambda: Standardize([0.0, 1.0], [1.0, 1.0, 1.0]), "invalid_deviation"),
        (lambda: Deltas(4), "invalid_win_length"),
        (lambda: PCEN(power=0.0), "invalid_pcen"),
        (lambda: PCEN(smooth=0.0), "invalid_alpha"),
        (lambda: KaldiFbank(window="hann"), "invalid_window"),
        (lambda: KaldiFbank(16000, frame_length=0.025), "invalid_frames"),
        (lambda: KaldiFbank(preemphasis=2.0), "invalid_preemphasis"),
    ],
)
def test_wrong_arguments(make, code):
    with pytest.raises(ValueError, match=f"^{code}: .*came.*expected"):
        make()


@pytest.mark.parametrize(
    ("net", "channels"),
    [(MelScale(64, 16000, 8), 34), (DCT(6), 7), (PCEN(channels=3), 4), (Standardize([0.0, 1.0], 1.0), 3)],
    ids=lambda each: type(each).__name__,
)
def test_other_channels_are_refused(net, channels):
    with pytest.raises(pts.StreamInputError, match=f"invalid_chunk: {channels} channels"):
        pts.create_stream(net)(torch.zeros(1, channels, 3))
