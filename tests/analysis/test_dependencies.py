"""Dependency matrices against closed forms and brute force."""

import inspect
import os
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import torchstreamer as pts
from torchstreamer.analysis import infer_dependency_matrix

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from dependencies import hard_models, published

THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class Frames(nn.Module):
    """A network of [B, C, T] as one of [B, T, C]."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x.transpose(1, 2)).transpose(1, 2)


def grid(ins, outs):
    return torch.arange(ins)[:, None], torch.arange(outs)


def attention(x, scores):
    similar = x @ x.transpose(1, 2) / x.shape[2] ** 0.5
    return torch.softmax(similar + scores.to(x), -1) @ x


def decaying(x, rate=0.5):
    i, o = grid(x.shape[1], x.shape[1])
    return attention(x, -rate * (i.T - o[:, None]).abs())


def masked(x, chunk=10):
    i, o = grid(x.shape[1], x.shape[1])
    return attention(x, torch.where(i.T // chunk > o[:, None] // chunk, -torch.inf, 0.0))


def conv_truth(ins, kernel, stride=1, dilation=1, padding=0):
    outs = (ins + 2 * padding - (kernel - 1) * dilation - 1) // stride + 1
    i, o = grid(ins, outs)
    tap = i - (o * stride - padding)
    return (tap >= 0) & (tap <= (kernel - 1) * dilation) & (tap % dilation == 0)


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


# ---------------------------------------------------------------------- other inputs and outputs


def test_every_axis_of_time():
    net = nn.Conv2d(1, 2, (3, 5), padding=(1, 2))
    truth = conv_truth(40, 5, padding=2)
    assert torch.equal(infer_dependency_matrix(net, (2, 1, 6, 40), time_dim=3), truth)
    assert torch.equal(infer_dependency_matrix(net, (2, 1, 6, 40), time_dim=-1), truth)
    assert torch.equal(
        infer_dependency_matrix(lambda x: net(x).movedim(-1, 1), (2, 1, 6, 40), time_dim=-1, output_time_dim=1), truth
    )
    assert torch.equal(infer_dependency_matrix(lambda x: x.cumsum(1), (1, 12)), torch.ones(12, 12).triu().bool())


def test_tuples_and_dicts_keep_their_structure():
    def model(x):
        return {"half": x[:, ::2], "rest": (x.flip(1), None, 3)}

    found = infer_dependency_matrix(model, (2, 20, 3))
    i, o = grid(20, 20)
    assert set(found) == {"half", "rest"}
    assert torch.equal(found["half"], i == 2 * o[:10])
    assert torch.equal(found["rest"][0], i + o == 19)
    assert found["rest"][1] is None and found["rest"][2] is None


@pytest.mark.parametrize("length", [20, 100])
def test_tokens(length):
    net = nn.Sequential(nn.Embedding(30, 8), Frames(nn.Sequential(nn.Conv1d(8, 3, 5, padding=2), nn.MaxPool1d(2))))
    truth = (lambda i, o: (i >= 2 * o - 2) & (i <= 2 * o + 3))(*grid(length, length // 2))
    lower, upper = infer_dependency_matrix(net, (1, length), tokens=30, bounds=True)
    assert torch.equal(lower, truth) and torch.equal(upper, truth)


@pytest.mark.parametrize("tokens", [2, 3, 5])
def test_few_tokens(tokens):
    net = nn.Sequential(nn.Embedding(tokens, 8), Frames(nn.Conv1d(8, 3, 5, padding=2)))
    lower, upper = infer_dependency_matrix(net, (1, 70), tokens=tokens, bounds=True)
    assert torch.equal(lower, conv_truth(70, 5, padding=2)) and torch.equal(upper, lower)


def test_no_outputs_at_all():
    assert infer_dependency_matrix(lambda x: x[:, :0], (1, 60, 3)).shape == (60, 0)


def test_tokens_that_are_not_looked_up_have_no_upper_bound():
    lower, upper = infer_dependency_matrix(lambda x: x.cumsum(1), (1, 12), tokens=5, bounds=True)
    assert torch.equal(lower, torch.ones(12, 12).triu().bool())
    assert bool(upper.all())
    with pytest.raises(ValueError, match="^method_not_possible: .*looked up"):
        infer_dependency_matrix(lambda x: x.cumsum(1), (1, 12), tokens=5, method="nan")
    with pytest.raises(ValueError, match="^method_not_possible: .*derivative"):
        infer_dependency_matrix(lambda x: x.cumsum(1), (1, 12), tokens=5, method="gradient")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    net = Frames(nn.Sequential(nn.Conv1d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv1d(8, 8, 3, padding=1))).to(dtype)
    i, o = grid(100, 100)
    lower, upper = infer_dependency_matrix(net, (1, 100, 8), bounds=True)
    assert torch.equal(lower, (i - o).abs() <= 2) and torch.equal(upper, lower)


def test_complex_outputs():
    lower, upper = infer_dependency_matrix(lambda x: torch.complex(x, x.roll(1, 1)), (1, 60, 2), bounds=True)
    i, o = grid(60, 60)
    assert torch.equal(lower, (i == o) | ((i + 1) % 60 == o)) and torch.equal(upper, lower)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_on_a_gpu(dtype):
    net = Frames(nn.Sequential(nn.Conv1d(8, 8, 3, padding=1), nn.MaxPool1d(4))).to("cuda", dtype)
    i, o = grid(200, 50)
    lower, upper = infer_dependency_matrix(net, (2, 200, 8), bounds=True)
    truth = (i >= 4 * o - 1) & (i <= 4 * o + 4)
    assert lower.device.type == "cpu" and torch.equal(lower, truth) and torch.equal(upper, truth)


# ---------------------------------------------------------------------- rows, fields, batches


def test_models_that_mix_rows_are_run_on_one_probe_at_a_time():
    net = Frames(nn.Sequential(nn.Conv1d(4, 4, 3, padding=1), nn.BatchNorm1d(4))).train()
    assert bool(infer_dependency_matrix(net, (2, 30, 4)).all())

    def fixed(x):
        assert x.shape[0] == 2
        return x.cumsum(1)

    assert torch.equal(infer_dependency_matrix(fixed, (2, 30, 4)), torch.ones(30, 30).triu().bool())


def test_few_forwards_are_enough():
    net, rows = Frames(nn.Conv1d(16, 16, 3, padding=1)), []

    def counted(x):
        rows.append(x.shape[0])
        return net(x)

    truth = conv_truth(400, 3, padding=1)
    assert torch.equal(infer_dependency_matrix(counted, (1, 400, 16)), truth)
    found = sum(rows)
    assert found < 120 and len(rows) < 12  # and not 400 of each
    rows.clear()
    assert torch.equal(infer_dependency_matrix(counted, (1, 400, 16), field=1), truth)
    assert sum(rows) < 30 < found


@pytest.mark.parametrize("method", ["auto", "perturb", "gradient", "nan"])
def test_a_known_field(method):
    net = Frames(nn.Conv1d(4, 4, 7, stride=2))  # output o, at o * 101 / 48, sees 2 o to 2 o + 6
    deps = infer_dependency_matrix(net, (1, 101, 4), field=(5, 6), method=method)
    assert torch.equal(deps, conv_truth(101, 7, 2))


def test_a_field_that_is_too_small_is_noticed():
    for method in ("auto", "perturb", "nan", "gradient"):
        with pytest.raises(ValueError, match="^invalid_field"):
            infer_dependency_matrix(Frames(nn.Conv1d(4, 4, 9, padding=4)), (1, 100, 4), field=2, method=method)


def test_inputs_and_weights_are_left_alone():
    net = Frames(nn.Sequential(nn.ReLU(inplace=True), nn.Conv1d(4, 4, 3, padding=1), nn.ReLU(inplace=True)))
    before = [p.clone() for p in net.parameters()]
    torch.manual_seed(5)
    state = torch.get_rng_state()
    deps = infer_dependency_matrix(net, (1, 60, 4))
    assert torch.equal(deps, conv_truth(60, 3, padding=1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(p, q) and p.grad is None for p, q in zip(net.parameters(), before, strict=True))


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("net", "code"),
    [
        (nn.Dropout(), "not_deterministic"),
        (lambda x: x + 1e-6 * torch.rand_like(x), "not_deterministic"),
        (lambda x: 3, "no_output"),
        (lambda x: x.mean(), "invalid_time_dim"),
        (lambda x: x.sum(1), "invalid_time_dim"),
        (lambda x: x / 0, "not_finite"),
    ],
)
def test_models_that_are_refused(net, code):
    time = 1 if code != "invalid_time_dim" else 2
    with pytest.raises(ValueError, match=f"^{code}: "):
        infer_dependency_matrix(net, (1, 10, 4), time_dim=time)


@pytest.mark.parametrize(
    ("shape", "options", "code"),
    [
        ((5,), {}, "invalid_seq_shape"),
        ((1, 0, 4), {}, "invalid_seq_shape"),
        ((1, 5, 4), {"time_dim": 3}, "invalid_time_dim"),
        ((1, 5, 4), {"time_dim": 0}, "invalid_time_dim"),
        ((1, 5, 4), {"method": "guess"}, "invalid_method"),
        ((1, 5, 4), {"in_stride": 0}, "invalid_stride"),
        ((1, 5, 4), {"tokens": 1}, "invalid_tokens"),
        ((1, 5, 4), {"dtype": torch.int64}, "invalid_dtype"),
        ((1, 5, 4), {"tokens": 9, "dtype": torch.float32}, "invalid_dtype"),
    ],
)
def test_arguments_that_are_refused(shape, options, code):
    with pytest.raises(ValueError, match=f"^{code}: "):
        infer_dependency_matrix(lambda x: x, shape, **options)
