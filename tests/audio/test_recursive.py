"""Recursive filters against SciPy, closed forms, and what is refused."""

import numpy as np
import pytest
import scipy.signal
import torch
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer.audio import LFilter, RemoveDC, SOSFilter, biquad, butterworth

LIMITS = {torch.float64: 1e-12, torch.float32: 1e-6}


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def differs(y: Tensor, expected: np.ndarray) -> float:
    assert tuple(y.shape) == expected.shape
    return float(np.abs(y.detach().double().numpy() - expected).max() / np.abs(expected).max())


def joined(stream, x: Tensor, *sizes: int) -> Tensor:
    sizes = [*sizes, x.shape[-1] - sum(sizes)]
    with torch.no_grad():
        return torch.cat([stream(piece) for piece in x.split(sizes, -1) if piece.shape[-1] > 0], -1)


FILTERS = {
    "one pole": ([0.25], [1.0, -0.75]),
    "more zeros than poles": ([0.2, 0.3, -0.1, 0.4, 0.05], [2.0, -1.2]),
    "more poles than zeros": ([0.2], [1.0, -1.2, 0.8, -0.3, 0.1]),
    "elliptic": scipy.signal.ellip(5, 1, 40, 0.3),
    "gain": ([3.0], [2.0]),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", FILTERS)
def test_against_lfilter(name, dtype):
    b, a = FILTERS[name]
    net = LFilter(b, a)
    # Within a block, some blocks, more than a group of blocks, and than a group of groups.
    for n in (1, 5, 31, 32, 33, 100, 513, 1030, 9000):
        x = uniform(2, 3, n, seed=n).to(dtype)
        expected = scipy.signal.lfilter(b, a, x.double().numpy())
        y = net(x)
        assert y.dtype == dtype and differs(y, expected) < LIMITS[dtype]
        for sizes in ((), (min(n, 1), n // 3), tuple(7 for _ in range(min(n // 7, 30)))):
            assert differs(joined(pts.create_stream(net), x, *sizes), expected) < LIMITS[dtype]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_against_sosfilt_with_its_state(dtype):
    for order in (1, 2, 5, 12):
        sos = scipy.signal.cheby1(order, 1, 0.3, output="sos")
        stream, zi = pts.create_stream(SOSFilter(sos)), np.zeros((len(sos), 2, 3, 2))
        for n in (1, 480, 5, 33, 2000):
            x = uniform(2, 3, n, seed=n).to(dtype)
            expected, zi = scipy.signal.sosfilt(sos, x.double().numpy(), zi=zi)
            assert differs(joined(stream, x), expected) < LIMITS[dtype]
            held = zi.transpose(1, 2, 0, 3).reshape(2, 3, -1)
            assert differs(stream.get_state()["memory.state"], held) < 1e-12


def test_long_signals_in_single_precision():
    # Poles so near the unit circle that a state in single precision is off by a tenth.
    sos = torch.cat([biquad("lowpass", 48_000, 20), biquad("peaking", 48_000, 30, q=20, gain_db=12)])
    x = uniform(1, 1, 1_000_000).float()
    expected = scipy.signal.sosfilt(sos.numpy(), x.double().numpy())
    assert differs(SOSFilter(sos)(x), expected) < 1e-6
    stream = pts.create_stream(SOSFilter(sos))
    assert differs(joined(stream, x, *[997] * 300), expected) < 1e-6
    single = scipy.signal.sosfilt(sos.float().numpy(), x.numpy())
    assert differs(torch.from_numpy(single), expected) > 1e-3


def test_closed_form():
    impulse = torch.zeros(1, 3000, dtype=torch.float64)
    impulse[0, 0] = 1
    place = torch.arange(3000, dtype=torch.float64)
    torch.testing.assert_close(LFilter([1.0], [1.0, -0.99])(impulse)[0], 0.99**place, rtol=1e-12, atol=0)
    # A resonance: r^t · sin((t + 1)·w) / sin(w)
    r, w = 0.995, 0.3
    expected = r**place * torch.sin((place + 1) * w) / np.sin(w)
    y = LFilter([1.0], [1.0, -2 * r * np.cos(w), r * r])(impulse)[0]
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)


def test_a_filter_for_each_channel():
    b, a = [[0.2, 0.3], [0.1, -0.4]], [[1.0, -0.5, 0.2], [1.0, 0.3, 0.1]]
    x = uniform(3, 2, 700)
    expected = np.stack([scipy.signal.lfilter(b[c], a[c], x[:, c].numpy()) for c in range(2)], 1)
    assert differs(LFilter(b, a)(x), expected) < 1e-12
    shared = np.stack([scipy.signal.lfilter([1.0], a[c], x[:, c].numpy()) for c in range(2)], 1)
    assert differs(LFilter([1.0], a)(x), shared) < 1e-12
    sos = torch.stack([butterworth("lowpass", 8000, 900), butterworth("highpass", 8000, 900)])
    sections = np.stack([scipy.signal.sosfilt(sos[c].numpy(), x[:, c].numpy()) for c in range(2)], 1)
    assert differs(SOSFilter(sos)(x), sections) < 1e-12
    with pytest.raises(pts.StreamInputError, match="invalid_chunk"):
        pts.create_stream(SOSFilter(sos))(torch.zeros(3, 5))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_spoils_all_that_follows_in_its_row_and_channel(value):
    net = SOSFilter(butterworth("lowpass", 8000, 900))
    for n in (40, 1500):
        for place in (0, 17, 33, n - 1):
            x = uniform(2, 2, n)
            whole = net(x)
            x[1, 0, place] = value
            expected = whole.clone()
            expected[1, 0, place:] = float("nan")
            for y in (net(x), joined(pts.create_stream(net), x, 9, 20)):
                torch.testing.assert_close(y, expected, rtol=0, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_silence_leads_to_nothing(dtype):
    # Not to numbers below the normal ones, with which processors are slow.
    stream = pts.create_stream(SOSFilter(biquad("bandpass", 48_000, 2000, q=5)))
    with torch.no_grad():
        stream(uniform(1, 1, 480).to(dtype))
        for _ in range(200):
            y = stream(torch.zeros(1, 1, 480, dtype=dtype))
    assert not y.any() and not stream.get_state()["memory.state"].any()


def test_gradients_of_trained_coefficients():
    b, a = (nn.Parameter(torch.tensor(values).double()) for values in ([0.2, 0.3], [1.1, -0.5, 0.2]))
    sos = nn.Parameter(butterworth("lowpass", 8000, 900, order=3))
    x = uniform(1, 1, 70).requires_grad_()

    def through(kind, *values):
        # A new module would keep new parameters; these are the ones that gradients are asked of.
        net = LFilter(b, a) if kind == "l" else SOSFilter(sos)
        return torch.func.functional_call(net, dict(zip(net.state_dict(), values[1:], strict=True)), (values[0],))

    assert torch.autograd.gradcheck(lambda *v: through("l", *v), (x, b, a), fast_mode=True)
    assert torch.autograd.gradcheck(lambda *v: through("s", *v), (x, sos), fast_mode=True)


def test_a_script_that_is_moved_to_double_precision_is_exact_there():
    sos = torch.cat([biquad("lowpass", 48_000, 20), biquad("peaking", 48_000, 30, q=20, gain_db=12)])
    script = torch.jit.script(pts.create_stream(SOSFilter(sos)))
    script(torch.ones(1, 1, 1000))
    script.reset()
    x = uniform(1, 2, 6000)
    expected = scipy.signal.sosfilt(sos.numpy(), x.numpy())
    assert differs(joined(script.double(), x, 3000, 7), expected) < 1e-10  # in single precision 1e-2


def test_changed_coefficients_are_seen():
    b = nn.Parameter(torch.tensor([1.0, 0.5]))
    net = LFilter(b, [1.0, -0.5])
    stream, x = pts.create_stream(net), uniform(1, 50).float()
    before = joined(stream, x)
    stream.reset()
    with torch.no_grad():
        b.mul_(2)
    torch.testing.assert_close(joined(stream, x), 2 * before)
    torch.testing.assert_close(net(x), 2 * before)


def test_the_constant_part_is_taken_out():
    net, x = RemoveDC(1000, 5.0), uniform(1, 2, 4000)
    slope = np.tan(np.pi * 5 / 1000)
    b, a = np.array([1, -1]) / (1 + slope), [1, (slope - 1) / (1 + slope)]
    w, h = scipy.signal.freqz(b, a, worN=[5.0], fs=1000)
    assert abs(abs(h[0]) - 0.5**0.5) < 1e-12
    # A signal that goes on for ever before its start.
    before = np.concatenate([np.repeat(x[..., :1].numpy(), 20_000, -1), x.numpy()], -1)
    assert differs(net(x), scipy.signal.lfilter(b, a, before)[..., 20_000:]) < 1e-12
    assert net(torch.full((1, 2, 300), 0.25)).abs().max() < 1e-7


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: LFilter([1.0], [0.0, 1.0]), "zero_leading_coefficient"),
        (lambda: SOSFilter([[1.0, 0, 0, 0, 0, 0]]), "zero_leading_coefficient"),
        (lambda: LFilter([1.0], [1.0, -1.0]), "unstable_filter"),
        (lambda: LFilter([1.0], np.poly([0.5, 1.01 * np.exp(1j), 1.01 * np.exp(-1j)]).real), "unstable_filter"),
        (lambda: SOSFilter([[1.0, 0, 0, 1, 0, 0.5], [1.0, 0, 0, 1, -2.1, 1.1]]), "unstable_filter"),
        (lambda: LFilter([float("nan")], [1.0, 0.5]), "invalid_coefficients"),
        (lambda: LFilter([], [1.0, 0.5]), "invalid_coefficients"),
        (lambda: LFilter(torch.ones(2, 2), torch.tensor([[1.0, 0.1]] * 3)), "invalid_coefficients"),
        (lambda: SOSFilter([1.0, 0, 0, 1, 0, 0]), "invalid_coefficients"),
        (lambda: SOSFilter(torch.ones(2, 5)), "invalid_coefficients"),
        (lambda: RemoveDC(100, 60), "invalid_cutoff_hz"),
    ],
)
def test_refused(make, code):
    with pytest.raises(ValueError, match=f"^{code}: .*; .*; "):
        make()


def test_stable_is_what_roots_say():
    draw = np.random.default_rng(0)
    for _ in range(60):
        a = np.concatenate([[1.0], draw.normal(size=draw.integers(1, 6)) * 0.6])
        stable = bool((np.abs(np.roots(a)) < 1).all())
        try:
            LFilter([1.0], a)
            assert stable
        except ValueError as error:
            assert not stable and str(error).startswith("unstable_filter")
