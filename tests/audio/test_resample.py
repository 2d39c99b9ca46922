"""Resampling against its formula in float64, against torchaudio, and against what torch-streamer published of it."""

import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from resampling import BETA, formula, off, read, stream_in
from torch import nn
from torchaudio_reference import torchaudio

import torchstreamer as pts
from torchstreamer.analysis import latency, receptive_field
from torchstreamer.audio import Resample, ResampleStream, resample

PAIRS = [
    (44100, 48000), (48000, 44100), (44100, 48001), (48001, 44100), (8000, 22050), (22050, 8000), (16000, 8000),
    (8000, 16000), (48000, 16000), (16000, 48000), (44100, 16000), (16000, 44100), (22050, 16000), (11025, 12000),
    (32000, 48000), (96000, 44100), (1000, 999), (44056, 48000), (5, 1), (2, 7), (44100, 44100),
]  # fmt: skip
METHODS = ["sinc_interp_hann", "sinc_interp_kaiser"]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


# --------------------------------------------------------------------------- the formula


@pytest.mark.parametrize(
    ("source", "target", "method"),
    [(*pair, METHODS[0]) for pair in PAIRS]
    + [pytest.param(*pair, METHODS[1], marks=[pytest.mark.slow] if pair in PAIRS[4:] else []) for pair in PAIRS],
)
def test_is_the_formula(source, target, method):
    net = Resample(source, target, method)
    stream = pts.create_stream(net)
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 1e-6)):
        for length in (1, 2, 14, 331):
            x = torch.randn(2, 3, length, dtype=dtype)
            expected = formula(x, source, target, method)
            assert off(net(x), expected) < tolerance
            with torch.no_grad():
                for sizes in [(length,), (length // 3, length - length // 3), (7,), (1,)][: 4 if length < 100 else 3]:
                    assert off(stream_in(stream, x, *sizes), expected) < tolerance


@pytest.mark.parametrize(
    ("source", "target", "width", "rolloff", "beta"),
    [(147, 160, 1, 1.0, 0.0), (2, 1, 1, 1.0, 50.0), (160, 147, 64, 0.9475937167399596, 14.77), (5, 7, 20, 0.01, 900.0)],
)
def test_other_shapes_of_the_filter(source, target, width, rolloff, beta):
    x = torch.randn(1, 1, 200, dtype=torch.float64)
    for method in METHODS[: 1 if beta > 700 else 2]:  # NumPy's Bessel function overflows there
        settings = (method, width, rolloff, beta)
        expected = formula(x, source, target, *settings)
        assert off(resample(x, source, target, *settings), expected) < 1e-11
        assert off(stream_in(ResampleStream(source, target, *settings), x, 33), expected) < 1e-11
    assert bool(torch.isfinite(resample(x, source, target, METHODS[1], width, rolloff, beta)).all())


@pytest.mark.parametrize(("source", "target"), [(44056, 48000), (441, 320), (3, 1)])
def test_long_signals(source, target):
    """Several periods of a long one, several rows: some outputs one by one, and the whole in pieces."""
    x = torch.randn(2, 2, 14_000, dtype=torch.float64)
    net = Resample(source, target)
    with torch.no_grad():
        whole = net(x)
        assert off(stream_in(pts.create_stream(net), x, 4_700), whole) < 1e-12
    common = math.gcd(source, target)
    down, up = source // common, target // common
    for j in (0, 17, 5_000 * target // source, 5_507 * 2 * target // source - 3, whole.shape[-1] - 1):
        place = j * down / up
        for row in (0, 1):
            expected = 0.0
            b = min(down, up) * 0.99
            for m in range(max(int(place) - 200, 0), min(int(place) + 200, 14_000)):
                t = b * (m * up - j * down) / (down * up)
                if abs(t) < 6:
                    expected += float(x[row, 1, m]) * b / down * np.sinc(t) * math.cos(math.pi * t / 12) ** 2
            assert abs(float(whole[row, 1, j]) - expected) < 1e-12


def test_halves_are_computed_in_float32():
    x = torch.randn(1, 2, 500)
    for dtype in (torch.float16, torch.bfloat16):
        small = x.to(dtype)
        for target in (48000, 48001):
            net = Resample(44100, target)
            assert torch.equal(net(small), net(small.float()).to(dtype))
            assert stream_in(pts.create_stream(net), small, 160).dtype == dtype


def test_no_precision_is_lost_where_a_model_is_moved():
    x = torch.randn(1, 1, 300, dtype=torch.float64)
    net = nn.Sequential(Resample(44100, 48000)).half().double()
    assert off(net(x), formula(x, 44100, 48000)) < 1e-12
    assert off(stream_in(pts.create_stream(net).float().double(), x, 50), formula(x, 44100, 48000)) < 1e-12


def test_autocast_changes_nothing():
    x = torch.randn(1, 1, 300)
    for target in (48000, 48001):
        net = Resample(44100, target)
        with torch.autocast("cpu"):
            assert off(net(x), formula(x, 44100, target)) < 1e-6
            assert off(stream_in(pts.create_stream(net), x, 100), formula(x, 44100, target)) < 1e-6


def test_tables_are_small():
    bank = Resample(44100, 48001).bank
    bank(torch.zeros(1, 1, 100), 0, 20)
    tables = [*bank.buffers(), *(value for value in vars(bank).values() if isinstance(value, torch.Tensor))]
    assert sum(table.nbytes for table in tables) < 20e6


# --------------------------------------------------------------------------- nan


@pytest.mark.parametrize(
    ("source", "target"), [(44100, 48000), (44100, 48001), (16000, 8000), (441, 80), (3, 7), (1, 1)]
)
def test_nan_and_infinity_touch_what_uses_them(source, target):
    x = torch.randn(2, 1, 400, dtype=torch.float64)
    x[0, 0, 200], x[1, 0, 150] = float("nan"), -float("inf")
    used = torch.from_numpy(read(400, source, target))
    clean = formula(torch.where(torch.isfinite(x), x, 0.0), source, target)
    net = Resample(source, target)
    whole = net(x)
    with torch.inference_mode():
        for y in (whole, stream_in(pts.create_stream(net), x, 37), stream_in(pts.create_stream(net), x, 400)):
            assert torch.equal(torch.isnan(y[0, 0]), used[:, 200])
            assert torch.equal(torch.isinf(y[1, 0]), used[:, 150])
            assert torch.equal(torch.isinf(y) & (y > 0), torch.isinf(whole) & (whole > 0))
            assert off(torch.where(torch.isfinite(y), y, clean), clean) < 1e-11
    sign = formula(nn.functional.one_hot(torch.tensor(150), 400), source, target)
    assert torch.equal(whole[1, 0, used[:, 150]] < 0, sign[used[:, 150]] > 0)


# --------------------------------------------------------------------------- prompt


@pytest.mark.parametrize(("source", "target"), [(44100, 48000), (44100, 48001), (3, 1), (2, 7)])
def test_an_output_comes_with_its_last_input(source, target):
    stream = ResampleStream(source, target)
    used = read(120, source, target)
    newest = np.where(used, np.arange(120), -1).max(1)
    came = 0
    for n in range(1, 100):
        y = stream(torch.zeros(1, 1))
        came += 0 if y is None else y.shape[-1]
        assert came == stream.output_length(n, False) == int((newest < n).sum())


def test_what_analysis_says():
    stream = ResampleStream(44100, 48000)
    assert (stream.hop, stream.ratio) == (147, (160, 147))
    used, places = read(600, 44100, 48000), [j * 147 // 160 for j in range(320, 480)]
    seen = [np.flatnonzero(used[j]) for j in range(320, 480)]
    phases = [(place - taps[0], taps[-1] - place) for place, taps in zip(places, seen, strict=True)]
    field = receptive_field(stream)
    assert field.period == (147, 160) and list(field.phases) == phases
    delay = latency(stream, fs=44100)
    assert delay.lookahead == max(right for _, right in phases) and delay.first_output == 7


# --------------------------------------------------------------------------- torchaudio, torch-streamer, soxr


@pytest.mark.parametrize(("source", "target"), [(44100, 48000), (48000, 44100), (8000, 22050), (44100, 16000), (3, 1)])
def test_is_what_torchaudio_computes(source, target):
    functional = torchaudio("functional")
    x = torch.randn(2, 3000, dtype=torch.float64)
    for method, tolerance in zip(METHODS, (1e-12, 1e-6), strict=True):  # its β is a float32
        expected = functional.resample(x, source, target, resampling_method=method)
        assert off(resample(x, source, target, method), expected) < tolerance
        single = functional.resample(x.float(), source, target, resampling_method=method)
        assert off(resample(x.float(), source, target, method), single.double()) < 2e-5
    module = torchaudio("transforms").Resample(source, target)
    assert off(Resample(source, target)(x.float()), module(x.float()).double()) < 2e-5


@hypothesis.given(
    source_fs=st.sampled_from([8000, 16000, 22050, 44100, 48000]),
    target_fs=st.sampled_from([8000, 16000, 22050, 44100, 48000]),
    channels=st.integers(0, 2),
    resampling_method=st.sampled_from(METHODS),
    lowpass_filter_width=st.integers(1, 20),
    rolloff=st.floats(0.01, 0.99),
    beta=st.floats(1.0, 50.0),
    length=st.integers(1, 100),
    block=st.integers(1, 10),
)
@hypothesis.example(16000, 48000, 1, "sinc_interp_hann", 6, 0.99, BETA, 100, 1)
def test_published(
    source_fs, target_fs, channels, resampling_method, lowpass_filter_width, rolloff, beta, length, block
):
    """The test of torch-streamer 0.0.2, as it stands there, and its tolerance."""
    hypothesis.assume(source_fs != target_fs)
    check_published(
        block, channels, length, source_fs, target_fs, resampling_method, lowpass_filter_width, rolloff, beta
    )


@pytest.mark.parametrize(
    "case",
    [
        pytest.param((1, 1, 100, 16000, 48000, "sinc_interp_hann", 6, 0.99, BETA), id="example"),
        pytest.param((7, 0, 55, 44100, 48000, "sinc_interp_kaiser", 3, 0.8, 9.0), id="one axis"),
        pytest.param(
            (10, 2, 90, 48000, 22050, "sinc_interp_hann", 20, 0.05, BETA), id="long filter", marks=pytest.mark.slow
        ),
    ],
)
def test_published_scripted(case):
    check_published(*case, script=True)


def check_published(block, channels, length, *settings, script=False):
    x = torch.randn([channels, length] if channels > 0 else [length]).clamp(-1.0, 1.0)
    stream = ResampleStream(*settings)
    y = torch.jit.script(stream) if script else stream
    pieces = [y(x[..., i : i + block], final=i + block >= length) for i in range(0, length, block)]
    assert all(piece.shape[-1] != 0 for piece in pieces if piece is not None)
    ys = torch.cat([piece for piece in pieces if piece is not None], dim=-1)
    source, target, method, width, rolloff, beta = settings
    names = dict(resampling_method=method, lowpass_filter_width=width, rolloff=rolloff, beta=beta)
    try:
        expected = torchaudio().resample(x, source, target, **names)
    except pytest.skip.Exception:  # the definition is there without it
        expected = formula(x, source, target, method, width, rolloff, beta).float()
    assert ys.shape == expected.shape
    assert torch.allclose(expected, ys, atol=1e-4)


def test_is_as_good_as_soxr():
    """Of a tone the long Kaiser window makes what soxr makes, and of one above the new Nyquist frequency as little."""
    soxr = pytest.importorskip("soxr")
    time = torch.arange(44100, dtype=torch.float64) / 44100
    settings = ("sinc_interp_kaiser", 64, 0.9475937167399596)
    for hertz, target in ((1000, 48000), (5000, 16000)):
        tone = torch.sin(2 * torch.pi * hertz * time)
        theirs = torch.from_numpy(soxr.resample(tone.numpy(), 44100, target, "VHQ"))[1000:-1000]
        ours = resample(tone, 44100, target, *settings)[1000:-1000]
        assert off(ours, theirs) < 1e-4
    tone = torch.sin(2 * torch.pi * 10_000 * time)
    assert float(resample(tone, 44100, 16000, *settings)[1000:-1000].abs().max()) < 1e-5


# --------------------------------------------------------------------------- signals of one axis


def test_signals_of_one_axis():
    x = torch.randn(300, dtype=torch.float64)
    stream, expected = ResampleStream(44100, 48000), formula(x, 44100, 48000)
    assert off(stream_in(stream, x, 70), expected) < 1e-12
    assert off(stream_in(stream, x[None], 70), expected[None]) < 1e-12
    first = stream(x[:100])
    state = stream.get_state()
    other = ResampleStream(44100, 48000)
    other.set_state(state)
    for each in (stream, other):
        for wrong in (x[None, 100:], x[None, None, 100:], x[100:].float(), torch.tensor(1.0)):
            with pytest.raises(pts.StreamInputError, match=r"^invalid_chunk: .*goes on with \[T\]"):
                each(wrong)
        assert off(torch.cat([first, each(x[100:], final=True)]), expected) < 1e-12
    stream(x[None])
    with pytest.raises(pts.StreamInputError, match=r"^invalid_chunk: .*shape \[300\].*goes on with \[1, T\]"):
        stream(x)
    stacked = pts.stack_states([state, state])
    batch = ResampleStream(44100, 48000)
    batch.set_state(stacked)
    y = batch(x[100:].expand(2, 1, -1), final=True)
    assert off(torch.cat([first.expand(2, 1, -1), y], -1), expected.expand(2, 1, -1)) < 1e-12


def test_only_outermost_streams_take_one_axis():
    with pytest.raises(pts.StreamInputError, match="invalid_chunk"):
        pts.create_stream(nn.Sequential(Resample(2, 1)))(torch.zeros(10))
    with pytest.raises(pts.StreamInputError, match="invalid_chunk"):
        pts.create_stream(nn.Conv1d(1, 1, 1))(torch.zeros(10))


# --------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((0, 1), "invalid_source_fs"),
        ((44100.0, 48000), "invalid_source_fs"),
        ((44100, -1), "invalid_target_fs"),
        ((44100, None), "invalid_target_fs"),
        ((2, 1, "linear"), "invalid_resampling_method"),
        ((2, 1, "sinc_interp_hann", 0), "invalid_lowpass_filter_width"),
        ((2, 1, "sinc_interp_hann", 6, 0), "invalid_rolloff"),
        ((2, 1, "sinc_interp_hann", 6, 1.5), "invalid_rolloff"),
        ((2, 1, "sinc_interp_hann", 6, "0.9"), "invalid_rolloff"),
        ((2, 1, "sinc_interp_kaiser", 6, 0.9, -1), "invalid_beta"),
        ((2, 1, "sinc_interp_kaiser", 6, 0.9, float("nan")), "invalid_beta"),
    ],
)
def test_wrong_arguments(arguments, code):
    for make in (Resample, ResampleStream):
        with pytest.raises(pts.StreamInputError, match=rf"^{code}: .*; .*; .*"):
            make(*arguments)


def test_wrong_signals():
    net = Resample(2, 1)
    with pytest.raises(pts.StreamInputError, match="^invalid_signal: "):
        net(torch.tensor(1.0))
    for x in (torch.zeros(1, 9, dtype=torch.int16), torch.zeros(1, 9, dtype=torch.complex64)):
        for take in (net, pts.create_stream(net), pts.create_stream(nn.Sequential(nn.Identity(), net))):
            with pytest.raises(pts.StreamInputError, match="^invalid_chunk: .*floating"):
                take(x)
    assert net(torch.zeros(2, 0)).shape == (2, 0)
    assert net(torch.zeros(0, 3, 9)).shape == (0, 3, 5)
    with pytest.raises(pts.UnsupportedModuleError, match="wrong_module"):
        ResampleStream(nn.ReLU())
