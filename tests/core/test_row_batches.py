"""How many batches a step of live rows takes, and which states it moves."""

import math
import random
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import torchstreamer as pts
from torchstreamer.core import row_runner, row_table
from torchstreamer.core.ring import RingBuffer
from torchstreamer.core.row_pieces import PieceLayout
from torchstreamer.core.row_state import RowState
from torchstreamer.layers.attention_memory import AttentionMemory

sys.path.insert(0, str(Path(__file__).parent))
from row_cases import NETS, assert_empty, assert_equal, compare, live, signals, states


def bound(rows, longest, phases):
    return (math.floor(math.log2(max(longest // rows.stream.hop, 1))) + 1) * phases


@pytest.mark.parametrize("name", ["convolutions", "strided", "attention"])
@torch.no_grad()
def test_batches_of_a_step(name):
    rows = pts.RowStream(NETS[name])
    xs = signals(32, 400, shortest=300)
    rows.step([(i, x[:, :120], True, False) for i, x in xs.items()])
    assert rows.calls <= bound(rows, 120, 1)

    def check(given, calls, phases):
        longest = max((piece.shape[1] for _, piece, _, _ in given), default=0) + rows.stream.hop
        ends = sum(first or last for _, _, first, last in given)
        assert calls <= bound(rows, longest, phases) + ends

    live(rows, xs, 60, after=check)


@torch.no_grad()
def test_rows_of_any_age_share_the_batches_of_attention():
    torch.manual_seed(0)
    net = pts.SelfAttention1d(nn.MultiheadAttention(8, 2, batch_first=True), pts.Context(250)).double().eval()
    rows = pts.RowStream(net)
    draw = random.Random(0)
    xs = {i: torch.randn(8, draw.randint(0, 300) + 8, dtype=torch.float64) for i in range(64)}
    rows.step([(i, x[:, : x.shape[1] - 8], True, False) for i, x in xs.items() if x.shape[1] > 8])
    rows.step([(i, x[:, :0], True, False) for i, x in xs.items() if x.shape[1] == 8])
    for k in (8, 4):
        before = rows.calls
        pieces = rows.step([(i, x[:, x.shape[1] - k :][:, :4], False, False) for i, x in xs.items()])
        assert rows.calls - before <= (1 if k == 4 else 2)
        for piece in pieces:
            x = xs[piece.id][:, : xs[piece.id].shape[1] - k + 4]
            torch.testing.assert_close(piece.output, net(x[None])[0, :, -4:], rtol=0, atol=1e-10)


@torch.no_grad()
def test_a_batch_that_stays_as_it_is_is_not_copied(monkeypatch):
    rows = pts.RowStream(NETS["convolutions"])
    x = torch.randn(2, 16, dtype=torch.float64)
    rows.step([(i, x, True, False) for i in range(4)])
    monkeypatch.setattr(RowState, "go_on", None)
    rows.step([(i, x, False, False) for i in (2, 0, 1, 3)])
    rows.step([(i, x, False, False) for i in range(4)])


@pytest.mark.parametrize("name", ["convolutions", "strided", "recurrent", "attention"])
@torch.no_grad()
def test_rows_leave_and_join_a_batch_of_large_states(name, monkeypatch):
    monkeypatch.setattr(row_table, "_LARGE", 0)
    net, draw = NETS[name], random.Random(0)
    rows = pts.RowStream(net)
    hop, nan = rows.stream.hop, torch.full((2, 0), math.nan, dtype=torch.float64)
    whole = {i: nan for i in range(16)}
    found = {i: [] for i in whole}
    joined, moved, join = [], [], RowState.join
    monkeypatch.setattr(RowState, "join", lambda self, *args: joined.append(1) or join(self, *args))
    take = row_runner.gather
    monkeypatch.setattr(row_runner, "gather", lambda given: moved.append(len(given)) or take(given))
    for step in range(40):
        given = []
        for i in whole:
            x = torch.randn(2, 2 * hop, dtype=torch.float64)
            first = step == 0 or draw.random() < 0.02
            if not first and draw.random() < 0.02:
                continue
            if first:
                whole[i], found[i] = nan, []
            whole[i] = torch.cat([whole[i], x], 1)
            given.append((i, x, first, False))
        for piece in rows.step(given):
            found[piece.id] += [] if piece.output is None else [piece.output]
    for piece in rows.step([(i, None, False, True) for i in whole]):
        found[piece.id] += [] if piece.output is None else [piece.output]
    compare(net, whole, {i: torch.cat(each, 1) if each else None for i, each in found.items()})
    assert_empty(rows)
    if name == "attention":
        assert joined and sum(n >= 14 for n in moved) < 30


@torch.no_grad()
def test_rows_that_are_renewed_one_by_one_do_not_move_the_others(monkeypatch):
    monkeypatch.setattr(row_table, "_LARGE", 0)
    net, rows, moved = NETS["attention"], pts.RowStream(NETS["attention"]), []
    take = row_runner.gather
    monkeypatch.setattr(row_runner, "gather", lambda given: moved.append(len(given)) or take(given))
    whole, found = {}, {}
    for step in range(-16, 20):
        given = [(i, torch.randn(2, 4, dtype=torch.float64), i == step % 16, False) for i in range(min(step + 17, 16))]
        for i, x, first, _ in given:
            whole[i] = x if first else torch.cat([whole[i], x], 1)
            found[i] = [] if first else found[i]
        if step == 0:
            moved.clear()
        for piece in rows.step(given):
            found[piece.id] += [] if piece.output is None else [piece.output]
    assert max(moved[8:]) < 8
    for piece in rows.step([(i, None, False, True) for i in whole]):
        found[piece.id] += [] if piece.output is None else [piece.output]
    compare(net, whole, {i: torch.cat(each, 1) if each else None for i, each in found.items()})
    assert_empty(rows)


@torch.no_grad()
def test_a_row_that_nobody_wants_makes_no_step_fail(monkeypatch):
    monkeypatch.setattr(row_table, "_LARGE", 0)

    class Finite(nn.Module):
        def forward(self, x):
            if not x.isfinite().all():
                raise RuntimeError("boom")
            return x

    net = nn.Sequential(nn.Conv1d(2, 2, 5), nn.BatchNorm1d(2), Finite()).double().eval()
    rows = pts.RowStream(net)
    xs = signals(16, 24, shortest=24)
    rows.step([(i, x[:, :8], True, False) for i, x in xs.items()])
    with pytest.raises(RuntimeError, match="boom"):
        rows.step([(i, x[:, 8:9] * (math.inf if i == 3 else 1), False, False) for i, x in xs.items()])
    rows.step([(3, xs[3][:, 8:9], False, False)])
    before = states(rows)
    bad = [(i, x[:, 8:9] * (math.inf if i == 5 else 1), False, False) for i, x in xs.items() if i != 3]
    with pytest.raises(RuntimeError, match="boom"):
        rows.step(bad)
    assert_equal(states(rows), before)
    pieces = rows.step([(i, x[:, 8:], False, True) for i, x in xs.items() if i != 3])
    for piece in pieces:
        torch.testing.assert_close(piece.output, net(xs[piece.id][None])[0][:, 4:], rtol=0, atol=1e-10)


ALIKE = {
    "causal attention": nn.Sequential(
        pts.SelfAttention1d(nn.MultiheadAttention(2, 1, batch_first=True), pts.Context(9), sinks=2),
        pts.Recurrent1d(nn.GRU(2, 3)),
        nn.Conv1d(3, 2, 1),
    ),
    "chunks": pts.SelfAttention1d(nn.MultiheadAttention(2, 1, batch_first=True), pts.Context(9, chunk=4)),
    "strided": nn.Sequential(nn.Conv1d(2, 4, 3, stride=2, padding=1), nn.Conv1d(4, 2, 2, stride=2)),
}


@pytest.mark.parametrize("large", [True, False])
@pytest.mark.parametrize("name", ALIKE)
@torch.no_grad()
def test_a_signal_that_begins_takes_no_batch_of_its_own(name, large, monkeypatch):
    monkeypatch.setattr(row_table, "_LARGE", 0 if large else 1 << 20)
    net = ALIKE[name].double().eval()
    rows, draw = pts.RowStream(net), random.Random(0)
    whole, found = {}, {}
    for step in range(30):
        given = []
        for i in range(16):
            x = torch.randn(2, 2 * rows.stream.hop, dtype=torch.float64)
            first = step == 0 or (draw.random() < 0.06 and len([entry for entry in given if entry[2]]) < 2)
            given.append((i, x, first, False))
        if step in (3, 6, 9):
            before = states(rows)
            with monkeypatch.context() as broken, pytest.raises(RuntimeError, match="boom"):
                broken.setattr(rows.stream, "step", fails_after(rows.stream.step))
                rows.step(given)
            assert_equal(states(rows), before)
        calls = rows.calls
        for i, x, first, _ in given:
            whole[i] = x if first else torch.cat([whole[i], x], 1)
            found[i] = [] if first else found[i]
        for piece in rows.step(given):
            found[piece.id] += [] if piece.output is None else [piece.output]
        # After a failure nothing stands in the stream, so what is large is copied before anything joins it.
        assert rows.calls - calls == 1 or (large and step < 14)
    for piece in rows.step([(i, None, False, True) for i in whole]):
        found[piece.id] += [] if piece.output is None else [piece.output]
    compare(net, whole, {i: torch.cat(each, 1) for i, each in found.items() if each})
    assert_empty(rows)


def fails_after(step, calls=1):
    left = calls

    def fails(x, final):
        nonlocal left
        y = step(x, final)
        left -= 1
        if left <= 0:
            raise RuntimeError("boom")
        return y

    return fails


def large_rows(net, monkeypatch, steps, lengths, renewed=False):
    """Steps of 16 rows of large states, of which one may begin anew in most; how often something was called so far."""
    monkeypatch.setattr(row_table, "_LARGE", 0)
    rows, whole, found = pts.RowStream(net), {}, {}
    counts = dict.fromkeys(["_take_room", "_stays", "take", "accepted"], 0)

    def count(kind, name):
        method = getattr(kind, name)

        def counted(*args):
            y = method(*args)
            counts[name] += y is not False
            return y

        monkeypatch.setattr(kind, name, counted)

    count(RingBuffer, "_take_room")
    count(RingBuffer, "_stays")
    count(AttentionMemory, "take")
    count(PieceLayout, "accepted")
    for step in range(steps):
        given = [
            (i, torch.randn(2, n, dtype=torch.float64), step == 0 or (renewed and i == step % 20), False)
            for i, n in enumerate(lengths(step))
        ]
        random.Random(step).shuffle(given)
        for i, x, first, _ in given:
            whole[i] = x if first else torch.cat([whole[i], x], 1)
            found[i] = [] if first else found[i]
        yield rows, given, counts
        for piece in rows.step(given):
            found[piece.id] += [] if piece.output is None else [piece.output]
    for piece in rows.step([(i, None, False, True) for i in whole]):
        found[piece.id] += [] if piece.output is None else [piece.output]
    compare(net, whole, {i: torch.cat(each, 1) for i, each in found.items() if each})
    assert_empty(rows)


def two_attentions():
    layers = [pts.SelfAttention1d(nn.MultiheadAttention(2, 1, batch_first=True), pts.Context(24)) for _ in range(2)]
    return nn.Sequential(*layers).double().eval()


@torch.no_grad()
def test_rows_of_mixed_age_take_no_memory_anew_and_keep_to_the_quick_way(monkeypatch):
    steps = large_rows(two_attentions(), monkeypatch, 50, lambda step: [4] * 16, renewed=True)
    for step, (rows, given, counts) in enumerate(steps):
        if step == 40:
            # All but where memory is written again is of the first step.
            assert counts == {"_take_room": 2, "take": 2, "accepted": 1, "_stays": 16}
        if step in (44, 48):
            with monkeypatch.context() as broken, pytest.raises(RuntimeError, match="boom"):
                broken.setattr(rows.stream, "step", fails_after(rows.stream.step))
                rows.step(given)


@torch.no_grad()
def test_a_step_that_fails_has_written_nothing_that_is_wanted(monkeypatch):
    # At the end of each line memory is full, and for 5 samples there is no room in it but where the last state stands.
    mixed = [7] * 13 + [6, 5, 4]  # runs as batches of 4, 2 and 1
    lengths = [
        *[[n] * 16 for n in (4, 4, 4, 4, 4, 4, 4, 1)], mixed,
        *[[n] * 16 for n in (4, 4, 4, 4, 4, 4, 4, 5)],
    ] * 2  # fmt: skip
    again = []
    for rows, given, counts in large_rows(two_attentions(), monkeypatch, len(lengths), lambda step: lengths[step]):
        n = max(piece.shape[1] for _, piece, _, _ in given)
        if n < 5:
            continue
        before = counts["_stays"]
        with monkeypatch.context() as broken, pytest.raises(RuntimeError, match="boom"):
            broken.setattr(rows.stream, "step", fails_after(rows.stream.step, 2 if n == 7 else 1))
            rows.step(given)
        again.append((n, counts["_stays"] - before))
    assert again == [(7, 2), (5, 0)] * 2
