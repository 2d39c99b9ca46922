"""Patched models: each id gives what the model gives on its whole signal, online; and nothing else changes."""

import copy
import math
import pickle
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
import torch.fx
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn

import torchstreamer as pts
from torchstreamer.core.patched import PATCH
from torchstreamer.ragged.running import Runner


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


@pytest.mark.parametrize(
    ("name", "captured"), [(name, True) for name in CAPTURED] + [(name, False) for name in LAYERWISE]
)
def test_every_id_gives_its_whole_signal(name, captured):
    reference = made((CAPTURED if captured else LAYERWISE)[name])
    model = pts.patch_module(made(reference.function, captured)).online()
    assert executor(model) == ("_Whole" if captured else "Layerwise")
    xs = signals(8)
    found = live(model, xs)
    with torch.no_grad():
        for i, x in xs.items():
            torch.testing.assert_close(found[i], reference(x[None])[0], rtol=0, atol=1e-12)
    assert pts.stream_state(model).ids() == ()
    assert pts.stream_state(model).nbytes == 0
    if not captured:
        assert all(not len(layer.runner.rows) for layer in model.__dict__[PATCH].executor.layers.values())


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


def numbers(m, x):
    return m.conv(x) * torch.arange(x.shape[-1])


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


def test_the_two_modes_and_the_two_kinds_of_tensors():
    net = made(CAPTURED["residual"])
    reference = copy.deepcopy(net)
    names = list(net.state_dict())
    model = pts.patch_module(net)
    assert model is net and pts.patch_module(model) is model
    x = torch.randn(1, 4, 30, dtype=torch.float64)
    rows = pts.stream_tensor(list(x), ids=["a"], first=True, last=True)
    assert not pts.is_online(model)
    assert torch.equal(model(x), reference(x))
    with pytest.raises(pts.StreamOnlineError, match="^offline:"):
        model(rows)
    assert model.online() is model and pts.is_online(model)
    assert torch.equal(model(rows).tensor(), model(pts.Batch([pts.Input(x[0], "a", True, True)])).tensor())
    torch.testing.assert_close(model(rows).tensor(), reference(x), rtol=0, atol=1e-12)
    with pytest.raises(pts.StreamOnlineError, match="^online:"):
        model(x)
    assert torch.equal(model.offline()(x), reference(x))
    assert list(model.state_dict()) == names and type(model) is Function


def test_ids_begin_go_on_and_end():
    model = pts.patch_module(made(CAPTURED["residual"])).online()
    state = pts.stream_state(model)
    piece = torch.randn(4, 10, dtype=torch.float64)

    def call(ids, **marks):
        return model(pts.stream_tensor([piece] * len(ids), ids=ids, **marks))

    with pytest.raises(pts.StreamInputError, match="^unknown_id"):
        call(["a", "b"], first=[True, False])
    assert state.ids() == ()
    y = call(["a"], first=True)
    call(["a", "b"], first=[False, True])
    assert torch.equal(call(["b", "a"], first=True)[1].tensor(), y[0].tensor())  # begun anew
    with pytest.raises(pts.StreamOnlineError, match="^online_gap"):
        call(["a"], start=[11])
    empty = pts.stream_tensor([piece[:, :0]] * 2, ids=["a", "c"], first=[False, True], last=True)
    assert model(empty).ids == ("a", "c")
    assert state.ids() == ("b",)
    with pytest.raises(pts.StreamInputError, match="^doubled_ids"):
        model(torch.cat([empty[:1]] * 2))
    wrong = pts.stream_tensor([torch.randn(3, 5).double()], ids=["b"])
    before = state.get("b")
    with pytest.raises(pts.StreamInputError, match="^invalid_chunk"):
        model(wrong)
    assert all(torch.equal(before[name], tensor) for name, tensor in state.get("b").items())


@pytest.mark.parametrize("captured", [True, False])
def test_states_travel(captured):
    function = LAYERWISE["two layers"]
    models = [pts.patch_module(made(function, captured)).online() for _ in range(2)]
    x = torch.randn(4, 40, dtype=torch.float64)
    pieces = [x[:, :17], x[:, 17:]]
    one, two = map(pts.stream_state, models)
    with torch.no_grad():
        y = models[0](pts.stream_tensor(pieces[:1], ids=["a"], first=True))
        kept = pickle.loads(pickle.dumps(one.get("a")))
        assert one.nbytes == one.nbytes_of("a") > 0
        two.set("b", kept)
        one.drop("a")
        assert one.ids() == () and two.ids() == ("b",)
        z = models[1](pts.stream_tensor(pieces[1:], ids=["b"], last=True, start=[17]))
        assert z.start == (y.shape[-1],)
        whole = models[0].offline()(x[None])
    torch.testing.assert_close(torch.cat([y.tensor(), z.tensor()], -1), whole, rtol=0, atol=1e-12)
    for call in (one.get, one.drop, one.nbytes_of, one.detach):
        with pytest.raises(pts.StreamInputError, match="^unknown_id"):
            call("a")
    with pytest.raises(pts.StreamError, match="^invalid_state"):
        two.set("c", {"nowhere/state": torch.ones(1)})
    assert two.ids() == ()
    with pytest.raises(pts.StreamOnlineError, match="^not_patched"):
        pts.stream_state(nn.Conv1d(1, 1, 1))


class Inner(pts.StreamModule):
    def __init__(self, layers=1):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv1d(4, 4, 3, padding=1) for _ in range(layers))

    def forward(self, x):
        for layer in self.layers:
            x = x + layer(x)
        return x


class Outer(Inner):
    def __init__(self):
        super().__init__(2)
        self.more = nn.ModuleList([Inner(), Inner()])  # patched by themselves

    def forward(self, x):
        return self.more[1](self.more[0](super().forward(x)))


def test_stream_modules_patch_themselves_and_may_stand_in_each_other():
    torch.manual_seed(0)
    model = Outer().double()
    assert PATCH in model.__dict__ and PATCH in model.more[0].__dict__
    model.eval().online()
    xs = signals(4)
    found = live(model, xs)
    for i, x in xs.items():
        torch.testing.assert_close(found[i], model.offline()(x[None])[0], rtol=0, atol=1e-12)
    assert [name for name, _ in pts.unpatch_module(model).named_parameters()][:1] == ["layers.0.weight"]


@pytest.mark.parametrize("captured", [True, False])
def test_copies_and_pickles_hold_the_model_and_no_signal(captured):
    model = pts.patch_module(made(recurrent if captured else numbers, captured)) if captured else Inner().double()
    model.eval().online()
    piece = torch.randn(4, 12, dtype=torch.float64)
    x = pts.stream_tensor([piece], ids=["a"], first=True)
    y = model(x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.forward.args[0] is other
        assert pts.is_online(other) and pts.stream_state(other).ids() == ()
        torch.testing.assert_close(other(x).tensor(), y.tensor(), rtol=0, atol=1e-12)
    assert pts.stream_state(model).ids() == ("a",)


def test_streams_reports_and_scripts_of_a_patched_model():
    net = made(CAPTURED["residual"])
    plain = pts.create_stream(net)
    model = pts.patch_module(nn.Sequential(pts.patch_module(net), nn.ReLU()))
    x = torch.randn(1, 4, 30, dtype=torch.float64)
    for mode in (model.offline, model.online):
        mode()
        assert torch.equal(pts.create_stream(model)(x, final=True), F.relu(plain(x, final=True)))
        assert pts.is_streamable(model)
    with pytest.raises(pts.StreamOnlineError, match="^patched:"):
        torch.jit.script(model)
    with pytest.raises(pts.StreamOnlineError, match="^patched:"):
        torch.jit.script(nn.Sequential(net))
    pts.unpatch_module(model)
    assert "forward" not in model.__dict__ and PATCH not in model.__dict__
    torch.jit.script(pts.create_stream(model))


def test_a_model_moves_and_changes_only_between_signals():
    model = pts.patch_module(made(CAPTURED["residual"])).online()
    x = torch.randn(4, 12)
    model(pts.stream_tensor([x.double()], ids=["a"], first=True))
    for change in (
        lambda: model.float()(pts.stream_tensor([x], ids=["b"], first=True)),
        lambda: pts.unpatch_module(model),
    ):
        with pytest.raises(pts.StreamOnlineError, match="^signals_live"):
            change()
    pts.stream_state(model).drop("a")
    y = model(pts.stream_tensor([x], ids=["b"], first=True, last=True))
    assert y.dtype == torch.float32
    model.train()
    with pytest.raises(pts.StreamOnlineError, match="^training_mode"):
        model(pts.stream_tensor([x], ids=["b"], first=True))
    model.eval()
    with torch.no_grad():  # weights are the model's own, whatever becomes of them
        model.conv.weight.mul_(2)
        z = model(pts.stream_tensor([x], ids=["b"], first=True, last=True))
        assert not torch.equal(y, z)
        torch.testing.assert_close(z.tensor(), model.offline()(x[None]))


def test_gradients_go_through_pieces_until_they_are_cut():
    for captured in (True, False):
        model = pts.patch_module(made(LAYERWISE["two layers"], captured)).online()
        x = torch.randn(4, 30, dtype=torch.float64)
        pieces = [
            model(pts.stream_tensor([x[:, a : a + 6]], ids=["a"], first=a == 0, last=a == 24)).tensor()
            for a in range(0, 30, 6)
        ]
        torch.cat(pieces, -1).square().sum().backward()
        found = model.conv.weight.grad.clone()
        model.zero_grad()
        model.offline()(x[None]).square().sum().backward()
        torch.testing.assert_close(found, model.conv.weight.grad, rtol=1e-8, atol=1e-10)
        model.online()
        for a in range(0, 30, 6):
            y = model(pts.stream_tensor([x[:, a : a + 6]], ids=["a"], first=a == 0))
            if y.requires_grad:  # it has samples
                y.sum().backward()
            pts.stream_state(model).detach()


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


class Lengths(nn.Module):
    """Features and their lengths through a recurrence, as speech models have it."""

    def __init__(self, divided):
        super().__init__()
        self.gru = nn.GRU(4, 5, batch_first=True)
        self.divided = divided

    def forward(self, x, lengths):
        if self.divided:
            x = x / lengths.view(-1, 1, 1)
        rows = nn.utils.rnn.pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return nn.utils.rnn.pad_packed_sequence(self.gru(rows)[0], batch_first=True)[0]


@torch.no_grad()
def test_lengths_as_a_second_input_order_and_pack_rows_and_nothing_else():
    net = Lengths(False).double().eval()
    model = pts.patch_module(copy.deepcopy(net)).online()
    xs = {name: torch.randn(length, 4, dtype=torch.float64) for name, length in (("a", 9), ("b", 11))}
    collected = pts.StreamCollector()
    for at in (0, 3, 6):
        pieces = [x[at : at + 3 if at < 6 else None] for x in xs.values()]
        x = pts.stream_tensor(pieces, ids=list(xs), first=at == 0, last=at == 6, time_dim=1)
        lengths = torch.tensor(x.lengths)
        collected.update(model(x, lengths) if at else model(x, lengths=lengths))
    for name, x in xs.items():
        expected = net(x[None], torch.tensor([len(x)]))[0]
        torch.testing.assert_close(collected.pop(name), expected, rtol=0, atol=1e-12)
    model = pts.patch_module(Lengths(True).double().eval()).online()
    with pytest.raises(pts.StreamOnlineError, match="^online_time"):
        model(x := pts.stream_tensor(list(xs.values()), ids=list(xs), first=True, time_dim=1), torch.tensor(x.lengths))


class Product(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv1d(4, 4, 3), nn.Conv1d(4, 4, 3)

    def forward(self, x, y):
        return self.one(x) * self.two(y)


def test_several_inputs_have_the_same_rows_and_a_failed_call_changes_none_of_them():
    model = pts.patch_module(Product().eval()).online()
    x, y = (pts.stream_tensor([torch.randn(4, 9)] * 2, ids=ids, first=True) for ids in ("ab", "bc"))
    with pytest.raises(pts.StreamOnlineError, match="^online_arguments"):
        model(x, y)
    assert pts.stream_state(model).ids() == ()
    z = model.offline()(x.tensor(), x.tensor())
    torch.testing.assert_close(model.online()(x, x).tensor(), z)
    with pytest.raises(pts.StreamOnlineError, match="^online_gap"):
        model(*(pts.stream_tensor([torch.randn(4, 3)] * 2, ids="ab", start=start) for start in ([9, 9], [9, 8])))


@pytest.mark.parametrize("captured", [True, False])
def test_other_parts_come_between_signals_and_hooks_do_not_come_at_all(captured):
    model = pts.patch_module(made(LAYERWISE["two layers"], captured)).online()
    piece = torch.randn(4, 30, dtype=torch.float64)
    begun, whole = (pts.stream_tensor([piece], ids=["a"], first=True, last=last) for last in (False, True))
    for change in (
        lambda: setattr(model, "conv", nn.Conv1d(4, 4, 3, padding=1).double()),
        lambda: setattr(model.conv, "weight", nn.Parameter(torch.ones(4, 4, 3, dtype=torch.float64))),
        lambda: model.load_state_dict({name: x / 2 for name, x in model.state_dict().items()}, assign=True),
    ):
        model(begun)
        change()
        with pytest.raises(pts.StreamOnlineError, match="^signals_live"):
            model(begun)
        pts.stream_state(model).drop("a")
        found = model(whole).tensor()
        torch.testing.assert_close(found, model.offline()(piece[None]), rtol=0, atol=1e-12)
        model.online()
    model.register_forward_hook(lambda module, args, y: y - y.mean(-1, keepdim=True))
    with pytest.raises(pts.UnsupportedModuleError, match="^forward_hook"):
        model(whole)


@pytest.mark.parametrize("captured", [True, False])
@torch.no_grad()
def test_an_error_behind_the_rows_changes_no_row(captured, monkeypatch):
    model = pts.patch_module(made(LAYERWISE["two layers"], captured)).online()
    first, more = (
        pts.stream_tensor([torch.randn(4, 9, dtype=torch.float64)] * 2, ids=ids, first=[new, True])
        for ids, new in (("ab", True), ("ac", False))
    )
    model(first)
    state = pts.stream_state(model)
    before = state.get("a")
    joined, calls = Runner._joined, []

    def fails_at_last(self, *args):
        calls.append(self)
        if captured or len(calls) == 3:
            raise MemoryError
        return joined(self, *args)

    monkeypatch.setattr(Runner, "_joined", fails_at_last)
    with pytest.raises(MemoryError):
        model(more)
    after = state.get("a")
    assert state.ids() == ("a", "b") and list(after) == list(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("captured", [True, False])
@torch.no_grad()
def test_signals_that_end_leave_nothing_behind(captured):
    model = pts.patch_module(made(LAYERWISE["two layers"], captured)).online()
    piece = torch.randn(4, 3, dtype=torch.float64)
    for number in range(12):
        ids = [(number, row) for row in range(20)]
        for n, first, last in ((3, True, False), (2, False, False), (0, False, True)):
            model(pts.stream_tensor([piece[:, :n]] * 20, ids=ids, first=first, last=last))
    live = model.__dict__[PATCH].executor
    for runner in [live.runner] if captured else [layer.runner for layer in live.layers.values()]:
        assert not runner.came and not len(runner.rows) and not runner.rows._table._forms
        assert runner.rows._runner.resident is None
    assert captured or not live.live


def test_a_checkpoint_is_refused_when_it_runs_the_layers_again():
    model = pts.patch_module(
        made(lambda m, x: torch.utils.checkpoint.checkpoint(m.conv, x, use_reentrant=False).relu(), captured=False)
    ).online()
    y = model(pts.stream_tensor([torch.randn(4, 9, dtype=torch.float64)], ids=["a"], first=True))
    with pytest.raises(pts.StreamOnlineError, match="^online_layer_late"):
        y.tensor().sum().backward()


class Pieces(torch.utils.data.Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, number):
        piece = torch.ones(4, 6, dtype=torch.float64)
        return pts.stream_tensor([piece, piece[:, :number]], ids=["a", "b"], first=number == 0, last=number == 2)


def test_pieces_come_from_the_workers_of_a_loader():
    model = pts.patch_module(made(LAYERWISE["two layers"], captured=False)).online()
    collected = pts.StreamCollector()
    for x in torch.utils.data.DataLoader(Pieces(), batch_size=None, num_workers=1):
        collected.update(model(x).detach())
    whole = model.offline()(torch.ones(1, 4, 18, dtype=torch.float64))
    torch.testing.assert_close(collected.pop("a"), whole[0].detach(), rtol=0, atol=1e-12)


@pytest.mark.slow
def test_a_model_of_a_class_of_ones_own_comes_out_of_a_file_in_another_process(tmp_path):
    model = Outer().eval().online()
    x = pts.stream_tensor([torch.randn(4, 9)], ids=["a"], first=True)
    torch.save((model, x, model(x)), tmp_path / "model.pt")
    program = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
import torch, torchstreamer as pts
model, x, y = torch.load({str(tmp_path / "model.pt")!r}, weights_only=False)
assert pts.is_online(model) and pts.stream_state(model).ids() == ()
assert torch.equal(model(x).tensor(), y.tensor())
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True)


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
