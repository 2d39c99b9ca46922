"""Recurrences: of two functions, everything that a stream does. The example's LSTM against torch's own, and others."""

import copy
import sys
from pathlib import Path
from typing import Any, List, Tuple

import pytest
import torch
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer.analysis import receptive_field
from torchstreamer.testing import verify_stream
from torchstreamer.testing.live_rows import LiveRows

for _folder in ("examples", "tests/deploy"):
    sys.path.insert(0, str(Path(__file__).parents[2] / _folder))

from lstm_handler import Lstm  # noqa: E402
from recurrent_signals import differs, joined, normal  # noqa: E402
from runner_calls import GRAPH, PACKAGE, SCRIPT, needs_compiler, needs_onnx  # noqa: E402


def nets() -> Any:
    torch.manual_seed(0)
    lagging = nn.Sequential(nn.Conv1d(2, 4, 3), Lstm(4, 3), nn.Conv1d(3, 2, 2))
    rates = nn.Sequential(nn.Conv1d(2, 4, 4, stride=2, padding=1), Lstm(4, 3), nn.ConvTranspose1d(3, 1, 4, 2, 1))
    twice = nn.Sequential(nn.Conv1d(2, 4, 5, padding=2), Lstm(4, 3), Lstm(3, 2), nn.Conv1d(2, 2, 3, padding=1))
    return {"alone": Lstm(2, 3), "lagging": lagging, "rates": rates, "twice": twice}


every_net = pytest.mark.parametrize("name", list(nets()))


def net_of(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    return nets()[name].to(dtype).eval()


# ---------------------------------------------------------------------- others than the LSTM


class Decay(nn.Module):
    """A running mean that begins with a learned value: h = a·h + (1 - a)·x, and the step that it took."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.linspace(-1, 1, channels))
        self.a = nn.Parameter(torch.tensor(0.7))

    def forward(self, x: Tensor) -> Tensor:
        h, ys = self.start.expand(x.size(0), -1), []
        for sample in x.unbind(2):
            h = self.a * h + (1 - self.a) * sample
            ys.append(h)
        return torch.stack(ys, 2)


@pts.register_streamer(Decay)
class DecayStream(pts.RecurrentStream):
    def __init__(self, net: Decay) -> None:
        super().__init__(net.start.numel())
        self.net = net

    def initial(self, x: Tensor) -> List[Tensor]:
        return [self.net.start.expand(x.size(0), x.size(1))]

    def advance(self, x: Tensor, state: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        h, a = state[0], self.net.a
        ys: List[Tensor] = []
        for sample in x.unbind(2):
            h = a * h + (1 - a) * sample
            ys.append(h)
        y = torch.stack(ys, 2)
        return y, [y[:, :, -1]]  # a view, which is not kept


class Average(nn.Module):
    """The exponential moving average, which begins with the first sample."""

    def forward(self, x: Tensor) -> Tensor:
        y, ys = x[..., 0], []
        for sample in x.unbind(-1):
            y = 0.9 * y + 0.1 * sample
            ys.append(y)
        return torch.stack(ys, -1)


@pts.register_streamer(Average)
class AverageStream(pts.RecurrentStream):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()

    def initial(self, x: Tensor) -> List[Tensor]:
        return [x[:, :, 0]]

    def advance(self, x: Tensor, state: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        y = state[0]
        ys: List[Tensor] = []
        for sample in x.unbind(2):
            y = 0.9 * y + 0.1 * sample
            ys.append(y)
        return torch.stack(ys, 2), [y]


class Counting(nn.Module):
    """Samples, their signs flipped at every fourth position, and whether any was above 1: states of three dtypes."""

    def forward(self, x: Tensor) -> Tensor:
        sign = 1 - 2 * (torch.arange(x.size(-1), device=x.device) % 4 == 3).to(x.dtype)
        above = (x > 1).cummax(-1).values.to(x.dtype)
        return torch.cat([x * sign, above, x.cumsum(-1)], 1)


@pts.register_streamer(Counting)
class CountingStream(pts.RecurrentStream):
    def __init__(self, net: nn.Module) -> None:
        super().__init__(names=["clock", "above", "sum"])

    def initial(self, x: Tensor) -> List[Tensor]:
        above = torch.zeros([x.size(0), x.size(1), 1], dtype=torch.bool, device=x.device)
        return [torch.zeros([x.size(0)], dtype=torch.int64, device=x.device), above, torch.zeros_like(x[:, :, 0])]

    def advance(self, x: Tensor, state: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        clock, above, total = state
        place = clock.view([-1, 1, 1]) + torch.arange(x.size(2), device=x.device)
        sign = 1 - 2 * (place % 4 == 3).to(x.dtype)
        reached = (x > 1).to(torch.int8).cummax(2)[0].to(torch.bool) | above
        sums = torch.cat([total.unsqueeze(2), x], 2).cumsum(2).narrow(2, 1, x.size(2))
        after = [clock + x.size(2), reached[:, :, -1:], sums[:, :, -1]]
        return torch.cat([x * sign, reached.to(x.dtype), sums], 1), after

    def output_channels(self, channels: int) -> int:
        return 3 * channels


# ---------------------------------------------------------------------- the stream


@pytest.mark.sample(rest=2)
@pytest.mark.parametrize("name", ["alone", "rates"])
def test_the_example_keeps_the_contract(name: str) -> None:
    report = verify_stream(net_of(name), normal(2, 2, 40))
    assert report.cases("chunkings, scripted") > 0 and report.cases("foreign states") > 0


@pytest.mark.sample(rest=9)
@pytest.mark.parametrize("net", [Decay(3), Average(), Counting()])
def test_other_recurrences_keep_the_contract(net: nn.Module) -> None:
    report = verify_stream(net, normal(2, 3, 30))
    assert report.cases("chunkings, scripted") > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@torch.no_grad()
def test_other_dtypes(dtype: torch.dtype) -> None:
    net, x = net_of("lagging", dtype), normal(2, 2, 50).to(dtype)
    whole = net(x)
    limit = 1e-5 if dtype == torch.float32 else 1e-2
    assert differs(joined(pts.create_stream(net), x, 1, 7, 0, 3), whole) < limit
    assert differs(joined(pts.create_stream(net), x[1], 5), whole[1]) < limit


def test_a_learned_start_gets_gradients() -> None:
    net = Decay(3).double()
    x = normal(2, 3, 20)
    net(x).square().sum().backward()
    expected = [weight.grad.clone() for weight in net.parameters()]
    net.zero_grad()
    stream = pts.create_stream(net)
    torch.cat([stream(chunk) for chunk in x.split(6, -1)], -1).square().sum().backward()
    for weight, gradient in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(weight.grad, gradient)
    stream.detach_state()
    net.zero_grad()
    stream(x).square().sum().backward()
    assert net.start.grad is None or float(net.start.grad.abs().max()) == 0


def test_a_recurrence_in_a_captured_model() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.lstm, self.mix = nn.Conv1d(2, 4, 3, padding=1), Lstm(2, 3), nn.Conv1d(6, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            rows, _, n = x.shape
            bands = torch.relu(self.conv(x)).reshape(2 * rows, 2, n)
            return x + torch.tanh(self.mix(self.lstm(bands).reshape(rows, 6, n)))

    torch.manual_seed(0)
    net = Model().double().eval()
    stream = pts.create_stream(net, example=normal(2, 2, 30))
    x = normal(3, 2, 50)
    with torch.no_grad():
        whole = net(x)
        assert differs(joined(stream, x, 7), whole) < 1e-10
        stream(x[..., :10])
        states = pts.unstack_state(stream.get_state())
        assert states[0]["nodes.2.stream.memory.hidden"].shape == (1, 2, 3)  # rows of the signal, not of the bands
        script = torch.jit.script(stream)
        script.set_state(pts.stack_states([states[2], states[0]]))
        y = script(x[[2, 0], :, 10:], True)
    assert differs(y, whole[[2, 0], :, -y.shape[-1] :]) < 1e-10
    LiveRows(stream, net, 5, (4, 2)).run(80).compare(5)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_script_moves(wrapped: bool) -> None:
    net = Decay(2).float()
    stream = pts.create_stream(nn.Sequential(nn.ReLU(), net) if wrapped else net)
    scripted = torch.jit.script(stream).double()
    x = torch.rand(1, 2, 9, dtype=torch.float64)
    expected = pts.create_stream(copy.deepcopy(net).double())(x, True)
    for _ in range(2):
        torch.testing.assert_close(scripted(x, True), expected)
    with pytest.raises(torch.jit.Error, match="invalid_chunk: "):
        scripted(x.float())


def test_its_field_is_unbounded() -> None:
    field = receptive_field(pts.create_stream(net_of("rates")))
    assert list(field.phases) == [(float("inf"), 2), (float("inf"), 3)]


# ---------------------------------------------------------------------- what is refused


def damaged(state: Any) -> Any:
    hidden = state["memory.hidden"]
    yield "no cell", {key: value for key, value in state.items() if key != "memory.cell"}
    yield "two rows", {**state, "memory.hidden": torch.cat([hidden, hidden])}
    yield "a rank more", {**state, "memory.hidden": hidden.unsqueeze(2)}
    yield "a number", {**state, "memory.hidden": torch.tensor(3)}
    yield "another name", {**{k: v for k, v in state.items() if k != "memory.cell"}, "memory.c": state["memory.cell"]}


@pytest.mark.parametrize("script", [False, True])
def test_damaged_states(script: bool) -> None:
    stream = pts.create_stream(net_of("alone"))
    stream = torch.jit.script(stream) if script else stream
    x = normal(1, 2, 9)
    stream(x)
    before = stream.get_state()
    error = torch.jit.Error if script else pts.StreamInputError
    for what, state in damaged(before):
        with pytest.raises(error, match="invalid_state"):
            stream.set_state(state)
            raise AssertionError(f"a state with {what} was taken")
        after = stream.get_state()
        assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    stream.set_state(before)


def test_wrong_chunks_are_refused_before_anything_is_written() -> None:
    stream = pts.create_stream(net_of("alone"))
    for chunk, text in ((normal(1, 3, 4), "3 channels came; 2 were"), (normal(1, 2, 4).float(), "float32")):
        with pytest.raises(pts.StreamInputError, match=text):
            stream(chunk)
    assert not stream.memory.started()
    assert pts.StaticStream(stream, chunk=4).channels == 2


def test_a_recurrence_that_changes_its_lengths() -> None:
    class Short(DecayStream):
        def advance(self, x: Tensor, state: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
            return x[:, :, 1:], state

    class Growing(DecayStream):
        def advance(self, x: Tensor, state: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
            return x, [torch.cat([state[0], state[0]], 1)]

    for kind, code in ((Short, "invalid_output"), (Growing, "invalid_memory")):
        with pytest.raises(pts.StreamError, match=code):
            kind(Decay(2))(torch.ones(1, 2, 3))


# ---------------------------------------------------------------------- static rows, compiled steps, files


@pytest.mark.sample(every=3, rest=99)
@every_net
@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 10])
def test_rows_of_any_age(name: str, chunk: int) -> None:
    net = net_of(name)
    stream = pts.create_stream(net)
    if chunk % stream.hop == 0:
        LiveRows(stream, net, chunk, (5, 3), seed=chunk).run(120).compare(10)


@pytest.mark.parametrize("chunk", [1, 4, 5])
@pytest.mark.parametrize("inner", [Decay(4), Average(), Counting()])
def test_rows_of_any_age_of_others(inner: nn.Module, chunk: int) -> None:
    net = nn.Sequential(nn.Conv1d(2, 4, 3), inner, nn.Conv1d(12 if isinstance(inner, Counting) else 4, 2, 2)).double()
    static = LiveRows(pts.create_stream(net), net, chunk, (5, 3), seed=chunk).run(120)
    static.compare(10)
    dtypes = [value.dtype for name, value in static.statics[0].init_state().items() if name.startswith("ring.1")]
    if isinstance(inner, Counting):
        assert dtypes == [torch.int64, torch.bool, torch.float64]


@pytest.mark.parametrize("chunk", [1, 4, 6])
def test_it_waits_for_nothing(chunk: int) -> None:
    # A recurrence in the middle of a step adds no lag.
    net = nn.Sequential(nn.Conv1d(2, 4, 3), Lstm(4, 3)).eval()
    assert pts.StaticStream(pts.create_stream(net), chunk=chunk).lag == 2


@pytest.mark.sample("eager", rest=3)
@pytest.mark.parametrize(
    "backend", ["eager", pytest.param("aot", marks=needs_compiler), pytest.param("onnx", marks=needs_onnx)]
)
@torch.no_grad()
def test_compiled_steps(backend: str) -> None:
    net, x = net_of("rates", torch.float32), normal(2, 2, 90).float()
    stream = pts.compile(pts.create_stream(net), chunk=2, batch=2, backend=backend, autotune=False)
    whole = net(x)
    for sizes in ((2,), (2, 2, 2, 2, 2, 2, 2, 3, 6, 4)):
        assert differs(joined(stream, x, *sizes), whole) < 1e-5
    joined(stream, x[..., :40], 2)
    stream(x[..., :10])
    for _ in range(5):
        stream(x[..., :2])
    assert stream.get_state()["stream.streams.1.memory.hidden"].shape == (2, 3)
    twin = copy.deepcopy(stream)
    assert differs(joined(twin, x[..., 40:], 2), joined(stream, x[..., 40:], 5)) < 1e-5


@torch.no_grad()
def test_a_compiled_step_with_states_of_several_dtypes() -> None:
    net, x = Counting(), normal(1, 2, 40).float()
    stream = pts.compile(pts.create_stream(net), chunk=3, channels=2, backend="eager")
    assert differs(joined(stream, x, 3), net(x)) < 1e-5


@pytest.mark.sample("onnx", rest=4)
@pytest.mark.parametrize("suffix", [SCRIPT, PACKAGE, GRAPH])
@torch.no_grad()
def test_files(suffix: str, tmp_path: Path) -> None:
    net, x = net_of("rates", torch.float32), normal(1, 2, 70).float()
    path = tmp_path / f"lstm{suffix}"
    pts.export(pts.create_stream(net), path, **({} if suffix == ".pt" else {"chunk": 4}))
    runner = pts.load(path)
    whole = net(x)
    assert differs(joined(runner, x, 1, 9, 5), whole) < 1e-5
    runner(x[..., :20])
    state = runner.get_state()
    other = pts.load(path)
    other.set_state(state)
    assert differs(joined(other, x[..., 20:], 7), joined(runner, x[..., 20:], 11)) < 1e-6
