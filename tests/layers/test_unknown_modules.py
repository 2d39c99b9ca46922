"""Modules of the user's own without an example: what can be verified is, the rest is refused or says so."""

import pytest
import torch
from torch import nn

import torchstreamer as pts


class Own(nn.Module):
    """Does what a function says, which gets the modules and parameters that are given."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.function(self, x)


class Eleven(nn.Module):
    """Takes only multiples of 11 channels, and nothing in it says so."""

    def forward(self, x):
        return x.unflatten(1, [11, -1]).amax(2)


class Two(nn.Module):
    def forward(self, x, gain, bias=None):
        return x * gain


def scripted():
    return torch.jit.script(nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU()))


POINTWISE = {
    "without weights": (Own(lambda m, x: x + torch.sin(x) ** 2), 3),
    "weights": (Own(lambda m, x: x * m.a, a=nn.Parameter(torch.rand(9, 1))), 9),
    "weights of one channel": (Own(lambda m, x: x * m.a, a=nn.Parameter(torch.rand(1))), 2),
    "float64": (Own(lambda m, x: x * m.a, a=nn.Parameter(torch.rand(9, 1).double())), 9),
    "complex": (Own(lambda m, x: x * m.a, a=nn.Parameter(torch.rand(9, 1) + 1j)), 9),
    "turned": (Own(lambda m, x: m.net(x.mT).mT, net=nn.Linear(20, 5)), 20),
    "turned norm": (Own(lambda m, x: m.net(x.mT).mT, net=nn.LayerNorm(12)), 12),
    "halves": (Own(lambda m, x: x.chunk(2, 1)[0] * x.chunk(2, 1)[1].sigmoid()), 6),
    "groups": (Own(lambda m, x: x.unflatten(1, (7, -1)).amax(2)), 14),
    "a script": (torch.jit.script(nn.Sequential(nn.Tanh(), nn.ReLU())), 2),
    "behind a module that tells the channels": (nn.Sequential(nn.Conv1d(1, 22, 1), nn.ReLU(), Eleven()), 1),
}

EXAMPLE = r"create_stream\(model, example=x\)"
REFUSED = {
    "over time": (Own(lambda m, x: x.cumsum(-1)), "not_pointwise", EXAMPLE),
    "chance": (Own(lambda m, x: x + torch.rand_like(x)), "not_pointwise", EXAMPLE),
    "shorter": (Own(lambda m, x: x[..., 1:]), "not_pointwise", r"shape \[2, 2, 15\]"),
    "longer": (Own(lambda m, x: x.repeat_interleave(2, -1)), "not_pointwise", r"shape \[2, 2, 32\]"),
    "without time": (Own(lambda m, x: x.mean(-1)), "not_pointwise", r"shape \[2, 2\]"),
    "two outputs": (Own(lambda m, x: (x, x)), "not_pointwise", "a tuple"),
    "nothing": (Own(lambda m, x: None), "not_pointwise", "a NoneType"),
    "a head": (
        Own(lambda m, x: m.head(m.conv(x).mean(-1)), conv=nn.Conv1d(1, 4, 3), head=nn.Linear(4, 2)),
        "not_pointwise",
        r"shape \[2, 2\]",
    ),
    "two inputs": (Two(), "needs_example", r"2 inputs, x, gain; .*create_stream\(model, example=\(x, …\)"),
    "linear": (Own(lambda m, x: m.net(x), net=nn.Linear(20, 5)), "time_mixing", f"Linear at 'net' .*{EXAMPLE}"),
    "linear as long as the trial": (
        Own(lambda m, x: m.net(x), net=nn.Linear(16, 16)),
        "time_mixing",
        "Linear at 'net'",
    ),
    "linear first": (
        Own(lambda m, x: m.net(x), net=nn.Sequential(nn.Linear(20, 5), nn.ReLU())),
        "time_mixing",
        "Linear at 'net.0'",
    ),
    "recurrent": (Own(lambda m, x: m.net(x)[0], net=nn.GRU(8, 8)), "needs_example", f"a GRU.*{EXAMPLE}.*time_dim="),
    "tokens": (Own(lambda m, x: m.net(x), net=nn.Embedding(5, 4)), "needs_example", f"holds an? Embedding.*{EXAMPLE}"),
    "pictures": (Own(lambda m, x: m.net(x), net=nn.Conv2d(4, 4, 3)), "needs_example", f"a Conv2d.*{EXAMPLE}"),
    "without an axis of channels": (
        Own(lambda m, x: m.net(x[:, None]), net=nn.Conv1d(1, 4, 3)),
        "needs_example",
        f"a Conv1d.*{EXAMPLE}",
    ),
    "a script": (scripted(), "scripted_module", "a script, of a Sequential.*scripted or traced from"),
    "a trace": (torch.jit.trace(nn.Conv1d(2, 3, 3), torch.ones(1, 2, 9)), "scripted_module", "of a Conv1d"),
    "a script inside": (Own(lambda m, x: m.net(x), net=scripted()), "scripted_module", "at 'net' .* of a Sequential"),
    "behind a module that tells the channels": (
        nn.Sequential(nn.Conv1d(1, 22, 1), Own(lambda m, x: Eleven()(x).cumsum(-1))),
        "not_pointwise",
        "Own at '1'",
    ),
}


@pytest.mark.parametrize("name", POINTWISE)
def test_what_is_pointwise_streams_and_is_said_to(name):
    net, channels = POINTWISE[name]
    stream, report = pts.create_stream(net), pts.is_streamable(net)
    assert report and "verified" not in str(report) + str(stream)
    weight = next(iter(net.parameters()), torch.empty(0))
    x = torch.randn(2, channels, 11, dtype=weight.dtype)
    with torch.no_grad():
        y = torch.cat([stream(x[..., :4]), stream(x[..., 4:], final=True)], -1)
        torch.testing.assert_close(y, net(x))


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_pointwise_is_refused_when_the_stream_is_made(name):
    net, code, words = REFUSED[name]
    with pytest.raises(pts.UnsupportedModuleError, match=f"(?s)^{code}: .*{words}") as caught:
        pts.create_stream(net)
    assert caught.value.remedy
    report = pts.is_streamable(net)
    assert not report and "refused" in str(report)
    if name.startswith("behind"):
        assert [module.handler for module in report] == [None, "Conv1dStream", None]


def test_what_was_not_verified_says_so():
    for net, path in ((Eleven(), ""), (nn.Sequential(nn.ReLU(), Eleven()), "1")):
        stream, report = pts.create_stream(net), pts.is_streamable(net)
        assert "taken as pointwise, not verified" in repr(stream) and "taken as pointwise, not verified" in str(stream)
        assert not report and all(module.handler for module in report)
        assert f"{path or '(net)'}: Eleven -> Elementwise1dStream, taken as pointwise, not verified" in str(report)
        x = torch.randn(1, 22, 8)  # and it streams
        torch.testing.assert_close(torch.cat([stream(x[..., :3]), stream(x[..., 3:], final=True)], -1), net(x))
        for again in (stream, torch.jit.script(pts.create_stream(net))):
            torch.testing.assert_close(again(x, final=True), net(x))


def test_a_chunk_that_the_module_does_not_take_is_refused_with_advice():
    for net in (Eleven(), POINTWISE["weights"][0]):
        stream = pts.create_stream(net)
        for _ in range(2):
            with pytest.raises(
                pts.StreamInputError, match=rf"^invalid_chunk: .*\[1, 5, 8\].*RuntimeError: .*{EXAMPLE}"
            ):
                stream(torch.randn(1, 5, 8))
        x = torch.randn(1, 99, 8) if isinstance(net, Eleven) else torch.randn(1, 9, 8)
        torch.testing.assert_close(stream(x, final=True), net(x))


def test_the_trial_leaves_module_and_random_state_alone():
    net = Own(lambda m, x: m.drop(x) + m.norm(x), drop=nn.Dropout(), norm=nn.BatchNorm1d(4))
    with pytest.raises(pts.UnsupportedModuleError, match="^training_mode: "):
        pts.create_stream(net)
    assert net.norm.num_batches_tracked == 0
    state = torch.get_rng_state()
    with pytest.raises(pts.UnsupportedModuleError):
        pts.create_stream(REFUSED["chance"][0])
    assert torch.equal(torch.get_rng_state(), state)


def test_scripts_are_refused_with_an_example_too():
    x = torch.randn(1, 2, 40)
    for name in ("a script", "a trace", "a script inside"):
        with pytest.raises(pts.UnsupportedModuleError, match="^scripted_module: "):
            pts.create_stream(REFUSED[name][0], example=x)
        assert not pts.is_streamable(REFUSED[name][0], example=x)
