"""What a patched model refuses, and that nothing has changed then."""

import math
import threading

import pytest
import torch
import torch.fx
import torch.nn.functional as F
import torch.utils.checkpoint
from online_cases import (
    made,
    numbers,
)
from torch import nn

import torchstreamer as pts
from torchstreamer.core.patched import PATCH


@torch.jit.script
def scripted(x):
    return x.mean(-1, keepdim=True)


def swallowed(m, x):
    y = m.conv(x)
    try:
        return y - y.mean(-1, keepdim=True)
    except Exception:
        return y


def threaded(m, x):
    y, found = m.conv(x), [1.0]
    thread = threading.Thread(target=lambda: swallowing(lambda: found.append(y.mean(-1, keepdim=True))))
    thread.start()
    thread.join()
    return y * found[-1]


def swallowing(function):
    try:
        function()
    except pts.StreamOnlineError:
        pass


def counted(m, x):
    m.linear.in_features += 1
    return m.conv(x) * m.linear.in_features


def buffered(m, x):
    m.bn.running_mean += 1
    return m.bn(m.conv(x))


def packed_data(m, x, change):
    rows = nn.utils.rnn.pack_padded_sequence(m.conv(x).transpose(1, 2), torch.tensor([7, 7]), True)
    change(rows)
    return nn.utils.rnn.pad_packed_sequence(m.gru(rows)[0], True)[0]


REFUSED = {
    "online_time": [
        lambda m, x: x + m.conv(x),
        lambda m, x: m.valid(x) + x[..., 1:-1],
        lambda m, x: m.valid(F.pad(x, (2, 0))) + x,
        lambda m, x: (lambda y: y - y.mean(-1, keepdim=True))(m.conv(x)),
        lambda m, x: m.conv(x).cumsum(-1),
        lambda m, x: m.conv(x).softmax(-1),
        lambda m, x: F.softmax(m.conv(x), dim=2),
        lambda m, x: F.conv1d(x, m.conv.weight),
        lambda m, x: F.max_pool1d(m.conv(x), 3),
        lambda m, x: F.interpolate(m.conv(x), scale_factor=2.0),
        lambda m, x: m.conv(x)[..., :2],
        lambda m, x: m.conv(x)[..., 0],
        lambda m, x: m.conv(x).flip(-1),
        lambda m, x: m.conv(x).roll(1, -1),
        lambda m, x: m.conv(x).sort(-1)[0],
        lambda m, x: m.conv(x).diff(dim=-1),
        lambda m, x: m.conv(x).unfold(-1, 3, 1),
        lambda m, x: m.conv(x) * float(x.max()),
        lambda m, x: m.conv(x) + torch.zeros(1, 4, 7),
        lambda m, x: torch.cat([m.conv(x), torch.zeros(2, 4, 6)], 1),
        lambda m, x: x.new_zeros(2, 4, 6) + m.conv(x),
        lambda m, x: torch.einsum("bct->bct", m.conv(x)),
        numbers,
        lambda m, x: m.conv(x) / x.shape[-1],
        lambda m, x: m.conv(x) * torch.ones(x.size(2)),
        lambda m, x: m.conv(x) * x.numel(),
        # Cuts that leave a short piece as it is.
        lambda m, x: m.conv(x)[..., :100],
        lambda m, x: m.conv(x).split(100, -1)[0],
        lambda m, x: torch.cat([m.conv(x)], -1),
        # Sizes that are equal by chance.
        lambda m, x: m.conv(x).view(2, 4, -1, 6).sum(-1),
        lambda m, x: m.conv(x).view(x.shape[0], 2, -1, x.shape[2]),
        lambda m, x: torch.max(x, torch.zeros(1, 4, 7)),
        lambda m, x: x.gather(1, torch.zeros(2, 4, 7, dtype=torch.long)),
        # Code that torch does not tell of.
        lambda m, x: m.conv(x) * scripted(x),
        lambda m, x: m.conv(x) * torch.vmap(lambda row: row.mean(-1, keepdim=True))(x),
        lambda m, x: m.conv(x) * x.tensor().mean(),
        lambda m, x: m.conv(x) * x.as_subclass(torch.Tensor).mean(),
        lambda m, x: m.conv(x) / torch.tensor(x.lengths).view(-1, 1, 1),
        lambda m, x: m.conv(x) * x.stride(0),
        lambda m, x: m.conv(x) * torch.Tensor._make_subclass(torch.Tensor, x).mean(),
        lambda m, x: (lambda y: y * torch.Tensor._make_subclass(torch.Tensor, y.relu()).numpy().mean())(m.conv(x)),
        lambda m, x: scripted(torch.Tensor._make_subclass(torch.Tensor, m.conv(x))) * x,
        threaded,
        lambda m, x: m.conv(x) * torch.from_numpy(x.detach().numpy()).mean(),
        swallowed,
        # What differs from call to call.
        lambda m, x: m.conv(x) * x.shape[0],
        lambda m, x: m.conv(x) + torch.arange(x.size(0)).view(-1, 1, 1),
        lambda m, x: F.dropout(m.conv(x)),
        lambda m, x: m.conv(x) + torch.randn(4, 1),
    ],
    "online_rows": [lambda m, x: m.conv(x) * (x.shape[0] + 1), lambda m, x: x if x.shape[0] == 1 else m.conv(x)],
    "online_memory": [counted, buffered],
    "online_length": [
        lambda m, x: m.conv(x) * (x.shape[-1] - 1),
        lambda m, x: m.conv(x) if x.shape[-1] > 3 else x,
        lambda m, x: m.conv(x) * int(x.size(-1)),
        lambda m, x: m.conv(x) * len(range(x.shape[-1])),
        lambda m, x: m.conv(x) * math.log(x.shape[-1]),
        lambda m, x: m.conv(x) * x.shape.numel(),
        lambda m, x: m.conv(x) if x.shape[-1] == 7 else x,
        lambda m, x: m.conv(x) * {7: 2.0}.get(x.shape[-1], 1.0),
        lambda m, x: m.conv(x) * sum(x.lengths),
        lambda m, x: (m.conv(x), x.shape[-1]),
    ],
    "online_layer_twice": [lambda m, x: m.conv(x) + m.conv(x)],
    "online_layout": [lambda m, x: m.conv(x.transpose(1, 2))],
    "online_output": [lambda m, x: (m.conv(x), torch.ones(3)), lambda m, x: m.conv(x)[:1]],
    "online_arguments": [lambda m, x: m.gru(m.conv(x).transpose(1, 2), torch.ones(1, 2, 5))[0]],
    "online_gap": [lambda m, x: m.valid(x if 1 in x.ids else m.conv(x)).relu()],
    "final_state": [
        lambda m, x: m.gru(m.conv(x).transpose(1, 2))[1][-1],
        lambda m, x: m.gru(m.conv(x).transpose(1, 2))[1] + 1,
    ],
    "online_packed": [
        lambda m, x: nn.utils.rnn.pack_padded_sequence(m.conv(x).transpose(1, 2), [4, 3], True).data,
        lambda m, x: nn.utils.rnn.pack_padded_sequence(m.conv(x).transpose(1, 2), [6, 6], False).data,
    ],
}


@pytest.mark.parametrize(("code", "number"), [(code, i) for code, rows in REFUSED.items() for i in range(len(rows))])
def test_what_is_not_proved_is_refused_and_changes_nothing(code, number):
    model = pts.patch_module(made(REFUSED[code][number], captured=False)).online()
    pieces = [torch.randn(4, 7, dtype=torch.float64)] * 2
    with torch.no_grad(), pytest.raises(pts.StreamOnlineError) as caught:
        model(pts.stream_tensor(pieces, ids=[1, 2], first=True))
        model(pts.stream_tensor(pieces, ids=[2, 3], first=[False, True]))  # for what shows later
    assert caught.value.code == code
    layers = model.__dict__[PATCH].executor.layers.values()
    known = set() if code != "online_gap" else {1, 2}
    assert set(pts.stream_state(model).ids()) == known
    assert all(set(layer.runner.rows.ids()) <= known and set(layer.runner.came) <= known for layer in layers)


def test_one_call_at_a_time():
    entered, go = threading.Event(), threading.Event()

    class Slow(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(1, 1, 3)

        def forward(self, x):
            if isinstance(x, pts.StreamTensor):
                entered.set()
                assert go.wait(20)
            return self.conv(x) if float(self.conv.bias.detach()) < 1e9 else x

    model = pts.patch_module(Slow().eval()).online()
    x = pts.stream_tensor([torch.ones(1, 5)], ids=["a"], first=True)
    found = []
    worker = threading.Thread(target=lambda: found.append(model(x)))
    worker.start()
    assert entered.wait(20)
    with pytest.raises(pts.StreamStateError, match="^in_use"):
        model(x)
    go.set()
    worker.join()
    assert found[0].shape == (1, 1, 3)


def test_a_checkpoint_is_refused_when_it_runs_the_layers_again():
    model = pts.patch_module(
        made(lambda m, x: torch.utils.checkpoint.checkpoint(m.conv, x, use_reentrant=False).relu(), captured=False)
    ).online()
    y = model(pts.stream_tensor([torch.randn(4, 9, dtype=torch.float64)], ids=["a"], first=True))
    with pytest.raises(pts.StreamOnlineError, match="^online_layer_late"):
        y.tensor().sum().backward()


def test_traced_modules_run_and_scripted_ones_are_refused():
    torch.manual_seed(0)
    x = torch.randn(4, 20, dtype=torch.float64)
    rows = pts.stream_tensor([x], ids=["a"], first=True, last=True)
    model = made(lambda m, x: m.inner(m.conv(x)), captured=False)
    model.inner = torch.fx.symbolic_trace(nn.Sequential(nn.Conv1d(4, 4, 2), nn.Tanh())).double()
    whole = model(x[None])
    torch.testing.assert_close(pts.patch_module(model).online()(rows).tensor(), whole, rtol=0, atol=1e-12)
    model.inner = torch.jit.script(nn.Hardtanh())
    with pytest.raises(pts.StreamOnlineError, match="^online_time"):
        model(rows)
