"""`RowStream`: what each row gives is what the network gives on its whole signal, whatever comes in the others."""

import math
import random
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import torchstreamer as pts
from torchstreamer.core import row_table

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from row_cases import NETS, LastTwo, LastTwoStream, assert_empty, compare, live, signals
from zoo import ZOO


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
