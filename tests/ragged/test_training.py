"""Training through rows of many signals, and through patched models."""

import random

import pytest
import torch
from torch import nn

import torchstreamer as pts


def network() -> nn.Module:
    torch.manual_seed(0)
    inner = pts.Residual1d(nn.Conv1d(4, 4, 3, padding=1))
    strided = (
        nn.Conv1d(2, 4, 7, stride=2, padding=3),
        nn.BatchNorm1d(4),
        nn.ReLU(),
        nn.ConvTranspose1d(4, 4, 4, stride=3),
    )
    net = nn.Sequential(*strided, inner, nn.Dropout1d(0.5)).double()
    net(torch.randn(4, 2, 60, dtype=torch.float64))
    return net


def signals():
    return {i: torch.randn(2, 30 + 17 * i, dtype=torch.float64) for i in range(6)}


def feed(rows, xs, after=lambda pieces: None):
    """All signals in random pieces, each present with probability 0.75; what came out, by id."""
    draw, at, out = random.Random(1), dict.fromkeys(xs, 0), {i: [] for i in xs}
    while at:
        call = []
        for i in list(at):
            if draw.random() < 0.75:
                a, b = at[i], min(at[i] + draw.randint(0, 25), xs[i].shape[1])
                last = b == xs[i].shape[1]
                call.append((i, xs[i][:, a:b], i not in rows, last))
                at[i] = b
                if last:
                    del at[i]
        pieces = rows.step(call)
        for piece in pieces:
            out[piece.id] += [] if piece.output is None else [piece.output]
        after([piece.output for piece in pieces if piece.output is not None])
    return {i: torch.cat(parts, -1) for i, parts in out.items()}


def test_rows_have_the_whole_gradient():
    net, xs = network(), signals()
    rows = pts.RowStream(net, training="frozen")
    rows.stream.eval()
    net.eval()
    sum((y**2).sum() for y in feed(rows, xs).values()).backward()
    streamed = [parameter.grad.clone() for parameter in net.parameters()]
    net.zero_grad()
    sum((net(x[None]) ** 2).sum() for x in xs.values()).backward()
    for parameter, gradient in zip(net.parameters(), streamed, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=0, atol=1e-8)


def test_each_signal_has_a_mask_of_its_own():
    rows, xs = pts.RowStream(nn.Dropout1d(0.5), training="frozen"), signals()
    out = feed(rows, {i: torch.ones_like(x) for i, x in xs.items()})
    for y in out.values():
        assert torch.equal(y, y[:, :1].expand_as(y))
    assert len({tuple(y[:, 0].tolist()) for y in out.values()}) > 1
    rows.step([("a", torch.ones(50, 3), True, False), ("b", torch.ones(50, 3), True, False)])
    kept = rows.get("a")
    (before,) = rows.step([("a", torch.ones(50, 3), False, False)])
    rows.set("c", kept)
    (after,) = rows.step([("c", torch.ones(50, 5), False, False)])
    assert torch.equal(after.output[:, 0], before.output[:, 0])


def test_rows_are_cut_for_each_piece():
    net, xs = network(), signals()
    rows = pts.RowStream(net, training="frozen")

    def learn(outputs):
        if outputs:
            sum(y.sum() for y in outputs).backward()

    with pytest.raises(pts.StreamStateError, match="^second_backward: "):
        feed(rows, xs, learn)
    rows.reset()
    net.zero_grad()

    def cut(outputs):
        learn(outputs)
        rows.detach_state()

    feed(rows, xs, cut)
    assert all(bool(parameter.grad.isfinite().all()) for parameter in net.parameters())


def test_a_patched_model_has_both_modes_online():
    net, xs = network(), signals()
    model = pts.patch_module(net, training="frozen").online()
    given = pts.stream_tensor(list(xs.values()), ids=list(xs), first=True, last=True)
    assert not torch.equal(model(given).tensor(), model(given).tensor())
    model.eval()
    y = model(given)
    torch.testing.assert_close(y.tensor(), model(given).tensor(), rtol=0, atol=0)
    model.offline()
    for row, x in zip(y.unbatch(), xs.values(), strict=True):
        torch.testing.assert_close(row.tensor().squeeze(0), net(x[None])[0], rtol=0, atol=1e-10)
    model.online().train()
    assert not torch.equal(model(given).tensor(), model(given).tensor())
    begun = pts.stream_tensor([x[:, :20] for x in xs.values()], ids=list(xs), first=True)
    rest = pts.stream_tensor([x[:, 20:] for x in xs.values()], ids=list(xs), last=True)
    model(begun).tensor().sum().backward()
    pts.stream_state(model).detach()
    model(rest).tensor().sum().backward()
    with pytest.raises(pts.UnsupportedModuleError, match="^training_mode: "):
        refused = nn.Sequential(nn.Conv1d(2, 2, 3), pts.Recurrent1d(nn.GRU(2, 2, 2, dropout=0.5))).double()
        pts.patch_module(refused, training="frozen").online()(given)
