"""States of the signals of a patched model: taken, set, cut from gradients, and gone when a signal is."""

import copy
import pickle

import pytest
import torch
import torch.fx
import torch.utils.checkpoint
from online_cases import (
    CAPTURED,
    LAYERWISE,
    Inner,
    made,
    numbers,
    recurrent,
)
from torch import nn

import torchstreamer as pts
from torchstreamer.core.patched import PATCH
from torchstreamer.ragged.running import Runner


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
