"""Streams in training mode with frozen statistics: what is random in them, what is kept, and what is refused."""

import math
import warnings
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import torchstreamer as pts
from torchstreamer.layers.dropout import RandomSlopes, SampleDropout

FROZEN = {"training": "frozen"}
CUTS = [1, 7, 0, 30, 22]


def joined(stream, x, cuts=CUTS):
    pieces = [*(stream(part) for part in x.split(cuts, -1)), stream.flush()]
    return torch.cat([piece for piece in pieces if piece is not None], -1)


def signal(rows=3, channels=2, length=60):
    return torch.randn(rows, channels, length, dtype=torch.float64)


def layers(p=0.5):
    """One of each kind, in a stack with containers."""
    inner = nn.Sequential(nn.Conv1d(4, 4, 3, padding=1), nn.AlphaDropout(p), nn.FeatureAlphaDropout(p))
    stack = (nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.Dropout(p), nn.RReLU(), nn.Dropout1d(p), pts.Residual1d(inner))
    branches = pts.Parallel1d(nn.Identity(), nn.Dropout(p), merge="cat")
    return nn.Sequential(*stack, branches)


class Model(nn.Module):
    """The same in a `forward`, called as functions and as modules, on several layouts."""

    def __init__(self, p=0.5):
        super().__init__()
        self.p = p
        self.conv = nn.Conv1d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm1d(4)
        self.linear = nn.Linear(4, 4)
        self.channels = nn.Dropout1d(p)
        self.inplace = nn.Dropout(p, inplace=True)
        self.pairs = nn.Dropout2d(p)

    def forward(self, x):
        h = F.rrelu(F.dropout(self.channels(self.norm(self.conv(x))), self.p, self.training), training=self.training)
        h = self.inplace(self.linear(h.transpose(1, 2))).transpose(1, 2)
        h = self.pairs(h.reshape(h.shape[0], 2, 2, -1)).flatten(1, 2)
        return h + F.alpha_dropout(h, self.p, self.training)


@cache
def once(captured):
    torch.manual_seed(0)
    net = (Model() if captured else layers()).double()
    for _ in range(3):
        net(signal())
    return net, pts.create_stream(net, example=signal(1) if captured else None, **FROZEN)


def made(captured):
    """A network in training mode that has seen some batches, and its stream; captured once."""
    net, stream = once(captured)
    stream.reset()
    return net.train(), stream.train()


def statistics_alone(net):
    """The network offline as the stream computes it: normalised by running statistics."""
    for module in net.modules():
        module.training = not isinstance(module, nn.BatchNorm1d)
    return net


@pytest.mark.parametrize("captured", [False, True])
def test_the_network_is_left_alone_and_the_stream_has_a_mode_of_its_own(captured):
    net, stream = made(captured)
    before, x = {name: value.clone() for name, value in net.state_dict().items()}, signal()
    assert stream.training
    assert not torch.equal(stream(x, final=True), stream(x, final=True))
    state = torch.get_rng_state()
    stream.eval()
    streamed = joined(stream, x)
    assert torch.equal(torch.get_rng_state(), state)  # nothing is drawn
    assert all(module.training for module in net.modules())
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)
    torch.testing.assert_close(streamed, net.eval()(x), rtol=0, atol=1e-10)
    stream.train()
    assert not torch.equal(stream(x, final=True), stream(x, final=True))
    assert not net.training
    shared = {id(parameter) for parameter in net.parameters()}
    assert {id(parameter) for parameter in stream.parameters()} == shared
    with torch.no_grad():
        next(net.parameters()).add_(0.1)
    torch.testing.assert_close(joined(stream.eval(), x), net(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("captured", [False, True])
def test_gradients_are_those_of_running_statistics(captured):
    net, stream = made(captured)
    x = signal()
    net.eval()
    stream.eval()
    net.zero_grad()
    (net(x) ** 2).mean().backward()
    expected = [parameter.grad.clone() for parameter in net.parameters()]
    net.zero_grad()
    (joined(stream, x) ** 2).mean().backward()
    for parameter, gradient in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=0, atol=1e-13)


def test_without_chance_training_mode_is_eval_mode():
    net = nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.Dropout(0.0), nn.Dropout1d(0.0)).double()
    stream, x, state = pts.create_stream(net, **FROZEN), signal(), torch.get_rng_state()
    streamed = joined(stream, x)
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(streamed, net.eval()(x), rtol=0, atol=1e-12)
    stream.train()  # in which it is, and says nothing


@pytest.mark.parametrize("p", [0.1, 0.7])
@pytest.mark.parametrize("kind", [nn.Dropout, nn.Dropout1d])
def test_the_share_of_zeros_and_the_scale(kind, p):
    stream, rows, channels = pts.create_stream(kind(p), **FROZEN), 40, 50
    torch.manual_seed(1)
    y = joined(stream, torch.ones(rows, channels, 60, dtype=torch.float64))
    assert y.unique().tolist() == pytest.approx([0.0, 1 / (1 - p)])
    draws = rows * channels * (60 if kind is nn.Dropout else 1)
    share = (y == 0).double().mean().item()
    assert abs(share - p) < 5 * math.sqrt(p * (1 - p) / draws)
    constant = bool((y == y[..., :1]).all())
    assert constant == (kind is nn.Dropout1d)


@pytest.mark.parametrize("captured", [False, True])
def test_with_the_same_masks_it_is_the_network_offline(captured, monkeypatch):
    net, stream = made(captured)
    x = signal()
    kept = {part: [] for part in stream.modules() if isinstance(part, (SampleDropout, RandomSlopes))}

    def recorded(self, x):  # random slopes as if they were a dropout too
        kept[self].append(F.dropout(torch.ones_like(x), 0.5))
        return x * kept[self][-1]

    for part in (SampleDropout, RandomSlopes):
        monkeypatch.setattr(part, "forward", recorded)
    channels = []

    def drawn(self, p, bernoulli=torch.Tensor.bernoulli_):
        channels.append(bernoulli(self, p))
        return channels[-1]

    monkeypatch.setattr(torch.Tensor, "bernoulli_", drawn)
    pieces = [stream(part) for part in x.split([20, 17, 23], -1)] + [stream.flush()]
    y = torch.cat([piece for piece in pieces if piece is not None], -1)
    assert len({len(pieces) for pieces in kept.values()}) > 1 or captured  # what the residual holds back comes late
    axes = [-1, -1, 1, -1] if captured else [-1] * len(kept)  # of time in each call, in the order of the network
    masks = iter(torch.cat(pieces, axis) for pieces, axis in zip(kept.values(), axes, strict=True))
    for name in ("dropout", "alpha_dropout", "rrelu"):
        monkeypatch.setattr(F, name, lambda x, *args, **named: x * next(masks))
    whole = iter(channels)

    def features(x, p, training, inplace=False):
        mask = next(whole)
        mask = mask.reshape(*x.shape[:2], *[1] * (x.dim() - 2))
        return x * mask / (1 - p)

    monkeypatch.setattr(F, "dropout1d", features)
    monkeypatch.setattr(F, "dropout2d", features)

    def alpha_features(x, p, training, inplace=False):
        mask, saturated = next(whole).unsqueeze(-1), 1.7580993408473766
        a = ((1 - p) * (1 + p * saturated**2)) ** -0.5
        return a * (x * mask - saturated * (1 - mask)) + a * p * saturated

    monkeypatch.setattr(F, "feature_alpha_dropout", alpha_features)
    torch.testing.assert_close(y, statistics_alone(net)(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.FeatureAlphaDropout])
def test_a_mask_of_channels_lasts_for_the_signal(kind):
    net, x = nn.Sequential(nn.Conv1d(2, 6, 3), kind(0.5)).double(), signal(rows=8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of the axes
        torch.manual_seed(5)
        whole = net(x)
    stream = pts.create_stream(net, **FROZEN)
    torch.manual_seed(5)
    torch.testing.assert_close(joined(stream, x), whole, rtol=0, atol=1e-12)
    assert not torch.equal(joined(stream, x), whole)  # another signal draws anew


@pytest.mark.parametrize("captured", [False, True])
def test_masks_are_part_of_the_state(captured):
    net = nn.Sequential(nn.Conv1d(1, 6, 3), nn.Dropout1d(0.5)).double()
    example = signal(1, 1) if captured else None
    one, two, both = (pts.create_stream(_Wrapped(net) if captured else net, example=example, **FROZEN) for _ in "123")
    x = torch.ones(2, 1, 40, dtype=torch.float64)
    begun = [stream(x[i : i + 1, :, :20]) for i, stream in enumerate((one, two))]
    assert not torch.equal(*begun)
    copy = pts.create_stream(_Wrapped(net) if captured else net, example=example, **FROZEN)
    copy.set_state(one.get_state())
    both.set_state(pts.stack_states([one.get_state(), two.get_state()]))
    rest = torch.cat([one(x[:1, :, 20:]), two(x[1:, :, 20:])])
    assert torch.equal(rest, torch.cat(begun)[..., -1:].expand_as(rest))
    assert torch.equal(copy(x[:1, :, 20:]), rest[:1])
    assert torch.equal(both(x[..., 20:]), rest)
    one.detach_state()
    one.eval()
    assert not torch.equal(one(x[:1, :, 20:]), rest[:1])
    one.train()
    assert torch.equal(one(x[:1, :, 20:]), rest[:1])  # the same signal still


class _Wrapped(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)


@pytest.mark.parametrize("captured", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_scripts_have_both_modes(captured):
    net, stream = made(True)
    if not captured:
        net = nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.AlphaDropout(0.5), nn.Dropout1d(0.5)).double()
        stream = pts.create_stream(net, **FROZEN)
    script, x = torch.jit.script(stream), signal()
    assert not torch.equal(script(x, True), script(x, True))
    script.eval()
    torch.testing.assert_close(joined(script, x), net.eval()(x), rtol=0, atol=1e-10)
    script.train()
    script(x[..., :20])
    other = torch.jit.script(stream)
    other.set_state(script.get_state())


def test_static_forms_are_of_eval_mode(tmp_path):
    net, stream = made(False)
    for make in (
        lambda: pts.StaticStream(stream, 4),
        lambda: pts.compile(stream, 4, backend="stream"),
        lambda: pts.export(stream, tmp_path / "a.pt"),
    ):
        with pytest.raises(pts.UnsupportedModuleError, match=r"^training_mode: .* call stream.eval\(\) first"):
            make()
    stream.eval()
    assert pts.StaticStream(stream, 4).chunk == 4


def test_each_part_begins_in_its_own_mode():
    net = nn.Sequential(nn.Conv1d(1, 4, 3), nn.Dropout(0.5).eval(), nn.BatchNorm1d(4)).double()
    stream, x = pts.create_stream(net, **FROZEN), signal(1, 1)
    torch.testing.assert_close(joined(stream, x), net.eval()(x))
    stream.train()
    assert (joined(stream, x) == joined(stream, x)).double().mean() < 0.9


class Pointwise(nn.Module):
    def forward(self, x):
        return F.dropout(x.sin(), 0.5, self.training)


class Noise(nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x) if self.training else x


class Auxiliary(nn.Module):
    def forward(self, x):
        return (x.sin(), x) if self.training else x.sin()


class Attention(nn.Module):
    def forward(self, x):
        i = torch.arange(x.shape[-1])
        hidden = (i[None] > i[:, None]) | (i[None] < i[:, None] - 3)
        scores = (x.transpose(1, 2) @ x).masked_fill(hidden, -torch.inf).softmax(-1)
        return (F.dropout(scores, 0.1, self.training) @ x.transpose(1, 2)).transpose(1, 2)


REFUSED = {
    "statistics of the batch": (nn.BatchNorm1d(2, track_running_stats=False), "untracked_statistics", False),
    "between layers": (pts.Recurrent1d(nn.GRU(2, 2, 2, dropout=0.5)), "training_mode", False),
    "attention": (
        pts.SelfAttention1d(nn.MultiheadAttention(2, 1, dropout=0.1, batch_first=True), pts.Context(left=3)),
        "training_mode",
        False,
    ),
    "spectral norm": (nn.utils.parametrizations.spectral_norm(nn.Conv1d(2, 2, 3)), "training_mode", False),
    "spectral norm by a hook": (nn.utils.spectral_norm(nn.Conv1d(2, 2, 3)), "training_mode", False),
    "a module of one's own": (Pointwise(), "training_mode", False),
    "noise": (Noise(), "random", True),
    "another output": (Auxiliary(), "training_mode", True),
    "scores": (Attention(), "training_mode", True),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_frozen_form_is_refused(name):
    part, code, captured = REFUSED[name]
    net = nn.Sequential(nn.Conv1d(2, 2, 3), part)
    net = _Wrapped(net) if captured else net
    with pytest.raises(pts.UnsupportedModuleError) as refusal:
        pts.create_stream(net, example=torch.randn(1, 2, 20) if captured else None, **FROZEN)
    assert refusal.value.code == code
    assert any(refusal.value.module is module for module in net.modules())
    if code == "training_mode" and not captured:
        net[1].eval()
        pts.create_stream(net, **FROZEN)  # of which the eval form is streamed


def test_other_words_for_training_are_refused():
    with pytest.raises(ValueError, match=r"^invalid_training: training='batch' came"):
        pts.create_stream(nn.Conv1d(1, 1, 3), training="batch")
    with pytest.raises(pts.UnsupportedModuleError, match="training_mode"):
        pts.create_stream(nn.Dropout(0.5))
