"""What runs on a GPU, as far as a CPU can tell: recorded functions, kernels fused, and the kernels that a GPU takes.

A stand-in for a CUDA graph runs the function anew, on the same inputs in place and with outputs in place. Real graphs
are tried in tests/test_gpu.py.
"""

import copy
import gc
import shutil
import weakref
from contextlib import contextmanager
from typing import Any, Callable, Iterator, List, Sequence

import pytest
import torch
from static_calls import Gated, small_net, static_of
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer.deploy import backends, ends, rows, static, windows
from torchstreamer.deploy.inductor import inductor
from torchstreamer.deploy.kernels import product_columns, rounds
from torchstreamer.deploy.steady import SteadyStep
from torchstreamer.testing.live_rows import LiveRows

DOUBLE = torch.float64

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
FUSE = [False, pytest.param(True, marks=needs_compiler)]


class Replayed:
    """As `CudaGraph`, in so far as it reads and writes the same memory at every call."""

    def __init__(self, run: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor], keeps: Any = None) -> None:
        self.run = run
        self.keeps = keeps
        self.inputs = [value.clone() for value in inputs]
        with torch.no_grad():
            self.outputs = [value.clone() for value in run(*self.inputs)]

    def __call__(self, *inputs: Tensor) -> List[Tensor]:
        with torch.no_grad():
            for mine, given in zip(self.inputs, inputs, strict=True):
                mine.copy_(given)
            for mine, made in zip(self.outputs, self.run(*self.inputs), strict=True):
                mine.copy_(made)
        return [value.clone() for value in self.outputs]


@pytest.fixture
def replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (backends, static):
        monkeypatch.setattr(module, "CudaGraph", Replayed)


@pytest.mark.slow
@pytest.mark.parametrize("fuse", FUSE)
def test_a_captured_step(replayed: None, fuse: bool) -> None:
    net = Gated().double()
    stream = pts.create_stream(net, example=torch.randn(1, 2, 20, dtype=DOUBLE))
    live = LiveRows(stream, net, 3, (3,), seed=1, dtype=DOUBLE).run(7)
    (step,) = live.statics
    step.validate = False
    before = step.get_state()
    assert int(before["row.left"].max()) > 0  # a row that drains moves on in every call
    step._capture(fuse)
    assert all(torch.equal(value, before[name]) for name, value in step.get_state().items())
    live.run(60).compare(15)


def test_a_captured_step_is_no_circle(monkeypatch: pytest.MonkeyPatch) -> None:
    class Kept(Replayed):
        def __init__(self, run: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor], keeps: Any = None) -> None:
            super().__init__(run, inputs, keeps)
            del self.run  # as a real graph, which keeps no function

    for module in (backends, static):
        monkeypatch.setattr(module, "CudaGraph", Kept)
    gc.disable()
    try:
        step = static_of(nn.Conv1d(2, 2, 3))
        step._capture(False)
        graph = SteadyStep(pts.create_stream(nn.Conv1d(2, 2, 3)), torch.zeros(1, 2, 4))
        program = backends.BACKENDS["cudagraph"](graph.record("rows"), [graph.x, *graph.states], "")
        ends = [weakref.ref(step), weakref.ref(program)]
        del step, program
        assert [end() for end in ends] == [None, None]
    finally:
        gc.enable()


def test_a_copy_of_a_captured_step_has_no_part_in_its_graph(replayed: None) -> None:
    net = nn.Conv1d(2, 2, 3).double()
    step = static_of(net, batch=1, validate=False)
    step._capture(False)
    x = torch.randn(1, 2, 8, dtype=DOUBLE)
    four, no = torch.tensor([4]), torch.tensor([False])
    step(x[..., :4], four, ~no, no)
    twin = copy.deepcopy(step)
    with torch.no_grad():
        expected = net(x)[..., 2 : 2 + step.outputs]
    for each in (step, twin):
        y, start, stop = each(x[..., 4:], four, no, no)
        torch.testing.assert_close(y[..., start[0] : stop[0]], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("fuse", FUSE)
def test_streams_take_turns_on_one_graph(replayed: None, fuse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(backends.KERNELS, "cudagraph", ("fused",) if fuse else ("",))
    net = small_net()[1:].double()
    x = torch.randn(2, 4, 61, dtype=DOUBLE)
    stream = pts.compile(pts.create_stream(net), chunk=6, batch=2, backend="cudagraph")
    assert stream.candidates[0].kernels == ("fused" if fuse else "")
    pieces = [stream(chunk) for chunk in x[..., :36].split(6, -1)]
    twin, other = copy.deepcopy(stream), list(pieces)
    for chunk in x[..., 36:].split(6, -1):
        pieces.append(stream(chunk))
        other.append(twin(chunk))
    for one, given in ((stream, pieces), (twin, other)):
        y = torch.cat([piece for piece in (*given, one.flush()) if piece is not None], -1)
        torch.testing.assert_close(y, net(x).detach(), rtol=0, atol=1e-12)


@needs_compiler
def test_compiled_functions_write_to_what_they_are_given() -> None:
    def shift(x: Tensor, held: Tensor) -> Tensor:
        window = torch.cat([held, x], 1)
        held.copy_(window[:, 1:])
        return window.sum(1)

    held = torch.tensor([[1.0, 2.0, 4.0]])
    run = inductor(shift, [torch.zeros(1, 1), held.clone()], {})
    assert run(torch.tensor([[8.0]]), held).tolist() == [15.0]
    assert held.tolist() == [[2.0, 4.0, 8.0]]


@needs_compiler
def test_more_functions_than_one_code_object_is_compiled_in() -> None:
    def plus(i: int) -> Callable[[Tensor], Tensor]:
        return lambda x: x + i

    for i in range(12):
        assert inductor(plus(i), [torch.zeros(3)], {})(torch.ones(3)).tolist() == [1.0 + i] * 3


# ---------------------------------------------------------------------- kernels


@pytest.fixture
def time_major(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (ends, rows, windows):
        monkeypatch.setattr(module, "time_major", lambda device, dtype: True)


@pytest.mark.parametrize("make", [small_net, Gated])
@pytest.mark.parametrize("columns", [0, 1 << 20])
def test_values_in_the_order_of_time(make: Any, columns: int, time_major: None) -> None:
    net = make().double()
    stream = pts.create_stream(net, example=torch.randn(1, 2, 20, dtype=DOUBLE))
    live = LiveRows(stream, net, 2 * stream.hop, (4, 3), seed=2, dtype=DOUBLE, columns=columns)
    seen: List[int] = []
    for body in live.statics[0].modules():
        if isinstance(body, windows.ConvolveTaps) and body.weight.size(2) > 1:
            body.register_forward_pre_hook(lambda body, args: seen.append(args[0].stride(1)))
    live.run(80).compare(40)
    assert seen and set(seen) == {1}


@pytest.mark.parametrize("channels, last", [(8, True), (6, False)])
def test_channels_by_eights_are_convolved_with_the_channels_last(channels: int, last: bool, time_major: None) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv1d(channels, 16, 5, stride=2, padding=2), nn.ELU(), nn.Conv1d(16, channels, 3, dilation=2, padding=2)
    ).double()
    live = LiveRows(pts.create_stream(net), net, 4, (3,), seed=2, dtype=DOUBLE, columns=0)
    weights = [body.weight for body in live.statics[0].modules() if isinstance(body, windows.ConvolveTaps)]
    assert all(weight.unsqueeze(2).is_contiguous(memory_format=torch.channels_last) is last for weight in weights)
    with torch.profiler.profile(acc_events=True) as profile:
        live.run(1)
    names = {event.key for event in profile.key_averages()}
    assert ("aten::conv2d" in names, "aten::conv1d" in names) == (last, not last)
    live.run(60).compare(20)


@pytest.mark.parametrize("values, products", [(200, 7), (3 * 14 * 20, 3), (1 << 20, 1)])
def test_large_products_are_unfolded_in_parts(values: int, products: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "_VALUES", values)
    torch.manual_seed(0)
    weight, bias = torch.randn(6, 4, 5, dtype=DOUBLE), torch.randn(6, dtype=DOUBLE)
    x = torch.randn(7, 4, 40, dtype=DOUBLE)
    taps = windows.ConvolveTaps(weight, bias, 2, 3, 1, columns=1 << 20)
    with torch.profiler.profile(acc_events=True) as profile:
        y = taps(x)
    torch.testing.assert_close(y, nn.functional.conv1d(x, weight, bias, 2, 0, 3), rtol=0, atol=1e-12)
    counts = {event.key: event.count for event in profile.key_averages()}
    assert counts["aten::addmm"] == products and "aten::conv1d" not in counts  # of 14 outputs of 20 values a row


class Somewhere:
    """The shape, dtype and device of a weight."""

    def __init__(self, channels: int, kernel: int, dtype: torch.dtype, device: str) -> None:
        self.sizes = (channels, 2, kernel)
        self.dtype = dtype
        self.device = torch.device(device)

    def size(self, axis: int) -> int:
        return self.sizes[axis]


def test_limits_of_products(monkeypatch: pytest.MonkeyPatch) -> None:
    def limit(channels: int, kernel: int, dtype: torch.dtype, device: str = "cuda", groups: int = 1) -> int:
        return product_columns(Somewhere(channels, kernel, dtype, device), groups)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    assert limit(512, 3, torch.float32, "cpu") == limit(512, 3, torch.float32, "mps") < limit(64, 3, torch.float16)
    assert limit(512, 3, torch.bfloat16) == limit(64, 3, torch.float16) < limit(64, 3, torch.float32)
    assert limit(64, 3, torch.float32) < limit(512, 3, torch.float32) == limit(512, 3, DOUBLE)
    assert limit(512, 65, torch.float32) == limit(512, 65, torch.float32, "cpu") == 0
    assert limit(512, 3, torch.float32, groups=2) == 0
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert limit(512, 3, torch.float32) == limit(512, 3, torch.float16)
    net = nn.Conv1d(2, 2, 3)
    assert static_of(net).parts[0].body.columns == limit(2, 3, torch.float32, "cpu")
    assert static_of(net, columns=7).parts[0].body.columns == 7
    assert static_of(nn.Conv1d(2, 2, 3, groups=2), columns=7).parts[0].body.columns == 0


@contextmanager
def setting(module: Any, name: str, value: Any) -> Iterator[None]:
    """A setting of torch, which are no attributes that monkeypatch could put back."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


@pytest.mark.parametrize("allowed", [True, False])
@pytest.mark.parametrize(
    "what, module", [("convolutions", torch.backends.cudnn), ("products", torch.backends.cuda.matmul)]
)
def test_whether_torch_rounds_float32(what: str, module: Any, allowed: bool) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    with setting(module, "allow_tf32", allowed):
        assert rounds(what, gpu, torch.float32) is allowed
        assert not rounds(what, cpu, torch.float32) and not rounds(what, gpu, DOUBLE)


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="this torch has the older settings alone")
def test_whether_torch_rounds_float32_by_the_newer_settings() -> None:
    for precision in ("tf32", "ieee"):
        with setting(torch.backends.cudnn.conv, "fp32_precision", precision):
            assert rounds("convolutions", torch.device("cuda"), torch.float32) is (precision == "tf32")


@pytest.mark.parametrize("dtype, error", [(torch.float16, 1e-2), (torch.bfloat16, 5e-2)])
def test_half_precision_compiles(dtype: torch.dtype, error: float) -> None:
    torch.manual_seed(0)
    layers = [module for _ in range(6) for module in (nn.Conv1d(32, 32, 3, padding=1), nn.ELU())]
    net = nn.Sequential(*layers).eval().to(dtype)
    stream = pts.compile(pts.create_stream(net), chunk=16, backend="eager")
    assert [candidate.reason for candidate in stream.candidates] == ["", ""]
    assert all(candidate.error < error for candidate in stream.candidates)


def test_a_candidate_that_gives_nan_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(backends._Eager):
        def run(self, x: Tensor, states: List[Tensor]) -> Any:
            y, following = super().run(x, states)
            return y * torch.nan, following

    monkeypatch.setitem(backends.BACKENDS, "eager", Broken)
    with pytest.raises(RuntimeError, match="differs by inf"):
        pts.compile(pts.create_stream(nn.Conv1d(2, 2, 3)), chunk=4, backend="eager")


def test_networks_that_give_infinity_compile() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(2, 2, 3), nn.Threshold(0.0, -float("inf")), nn.MaxPool1d(2, 1)).eval()
    stream = pts.compile(pts.create_stream(net), chunk=8, backend="eager")
    assert all(not candidate.reason for candidate in stream.candidates)
    x = torch.randn(1, 2, 80)
    with torch.no_grad():
        expected = net(x)
        pieces = [stream(chunk) for chunk in x.split(8, -1)] + [stream.flush()]
    assert expected.isinf().any() and expected.isfinite().any()
    torch.testing.assert_close(torch.cat([piece for piece in pieces if piece is not None], -1), expected)
