"""On a CUDA device: exact, safe, and states move between devices. Skipped where there is none."""

import pytest
import torch
from torch import nn

import torchstreamer as pts

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


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
        expected = net(x)
        y = streamed(stream, x, size)
    assert y.device == expected.device and y.shape == expected.shape
    assert (y - expected).abs().max() <= tolerance * expected.abs().max()


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


def test_a_chunk_on_another_device_is_refused():
    stream = pts.create_stream(network().cuda())
    with pytest.raises(pts.StreamInputError, match="weights are torch.float32 on cuda:0"):
        stream(torch.randn(1, 2, 30))
    stream(torch.randn(1, 2, 30, device="cuda"))
    with pytest.raises(pts.StreamInputError, match="the signal goes on with"):
        stream(torch.randn(1, 2, 30))
