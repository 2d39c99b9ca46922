"""Where a stream and its network part: faults that are put in are found where they are."""

import pytest
import torch
from torch import nn

import torchstreamer as pts
from torchstreamer.analysis import trace_error


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(2, 4, 5, padding=2),
        nn.ReLU(inplace=True),
        pts.Residual1d(nn.Sequential(nn.Conv1d(4, 4, 3, padding=1), nn.Tanh())),
        nn.Conv1d(4, 4, 4, stride=2),
        nn.ConvTranspose1d(4, 2, 4, stride=2),
    ).eval()


X = torch.randn(1, 2, 90, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("chunk", [1, 7, 90, 200])
def test_nothing_to_find(chunk):
    model = net()
    found = trace_error(model, pts.create_stream(model), X, chunk=chunk)
    assert found and found.equal and found.layer == ""
    assert str(found) == f"no difference in {model(X).shape[-1]} samples"


@pytest.mark.parametrize("path", ["0", "2.net.0", "3", "4"])
def test_other_weights_are_found_where_they_are(path):
    model, twin = net(), net()
    with torch.no_grad():
        twin.get_submodule(path).weight[0, 0, 1] += 0.5
    found = trace_error(model, pts.create_stream(twin), X, chunk=7)
    assert not found
    assert found.layer == path and found.compared == f"the module '{path}' of the network"
    # The value is that of the first sample that differs.
    outputs = {}
    hook = model.get_submodule(path).register_forward_hook(lambda module, args, y: outputs.update(y=y.detach().clone()))
    model(X)
    hook.remove()
    expected = outputs["y"]
    assert found.expected == pytest.approx(float(expected[0, found.channel, found.sample]), rel=1e-6)
    assert abs(found.found - found.expected) > 1e-4
    assert f"sample {found.sample}, channel {found.channel}" in str(found)


class Forgetful(pts.BaseStream):
    """A moving sum that forgets what came in the call before."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def step(self, x, final):
        return None if x is None else self.net(torch.nn.functional.pad(x, (2, 0)))

    def output_length(self, n: int, final: bool = True) -> int:
        return n


def test_a_handler_that_forgets_is_found_at_the_first_edge_of_a_chunk():
    model = nn.Sequential(nn.ConstantPad1d((2, 0), 0.0), nn.Conv1d(2, 2, 3), nn.ReLU()).eval()
    stream = pts.create_stream(model)
    stream.streams[0] = pts.create_stream(nn.Identity())
    stream.streams[1] = Forgetful(model[1])
    found = trace_error(model, stream, X, chunk=10)
    # The padding is left out first, which shows as a length, and is then what the convolution does itself.
    assert not found and found.layer == "0"
    only = nn.Sequential(nn.Identity(), nn.Sequential(nn.ConstantPad1d((2, 0), 0.0), nn.Conv1d(2, 2, 3))).eval()
    stream = pts.create_stream(only)
    stream.streams[1] = Forgetful(only[1][1])
    found = trace_error(only, stream, X, chunk=10)
    assert found.layer == "1" and found.handler == "Forgetful" and found.sample == 10
    assert trace_error(only, stream, X, chunk=90)  # one chunk has no edges


def test_a_length_that_differs():
    model = net()
    stream = pts.create_stream(nn.Sequential(*list(model)[:-1]))
    found = trace_error(model, stream, X)
    assert not found and "shape [1, 4, 44] came" in str(found) and found.layer == ""
    stream = pts.create_stream(model)
    stream.streams[0].pad.right = 0
    found = trace_error(model, stream, X)
    assert found.layer == "0" and found.sample == 88
    assert str(found).endswith("88 samples came; 90 were expected")


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(2, 8, 3, padding=1)
        self.second = nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 2, 5, padding=2))

    def forward(self, x):
        y, gate = self.first(x).chunk(2, dim=1)
        return x + self.second(y * torch.sigmoid(gate))


@pytest.mark.parametrize("path", ["first", "second"])
def test_captured_models(path):
    torch.manual_seed(0)
    model = Gated().eval()
    stream = pts.create_stream(model, example=X)
    assert trace_error(model, stream, X, chunk=9)
    layer = next(
        node.stream
        for node in stream.nodes
        if hasattr(node, "stream") and {id(p) for p in node.stream.parameters()} & parameters_of(model, path)
    )
    layer.pad.value = 1.0  # other padding than the network's
    found = trace_error(model, stream, X, chunk=9)
    assert not found
    assert found.compared == f"the module '{path}' of the network" and found.sample == 0


def parameters_of(model, path):
    return {id(p) for p in model.get_submodule(path).parameters()}


def test_several_inputs_in_another_layout():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(3, 3, 3, padding=1)

        def forward(self, x, y):
            return {"sum": self.conv(x.transpose(1, 2)).transpose(1, 2) + y, "other": x}

    model = Mixed().double().eval()
    xs = torch.randn(1, 40, 3).double(), torch.randn(1, 40, 3).double()
    stream = pts.create_stream(model, xs, (1, 1))
    assert trace_error(model, stream, xs, chunk=6)
    with torch.no_grad():
        twin = pts.create_stream(Mixed().double().eval(), xs, (1, 1))
    assert not trace_error(model, twin, xs, chunk=6)


def test_tolerance():
    model, twin = net(), net()
    with torch.no_grad():
        twin[4].bias += 1e-3
    assert not trace_error(model, pts.create_stream(twin), X)
    assert trace_error(model, pts.create_stream(twin), X, tolerance=0.1)


def test_the_network_and_the_stream_are_left_alone():
    model = net()
    stream = pts.create_stream(model)
    stream(X[..., :30])
    before = stream.get_state()
    trace_error(model, stream, X)
    assert all(torch.equal(value, before[key]) for key, value in stream.get_state().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_refusals():
    with pytest.raises(ValueError, match="^invalid_chunk"):
        trace_error(net(), pts.create_stream(net()), X, chunk=0)
    with pytest.raises(TypeError, match="a Sequential came"):
        trace_error(net(), net(), X)
