"""Dependency matrices against closed forms and brute force."""

import inspect
import os
import sys
from pathlib import Path

import pytest
import torch
from closed_forms import Frames, conv_truth, grid
from torch import nn

import torchstreamer as pts
from torchstreamer.analysis import infer_dependency_matrix

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from dependencies import hard_models, published

THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def attention(x, scores):
    similar = x @ x.transpose(1, 2) / x.shape[2] ** 0.5
    return torch.softmax(similar + scores.to(x), -1) @ x


def decaying(x, rate=0.5):
    i, o = grid(x.shape[1], x.shape[1])
    return attention(x, -rate * (i.T - o[:, None]).abs())


def masked(x, chunk=10):
    i, o = grid(x.shape[1], x.shape[1])
    return attention(x, torch.where(i.T // chunk > o[:, None] // chunk, -torch.inf, 0.0))


# ---------------------------------------------------------------------- the published signature


def test_the_published_signature():
    parameters = list(inspect.signature(infer_dependency_matrix).parameters.values())
    assert [p.name for p in parameters[:3]] == ["model", "seq_shape", "in_stride"]
    assert parameters[2].default == 1
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters[3:])


def test_what_it_returns():
    deps = infer_dependency_matrix(lambda x: x[:, ::2], (3, 20, 5))
    assert deps.dtype == torch.bool and deps.shape == (20, 10) and deps.device.type == "cpu"
    i, o = grid(20, 10)
    assert torch.equal(deps, i == 2 * o)


@pytest.mark.parametrize("in_stride", [1, 2, 3, 7, 100])
def test_in_stride_takes_every_nth_input(in_stride):
    deps = infer_dependency_matrix(Frames(nn.Conv1d(4, 4, 5, padding=2)), (1, 60, 4), in_stride)
    assert torch.equal(deps, conv_truth(60, 5, padding=2)[::in_stride])


# ---------------------------------------------------------------------- truths


@pytest.mark.parametrize(
    "geometry",
    [
        {"kernel": 1},
        {"kernel": 3, "padding": 1},
        {"kernel": 4, "stride": 2},
        {"kernel": 2, "stride": 5},
        {"kernel": 3, "dilation": 4, "padding": 4},
        {"kernel": 6, "stride": 3, "dilation": 2, "padding": 3},
    ],
)
@pytest.mark.parametrize("length", [30, 130])  # probed one by one, and in blocks
@pytest.mark.parametrize("method", ["auto", "perturb", "gradient", "nan"])
def test_convolutions(geometry, length, method):
    names = {"kernel": "kernel_size"}
    conv = nn.Conv1d(3, 4, **{names.get(name, name): value for name, value in geometry.items()})
    deps = infer_dependency_matrix(Frames(conv), (1, length, 3), method=method)
    assert torch.equal(deps, conv_truth(length, **geometry))


@pytest.mark.parametrize("stride", [1, 3, 10])
def test_max_pool_is_exact(stride):
    truth = conv_truth(120, 10, stride)
    lower, upper = infer_dependency_matrix(Frames(nn.MaxPool1d(10, stride)), (1, 120, 4), bounds=True)
    assert torch.equal(lower, truth) and torch.equal(upper, truth)


def test_cumulative_sums_are_exact():
    i, o = grid(100, 100)
    lower, upper = infer_dependency_matrix(lambda x: x.cumsum(1), (1, 100, 4), bounds=True)
    assert torch.equal(lower, i <= o) and torch.equal(upper, i <= o)


def fading(x, rate=0.8):
    """Attention whose weights do not depend on the signal."""
    i, o = grid(x.shape[1], x.shape[1])
    return torch.softmax(-rate * (i - o).abs().to(x), -1) @ x


@pytest.mark.parametrize("model", [decaying, fading])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_decaying_attention_is_exact(model, dtype):
    lower, upper = infer_dependency_matrix(model, (1, 100, 8), bounds=True, dtype=dtype)
    assert bool(lower.all()) and bool(upper.all())


def test_a_perturbation_alone_misses_weak_dependencies_and_underflow_is_no_dependency():
    # As the published way does: weights of e^-79 are lost in rounding, but not in the derivative.
    assert not bool(infer_dependency_matrix(fading, (1, 100, 8), method="perturb").all())
    assert bool(infer_dependency_matrix(fading, (1, 100, 8), method="gradient").all())
    # e^-158 is 0 in float32: shown by nothing, and not ruled out.
    lower, upper = infer_dependency_matrix(fading, (1, 200, 8), bounds=True)
    i, o = grid(200, 200)
    assert bool(lower[(i - o).abs() < 100].all()) and not bool(lower[(i - o).abs() > 150].any())
    assert bool(upper.all())


def test_masked_attention_is_exact_below_and_not_above():
    i, o = grid(60, 60)
    truth = i // 10 <= o // 10
    lower, upper = infer_dependency_matrix(masked, (1, 60, 8), bounds=True)
    assert torch.equal(lower, truth)
    assert bool((upper >= truth).all()) and bool(upper.all())  # 0 times nan
    assert torch.equal(infer_dependency_matrix(masked, (1, 60, 8)), truth)


def test_differences_of_cumulative_sums_lie_between_the_bounds():
    # A moving sum of 5, computed so that rounding, and nan, of all the past is in it.
    def moving(x):
        total = nn.functional.pad(x.cumsum(1), (0, 0, 5, 0))
        return total[:, 5:] - total[:, :-5]

    i, o = grid(90, 90)
    truth = (i <= o) & (i > o - 5)
    lower, upper = infer_dependency_matrix(moving, (1, 90, 3), bounds=True)
    assert torch.equal(lower, truth)
    assert torch.equal(upper, i <= o)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_convolution_by_fft_lies_between_the_bounds(dtype):
    def filtered(x):
        n = x.shape[1]
        taps = torch.zeros(2 * n, dtype=x.dtype)
        taps[:7] = torch.arange(1, 8)
        spectrum = torch.fft.rfft(x, 2 * n, dim=1) * torch.fft.rfft(taps)[None, :, None]
        return torch.fft.irfft(spectrum, 2 * n, dim=1)[:, :n]

    i, o = grid(80, 80)
    truth = (i <= o) & (i > o - 7)
    lower, upper = infer_dependency_matrix(filtered, (1, 80, 1), bounds=True, dtype=dtype)
    assert torch.equal(lower, truth)
    assert bool(upper.all())


@pytest.mark.parametrize("net", [nn.LSTM(4, 5, batch_first=True), nn.GRU(4, 5, batch_first=True, bidirectional=True)])
def test_recurrent_networks_give_tuples(net):
    i, o = grid(24, 24)
    truth = torch.ones(24, 24, dtype=torch.bool) if net.bidirectional else i <= o
    assert torch.equal(infer_dependency_matrix(lambda x: net(x)[0], (1, 24, 4)), truth)


def test_what_nan_does_not_reach_is_found_by_perturbation():
    # A comparison with nan is False, so nan leaves the output alone wherever the base does.
    def louder(x):
        return (x.roll(30, 1) > 0.5).to(x.dtype)

    lower, upper = infer_dependency_matrix(louder, (1, 100, 6), bounds=True)
    i, o = grid(100, 100)
    truth = (i + 30) % 100 == o
    assert torch.equal(lower, truth)
    assert bool((upper >= lower).all())


@pytest.mark.parametrize("seed", range(60 if THOROUGH else 8))
def test_random_networks_against_the_jacobian_and_single_nans(seed):
    torch.manual_seed(seed)
    layers, channels = [], 3
    for _ in range(int(torch.randint(1, 4, ()))):
        kernel, stride, dilation = (int(torch.randint(1, top, ())) for top in (5, 4, 3))
        kind = int(torch.randint(0, 4, ()))
        if kind == 0:
            layers.append(nn.ConvTranspose1d(channels, 4, kernel, stride))
        elif kind == 1:
            layers += [nn.MaxPool1d(kernel, stride), nn.Tanh()]
        else:
            layers += [nn.Conv1d(channels, 4, kernel, stride, dilation=dilation), nn.ReLU()]
        channels = 4 if kind != 1 else channels
    net = nn.Sequential(*layers).double()
    length = int(torch.randint(50, 90, ()))
    lower, upper = infer_dependency_matrix(Frames(net), (1, length, 3), bounds=True)
    x = torch.rand(1, 3, length).double()
    with torch.no_grad():
        for frame in range(length):
            spoilt = x.clone()
            spoilt[..., frame] = torch.nan
            assert torch.equal(upper[frame], net(spoilt).isnan().any(1)[0])
    jacobian = torch.autograd.functional.jacobian(net, x)  # [1, C, O, 1, C, I]
    slopes = (jacobian != 0).any(1).any(3).squeeze(0).squeeze(1)  # [O, I]
    assert bool((lower >= slopes.T).all())
    assert bool((upper >= lower).all())


@pytest.mark.parametrize("frames", [30, 60])
def test_nothing_that_the_published_way_finds_is_missed(frames):
    for name, (model, truth) in hard_models(frames).items():
        torch.manual_seed(0)
        theirs = published(model, (1, frames, 8))
        lower, upper = infer_dependency_matrix(model, (1, frames, 8), bounds=True)
        assert bool((theirs <= lower).all()), name
        assert torch.equal(lower, truth), name
        assert bool((truth <= upper).all()), name


def test_streams_are_run_on_whole_signals():
    net = nn.Sequential(nn.Conv1d(3, 3, 4, stride=2, padding=1), nn.ConvTranspose1d(3, 3, 4, stride=2, padding=1))
    stream = pts.create_stream(net)
    stream(torch.zeros(2, 3, 5))
    before = stream.get_state()
    found = infer_dependency_matrix(stream, (1, 3, 70), time_dim=-1)
    assert torch.equal(found, infer_dependency_matrix(net, (1, 3, 70), time_dim=-1))
    assert all(torch.equal(value, before[key]) for key, value in stream.get_state().items())
