"""What a plan of a static step is made of: lags, lengths, layouts, dtypes, and weights of its own."""

import sys
from typing import Any, Optional

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer.testing.live_rows import LiveRows


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def captured(model: nn.Module, *shape: int, **options: Any) -> Any:
    return pts.create_stream(model.double().eval(), example=normal(*shape), **options)


# ---------------------------------------------------------------------- lags


class Causal(nn.Module):
    """As WaveNet is often written."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv1d(2, 2, 3, dilation=3**i) for i in range(4))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + torch.tanh(layer(F.pad(x, (2 * layer.dilation[0], 0))))
        return x


class Causal2d(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(1, 1, 3, dilation=(1, 2**i)) for i in range(3))

    def forward(self, x: Tensor) -> Tensor:
        y = x.unsqueeze(1)
        for layer in self.layers:
            y = y + torch.tanh(layer(F.pad(y, (2 * layer.dilation[1], 0, 1, 1))))
        return y.squeeze(1)


def causal_layers() -> nn.Module:
    layers = [[nn.ConstantPad1d((2 * 3**i, 0), 0.5), nn.Conv1d(2, 2, 3, dilation=3**i)] for i in range(4)]
    return nn.Sequential(*(layer for pair in layers for layer in pair))


@pytest.mark.parametrize("make", [Causal, Causal2d, causal_layers])
def test_causal_networks_wait_for_nothing(make: Any) -> None:
    net = make().double()
    stream = captured(net, 2, 2, 200)
    rows = LiveRows(stream, net, 3, (4, 2)).run(60)
    assert rows.statics[0].lag == rows.statics[0].flush_steps == 0
    rows.compare()


# ---------------------------------------------------------------------- lengths


def test_long_receptive_fields() -> None:
    layers = [nn.Conv1d(1, 1, 2, dilation=2**i) for _ in range(2) for i in range(12)]
    net = nn.Sequential(*layers).double()
    static = pts.StaticStream(pts.create_stream(net), 4096)
    field = 2 * 4095 + 1
    assert [static.output_length(n) for n in (0, field - 1, field, field + 9, 10**9)] == [0, 0, 1, 10, 10**9 - 8190]
    rows = LiveRows(pts.create_stream(net), net, 4096, (3,), lengths=[field, field + 1, 2 * field]).run(20)
    rows.compare()


def test_deep_networks() -> None:
    depth = sys.getrecursionlimit() // 2
    net = nn.Sequential(*(nn.Conv1d(1, 1, 2) for _ in range(depth)))
    static = pts.StaticStream(pts.create_stream(net), 4)
    assert static.output_length(depth + 7) == 7 and static.lag == depth


def test_fields_that_are_too_long_are_refused() -> None:
    net = nn.Sequential(nn.ReLU(), nn.Conv1d(1, 1, 2, dilation=300_000))
    with pytest.raises(pts.UnsupportedModuleError, match="irregular_length: Conv1dStream at 'streams.1' .*262144"):
        pts.StaticStream(pts.create_stream(net), 4)


def test_a_chunk_much_longer_than_the_signals() -> None:
    net = nn.Sequential(nn.Conv1d(2, 4, 5, padding=2), nn.ConvTranspose1d(4, 2, 4, 2, 1)).double()
    rows = LiveRows(pts.create_stream(net), net, 1000, (4,), lengths=[1, 2, 3, 5, 10, 999]).run(30)
    rows.compare()
    assert rows.statics[0].flush_steps == 1


class Frames(nn.Module):
    """Four samples become a frame; a few frames are looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        frames = x.reshape(x.shape[0], 2, -1, 4).permute(0, 1, 3, 2).flatten(1, 2)
        y = self.conv(frames)
        return y.reshape(x.shape[0], 2, 4, -1).transpose(2, 3).reshape(x.shape[0], 2, -1) + x


def test_lengths_that_are_multiples() -> None:
    model = Frames()
    stream = captured(model, 2, 2, 64, length_multiple=4)
    for turns in (1, 3):
        LiveRows(stream, model, 4 * turns, (4, 2), multiple=4).run(60).compare()
    static = pts.StaticStream(stream, 8)
    with pytest.raises(pts.StreamInputError, match="length_multiple: a length of 10 samples"):
        static.output_length(10)
    one, on, off = torch.tensor([6]), torch.tensor([True]), torch.tensor([False])
    with pytest.raises(pts.StreamInputError, match="invalid_row: row 0 .*an end at a multiple of 4 samples"):
        static(normal(1, 2, 8), one, on, on)
    static(normal(1, 2, 8), one + 2, on, off)


# ---------------------------------------------------------------------- layouts


class Spectral(nn.Module):
    """``[B, F, T]`` to ``[B, 3, F, T]``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.unsqueeze(1))


class Folded(nn.Module):
    """Channels among the rows, with all that depends on where a row is."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 2, 3, padding=1, padding_mode="reflect")
        self.pool = nn.AvgPool1d(3, 2, 1, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        b, c, t = x.shape
        y = self.pool(self.conv(x.reshape(b * c, 1, t)))
        y = torch.cumsum(y, -1) / 10 + F.interpolate(y, scale_factor=2, mode="linear")[..., ::2]
        return y.reshape(b, c * 2, -1)


def test_outputs_of_four_axes() -> None:
    model = Spectral()
    rows = LiveRows(captured(model, 2, 5, 40), model, 3, (4, 2)).run(60)
    rows.compare()
    assert rows.statics[0].out_shape == [3, 5]


def test_channels_among_the_rows() -> None:
    model = Folded()
    LiveRows(captured(model, 2, 3, 40, length_multiple=2), model, 4, (4, 2), multiple=2).run(60).compare()


class Several(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 2, 3, padding=1)

    def forward(self, x: Tensor, other: Optional[Tensor] = None) -> Any:
        return (self.conv(x), x) if other is None else self.conv(x) + other


class TimeFirst(Spectral):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).permute(0, 3, 1, 2)


# ---------------------------------------------------------------------- dtypes


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 4)
        self.conv = nn.Conv1d(4, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.table(x[:, 0]).transpose(1, 2))


def tokens(x: Tensor) -> Tensor:
    return (4 * x.abs()).long().clamp(max=6)


def test_tokens() -> None:
    model = Tokens().double().eval()
    stream = pts.create_stream(model, example=tokens(normal(2, 1, 30)))
    rows = LiveRows(stream, model, 2, (4, 2), dtype=torch.int64, draw=tokens)
    for static in rows.statics:
        assert static.dtype == torch.int64
        static.to("cpu")
        assert static.dtype == torch.int64
    rows.dtype = torch.float64  # of the outputs
    rows.run(60).compare()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv1d(2, 8, 5, padding=2),
        nn.BatchNorm1d(8),
        nn.GELU(),
        nn.AvgPool1d(3, 1, 1, count_include_pad=False),
        nn.Upsample(scale_factor=2, mode="linear"),
        nn.ConvTranspose1d(8, 3, 4, 2, 1),
    ).eval()
    nn.init.normal_(net[1].running_mean)
    net = net.to(dtype)
    LiveRows(pts.create_stream(net), net, 4, (4, 2), dtype=dtype).run(60).compare()


class Cumulative(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cumsum(self.conv(x), -1) / 8


@pytest.mark.parametrize("make", [causal_layers, Cumulative, lambda: nn.Sequential(nn.ZeroPad1d(2), nn.Softplus())])
def test_another_dtype(make: Any) -> None:
    """A plan may be brought to another dtype, as a network."""
    net = make().double()
    rows = LiveRows(captured(net, 2, 2, 200), net, 3, (4, 2), channels=2)
    for static in rows.statics:
        static.to(torch.float32)
        assert static.dtype == torch.float32
        assert all(v.dtype != torch.float64 for v in [*static.get_state().values(), *static.init_state().values()])
    assert all(parameter.dtype == torch.float64 for parameter in net.parameters())
    rows.net, rows.dtype = net.float(), torch.float32
    rows.run(40).compare()


# ---------------------------------------------------------------------- weights of its own


def test_the_network_and_the_plan_do_not_share_weights() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.PReLU(4), nn.ConvTranspose1d(4, 2, 2, 2)).double()
    for columns in (0, None):
        stream = pts.create_stream(net)
        static = pts.StaticStream(stream, 4, columns=columns)
        x, four, on = normal(1, 2, 4), torch.tensor([4]), torch.tensor([True])
        before = static(x, four, on, on)[0].clone()
        kept = [value.clone() for value in net.parameters()]
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(1.0)
        assert torch.equal(static(x, four, on, on)[0], before)
        for value in static.parameters():
            value.data.zero_()
        static.float()
        for parameter, value in zip(net.parameters(), kept, strict=True):
            assert parameter.dtype == torch.float64 and torch.equal(parameter, value + 1)


def test_no_history_is_kept() -> None:
    """With gradients on, the state holds none of the steps before."""
    net = nn.Sequential(nn.PReLU(2), nn.Conv1d(2, 2, 5)).double()
    rows = LiveRows(pts.create_stream(net), net, 4, (3,))
    static = rows.statics[0]
    x = normal(3, 2, 4).requires_grad_()
    y, _, _ = static(x, torch.tensor([4] * 3), torch.tensor([True] * 3), torch.tensor([False] * 3))
    assert y.requires_grad
    assert not any(value.requires_grad for value in [*static.buffers(), *static.parameters()])
    assert not any(value.requires_grad for value in static.get_state().values())


def test_in_inference_mode_and_out_of_it() -> None:
    with torch.inference_mode():
        net = nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.PReLU(4), nn.BatchNorm1d(4)).double().eval()
        rows = LiveRows(pts.create_stream(net), net, 4, (3,)).run(20)
    rows.run(20).compare()
