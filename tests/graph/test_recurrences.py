"""Recurrent layers inside captured models stay whole, wherever time and rows stand; and what of them is refused."""

import copy
from typing import Any, List, Optional, Tuple

import pytest
import torch
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer.analysis import summary
from torchstreamer.testing import verify_stream
from torchstreamer.testing.live_rows import LiveRows


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def joined(stream: Any, x: Tensor, *sizes: int, time: int = -1) -> Tensor:
    pieces = []
    while x.shape[time] > 0:
        for size in sizes:
            n = min(size, x.shape[time])
            pieces.append(stream(x.narrow(time, 0, n)))
            x = x.narrow(time, n, x.shape[time] - n)
    pieces.append(stream.flush())
    return torch.cat([piece for piece in pieces if piece is not None], time)


def differs(y: Tensor, whole: Tensor) -> float:
    assert y.shape == whole.shape
    return float((y - whole).detach().abs().max() / whole.detach().abs().max())


# ---------------------------------------------------------------------- models


class Features(nn.Module):
    """[B, C, T]; convolutions around a GRU over [B, T, C], and an LSTM over [T, B, C]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 6, 4, stride=2, padding=1)
        self.gru = nn.GRU(6, 4, 2, batch_first=True)
        self.lstm = nn.LSTM(4, 3, proj_size=2)
        self.up = nn.ConvTranspose1d(2, 2, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.gru(torch.relu(self.conv(x)).transpose(1, 2))
        y, (h, _) = self.lstm(y.transpose(0, 1))
        h = h[-1]  # which nothing needs
        return self.up(y.permute(1, 2, 0))


class DualPath(nn.Module):
    """[B, C·F, T]; over the bands of each frame in both directions, and over time in each band."""

    def __init__(self, channels: int = 3, bands: int = 4) -> None:
        super().__init__()
        self.bands = bands
        self.across = nn.LSTM(channels, 4, batch_first=True, bidirectional=True)
        self.mix = nn.Linear(8, channels)
        self.along = nn.GRU(channels, channels, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        rows, _, n = x.shape
        y = x.reshape(rows, -1, self.bands, n).permute(0, 3, 2, 1)  # [B, T, F, C]
        z = self.across(y.reshape(rows * n, self.bands, -1))[0]
        y = y + self.mix(z).reshape(rows, n, self.bands, -1)
        z = self.along(y.transpose(1, 2).reshape(rows * self.bands, n, -1))[0]
        y = y + z.reshape(rows, self.bands, n, -1).transpose(1, 2)
        return y.permute(0, 3, 2, 1).reshape(x.shape)


class Twice(nn.Module):
    """[B, C, T]; one layer at two places, from an initial state that is made here."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(2, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        start = torch.zeros(1, x.shape[0], 2, dtype=x.dtype, device=x.device)
        y, _ = self.rnn(x.mT, start)
        return self.rnn(y.flip(2))[0].mT


class Started(nn.Module):
    """[B, C, T]; an LSTM whose initial state is learned, laid out for the rows in two ways."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(2, 3, 2)
        self.h = nn.Parameter(normal(2, 1, 3).float())
        self.c = nn.Parameter(normal(2, 3, seed=1).float())

    def forward(self, x: Tensor) -> Tensor:
        h = self.h.expand(-1, x.shape[0], -1).contiguous()
        c = torch.tanh(self.c).unsqueeze(1).repeat(1, x.shape[0], 1)
        return self.lstm(x.permute(2, 0, 1), (h, c))[0].permute(1, 2, 0)


class Half(nn.GRU):
    """A GRU that halves what comes in; [B, T, C], and the outputs alone."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(0.5 * x)[0]


class Inside(nn.Module):
    """[B, C, T]; a layer of another class, and the package's own."""

    def __init__(self) -> None:
        super().__init__()
        self.halved = Half(2, 3, batch_first=True)
        self.own = pts.Recurrent1d(nn.GRU(3, 2), nn.Parameter(torch.ones(1, 2)))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.own(self.halved(x.mT).mT)


NETS = {"features": (Features, 2), "dual path": (DualPath, 12), "twice": (Twice, 2), "started": (Started, 2)}
NETS["inside"] = (Inside, 2)


def net_of(name: str) -> Tuple[nn.Module, int]:
    torch.manual_seed(0)
    make, channels = NETS[name]
    return make().double().eval(), channels


every_net = pytest.mark.parametrize("name", list(NETS))


@every_net
def test_as_the_model(name: str) -> None:
    net, channels = net_of(name)
    stream = pts.create_stream(net, example=normal(1, channels, 24))
    x = normal(3, channels, 57)
    with torch.no_grad():
        whole = net(x)
        for sizes in ((1,), (7, 2, 0, 13)):
            assert differs(joined(stream, x, *sizes), whole) < 1e-10
        stream(x[:2, :, :20])
        script = torch.jit.script(stream)
        script.set_state(pts.stack_states(pts.unstack_state(stream.get_state())[::-1]))
        y = script(x[:2].flip(0)[..., 20:], True)
        assert differs(y, net(x[:2].flip(0))[..., -y.shape[-1] :]) < 1e-10
    LiveRows(stream, net, 2, (4, channels)).run(60).compare(4)


@pytest.mark.sample(rest=3, long=("features", "dual path"))
@every_net
def test_every_rule(name: str) -> None:
    net, channels = net_of(name)
    verify_stream(net, (2, channels, 30), graph=True, static=True, dtypes=[torch.float64])


def test_states_of_two_places() -> None:
    net, channels = net_of("twice")
    stream = pts.create_stream(net, example=normal(1, channels, 24))
    stream(normal(2, 2, 5))
    hidden = [value for name, value in stream.get_state().items() if name.endswith("memory.h")]
    assert len(hidden) == 2 and not torch.equal(*hidden) and hidden[0].shape == (2, 1, 2)
    net, channels = net_of("dual path")
    stream = pts.create_stream(net, example=normal(1, channels, 24))
    stream(normal(2, channels, 5))
    hidden = [value for name, value in stream.get_state().items() if name.endswith("memory.h")]
    assert [value.shape for value in hidden] == [(2, 4, 1, 3)]  # rows of the signal, then bands


def test_weights_are_those_of_the_model() -> None:
    net, channels = net_of("inside")
    stream, x = pts.create_stream(net, example=normal(1, channels, 24)), normal(2, 2, 30)
    with torch.no_grad():
        for weight in net.parameters():
            weight.mul_(0.7)
        assert differs(joined(stream, x, 1, 9), net(x)) < 1e-10
    expected = torch.autograd.grad(net(x).square().sum(), list(net.parameters()))
    found = torch.autograd.grad(joined(stream, x, 1, 9).square().sum(), list(net.parameters()))
    torch.testing.assert_close(found, expected)


def test_an_initial_state_as_an_input() -> None:
    class Given(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.gru = nn.LSTM(2, 3, 2), nn.GRU(3, 2, batch_first=True)

        def forward(self, x: Tensor, h: Tensor, c: Tensor) -> Tensor:  # [B, C, T], [B, layers, H] twice
            y = self.lstm(x.permute(2, 0, 1), (h.transpose(0, 1).contiguous(), torch.tanh(c).transpose(0, 1)))[0]
            return self.gru(y.transpose(0, 1), h[:, :1, :2].transpose(0, 1).contiguous())[0].mT

    net, x, h, c = Given().double().eval(), normal(2, 2, 30), normal(2, 2, 3, seed=1), normal(2, 2, 3, seed=2)
    stream = pts.create_stream(net, example=(x, h, c), time_dim=(-1, None, None))
    with torch.no_grad():
        for each in (stream, torch.jit.script(stream)):
            for scale in (1, 0.5):  # another signal begins with another state
                pieces = [each(x[..., :1], scale * h, c), each(x[..., 1:20]), each(x[..., 20:]), each.flush()]
                y = torch.cat([piece for piece in pieces if piece is not None], -1)
                assert differs(y, net(x, scale * h, c)) < 1e-10
        each(x[..., :9], h, c)
        stream.set_state(each.get_state())
        assert differs(stream(x[..., 9:], final=True), net(x, h, c)[..., 9:]) < 1e-10


def test_time_first_and_without_rows() -> None:
    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru, self.lstm = nn.GRU(3, 4), nn.LSTM(4, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:  # [T, B, C]
            y = self.gru(x)[0]
            return self.lstm(y.transpose(0, 1))[0].transpose(0, 1)

    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(3, 4)

        def forward(self, x: Tensor) -> Tensor:  # [T, C]
            return self.gru(x)[0]

    for net, x in ((First().double(), normal(30, 2, 3)), (Flat().double(), normal(30, 3))):
        stream = pts.create_stream(net.eval(), example=x, time_dim=0)
        assert differs(joined(stream, x, 1, 7, time=0), net(x)) < 1e-10


def test_a_weight_norm_around_a_layer() -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.utils.parametrizations.weight_norm(nn.GRU(2, 2, batch_first=True), "weight_hh_l0")

        def forward(self, x: Tensor) -> Tensor:
            return self.gru(x.mT)[0].mT

    net, x = Normed().double().eval(), normal(2, 2, 30)
    stream = pts.create_stream(net, example=x)
    with torch.no_grad():
        net.gru.parametrizations.weight_hh_l0.original0.mul_(3)
        assert differs(joined(stream, x, 1, 9), net(x)) < 1e-10


def test_a_recurrence_over_what_has_no_time() -> None:
    class Conditioned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.words = nn.GRU(2, 3, batch_first=True), nn.Parameter(torch.randn(1, 5, 2))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.encoder(self.words)[1][0].unsqueeze(2)

    net, x = Conditioned().double().eval(), normal(1, 3, 20)
    stream = pts.create_stream(net, example=x)
    with torch.no_grad():
        assert differs(joined(torch.jit.script(stream), x, 6), net(x)) < 1e-10


# ---------------------------------------------------------------------- a handler of one's own


class Cells(nn.Module):
    """[T, B, C] to ([T, B, H], [1, B, H]); a loop, which cannot be captured."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.cell = nn.GRUCell(channels, hidden)

    def forward(self, x: Tensor, h: Optional[Tensor] = None) -> Tuple[Tensor, Tensor]:
        h = x.new_zeros(x.shape[1], self.cell.hidden_size) if h is None else h[0]
        ys = []
        for sample in x.unbind(0):
            h = self.cell(sample, h)
            ys.append(h)
        return torch.stack(ys), h.unsqueeze(0)


class CellsStream(pts.RecurrentStream):
    axes = pts.Axes("tbc", ("tbc", "lbc"), ("lbc",))

    def __init__(self, net: Cells) -> None:
        super().__init__(net.cell.input_size, net.cell.hidden_size, ["h"])
        self.cell = net.cell

    def initial(self, x: Tensor) -> List[Tensor]:
        return [x.new_zeros([x.size(0), self.cell.hidden_size])]

    def advance(self, x: Tensor, state: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        h = state[0]
        ys: List[Tensor] = []
        for sample in x.unbind(2):
            h = self.cell(sample, h)
            ys.append(h)
        return torch.stack(ys, 2), [h]


class Around(nn.Module):
    """[B, C, T]"""

    def __init__(self, given: str = "", used: str = "") -> None:
        super().__init__()
        self.conv, self.cells = nn.Conv1d(2, 3, 3, padding=1), Cells(3, 4)
        self.start = nn.Parameter(torch.zeros(1, 1, 4))
        self.given, self.used = given, used

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.conv(x))
        start = x.new_zeros(1, x.shape[0], 4)
        start = self.start.expand(-1, x.shape[0], -1) if self.given == "a parameter" else start
        y, h = self.cells(y.permute(2, 0, 1), start) if self.given else self.cells(y.permute(2, 0, 1))
        y = y.permute(1, 2, 0)
        return y * torch.sigmoid(h[0].unsqueeze(2)) if self.used else y


@pytest.fixture
def handled() -> Any:
    registered = pts.core.registry._factories
    pts.register_streamer(Cells, CellsStream)
    yield
    del registered[Cells]


@pytest.mark.parametrize("given", ["", "zeros"])
def test_a_handler_with_axes(handled: Any, given: str) -> None:
    net, x = Around(given).double().eval(), normal(3, 2, 40)
    stream = pts.create_stream(net, example=x[:1])
    with torch.no_grad():
        assert differs(joined(stream, x, 1, 7), net(x)) < 1e-10
        assert differs(joined(torch.jit.script(stream), x, 5), net(x)) < 1e-10
    LiveRows(stream, net, 3, (4, 2)).run(40).compare(3)


@pytest.mark.long
def test_a_handler_with_axes_keeps_the_contract(handled: Any) -> None:
    verify_stream(Cells(2, 3), (2, 2, 30), static=True)
    verify_stream(Around(), (2, 2, 30), graph=True, static=True)


def test_a_handler_with_axes_that_do_not_fit(handled: Any) -> None:
    for net, code in ((Around("a parameter"), "initial_state"), (Around(used="h"), "final_state")):
        error = refusal(net, normal(1, 2, 30))
        assert error.code == code and error.path == "cells", error

    class Wrong(CellsStream):
        axes = pts.Axes("btc", ("btc", "lbc"))

    pts.register_streamer(Cells, Wrong)
    assert refusal(Around(), normal(1, 2, 30)).code == "handler_layout"
    assert refusal(nn.Sequential(Cells(2, 2))).code == "handler_layout"

    class Short(CellsStream):
        axes = pts.Axes("tbc", ("tbc", "bc"))

    pts.register_streamer(Cells, Short)
    assert refusal(Around(), normal(1, 2, 30)).code == "invalid_axes"


# ---------------------------------------------------------------------- refusals


def refusal(net: nn.Module, example: Optional[Tensor] = None, **keywords: Any) -> pts.UnsupportedModuleError:
    net = net.double()
    with pytest.raises(pts.UnsupportedModuleError) as caught:
        pts.create_stream(net, example, **keywords)
    return caught.value


class Using(nn.Module):
    """A model with one recurrent layer, used as ``use`` says."""

    def __init__(self, use: Any, rnn: Optional[nn.Module] = None) -> None:
        super().__init__()
        self.use = use
        self.block = nn.ModuleDict({"rnn": rnn or nn.GRU(3, 3, batch_first=True)})

    def forward(self, x: Tensor) -> Any:
        return self.use(self.block["rnn"], x)


def packed(rnn: Any, x: Tensor) -> Tensor:
    lengths = torch.full([x.shape[0]], x.shape[2])
    y = rnn(nn.utils.rnn.pack_padded_sequence(x.mT, lengths, batch_first=True))[0]
    return nn.utils.rnn.pad_packed_sequence(y, batch_first=True)[0].mT


def looped(cell: Any, x: Tensor) -> Tensor:
    h, ys = x.new_zeros(x.shape[0], 3), []
    for sample in x.unbind(2):
        h = cell(sample, h)
        ys.append(h)
    return torch.stack(ys, 2)


def functional(rnn: Any, x: Tensor) -> Tensor:
    return torch.gru(x, x.new_zeros(1, x.shape[0], 3), rnn._flat_weights, True, 1, 0.0, False, False, True)[0]


REFUSED: Any = {
    "bidirectional over time": ("bidirectional", lambda g, x: g(x.mT)[0].mT, nn.LSTM(3, 3, 1, True, True, 0.0, True)),
    "last state": ("final_state", lambda g, x: g(x.mT)[1][-1].unsqueeze(2) * x, None),
    "last state given": ("final_state", lambda g, x: (g(x.mT)[0].mT, g(x.mT)[1]), None),
    "last state as an initial one": ("final_state", lambda g, x: g(x.mT, g(x.mT)[1])[0].mT, None),
    "packed": ("packed_sequence", packed, None),
    "loop over a cell": ("fixed_length", looped, nn.GRUCell(3, 3)),
    "features are time": ("time_mixing", functional, nn.GRU(30, 3, batch_first=True)),
    "rows that differ": (
        "initial_state",
        lambda g, x: (
            g(x.unflatten(1, (3, 1)).flatten(0, 1).mT, torch.eye(3).double()[None].repeat(1, x.shape[0], 1))[0]
            .unflatten(0, (-1, 3))
            .flatten(2)
        ),
        nn.GRU(1, 3, batch_first=True),
    ),
    "dropping": ("training_mode", lambda g, x: g(x.mT)[0].mT, nn.GRU(3, 3, 2, True, True, 0.5)),
}


@pytest.mark.parametrize("what", list(REFUSED))
def test_refused(what: str) -> None:
    code, use, rnn = REFUSED[what]
    net = Using(use, copy.deepcopy(rnn))
    net.train(what == "dropping")
    error = refusal(net, normal(2, 3, 30))
    assert error.code == code, str(error)
    if code in ("bidirectional", "final_state", "training_mode"):
        assert error.path == "block.rnn", str(error)
    if code == "fixed_length":
        assert "test_recurrences.py, line" in str(error) and "for sample in x.unbind(2)" in str(error)
    if code == "packed_sequence":
        assert "test_recurrences.py, line" in str(error) and "pack_padded_sequence" in str(error)
        assert not pts.is_streamable(net, normal(2, 3, 30))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_quantized_layers() -> None:
    quantized = torch.ao.nn.quantized.dynamic
    for layer in (quantized.LSTM(3, 3), quantized.GRU(3, 3), quantized.GRUCell(3, 3), quantized.Linear(3, 3)):
        for example in (None, normal(1, 3, 30).float()):
            with pytest.raises(pts.UnsupportedModuleError, match="range of the whole signal") as caught:
                pts.create_stream(nn.Sequential(nn.Conv1d(3, 3, 1), layer), example)
            assert (caught.value.code, caught.value.path) == ("quantized", "1")


def test_multiply_adds() -> None:
    net, channels = net_of("dual path")
    net = net.float()
    found = summary(pts.create_stream(net, example=normal(1, channels, 24).float()), chunk=3)
    per_band = [2 * 16 * (3 + 4) + 8 * 3, 9 * (3 + 3)]
    assert [layer.macs for layer in found.layers if layer.macs] == [4 * macs for macs in per_band]


def test_a_report() -> None:
    net, channels = net_of("features")
    report = pts.is_streamable(net, normal(1, channels, 24))
    assert report and {"GRUStream", "LSTMStream"} <= {line.handler for line in report}
    report = pts.is_streamable(Using(REFUSED["last state"][1]).double(), normal(1, 3, 24))
    assert not report and "last state is used" in str(report)
