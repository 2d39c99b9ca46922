"""Folders of sound files: outputs as offline, whatever is broken, stopped or killed."""

import json
import os
import random
import signal
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

import torchstreamer as pts

RATE = 8000


def encoder():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(1, 4, 40, stride=16, padding=20), nn.ReLU(), nn.Conv1d(4, 3, 3, padding=1)).eval()


def write(path, samples, seed=0, channels=1, rate=RATE):
    noise = np.random.default_rng(seed).standard_normal((samples, channels)) * 0.1
    soundfile.write(path, noise, rate, subtype="FLOAT")
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    rng = random.Random(0)
    for i in range(14):
        write(folder / f"{i:02}.wav", round(RATE * 0.1 * 30 ** rng.random()), i)
    return folder


@pytest.fixture(scope="module")
def paths(folder):
    return sorted(map(str, folder.glob("*.wav")))


@pytest.fixture(scope="module")
def wanted(paths):
    net = encoder()
    with torch.no_grad():
        return {path: net(read(path)[None])[0] for path in paths}


def read(path):
    return torch.from_numpy(soundfile.read(path, dtype="float32", always_2d=True)[0].T.copy())


def check(outputs, wanted):
    assert set(outputs) == set(wanted)
    for path, y in wanted.items():
        torch.testing.assert_close(outputs[path], y, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("batch", "chunk"), [(1, 1000), (4, 256), (5, 4096), (32, 100_000)])
def test_outputs_are_those_of_the_whole_files(batch, chunk, paths, wanted):
    outputs = pts.OutputsInMemory()
    paths = paths[:: 1 if batch > 1 else 4]
    report = pts.stream_files(encoder(), paths, batch, chunk, sink=outputs)
    check(outputs, {path: wanted[path] for path in paths})
    assert sorted(report.done) == paths and not report.failed and 0 < report.rows <= batch
    assert report.audio_s == pytest.approx(sum(read(path).shape[1] for path in paths) / RATE)


def test_sinks_keep_what_came(paths, wanted, tmp_path):
    net = encoder()
    for sink, load in (
        (pts.ArrayFiles(tmp_path), lambda path: torch.from_numpy(np.load(path))),
        (pts.ArrayFiles(tmp_path, ".pt"), torch.load),
        (pts.WaveFiles(tmp_path / "deep", root=Path(paths[0]).parent), read),
    ):
        pts.stream_files(net, paths, 4, 1024, sink=sink)
        check({path: load(sink.target(path)) for path in paths}, wanted)
    assert soundfile.info(pts.WaveFiles(tmp_path / "deep").target(paths[0])).samplerate == RATE // 16
    assert not [path for path in tmp_path.rglob("*") if ".part" in path.name]
    for dtype in (torch.float64, torch.bfloat16):
        sink = pts.ArrayFiles(tmp_path)
        pts.stream_files(encoder().to(dtype), paths[:1], sink=sink)
        found = torch.from_numpy(np.load(sink.target(paths[0])))
        assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        torch.testing.assert_close(found.float(), wanted[paths[0]], rtol=0.05, atol=0.05)


@pytest.fixture
def broken(tmp_path, paths):
    """Files that fail, each in a way of its own, before all others."""
    (tmp_path / "text.wav").write_text("no sound")
    (tmp_path / "cut.wav").write_bytes(Path(paths[0]).read_bytes()[:-100])
    whole = bytearray(Path(paths[0]).read_bytes()[:-100])
    whole[4:8] = (len(whole) - 8).to_bytes(4, "little")  # the header of the file is right, that of its samples is not
    (tmp_path / "odd.wav").write_bytes(whole)
    bad = [tmp_path / "text.wav", tmp_path / "cut.wav", tmp_path / "absent.wav", tmp_path]
    bad += [write(tmp_path / "stereo.wav", 900, channels=2), write(tmp_path / "fast.wav", 900, rate=44100)]
    return [str(path) for path in bad]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_bad_file_stops_no_other(workers, broken, paths, wanted, tmp_path):
    outputs, told = pts.OutputsInMemory(), []
    empty = write(tmp_path / "empty.wav", 0)
    report = pts.stream_files(
        encoder(), [*broken, empty, *paths], 4, 1024, sink=outputs, progress=told.append, workers=workers
    )
    assert set(report.failed) == set(broken)
    assert "2 channels; 1 were expected" in report.failed[broken[4]] and "44100 Hz" in report.failed[broken[5]]
    assert outputs.pop(empty).shape == (0, 0)
    check(outputs, wanted)
    assert told[-1].files == told[-1].of_files == len(paths) + 1 and told[-1].failed == len(broken)
    assert told[-1].audio_s == pytest.approx(told[-1].of_audio_s) and told[-1].left_s < 1e-6
    assert "15/15 files, 6 failed" in str(told[-1]) and str(report).count("\n") == 6
    with pytest.raises(pts.StreamReadError, match=r"text\.wav"):
        pts.stream_files(encoder(), [*paths, broken[0]], sink=outputs, on_error="raise")


class Breaking(pts.OutputsInMemory):
    """Of some files the writer fails: when it is opened, written to, or closed."""

    def __init__(self, failing):
        super().__init__()
        self.failing = failing
        self.aborted = []

    def __call__(self, path):
        how = self.failing.get(path, "")
        if how == "open":
            raise OSError("no room")
        writer = super().__call__(path)

        def fail(*_):
            raise OSError("no room")

        if how:
            setattr(writer, how, fail)
        writer.abort = lambda: self.aborted.append(path)
        return writer


def test_failing_writers_and_networks_stop_no_other_file(paths, wanted):
    sink = Breaking(dict(zip(paths, ["open", "write", "close"], strict=False)))
    report = pts.stream_files(encoder(), paths, 4, 1024, sink=sink)
    assert sorted(report.failed) == paths[:3] and sorted(sink.aborted) == paths[1:3]
    check(sink, {path: y for path, y in wanted.items() if path not in paths[:3]})

    class Fussy(nn.Module):
        def forward(self, x):
            if (x == 0.5).any():
                raise ArithmeticError("a half")
            return x

    odd = write(Path(paths[0]).with_suffix(".tmp.wav"), 3000, 5)
    samples, _ = soundfile.read(odd)
    samples[2500] = 0.5
    soundfile.write(odd, samples, RATE, subtype="FLOAT")
    outputs = pts.OutputsInMemory()
    net = nn.Sequential(nn.Conv1d(1, 1, 1), Fussy())
    nn.init.ones_(net[0].weight), nn.init.zeros_(net[0].bias)
    try:
        report = pts.stream_files(net, [*paths, odd], 6, 500, sink=outputs)
        assert set(report.failed) == {odd} and "a half" in report.failed[odd]
        check(outputs, {path: read(path) for path in paths})
        with pytest.raises(ArithmeticError):
            pts.stream_files(net, [*paths, odd], 6, 500, sink=outputs, on_error="raise")
    finally:
        os.unlink(odd)


class Deadly:
    """A sink that kills the process at some call."""

    def __init__(self, sink, calls):
        self.sink = sink
        self.calls = calls

    def count(self):
        self.calls -= 1
        if self.calls < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def __call__(self, path):
        writer, outer = self.sink(path), self

        class Counting:
            def write(self, piece):
                outer.count()
                writer.write(piece)

            def close(self):
                outer.count()
                writer.close()
                outer.count()

        return Counting()


def killed(run):
    """Whether it did not come to its end in a process of its own."""
    child = os.fork()
    if child == 0:
        try:
            run()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the killed process is a fork")
def test_nothing_is_lost_or_done_twice_when_killed(paths, wanted, tmp_path):
    sink, done, rng = pts.ArrayFiles(tmp_path), tmp_path / "done.jsonl", random.Random(1)
    net, stamps, kills = encoder(), {}, 0

    def entries():
        lines = done.read_bytes().split(b"\n")[:-1] if done.exists() else []
        return [json.loads(line)["path"] for line in lines]

    def run():
        pts.stream_files(net, paths, 4, 2048, sink=Deadly(sink, rng.randrange(30 + 20 * kills)), resume=done)

    while killed(run):
        kills += 1
        rng.random()  # the process that was killed had another copy
        whole = [path for path in paths if sink.target(path).exists()]
        assert set(entries()) <= set(whole)
        for path in whole:
            torch.testing.assert_close(torch.from_numpy(np.load(sink.target(path))), wanted[path], rtol=0, atol=1e-5)
        for path in entries():  # what was done stays as it was
            stamp = sink.target(path).stat().st_mtime_ns
            assert stamps.setdefault(path, stamp) == stamp
        if kills % 3 == 0:
            with open(done, "ab") as file:
                file.write(b'{"path": "cut sho')
    assert kills > 2
    assert sorted(entries()) == paths
    report = pts.stream_files(net, paths, sink=sink, resume=done)
    assert sorted(report.before) == paths and report.done == []


def test_shards_share_the_files(paths, wanted, tmp_path):
    sink, done = pts.ArrayFiles(tmp_path), tmp_path / "done"
    reports = [pts.stream_files(encoder(), paths, sink=sink, resume=done, shard=(r, 3)) for r in (0, 2)]
    held = [path for report in reports for path in report.done]
    assert len(held) == len(set(held)) < len(paths)
    rest = pts.stream_files(encoder(), paths, sink=sink, resume=done)
    assert sorted(rest.before) == sorted(held) and sorted([*held, *rest.done]) == paths
    check({path: torch.from_numpy(np.load(sink.target(path))) for path in paths}, wanted)
    shares = [sum(read(path).shape[1] for path in part) for part in (reports[0].done, reports[1].done, rest.done)]
    assert max(shares) <= 4 / 3 * sum(shares) / 3


def test_the_list_of_what_is_done(paths, tmp_path):
    sink, done = pts.ArrayFiles(tmp_path), tmp_path / "done"
    own = [write(tmp_path / f"{i}.wav", 1000, i) for i in range(2)]
    pts.stream_files(encoder(), own, sink=sink, resume=done)
    write(own[0], 2000)
    assert pts.stream_files(encoder(), own, sink=sink, resume=done).done == [own[0]]  # it has another size
    held = pts.ragged.done_list.DoneList(done, (0, 1))
    with pytest.raises(pts.StreamStateError, match="^in_use: "):
        pts.stream_files(encoder(), own, sink=sink, resume=done)
    held.close()
    for text in ("something\n", "something precious", '{"path": 1}\n', '{"more": '):
        done.write_text(text)
        with pytest.raises(pts.StreamFileError, match="^invalid_done_list: line 1"):
            pts.stream_files(encoder(), own, sink=sink, resume=done)
        assert done.read_text() == text


def test_what_does_not_fit_is_refused(paths, tmp_path):
    net, sink = encoder(), pts.ArrayFiles(tmp_path)
    for code, options in [
        ("invalid_batch", {"batch": 0}),
        ("invalid_chunk_size", {"chunk": 0.5}),
        ("invalid_on_error", {"on_error": "stop"}),
        ("invalid_shard", {"shard": (2, 2)}),
        ("invalid_sink", {"sink": None}),
        ("invalid_sink", {"sink": pts.OutputsInMemory(), "resume": "done"}),
        ("same_output", {"paths": [*paths, tmp_path / Path(paths[0]).name]}),
        ("same_output", {"sink": pts.WaveFiles(suffix=".wav")}),
        ("invalid_files", {"paths": paths[0]}),
    ]:
        with pytest.raises(pts.StreamInputError, match=f"^{code}: "):
            pts.stream_files(net, options.pop("paths", paths), **{"sink": sink, **options})
    with pytest.raises(pts.StreamInputError, match="^invalid_suffix: "):
        pts.ArrayFiles(tmp_path, ".csv")
    report = pts.stream_files(nn.Conv1d(1, 1, 3, stride=3), paths[:1], sink=pts.WaveFiles(tmp_path))
    assert "invalid_rate_hz: 8000 Hz in, and 1 outputs for 3 inputs" in report.failed[paths[0]]
    assert pts.stream_files(net, [], sink=sink).done == []


def test_a_line_tells_the_progress(paths, capsys):
    pts.stream_files(encoder(), paths[:2], sink=pts.OutputsInMemory(), progress=True)
    assert "2/2 files, 0:00:0" in capsys.readouterr().err
