"""What live rows refuse, and that nothing has changed then."""

import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

import torchstreamer as pts

sys.path.insert(0, str(Path(__file__).parent))
from row_cases import NETS, assert_equal, signals, states

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
