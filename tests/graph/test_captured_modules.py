"""Captured models: shared, normed and changed weights, dtypes, chunks, handlers of the user's own, reports."""

import copy
from typing import Optional

import pytest
import torch
import torch.nn.functional as F
from feeding import compare, normal
from small_models import case
from torch import nn

import torchstreamer as pts


class Residual(nn.Module):
    """Branches of unequal depth, a module called twice, shared weights, a functional convolution."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(4, 4, 3, padding=1)
        self.shared = nn.Conv1d(4, 4, 5, padding=2)
        self.shared.weight = nn.Parameter(torch.randn(4, 4, 5) * 0.3)
        self.tied = nn.Conv1d(4, 4, 5, padding=4, dilation=2)
        self.tied.weight = self.shared.weight
        self.gain = nn.Parameter(torch.rand(4, 1, 1) + 0.5)
        self.register_buffer("offset", torch.linspace(-1, 1, 4)[:, None])

    def forward(self, x):
        y = self.conv(torch.relu(self.conv(x)))
        y = y + self.tied(self.shared(x)) + F.conv1d(x, self.conv.weight * self.gain, padding=2, dilation=2)
        return torch.tanh(y) + x * self.offset


def streamed(stream, x, size):
    pieces = [stream(x[..., i : i + size]) for i in range(0, x.shape[-1], size)] + [stream.flush()]
    return torch.cat([piece for piece in pieces if piece is not None], -1)


def check_stream(stream, model, x=None, sizes=(1, 4, 11)):
    x = normal(2, 4, 40) if x is None else x
    with torch.no_grad():
        expected = model(x.clone())
        for size in sizes:
            compare([streamed(stream, x, size)], [expected], [-1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_dtypes(dtype):
    model = Residual().to(dtype)
    x = normal(2, 4, 40).to(dtype)
    check_stream(pts.create_stream(model, example=x), model, x)


def test_moved_to_another_dtype():
    model = Residual()
    stream = pts.create_stream(model, example=torch.randn(1, 4, 20))
    check_stream(stream.double(), copy.deepcopy(model).double())


def test_chunks_that_are_not_contiguous():
    model = Residual().double()
    stream = pts.create_stream(model, example=normal(1, 4, 20))
    check_stream(stream, model, normal(2, 40, 4).transpose(1, 2))
    check_stream(stream, model, normal(2, 8, 80)[:, ::2, ::2])
    check_stream(stream, model, normal(1, 4, 40).expand(3, -1, -1))


@pytest.mark.parametrize("layout", ["a piece", "transposed", "every second"])
def test_an_example_that_is_a_view(layout):
    model = Residual().double()
    whole = {"a piece": normal(2, 4, 60)[..., :20], "transposed": normal(2, 20, 4).transpose(1, 2)}
    check_stream(pts.create_stream(model, example=whole.get(layout, normal(2, 4, 40)[..., ::2])), model)


def test_a_stream_used_again():
    model = Residual().double()
    stream = pts.create_stream(model, example=normal(1, 4, 20))
    for rows in (1, 3):
        check_stream(stream, model, normal(rows, 4, 33), sizes=(5,))
        stream(normal(2, 4, 7))
        stream.reset()
    with torch.no_grad():
        compare([streamed(stream, normal(4, 33), 5)], [model(normal(1, 4, 33))[0]], [-1])  # [C, T]


def test_weights_loaded_after_the_stream_was_made():
    model, other = Residual().double(), Residual().double()
    stream = pts.create_stream(model, example=normal(1, 4, 20))
    check_stream(stream, model)
    model.load_state_dict(other.state_dict())
    check_stream(stream, other)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model(normal(1, 4, 20)).square().mean().backward()
    optimizer.step()
    check_stream(stream, model)
    model.offset.mul_(2)
    check_stream(stream, model)


def test_gradients_reach_shared_and_computed_weights():
    model = Residual().double()
    stream = pts.create_stream(model, example=normal(1, 4, 20))
    x = normal(2, 4, 30)
    model(x).square().sum().backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    streamed(stream, x, 7).square().sum().backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, wanted[name])


@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
def test_normed_weights(norm):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = norm(nn.Conv1d(4, 4, 3, padding=1))
            self.up = norm(nn.ConvTranspose1d(4, 4, 4, stride=2, padding=1))

        def forward(self, x):
            return self.up(x + self.conv(x))

    model, other = Net().double(), Net().double()
    stream = pts.create_stream(model, example=normal(1, 4, 20))
    check_stream(stream, model)
    model.load_state_dict(other.state_dict())
    check_stream(stream, other)


def test_spectral_norm_and_parametrizations():
    class Positive(nn.Module):
        def forward(self, weight):
            return weight.exp()

    model = Residual()
    nn.utils.parametrizations.spectral_norm(model.conv)
    nn.utils.parametrize.register_parametrization(model.shared, "bias", Positive())
    model = model.double().eval()
    check_stream(pts.create_stream(model, example=normal(1, 4, 20)), model)


def test_hooks_inside_a_model_run():
    model = Residual().double()
    model.conv.register_forward_hook(lambda module, args, out: out * 3)
    model.shared.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    check_stream(pts.create_stream(model, example=normal(1, 4, 20)), model)


def test_an_unknown_module_inside_sequential():
    net = nn.Sequential(nn.Conv1d(4, 4, 3, padding=1), nn.Sequential(nn.ReLU(), Residual()), nn.AvgPool1d(2)).double()
    check_stream(pts.create_stream(net, example=normal(1, 4, 20)), net)


def test_without_an_example():
    model = Residual()
    check_stream(pts.create_stream(model), model, torch.randn(2, 4, 40))
    net = nn.Sequential(nn.Conv1d(4, 4, 3), Residual())
    check_stream(pts.create_stream(net), net, torch.randn(2, 4, 40))


def in_place(m, x):
    x += 1
    x[:, 0] = 0
    return F.relu(x, inplace=True)


def test_in_place_forward_leaves_chunks_alone():
    model = case(in_place).model().double()
    stream = pts.create_stream(model, example=normal(1, 4, 20))
    x = normal(2, 4, 9)
    y = stream(x)
    assert torch.equal(x, normal(2, 4, 9))
    kept = y.clone()
    x.zero_()
    stream(normal(2, 4, 9, seed=1), final=True)
    assert torch.equal(y, kept)


# ---------------------------------------------------------------------- handlers of the user's own


class Leaky(nn.Module):
    """An integrator, which the exporter cannot follow."""

    def __init__(self, decay=0.9):
        super().__init__()
        self.decay = decay

    def forward(self, x):
        y, out = torch.zeros_like(x[..., 0]), []
        for i in range(len(x.unbind(-1))):
            y = self.decay * y + x[..., i]
            out.append(y)
        return torch.stack(out, -1)


class LeakyStream(pts.BaseStream):
    made = 0

    def __init__(self, net: Leaky) -> None:
        super().__init__()
        LeakyStream.made += 1
        self.decay = net.decay
        self.ring = pts.RingBuffer()

    def forward(self, x: torch.Tensor, final: bool = False) -> Optional[torch.Tensor]:
        window = self.ring.window()
        y = torch.zeros_like(x[..., 0]) if window.dim() == 1 else window[..., -1]
        out = []
        for i in range(x.size(-1)):
            y = self.decay * y + x[..., i]
            out.append(y)
        z = torch.stack(out, -1)
        if window.dim() > 1:
            self.ring.drop(1)
        self.ring.append(z)
        self.ring.drop(z.size(-1) - 1)
        return z

    @torch.jit.export
    def output_length(self, n: int, final: bool = True) -> int:
        return max(n, 0)


class WithLeaky(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(4, 4, 3, padding=1)
        self.integrate = Leaky()
        self.layers = nn.Sequential(nn.Conv1d(4, 4, 1), Leaky(0.5))

    def forward(self, x):
        y = self.integrate(self.conv(x)) + x
        return y + self.layers(self.integrate(y))


@pytest.fixture
def leaky_registered():
    from torchstreamer.core import registry

    before = dict(registry._factories)
    LeakyStream.made = 0
    pts.register_streamer(Leaky, LeakyStream)
    yield
    registry._factories.clear()
    registry._factories.update(before)


def test_without_a_handler_the_integrator_is_refused():
    with pytest.raises(pts.UnsupportedModuleError, match="register a handler"):
        pts.create_stream(WithLeaky(), example=torch.randn(1, 4, 20))


def test_a_handler_of_the_users_own(leaky_registered):
    model = WithLeaky().double()
    stream = pts.create_stream(model, example=normal(1, 4, 20))
    assert sum(isinstance(part, LeakyStream) for part in stream.modules()) == 3  # one for each call
    check_stream(stream, model)
    check_stream(torch.jit.script(stream), model)
    assert model.integrate.forward.__func__ is Leaky.forward  # nothing is left of the capture
    report = pts.is_streamable(model, example=normal(1, 4, 20))
    assert report and "LeakyStream" in {line.handler for line in report}


def test_a_handler_for_a_type_that_torch_knows(leaky_registered):
    class Mine(nn.ReLU):
        def forward(self, x):
            return torch.tanh(x.flip(-1)).flip(-1)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(4, 4, 3)
            self.mine = Mine()

        def forward(self, x):
            return self.mine(self.conv(x))

    with pytest.raises(pts.UnsupportedModuleError, match="reverses time"):
        pts.create_stream(Net(), example=torch.randn(1, 4, 20))
    pts.register_streamer(Mine, lambda net: pts.Elementwise1dStream(nn.Tanh()))
    model = Net().double()
    check_stream(pts.create_stream(model, example=normal(1, 4, 20)), model)
    pts.register_streamer(Mine, lambda net: pts.Elementwise1dStream(nn.Sigmoid()))
    with pytest.raises(pts.UnsupportedModuleError, match="differs from the model"):
        pts.create_stream(model, example=normal(1, 4, 20))


def test_training_mode_is_refused():
    model = nn.Sequential(Residual(), nn.Dropout(0.5))
    with pytest.raises(pts.UnsupportedModuleError, match="Dropout at '1' .*call eval"):
        pts.create_stream(model, example=torch.randn(1, 4, 20))
    pts.create_stream(model.eval(), example=torch.randn(1, 4, 20))


class Reversed(nn.Module):
    def forward(self, x):
        return torch.flip(x, [-1])


class Chain(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(4, 4, 3)
        self.blocks = nn.ModuleList([nn.Identity(), nn.Sequential(nn.ReLU(), Reversed())])

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return x


def test_every_operation_is_reported():
    report = pts.is_streamable(Chain(), example=torch.randn(1, 4, 20))
    assert not report
    assert [(line.operation, line.path, line.handler) for line in report] == [
        ("conv1d", "first", "Conv1dStream"),
        ("relu", "blocks.1.0", "samplewise"),
        ("flip", "blocks.1.1", None),
    ]
    assert "reverses time" in str(report) and "return torch.flip(x, [-1])" in str(report)
