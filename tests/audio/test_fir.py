"""Filters with a finite response against SciPy, in products and in transforms."""

import numpy as np
import pytest
import scipy.signal
import torch
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer.analysis import receptive_field
from torchstreamer.audio import FIR, LFilter, Preemphasis

LIMITS = {torch.float64: 1e-12, torch.float32: 2e-6}


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def joined(stream, x: Tensor, *sizes: int) -> Tensor:
    with torch.no_grad():
        return torch.cat([stream(piece) for piece in x.split([*sizes, x.shape[-1] - sum(sizes)], -1)], -1)


def convolved(x: Tensor, taps: Tensor) -> Tensor:
    n = x.shape[-1]
    taps = taps.double().expand(x.shape[1], taps.shape[-1])
    rows = [[scipy.signal.fftconvolve(c, h)[:n] for c, h in zip(row, taps, strict=True)] for row in x.double()]
    return torch.from_numpy(np.array(rows))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("length", [1, 2, 9, 300, 1500, 4097])
def test_against_fftconvolve(length, channels, dtype):
    taps = uniform(length, seed=length) if channels == 1 else uniform(2, length, seed=length)
    x = uniform(2, 2, 9000).to(dtype)
    expected = convolved(x, taps)
    net = FIR(taps)
    # Samples one by one, short and long chunks, some longer than the response.
    for sizes in ((), (1, 1, 1, 2, 30, 60, 480, 481, 500, 7, 3000), (17,) * 40):
        y = joined(pts.create_stream(net), x, *sizes) if sizes else net(x)
        assert y.dtype == dtype
        assert float((y.double() - expected).abs().max() / expected.abs().max()) < LIMITS[dtype]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("length", [3, 700])
def test_what_is_no_number_spoils_the_outputs_that_use_it_alone(length, value):
    net, x = FIR(uniform(length)), uniform(2, 2, 3000)
    whole, script = net(x), torch.jit.script(pts.create_stream(net))
    for place in (0, 1, 480, 800, 2999):
        spoiled = x.clone()
        spoiled[1, 0, place] = value
        expected = whole.clone()
        expected[1, 0, place : place + length] = float("nan")
        script.reset()
        for y in (
            net(spoiled),
            joined(pts.create_stream(net), spoiled, 1, 480, 1, 480, 5, 480, 480),
            joined(script, spoiled, *[160] * 18),
        ):
            torch.testing.assert_close(y, expected, rtol=0, atol=1e-12, equal_nan=True)


def test_a_snapshot_goes_on_bit_for_bit():
    net, x = FIR(uniform(5000).float()), uniform(1, 2, 4000).float()
    stream = pts.create_stream(net)
    with torch.no_grad():
        for piece in x.split(480, -1):
            stream(piece)
        other = pts.create_stream(net)
        other.set_state(stream.get_state())
        for n in (480, 480, 7, 1, 100, 6000):
            piece = uniform(1, 2, n, seed=n).float()
            assert torch.equal(stream(piece), other(piece))


def test_its_field_is_its_length():
    stream = pts.create_stream(FIR(torch.ones(300)))
    assert list(receptive_field(stream).phases) == [(299, 0)] and stream.output_length(5, False) == 5


def test_gradients_of_trained_taps():
    for length, n in ((3, 40), (300, 400)):
        net, x = FIR(nn.Parameter(uniform(length))), uniform(1, 1, n).requires_grad_()
        mask = uniform(1, 1, n, seed=1)
        found = torch.autograd.grad((net(x) * mask).sum(), [x, net.taps])
        y = nn.functional.conv1d(nn.functional.pad(x, [length - 1, 0]), net.taps.flip(0).view(1, 1, -1))
        for one, other in zip(found, torch.autograd.grad((y * mask).sum(), [x, net.taps]), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_changed_taps_are_seen():
    taps = nn.Parameter(uniform(2000).float())
    stream, x = pts.create_stream(FIR(taps)), uniform(1, 3000).float()
    before = joined(stream, x, 480, 480)
    stream.reset()
    with torch.no_grad():
        taps.mul_(2)
    torch.testing.assert_close(joined(stream, x, 480, 480), 2 * before)


def test_preemphasis_is_undone():
    x = uniform(2, 1, 500)
    expected = x - 0.97 * nn.functional.pad(x, [1, -1])
    torch.testing.assert_close(Preemphasis()(x), expected)
    torch.testing.assert_close(LFilter([1.0], [1.0, -0.97])(expected), x)
    expected[..., 0] = 0.03 * x[..., 0]
    net = Preemphasis(0.97, "first")
    torch.testing.assert_close(joined(pts.create_stream(net), x, 1, 3), expected)
    spoiled = x.clone()
    spoiled[0, 0, 0] = float("nan")
    y = joined(pts.create_stream(net), spoiled, 1, 3)
    assert y.isnan().nonzero().tolist() == [[0, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: FIR([]), "invalid_taps"),
        (lambda: FIR(torch.ones(2, 2, 2)), "invalid_taps"),
        (lambda: FIR([1.0, float("inf")]), "invalid_taps"),
        (lambda: Preemphasis(0.9, "last"), "invalid_initial"),
    ],
)
def test_refused(make, code):
    with pytest.raises(ValueError, match=f"^{code}: .*; .*; "):
        make()
    with pytest.raises(pts.StreamInputError, match="invalid_chunk"):
        pts.create_stream(FIR(torch.ones(3, 4)))(torch.zeros(2, 5))
