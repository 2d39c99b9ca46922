"""Forwards to be patched, signals in random pieces, and what came out of them."""

import random
import threading

import torch
import torch.fx
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn

import torchstreamer as pts
from torchstreamer.core.patched import PATCH


class Function(nn.Module):
    """Layers, and a function over them; it branches on a value, so it cannot be captured, if it is to be so."""

    def __init__(self, function, captured=True):
        super().__init__()
        self.conv = nn.Conv1d(4, 4, 3, padding=1)
        self.valid = nn.Conv1d(4, 4, 3)
        self.down = nn.Conv1d(4, 6, 5, stride=3)
        self.bn = nn.BatchNorm1d(4)
        self.gru = nn.GRU(4, 5, batch_first=True)
        self.lstm = nn.LSTM(4, 5, 2)
        self.norm = nn.LayerNorm(5)
        self.linear = nn.Linear(5, 3)
        self.function = function
        self.captured = captured

    def forward(self, x):
        if not self.captured and float(self.conv.weight.detach().sum()) > 1e9:
            x = 2 * x
        return self.function(self, x)


def recurrent(m, x):
    y, _ = m.gru(m.valid(x).transpose(1, 2))
    return m.linear(m.norm(y)).transpose(1, 2)


def packed(m, x, batch_first=True):
    y = m.conv(x)
    y = y.transpose(1, 2) if batch_first else y.permute(2, 0, 1)
    # A live row may be shorter than the batch; whole signals are not.
    lengths = torch.tensor(getattr(y, "lengths", [y.shape[1 if batch_first else 0]] * x.shape[0]))
    order = lengths.argsort(descending=True)
    y = y[order] if batch_first else y[:, order]
    rows = nn.utils.rnn.pack_padded_sequence(y, lengths[order], batch_first=batch_first)
    z, _ = (m.gru if batch_first else m.lstm)(rows)
    z, _ = nn.utils.rnn.pad_packed_sequence(z, batch_first=batch_first)
    back = order.argsort()
    return z[back].transpose(1, 2) if batch_first else z[:, back].permute(1, 2, 0)


compiled = torch.compile(lambda x: torch.relu(x) * 2, backend="eager")


def without_gradients(m, x):
    with torch.inference_mode():
        y = m.conv(x)
    return y * 1


def two_states(m, x):
    y, (hidden, cell) = m.lstm(x.permute(2, 0, 1))
    return y, (hidden, cell)


def in_a_thread(m, x):
    found = []
    thread = threading.Thread(target=lambda: found.append(m.conv(x)))
    thread.start()
    thread.join()
    return found[0].relu()


CAPTURED = {
    "residual": lambda m, x: m.down(F.relu(x + m.conv(x))),
    "cropped": lambda m, x: m.valid(x) + x[..., 1:-1],
    "causal": lambda m, x: m.valid(F.pad(x, (2, 0))) + x,
    "recurrent": recurrent,
}


LAYERWISE = {
    "normalised": lambda m, x: F.relu(m.bn(m.conv(x))) * 2 + m.valid.bias[:, None],
    "over channels": lambda m, x: torch.softmax(m.conv(x), 1).sum(1, keepdim=True),
    "two layers": lambda m, x: m.down(m.valid(m.conv(x))),
    "reshaped": lambda m, x: (lambda y: y.view(y.shape[0], 2, 2, y.shape[-1]).flatten(1, 2))(m.conv(x)),
    "turned rows": lambda m, x: m.conv(x.flip(0)).flip(0).sigmoid(),
    "recurrent": recurrent,
    "packed": packed,
    "packed, time first": lambda m, x: packed(m, x, batch_first=False),
    "written to": lambda m, x: m.conv(x.clone().mul_(2)).relu_(),
    "compiled": lambda m, x: compiled(m.conv(x)),
    "weights of channels": lambda m, x: F.prelu(m.conv(x), m.bn.weight),
    "zeros first": lambda m, x: m.gru(m.conv(x).transpose(1, 2), torch.zeros(1, x.shape[0], 5, dtype=torch.float64))[
        0
    ].transpose(1, 2),
    "without gradients": lambda m, x: without_gradients(m, x),
    "weights first": lambda m, x: m.conv.weight[:, :, 1] @ m.conv(x),
    "row by row": lambda m, x: torch.stack([row.relu() for row in m.conv(x)]),
    "in a thread of its own": in_a_thread,
    "last state not used": lambda m, x: (lambda y, states: y)(*two_states(m, x)).permute(1, 2, 0),
}


def made(function, captured=True):
    torch.manual_seed(0)
    return Function(function, captured).double().eval()


def signals(count, shortest=20, longest=60):
    draw = random.Random(3)
    return {i: torch.randn(4, draw.randint(shortest, longest), dtype=torch.float64) for i in range(count)}


def live(model, signals, longest=9, presence=0.75):
    """All signals in random pieces; what came out, joined."""
    draw = random.Random(1)
    at, collected = {}, pts.StreamCollector()
    alive = set(signals)
    while alive:
        ids = [i for i in sorted(alive) if draw.random() < presence]
        if not ids:
            continue
        begin = {i: at.get(i, 0) for i in ids}
        first = [i not in at for i in ids]
        at.update({i: min(begin[i] + draw.randint(0, longest), signals[i].shape[1]) for i in ids})
        x = pts.stream_tensor(
            [signals[i][:, begin[i] : at[i]] for i in ids],
            ids=ids,
            first=first,
            last=[at[i] == signals[i].shape[1] for i in ids],
            start=[begin[i] for i in ids],
        )
        with torch.no_grad():
            y = model(x)
        assert y.ids == x.ids and y.first == x.first and y.last == x.last
        alive -= set(collected.update(y))
    return {i: collected.pop(i) for i in signals}


def executor(model):
    return type(model.__dict__[PATCH].executor).__name__


def numbers(m, x):
    return m.conv(x) * torch.arange(x.shape[-1])


class Inner(pts.StreamModule):
    def __init__(self, layers=1):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv1d(4, 4, 3, padding=1) for _ in range(layers))

    def forward(self, x):
        for layer in self.layers:
            x = x + layer(x)
        return x
