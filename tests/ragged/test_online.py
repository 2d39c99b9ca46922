"""Patched models: each id gives what the model gives on its whole signal, online; and nothing else changes."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.fx
import torch.nn.functional as F
import torch.utils.checkpoint
from online_cases import (
    CAPTURED,
    LAYERWISE,
    Function,
    Inner,
    executor,
    live,
    made,
    signals,
)
from torch import nn

import torchstreamer as pts
from torchstreamer.core.patched import PATCH


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
