"""Streams stay apart: modes of torch, threads, copies, training mode, tensors of other kinds."""

import copy
import importlib.util
import pickle
import sys
import threading
import warnings
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest
import torch
from torch import Tensor, nn

import torchstreamer as pts

sys.path.insert(0, str(Path(__file__).parent))

import damage


class Two(nn.Module):
    """Two inputs, one of them static, and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 2, 9)

    def forward(self, x: Tensor, gain: Tensor) -> Any:
        y = self.conv(x) * gain[:, :, None]
        return y, torch.cumsum(y, -1) + x[..., 8:]


class TwoInputs:
    """`Two` called like a stream of one signal."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        x, self.gain = torch.randn(1, 2, 30), torch.ones(1, 2)
        self.stream = pts.create_stream(Two().eval(), example=(x, self.gain), time_dim=(-1, None))
        self.begun = False

    def __call__(self, x: Any, final: bool = False) -> Any:
        gain = None if self.begun else self.gain
        ys = [y for y in self.stream(x, gain, final=final) if y is not None]
        self.begun = not final
        return torch.cat(ys, 1) if len(ys) == 2 else None


MAKERS: Dict[str, Callable[[], Any]] = {**damage.networks(), "two inputs": TwoInputs}
MAKERS["nearest"] = lambda: pts.create_stream(nn.Sequential(nn.Conv1d(2, 2, 3), nn.Upsample(scale_factor=2)).eval())
MAKERS["compiled"] = lambda: pts.compile(MAKERS["deep"](), 4, backend="eager")


@pytest.mark.parametrize("name", MAKERS)
def test_every_stream_survives_a_change_of_mode(name: str) -> None:
    x = torch.randn(1, 2, 60)
    modes: List[Callable[[], Any]] = [torch.inference_mode, torch.no_grad]
    with torch.no_grad():
        stream = MAKERS[name]()
        expected = [stream(chunk) for chunk in x.split(4, -1)] + [stream(None, True)]
    # By turns, back and forth; and only the end in another mode.
    for pick in (lambda i: i % 2, lambda i: i % 3 == 0, lambda i: i < 8, lambda i: i >= 15, lambda i: i < 15):
        ys = []
        for i, chunk in enumerate([*x.split(4, -1), None]):
            with modes[pick(i)]():
                ys.append(stream(chunk, chunk is None))
        for y, z in zip(ys, expected, strict=True):
            assert (y is None) == (z is None)
            if y is not None:
                torch.testing.assert_close(y.clone(), z)


def test_static_steps_survive_a_change_of_mode() -> None:
    static = pts.StaticStream(MAKERS["deep"](), chunk=4)
    subject = damage.Static(static)
    with torch.no_grad():
        subject.feed(0, 1)
        expected = subject.rest()
    with torch.inference_mode():
        subject.feed(0, 1)
        state = static.get_state()
    with torch.no_grad():
        static.set_state(None, state)
        assert damage._same(subject.rest(), expected)


# ---------------------------------------------------------------------- threads


class Waits(nn.Module):
    """Lets others run while a step is half done."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.go = threading.Event(), threading.Event()

    def forward(self, x: Tensor) -> Tensor:
        self.inside.set()
        assert self.go.wait(60)
        return x * 2


class WaitsStream(pts.BaseStream):
    def __init__(self, net: Waits) -> None:
        super().__init__(pts.Reach())
        self.waits = [net]

    def forward(self, x: Tensor, final: bool = False) -> Any:
        return self.waits[0](x)


def _meanwhile(call: Callable[[], Any], waits: Waits, others: List[Callable[[], Any]]) -> Any:
    """What a call gives, while which others are refused."""
    given: List[Any] = []
    thread = threading.Thread(target=lambda: given.append(call()))
    thread.start()
    assert waits.inside.wait(60)
    for other in others:
        with pytest.raises(pts.StreamStateError, match="^in_use: .*in use by another thread"):
            other()
    waits.go.set()
    thread.join()
    return given[0]


def test_a_second_call_is_refused_and_the_first_is_unharmed() -> None:
    waits, x = Waits(), torch.randn(1, 2, 7)
    stream = WaitsStream(waits)
    fresh = stream.get_state()
    others: List[Callable[[], Any]] = [lambda: stream(x), stream.flush, stream.reset, stream.get_state]
    others += [lambda: stream.set_state(fresh), stream.detach_state]
    y = _meanwhile(lambda: stream(x), waits, others)
    assert torch.equal(y, 2 * x) and torch.equal(stream(x, final=True), 2 * x)


def test_a_second_call_of_a_static_step_is_refused() -> None:
    waits, static = Waits(), pts.StaticStream(MAKERS["conv"](), chunk=4)
    subject, part = damage.Static(static), static.parts[0]
    kept = part.forward
    part.forward = lambda *given: (waits(torch.ones(1)), kept(*given))[1]  # type: ignore[method-assign]
    others: List[Callable[[], Any]] = [lambda: subject.feed(0, 1), static.reset, static.get_state]
    _meanwhile(lambda: subject.feed(0, 1), waits, others)
    assert int(static.get_state()["row.age"]) == 1


def test_a_second_call_of_a_runner_is_refused(tmp_path: Path) -> None:
    if not all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")):
        pytest.skip("needs onnx, onnxscript and onnxruntime")
    pts.export(MAKERS["conv"](), tmp_path / "net.onnx", chunk=4)
    runner, waits, x = pts.load(tmp_path / "net.onnx"), Waits(), torch.randn(1, 2, 4)
    kept, state = runner._run, runner.get_state()
    runner._run = lambda *given: (waits(torch.ones(1)), kept(*given))[1]
    others: List[Callable[[], Any]] = [lambda: runner(x), runner.flush, runner.reset, runner.get_state]
    _meanwhile(lambda: runner(x), waits, [*others, lambda: runner.set_state(state)])
    assert int(runner.get_state()["@steps"]) == 1
    with pytest.raises(pts.StreamStateError, match="^shallow_copy: "):
        copy.copy(runner)
    for chunk in (x.to_sparse(), torch.nested.as_nested_tensor([x[0]], layout=torch.jagged)):
        with pytest.raises(pts.StreamInputError, match="^invalid_chunk: "):
            runner(chunk)


def test_a_stream_a_thread_with_shared_weights() -> None:
    net, x = nn.Sequential(nn.Conv1d(2, 8, 9, padding=4), nn.ReLU(), nn.ConvTranspose1d(8, 2, 4, 2)).eval(), {}
    ys: Dict[int, Tensor] = {}

    def work(i: int) -> None:
        with torch.inference_mode():
            stream = pts.create_stream(net)
            pieces = [stream(chunk) for chunk in x[i].split(3, -1)] + [stream.flush()]
            ys[i] = torch.cat([piece for piece in pieces if piece is not None], -1)

    x = {i: torch.randn(1, 2, 90 + i) for i in range(16)}
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(i,)) for i in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    with torch.no_grad():
        for i in range(16):
            torch.testing.assert_close(ys[i].clone(), net(x[i]))


def test_streams_copy_deeply_and_pickle() -> None:
    x = torch.randn(1, 2, 20)
    with torch.no_grad():
        stream = MAKERS["deep"]()
        stream(x[..., :9])
        copies = [copy.deepcopy(stream), pickle.loads(pickle.dumps(stream))]
        expected = stream(x[..., 9:], final=True)
        for other in copies:
            torch.testing.assert_close(other(x[..., 9:], final=True), expected)


# ---------------------------------------------------------------------- copies, training, other tensors


@pytest.mark.parametrize("name", ["deep", "graph", "compiled", "static", "ring", "cell"])
def test_shallow_copies_are_refused(name: str) -> None:
    others = {"static": lambda: pts.StaticStream(MAKERS["conv"](), 4), "ring": pts.RingBuffer, "cell": pts.Cell}
    with pytest.raises(pts.StreamStateError, match="^shallow_copy: .*copy.deepcopy"):
        copy.copy({**MAKERS, **others}[name]())


def test_training_mode_warns_once_and_changes_nothing() -> None:
    net = nn.Sequential(nn.Conv1d(2, 2, 3), nn.BatchNorm1d(2), nn.Dropout()).eval()
    x = torch.randn(1, 2, 20)
    for stream in (pts.create_stream(net), pts.StaticStream(pts.create_stream(net), 4)):
        with pytest.warns(UserWarning, match="stays in the eval form"):
            nn.ModuleList([stream]).train()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert stream.train() is stream and stream.eval() is stream
    assert not net.training
    stream = pts.create_stream(net)
    with torch.no_grad(), pytest.warns(UserWarning):
        torch.testing.assert_close(stream.train()(x, final=True), net(x))
    net.train()
    stream.eval()
    assert all(module.training for module in net.modules())  # a stream changes the mode of no network


def _kinds(x: Tensor) -> Dict[str, Tensor]:
    dense = x[0] if x.dim() == 3 else x
    return {
        "sparse": x.to_sparse(),
        "csr": dense.to_sparse_csr(),
        "mkldnn": x.to_mkldnn(),
        "nested": torch.nested.as_nested_tensor([dense, dense[:, :1]]),
        "jagged": torch.nested.as_nested_tensor([dense], layout=torch.jagged),
    }


@pytest.mark.filterwarnings("ignore:.*(prototype|beta state|nested).*")
@pytest.mark.parametrize("name", [*MAKERS, "static"])
def test_chunks_that_are_not_dense_are_refused(name: str) -> None:
    x = torch.randn(1, 2, 16)
    with torch.no_grad():
        if name == "static":
            static = pts.StaticStream(MAKERS["conv"](), chunk=4)
            flag = torch.tensor([False])
            for kind, chunk in _kinds(x[..., :4]).items():
                with pytest.raises(pts.StreamInputError, match="^invalid_chunk: "):
                    static(chunk, torch.tensor([4]), ~flag, flag)
                assert int(static.get_state()["row.age"]) == 0, kind
            return
        stream = MAKERS[name]()
        for begun in (False, True):
            if begun:
                first = [stream(x[..., 4 * i : 4 * i + 4]) for i in range(3)]
            for chunk in _kinds(x[..., :4]).values():
                with pytest.raises((pts.StreamInputError, torch.jit.Error), match="invalid_chunk: "):
                    stream(chunk)
        rest = stream(x[..., 12:], True)
        other = [stream(x[..., 4 * i : 4 * i + 4]) for i in range(3)] + [stream(x[..., 12:], True)]
        assert damage._same([*first, rest], other)
