"""A search for the fastest step ends in time, keeps what it found, and tells every way that it tried."""

import logging
from pathlib import Path

import pytest
import torch
from torch import nn

import torchstreamer as pts
from torchstreamer.deploy import search
from torchstreamer.deploy.backends import BACKENDS

Eager = BACKENDS["eager"]
NET = nn.Sequential(nn.Conv1d(2, 3, 3), nn.Tanh(), nn.Conv1d(3, 2, 2)).eval()


class Making:
    """Backends that need seconds of a clock of their own to be made, and steps that need what they are told to."""

    def __init__(self, monkeypatch, takes=None, fails=(), steps=None):
        self.now = 0.0
        self.made = []
        self.takes, self.fails, self.steps = takes or {}, fails, steps or {}
        making = self

        def program(backend):
            class Slow(Eager):
                def __init__(self, graph, args, kernels):
                    making.made.append(backend)
                    making.now += making.takes.get(backend, 10.0)
                    if backend in making.fails:
                        raise RuntimeError("no compiler here")
                    self.backend = backend
                    super().__init__(graph, args, kernels)

            return Slow

        def seconds(steady, program):
            return self.steps.get("stream" if program is None else program.backend, 1e-4)

        monkeypatch.setattr(search, "_clock", lambda: self.now)
        monkeypatch.setattr(search, "seconds", seconds)
        for backend in ("aot", "inductor", "onnx"):
            monkeypatch.setitem(BACKENDS, backend, program(backend))
        monkeypatch.setattr("torchstreamer.deploy.compile.available", lambda device: ["aot", "inductor", "onnx"])
        monkeypatch.setitem(search.FORMS, "aot", ("rows", "channels"))


def check_exact(stream):
    x = torch.randn(1, 2, 61)
    pieces = [piece for piece in [*map(stream, x.split(8, -1)), stream.flush()] if piece is not None]
    torch.testing.assert_close(torch.cat(pieces, -1), NET(x), rtol=0, atol=1e-5)


def compiled(**options):
    with torch.no_grad():
        return pts.compile(pts.create_stream(NET), chunk=8, autotune=False, **options)


@torch.no_grad()
def test_without_a_limit_all_are_tried(monkeypatch):
    making = Making(monkeypatch, steps={"aot": 3e-5, "inductor": 2e-5, "onnx": 4e-5})
    stream = compiled()
    assert making.made == ["aot", "aot", "inductor", "inductor", "onnx"]
    assert [one.backend for one in stream.candidates] == ["inductor", "inductor", "aot", "aot", "onnx", "stream"]
    assert not any(one.reason for one in stream.candidates)
    check_exact(stream)


@torch.no_grad()
@pytest.mark.parametrize("limit, made", [(0.0, 0), (5.0, 1), (10.0, 1), (15.0, 2), (1000.0, 5)])
def test_what_is_not_begun_in_time_is_left_out(limit, made, monkeypatch):
    making = Making(monkeypatch, steps={"aot": 3e-5})
    stream = compiled(time_limit_s=limit)
    assert len(making.made) == made
    tried = [one for one in stream.candidates if not one.reason]
    left = [one for one in stream.candidates if one.reason]
    assert len(tried) == made + 1 and len(left) == 5 - made
    assert stream.candidates == tried + left  # the fastest first, what was left out last
    assert {one.reason for one in left} <= {f"left out, as the {limit:g} s of time_limit_s were over"}
    assert all(one.seconds == float("inf") for one in left)
    assert tried[0].backend == ("aot" if made else "stream")
    assert ("left out" in str(left[0])) if left else True
    check_exact(stream)


@torch.no_grad()
def test_something_works_whatever_the_limit(monkeypatch):
    making = Making(monkeypatch, fails=("aot",), takes={"aot": 60.0})
    with pytest.raises(RuntimeError, match="no_backend: .*no compiler here"):
        compiled(backend="aot", time_limit_s=1)
    assert making.made == ["aot", "aot"]  # none works, so the next was tried too
    making = Making(monkeypatch, takes={"onnx": 60.0})
    stream = compiled(backend="onnx", time_limit_s=0)
    assert making.made == ["onnx"] and stream.candidates[0].backend == "onnx"
    check_exact(stream)


@torch.no_grad()
def test_every_way_is_told_with_its_time(monkeypatch, caplog):
    Making(monkeypatch, steps={"aot": 3e-5, "onnx": 2e-5}, fails=("inductor",))
    calls = []
    with caplog.at_level(logging.INFO, "torchstreamer"):
        stream = compiled(progress=lambda *call: calls.append(call))
    names = [call[0] for call in calls]
    assert names[0] == "bringing the stream into its steady state"
    ways = ["stream, own", "aot, rows", "aot, channels", "inductor, rows", "inductor, channels", "onnx, channels"]
    assert [name.split(": ")[0] for name in names[1:-1]] == [way for way in ways for _ in range(2)]
    assert names[-1] == "done" and calls[-1][1] == calls[-1][2] == 7
    assert [call[1:] for call in calls[1:4]] == [(1, 7), (2, 7), (2, 7)]
    assert sorted(map(str, stream.candidates)) == sorted(names[2:-1:2])
    assert "aot, rows: 30.0 µs, error " in names[4] and names[8] == "inductor, rows: no compiler here"
    lines = [record.getMessage() for record in caplog.records]
    assert lines[2].startswith(
        "compile(Sequential1dStream, chunk=8): stream, own: 100.0 µs, error 0.0e+00 (2 of 7 done)"
    )
    assert len(lines) == len(calls)


@torch.no_grad()
def test_what_the_function_raises_comes_through(monkeypatch):
    class Stop(Exception):
        pass

    making = Making(monkeypatch)
    stream = pts.create_stream(NET)
    for stop in range(13):
        seen = []

        def progress(*call, stop=stop, seen=seen):
            seen.append(call)
            if len(seen) > stop:
                raise Stop

        with pytest.raises(Stop):
            pts.compile(stream, chunk=8, autotune=False, progress=progress)
        assert len(seen) == stop + 1
    assert making.made
    check_exact(stream)


def test_limits_that_do_not_fit():
    for limit in (-1, float("nan")):
        with pytest.raises(ValueError, match="invalid_time_limit: "):
            compiled(time_limit_s=limit)


@pytest.mark.parametrize("suffix, last", [(".pt", "scripting the stream"), (".onnx", "writing the step as ONNX")])
def test_an_export_tells_what_it_does(suffix, last, tmp_path: Path):
    if suffix == ".onnx":
        pytest.importorskip("onnxscript")
    calls = []
    path = tmp_path / ("net" + suffix)
    chunk = None if suffix == ".pt" else 8
    pts.export(pts.create_stream(NET), path, chunk, progress=lambda *call: calls.append((*call, path.exists())))
    assert calls[-2][0] == last and calls[-1][0] == "done" and calls[-1][1] == calls[-1][2] == len(calls) - 1
    assert [call[3] for call in calls] == [False] * (len(calls) - 1) + [True]  # written at the very end


def test_an_export_that_is_stopped_writes_nothing(tmp_path: Path):
    def stop(*call):
        raise KeyboardInterrupt

    for suffix in (".pt", ".pt2", ".onnx"):
        with pytest.raises(KeyboardInterrupt):
            chunk = None if suffix == ".pt" else 8
            pts.export(pts.create_stream(NET), tmp_path / ("net" + suffix), chunk, progress=stop)
    assert not list(tmp_path.iterdir())
