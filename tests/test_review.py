"""Cases that once went wrong, each with the rule that it broke."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import spectral_norm, weight_norm

import torchstreamer as pts


def joined(*pieces):
    return torch.cat([piece for piece in pieces if piece is not None], -1)


def saved_and_loaded(script):
    file = io.BytesIO()
    torch.jit.save(script, file)
    file.seek(0)
    return torch.jit.load(file)


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "script", "script mid-signal"])
def test_copies_follow_their_own_weights(way):
    """live weights: a copied parameter counts its changes anew."""
    for changes in range(4):
        net, new = nn.Conv1d(2, 2, 3), nn.Conv1d(2, 2, 3)
        x = torch.randn(1, 2, 20)
        stream = pts.create_stream(net)
        if way.startswith("script"):
            stream = torch.jit.script(stream)
        with torch.no_grad():
            stream(x[..., :10])
            if way == "deepcopy":
                twin = copy.deepcopy(stream)
            elif way == "pickle":
                twin = pickle.loads(pickle.dumps(stream))
            else:
                if way == "script":
                    stream.reset()
                twin = saved_and_loaded(stream)
            for _ in range(changes):
                twin.load_state_dict({"weight.source.weight": new.weight, "bias": new.bias}, strict=False)
            expected = (new if changes else net)(x)
            if way == "script":
                torch.testing.assert_close(twin(x), expected)
            else:
                torch.testing.assert_close(twin(x[..., 10:]), expected[..., 8:])


def test_weights_are_packed_once_in_inference_mode():
    stream = pts.create_stream(nn.Conv1d(2, 2, 3))
    with torch.inference_mode():
        stream(torch.randn(1, 2, 5))
        packed = stream.weight.packed
        stream(torch.randn(1, 2, 5))
    assert stream.weight.packed is packed


class Doubled(nn.Conv1d):
    def forward(self, x):
        return 2 * super().forward(x)


class Backwards(nn.Sequential):
    def forward(self, x):
        return super().forward(x.flip(-1))


def hooked():
    net = nn.Conv1d(1, 1, 3)
    net.register_forward_hook(lambda module, args, y: 2 * y)
    return net


def computed_weight():
    net = nn.Conv1d(1, 1, 3)
    weight = nn.Parameter(net.weight.detach())
    del net.weight
    net.weight = 2 * weight
    return net


def computed_bias():
    net = nn.ConvTranspose1d(1, 1, 3)
    bias = net.bias.detach()
    del net.bias
    net.bias = bias
    return net


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "code, make, net",
    [
        ("changed_forward", pts.Conv1dStream, lambda: Doubled(1, 1, 3)),
        ("changed_forward", pts.Sequential1dStream, lambda: Backwards(nn.ReLU())),
        ("forward_hook", pts.Conv1dStream, hooked),
        ("wrong_module", pts.Conv1dStream, lambda: nn.Conv2d(1, 1, 3)),
        ("wrong_module", pts.BatchNorm1dStream, lambda: nn.BatchNorm2d(3).eval()),
        ("wrong_module", pts.UpsampleStream, lambda: nn.ReLU()),
        ("computed_parameter", pts.create_stream, computed_weight),
        ("computed_parameter", pts.create_stream, computed_bias),
        ("computed_parameter", pts.create_stream, lambda: weight_norm(nn.Conv1d(2, 3, 3), "bias")),
        ("forward_hook", pts.create_stream, lambda: weight_norm(nn.BatchNorm1d(3)).eval()),
    ],
)
def test_constructors_refuse_what_create_stream_refuses(code, make, net):
    """honest."""
    with pytest.raises(pts.UnsupportedModuleError, match=f"^{code}: "):
        make(net())


@pytest.mark.parametrize(
    "one, other",
    [
        (nn.Conv1d(1, 1, 5), nn.Conv1d(1, 1, 3)),
        (
            nn.Sequential(nn.Conv1d(1, 3, 3), nn.Conv1d(3, 1, 3)),
            nn.Sequential(nn.Conv1d(1, 4, 3), nn.Conv1d(4, 1, 3)),
        ),
        (nn.MaxPool1d(3), nn.AvgPool1d(3)),
    ],
)
@pytest.mark.parametrize("script", [False, True])
def test_the_state_of_another_network_is_refused(one, other, script):
    """state is data."""
    a, b = pts.create_stream(one), pts.create_stream(other)
    if script:
        b = torch.jit.script(b)
    a(torch.randn(1, 10))
    with pytest.raises(torch.jit.Error if script else pts.StreamInputError, match="invalid_state: .* other layers"):
        b.set_state(a.get_state())


@pytest.mark.parametrize("spoil", [-3, 0.5, [1, 2], "rows"])
def test_a_damaged_state_is_refused(spoil):
    stream = pts.create_stream(nn.Conv1d(1, 1, 5))
    stream(torch.randn(2, 1, 10))
    state = stream.get_state()
    if spoil == "rows":
        state["ring.data"] = state["ring.data"][:1]
    else:
        state["ring.skip"] = torch.tensor(spoil)
    with pytest.raises(pts.StreamInputError, match="^invalid_state: 'ring' "):
        stream.set_state(state)


class NormedInside(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(2)

    def forward(self, x):
        return self.norm(x)


def test_training_mode_after_creation_changes_nothing_in_a_capture():
    net, x = NormedInside().eval(), torch.randn(1, 2, 20)
    stream = pts.create_stream(net)
    expected = net(x)
    net.train()
    torch.testing.assert_close(stream(x, final=True), expected)
    assert net.norm.num_batches_tracked == 0


def test_training_mode_after_creation_is_noticed():
    net = NormedInside().eval()
    stream = pts.Elementwise1dStream(net)
    net.train()
    with pytest.raises(pts.StreamError, match="^training_mode: "):
        stream(torch.randn(1, 2, 20))
    assert net.norm.num_batches_tracked == 0
    with pytest.raises(pts.UnsupportedModuleError, match="^training_mode: BatchNorm1d at 'norm'"):
        pts.Elementwise1dStream(net)


class Tripled(nn.Module):
    def forward(self, x):
        return x.mul_(3)


@pytest.mark.parametrize("net", [pts.Residual1d(Tripled()), pts.Parallel1d(Tripled(), nn.Identity())])
def test_own_modules_that_work_in_place_leave_the_other_branch_alone(net):
    """exact."""
    x = torch.randn(1, 2, 9)
    kept = x.clone()
    torch.testing.assert_close(net(x), 4 * kept)
    torch.testing.assert_close(pts.create_stream(net)(x, final=True), 4 * kept)
    assert torch.equal(x, kept)


def test_the_gradient_is_that_of_the_chunk_as_it_came():
    """isolated, trainable: memory that numpy writes to changes behind autograd's back."""
    net = nn.Conv1d(1, 1, 1)
    stream = pts.create_stream(net)
    shared = torch.zeros(1, 1, 10)
    x = torch.randn(1, 1, 20)
    pieces = []
    for chunk in x.split(10, -1):
        shared.numpy()[:] = chunk.numpy()
        pieces.append(stream(shared))
    torch.cat(pieces, -1).sum().backward()
    torch.testing.assert_close(net.weight.grad.flatten(), x.sum().view(1))


class Snake(nn.Module):
    def forward(self, x):
        return x + torch.sin(x) ** 2


@pytest.mark.parametrize("layer", [nn.Conv1d(4, 2, 3), nn.ConvTranspose1d(4, 2, 3), nn.Conv1d(4, 4, 3, groups=4)])
@pytest.mark.parametrize("grad", [False, True])
def test_wrong_channels_behind_a_layer_of_unknown_channels(layer, grad):
    """safe."""
    net = nn.Sequential(nn.MaxPool1d(2, 1), Snake(), layer)
    stream = pts.create_stream(net)
    x = torch.randn(1, 4, 9)
    with torch.set_grad_enabled(grad):
        for wrong in (3, 1, 8):
            with pytest.raises(pts.StreamInputError, match="channels came"):
                stream(torch.randn(1, wrong, 9))
        torch.testing.assert_close(stream(x, final=True), net(x))


class FromPCM(nn.Module):
    def forward(self, x):
        return x.float() / 32768


def test_a_layer_may_change_the_dtype_before_the_first_weight():
    """exact."""
    net = nn.Sequential(nn.Identity(), FromPCM(), nn.Conv1d(1, 2, 3, padding=1))
    x = torch.randint(-999, 999, (1, 1, 20)).short()
    torch.testing.assert_close(pts.create_stream(net)(x, final=True), net(x))


@pytest.mark.parametrize("script", [False, True])
@pytest.mark.parametrize(
    "net", [nn.Conv1d(4, 4, 3, groups=4), nn.ConvTranspose1d(4, 4, 3), nn.Conv1d(4, 4, 3), nn.Conv1d(4, 4, 1)]
)
def test_autocast_gives_the_dtype_of_the_network(net, script):
    """exact."""
    stream = pts.create_stream(net)
    stream = torch.jit.script(stream) if script else stream
    x = torch.randn(1, 4, 20)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        expected = net(x)
        y = joined(stream(x[..., :9]), stream(x[..., 9:]), stream.flush())
        assert y.dtype == expected.dtype == torch.bfloat16
        stream.reset()
        stream(x.bfloat16())
    torch.testing.assert_close(y, expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("script", [False, True])
def test_a_weight_computed_under_autocast_is_not_kept_for_later(script):
    """exact."""
    net = nn.utils.parametrizations.spectral_norm(nn.Conv1d(4, 4, 3))
    net(torch.randn(1, 4, 9))
    stream = pts.create_stream(net.eval())
    stream = torch.jit.script(stream) if script else stream
    x = torch.randn(1, 4, 20)
    with torch.no_grad():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            stream(x, final=True)
        torch.testing.assert_close(joined(stream(x[..., :9]), stream(x[..., 9:], final=True)), net(x))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("k", [0, 2])
def test_gradients_survive_chunks_without_them(k, mode):
    """trainable: what autograd keeps of a ring is not written to later."""
    up = [nn.AvgPool1d(200), nn.Conv1d(1, 1, 1), nn.Upsample(scale_factor=200)]
    early = [nn.ConstantPad1d((-1500, 1500), 0.0), nn.Conv1d(1, 1, 1), nn.AvgPool1d(200), nn.Upsample(scale_factor=200)]
    stream = pts.create_stream(pts.Parallel1d(nn.Sequential(*early), nn.Sequential(*up), merge="mul"))
    total = torch.zeros(())
    for i, chunk in enumerate(torch.randn(1, 1, 6000).split(100, -1)):
        if (i + k) % 4 == 0:
            y = stream(chunk)
        else:
            with mode():
                y = stream(chunk)
        if y is not None and y.requires_grad:
            total = total + y.sum()
    total.backward()


def test_rings_keep_no_more_memory_than_promised():
    """bounded."""
    ring = pts.RingBuffer()
    ring.append(torch.randn(1, 1, 1000))
    for _ in range(998):
        ring.drop(1)
    assert ring.length() == 2 and ring.data.untyped_storage().nbytes() <= 4 * 2 * 4
    with torch.no_grad():
        ring = pts.RingBuffer()
        for _ in range(300):
            ring.append(torch.randn(1, 1, 17))
            if ring.length() >= 1025:
                ring.drop(1024)
            assert ring.data.untyped_storage().nbytes() <= 4 * (4 * ring.length() + 17)


def test_padding_changed_to_one_side_is_followed():
    net = nn.Conv1d(1, 1, 5, padding=2, padding_mode="replicate")
    net._reversed_padding_repeated_twice = [4, 0]
    x = torch.randn(1, 1, 20)
    stream = pts.create_stream(net)
    torch.testing.assert_close(joined(stream(x[..., :7]), stream(x[..., 7:], final=True)), net(x))


class CausalPad(nn.ConstantPad1d):
    def __init__(self, n):
        super().__init__((n, 0), 0.0)


def test_without_padding_finds_padding_of_ones_own():
    net = nn.Sequential(CausalPad(4), nn.Conv1d(1, 1, 5))
    assert pts.without_padding(net)(torch.zeros(1, 1, 20)).shape[-1] == 16


def test_reports_of_parallel_networks():
    report = pts.is_streamable(pts.Parallel1d(nn.Conv1d(1, 1, 3), nn.Conv1d(1, 1, 5)))
    assert report and [module.path for module in report] == ["", "branches.0", "branches.1"]


def test_the_older_spectral_norm_follows_a_change_of_dtype():
    net = spectral_norm(nn.Conv1d(2, 2, 3)).eval()
    stream = pts.create_stream(net)
    net.double()
    x = torch.randn(1, 2, 9).double()
    torch.testing.assert_close(stream(x), net(x))


def test_a_long_residual_is_made_quickly():
    stream = pts.create_stream(pts.Residual1d(nn.Conv1d(1, 1, 2, dilation=3_000_000)))
    assert stream.output_length(3_000_001, True) == 1
