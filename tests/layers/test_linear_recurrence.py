"""Linear recurrences against loops in NumPy, and everything that a stream does; models that are made of them."""

import copy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import Parameter

import torchstreamer as pts
from torchstreamer.analysis import receptive_field
from torchstreamer.layers.scan import recurred
from torchstreamer.testing import split_signal, verify_stream
from torchstreamer.testing.live_rows import LiveRows
from torchstreamer.testing.strategies import chunkings

for _folder in ("models", "deploy"):
    sys.path.insert(0, str(Path(__file__).parents[1] / _folder))

from linear_recurrences import QRNN, RGLRU, SRU, DiagonalStateSpace, MinGRU  # noqa: E402
from mamba import MambaLayer  # noqa: E402
from runner_calls import GRAPH, PACKAGE, SCRIPT  # noqa: E402


def uniform(*shape: int, seed: int = 0) -> Tensor:
    """Between -1 and 1."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def by_loop(a: Tensor, b: Tensor, h: Tensor) -> np.ndarray:
    """h = a·h + b, sample by sample, on ``[B, C, T]`` in double precision."""
    wide = np.complex128 if b.is_complex() else np.float64
    factors, added = (np.broadcast_to(value.numpy(), b.shape).astype(wide) for value in (a, b))
    y, state = np.empty(b.shape, wide), np.broadcast_to(h.numpy(), b.shape[:2]).astype(wide)
    for t in range(b.shape[2]):
        state = factors[..., t] * state + added[..., t]
        y[..., t] = state
    return y


def differs(y: Tensor, whole: Any) -> float:
    whole = torch.as_tensor(whole)
    assert y.shape == whole.shape
    return float((y.detach() - whole).abs().max() / whole.abs().max().clamp(min=1e-3))


def joined(stream: Any, chunks: Any) -> Tensor:
    with torch.no_grad():
        pieces = [stream(chunk) for chunk in chunks] + [stream.flush()]
    return torch.cat([piece for piece in pieces if piece is not None], -1)


def packed(a: Tensor, b: Tensor) -> Tensor:
    return torch.cat([a, b], 1)


# ---------------------------------------------------------------------- the scan


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("constant", [False, True])
def test_against_a_loop(dtype: torch.dtype, constant: bool) -> None:
    limit = 1e-12 if dtype == torch.float64 else 1e-6
    for t in [*range(1, 40), 63, 64, 65, 255, 300, 1000, 5000]:
        a = uniform(1, 3, 1, seed=t) if constant else uniform(2, 3, t, seed=t)
        a, b, h = a.to(dtype), uniform(2, 3, t, seed=t + 1).to(dtype), uniform(2, 3, 1, seed=t + 2)
        y, last = recurred(a, b, h)
        expected = by_loop(a, b, h[..., 0])
        assert y.dtype == dtype and differs(y, expected) < limit
        assert last.dtype == torch.float64 and differs(last[..., 0], expected[..., -1]) < limit


@pytest.mark.parametrize("dtype", [torch.complex128, torch.complex64])
def test_complex_numbers(dtype: torch.dtype) -> None:
    limit = 1e-12 if dtype == torch.complex128 else 1e-5
    for t in (1, 5, 16, 77, 1000):
        a = torch.polar(uniform(2, 3, t, seed=t).abs() ** 0.1, 3 * uniform(2, 3, t, seed=1)).to(dtype)
        b = torch.complex(uniform(2, 3, t, seed=2), uniform(2, 3, t, seed=3)).to(dtype)
        factor, start = a[:1, :, :1], b[0, :, 0]
        pairs = packed(torch.cat([a.real, a.imag], 1), torch.cat([b.real, b.imag], 1))
        y = pts.LinearRecurrence()(a, b)
        assert y.dtype == dtype and differs(y, by_loop(a, b, torch.zeros(2, 3))) < limit
        paired = pts.LinearRecurrence(paired=True)(pairs)
        assert differs(torch.complex(*paired.chunk(2, 1)), y) < limit
        constant = pts.LinearRecurrence(start, factor.flatten())
        assert differs(constant(b), by_loop(factor, b, start.expand(2, 3))) < limit
        for net, x in ((pts.LinearRecurrence(), packed(a, b)), (constant, b)):
            for stream in (pts.create_stream(net), torch.jit.script(pts.create_stream(net))):
                assert differs(joined(stream, x.split(30, -1)), net(x)) < limit


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_a_long_signal_however_it_is_cut(dtype: torch.dtype, limit: float) -> None:
    # Of all speeds: one that forgets at once, one that forgets slowly, one that only sums, one that alternates.
    a = torch.cat([uniform(1, 1, 100_000, seed=i).abs() ** p for i, p in enumerate((8, 1, 1e-3, 0))], 1)
    a[:, 1] *= -1
    a, b = a.to(dtype), uniform(1, 4, 100_000, seed=9).to(dtype)
    expected = torch.from_numpy(by_loop(a, b, torch.zeros(1, 4)))
    scale = expected.abs().amax(2, keepdim=True)
    net = pts.LinearRecurrence()
    assert differs(net(a, b) / scale, expected / scale) < limit
    stream = pts.create_stream(net)
    for sizes in ([1] * 300 + [997] * 100, [4096] * 24 + [15] * 113, [33_333] * 3):
        y = joined(stream, packed(a, b).split([*sizes, 100_000 - sum(sizes)], -1))
        assert differs(y / scale, expected / scale) < limit


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_that_vanish(dtype: torch.dtype) -> None:
    # Where an algorithm that divides by them, or takes logarithms, would give nan.
    a = uniform(1, 5, 500).to(dtype)
    for channel, factor in enumerate((0.0, 1e-30, -1e-8)):
        a[:, channel] = factor
    a[:, 3, ::7] = 0
    b = uniform(1, 5, 500, seed=1).to(dtype)
    expected = by_loop(a, b, torch.ones(1, 5))
    net = pts.LinearRecurrence(torch.ones(5, dtype=dtype))
    for size in (500, 1, 13, 200):
        assert differs(joined(pts.create_stream(net), packed(a, b).split(size, -1)), expected) < 1e-6


@pytest.mark.parametrize("size", [5, 64, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_silence_leads_to_nothing(size: int, dtype: torch.dtype) -> None:
    # Not to numbers below the normal ones, with which processors are slow: 0.9 of the smallest is the smallest.
    chunks = 12_000 // size
    net = pts.LinearRecurrence(decay=Parameter(torch.tensor([0.9, -0.5, 0.99 if dtype == torch.float32 else 0.9])))
    stream = pts.create_stream(net.to(dtype))
    with torch.no_grad():
        stream(uniform(1, 3, 50).to(dtype))
        silence = torch.zeros(1, 3, size, dtype=dtype)
        for _ in range(chunks):
            y = stream(silence)
        assert not y.any() and not stream.get_state()["memory.state"].any()
        whole = net(torch.cat([uniform(1, 3, 50).to(dtype), torch.zeros(1, 3, 12_000, dtype=dtype)], -1))
    assert not whole[..., -100:].any()


# ---------------------------------------------------------------------- the streams


def nets() -> Any:
    torch.manual_seed(0)
    return {
        "packed": pts.LinearRecurrence(),
        "paired": pts.LinearRecurrence(torch.randn(2), paired=True),
        "started": pts.LinearRecurrence(Parameter(torch.randn(2))),
        "decay": pts.LinearRecurrence(decay=Parameter(torch.rand(4))),
        "number": pts.LinearRecurrence(torch.randn(4), decay=-0.8),
        "average": pts.ExponentialMovingAverage1d(0.3),
        "averages": pts.ExponentialMovingAverage1d(Parameter(torch.rand(4)), initial=Parameter(torch.randn(4))),
        "rest": pts.ExponentialMovingAverage1d(torch.rand(4), initial="zero"),
    }


every_net = pytest.mark.parametrize("name", list(nets()))


@pytest.mark.sample("started", rest=8)
@every_net
def test_every_rule(name: str) -> None:
    with torch.jit.optimized_execution(False):
        report = verify_stream(nets()[name].eval(), (2, 4, 40), static=True, dtypes=[torch.float64], domain=torch.tanh)
    assert report.cases("chunkings, scripted") > 0


@pytest.mark.sample(rest=9)
@every_net
def test_every_rule_in_every_dtype(name: str) -> None:
    verify_stream(nets()[name].eval(), (2, 4, 40), static=True, domain=torch.tanh)


@settings(max_examples=15)
@given(data=st.data())
def test_any_chunking(data: Any) -> None:
    net = nets()[data.draw(st.sampled_from(list(nets())))].double()
    x = uniform(2, 4, data.draw(st.integers(1, 150)), seed=data.draw(st.integers(0, 9)))
    stream = pts.create_stream(net)
    with torch.no_grad():
        for _ in range(2):  # the second signal through a stream that was used
            pieces = [stream(chunk, final) for chunk, final in split_signal(x, data.draw(chunkings(x.shape[-1])))]
            assert differs(torch.cat([y for y in pieces if y is not None], -1), net(x)) < 1e-10


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_half_precision(dtype: torch.dtype, limit: float) -> None:
    for name, net in nets().items():
        net, x = net.to(dtype), uniform(2, 4, 100).to(dtype)
        with torch.no_grad():
            whole = net(x)
            assert whole.dtype == dtype
            assert differs(whole.double(), copy.deepcopy(net).double()(x.double())) < limit, name
            assert differs(joined(pts.create_stream(net), x.split([1, 30, 69], -1)).double(), whole.double()) < limit


@pytest.mark.parametrize("size", [1, 20])
def test_rows_do_not_touch(size: int) -> None:
    for bad in (float("nan"), float("inf")):
        x = uniform(3, 4, 60)
        with torch.no_grad():
            whole = pts.LinearRecurrence()(x)
            x[1, 3, 7] = bad  # b of the second state
            y = joined(pts.create_stream(pts.LinearRecurrence()), x.split(size, -1))
        assert differs(y[[0, 2]], whole[[0, 2]]) < 1e-12 and differs(y[:, 0], whole[:, 0]) < 1e-12
        assert differs(y[1, 1, :7], whole[1, 1, :7]) < 1e-12 and y[1, 1, 7:].isnan().all()


def test_states_of_rows_of_different_age() -> None:
    net, x = nets()["started"].double(), uniform(2, 4, 60)
    with torch.no_grad():
        whole = net(x)
        streams = [pts.create_stream(net) for _ in range(2)]
        for stream, row, age in zip(streams, x, (7, 31), strict=True):
            stream(row[None, :, :age])
        both = torch.jit.script(pts.create_stream(net))
        both.set_state(pts.stack_states([stream.get_state() for stream in streams]))
        y = both(torch.stack([x[0, :, 7:27], x[1, :, 31:51]]), True)
    assert differs(y, torch.stack([whole[0, :, 7:27], whole[1, :, 31:51]])) < 1e-10


@pytest.mark.parametrize("chunk", [1, 20])
@every_net
def test_rows_of_any_age(name: str, chunk: int) -> None:
    net = nn.Sequential(nn.Conv1d(2, 4, 3), nn.Tanh(), nets()[name]).double()
    LiveRows(pts.create_stream(net), net, chunk, (4,), seed=chunk).run(40).compare(5)


@pytest.mark.parametrize(("t", "paired"), [(1, False), (3, True), (20, False), (20, True)])
def test_gradients_where_the_state_is_nothing(t: int, paired: bool) -> None:
    a, b, h = uniform(1, 2, t), torch.zeros(1, 2, t).double(), torch.zeros(1, 2, 1).double()
    inputs = [value.requires_grad_() for value in (a, b, h)]
    assert torch.autograd.gradcheck(lambda a, b, h: recurred(a, b, h, paired), inputs)


def test_its_field_is_unbounded() -> None:
    for net in nets().values():
        stream = pts.create_stream(net)
        assert list(receptive_field(stream).phases) == [(float("inf"), 0)] and stream.output_length(5, False) == 5


@pytest.mark.sample(rest=3)
@pytest.mark.parametrize("suffix", [SCRIPT, PACKAGE, GRAPH])
def test_files(suffix: str, tmp_path: Path) -> None:
    net, x = nn.Sequential(nn.Conv1d(2, 4, 3), nn.Tanh(), nets()["started"]), uniform(1, 2, 90).float()
    path = tmp_path / f"scan{suffix}"
    pts.export(pts.create_stream(net), path, **({} if suffix == ".pt" else {"chunk": 20}))
    with torch.no_grad():
        assert differs(joined(pts.load(path), x.split([1, 9, 25, 55], -1)), net(x)) < 1e-5


# ---------------------------------------------------------------------- averages


def test_averages() -> None:
    x = uniform(2, 3, 40)
    alpha = torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64)
    share = alpha[:, None]
    cases = (("first", x[..., 0]), ("zero", torch.zeros(2, 3)), (torch.ones(3, dtype=torch.float64), torch.ones(2, 3)))
    for initial, before in cases:
        expected = by_loop((1 - share).expand_as(x), share * x, before)
        for size in (40, 1, 16):
            net = pts.ExponentialMovingAverage1d(alpha, initial)
            assert differs(joined(pts.create_stream(net), x.split(size, -1)), expected) < 1e-12
    number = pts.ExponentialMovingAverage1d(0.5)
    assert differs(number(x)[:, 1], pts.ExponentialMovingAverage1d(alpha)(x)[:, 1]) < 1e-12
    assert torch.equal(number(x[0]), number(x[:1])[0])


# ---------------------------------------------------------------------- in models


class Twice(nn.Module):
    """One recurrence in two places, of two inputs and of one that is constant."""

    def __init__(self) -> None:
        super().__init__()
        self.scan = pts.LinearRecurrence()
        self.a = Parameter(torch.tensor([[0.9], [-0.5]]))

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        return self.scan(torch.sigmoid(a), b) + self.scan(self.a, torch.tanh(b))


MODELS = {
    "sru": lambda: SRU(3),
    "qrnn": lambda: QRNN(3, 4),
    "mingru": lambda: MinGRU(3, 4),
    "rglru": lambda: RGLRU(3, 4),
    "state_space": lambda: DiagonalStateSpace(3, 4),
    "state_space_paired": lambda: DiagonalStateSpace(3, 4, paired=True),
    "mamba": lambda: MambaLayer(3, states=2),
    "twice": lambda: nn.Sequential(nn.Conv1d(3, 4, 1), Twice()),
}
every_model = pytest.mark.parametrize("name", list(MODELS))


def model_of(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = MODELS[name]().double().eval()
    with torch.no_grad():
        for weight_name, weight in model.named_parameters():
            if weight_name.endswith("scan.start"):
                weight.normal_()
    return model


@pytest.mark.sample("mingru", "state_space_paired", "mamba", "twice", rest=9)
@every_model
def test_models_stream(name: str) -> None:
    net, x = model_of(name), uniform(2, 3, 200)
    stream = pts.create_stream(net, example=x[..., :40])
    kinds = [type(part).__name__ for part in stream.modules()]
    assert kinds.count("LinearRecurrenceStream") == (2 if name == "twice" else 1)  # a state for each place
    with torch.no_grad():
        whole = net(x)
        for size in (1, 40):
            assert differs(joined(stream, x.split(size, -1)), whole) < 1e-10
    LiveRows(stream, net, 4, (4,)).run(60).compare(5)


@pytest.mark.sample(rest=7)
@every_model
def test_every_rule_of_models(name: str) -> None:
    with torch.jit.optimized_execution(False):
        dtypes = [torch.float64, torch.float32]
        verify_stream(model_of(name).float(), (2, 3, 40), graph=True, static=True, dtypes=dtypes)


def test_mamba_as_its_authors_define_it() -> None:
    # The selective scan of their reference, a loop over time, with a state [B, E, N].
    layer = model_of("mamba")
    mixer, x = layer.mixer, uniform(2, 3, 30)
    with torch.no_grad():
        u, z = mixer.in_proj(x).chunk(2, 1)
        u = nn.functional.silu(mixer.conv(u)[..., :30])
        dt, b, c = mixer.x_proj(u).split([mixer.rank, mixer.states, mixer.states], 1)
        dt = nn.functional.softplus(mixer.dt_proj(dt))
        h, ys = torch.zeros(2, u.shape[1], mixer.states, dtype=x.dtype), []
        for t in range(30):
            step = dt[:, :, t, None]
            h = torch.exp(step * -mixer.A_log.exp()) * h + step * b[:, None, :, t] * u[:, :, t, None]
            ys.append((h * c[:, None, :, t]).sum(-1) + mixer.D[:, 0] * u[:, :, t])
        expected = mixer.out_proj(torch.stack(ys, -1) * nn.functional.silu(z))
        assert differs(mixer(x), expected) < 1e-12


def test_min_gru_and_a_state_space_as_they_are_defined() -> None:
    x = uniform(1, 3, 30)
    with torch.no_grad():
        net = model_of("mingru")
        z, h, ys = torch.sigmoid(net.gate(x)), net.scan.start[None], []
        for t in range(30):
            h = (1 - z[..., t]) * h + z[..., t] * net.candidate(x)[..., t]
            ys.append(h)
        assert differs(net(x), torch.stack(ys, -1)) < 1e-12
        net = model_of("state_space")
        factor = torch.exp(-torch.exp(net.rate) + 1j * net.angle)
        into, out = (weight.squeeze(2).chunk(2, dim) for weight, dim in ((net.into.weight, 0), (net.out.weight, 1)))
        h, ys = torch.zeros(4, dtype=torch.complex128), []
        for t in range(30):
            h = factor * h + torch.complex(into[0], into[1]) @ x[0, :, t].to(torch.complex128)
            ys.append((torch.complex(out[0], out[1]) @ h).real + net.direct[:, 0] * x[0, :, t])
        assert differs(net(x)[0], torch.stack(ys, -1)) < 1e-12


# ---------------------------------------------------------------------- what is refused


def test_what_does_not_fit() -> None:
    stream = pts.create_stream(pts.LinearRecurrence())
    with pytest.raises(pts.StreamInputError, match="invalid_chunk: 3 channels came; a multiple of 2"):
        stream(torch.zeros(1, 3, 4))
    for net in (pts.LinearRecurrence(torch.zeros(3), 0.5), pts.LinearRecurrence(decay=torch.zeros(3))):
        with pytest.raises(pts.StreamInputError, match="invalid_chunk: 2 states came; 3 were"):
            pts.create_stream(net)(torch.zeros(1, 2, 4))
    with pytest.raises(pts.StreamInputError, match="invalid_chunk: .*float32; the weights are float64|float32"):
        pts.create_stream(pts.LinearRecurrence(decay=torch.zeros(3).double()))(torch.zeros(1, 3, 4))
    with pytest.raises(ValueError, match="invalid_channels: values for 2 and 3 channels"):
        pts.LinearRecurrence(torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match="invalid_input: .*two inputs"):
        pts.LinearRecurrence(decay=0.5)(torch.zeros(1, 2, 4), torch.zeros(1, 2, 4))
    for alpha in (0.0, 1.5, torch.tensor([0.5, -0.1])):
        with pytest.raises(ValueError, match="invalid_alpha"):
            pts.ExponentialMovingAverage1d(alpha)
    with pytest.raises(ValueError, match="invalid_initial: initial='last'"):
        pts.ExponentialMovingAverage1d(0.5, "last")
    with pytest.raises(pts.StreamInputError, match="invalid_chunk: 3 channels came; 2 were"):
        pts.ExponentialMovingAverage1d(torch.tensor([0.5, 0.1]))(torch.zeros(1, 3, 4))
