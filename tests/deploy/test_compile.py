"""Compiled streams: exact for any chunking, on one state with the stream that they are made of."""

import copy
import random
import shutil

import pytest
import torch
from torch import nn

import torchstreamer as pts
from torchstreamer.deploy import search
from torchstreamer.deploy.steady import SteadyStep, fresh


class Smooth(nn.Module):
    """A custom layer: the mean of a sample and the three before it."""

    def forward(self, x):
        return nn.functional.avg_pool1d(nn.functional.pad(x, (3, 0)), 4, 1)


class SmoothStream(pts.BaseStream):
    def __init__(self, net):
        super().__init__()
        self.ring = pts.RingBuffer()

    def forward(self, x, final=False):
        if self.ring.length() == 0:
            self.ring.append(x.new_zeros([*x.shape[:-1], 3]))
        window = self.ring.append(x)
        self.ring.drop(x.shape[-1])
        return window.unfold(-1, 4, 1).mean(-1)

    def output_length(self, n, final=True):
        return max(n, 0)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def smooth():
    pts.register_streamer(Smooth, SmoothStream)


NETS = {
    "plain": lambda: nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Conv1d(4, 2, 5, dilation=2, padding=3)),
    "strided": lambda: nn.Sequential(
        nn.Conv1d(2, 4, 4, stride=2, padding=1), nn.ReLU(inplace=True), nn.MaxPool1d(3, 3)
    ),
    "long stride": lambda: nn.Conv1d(2, 3, 2, stride=5),
    "pointwise": lambda: nn.Sequential(nn.Conv1d(2, 3, 1), nn.Tanh()),
    "identity": lambda: nn.Sequential(nn.Conv1d(2, 2, 1, bias=False), nn.Identity()),
    "transposed": lambda: nn.Sequential(nn.ConvTranspose1d(2, 3, 4, stride=2, padding=1), nn.LeakyReLU(0.2)),
    "depthwise": lambda: nn.Sequential(nn.Conv1d(2, 2, 3, groups=2, padding="same"), nn.BatchNorm1d(2)),
    "upsampling": lambda: nn.Sequential(nn.Conv1d(2, 2, 3), nn.Upsample(scale_factor=1.5, mode="linear")),
    "reflected": lambda: nn.Sequential(nn.ReflectionPad1d(3), nn.Conv1d(2, 2, 4), nn.AvgPool1d(2, ceil_mode=True)),
    "residual": lambda: pts.Residual1d(nn.Sequential(nn.Conv1d(2, 2, 3), nn.ELU(), nn.Conv1d(2, 2, 4))),
    "branches": lambda: pts.Parallel1d(nn.Conv1d(2, 4, 3), nn.Conv1d(2, 4, 7, padding=2), merge="cat"),
    "own handler": lambda: nn.Sequential(nn.Conv1d(2, 2, 3), Smooth()),
}


def made(name, chunks=1, dtype=torch.float64, **kwargs):
    torch.manual_seed(0)
    net = NETS[name]().to(dtype).eval()
    stream = pts.create_stream(net)
    return net, pts.compile(stream, chunk=chunks * stream.hop, backend="eager", **kwargs)


def joined(pieces):
    pieces = [piece for piece in pieces if piece is not None]
    assert all(piece.shape[-1] > 0 for piece in pieces)
    return torch.cat(pieces, -1)


def cuts(n, chunk, seed):
    """Mostly chunks of the planned size, and some others."""
    draw = random.Random(seed)
    left = n
    while left:
        size = chunk if draw.random() < 0.7 else draw.choice([0, 1, chunk + 1, 2 * chunk, chunk - 1])
        yield min(size, left)
        left -= min(size, left)


@pytest.mark.sample(
    "plain-rows",
    "strided-unfolded",
    "long stride-winograd",
    "pointwise-channels",
    "identity-rows",
    "transposed-unfolded",
    "depthwise-winograd",
    "upsampling-channels",
    "reflected-rows",
    "residual-unfolded",
    "branches-winograd",
    "own handler-channels",
    rest=3,
)
@pytest.mark.parametrize("form", ["rows", "unfolded", "winograd", "channels"])
@pytest.mark.parametrize("name", NETS)
def test_exact_for_any_chunking(name, form, smooth, monkeypatch):
    monkeypatch.setitem(search.FORMS, "eager", (form,))
    for chunks in (1, 4):
        net, stream = made(name, chunks)
        planned = 0
        for seed in range(4):
            x = torch.randn(1, 2, 30 * stream.chunk + seed, dtype=torch.float64)
            at, given, pieces = 0, 0, []
            for size in cuts(x.shape[-1], stream.chunk, seed) if seed else [stream.chunk] * 30:
                pieces.append(stream(x[..., at : at + size]))
                at += size
                given += 0 if pieces[-1] is None else pieces[-1].shape[-1]
                assert given == stream.output_length(at, False)
                planned += stream._states is not None
            pieces.append(stream(x[..., at:], final=True))
            torch.testing.assert_close(joined(pieces), net(x).detach(), rtol=0, atol=1e-10)
        assert planned > 20  # the compiled step did the work


def test_forms_of_a_long_chunk(monkeypatch):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(2, 40, 3), nn.ReLU(), nn.Conv1d(40, 3, 5, dilation=2), nn.Conv1d(3, 3, 4, groups=3))
    net, x = net.double(), torch.randn(1, 2, 2000, dtype=torch.float64)
    for forms in (("rows",), ("unfolded",), ("channels",), ("rows", "unfolded", "channels")):
        monkeypatch.setitem(search.FORMS, "eager", forms)
        stream = pts.compile(pts.create_stream(net), chunk=600, backend="eager")
        assert sorted(one.form for one in stream.candidates) == sorted(forms)
        torch.testing.assert_close(joined([*map(stream, x.split(600, -1)), stream.flush()]), net(x).detach())
    short = pts.compile(pts.create_stream(net), chunk=6, backend="eager")
    assert sorted(one.form for one in short.candidates) == ["channels", "rows"]  # one product already


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [1, 2, 7, 24, 300])
@pytest.mark.parametrize("batch", [1, 3])
def test_fewer_products(chunk, batch, monkeypatch):
    torch.manual_seed(0)
    layers = [nn.Conv1d(2, 17, 3, padding=1), nn.ReLU(inplace=True), nn.Conv1d(17, 128, 2), nn.Conv1d(128, 128, 7)]
    layers += [nn.ELU(), nn.Conv1d(128, 20, 3, dilation=3, bias=False), nn.Conv1d(20, 16, 4, padding=2)]
    net = nn.Sequential(*layers).double()
    monkeypatch.setitem(search.FORMS, "eager", ("winograd",))
    stream = pts.compile(pts.create_stream(net), chunk=chunk, batch=batch, backend="eager")
    code = stream._program.graph.code
    products = code.count("aten.mm.") + code.count("aten.bmm.")  # large ones in calls of their own, others together
    assert (products > 1) == (chunk > 1)  # one has no bias
    assert (products > 12) == (chunk == 300)  # those of the long kernel
    assert "float64" not in code  # weights are transformed once
    x = torch.randn(batch, 2, 9 * chunk + 45, dtype=torch.float64)
    y = joined([*map(stream, x.split(chunk, -1)), stream.flush()])
    torch.testing.assert_close(y, net(x).detach(), rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("channels", "chunk", "reduced"),
    [(64, 512, False), (64, 1024, True), (128, 128, False), (128, 256, True), (256, 1020, False), (256, 1024, True)],
)
def test_long_kernels_take_fewer_products_where_large_and_weights_serve_many(channels, chunk, reduced, monkeypatch):
    monkeypatch.setitem(search.FORMS, "eager", ("winograd",))
    stream = pts.compile(pts.create_stream(nn.Conv1d(channels, channels, 7)), chunk=chunk, backend="eager")
    # By halves: three of four products each, and one for the last tap.
    assert stream._program.graph.code.count("aten.mm.") == (13 if reduced else 0)


@pytest.mark.long
def test_fewer_products_in_single_precision():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(20, 64, 3), nn.ReLU(), nn.Conv1d(64, 20, 3, dilation=2), nn.Tanh())
    stream = pts.compile(pts.create_stream(net), chunk=32, backend="aot", autotune=False)
    assert {one.form for one in stream.candidates} == {"rows", "winograd", "channels"}
    assert all(one.error < 1e-5 and not one.reason for one in stream.candidates)
    x = torch.randn(1, 20, 333)
    torch.testing.assert_close(
        joined([*map(stream, x.split(32, -1)), stream.flush()]), net(x).detach(), rtol=0, atol=1e-5
    )


@pytest.mark.long
def test_long_steps_take_packed_products(monkeypatch):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(16, 20, 3), nn.ReLU())
    monkeypatch.setattr(search, "_LONG", 0.0)  # every step is long
    stream = pts.compile(pts.create_stream(net), chunk=8, backend="aot", autotune=False)
    tried = sorted((one.form, one.kernels) for one in stream.candidates)
    assert tried == [("channels", ""), ("rows", ""), ("rows", "packed"), ("winograd", "packed")]
    assert all(not one.reason for one in stream.candidates)
    assert "packed" in str(next(one for one in stream.candidates if one.kernels))
    x = torch.randn(1, 16, 61)
    torch.testing.assert_close(
        joined([*map(stream, x.split(8, -1)), stream.flush()]), net(x).detach(), rtol=0, atol=1e-5
    )


def test_what_depends_on_weights_alone_is_folded():
    # A layer whose weight is computed: the recorded step holds the result, and what is written in place is left alone.
    torch.manual_seed(0)
    conv = nn.utils.parametrizations.weight_norm(nn.Conv1d(2, 3, 3))
    net = nn.Sequential(conv, nn.Hardtanh(inplace=True)).double()
    stream = pts.compile(pts.create_stream(net), chunk=5, backend="eager")
    assert "norm" not in stream._program.graph.code and "hardtanh_" in stream._program.graph.code
    x = torch.randn(1, 2, 43, dtype=torch.float64)
    torch.testing.assert_close(joined([*map(stream, x.split(5, -1)), stream.flush()]), net(x).detach())


def test_the_streams_own_step():
    torch.manual_seed(0)
    net = NETS["strided"]().double()
    stream = pts.compile(pts.create_stream(net), chunk=12, backend="stream")
    x = torch.randn(1, 2, 100, dtype=torch.float64)
    torch.testing.assert_close(joined([*map(stream, x.split(12, -1)), stream.flush()]), net(x).detach())
    assert stream._states is None and stream.candidates[0].backend == "stream"


def test_rows_and_ranks():
    net, stream = made("plain", 4, batch=3)
    x = torch.randn(3, 2, 41, dtype=torch.float64)
    torch.testing.assert_close(joined([*map(stream, x.split(4, -1)), stream.flush()]), net(x).detach())
    assert stream._states is None
    # Another number of rows is as right, on the general path.
    x = torch.randn(2, 2, 41, dtype=torch.float64)
    torch.testing.assert_close(joined([*map(stream, x.split(4, -1)), stream.flush()]), net(x).detach())
    net, stream = made("plain", 4)
    x = torch.randn(2, 41, dtype=torch.float64)
    torch.testing.assert_close(joined([*map(stream, x.split(4, -1)), stream.flush()]), net(x[None])[0].detach())


def test_state_is_data():
    net, stream = made("strided", 2)
    x = torch.randn(1, 2, 90, dtype=torch.float64)
    pieces = [stream(chunk) for chunk in x[..., :60].split(stream.chunk, -1)]
    assert stream._states is not None
    state = stream.get_state()
    held = {name: value.clone() for name, value in state.items()}
    twin, fork = copy.deepcopy(stream), made("strided", 2)[1]
    fork.set_state(state)
    expected = net(x).detach()
    for one in (stream, twin, fork):
        rest = [one(chunk) for chunk in x[..., 60:].split(stream.chunk, -1)]
        torch.testing.assert_close(joined([*pieces, *rest, one.flush()]), expected)
    assert all(torch.equal(state[name], held[name]) for name in held)
    assert stream.state_nbytes() == 0


def test_isolated_and_safe():
    net, stream = made("identity", 8)
    x = torch.randn(1, 2, 64, dtype=torch.float64)
    expected, pieces = net(x).detach(), []
    for chunk in x.split(8, -1):
        given = chunk.clone()
        pieces.append(stream(given))
        given.fill_(float("nan"))
        for wrong in (torch.randn(1, 3, 8).double(), torch.randn(1, 2, 8), torch.randn(2, 8).double(), [1.0]):
            with pytest.raises(pts.StreamInputError, match="invalid_chunk"):
                stream(wrong)
    torch.testing.assert_close(joined(pieces), expected)
    stream.reset()
    torch.testing.assert_close(stream(x, final=True), expected)


def test_weights_are_frozen_and_the_stream_is_left_alone():
    torch.manual_seed(0)
    net = NETS["plain"]().double()
    stream = pts.create_stream(net)
    x = torch.randn(1, 2, 40, dtype=torch.float64)
    first = stream(x[..., :20])
    compiled = pts.compile(stream, chunk=4, backend="eager")
    expected = net(x).detach()
    torch.testing.assert_close(joined([first, stream(x[..., 20:], final=True)]), expected)
    with torch.no_grad():
        net[0].weight.mul_(2.0)
    torch.testing.assert_close(joined([*map(compiled, x.split(4, -1)), compiled.flush()]), expected)


def test_a_step_that_failed():
    _, stream = made("plain", 4)
    x = torch.randn(1, 2, 4, dtype=torch.float64)
    for _ in range(8):
        stream(x)

    def broken(x, states):
        raise RuntimeError("out of memory")

    program = stream._program.run
    stream._program.run = broken
    with pytest.raises(RuntimeError, match="out of memory"):
        stream(x)
    with pytest.raises(pts.StreamStateError, match="failed_stream"):
        stream(x)
    stream._program.run = program
    stream.reset()
    stream(x)


def test_refusals():
    stream = pts.create_stream(nn.Conv1d(2, 2, 3, stride=4))
    with pytest.raises(ValueError, match="a multiple of the stream's hop, 4, was expected; the next are 4 and 8"):
        pts.compile(stream, chunk=6)
    with pytest.raises(ValueError, match="invalid_backend: backend='tvm' came"):
        pts.compile(stream, chunk=4, backend="tvm")
    with pytest.raises(ValueError, match="invalid_batch"):
        pts.compile(stream, chunk=4, batch=0)
    with pytest.raises(TypeError, match="invalid_stream: a Conv1d came"):
        pts.compile(nn.Conv1d(2, 2, 3), chunk=4)
    with pytest.raises(ValueError, match="unknown_channels"):
        pts.compile(pts.create_stream(nn.ReLU()), chunk=4, backend="eager")
    x = torch.randn(1, 3, 9)
    compiled = pts.compile(pts.create_stream(nn.ReLU()), chunk=4, backend="eager", channels=3)
    assert torch.equal(joined([*map(compiled, x.split(4, -1))]), x.relu())
    with pytest.raises(TypeError, match="not_scriptable"):
        torch.jit.script(compiled)


class Peeking(pts.BaseStream):
    """A handler that decides by the values of samples."""

    def forward(self, x, final=False):
        return x * 2 if float(x.sum()) > 0 else x


def test_a_handler_that_cannot_be_recorded():
    with pytest.raises(pts.UnsupportedModuleError, match="not_traceable: Peeking"):
        pts.compile(Peeking(), chunk=4, backend="eager", channels=1)


class Wordless(pts.BaseStream):
    """A handler that raises an error without a message where it is recorded."""

    def forward(self, x, final=False):
        if torch.fx.experimental.proxy_tensor.get_proxy_mode() is not None:
            raise RuntimeError
        return x * 2


def test_an_error_without_words_is_refused_as_any_other():
    with pytest.raises(pts.UnsupportedModuleError, match="not_traceable: Wordless.*RuntimeError") as caught:
        pts.compile(Wordless(), chunk=4, backend="eager", channels=1)
    assert type(caught.value.__cause__) is RuntimeError and not str(caught.value.__cause__)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("backend", ["aot", "onnx"])
def test_compilers(backend, monkeypatch):
    monkeypatch.setitem(search.FORMS, "aot", ("rows",))
    if backend == "onnx":
        for module in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(module)
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv1d(2, 8, 3), nn.ReLU(), pts.Residual1d(nn.Conv1d(8, 8, 3, dilation=3)), nn.Conv1d(8, 1, 1)
    )
    stream = pts.compile(pts.create_stream(net), chunk=8, backend=backend, autotune=False)
    x = torch.randn(1, 2, 103)
    expected = net(x).detach()
    for _ in range(2):
        pieces = [stream(chunk) for chunk in x.split(8, -1)]
        torch.testing.assert_close(joined([*pieces, stream.flush()]), expected, rtol=0, atol=1e-4)
    sizes = list(cuts(103, 8, 1))
    torch.testing.assert_close(joined([*map(stream, x.split(sizes, -1)), stream.flush()]), expected, rtol=0, atol=1e-4)
    assert backend in repr(stream) and "µs" in repr(stream)


def stepwise(stream, x):
    y = [stream(piece) for piece in x.split(1, -1)] + [stream.flush()]
    return torch.cat([each for each in y if each is not None], -1)


def test_attention_is_recorded_as_old_rows_need_it():
    net = pts.SelfAttention1d(nn.MultiheadAttention(8, 2, batch_first=True), pts.Context(20)).double().eval()
    stream, x = pts.create_stream(net), torch.randn(1, 8, 40, dtype=torch.float64)
    names = [str(node.target) for node in SteadyStep(fresh(stream), x[..., :1]).record("rows").graph.nodes]
    assert not any(name.startswith(("aten.where", "aten.eq", "aten.masked_fill")) for name in names)
    compiled = pts.compile(stream, 1, backend="eager")
    for _ in range(2):
        torch.testing.assert_close(stepwise(compiled, x), net(x))


class Placed(nn.Module):
    """Attention that sees further back than its table of positions goes, so that no row becomes old."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(1, 8, 24))
        self.attention = pts.SelfAttention1d(nn.MultiheadAttention(8, 2, batch_first=True), pts.Context(30))

    def forward(self, x):
        return self.attention(x + self.table[..., : x.shape[-1]])


def test_signals_that_end_before_a_row_is_old():
    net, x = Placed().double().eval(), torch.randn(1, 8, 24, dtype=torch.float64)
    compiled = pts.compile(pts.create_stream(net, example=x[..., :10]), 1, backend="eager")
    torch.testing.assert_close(stepwise(compiled, x), net(x))
