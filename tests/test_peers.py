"""Where other libraries break: none of it may happen here. Each test names the behaviour that it rules out."""

import pytest
import torch
from torch import nn

import torchstreamer as pts


def stream_in(net, x, sizes):
    stream, pieces, start = pts.create_stream(net), [], 0
    for size in sizes:
        pieces.append(stream(x[..., start : start + size]))
        start += size
    assert start == x.shape[-1]
    pieces.append(stream.flush())
    return torch.cat([piece for piece in pieces if piece is not None], -1)


def test_padding_of_every_layer_is_honoured():
    net = nn.Sequential(nn.Conv1d(2, 2, 3, padding=1), nn.Conv1d(2, 2, 3, padding=1)).double()
    x = torch.randn(2, 57).double()
    y = stream_in(net, x, [20, 20, 17])
    assert y.shape[-1] == 57
    torch.testing.assert_close(y, net(x), rtol=0, atol=1e-12)


def test_pool_padding_dilation_and_ceil_mode_are_honoured():
    net = nn.MaxPool1d(3, 2, padding=1, dilation=2, ceil_mode=True)
    x = torch.randn(2, 31)
    assert torch.equal(stream_in(net, x, [7, 13, 11]), net(x))


@pytest.mark.parametrize("net", [nn.GroupNorm(1, 4), nn.InstanceNorm1d(4), nn.Softmax(-1)])
def test_norms_and_softmax_over_time_do_not_pass_as_elementwise(net):
    with pytest.raises(pts.UnsupportedModuleError):
        pts.create_stream(net)


@pytest.mark.parametrize("net", [nn.Upsample(scale_factor=2), nn.ConstantPad1d(2, 1.0), nn.ReflectionPad1d(2)])
def test_upsample_and_padding_modules_stream(net):
    x = torch.randn(1, 2, 20)
    torch.testing.assert_close(stream_in(net, x, [3, 9, 8]), net(x))


def test_final_reaches_layers_behind_one_that_emits_nothing():
    net = nn.Sequential(nn.Conv1d(1, 1, 4, 4), nn.ConvTranspose1d(1, 1, 8, 4)).double()
    x = torch.randn(1, 33).double()
    stream = pts.create_stream(net)
    y = torch.cat([stream(x[:, :32]), stream(x[:, 32:], final=True)], -1)
    assert y.shape[-1] == net(x).shape[-1] == 36
    torch.testing.assert_close(y, net(x), rtol=0, atol=1e-12)


def test_final_resets():
    net = nn.Conv1d(1, 1, 5)
    stream = pts.create_stream(net)
    for _ in range(2):
        x = torch.randn(1, 40)
        y = torch.cat([stream(x[:, :20]), stream(x[:, 20:], final=True)], -1)
        assert y.shape[-1] == 36
        torch.testing.assert_close(y, net(x))


def test_a_residual_of_nothing_leaves_the_callers_tensor_alone():
    stream = pts.create_stream(pts.Residual1d(nn.Identity()))
    x = torch.ones(2, 3)
    assert torch.equal(stream(x), 2 * x) and torch.equal(x, torch.ones(2, 3))


def test_batch_norm_reads_channels_as_channels():
    net = nn.BatchNorm1d(3).eval()
    net.running_mean.copy_(torch.arange(3.0))
    x = torch.randn(3, 3)
    torch.testing.assert_close(pts.create_stream(net)(x), net(x[None])[0])


def test_strided_kernel_one_keeps_its_phase():
    net = nn.Conv1d(2, 2, 1, stride=3)
    x = torch.randn(2, 20)
    torch.testing.assert_close(stream_in(net, x, [1] * 20), net(x))


def test_chunks_that_are_no_multiple_of_the_stride():
    net = nn.Sequential(nn.Conv1d(1, 2, 4, 3, 2), nn.Conv1d(2, 2, 5, 2, 2)).double()
    x = torch.randn(1, 61).double()
    torch.testing.assert_close(stream_in(net, x, [7, 1, 0, 11, 42]), net(x), rtol=0, atol=1e-12)


def test_a_snapshot_is_no_alias():
    net = nn.Conv1d(1, 1, 3)
    x = torch.randn(1, 30)
    stream = pts.create_stream(net)
    stream(x[:, :10])
    state = stream.get_state()
    a = stream(x[:, 10:])
    stream.set_state(state)
    assert torch.equal(stream(x[:, 10:]), a)


def test_a_change_of_batch_mid_stream_is_refused():
    stream = pts.create_stream(nn.Conv1d(1, 1, 3))
    stream(torch.randn(4, 1, 5))
    with pytest.raises(pts.StreamInputError):
        stream(torch.randn(1, 1, 5))


def test_a_bidirectional_network_does_not_become_unidirectional():
    with pytest.raises(pts.UnsupportedModuleError, match="bidirectional"):
        pts.create_stream(nn.LSTM(4, 4, bidirectional=True))


def test_float64_stays_float64():
    assert pts.create_stream(nn.Conv1d(1, 1, 3).double())(torch.randn(1, 9).double()).dtype == torch.float64


def test_padding_beyond_the_kernel_and_strides_beyond_the_field():
    net = nn.Sequential(nn.Conv1d(1, 2, 3, stride=5, padding=4), nn.Conv1d(2, 1, 1, stride=3)).double()
    x = torch.randn(1, 97).double()
    torch.testing.assert_close(stream_in(net, x, [13, 50, 34]), net(x), rtol=0, atol=1e-12)


def test_any_number_of_rows():
    net = nn.Conv1d(1, 1, 3)
    x = torch.randn(100, 1, 20)
    torch.testing.assert_close(stream_in(net, x, [7, 13]), net(x))


def test_branches_of_unequal_look_ahead_are_aligned():
    net = pts.Parallel1d(nn.Conv1d(1, 1, 3, padding=1), nn.Conv1d(1, 1, 9, padding=4), nn.Identity()).double()
    x = torch.randn(1, 40).double()
    torch.testing.assert_close(stream_in(net, x, [1, 2, 3, 34]), net(x), rtol=0, atol=1e-12)


def test_the_registry_prefers_the_subclass():
    class Sub(nn.Conv1d):
        pass

    from torchstreamer.core import registry

    try:
        pts.register_streamer(Sub, lambda net: pts.create_stream(nn.Identity()))
        assert pts.create_stream(Sub(1, 1, 3))(torch.ones(1, 2)).shape == (1, 2)
    finally:
        registry._factories.pop(Sub)


def test_the_state_holds_no_graph_without_gradients():
    stream = pts.create_stream(nn.Conv1d(1, 1, 3))
    with torch.no_grad():
        for _ in range(3):
            stream(torch.randn(1, 4))
    assert all(not value.requires_grad for value in stream.get_state().values())
    assert not stream.ring.data.requires_grad
