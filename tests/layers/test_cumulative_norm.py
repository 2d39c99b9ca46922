"""Cumulative norms against plain sums, norms over channels against torch's own; and everything that streams do."""

import copy
import sys
import threading
from pathlib import Path
from typing import Any, List

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer.analysis import receptive_field
from torchstreamer.testing import split_signal, verify_stream
from torchstreamer.testing.live_rows import LiveRows
from torchstreamer.testing.strategies import chunkings

for _folder in ("models", "deploy"):
    sys.path.insert(0, str(Path(__file__).parents[1] / _folder))

from conv_tasnet import ConvTasNet, CumulativeLayerNorm  # noqa: E402
from runner_calls import GRAPH, PACKAGE, SCRIPT  # noqa: E402

torch.manual_seed(0)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_weights(net: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in net.parameters():
            weight.normal_()
    return net.eval()


def nets() -> Any:
    return {
        "layer": random_weights(pts.CumulativeLayerNorm1d(6)),
        "groups": random_weights(pts.CumulativeGroupNorm1d(2, 6)),
        "each": pts.CumulativeGroupNorm1d(6, 6, eps=0.1, affine=False),
    }


every_net = pytest.mark.parametrize("name", list(nets()))


def by_loops(net: Any, x: Tensor) -> Tensor:
    """Each frame by the mean and the variance of all values so far, in plain sums."""
    values, size = x.double().numpy(), x.shape[1] // net.num_groups
    y = np.empty_like(values)
    for b in range(values.shape[0]):
        for g in range(net.num_groups):
            rows = slice(g * size, (g + 1) * size)
            for t in range(values.shape[2]):
                seen = values[b, rows, : t + 1]
                y[b, rows, t] = (values[b, rows, t] - seen.mean()) / np.sqrt(seen.var() + net.eps)
    made = torch.from_numpy(y)
    return made if net.weight is None else made * net.weight.detach()[:, None] + net.bias.detach()[:, None]


def joined(stream: Any, chunks: Any) -> Tensor:
    with torch.no_grad():
        pieces = [stream(chunk) for chunk in chunks] + [stream.flush()]
    return torch.cat([piece for piece in pieces if piece is not None], -1)


def differs(y: Tensor, whole: Tensor) -> float:
    assert y.shape == whole.shape and y.dtype == whole.dtype
    return float((y.double() - whole.double()).abs().max() / whole.double().abs().max().clamp(min=1e-3))


# ---------------------------------------------------------------------- what they compute


@every_net
@pytest.mark.parametrize("mean", [0.0, 300.0])
def test_against_loops(name: str, mean: float) -> None:
    net = nets()[name]
    x = normal(2, 6, 50) + mean
    with torch.no_grad():
        assert differs(copy.deepcopy(net).double()(x), by_loops(net.double(), x)) < 1e-10
        single = x.float()
        assert differs(net.float()(single).double(), by_loops(net.double(), single)) < 1e-5
        assert torch.equal(net(x[0]), net(x[:1])[0])


def test_the_definition_of_conv_tasnet() -> None:
    # As its authors write it: sums of values and of their squares.
    ours, theirs = pts.CumulativeLayerNorm1d(8).double(), CumulativeLayerNorm(8).double()
    assert ours.eps == theirs.eps
    with torch.no_grad():
        for one, other in ((ours.weight, theirs.gamma), (ours.bias, theirs.beta)):
            one.normal_()
            other.copy_(one.view_as(other))
    x = normal(2, 8, 200)
    assert differs(ours(x).detach(), theirs(x).detach()) < 1e-10


def test_a_large_mean_costs_no_digits() -> None:
    x = torch.randn(1, 8, 100_000, generator=torch.Generator().manual_seed(3)) + 300
    net = pts.CumulativeLayerNorm1d(8)
    values = x[0].numpy().astype(np.longdouble) - 300
    n = 8 * np.arange(1, 100_001)
    mean = values.sum(0).cumsum() / n
    expected = (values - mean) / np.sqrt((values**2).sum(0).cumsum() / n - mean**2 + net.eps)
    whole = torch.from_numpy(expected.astype(np.float64))[None].float()
    with torch.no_grad():
        assert differs(net(x), whole) < 1e-6
    stream = pts.create_stream(net)
    assert differs(joined(stream, x.split([1] * 300 + [4096] * 20 + [17_780], -1)), whole) < 1e-6


def test_a_long_signal_does_not_drift() -> None:
    net, x = pts.CumulativeGroupNorm1d(2, 4).double(), normal(1, 4, 100_000, seed=4)
    x[..., 50_000:] += 1000
    with torch.no_grad():
        whole = net(x)
        for size in (997, 65_536):
            assert differs(joined(pts.create_stream(net), x.split(size, -1)), whole) < 1e-10


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_half_precision(dtype: torch.dtype, limit: float) -> None:
    net = nets()["groups"]
    x = (normal(2, 6, 40) + 10).to(dtype)
    with torch.no_grad():
        exact = by_loops(copy.deepcopy(net).to(dtype).double(), x).to(dtype)
        half = copy.deepcopy(net).to(dtype)
        assert differs(half(x), exact) < limit
        assert differs(joined(pts.create_stream(half), x.split(3, -1)), exact) < limit
        stream = pts.create_stream(net)
        with torch.autocast("cpu", dtype):
            assert differs(joined(stream, x.split(7, -1)), net(x)) < limit


# ---------------------------------------------------------------------- the streams


def test_every_rule() -> None:
    with torch.jit.optimized_execution(False):
        report = verify_stream(nets()["groups"], (2, 6, 30), static=True, dtypes=[torch.float64])
    assert report.cases("chunkings, scripted") > 0 and report.cases("foreign states") > 0


@pytest.mark.sample(rest=5)
@pytest.mark.parametrize(
    "net", [*nets().values(), random_weights(pts.LayerNorm1d(6)), random_weights(pts.RMSNorm1d(6))]
)
def test_every_rule_of_all(net: nn.Module) -> None:
    verify_stream(net, (2, 6, 40), static=True)


@settings(max_examples=10)
@given(data=st.data())
def test_any_chunking(data: Any) -> None:
    net = nets()[data.draw(st.sampled_from(list(nets())))].double()
    x = normal(2, 6, data.draw(st.integers(1, 90)))
    stream = pts.create_stream(net)
    with torch.no_grad():
        for _ in range(2):  # the second signal through a stream that was used
            pieces = [stream(chunk, final) for chunk, final in split_signal(x, data.draw(chunkings(x.shape[-1])))]
            assert differs(torch.cat([y for y in pieces if y is not None], -1), net(x)) < 1e-10


@pytest.mark.parametrize("size", [1, 5])
def test_rows_do_not_touch(size: int) -> None:
    net, x = nets()["groups"].double(), normal(3, 6, 40)
    with torch.no_grad():
        whole = net(x)
    for bad in (float("nan"), float("inf")):
        x[1, 2, 7] = bad
        y = joined(pts.create_stream(net), x.split(size, -1))
        assert differs(y[[0, 2]], whole[[0, 2]]) < 1e-10
        assert differs(y[1, 3:], whole[1, 3:]) < 1e-10  # the other group
        assert differs(y[1, :, :7], whole[1, :, :7]) < 1e-10
        assert y[1, :3, 7:].isnan().all()


def test_states_of_rows_of_different_age() -> None:
    net, x = nets()["layer"].double(), normal(2, 6, 60)
    with torch.no_grad():
        whole = net(x)
    streams = [pts.create_stream(net) for _ in range(2)]
    for stream, row, age in zip(streams, x, (7, 31), strict=True):
        stream(row[None, :, :age])
    state = pts.stack_states([stream.get_state() for stream in streams])
    assert state["memory.count"].tolist() == [7, 31] and state["memory.mean"].dtype == torch.float64
    both = torch.jit.script(pts.create_stream(net))
    both.set_state(state)
    with torch.no_grad():
        y = both(torch.stack([x[0, :, 7:27], x[1, :, 31:51]]), True)
    assert differs(y, torch.stack([whole[0, :, 7:27], whole[1, :, 31:51]])) < 1e-10
    with pytest.raises(pts.StreamInputError, match="the clock 'memory.count' came from -1"):
        streams[0].set_state({**streams[0].get_state(), "memory.count": torch.tensor([-1])})


def test_the_state_does_not_grow() -> None:
    stream = pts.create_stream(nets()["groups"].float())
    sizes = []
    for _ in range(2):
        joined_up = [stream(torch.randn(1, 6, 3)) for _ in range(200)]
        assert len(joined_up) == 200
        sizes.append(stream.state_nbytes())
    assert sizes[0] == sizes[1] <= 8 + 2 * 2 * 8 + 64


def test_two_threads_share_the_weights_alone() -> None:
    net, x = nets()["layer"].double(), normal(2, 1, 6, 300)
    found: List[Any] = [None, None]

    def run(i: int) -> None:
        found[i] = joined(pts.create_stream(net), x[i].split(3, -1))

    threads = [threading.Thread(target=run, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with torch.no_grad():
        assert all(differs(y, net(row)) < 1e-10 for y, row in zip(found, x, strict=True))


@pytest.mark.parametrize("chunk", [1, 4])
@every_net
def test_rows_of_any_age(name: str, chunk: int) -> None:
    net = nn.Sequential(nn.Conv1d(2, 6, 3), nets()[name], nn.Conv1d(6, 2, 2)).double()
    LiveRows(pts.create_stream(net), net, chunk, (5, 3), seed=chunk).run(80).compare(10)


def test_its_field_is_unbounded_and_it_looks_at_nothing_ahead() -> None:
    stream = pts.create_stream(nets()["layer"])
    assert list(receptive_field(stream).phases) == [(float("inf"), 0)]
    assert stream.output_length(5, False) == 5


@pytest.mark.sample("script", rest=3)
@pytest.mark.parametrize("suffix", [SCRIPT, PACKAGE, GRAPH])
def test_files(suffix: str, tmp_path: Path) -> None:
    net, x = nn.Sequential(nn.Conv1d(2, 6, 3), nets()["groups"]).float(), normal(1, 2, 70).float() + 5
    path = tmp_path / f"norm{suffix}"
    pts.export(pts.create_stream(net), path, **({} if suffix == ".pt" else {"chunk": 4}))
    with torch.no_grad():
        assert differs(joined(pts.load(path), x.split([1, 9, 5, 55], -1)), net(x)) < 1e-5


# ---------------------------------------------------------------------- in models, and what is refused


def test_a_causal_conv_tasnet() -> None:
    torch.manual_seed(0)
    options = {"filters": 8, "window": 8, "bottleneck": 6, "hidden": 8, "skip": 6, "blocks": 2, "repeats": 1}
    net = ConvTasNet(norm="cLN, exact", **options).double().eval()
    stream = pts.create_stream(net, example=normal(2, 1, 80), length_multiple=4)
    kinds = [type(part).__name__ for part in stream.modules()]
    assert kinds.count("CumulativeLayerNorm1dStream") == 5  # whole, each with a state of its own
    x = normal(2, 1, 400)
    with torch.no_grad():
        whole = net(x)
    for size in (4, 37):
        assert differs(joined(stream, x.split(size, -1)), whole) < 1e-10
    LiveRows(stream, net, 8, (3,), multiple=4).run(60).compare(3)


@pytest.mark.long
def test_every_rule_of_conv_tasnet() -> None:
    options = {"filters": 8, "window": 8, "bottleneck": 6, "hidden": 8, "skip": 6, "blocks": 2, "repeats": 1}
    net = ConvTasNet(norm="cLN, exact", **options).eval()
    tolerances = {torch.float32: 1e-4}
    with torch.jit.optimized_execution(False):
        verify_stream(net, (2, 1, 80), graph=True, static=True, length_multiple=4, tolerances=tolerances)


@pytest.mark.parametrize(
    ("norm", "remedy"),
    [
        (nn.GroupNorm(2, 4), "use pts.CumulativeGroupNorm1d, "),
        (nn.InstanceNorm1d(4), "use pts.CumulativeGroupNorm1d with a group for each channel"),
        (nn.LayerNorm(4), r"use pts.LayerNorm1d.of\(norm\)"),
        (nn.RMSNorm(4), r"use pts.RMSNorm1d.of\(norm\)"),
    ],
)
def test_others_are_refused_with_the_name_of_one_that_streams(norm: nn.Module, remedy: str) -> None:
    with pytest.raises(pts.UnsupportedModuleError, match=remedy):
        pts.create_stream(nn.Sequential(nn.Conv1d(2, 4, 3), norm.eval()))


@pytest.mark.parametrize("kind", [nn.LayerNorm, nn.RMSNorm])
def test_norms_over_channels(kind: Any) -> None:
    norm = random_weights(kind(5, eps=1e-3)).double()
    ours = {nn.LayerNorm: pts.LayerNorm1d, nn.RMSNorm: pts.RMSNorm1d}[kind]
    shared, loaded = ours.of(norm), ours(5, eps=1e-3).double()
    loaded.load_state_dict(norm.state_dict())
    x = normal(2, 5, 30)
    stream = pts.create_stream(shared)
    with torch.no_grad():
        for _ in range(2):
            whole = norm(x.transpose(1, 2)).transpose(1, 2)
            assert differs(shared(x), whole) < 1e-12 and differs(shared(x[0]), whole[0]) < 1e-12
            assert differs(joined(stream, x.split(7, -1)), whole) < 1e-12
            assert differs(loaded(x), whole) < 1e-12
            norm.weight.mul_(2)  # seen by all that share it
            loaded.load_state_dict(norm.state_dict())
    assert shared.weight is norm.weight
    with pytest.raises(pts.StreamInputError, match="invalid_chunk: 4 channels came; 5 were"):
        stream(x[:, :4])
    with pytest.raises(ValueError, match=r"invalid_norm: .* over \[3, 4\] came"):
        ours.of(kind((3, 4)))


def test_norms_without_weights_and_without_bias() -> None:
    x = normal(1, 5, 9)
    for norm in (nn.LayerNorm(5, elementwise_affine=False), nn.LayerNorm(5, bias=False).double()):
        made = pts.LayerNorm1d.of(norm)
        assert differs(pts.create_stream(made)(x).detach(), norm(x.transpose(1, 2)).transpose(1, 2).detach()) < 1e-12


class Frames(nn.Module):
    """Norms over the last axis of [B, T, C], as models have them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.rms, self.conv = nn.LayerNorm(4), nn.RMSNorm(4), nn.Conv1d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.rms(self.layer(x))
        return self.conv(x.transpose(1, 2)).transpose(1, 2)


def test_torchs_norms_inside_captured_models() -> None:
    net, x = Frames().double().eval(), normal(2, 30, 4)
    stream = pts.create_stream(net, example=x, time_dim=1)
    with torch.no_grad():
        pieces = [stream(chunk) for chunk in x.split(7, 1)] + [stream.flush()]
        assert differs(torch.cat(pieces, 1), net(x)) < 1e-10


def test_arguments_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="invalid_groups: 4 groups of 6 channels"):
        pts.CumulativeGroupNorm1d(4, 6)
    with pytest.raises(ValueError, match=r"invalid_chunk: .* got \[1, 5, 3\]; \[B, 6, T\]"):
        pts.CumulativeLayerNorm1d(6)(torch.zeros(1, 5, 3))
    stream = pts.create_stream(pts.CumulativeLayerNorm1d(6))
    for chunk, text in ((torch.zeros(1, 5, 3), "5 channels came; 6 were"), (normal(1, 6, 3), "float64")):
        with pytest.raises(pts.StreamInputError, match=text):
            stream(chunk)
    assert pts.CumulativeLayerNorm1d(2)(torch.zeros(1, 2, 0)).shape == (1, 2, 0)
