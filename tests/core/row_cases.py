"""Networks for live rows, signals in random pieces, and what is to come out of them."""

import math
import random

import torch
from torch import nn

import torchstreamer as pts


def nets():
    """Each with its channels in."""
    torch.manual_seed(0)
    conv = nn.Conv1d
    yield "convolutions", nn.Sequential(conv(2, 4, 3, padding=1), nn.ReLU(), conv(4, 4, 5, dilation=2))
    yield "strided", nn.Sequential(conv(2, 4, 7, stride=2, padding=3), nn.ReLU(), conv(4, 4, 4, stride=3))
    yield "stride over kernel", nn.Sequential(conv(2, 4, 2, stride=5, padding=1), conv(4, 4, 3, dilation=2))
    yield (
        "down and up",
        nn.Sequential(
            conv(2, 4, 4, stride=3),
            nn.ConvTranspose1d(4, 4, 6, stride=3),
            pts.Residual1d(conv(4, 4, 3, padding=1)),
            nn.MaxPool1d(2),
        ),
    )
    yield (
        "reflected",
        nn.Sequential(nn.ReflectionPad1d(3), conv(2, 4, 4, stride=2), nn.Upsample(scale_factor=2, mode="linear")),
    )
    yield "grouped", nn.Sequential(conv(2, 4, 3, stride=2, groups=2, padding=2), nn.AvgPool1d(3, 2, 1))
    yield "recurrent", nn.Sequential(conv(2, 4, 3, stride=2), pts.Recurrent1d(nn.LSTM(4, 5)))
    yield (
        "attention",
        nn.Sequential(
            conv(2, 8, 3),
            pts.SelfAttention1d(nn.MultiheadAttention(8, 2, batch_first=True), pts.Context(20, 3)),
        ),
    )


NETS = {name: net.double().eval() for name, net in nets()}


def offline(net, x):
    """The whole, or nothing where the network refuses it."""
    try:
        y = net(x[None])[0]
    except RuntimeError:  # too short
        return None
    return y if y.numel() else None


def signals(count, longest, seed=0, shortest=0, channels=2):
    draw = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    return {
        i: torch.randn(channels, draw.randint(shortest, longest), generator=generator, dtype=torch.float64)
        for i in range(count)
    }


def live(rows, signals, longest, seed=0, presence=0.75, after=None):
    """The signals in random pieces of up to so many samples, each present by chance; what came out, joined."""
    draw = random.Random(seed)
    place = dict.fromkeys(signals, 0)
    found = {i: [] for i in signals}
    begun, alive = set(), set(signals)
    while alive:
        given = []
        for i in sorted(alive):
            if draw.random() < presence:
                x, at = signals[i], place[i]
                place[i] = min(at + draw.randint(0, longest), x.shape[1])
                piece = x[:, at : place[i]].clone()
                given.append((i, piece, i not in begun, place[i] == x.shape[1]))
                begun.add(i)
        before = rows.calls
        forms = {row.batch and row.batch.form for row in map(rows._table.rows.get, [i for i, *_ in given]) if row}
        starts = sum(begins for _, _, begins, _ in given)
        for id, y, first, last, start in rows.step(given):
            assert start == sum(each.shape[1] for each in found[id])
            assert first == next(entry[2] for entry in given if entry[0] == id)
            if y is not None:
                assert y.shape[1] > 0
                found[id].append(y)
            if last:
                alive.discard(id)
        for _, piece, _, _ in given:
            piece.fill_(math.nan)  # the caller's memory again
        if after is not None:
            after(given, rows.calls - before, len(forms) + (starts > 0))
    return {i: torch.cat(pieces, 1) if pieces else None for i, pieces in found.items()}


def compare(net, signals, found, tolerance=1e-10):
    for i, x in signals.items():
        expected, y = offline(net, x), found[i]
        if expected is None:
            assert y is None
        else:
            torch.testing.assert_close(y, expected, rtol=0, atol=tolerance)


def assert_empty(rows):
    assert len(rows) == 0 and rows.ids() == () and rows.nbytes == 0
    assert not rows._table.rows and not rows._table._forms
    assert rows._signal is None and rows._runner.resident is None
    assert rows.stream.state_nbytes() == 0


class LastTwo(nn.Module):
    def forward(self, x):
        return x[..., 1:] + x[..., :-1]


class LastTwoStream(pts.BaseStream):
    """A user's handler that knows nothing of rows, with streams inside that it calls as others do."""

    def __init__(self, net):
        super().__init__(pts.Reach.window(2))
        self.ring = pts.RingBuffer()
        self.turn = pts.Counter(3)
        self.total = pts.Cell()
        self.inner = pts.create_stream(nn.Conv1d(2, 2, 1).double().eval())

    def forward(self, x, final=False):
        y = self.inner(x)
        window = self.ring.append(x)
        total = self.total.get()[0] if self.total.started() else torch.zeros_like(x[..., 0])
        self.total.set([total + x.sum(-1)])
        self.turn.value = (self.turn.value + x.shape[-1]) % 4
        self.ring.drop(window.shape[-1] - 1)
        return window[..., 1:] + window[..., :-1] + 0 * y[..., : window.shape[-1] - 1]


def states(rows):
    return {i: rows.get(i) for i in rows.ids()}


def assert_equal(these, those):
    assert these.keys() == those.keys()
    for i, state in these.items():
        assert state.keys() == those[i].keys()
        assert all(torch.equal(value, those[i][name]) for name, value in state.items())
