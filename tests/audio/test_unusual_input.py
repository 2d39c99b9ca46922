"""Signals of no rows, halves, whole numbers and other input that is easily taken for a signal."""

import copy

import pytest
import torch

import torchstreamer as pts
from torchstreamer.audio import (
    DCT,
    FIR,
    ISTFT,
    MFCC,
    PCEN,
    STFT,
    Deltas,
    DynamicRange,
    Fade,
    Gain,
    KaldiFbank,
    Level,
    LFilter,
    Magnitude,
    MelSpectrogram,
    Preemphasis,
    RemoveDC,
    Resample,
    SOSFilter,
    Spectrogram,
    butterworth,
)

MODULES = {
    "stft": STFT(16, 4),
    "istft": ISTFT(16, 4),
    "spectrogram": Spectrogram(16),
    "mels": MelSpectrogram(8000, 32, n_mels=5),
    "mfcc": MFCC(8000, 4, n_fft=32, n_mels=5),
    "fbank": KaldiFbank(1000, 5),
    "deltas": Deltas(5),
    "range": DynamicRange(3.0, "running"),
    "pcen": PCEN(),
    "filter": LFilter([0.5], [1.0, -0.5]),
    "sections": SOSFilter(butterworth("lowpass", 8000, 300)),
    "fir": FIR([0.5, 0.5]),
    "transformed fir": FIR(torch.ones(900)),
    "pre-emphasis": Preemphasis(),
    "first": Preemphasis(0.5, "first"),
    "dc": RemoveDC(1000),
    "fade": Fade(3, 3),
    "gain": Gain(3.0),
    "level": Level("peak", 3),
    "rows": Resample(3, 4),
    "blocks": Resample(44100, 48001),
    "taps": Resample(7, 7),
}


def streamed(net: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    stream = pts.create_stream(net)
    y = [stream(chunk) for chunk in x.split([9, 1, 0, x.shape[-1] - 10], -1)] + [stream.flush()]
    return torch.cat([each for each in y if each is not None], -1)


def shape(name: str, rows: int) -> tuple[int, int, int]:
    return rows, 18 if name == "istft" else 2, 2000


@pytest.mark.parametrize("name", MODULES)
def test_a_batch_of_no_rows_gives_no_rows(name: str) -> None:
    one, none = torch.zeros(shape(name, 1)), torch.zeros(shape(name, 0))
    net = MODULES[name]
    expected = (0, *net(one).shape[1:])
    assert net(none).shape == expected
    assert streamed(net, none).shape == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["stft", "istft", "spectrogram", "mels", "fbank"])
def test_spectra_of_halves_are_computed_in_single_precision(name: str, dtype: torch.dtype) -> None:
    net, half = MODULES[name], copy.deepcopy(MODULES[name]).to(dtype)
    x = torch.randn(shape(name, 1)).to(dtype)
    y = half(x)
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), net(x.float()), rtol=0.05, atol=0.1)
    torch.testing.assert_close(streamed(half, x), y)


def test_complex_spectra_of_halves_are_single() -> None:
    x = torch.randn(1, 1, 100).half()
    net = STFT(16, 4, return_complex=True).half()
    assert net(x).dtype == torch.complex64
    torch.testing.assert_close(streamed(net, x), net(x))


@pytest.mark.parametrize("name", [each for each in MODULES if each not in ("istft", "pcen")])
def test_whole_numbers_are_refused_and_not_cut_off(name: str) -> None:
    x = torch.ones(shape(name, 1), dtype=torch.int16)
    net = MODULES[name]
    with pytest.raises(pts.StreamInputError, match="invalid_chunk"):
        net(x)
    stream = pts.create_stream(net)
    with pytest.raises(pts.StreamInputError, match="invalid_chunk"):
        stream(x)
    torch.testing.assert_close(stream(x.float(), final=True), net(x.float()))  # nothing was written


@pytest.mark.parametrize(
    ("net", "x"),
    [
        (STFT(16, 4), torch.zeros(100)),
        (MelSpectrogram(8000, 32, n_mels=5), torch.zeros(100)),
        (KaldiFbank(1000, 5), torch.zeros(100)),
        (FIR([1.0]), torch.zeros(100)),
        (LFilter([1.0], [1.0]), torch.zeros(100)),
        (FIR([1.0]), torch.zeros(1, 100, dtype=torch.complex64)),
        (Level("rms", 300), torch.zeros(1, 100)),
        (Magnitude(), torch.zeros(3, 10)),
        (Magnitude(), torch.zeros(4, 10, dtype=torch.complex64)),
        (DCT(4), torch.zeros(5, 10)),
        (ISTFT(16, 4), torch.zeros(18, 0)),
        (ISTFT(16, 4, padding=(100, 0)), torch.zeros(18, 1)),
        (ISTFT(16, 4), torch.zeros(9, 5, dtype=torch.complex64)),
        (ISTFT(16, 4, complex_input=True), torch.zeros(9, 5)),
    ],
)
def test_what_is_no_signal_is_refused_by_name(net: torch.nn.Module, x: torch.Tensor) -> None:
    with pytest.raises(pts.StreamInputError, match="invalid_chunk"):
        net(x)


@pytest.mark.parametrize(
    "net",
    [Fade(30, 9, "half_sine"), Resample(3, 4), Resample(300, 301), Deltas(5), STFT(16, 4, window=torch.rand(16) + 0.1)],
)
def test_tables_come_back_from_the_meta_device(net: torch.nn.Module) -> None:
    x = torch.randn(1, 1, 100)
    expected = net(x)
    net = copy.deepcopy(net).to("meta")
    net._apply(lambda x: torch.full_like(x, 7, device="cpu"))  # as to_empty(), whose memory may hold anything
    torch.testing.assert_close(net(x), expected)
    torch.testing.assert_close(streamed(net, x), expected)


def test_a_chunk_of_another_dtype_is_refused_on_the_meta_device() -> None:
    stream = pts.create_stream(torch.nn.Conv1d(1, 1, 3, device="meta", dtype=torch.float64))
    with pytest.raises(pts.StreamInputError, match="invalid_chunk"):
        stream(torch.zeros(1, 1, 9, device="meta"))


def test_complex_taps_are_refused() -> None:
    with pytest.raises(ValueError, match="invalid_taps"):
        FIR(torch.ones(2, dtype=torch.complex64))


@pytest.mark.parametrize("name", ["fade", "rows"])
def test_a_module_with_tables_scripts_by_itself(name: str) -> None:
    x = torch.randn(shape(name, 1))
    torch.testing.assert_close(torch.jit.script(MODULES[name])(x), MODULES[name](x))
