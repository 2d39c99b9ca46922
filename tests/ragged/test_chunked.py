"""A network that computes its input chunk by chunk gives what it gives on the whole, in little memory."""

import copy
import io
import math
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

import torchstreamer as pts


def encoder(channels=2):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(channels, 4, 7, stride=2, padding=3),
        nn.ReLU(),
        nn.Conv1d(4, 4, 4, stride=3),
        nn.ConvTranspose1d(4, 4, 6, stride=3),
        pts.Residual1d(nn.Conv1d(4, 4, 3, padding=1)),
    ).eval()


def recurrent():
    torch.manual_seed(1)
    return pts.Recurrent1d(nn.GRU(2, 3, batch_first=True)).eval()


NETS = [encoder, recurrent, lambda: nn.Conv1d(2, 3, 40, stride=25), lambda: nn.Upsample(scale_factor=3)]


@pytest.mark.parametrize("make", NETS)
def test_chunks_give_the_whole(make):
    net = make().double()
    x = torch.randn(3, 2, 300, dtype=torch.float64)
    for chunk in (17, 120, 1000):
        chunked = pts.ChunkModule(net, chunk)
        assert chunked.chunk % chunked._stream().hop == 0 and 0 <= chunked.chunk - chunk < chunked._stream().hop
        for grad in (False, True):
            with torch.set_grad_enabled(grad):
                torch.testing.assert_close(chunked(x), net(x), rtol=0, atol=1e-10)
                torch.testing.assert_close(chunked(x[0, :, :50]), net(x[:1, :, :50])[0], rtol=0, atol=1e-10)
        assert chunked.output_length(300) == net(x).shape[-1]


def test_other_dtypes():
    for dtype, near in ((torch.float32, 1e-5), (torch.bfloat16, 0.05), (torch.float16, 0.005)):
        net, x = encoder().to(dtype), torch.randn(2, 2, 200).to(dtype)
        torch.testing.assert_close(pts.ChunkModule(net, 40)(x), net(x), rtol=near, atol=near)


def test_short_inputs_are_answered_as_by_the_network():
    net = encoder()
    chunked = pts.ChunkModule(net, 12)
    for n in (0, 1, 4):
        x = torch.randn(1, 2, n)
        with pytest.raises(RuntimeError) as theirs:
            net(x)
        with pytest.raises(RuntimeError) as ours:
            chunked(x)
        assert str(ours.value) == str(theirs.value)
    chunked = pts.ChunkModule(nn.ReLU(), 12)
    assert chunked(torch.randn(2, 3, 0)).shape == (2, 3, 0)
    with torch.no_grad():
        torch.testing.assert_close(pts.ChunkModule(net, 12)(torch.ones(1, 2, 40)), net(torch.ones(1, 2, 40)))


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("make", NETS)
def test_rows_of_unequal_length(make, checkpoint):
    net = make().double()
    chunked = pts.ChunkModule(net, 60, checkpoint)
    lengths = [300, 0, 130, 130, 1, 60, 120, 299]
    x = torch.randn(len(lengths), 2, 300, dtype=torch.float64)
    for row, n in zip(x, lengths, strict=True):
        row[:, n:] = torch.nan
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            y = chunked(x, lengths=torch.tensor(lengths))
        assert y.shape[0] == len(lengths) and y.shape[2] == chunked.output_length(300)
        for row, whole, n in zip(y, x, lengths, strict=True):
            m = chunked.output_length(n)
            if m:
                torch.testing.assert_close(row[:, :m], net(whole[None, :, :n])[0], rtol=0, atol=1e-10)
            assert torch.equal(row[:, m:], torch.zeros_like(row[:, m:]))
    out = np.full(y.shape, 7.0)
    with torch.no_grad():
        assert chunked(x, lengths=lengths, out=out) is out
    torch.testing.assert_close(torch.from_numpy(out), y.detach())
    with torch.no_grad():
        assert not chunked(x, lengths=[0] * 7 + [1]).isnan().any()


@pytest.mark.parametrize("make", NETS)
def test_gradients_through_checkpoints(make):
    net = make().double()
    x = torch.randn(2, 2, 300, dtype=torch.float64)
    found = []
    for module in (net, pts.ChunkModule(net, 60), pts.ChunkModule(net, 60, checkpoint=True)):
        signal = x.clone().requires_grad_()
        net.zero_grad()
        (module(signal) ** 2).sum().backward()
        found.append([signal.grad, *(p.grad.clone() for p in net.parameters())])
    for gradients in found[1:]:
        for one, other in zip(gradients, found[0], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_gradients_of_unequal_rows():
    net, lengths = encoder().double(), [300, 130]
    x = torch.randn(2, 2, 300, dtype=torch.float64)
    alone = [net(row[None, :, :n]) for row, n in zip(x, lengths, strict=True)]
    sum((y**2).sum() for y in alone).backward()
    wanted = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    (pts.ChunkModule(net, 60, checkpoint=True)(x, lengths=lengths) ** 2).sum().backward()
    for p, gradient in zip(net.parameters(), wanted, strict=True):
        torch.testing.assert_close(p.grad, gradient, rtol=1e-10, atol=1e-10)


def test_training_with_dropout():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(2, 4, 5, padding=2), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Conv1d(4, 1, 3)).double()
    x = torch.randn(2, 2, 100, dtype=torch.float64)
    found = []
    for checkpoint in (False, True):
        chunked = pts.ChunkModule(net, 20, checkpoint, training="frozen")
        chunked.train()
        net.zero_grad()
        torch.manual_seed(1)
        y = chunked(x)
        (y**2).sum().backward()
        found.append([y.detach(), *(p.grad.clone() for p in net.parameters())])
        assert net[2].training and not torch.equal(chunked(x), y)
        chunked.eval()
        torch.testing.assert_close(chunked(x), net(x), rtol=0, atol=1e-10)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


class Mixer(nn.Module):
    """Two inputs at paces of 1 to 2, in a layout of their own, and a static one."""

    def __init__(self):
        super().__init__()
        self.slow = nn.Conv1d(3, 4, 3, padding=1)
        self.fast = nn.Conv1d(2, 4, 4, stride=2, padding=1)

    def forward(self, slow, fast, gain):
        low = self.slow(slow.transpose(1, 2))
        mixed = low * gain[:, :, None] + self.fast(fast)
        return {"mixed": mixed.transpose(1, 2), "low": low}


@pytest.mark.slow
def test_several_inputs_and_outputs():
    net = Mixer().eval()
    example = (torch.randn(2, 20, 3), torch.randn(2, 2, 40), torch.randn(2, 4))
    chunked = pts.ChunkModule(net, 16, example=example, time_dim=(1, 2, None))
    inputs = torch.randn(2, 90, 3), torch.randn(2, 2, 180), torch.randn(2, 4)
    for found in (chunked(*inputs), chunked(inputs[0].numpy(), *inputs[1:])):
        torch.testing.assert_close(found, net(*inputs))
    with torch.no_grad():
        outs = [torch.empty(2, 90, 4), torch.empty(2, 4, 90)]
        assert chunked(*inputs, out=outs)["low"] is outs[1]
        torch.testing.assert_close(outs, list(net(*inputs).values()))
    for misfit in (inputs[:0], (*inputs, inputs[0])):
        with pytest.raises(pts.StreamInputError, match="^invalid_chunk: "):
            chunked(*misfit)
    lengths = [90, 37]
    padded = [x.clone() for x in inputs]
    padded[0][1, 37:] = padded[1][1, :, 74:] = math.nan
    for mode in (torch.enable_grad, torch.no_grad):
        with mode():
            found = chunked(*padded, lengths=lengths)
            for row, n in enumerate(lengths):
                whole = net(
                    inputs[0][row : row + 1, :n], inputs[1][row : row + 1, :, : 2 * n], inputs[2][row : row + 1]
                )
                mixed, low = found["mixed"][row], found["low"][row]
                torch.testing.assert_close(mixed[:n], whole["mixed"][0])
                torch.testing.assert_close(low[:, :n], whole["low"][0])
                assert mixed.shape == (90, 4) and not mixed[n:].any() and not low[:, n:].any()
    with torch.no_grad():
        assert chunked(*padded, lengths=lengths, out=outs)["mixed"] is outs[0]
        torch.testing.assert_close(outs, list(found.values()))
    for wrong in ([91, 3], [3], [-1, 3]):
        with pytest.raises(pts.StreamInputError, match="^invalid_lengths: "):
            chunked(*inputs, lengths=wrong)


def test_lengths_of_models_of_other_axes():
    conv = nn.Conv2d(1, 3, 3, padding=1, stride=(2, 1)).double()
    chunked = pts.ChunkModule(conv, 8, example=torch.randn(2, 1, 6, 16, dtype=torch.float64))
    x, lengths = torch.randn(3, 1, 6, 40, dtype=torch.float64), [40, 9, 0]
    x[1, ..., 9:] = x[2] = math.nan
    found = chunked(x, lengths=lengths)
    assert found.shape == (3, 3, 3, 40)
    for y, row, n in zip(found, x, lengths, strict=True):
        assert not y[..., n:].any()
        if n:
            torch.testing.assert_close(y[..., :n], conv(row[None, ..., :n])[0])


def test_memory_maps(tmp_path):
    net = encoder().eval()
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (2, 2, 1000))
    x[:] = np.random.default_rng(0).standard_normal(x.shape)
    x.flush()
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    chunked = pts.ChunkModule(net, 100)
    with torch.no_grad():
        whole = net(torch.from_numpy(np.array(x)))
        y = np.lib.format.open_memmap(tmp_path / "y.npy", "w+", np.float64, tuple(whole.shape))
        assert chunked(x, out=y) is y
        torch.testing.assert_close(torch.from_numpy(np.load(tmp_path / "y.npy")).float(), whole)
        for wrong in (torch.empty(2, 4, 3), np.load(tmp_path / "y.npy", mmap_mode="r"), "here", [y, y]):
            with pytest.raises(pts.StreamInputError, match="^invalid_out: "):
                chunked(x, out=wrong)
    with pytest.raises(pts.StreamInputError, match="^invalid_out: .*gradient"):
        chunked(x, out=y)
    torch.testing.assert_close(chunked(x), net(torch.from_numpy(np.array(x))))  # sound after errors


def test_weights_go_from_either_into_the_other():
    net, other = encoder(), pts.ChunkModule(encoder(), 12)
    assert list(other.state_dict()) == list(net.state_dict())
    around = nn.ModuleDict({"before": nn.Linear(1, 1), "chunked": other})
    assert [key for key in around.state_dict() if key.startswith("chunked.")] == [
        f"chunked.{k}" for k in net.state_dict()
    ]
    state = {name: value + 1 for name, value in net.state_dict().items()}
    other.load_state_dict(state)
    around.load_state_dict({name: value * 2 for name, value in around.state_dict().items()})
    net.load_state_dict({name: value * 2 for name, value in state.items()})
    x = torch.randn(1, 2, 100)
    torch.testing.assert_close(other(x), net(x))
    torch.testing.assert_close(copy.deepcopy(other)(x), net(x))
    torch.testing.assert_close(pickle.loads(pickle.dumps(other))(x), net(x))
    file = io.BytesIO()
    torch.save(other.state_dict(), file)
    file.seek(0)
    net.load_state_dict(torch.load(file))
    other.double()
    torch.testing.assert_close(other(x.double()), net.double()(x.double()))
    other.load_state_dict(encoder().double().state_dict(), assign=True)
    torch.testing.assert_close(other(x.double()), encoder().double()(x.double()))


def test_it_is_refused_as_its_stream_is():
    with pytest.raises(pts.UnsupportedModuleError, match="^time_mixing"):
        pts.ChunkModule(nn.InstanceNorm1d(2), 10)
    for chunk in (0, 2.0, True, "4"):
        with pytest.raises(pts.StreamInputError, match="^invalid_chunk_size: "):
            pts.ChunkModule(nn.ReLU(), chunk)
    chunked = pts.ChunkModule(nn.Sequential(nn.Conv1d(1, 1, 3), nn.Dropout()).eval(), 10)
    with pytest.raises(pts.UnsupportedModuleError, match="^training_mode"):
        chunked.train()(torch.randn(1, 1, 30))
    chunked.eval()
    for misfit in (torch.randn(30), torch.randn(1, 2, 30), [1.0]):
        with pytest.raises(pts.StreamInputError, match="^invalid_chunk: "):
            chunked(misfit)
    for lengths in ([3], [3, 31], [-1, 3]):
        with pytest.raises(pts.StreamInputError, match="^invalid_lengths: "):
            chunked(torch.randn(2, 1, 30), lengths=lengths)
    assert repr(chunked).startswith("ChunkModule(\n  chunk=10, checkpoint=False")


def peak_of(work):
    """The most bytes that were allocated at once."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        work()
    events = [event for event in run.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    assert peak
    return peak


def test_memory_is_bounded():
    net = nn.Sequential(nn.Conv1d(1, 16, 9), nn.ReLU(), nn.Conv1d(16, 16, 9), nn.ReLU(), nn.Conv1d(16, 1, 9, stride=8))
    x = torch.randn(1, 1, 80_000)
    chunked = pts.ChunkModule(net, 800)
    out = torch.empty(1, 1, chunked.output_length(x.shape[-1]))
    with torch.no_grad():
        chunked(x[..., :4000])
        little, half = (
            peak_of(lambda n=n: chunked(x[..., :n], out=out[..., : chunked.output_length(n)])) for n in (8000, 80_000)
        )
        offline = peak_of(lambda: net(x))
    assert half <= little + 4096 and half < offline / 20

    def trained(module):
        return peak_of(lambda: module(x).sum().backward())

    assert trained(pts.ChunkModule(net, 800, checkpoint=True)) < trained(net) / 8
