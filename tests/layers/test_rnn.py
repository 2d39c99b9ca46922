"""Recurrent layers of torch, against the layers themselves on whole signals."""

import copy
import sys
from pathlib import Path
from typing import Any, List, Optional

import pytest
import torch
from recurrent_signals import differs, joined, normal
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer.analysis import receptive_field
from torchstreamer.testing import verify_stream

sys.path.insert(0, str(Path(__file__).parents[1] / "deploy"))

from runner_calls import GRAPH, PACKAGE, SCRIPT

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")


KINDS: Any = {
    "gru": lambda: nn.GRU(3, 4),
    "gru, two layers, batch first": lambda: nn.GRU(3, 4, 2, batch_first=True),
    "gru without biases": lambda: nn.GRU(3, 2, 3, bias=False),
    "lstm": lambda: nn.LSTM(3, 4, batch_first=True),
    "lstm, two layers": lambda: nn.LSTM(3, 4, 2, dropout=0.5),
    "lstm with projections": lambda: nn.LSTM(3, 4, 2, proj_size=2),
    "lstm with a projection, without biases": lambda: nn.LSTM(3, 4, proj_size=2, bias=False),
    "rnn": lambda: nn.RNN(3, 4),
    "rnn, relu, two layers": lambda: nn.RNN(3, 4, 2, nonlinearity="relu", batch_first=True),
    "rnn without biases": lambda: nn.RNN(3, 4, 2, bias=False),
}
every_kind = pytest.mark.parametrize("kind", list(KINDS))


def layer(kind: str, dtype: torch.dtype = torch.float64) -> Any:
    torch.manual_seed(0)
    return KINDS[kind]().to(dtype).eval()


def offline(net: Any, x: Tensor, hx: Any = None) -> Tensor:
    """What the layer itself gives, turned to [B, C, T]."""
    if net.batch_first:
        return net(x.transpose(1, 2), hx)[0].transpose(1, 2)
    return net(x.permute(2, 0, 1), hx)[0].permute(1, 2, 0)


# ---------------------------------------------------------------------- the contract


@pytest.mark.sample(rest=7, long=("lstm with projections", "rnn, relu, two layers"))
@every_kind
def test_every_rule(kind: str) -> None:
    report = verify_stream(layer(kind), (2, 3, 30), static=True)
    assert report.cases("chunkings, scripted") > 0


@every_kind
@pytest.mark.parametrize(
    ("dtype", "limit"), [(torch.float64, 1e-10), (torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 2e-2)]
)
def test_short_and_long_chunks_agree(kind: str, dtype: torch.dtype, limit: float) -> None:
    net, x = layer(kind, dtype), normal(2, 3, 90).to(dtype)
    stream = pts.create_stream(net)
    with torch.no_grad():
        whole = offline(net, x)
        if dtype == torch.bfloat16:  # of two projections torch itself computes no more than that
            limit = max(limit, 1.5 * differs(whole.double(), offline(copy.deepcopy(net).double(), x.double())))
        for sizes in ((1,), (1, 2, 3, 5, 0, 17), (7, 30)):
            assert differs(joined(stream, x, *sizes), whole) < limit
        assert differs(joined(stream, x[1], 4), whole[1]) < limit
    assert stream.output_length(90) == 90


def starts(net: Any, seed: int = 3) -> List[Tensor]:
    sizes = [net.proj_size or net.hidden_size, net.hidden_size][: 2 if isinstance(net, nn.LSTM) else 1]
    return [normal(net.num_layers, 1, size, seed=seed + i) for i, size in enumerate(sizes)]


@pytest.mark.parametrize("kind", ["gru, two layers, batch first", "lstm with projections", "rnn"])
@pytest.mark.parametrize("learned", [False, True])
def test_an_initial_state(kind: str, learned: bool) -> None:
    net, x = layer(kind), normal(2, 3, 20)
    given = [nn.Parameter(start) if learned else start.squeeze(1) for start in starts(net)]
    wrapped = pts.Recurrent1d(net, given if len(given) > 1 else given[0])
    hx = tuple(start.expand(-1, 2, -1).contiguous() for start in starts(net))
    whole = offline(net, x, hx if len(hx) > 1 else hx[0])
    assert differs(wrapped(x), whole) == 0 and differs(wrapped(x[0]), whole[0]) < 1e-12
    stream = pts.create_stream(wrapped)
    assert differs(joined(stream, x, 1, 6), whole) < 1e-10
    assert differs(joined(torch.jit.script(stream), x, 3), whole) < 1e-10
    if learned:
        gradients = torch.autograd.grad(whole.square().sum(), net.weight_hh_l0)
        y = joined(stream, x, 1, 6)
        found = torch.autograd.grad(y.square().sum(), [net.weight_hh_l0, *given])
        torch.testing.assert_close(found[0], gradients[0])
        expected = torch.autograd.grad(wrapped(x).square().sum(), given)
        torch.testing.assert_close(found[1:], expected)


@pytest.mark.long
def test_every_rule_with_an_initial_state() -> None:
    net = layer("lstm with projections")
    verify_stream(pts.Recurrent1d(net, [nn.Parameter(start) for start in starts(net)]), (2, 3, 30), static=True)


# ---------------------------------------------------------------------- weights, states, modes


@pytest.mark.parametrize("kind", ["gru", "lstm, two layers", "lstm with projections", "rnn, relu, two layers"])
@pytest.mark.parametrize("script", [False, True])
def test_weights_are_live(kind: str, script: bool) -> None:
    net, other, x = layer(kind), copy.deepcopy(layer(kind)), normal(1, 3, 12)
    stream = pts.create_stream(net)
    stream = torch.jit.script(stream) if script else stream
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(0.5)
        joined(stream, x, 1, 9)
        net.load_state_dict(other.state_dict())
        assert differs(joined(stream, x, 1, 9), offline(other, x)) < 1e-10
        for weight in net.parameters():
            weight.data = weight.data * 2
        assert differs(joined(stream, x, 1, 9), offline(layer(kind), x)) < 1e-10
        net.float()
        assert differs(joined(stream, x.float(), 1, 9), offline(net, x.float())) < 1e-5


def test_a_state_has_rows_first() -> None:
    net, x = layer("lstm with projections"), normal(2, 3, 9)
    stream = pts.create_stream(net)
    stream(x)
    state = stream.get_state()
    assert state["memory.h"].shape == (2, 2, 2) and state["memory.c"].shape == (2, 2, 4)
    _, (h, c) = net(x.permute(2, 0, 1))
    torch.testing.assert_close(state["memory.h"], h.transpose(0, 1))
    torch.testing.assert_close(state["memory.c"], c.transpose(0, 1))


def test_a_state_is_as_large_after_many_chunks() -> None:
    stream = pts.create_stream(layer("lstm, two layers"))
    x = normal(1, 3, 5000)
    sizes = []
    with torch.no_grad():
        for i in range(1000):
            stream(x[..., 5 * i : 5 * i + (i % 5) + 1])
            sizes.append(stream.state_nbytes())
    assert set(sizes) == {2 * 2 * 4 * 8}
    assert all(held.untyped_storage().nbytes() == 2 * 4 * 8 for held in stream.memory.rows())


def test_what_came_out_is_not_the_state() -> None:
    # An activation in place comes right after it.
    net = nn.Sequential(pts.Recurrent1d(layer("gru")), nn.ReLU(inplace=True), pts.Recurrent1d(nn.RNN(4, 2).double()))
    x = normal(2, 3, 20)
    with torch.no_grad():
        assert differs(joined(pts.create_stream(net), x, 1, 2, 9), net(x)) < 1e-10


@pytest.mark.parametrize("kind", ["gru", "lstm", "rnn"])
def test_autocast(kind: str) -> None:
    net, x = layer(kind, torch.float32), normal(2, 3, 40).float()
    stream = pts.create_stream(net)
    with torch.no_grad():
        exact = offline(net, x)
        with torch.autocast("cpu", torch.bfloat16):
            whole = offline(net, x)
            for each in (stream, torch.jit.script(stream)):
                for sizes in ((1, 2, 9), (1,), (40,)):
                    y = joined(each, x, *sizes)
                    # In scripts torch narrows the cells of a GRU too.
                    assert y.shape == whole.shape and (y.dtype == whole.dtype or (kind == "gru" and each is not stream))
                    assert float((y.double() - whole.double()).abs().max()) < 2e-2 * float(exact.abs().max())


@pytest.mark.sample("rnn", rest=3, long=("gru",))
@pytest.mark.parametrize("kind", ["gru", "lstm", "rnn"])
def test_silence_leaves_no_denormal_numbers(kind: str) -> None:
    # With gates near 1 a state fades slowly, and comes to rest at numbers a step with which takes ten times as long.
    net, dtype = layer(kind, torch.float32), torch.float32
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if "bias" in name:
                weight.zero_()
                if kind != "rnn":
                    weight[net.hidden_size : 2 * net.hidden_size] = 2
            elif kind == "rnn":
                weight.copy_(0.98 * torch.eye(*weight.shape))
    smallest = torch.finfo(dtype).tiny
    stream = pts.create_stream(net)
    streams = [stream, torch.jit.script(stream), pts.compile(stream, chunk=1, backend="eager")]
    with torch.no_grad():
        faded = net(torch.cat([normal(9, 1, 3), torch.zeros(8000, 1, 3)]).to(dtype))[1]
        faded = [state.abs() for state in (faded if isinstance(faded, tuple) else (faded,))]
        if kind != "lstm":  # oneDNN, which computes it, has none
            assert any(bool(((state > 0) & (state < smallest)).any()) for state in faded), "torch itself has none"
        for each, size in zip(streams, (1, 40, 1), strict=True):
            each(normal(1, 3, 9).to(dtype))
            for _ in range(3000 // size):
                each(torch.zeros(1, 3, size, dtype=dtype))
            held = [state.abs() for name, state in each.get_state().items() if name.endswith((".h", ".c"))]
            assert not any(bool(((state > 0) & (state < smallest)).any()) for state in held), size


def test_truncated_back_propagation() -> None:
    net, x = layer("gru, two layers, batch first"), normal(2, 3, 20)
    stream = pts.create_stream(net)
    expected = torch.autograd.grad(offline(net, x).square().sum(), list(net.parameters()))
    found = torch.autograd.grad(joined(stream, x, 1, 6).square().sum(), list(net.parameters()))
    torch.testing.assert_close(found, expected)
    y, hidden = net(x[..., :12].transpose(1, 2))
    z, _ = net(x[..., 12:].transpose(1, 2), hidden.detach())
    expected = torch.autograd.grad(z.square().sum(), list(net.parameters()))
    stream(x[..., :12])
    stream.detach_state()
    found = torch.autograd.grad(stream(x[..., 12:]).square().sum(), list(net.parameters()))
    torch.testing.assert_close(found, expected)


# ---------------------------------------------------------------------- analysis, files


def test_its_field_and_cost() -> None:
    stream = pts.create_stream(nn.Sequential(nn.Conv1d(3, 3, 4, stride=2), pts.Recurrent1d(nn.LSTM(3, 4, 2))))
    assert {left for left, _ in receptive_field(stream).phases} == {float("inf")}
    lstm = pts.create_stream(layer("lstm with projections"))
    per_sample = 16 * (3 + 2) + 2 * 4 + 16 * (2 + 2) + 2 * 4
    assert lstm.multiply_adds(10, 10) == 10 * per_sample


@pytest.mark.sample(rest=14)
@pytest.mark.parametrize("chunk", [4, 24])  # by cells and by the operators of whole sequences
@pytest.mark.parametrize("suffix", [SCRIPT, PACKAGE, GRAPH])
@pytest.mark.parametrize("kind", ["lstm", "gru, two layers, batch first", "lstm with projections", "rnn"])
def test_files(kind: str, suffix: str, chunk: int, tmp_path: Path) -> None:
    net, x = layer(kind, torch.float32), normal(1, 3, 50).float()
    path = tmp_path / f"net{suffix}"
    pts.export(pts.create_stream(net), path, **({} if suffix == ".pt" else {"chunk": chunk}))
    runner = pts.load(path)
    with torch.no_grad():
        assert differs(joined(runner, x, 1, 9, 5), offline(net, x)) < 1e-5


# ---------------------------------------------------------------------- refusals


def refusal(net: nn.Module, example: Optional[Tensor] = None) -> pts.UnsupportedModuleError:
    with pytest.raises(pts.UnsupportedModuleError) as caught:
        pts.create_stream(net, example)
    return caught.value


def test_refused() -> None:
    both = nn.Sequential(nn.Conv1d(3, 3, 1), pts.Recurrent1d(nn.GRU(3, 4, bidirectional=True)))
    error = refusal(both)
    assert error.code == "bidirectional" and error.path == "1.rnn" and "end of the signal" in str(error)
    dropping = nn.LSTM(3, 4, 2, dropout=0.1)
    assert refusal(dropping).code == "training_mode"
    pts.create_stream(dropping.eval())
    pts.create_stream(nn.LSTM(3, 4, 2))  # which drops nothing
    for cell in (nn.GRUCell, nn.LSTMCell, nn.RNNCell):
        error = refusal(nn.Sequential(cell(3, 3)))
        assert error.code == "single_step" and f"nn.{cell.__name__[:-4]}" in str(error)
    for wrong in (torch.zeros(3, 4), [torch.zeros(1, 4)] * 2, torch.zeros(1, 2, 4)):
        assert refusal(pts.Recurrent1d(nn.GRU(3, 4), wrong)).code == "initial_state"
    assert refusal(nn.Sequential(nn.GRU(3, 3))).code == "handler_layout"
    report = pts.is_streamable(nn.Sequential(nn.ReLU(), nn.GRU(3, 3)))
    assert [module.path for module in report if module.handler is None] == ["", "1"]
    with pytest.raises(pts.UnsupportedModuleError, match="wrong_module"):
        pts.Recurrent1d(nn.GRUCell(3, 4))

    class Changed(nn.GRU):
        def forward(self, x: Tensor) -> Any:
            return super().forward(2 * x)

    assert refusal(pts.Recurrent1d(Changed(3, 4))).code == "changed_forward"
    with pytest.raises(ValueError, match="invalid_axes"):
        pts.Axes("btf")


def test_wrong_chunks() -> None:
    stream = pts.create_stream(layer("gru"))
    for chunk, text in ((normal(1, 4, 2), "4 channels came; 3 were"), (normal(1, 3, 2).float(), "float32")):
        with pytest.raises(pts.StreamInputError, match=text):
            stream(chunk)
    assert not stream.memory.started()
