"""`RowStream`: what each row gives is what the network gives on its whole signal, whatever comes in the others."""

import copy
import math
import pickle
import random
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

import torchstreamer as pts
from torchstreamer.core import row_runner, row_table, state_size
from torchstreamer.core.row_state import RowState

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from zoo import ZOO


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


# --------------------------------------------------------------------------- exactness


@pytest.mark.parametrize("prompt", [False, True], ids=["queued", "prompt"])
@pytest.mark.parametrize("name", list(NETS))
@torch.no_grad()
def test_random_pieces_give_what_each_signal_gives_alone(name, prompt):
    net = NETS[name]
    for seed, (count, length, longest) in enumerate([(32, 200, 60), (12, 40, 5)]):
        rows = pts.RowStream(net, prompt=prompt)
        xs = signals(count, length, seed)
        compare(net, xs, live(rows, xs, longest, seed))
        assert_empty(rows)


@pytest.mark.parametrize("name", ["strided", "recurrent", "attention"])
@torch.no_grad()
def test_prompt_rows_give_what_a_stream_has_given_by_then(name):
    net = NETS[name]
    rows, stream = pts.RowStream(net, prompt=True), pts.create_stream(net)
    came, given = 0, 0
    for n in (1, 4, 0, 7, 13, 2):
        (piece,) = rows.step([("a", torch.randn(2, n, dtype=torch.float64), came == 0, False)])
        came += n
        given += 0 if piece.output is None else piece.output.shape[1]
        assert given == stream.output_length(came, False)


@pytest.mark.parametrize("name", ["strided", "recurrent", "attention"])
@torch.no_grad()
def test_large_states_are_not_packed(name, monkeypatch):
    monkeypatch.setattr(row_table, "_LARGE", 0)
    rows = pts.RowStream(NETS[name])
    xs = signals(12, 80)
    compare(NETS[name], xs, live(rows, xs, 25))
    assert_empty(rows)


@pytest.mark.parametrize("name", ["strided", "recurrent", "attention"])
@torch.no_grad()
def test_nan_in_a_row_stays_there(name):
    net = NETS[name]
    xs = signals(8, 80, 3, shortest=60)
    for i in (1, 4, 6):
        xs[i][:, 20:] = math.nan
    found = live(pts.RowStream(net), xs, 15)
    compare(net, {i: x for i, x in xs.items() if x.isfinite().all()}, found)


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


@torch.no_grad()
def test_a_handler_of_the_users_needs_no_code_for_it():
    rows = pts.RowStream(LastTwoStream(None))
    xs = signals(8, 40)
    compare(LastTwo(), xs, live(rows, xs, 6))
    assert_empty(rows)


@torch.no_grad()
def test_a_model_that_does_not_treat_rows_apart_gets_one_at_a_time():
    class First(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(2, 2, 3)

        def forward(self, x):
            return self.conv(x)[0].unsqueeze(0)

    net = First().double().eval()
    rows = pts.RowStream(net, example=torch.randn(1, 2, 20, dtype=torch.float64))
    xs = signals(5, 40)
    compare(net, xs, live(rows, xs, 6))


MODELS = [entry for entry in ZOO if not entry.refused and len(entry.inputs()) == 1]


@pytest.mark.sample("subpixel_upsampler", rest=6)
@pytest.mark.parametrize("entry", MODELS, ids=lambda entry: entry.name)
@torch.no_grad()
def test_published_models(entry):
    (example,) = entry.inputs()
    net, multiple, time = entry.make(), entry.length_multiple, entry.time_dim % example.dim() - 1
    options = {"example": example, "time_dim": entry.time_dim, "length_multiple": multiple}
    rows = pts.RowStream(net, **options)
    draw = random.Random(0)
    base = max(example.shape[time + 1], entry.shortest)
    xs, found = {}, {}
    for i in range(5):
        n = max((base // 2 + draw.randint(0, base)) // multiple, 1) * multiple
        xs[i], found[i] = entry.inputs(n, 1)[0][0], []
    place, begun, alive = dict.fromkeys(xs, 0), set(), set(xs)
    while alive:
        given = []
        for i in sorted(alive):
            if draw.random() < 0.75:
                n = min(draw.randint(0, base // 4 + 2), xs[i].shape[time] - place[i])
                piece = xs[i].narrow(time, place[i], n)
                place[i] += n
                given.append((i, piece, i not in begun, place[i] == xs[i].shape[time]))
                begun.add(i)
        for piece in rows.step(given):
            found[piece.id] += [] if piece.output is None else [piece.output]
            alive -= {piece.id} if piece.last else set()
    for i, x in xs.items():
        y = net(x[None])[0]
        joined = torch.cat(found[i], entry.output_time_dim % (y.dim() + 1) - 1)
        torch.testing.assert_close(joined, y, rtol=0, atol=1e-5 * float(y.abs().max()))
    assert_empty(rows)


# --------------------------------------------------------------------------- starts, ends, ids


@torch.no_grad()
def test_ids_begin_end_and_come_again():
    net = NETS["strided"]
    rows = pts.RowStream(net)
    x = torch.randn(2, 40, dtype=torch.float64)
    empty = x[:, :0]
    assert [piece.output for piece in rows.step([("a", empty, True, True), ("b", None, True, True)])] == [None, None]
    assert_empty(rows)
    rows.step([("a", empty, True, False), ("b", x, True, False)])
    assert rows.ids() == ("a", "b") and "a" in rows and rows.nbytes_of("a") == 0
    # Under the same id another signal begins: of the first one nothing is left.
    (whole,) = rows.step([("b", x, True, True)])
    torch.testing.assert_close(whole.output, net(x[None])[0], rtol=0, atol=1e-10)
    assert rows.ids() == ("a",)
    rows.step([("a", x[:, :12], False, False)])
    (rest,) = rows.step([("a", None, False, True)])
    assert rest.last and rest.start == 1
    assert_empty(rows)
    rows.step([("a", x, True, False)])
    rows.drop("a")
    assert_empty(rows)
    rows.step([(i, x, True, False) for i in range(3)])
    rows.reset()
    assert_empty(rows)


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


# --------------------------------------------------------------------------- how many batches run


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


# --------------------------------------------------------------------------- errors


def states(rows):
    return {i: rows.get(i) for i in rows.ids()}


def assert_equal(these, those):
    assert these.keys() == those.keys()
    for i, state in these.items():
        assert state.keys() == those[i].keys()
        assert all(torch.equal(value, those[i][name]) for name, value in state.items())


X = torch.zeros(2, 7, dtype=torch.float64)


@pytest.mark.parametrize(
    ("code", "entries"),
    [
        ("unknown_id", [("a", X, False, False), ("c", X, False, False)]),
        ("doubled_ids", [("a", X, False, False), ("a", X, False, False)]),
        ("invalid_row", [("a", X, False, False), ("b", X)]),
        ("invalid_row", [([], X, True, False)]),
        ("invalid_chunk", [("a", X, False, False), ("b", X[:1], False, False)]),
        ("invalid_chunk", [("a", X, False, False), ("b", X.float(), False, False)]),
        ("invalid_chunk", [("a", X, False, False), ("b", X[None], False, False)]),
        ("invalid_chunk", [("a", X, False, False), ("b", X[:, 0], False, False)]),
        ("invalid_chunk", [("a", X[:, :6], False, False), ("b", X[:, 0], False, False)]),
        ("invalid_chunk", [("a", X, False, False), ("b", X.to("meta"), False, False)]),
        ("invalid_chunk", [("a", X, False, True), ("b", [1.0], False, False)]),
        ("invalid_chunk", [("a", X, True, True), ("b", X.to_sparse(), False, False)]),
    ],
)
@torch.no_grad()
def test_a_step_that_is_refused_changes_no_row(code, entries):
    rows = pts.RowStream(NETS["strided"])
    rows.step([(i, torch.randn(2, 17, dtype=torch.float64), True, False) for i in ("a", "b")])
    before = states(rows)
    with pytest.raises(pts.StreamInputError, match=f"^{code}: ") as caught:
        rows.step(entries)
    assert caught.value.code == code
    assert_equal(states(rows), before)


class Fragile(nn.Module):
    failing = False

    def forward(self, x):
        if Fragile.failing and x.shape[0] == 3:
            raise RuntimeError("boom")
        return x * 2


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad])
def test_an_error_in_the_midst_of_a_step_changes_no_row(mode, monkeypatch):
    with mode():
        net = nn.Sequential(nn.Conv1d(2, 4, 5), Fragile(), nn.Conv1d(4, 2, 3)).double().eval()
        rows = pts.RowStream(net)
        xs = signals(5, 120, shortest=100)
        first = rows.step([(i, x[:, :30], True, False) for i, x in xs.items()])
        first = [a.output for a in first]
        # All at once, so that the stream goes on in its own memory; then some of them in another batch.
        second = rows.step([(i, x[:, 30:34], False, False) for i, x in xs.items()])
        before = states(rows)
        monkeypatch.setattr(Fragile, "failing", True)
        given = [(i, x[:, 34 : 38 + (4 if i < 3 else 2)], False, i == 4) for i, x in xs.items()]
        with pytest.raises(RuntimeError, match="boom"):
            rows.step(given)
        monkeypatch.setattr(Fragile, "failing", False)
        assert_equal(states(rows), before)
        with pytest.raises(pts.StreamInputError, match="^unknown_id"):
            rows.step([("new", None, False, False)])
        rest = rows.step([(i, x[:, 34:], False, True) for i, x in xs.items()])
        for i, x in xs.items():
            y = torch.cat([first[i], second[i].output, rest[i].output], 1)
            torch.testing.assert_close(y, net(x[None])[0], rtol=0, atol=1e-10)


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


@torch.no_grad()
def test_a_length_that_is_refused_names_the_signal_and_changes_none():
    class Frames(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(2, 2, 4, stride=4)

        def forward(self, x):
            return torch.repeat_interleave(self.conv(x), 4, -1) + x

    rows = pts.RowStream(Frames().double().eval(), example=X[None, :, :4], length_multiple=4)
    rows.step([("a", X, True, False), ("b", X[:, :4], True, False)])
    before = states(rows)
    with pytest.raises(pts.StreamInputError, match=r"^length_multiple: .*signal 'a'") as caught:
        rows.step([("b", X[:, :4], False, True), ("a", X[:, :2], False, True)])
    assert caught.value.code == "length_multiple"
    assert_equal(states(rows), before)


def test_wrong_states_are_refused():
    rows = pts.RowStream(NETS["strided"])
    with torch.no_grad():
        rows.step([(i, torch.randn(2, 17, dtype=torch.float64), True, False) for i in ("a", "b")])
        before = states(rows)
        stream = pts.create_stream(NETS["strided"])
        stream(torch.randn(2, 2, 12, dtype=torch.float64))
        several = stream.get_state()
        other = pts.create_stream(NETS["convolutions"])
        other(X)
    for state in (several, other.get_state(), {**before["a"], "odd": X}, {**before["a"], "@queue": X}, {}):
        with pytest.raises(pts.StreamInputError, match="^invalid_"):
            rows.set("a", state)
        assert_equal(states(rows), before)
    for call in (rows.get, rows.drop, rows.nbytes_of, rows.detach_state):
        with pytest.raises(pts.StreamInputError, match="^unknown_id"):
            call("c")


def test_networks_that_have_no_rows():
    class Two(nn.Module):
        def forward(self, a, b):
            return a + b

    x = torch.randn(1, 2, 20)
    with pytest.raises(pts.UnsupportedModuleError, match="^several_signals"):
        pts.RowStream(Two(), example=(x, x))
    compiled = pts.compile(pts.create_stream(nn.Conv1d(2, 2, 3).eval()), chunk=4, backend="eager")
    with pytest.raises(pts.UnsupportedModuleError, match="^compiled_stream"):
        pts.RowStream(compiled)
    with pytest.raises(ValueError, match="^invalid_options"):
        pts.RowStream(pts.create_stream(nn.ReLU()), example=x)


def test_one_call_at_a_time():
    class Calls(nn.Module):
        action = None

        def forward(self, x):
            if Calls.action is not None:
                Calls.action()
            return x

    rows = pts.RowStream(nn.Sequential(nn.Conv1d(2, 2, 3), Calls()).double())
    rows.step([("a", X, True, False)])
    Calls.action = lambda: rows.step([("b", X, True, False)])
    with pytest.raises(pts.StreamStateError, match="^in_use"):
        rows.step([("a", X, False, False)])
    caught = set()

    def elsewhere():
        try:
            rows.ids()
            rows.step([("b", X, True, False)])
        except pts.StreamStateError as error:
            caught.add(error.code)

    def from_a_thread():
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()

    Calls.action = from_a_thread
    (piece,) = rows.step([("a", X, False, True)])
    assert caught == {"in_use"} and piece.output.shape == (2, 7)


# --------------------------------------------------------------------------- gradients, modes


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


# --------------------------------------------------------------------------- sizes


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
