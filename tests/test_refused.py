"""What cannot be streamed exactly is refused when the stream is made, with a reason and a remedy."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm

import torchstreamer as pts


def untrained(net):
    return net.train()


class TrainingInside(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(2)

    def forward(self, x):
        return self.norm(x)


REFUSED = [
    ("time_mixing", nn.GroupNorm(1, 2), "statistics of the whole signal"),
    ("time_mixing", nn.InstanceNorm1d(2), "statistics of the whole signal"),
    ("time_mixing", nn.LayerNorm(16), "last axis is time"),
    ("time_mixing", nn.RMSNorm(16), "last axis is time"),
    ("time_mixing", nn.Linear(16, 16), "use Conv1d with kernel_size=1"),
    ("time_mixing", nn.Bilinear(4, 4, 4), "last axis"),
    ("time_mixing", nn.Softmax(-1), "dim=-1 is time"),
    ("time_mixing", nn.Softmax(2), "dim=2 is time"),
    ("time_mixing", nn.Softmax(0), "not the axis of the channels"),
    ("time_mixing", nn.Softmax(), "depends on the rank"),
    ("time_mixing", nn.Softmin(-1), "dim=-1 is time"),
    ("time_mixing", nn.LogSoftmax(), "use dim=1"),
    ("time_mixing", nn.GLU(), "dim=-1 is time"),
    ("time_mixing", nn.Softmax2d(), "rows of the batch"),
    ("time_mixing", nn.AdaptiveAvgPool1d(4), "whole signal"),
    ("time_mixing", nn.AdaptiveMaxPool1d(4), "whole signal"),
    ("time_mixing", nn.MaxUnpool1d(2), "indices"),
    ("time_mixing", nn.CircularPad1d(2), "end of the signal before its start"),
    ("circular_padding", nn.Conv1d(2, 2, 3, padding=1, padding_mode="circular"), "end of the signal before its start"),
    ("time_mixing", nn.Flatten(), "time axis"),
    ("time_mixing", nn.Unflatten(1, (1, 2)), "axes"),
    ("bidirectional", nn.LSTM(2, 2, bidirectional=True), "end of the signal"),
    ("single_step", nn.GRUCell(2, 2), "nn.GRU"),
    ("training_mode", nn.GRU(2, 2, 2, dropout=0.5), "call eval"),
    ("handler_layout", nn.Sequential(nn.GRU(2, 2)), "pts.Recurrent1d"),
    ("time_mixing", nn.MultiheadAttention(2, 1), "whole signal"),
    ("time_mixing", nn.TransformerEncoderLayer(2, 1), "whole signal"),
    ("align_corners", nn.Upsample(scale_factor=2, mode="linear", align_corners=True), "align_corners=False"),
    ("upsample_size", nn.Upsample(size=30), "scale_factor"),
    ("upsample_mode", nn.Upsample(scale_factor=2, mode="bilinear"), "'linear'"),
    ("upsample_scale", nn.Upsample(scale_factor=2**0.5), "denominator up to 1000"),
    ("upsample_scale", nn.Upsample(scale_factor=1 / 1009), "denominator up to 1000"),
    ("recompute_scale_factor", nn.Upsample(scale_factor=1.5, recompute_scale_factor=True), "total length"),
    ("return_indices", nn.MaxPool1d(2, return_indices=True), "return_indices=False"),
    ("training_mode", untrained(nn.BatchNorm1d(2)), "call eval"),
    ("training_mode", untrained(nn.Dropout()), "call eval"),
    ("training_mode", untrained(nn.AlphaDropout()), "call eval"),
    ("training_mode", untrained(nn.RReLU()), "call eval"),
    ("training_mode", untrained(TrainingInside()), "call eval"),
    ("training_mode", untrained(parametrizations.spectral_norm(nn.Conv1d(2, 2, 3))), "call eval"),
    ("training_mode", untrained(spectral_norm(nn.Conv1d(2, 2, 3))), "call eval"),
    ("untracked_statistics", nn.BatchNorm1d(2, track_running_stats=False).eval(), "track_running_stats=True"),
    ("lazy_module", nn.LazyConv1d(2, 3), "call the network once"),
    ("no_handler", nn.Conv2d(2, 2, 3), "register a handler"),
    ("no_handler", nn.PixelShuffle(2), "register a handler"),
    ("no_handler", nn.Embedding(4, 4), "register a handler"),
]


@pytest.mark.parametrize("code, net, hint", REFUSED, ids=[f"{type(row[1]).__name__}-{row[0]}" for row in REFUSED])
def test_refused_with_path_reason_and_remedy(code, net, hint):
    with pytest.raises(pts.UnsupportedModuleError) as caught:
        pts.create_stream(nn.Sequential(nn.Identity(), nn.Sequential(net)))
    message = str(caught.value)
    assert message.startswith(f"{code}: ") and caught.value.code == code
    assert " at '1.0" in message and hint in message and "; " in message
    assert not pts.is_streamable(net)


def test_eval_form_for_ever():
    x = torch.randn(1, 2, 20)
    conv = parametrizations.spectral_norm(nn.Conv1d(2, 2, 3))
    older = spectral_norm(nn.Conv1d(2, 2, 3))
    for net in (nn.Sequential(nn.BatchNorm1d(2), nn.RReLU(), nn.Dropout(), conv), nn.Sequential(older)):
        net.train()
        net(x)  # moves the statistics and the power iteration
        net.eval()
        expected = net(x)
        stream = pts.create_stream(net)
        net.train()
        torch.testing.assert_close(stream(x, final=True), expected)


@pytest.mark.parametrize("net", [nn.Conv1d(2, 2, 3), nn.GELU()])
def test_wrong_module_for_a_handler(net):
    with pytest.raises(ValueError, match="^invalid_pool_module: "):
        pts.Pool1dStream(net)
    with pytest.raises(ValueError, match="^invalid_sequential: "):
        pts.Sequential1dStream(net)


@pytest.mark.parametrize(
    "inner",
    [
        nn.Conv1d(2, 2, 3, stride=2),
        nn.ConvTranspose1d(2, 2, 3, stride=2),
        nn.Sequential(nn.MaxPool1d(2)),
        nn.AvgPool1d(2, 2),
        nn.LPPool1d(2, 2),
        nn.Upsample(scale_factor=2),
    ],
)
def test_strides_inside_a_residual(inner):
    with pytest.raises(ValueError, match="^invalid_residual_stride: "):
        pts.Residual1d(inner)
    with pytest.raises(pts.UnsupportedModuleError, match="^invalid_residual_stride: "):
        pts.Residual1dStream(inner)


def test_residual_that_lengthens():
    net = pts.Residual1d(nn.Conv1d(2, 2, 3, padding=2))
    with pytest.raises(pts.StreamInputError, match="^invalid_residual_length: .*12 samples of 10"):
        net(torch.randn(1, 2, 10))
    with pytest.raises(pts.UnsupportedModuleError, match="^invalid_residual_length: "):
        pts.create_stream(net)


@pytest.mark.parametrize(
    "code, net",
    [
        ("invalid_parallel_ratio", pts.Parallel1d(nn.Conv1d(2, 2, 1), nn.Conv1d(2, 2, 2, 2))),
        ("varying_crop", pts.Parallel1d(nn.Conv1d(2, 2, 2, 3), nn.Conv1d(2, 2, 6, 3))),
    ],
)
def test_branches_that_cannot_be_aligned(code, net):
    with pytest.raises(pts.UnsupportedModuleError, match=f"^{code}: "):
        pts.create_stream(net)


def test_parallel_takes_known_merges_and_some_branches():
    with pytest.raises(ValueError, match="^invalid_merge: merge='sum' came"):
        pts.Parallel1d(nn.Identity(), merge="sum")
    with pytest.raises(ValueError, match="^invalid_branches: "):
        pts.Parallel1d()


class ElevenGroups(nn.Module):
    """Takes only multiples of 11 channels, which nothing tells."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x.unflatten(1, [11, -1]).amax(2))


class Cumulative(nn.Module):
    def forward(self, x):
        return x.cumsum(-1)


class Reverse(nn.Module):
    def forward(self, x):
        return x.flip(-1)


class Shorter(nn.Module):
    def forward(self, x):
        return x[..., 1:]


class Lag(nn.Module):
    """A delay longer than the short probe."""

    def forward(self, x):
        return x + nn.functional.pad(x, (40, 0))[..., : x.shape[-1]]


class Noise(nn.Module):
    def forward(self, x):
        return x + torch.rand_like(x)


NOT_POINTWISE = [
    (Cumulative(), "not_pointwise"),
    (Reverse(), "not_pointwise"),
    (Lag(), "not_pointwise"),
    (Noise(), "not_pointwise"),
    (Shorter(), "invalid_elementwise_output"),
]


@pytest.mark.parametrize("script", [False, True])
@pytest.mark.parametrize("net, code", NOT_POINTWISE)
def test_a_module_that_is_not_pointwise_is_found_at_its_first_chunk(net, code, script):
    # Made by hand, or behind a module that does not tell its channels: nothing was tried before.
    for stream in (pts.Elementwise1dStream(net), pts.create_stream(nn.Sequential(nn.ReLU(), ElevenGroups(net)))):
        stream = torch.jit.script(stream) if script else stream
        with pytest.raises(torch.jit.Error if script else pts.PointwiseError, match=f"{code}: .*create_stream"):
            stream(torch.zeros(2, 11, 1))


def test_the_check_leaves_random_state_and_chunk_alone():
    class Doubling(nn.Module):
        def forward(self, x):
            return x.mul_(2)

    x = torch.ones(2, 3)
    state = torch.get_rng_state()
    stream = pts.create_stream(Doubling())
    assert torch.equal(stream(x), torch.full((2, 3), 2.0)) and torch.equal(x, torch.ones(2, 3))
    with pytest.raises(pts.PointwiseError):
        pts.Elementwise1dStream(Noise())(x)
    with pytest.raises(pts.UnsupportedModuleError):
        pts.create_stream(Noise())
    assert torch.equal(torch.get_rng_state(), state)


def test_custom_activation_streams_integers_too():
    class Mask(nn.Module):
        def forward(self, x):
            return torch.where(x > 0, x, torch.zeros_like(x))

    x = torch.arange(-6, 6).view(2, 6)
    stream = pts.create_stream(Mask())
    assert torch.equal(torch.cat([stream(x[:, :1]), stream(x[:, 1:])], -1), Mask()(x))


def test_a_batch_of_no_rows_does_not_pass_the_check():
    stream = pts.Elementwise1dStream(Cumulative())
    with pytest.raises(pts.PointwiseError, match="^not_pointwise: "):
        stream(torch.zeros(0, 1, 4))


@pytest.mark.parametrize("result", [None, "tuple"])
def test_a_pointwise_module_must_give_a_tensor(result):
    class Odd(nn.Module):
        def forward(self, x):
            return None if result is None else (x, x)

    with pytest.raises(pts.PointwiseError, match="^invalid_elementwise_output: .*(NoneType|tuple)"):
        pts.Elementwise1dStream(Odd())(torch.ones(1, 3))
    with pytest.raises(pts.UnsupportedModuleError, match="^not_pointwise: .*(NoneType|tuple)"):
        pts.create_stream(Odd())
