"""Many live signals give, each, what they give alone: through rows and patched models, of every model we have."""

import random
import sys
from pathlib import Path

import pytest
import torch
from playing import compare, play, through_model, through_rows
from torch import nn

import torchstreamer as pts
from torchstreamer.core.patched import PATCH

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from recurrent_zoo import RECURRENT
from zoo import ZOO

pytestmark = pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")

# Kernel, stride, padding, dilation, groups: what DreamStream streams, and strides beyond the kernel.
CONVOLUTIONS = [
    (1, 1, 0, 1, 1),
    (2, 1, 0, 1, 1),
    (3, 1, 1, 1, 1),
    (5, 1, 2, 1, 2),
    (4, 2, 0, 1, 1),
    (4, 2, 3, 1, 1),
    (7, 3, 3, 1, 4),
    (3, 1, 0, 4, 1),
    (3, 2, 4, 4, 2),
    (2, 3, 0, 1, 1),
    (3, 7, 1, 1, 1),
    (2, 5, 1, 2, 4),
]


class Stack(nn.Module):
    """Two of them with an activation; a branch on a value keeps it from being captured."""

    def __init__(self, kernel, stride, padding, dilation, groups):
        super().__init__()
        self.conv = nn.Conv1d(4, 8, kernel, stride, padding, dilation, groups)
        self.norm = nn.BatchNorm1d(8)
        self.again = nn.Conv1d(8, 4, kernel, stride, padding, dilation, groups)

    def forward(self, x):
        y = self.norm(torch.relu(self.conv(x)))
        return self.again(y if float(self.conv.weight.detach().sum()) < 1e9 else -y)


def signals(shape, time, rate, count, dtype, multiple=1, seed=0):
    """Of 3 to 7 seconds."""
    draw, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        length = -(-draw.randint(3 * rate, 7 * rate) // multiple) * multiple
        size = [*shape]
        size[time] = length
        found.append(torch.randn(size, generator=generator, dtype=torch.float64).to(dtype))
    return found


def assert_empty(model):
    state = pts.stream_state(model)
    assert state.ids() == () and state.nbytes == 0
    executor = model.__dict__[PATCH].executor
    for runner in [executor.runner] if hasattr(executor, "runner") else [v.runner for v in executor.layers.values()]:
        assert not runner.came and not runner.rows._table.rows and not runner.rows._table._forms
        assert runner.rows._runner.resident is None and runner.rows._signal is None
        assert runner.rows.stream.state_nbytes() == 0


def check(net, xs, way, shortest, longest, tolerance, layers=None):
    """Signals of [4, T] through a network, and through ``layers`` if it is to be streamed layer by layer."""
    if way == "rows":
        rows = pts.RowStream(net)
        given = play(through_rows(rows), xs, shortest, longest, 1)
        assert len(rows) == 0 and rows.nbytes == 0
    else:
        model = pts.patch_module(layers if way == "layers" else nn.Sequential(*net)).online()
        given = play(through_model(model, 1), xs, shortest, longest, 1)
        assert_empty(model)
        pts.unpatch_module(model)
    compare(given, xs, net, 1, tolerance)


def stack(number):
    """Of convolutions, and the same as a chain."""
    torch.manual_seed(number)
    layers = Stack(*CONVOLUTIONS[number]).double().eval()
    return layers, nn.Sequential(layers.conv, nn.ReLU(), layers.norm, layers.again)


@pytest.mark.parametrize("way", ["rows", "whole", "layers"])
@pytest.mark.parametrize("number", range(len(CONVOLUTIONS)))
@pytest.mark.sample(every=7, rest=4)
@torch.no_grad()
def test_convolutions(number, way):
    layers, net = stack(number)
    xs = signals([4, 0], 1, 16, 32, torch.float64)
    check(net, xs, way, 16, 32, 1e-10, layers)
    check(net, xs[:6], way, 1, CONVOLUTIONS[number][0], 1e-10, layers)
    check(net.float(), [x.float() for x in xs[:12]], way, 16, 32, 1e-5, layers.float())


@pytest.mark.parametrize("way", ["rows", "whole", "layers"])
@pytest.mark.parametrize("number", range(len(CONVOLUTIONS)))
@pytest.mark.long
@torch.no_grad()
def test_convolutions_of_many_signals_in_tiny_pieces(number, way):
    layers, net = stack(number)
    xs = signals([4, 0], 1, 16, 32, torch.float64)
    check(net, xs, way, 1, CONVOLUTIONS[number][0], 1e-10, layers)
    check(net.float(), [x.float() for x in xs], way, 16, 32, 1e-5, layers.float())


def recurrent():
    return nn.Sequential(nn.Conv1d(4, 6, 3, stride=2, padding=1), pts.Recurrent1d(nn.LSTM(6, 5, 2)))


def attention():
    heads = nn.MultiheadAttention(8, 2, batch_first=True)
    return nn.Sequential(nn.Conv1d(4, 8, 3), pts.SelfAttention1d(heads, pts.Context(20, 3)))


@pytest.mark.parametrize("way", ["rows", "whole"])
@pytest.mark.parametrize("make", [recurrent, attention])
@pytest.mark.sample("recurrent-whole", "attention-rows", rest=1)
@torch.no_grad()
def test_recurrence_and_attention(make, way):
    torch.manual_seed(0)
    net = make().double().eval()
    xs = signals([4, 0], 1, 16, 32, torch.float64)
    check(net, xs, way, 16, 32, 1e-10)
    check(net, xs[:8], way, 1, 3, 1e-10)


ENTRIES = [entry for entry in [*ZOO, *RECURRENT] if not entry.refused]


@pytest.mark.parametrize("way", ["rows", "whole"])
@pytest.mark.parametrize("make", [recurrent, attention])
@pytest.mark.long
@torch.no_grad()
def test_recurrence_and_attention_of_many_signals_in_tiny_pieces(make, way):
    torch.manual_seed(0)
    check(make().double().eval(), signals([4, 0], 1, 16, 32, torch.float64), way, 1, 3, 1e-10)


@pytest.mark.parametrize("way", ["rows", "model"])
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
@pytest.mark.sample("tcn-rows", "silero-model", rest=12)
@torch.no_grad()
def test_published_models(entry, way):
    model = entry.make().double()
    options = {"time_dim": entry.time_dim, "length_multiple": entry.length_multiple}
    if isinstance(entry.time_dim, tuple):
        example = tuple(x.double() for x in entry.inputs())
        with pytest.raises(pts.UnsupportedModuleError, match="several_signals"):
            (pts.RowStream if way == "rows" else pts.patch_module)(model, example=example, **options)
        return
    check_model(entry, model, way, 32, 3)


@pytest.mark.parametrize("way", ["rows", "model"])
@pytest.mark.parametrize(
    "entry", [entry for entry in ENTRIES if not isinstance(entry.time_dim, tuple)], ids=lambda entry: entry.name
)
@pytest.mark.long
@torch.no_grad()
def test_published_models_of_many_signals_in_tiny_pieces(entry, way):
    check_model(entry, entry.make().double(), way, 0, 32)


def check_model(entry, model, way, large, tiny):
    """So many signals in large pieces, and so many in tiny ones."""
    options = {"time_dim": entry.time_dim, "length_multiple": entry.length_multiple}
    x = entry.example().double()
    time = entry.time_dim % x.dim() - 1
    rate = max(8, entry.shortest // 2)
    xs = signals([*x.shape[1:]], time, rate, 32, torch.float64, entry.length_multiple)
    for shortest, longest, count in ((rate, 2 * rate, large), (1, 5, tiny)):
        if not count:
            continue
        if way == "rows":
            rows = pts.RowStream(model, example=x, **options)
            given = play(through_rows(rows), xs[:count], shortest, longest, time, multiple=entry.length_multiple)
            assert len(rows) == 0 and rows.nbytes == 0
        else:
            pts.patch_module(model, example=x, **options).online()
            given = play(
                through_model(model, time), xs[:count], shortest, longest, time, multiple=entry.length_multiple
            )
            assert_empty(model)
            pts.unpatch_module(model)
        out = entry.output_time_dim
        compare(given, xs[:count], model, out if out < 0 else out - 1, 1e-10)
