"""Dependency matrices: kinds of inputs and outputs, batches, known fields, and what is refused."""

import pytest
import torch
from closed_forms import Frames, conv_truth, grid
from torch import nn

from torchstreamer.analysis import infer_dependency_matrix


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


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


@pytest.mark.parametrize(
    "mix",
    [
        lambda y: y + y[:1],  # the first row stays what it would be alone
        lambda y: y.cumsum(0),
        lambda y: y + y[-1:],
        lambda y: y + y.flip(0),
        lambda y: y + y.flip(0).roll(1, 0),
        lambda y: y - y.mean(0, keepdim=True) / 2,
    ],
)
def test_no_way_of_mixing_rows_goes_unnoticed(mix):
    deps = infer_dependency_matrix(lambda x: mix(x.cumsum(1)), (1, 20, 4))
    assert torch.equal(deps, torch.ones(20, 20).triu().bool())


def test_what_is_large_on_the_way_is_not_computed_for_many_probes_at_once():
    sizes = []

    def attention(x):
        scores = x @ x.transpose(1, 2)
        sizes.append(scores.numel())
        return torch.softmax(scores, -1) @ x

    assert bool(infer_dependency_matrix(attention, (1, 300, 2), rounds=1).all())
    assert max(sizes) <= 1 << 22 < 300**3  # as many as 300 probes at once would make


def test_few_forwards_are_enough():
    net, rows = Frames(nn.Conv1d(16, 16, 3, padding=1)), []

    def counted(x):
        rows.append(x.shape[0])
        return net(x)

    truth = conv_truth(400, 3, padding=1)
    assert torch.equal(infer_dependency_matrix(counted, (1, 400, 16)), truth)
    found = sum(rows)
    assert found < 120 and len(rows) < 15  # and not 400 of each
    rows.clear()
    assert torch.equal(infer_dependency_matrix(counted, (1, 400, 16), field=1), truth)
    assert sum(rows) < 45 < found


@pytest.mark.parametrize("method", ["auto", "perturb", "gradient", "nan"])
@pytest.mark.parametrize("far", [6, 12, 7])
def test_a_field_that_is_exceeded_by_as_much_as_frames_stand_apart(method, far):
    with pytest.raises(ValueError, match="^invalid_field"):
        infer_dependency_matrix(lambda x: x + x.roll(far, 1), (1, 60, 2), field=1, method=method)


@pytest.mark.parametrize("far", [2, 3, 4, 20])
def test_what_nan_does_not_reach_is_not_put_together(far):
    i, o = grid(60, 60)
    truth = (i == o) | (i == (o - far) % 60)
    for deps in infer_dependency_matrix(lambda x: x + (x > 5).float().roll(far, 1), (1, 60, 2), bounds=True):
        assert torch.equal(deps, truth)


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
        ((1, 5, 4), {"in_stride": 0}, "invalid_in_stride"),
        ((1, 5, 4), {"tokens": 1}, "invalid_tokens"),
        ((1, 5, 4), {"dtype": torch.int64}, "invalid_dtype"),
        ((1, 5, 4), {"tokens": 9, "dtype": torch.float32}, "invalid_dtype"),
    ],
)
def test_arguments_that_are_refused(shape, options, code):
    with pytest.raises(ValueError, match=f"^{code}: "):
        infer_dependency_matrix(lambda x: x, shape, **options)
