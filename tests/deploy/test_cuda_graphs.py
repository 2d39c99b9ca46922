"""What runs on a GPU, as far as a CPU can tell: recorded functions, kernels fused, and the kernels that a GPU takes.

A stand-in for a CUDA graph runs the function anew, on the same inputs in place and with outputs in place. Real graphs
are tried in tests/test_gpu.py.
"""

import copy
import shutil
from typing import Any, Callable, List, Sequence

import pytest
import torch
from live_rows import LiveRows
from static_calls import Gated, small_net, static_of
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer.deploy import backends, rows, static, windows
from torchstreamer.deploy.inductor import inductor
from torchstreamer.deploy.kernels import full_precision, product_columns

DOUBLE = torch.float64

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
FUSE = [False, pytest.param(True, marks=needs_compiler)]


class Replayed:
    """As `CudaGraph`, in so far as it reads and writes the same memory at every call."""

    def __init__(self, run: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]) -> None:
        self.run = run
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


@pytest.mark.parametrize("fuse", FUSE)
def test_a_captured_step(replayed: None, fuse: bool) -> None:
    net = Gated().double()
    stream = pts.create_stream(net, example=torch.randn(1, 2, 20, dtype=DOUBLE))
    live = LiveRows(stream, net, 3, (3,), seed=1, dtype=DOUBLE)
    for step in live.statics:
        step.validate = False
        before = step.get_state()
        step._capture(fuse)
        assert all(torch.equal(value, before[name]) for name, value in step.get_state().items())
    live.run(60).compare(15)


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


@pytest.mark.parametrize("make", [small_net, Gated])
@pytest.mark.parametrize("columns", [0, 1 << 20])
def test_values_in_the_order_of_time(make: Any, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (rows, windows):
        monkeypatch.setattr(module, "time_major", lambda device, dtype: True)
    monkeypatch.setattr(static, "product_columns", lambda device, dtype: columns)
    net = make().double()
    stream = pts.create_stream(net, example=torch.randn(1, 2, 20, dtype=DOUBLE))
    LiveRows(stream, net, 2 * stream.hop, (4, 3), seed=2, dtype=DOUBLE).run(80).compare(40)


def test_channels_by_eights_are_convolved_with_the_channels_last(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (rows, windows):
        monkeypatch.setattr(module, "time_major", lambda device, dtype: True)
    monkeypatch.setattr(static, "product_columns", lambda device, dtype: 0)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(8, 16, 5, stride=2, padding=2), nn.ELU(), nn.Conv1d(16, 8, 3, dilation=2, padding=2))
    net = net.double()
    live = LiveRows(pts.create_stream(net), net, 4, (3,), seed=2, dtype=DOUBLE)
    convs = [module for module in live.statics[0].modules() if isinstance(module, windows.ConvolveTaps)]
    assert [conv.time_major for conv in convs] == [True, True]
    assert all(conv.weight.unsqueeze(2).is_contiguous(memory_format=torch.channels_last) for conv in convs)
    live.run(60).compare(20)


def test_products_of_any_size_are_unfolded_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "lacks_matrix_units", lambda device, dtype: True)
    monkeypatch.setattr(windows, "_GPU_CHANNELS", 4)
    monkeypatch.setattr(windows, "_GPU_VALUES", 200)
    torch.manual_seed(0)
    weight, bias = torch.randn(6, 4, 5, dtype=DOUBLE), torch.randn(6, dtype=DOUBLE)
    x = torch.randn(7, 4, 40, dtype=DOUBLE)
    taps = windows.ConvolveTaps(weight, bias, 2, 3, 1, columns=1)
    with torch.profiler.profile() as profile:
        y = taps(x)
    torch.testing.assert_close(y, nn.functional.conv1d(x, weight, bias, 2, 0, 3), rtol=0, atol=1e-12)
    counts = {event.key: event.count for event in profile.key_averages()}
    assert counts["aten::addmm"] == 7 and "aten::conv1d" not in counts  # 14 outputs of 20 values: one row at a time


def test_limits_by_device() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert product_columns(cpu, torch.float32) < product_columns(gpu, torch.float16) < product_columns(gpu, DOUBLE)
    assert static_of(nn.Conv1d(2, 2, 3)).parts[0].body.columns == product_columns(cpu, torch.float32)


def test_whether_torch_rounds_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    for allowed in (False, True):
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allowed)
        assert full_precision(gpu, torch.float32) is not allowed
        assert full_precision(cpu, torch.float32) and full_precision(gpu, torch.float64)
