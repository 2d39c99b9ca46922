"""States of live rows: taken, set, copied, cut from gradients, and how large they are."""

import copy
import pickle
import random
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import torchstreamer as pts
from torchstreamer.core import row_table, state_size

sys.path.insert(0, str(Path(__file__).parent))
from row_cases import NETS, LastTwoStream, assert_empty, signals, states


@pytest.mark.parametrize("name", ["strided", "recurrent", "attention"])
@torch.no_grad()
def test_a_state_moves_to_a_stream_of_its_own_and_back(name):
    net = NETS[name]
    rows, other = pts.RowStream(net), pts.RowStream(net)
    xs = signals(4, 60, shortest=50)
    hop = rows.stream.hop
    cut = 20 // hop * hop
    first = rows.step([(i, x[:, :cut], True, False) for i, x in xs.items()])
    alone = pts.create_stream(net)
    alone.set_state(rows.get(2))
    assert rows.nbytes_of(2) >= alone.state_nbytes() > 0
    y = alone(xs[2][None, :, cut:], final=True)
    torch.testing.assert_close(torch.cat([first[2].output, y[0]], 1), net(xs[2][None])[0], rtol=0, atol=1e-10)
    # With samples that wait, between rows.
    more = rows.step([(1, xs[1][:, cut : cut + 1], False, False)])
    given = sum(piece.output.shape[1] for piece in (first[1], more[0]) if piece.output is not None)
    other.set("new", rows.get(1), start=given)
    assert ("@queue" in rows.get(1)) == (hop > 1)
    (rest,) = other.step([("new", xs[1][:, cut + 1 :], False, True)])
    assert rest.start == given
    torch.testing.assert_close(rest.output, net(xs[1][None])[0][:, given:], rtol=0, atol=1e-10)
    # From a stream that takes [C, T].
    stream = pts.create_stream(net)
    y = stream(xs[3][:, :cut])
    rows.set(3, stream.get_state())
    (rest,) = rows.step([(3, xs[3][:, cut:], False, True)])
    assert rest.start is None
    torch.testing.assert_close(torch.cat([y, rest.output], 1), net(xs[3][None])[0], rtol=0, atol=1e-10)
    (rest,) = rows.step([(0, xs[0][:, cut:], False, True)])
    torch.testing.assert_close(torch.cat([first[0].output, rest.output], 1), net(xs[0][None])[0], rtol=0, atol=1e-10)


@torch.no_grad()
def test_a_row_that_is_left_keeps_no_batch_alive():
    rows = pts.RowStream(nn.Conv1d(64, 64, 17).eval())
    rows.step([(i, torch.randn(64, 40), True, False) for i in range(32)])
    (left,) = {id(row.batch): row.batch for row in rows._table.rows.values()}.values()
    for i in range(31):
        rows.step([(i, None, False, True)])
    assert rows.nbytes == rows.nbytes_of(31) == 16 * 64 * 4
    kept = rows._table.rows[31].batch
    assert kept is not left
    assert sum(tensor.untyped_storage().nbytes() for tensor in kept.tensors) <= 4 * 16 * 64 * 4


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda rows: pickle.loads(pickle.dumps(rows))], ids=["copy", "pickle"]
)
@pytest.mark.parametrize("name", ["strided", "attention"])
def test_copies_and_pickles_have_the_rows_too(name, copied):
    net, xs = NETS[name], signals(5, 60, shortest=50)
    rows = pts.RowStream(net, prompt=True)
    rows.step([("new", None, True, False)] + [(i, x[:, : 13 + i % 2], True, False) for i, x in xs.items()])
    before = states(rows)
    twin = copied(rows)
    assert twin.ids() == rows.ids() and twin.prompt and twin.nbytes == rows.nbytes
    rest = [(i, x[:, 13 + i % 2 :], False, True) for i, x in xs.items()]
    for one in (twin.step(rest), rows.step(rest)):
        for piece in one:
            expected = net(xs[piece.id][None])[0][:, piece.start :]
            torch.testing.assert_close(piece.output, expected, rtol=0, atol=1e-10)
    assert "new" in twin and before.keys() == {"new", *xs}
    rows.drop("new")
    assert_empty(rows)


@pytest.mark.parametrize("name", ["strided", "recurrent", "attention"])
def test_gradients_are_those_of_the_whole(name):
    net = NETS[name]
    xs = {i: x.requires_grad_() for i, x in signals(6, 60, shortest=45).items()}
    weights = list(net.parameters())
    whole = [net(x[None])[0] for x in xs.values()]
    expected = torch.autograd.grad(sum((y**2).sum() for y in whole), [*xs.values(), *weights])
    draw = random.Random(0)
    rows, found = pts.RowStream(net), []
    place = dict.fromkeys(xs, 0)
    while any(place[i] < x.shape[1] for i, x in xs.items()):
        given = []
        for i, x in xs.items():
            n = min(draw.randint(1, 20), x.shape[1] - place[i])
            if n and draw.random() < 0.75:
                given.append((i, x[:, place[i] : place[i] + n], place[i] == 0, place[i] + n == x.shape[1]))
                place[i] += n
        found += [piece.output for piece in rows.step(given) if piece.output is not None]
    gradients = torch.autograd.grad(sum((y**2).sum() for y in found), [*xs.values(), *weights])
    for one, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


def test_detach_cuts_the_path_of_one_row_or_of_all():
    net = NETS["recurrent"]
    rows = pts.RowStream(net)
    a, b, c = (torch.randn(2, 11, dtype=torch.float64, requires_grad=True) for _ in range(3))
    rows.step([("a", a, True, False), ("b", b, True, False)])
    rows.detach_state("a")
    pieces = rows.step([("a", c, False, False), ("b", c, False, False)])
    (ga, gb) = torch.autograd.grad(sum(piece.output.sum() for piece in pieces), [a, b], allow_unused=True)
    assert (ga is None or not ga.any()) and gb.any()
    rows.detach_state()
    assert all(not tensor.requires_grad for row in rows._table.rows.values() for tensor in row.batch.tensors)
    for row in rows._table.rows.values():
        assert row.queue is None or not row.queue.requires_grad
    (piece, _) = rows.step([("a", c, False, True), ("b", None, False, True)])
    piece.output.sum().backward()


@pytest.mark.parametrize("large", [1 << 14, 0], ids=["packed", "large"])
def test_modes_may_change_from_step_to_step(large, monkeypatch):
    monkeypatch.setattr(row_table, "_LARGE", large)
    net = NETS["attention"]
    rows = pts.RowStream(net)
    xs = signals(4, 60, shortest=60)
    found = {i: [] for i in xs}
    modes = [torch.inference_mode, torch.no_grad, torch.enable_grad, torch.inference_mode, torch.enable_grad]
    for k in range(10):
        with modes[k % 5]():
            here = [i for i in xs if k % 3 or i % 2 or k == 0]
            given = [(i, xs[i][:, sum(n for n, _ in found[i]) :][:, :6], k == 0, False) for i in here]
            for piece in rows.step(given):
                found[piece.id].append((6, piece.output))
    with torch.no_grad():
        for i, x in xs.items():
            y = torch.cat([y.detach() for _, y in found[i] if y is not None], 1)
            torch.testing.assert_close(y, net(x[None])[0][:, : y.shape[1]], rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", list(NETS))
@torch.no_grad()
def test_the_size_of_a_row_is_known_before(name):
    net = NETS[name]
    example = torch.zeros(1, 2, 60, dtype=torch.float64)
    stream = pts.create_stream(net)
    hop = stream.hop
    stream(torch.randn(1, 2, 40 * hop, dtype=torch.float64))
    assert pts.estimate_state_size(net, example) == stream.state_nbytes()
    lengths = [0, 1, hop, 7, 23, 1001]
    found = pts.estimate_state_size(net, example, lengths)
    rows = pts.RowStream(net)
    rows.step([(i, torch.randn(2, n, dtype=torch.float64), True, False) for i, n in enumerate(lengths)])
    assert found == [rows.nbytes_of(i) for i in range(len(lengths))]


@pytest.mark.parametrize("longest", [3, 37])
@torch.no_grad()
def test_the_size_of_a_row_that_may_not_grow_for_ever(longest):
    attention = pts.SelfAttention1d(
        nn.MultiheadAttention(2, 1, batch_first=True), pts.Context(None, max_length=longest)
    )
    net = nn.Sequential(nn.Conv1d(2, 2, 3), attention, nn.Conv1d(2, 2, 5, dilation=8, padding=16)).double().eval()
    example, most = torch.zeros(1, 2, 5, dtype=torch.float64), longest + 2
    rows = pts.RowStream(net)
    for n in (1, most):
        rows.step([(0, torch.randn(2, n, dtype=torch.float64), True, False)])
        assert pts.estimate_state_size(net, example, [n]) == [rows.nbytes_of(0)]
    assert pts.estimate_state_size(net, example) == rows.nbytes_of(0)
    with pytest.raises(pts.StreamInputError, match="^signal_too_long"):
        pts.estimate_state_size(net, example, [most + 1])


def test_a_state_that_grows_for_ever_has_no_size(monkeypatch):
    class Growing(LastTwoStream):
        def forward(self, x, final=False):
            self.turn.value += 1
            return x

    class Net(nn.Module):
        def forward(self, x):
            return x

    monkeypatch.setattr(state_size, "_LONGEST", 1000)
    pts.register_streamer(Net)(Growing)
    with pytest.raises(pts.UnsupportedModuleError, match="^no_steady_state"):
        pts.estimate_state_size(Net(), torch.zeros(1, 2, 10, dtype=torch.float64))
