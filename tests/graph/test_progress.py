"""A making tells its stages, to a function and to the log, and leaves nothing behind when the function raises."""

import logging
import sys

import pytest
import torch
from torch import nn

import torchstreamer as pts
from torchstreamer.core import registry


class Net(nn.Module):
    def __init__(self, in_place=False):
        super().__init__()
        self.a = nn.Conv1d(2, 3, 3, padding=1)
        self.b = nn.Conv1d(3, 2, 1)
        self.in_place = in_place

    def forward(self, x):
        y = self.b(torch.tanh(self.a(x)))
        if not self.in_place:
            return x + y
        y = x + y
        y[:, :1].relu_()  # a part, seen through a view
        return y


X = torch.randn(1, 2, 40)
EXPORT, AGAIN = "exporting it with torch.export", "tracing it once more, without what it does in place"
LOWER, TRY = "finding a stream for every operation", "trying the stream against the model"


def told(net, **arguments):
    calls = []
    stream = pts.create_stream(net, progress=lambda *call: calls.append(call), **arguments)
    return stream, calls


def check_counts(calls):
    done = [call[1] for call in calls]
    assert done == sorted(done) and all(0 <= call[1] <= call[2] for call in calls)
    assert calls[-1][0] == "done" and calls[-1][1] == calls[-1][2]


def test_stages_of_a_capture():
    stream, calls = told(Net(), example=X)
    check_counts(calls)
    assert [call for call in calls if not call[0].startswith(TRY)] == [
        (EXPORT, 0, 3),
        (LOWER, 1, 3),
        ("done", 3, 3),
    ]
    trials = [call for call in calls if call[0].startswith(TRY)]
    assert trials[0] == (TRY, 2, 3) and trials[1] == (TRY + " on 40 samples", 2, 3) and len(trials) > 5
    assert isinstance(stream, pts.GraphStream)


def test_a_second_trace_is_told_where_there_is_one():
    assert AGAIN in [call[0] for call in told(Net(in_place=True), example=X)[1]]
    assert AGAIN not in [call[0] for call in told(Net(), example=X)[1]]


def test_another_attempt_has_stages_of_its_own():
    class Rows(nn.Module):
        def forward(self, x):
            return x.reshape(2, -1)[None]  # no row of its own

    _, calls = told(Rows(), example=X)
    check_counts(calls)
    assert [call[0] for call in calls].count(EXPORT) == 2


def test_without_an_example_too():
    stream, calls = told(Net())  # the first layer tells the channels
    check_counts(calls)
    assert calls[0] == (EXPORT, 0, 3) and isinstance(stream, pts.GraphStream)
    for net in (nn.Conv1d(2, 3, 3), nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU())):
        assert told(net)[1] == told(net, example=X)[1] == [
            ("making the streams of its modules", 0, 1),
            ("done", 1, 1),
        ]  # fmt: skip


class Stop(Exception):
    pass


class Kept(nn.Module):
    def forward(self, x):
        return 2 * x


@pytest.mark.slow
def test_what_the_function_raises_comes_through_and_nothing_is_left(monkeypatch):
    monkeypatch.setattr(registry, "_factories", dict(registry._factories))
    pts.register_streamer(Kept, lambda net: pts.Elementwise1dStream(net))
    net = nn.ModuleDict({"net": Net(in_place=True), "kept": Kept()})
    model = Both(net)
    whole, calls = told(model, example=X)
    before = {name: dict(module.__dict__) for name, module in model.named_modules()}
    levels = [logging.getLogger(name).level for name in ("torch.export", "torch.fx.experimental.symbolic_shapes")]
    for stop in range(len(calls)):
        seen = []

        def progress(*call, stop=stop, seen=seen):
            seen.append(call)
            if len(seen) > stop:
                raise Stop

        with pytest.raises(Stop):
            pts.create_stream(model, example=X, progress=progress)
        assert len(seen) == stop + 1
    assert {name: dict(module.__dict__) for name, module in model.named_modules()} == before
    assert levels == [
        logging.getLogger(name).level for name in ("torch.export", "torch.fx.experimental.symbolic_shapes")
    ]
    assert torch.is_grad_enabled()
    assert str(pts.create_stream(model, example=X)) == str(whole)


class Both(nn.Module):
    def __init__(self, parts):
        super().__init__()
        self.parts = parts

    def forward(self, x):
        return self.parts["kept"](self.parts["net"](x))


def test_what_the_function_prints_is_seen(capsys):
    pts.create_stream(Net(in_place=True), example=X, progress=lambda *call: print(*call, file=sys.stderr))
    printed = capsys.readouterr().err
    assert EXPORT in printed and AGAIN in printed and LOWER in printed


def test_a_line_of_the_log_for_every_stage(caplog, capsys):
    with caplog.at_level(logging.INFO, "torchstreamer"):
        pts.create_stream(Net(), example=X)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[:3] == [
        f"create_stream(Net): {EXPORT} (0 of 3 done)",
        f"create_stream(Net): {LOWER} (1 of 3 done)",
        f"create_stream(Net): {TRY} (2 of 3 done)",
    ]
    assert lines[3].startswith("create_stream(Net): done in ") and len(lines) == 4
    assert {record.name for record in caplog.records} == {"torchstreamer"}
    caplog.clear()
    with caplog.at_level(logging.INFO, "torchstreamer"):
        pts.create_stream(nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU()))  # takes no time
    assert not caplog.records
    assert capsys.readouterr() == ("", "")


def test_what_is_no_function_is_refused():
    with pytest.raises(TypeError, match=r"create_stream\(Net\) got progress=3; a function"):
        pts.create_stream(Net(), example=X, progress=3)
