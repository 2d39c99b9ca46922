"""Gain, fades and level meters against their definitions."""

import math

import pytest
import torch
from torch import Tensor

import torchstreamer as pts
from torchstreamer.audio import Fade, Gain, Level, Loudness


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def joined(stream, x: Tensor, *sizes: int) -> Tensor:
    with torch.no_grad():
        pieces = [stream(piece) for piece in x.split([*sizes, x.shape[-1] - sum(sizes)], -1)] + [stream.flush()]
    return torch.cat([piece for piece in pieces if piece is not None], -1)


def sine(frequency_hz: float, fs: float, seconds: float, level_db: float = 0.0) -> Tensor:
    place = torch.arange(round(fs * seconds), dtype=torch.float64)
    return 10 ** (level_db / 20) * torch.sin(2 * math.pi * frequency_hz / fs * place).unsqueeze(0)


def test_peak_and_rms():
    x = uniform(2, 3, 1000)
    for length, hop in ((100, 100), (50, 20), (7, 11)):
        places = range(0, 1000 - length + 1, hop)
        frames = torch.stack([x[..., i : i + length] for i in places], -2)
        peak, power = frames.abs().amax(-1), frames.square().mean(-1)
        for kind, expected in (("peak", 20 * peak.log10()), ("rms", 10 * power.log10())):
            net = Level(kind, length, hop)
            torch.testing.assert_close(net(x), expected)
            torch.testing.assert_close(joined(pts.create_stream(net), x, 1, 30, 300), expected)
    assert Level("rms", 10)(torch.zeros(1, 10)).item() == -120
    assert round(Level("rms", 48_000)(sine(1000, 48_000, 1)).item(), 3) == -3.01


def test_loudness_of_the_standard():
    # ITU-R BS.1770-5: a sine of 997 Hz and 0 dB in one channel has -3.01 LKFS. EBU Tech 3341, cases 1 and 2: 1000 Hz in
    # both channels at -23 and -33 dB has -23 and -33 LUFS.
    for fs, near in ((48_000, 0.002), (44_100, 0.005), (16_000, 0.05)):
        one = Loudness(fs)(sine(997, fs, 1))
        assert one.shape == (1, 7) and abs(one[0, -1].item() + 3.01) < near
        for level in (-23.0, -33.0):
            both = sine(1000, fs, 1, level).expand(2, -1)
            y = joined(pts.create_stream(Loudness(fs)), both, 480, 1, 9000)
            assert (y[0, 1:] - level).abs().max() < 0.1
    left = Loudness(48_000, weights=(1, 0))(torch.cat([sine(997, 48_000, 1), 9 * sine(50, 48_000, 1)]))
    torch.testing.assert_close(left, Loudness(48_000)(sine(997, 48_000, 1)))


def test_what_is_no_number_spoils_its_windows_alone():
    x = uniform(1, 2, 100)
    x[0, 1, 35] = float("nan")
    for kind in ("peak", "rms"):
        net = Level(kind, 10, 5)
        for y in (net(x), joined(pts.create_stream(net), x, 36, 3)):
            assert y.isnan().nonzero().tolist() == [[0, 1, 6], [0, 1, 7]]


def test_gain():
    x = uniform(2, 2, 10)
    torch.testing.assert_close(Gain(-6.0)(x), x * 10 ** (-6 / 20))
    torch.testing.assert_close(
        joined(pts.create_stream(Gain([20.0, 0.0])), x, 3), x * torch.tensor([[10.0], [1.0]]).double()
    )


SHAPES = {  # torchaudio.transforms.Fade, both of its tables
    "linear": (lambda f: f, lambda f: 1 - f),
    "exponential": (lambda f: 2 ** (f - 1) * f, lambda f: 2 ** (-f) * (1 - f)),
    "logarithmic": (lambda f: torch.log10(0.1 + f) + 1, lambda f: torch.log10(1.1 - f) + 1),
    "quarter_sine": (lambda f: torch.sin(f * math.pi / 2), lambda f: torch.sin(f * math.pi / 2 + math.pi / 2)),
    "half_sine": (
        lambda f: torch.sin(f * math.pi - math.pi / 2) / 2 + 0.5,
        lambda f: torch.sin(f * math.pi + math.pi / 2) / 2 + 0.5,
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_fades_as_torchaudio_has_them(shape):
    x, (rise, fall) = uniform(2, 2, 60), SHAPES[shape]
    gain = torch.ones(60, dtype=torch.float64)
    gain[:20] = rise(torch.linspace(0, 1, 20, dtype=torch.float64)).clamp(0, 1)
    gain[-30:] *= fall(torch.linspace(0, 1, 30, dtype=torch.float64)).clamp(0, 1)
    net = Fade(20, 30, shape)
    torch.testing.assert_close(net(x), x * gain, rtol=0, atol=1e-12)
    for sizes in ((), (1,) * 50, (5, 31), (55,)):
        torch.testing.assert_close(joined(pts.create_stream(net), x, *sizes), x * gain, rtol=0, atol=1e-12)
    short = torch.ones(1, 7, dtype=torch.float64)
    torch.testing.assert_close(joined(pts.create_stream(net), short, 3), net(short))


def test_a_fade_holds_back_its_end_alone():
    stream = pts.create_stream(Fade(5, 30))
    assert stream.output_length(100, False) == 71 and stream.output_length(100) == 100
    assert pts.create_stream(Fade(5)).output_length(100, False) == 100


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: Fade(-1), "invalid_fade"),
        (lambda: Fade(1, 1, "square"), "invalid_shape"),
        (lambda: Gain(float("nan")), "invalid_gain_db"),
        (lambda: Level("loud", 10), "invalid_kind"),
        (lambda: Level("rms", 0), "invalid_window"),
        (lambda: Level("rms", 10, weights=[1.0]), "invalid_weights"),
    ],
)
def test_refused(make, code):
    with pytest.raises(ValueError, match=f"^{code}: .*; .*; "):
        make()
