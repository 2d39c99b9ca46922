"""Who streams what, and what is refused."""

import pickle

import pytest
import torch
from torch import nn

import torchstreamer as pts
from torchstreamer.core import registry


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    monkeypatch.setattr(registry, "_factories", dict(registry._factories))


class Gain(nn.Module):
    def forward(self, x):
        return 2 * x


class GainStream(pts.BaseStream):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor, final: bool = False):
        return self.net(x)


def test_function_and_decorator_register():
    pts.register_streamer(Gain, GainStream)
    assert isinstance(pts.create_stream(Gain()), GainStream)

    @pts.register_streamer(Gain)
    class Other(GainStream):
        pass

    assert isinstance(pts.create_stream(Gain()), Other)
    pts.register_streamer(module=Gain, streamer=GainStream)
    assert type(pts.create_stream(Gain())) is GainStream


def test_registered_subclass_beats_its_base():
    class MyConv(nn.Conv1d):
        pass

    assert isinstance(pts.create_stream(MyConv(2, 2, 3)), pts.Conv1dStream)
    pts.register_streamer(MyConv, GainStream)
    assert isinstance(pts.create_stream(MyConv(2, 2, 3)), GainStream)
    assert isinstance(pts.create_stream(nn.Conv1d(2, 2, 3)), pts.Conv1dStream)


def test_a_subclass_that_computes_something_else_is_not_its_base():
    class CausalConv1d(nn.Conv1d):
        def forward(self, x):
            return super().forward(nn.functional.pad(x, (self.kernel_size[0] - 1, 0)))

    class Skip(nn.Sequential):
        def forward(self, x):
            return x + super().forward(x)

    class Weighted(nn.Sequential):
        def forward(self, x):
            return 2 * super().forward(x)

    x = torch.randn(1, 2, 12)
    for net in (CausalConv1d(2, 2, 3), Skip(nn.Conv1d(2, 2, 1))):  # captured as they are
        torch.testing.assert_close(pts.create_stream(net)(x, final=True), net(x))
    with pytest.raises(pts.UnsupportedModuleError, match="^changed_forward: .*overrides forward"):
        pts.create_stream(Weighted(nn.ReLU()))  # nothing tells its channels
    net = nn.Conv1d(2, 2, 3)
    net.forward = lambda x: x
    with pytest.raises(pts.UnsupportedModuleError, match="^changed_forward: "):
        pts.create_stream(net)


def test_hooks_are_refused():
    net = nn.Sequential(nn.Identity(), nn.Conv1d(2, 2, 3))
    handle = net[1].register_forward_hook(lambda module, args, y: 2 * y)
    with pytest.raises(pts.UnsupportedModuleError, match="^forward_hook: Conv1d at '1'"):
        pts.create_stream(net)
    handle.remove()
    pts.create_stream(net)


def test_the_error_names_the_path_from_the_outermost_network():
    net = nn.Sequential(nn.Identity(), pts.Residual1d(nn.Sequential(nn.ReLU(), pts.Parallel1d(nn.GroupNorm(1, 2)))))
    with pytest.raises(pts.UnsupportedModuleError) as caught:
        pts.create_stream(net)
    assert caught.value.path == "1.net.1.branches.0"
    assert caught.value.code == "time_mixing"
    assert "GroupNorm at '1.net.1.branches.0' cannot be streamed" in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    with pytest.raises(pts.UnsupportedModuleError, match="at '1.net.1.branches.0'"):
        pts.Sequential1dStream(net)


def test_the_path_through_a_users_container_is_named_too():
    class Wrapper(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x)

    pts.register_streamer(Wrapper, lambda net: pts.create_stream(net.inner))
    with pytest.raises(pts.UnsupportedModuleError, match="Flatten at '0.inner'"):
        pts.create_stream(nn.Sequential(Wrapper(nn.Flatten())))


def test_a_module_that_stands_twice_gets_two_streams():
    conv = nn.Conv1d(2, 2, 3).double()
    net = nn.Sequential(conv, nn.ReLU(), conv)
    stream = pts.create_stream(net)
    assert len(stream.streams) == 3 and stream.streams[0] is not stream.streams[2]
    x = torch.randn(1, 2, 20).double()
    y = torch.cat([stream(x[..., :9]), stream(x[..., 9:], final=True)], -1)
    torch.testing.assert_close(y, net(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("bad", [3, "conv", nn.Conv1d])
def test_only_modules_are_taken(bad):
    with pytest.raises(TypeError, match="torch.nn.Module was expected"):
        pts.create_stream(bad)


def test_a_stream_is_not_streamed_again():
    with pytest.raises(pts.UnsupportedModuleError, match="^already_a_stream: "):
        pts.create_stream(pts.create_stream(nn.ReLU()))


@pytest.mark.parametrize("net_type, factory", [(nn.ReLU(), GainStream), (int, GainStream), (Gain, 3)])
def test_bad_registrations_are_refused(net_type, factory):
    with pytest.raises(TypeError, match="register_streamer got"):
        pts.register_streamer(net_type, factory)


def test_is_streamable_reports_every_module():
    good = nn.Sequential(nn.Conv1d(1, 2, 3), nn.Sequential(nn.ReLU()))
    report = pts.is_streamable(good)
    assert report and [(m.path, m.handler) for m in report] == [
        ("", "Sequential1dStream"),
        ("0", "Conv1dStream"),
        ("1", "Sequential1dStream"),
        ("1.0", "ActivationStream"),
    ]
    bad = pts.is_streamable(nn.Sequential(good, nn.LSTM(2, 2), pts.Residual1d(nn.Flatten())))
    assert not bad
    refused = {m.path: m.reason for m in bad if m.handler is None}
    assert set(refused) == {"", "1", "2", "2.net"}
    assert refused["2"] == "because of '2.net'" and "time axis" in refused["2.net"]
    assert "2.net: Flatten -> refused, it takes the time axis away" in str(bad)
