"""On a CUDA device: exact, safe, and states move between devices. Skipped where there is none."""

import copy
import gc
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import torchstreamer as pts
from torchstreamer.deploy import backends

sys.path.insert(0, str(Path(__file__).parent / "models"))

from streaming_conformers import ChunkConformer

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.fixture(autouse=True)
def float32_in_full(monkeypatch):
    """torch lets cuDNN round float32 to TF32 unless this is off."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(2, 8, 5, stride=2, padding=2),
        pts.Residual1d(nn.Sequential(nn.ELU(), nn.Conv1d(8, 8, 3, dilation=90))),
        nn.MaxPool1d(3, 1, 1),
        nn.Upsample(scale_factor=1.5, mode="linear"),
        nn.BatchNorm1d(8),
        nn.ConvTranspose1d(8, 2, 4, 2, 1),
    ).eval()


def streamed(stream, x, size):
    pieces = [stream(x[..., i : i + size]) for i in range(0, x.shape[-1], size)] + [stream.flush()]
    return torch.cat([piece for piece in pieces if piece is not None], -1)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("size", [1, 16, 400])
@pytest.mark.parametrize("script", [False, True])
def test_exact_on_the_device(dtype, tolerance, size, script):
    net = network().to("cuda", dtype)
    x = torch.randn(3, 2, 900, device="cuda", dtype=dtype)
    stream = pts.create_stream(net)
    stream = torch.jit.script(stream) if script else stream
    with torch.inference_mode():
        # In float32 torch's own interpolation is that far off.
        expected = net(x) if dtype != torch.float32 else copy.deepcopy(net).double()(x.double()).float()
        y = streamed(stream, x, size)
    assert y.device == expected.device and y.shape == expected.shape
    assert (y - expected).abs().max() <= tolerance * expected.abs().max()


RUNNING = {
    "cumulative norm": lambda: nn.Sequential(nn.Conv1d(2, 6, 3), pts.CumulativeGroupNorm1d(2, 6)),
    "recurrence": lambda: nn.Sequential(nn.Conv1d(2, 6, 3), nn.Tanh(), pts.LinearRecurrence()),
    "complex": lambda: nn.Sequential(nn.Conv1d(2, 8, 3), nn.Hardtanh(-0.5, 0.5), pts.LinearRecurrence(paired=True)),
    "average": lambda: nn.Sequential(nn.Conv1d(2, 4, 3), pts.ExponentialMovingAverage1d(torch.rand(4))),
    "gru": lambda: nn.Sequential(nn.Conv1d(2, 6, 3), pts.Recurrent1d(nn.GRU(6, 8, 2))),
    "lstm": lambda: nn.Sequential(nn.Conv1d(2, 6, 3), pts.Recurrent1d(nn.LSTM(6, 8))),
    "attention": lambda: nn.Sequential(
        nn.Conv1d(2, 8, 3), pts.LayerNorm1d(8), pts.SelfAttention1d(nn.MultiheadAttention(8, 2), pts.Context(6, 2))
    ),
    "encoder layer": lambda: nn.Sequential(
        nn.Conv1d(2, 8, 3),
        pts.TransformerEncoderLayer1d(nn.TransformerEncoderLayer(8, 2, 16), pts.Context(left=8, chunk=4)),
    ),
    "conformer": lambda: ChunkConformer(width=2, heads=1, layers=2),  # captured
    "emformer": lambda: nn.Sequential(
        nn.Conv1d(2, 8, 3),
        pts.Emformer1d(8, 2, 16, 2, 4, left_context_length=4, right_context_length=1, max_memory_size=2),
    ),
}


@pytest.mark.parametrize("name", list(RUNNING))
@pytest.mark.parametrize("size", [1, 64])
def test_what_runs_along_the_signal(name, size):
    torch.manual_seed(0)
    net = RUNNING[name]().eval()
    x = torch.randn(3, 2, 900) + 30
    with torch.inference_mode():
        expected = copy.deepcopy(net).double()(x.double()).float()
        net, x = net.cuda(), x.cuda()
        example = x[:1, :, :50] if name == "conformer" else None
        made = [pts.create_stream(net, example=example) for _ in range(3)]
        compiled = pts.compile(made[0], chunk=max(size, made[0].hop), batch=3, backend="cudagraph")
        for stream in (made[1], torch.jit.script(made[2]), compiled):
            y = streamed(stream, x, size).cpu()
            assert (y - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_state_moves_between_devices():
    net = network().double()
    x = torch.randn(1, 2, 900).double()
    expected = net(x)
    host, device = pts.create_stream(net), pts.create_stream(network().double().cuda())
    pieces = [host(x[..., :500])]
    device.set_state(host.get_state())
    pieces.append(device(x[..., 500:700].cuda()).cpu())
    host.set_state(device.get_state())
    pieces.append(host(x[..., 700:], final=True))
    torch.testing.assert_close(torch.cat(pieces, -1), expected, rtol=0, atol=1e-10)


def test_a_stream_moves_with_its_samples():
    net = network().double()
    x = torch.randn(1, 2, 900).double()
    expected = net(x)
    stream = pts.create_stream(net)
    first = stream(x[..., :500])
    stream.cuda()
    rest = stream(x[..., 500:].cuda(), final=True)
    torch.testing.assert_close(torch.cat([first, rest.cpu()], -1), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("batch", [1, 64])
def test_a_compiled_stream_is_a_cuda_graph(batch):
    net = network().cuda()
    x = torch.randn(batch, 2, 900, device="cuda")
    with torch.inference_mode():
        expected = net(x)
    stream = pts.compile(pts.create_stream(net), chunk=2 * pts.create_stream(net).hop, batch=batch)
    assert stream.candidates[0].backend == "cudagraph"
    assert not [candidate.reason for candidate in stream.candidates if candidate.reason]
    twin = None
    for _ in range(2):
        pieces = []
        for i, chunk in enumerate(x.split(stream.chunk, -1)):
            pieces.append(stream(chunk))
            if i == 20:
                twin, before = copy.deepcopy(stream), list(pieces)
            if i > 20:  # two streams take turns on one graph
                before.append(twin(chunk))
        for one, given in ((stream, pieces), (twin, before)):
            y = torch.cat([piece for piece in (*given, one.flush()) if piece is not None], -1)
            assert y.shape == expected.shape
            assert (y - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("kernels", ["", "fused"])
def test_a_graph_holds_the_weights_that_it_reads(kernels, monkeypatch):
    monkeypatch.setitem(backends.KERNELS, "cudagraph", (kernels,))
    torch.manual_seed(0)
    net = nn.Sequential(*(module for _ in range(10) for module in (nn.Conv1d(64, 64, 3), nn.ReLU()))).cuda()
    x = torch.randn(1, 64, 60, device="cuda")
    stream = pts.compile(pts.create_stream(net), chunk=1, backend="cudagraph")
    gc.collect()
    taken = [torch.full([n], torch.nan, device="cuda") for n in (64, 4096, 12288, 1 << 20) for _ in range(100)]
    with torch.no_grad():
        pieces = [piece for piece in map(stream, x.split(1, -1)) if piece is not None]
        torch.testing.assert_close(torch.cat(pieces, -1), net(x), rtol=0, atol=1e-5)
    assert len(taken) == 400


@pytest.mark.parametrize("fuse", [False, True])
def test_a_static_stream_is_a_cuda_graph(fuse):
    net = network().cuda()
    stream = pts.create_stream(net)
    batch, chunk = 16, 4 * stream.hop
    step = pts.StaticStream(stream, chunk=chunk, batch=batch, validate=False)
    plain = pts.StaticStream(stream, chunk=chunk, batch=batch, validate=False)
    step.capture(fuse)
    steps = 60
    x = torch.randn(batch, 2, steps * chunk, device="cuda")
    with torch.inference_mode():
        expected = net(x)
    none = torch.zeros(batch, dtype=torch.bool, device="cuda")
    lengths = torch.full([batch], chunk, device="cuda")
    pieces = []
    for k in range(steps + step.flush_steps):
        given = x[..., k * chunk : (k + 1) * chunk] if k < steps else torch.zeros_like(x[..., :chunk])
        flags = (lengths, ~none if k == 0 else none, ~none if k == steps - 1 else none)
        y, start, stop = step(given, *flags)
        other, *edges = plain(given, *flags)
        torch.testing.assert_close(y, other)
        assert torch.equal(start, edges[0]) and torch.equal(stop, edges[1])
        pieces.append(y[..., int(start[0]) : int(stop[0])])
    y = torch.cat(pieces, -1)
    assert y.shape == expected.shape and (y - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("suffix", ["pt", "pt2", "onnx"])
def test_a_file_is_written_from_the_device(suffix, tmp_path):
    if suffix == "onnx":
        for module in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(module)
    net = network().cuda()
    stream = pts.create_stream(net)
    chunk = {} if suffix == "pt" else {"chunk": 4 * stream.hop}
    pts.export(stream, tmp_path / f"net.{suffix}", **chunk)
    runner = pts.load(tmp_path / f"net.{suffix}")
    x = torch.randn(1, 2, 901, device="cuda")
    with torch.inference_mode():
        expected = net(x).cpu()
        y = streamed(runner, x.cpu() if suffix == "onnx" else x, 50).cpu()
    assert y.shape == expected.shape and (y - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_a_chunk_on_another_device_is_refused():
    stream = pts.create_stream(network().cuda())
    with pytest.raises(pts.StreamInputError, match="weights are torch.float32 on cuda:0"):
        stream(torch.randn(1, 2, 30))
    stream(torch.randn(1, 2, 30, device="cuda"))
    with pytest.raises(pts.StreamInputError, match="the signal goes on with"):
        stream(torch.randn(1, 2, 30))
