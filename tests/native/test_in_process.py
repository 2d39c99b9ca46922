"""Streams as C++ inside of the process: `pts.compile(…, backend="native")` and `.so` files."""

import copy
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import torchstreamer as pts
from torchstreamer.deploy import native_build, search
from torchstreamer.deploy.native_stream import NativeStream

sys.path.insert(0, str(Path(__file__).parent))

import conv_nets
import more_nets
from compiled import chunkings

NETS = {**conv_nets.nets(), **more_nets.nets()}
CHANNELS = {name: (conv_nets if name in conv_nets.nets() else more_nets).channels(net) for name, net in NETS.items()}
OPTIONS = more_nets.options()
PLAIN = ("-std=gnu++17", "-O0", "-DTORCHSTREAMER_PLAIN", "-fPIC", "-shared")

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own, and a compiler that is quick."""
    monkeypatch.setenv("TORCHSTREAMER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(native_build, "_FLAGS", PLAIN)
    return tmp_path / "cache" / "native"


def compiled(net, chunks=4, **options):
    stream = pts.create_stream(net)
    return pts.compile(stream, chunk=chunks * stream.hop, backend="native", **options)


def joined(pieces):
    pieces = [piece for piece in pieces if piece is not None]
    assert all(piece.shape[-1] > 0 for piece in pieces)
    return torch.cat(pieces, -1)


def noise(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def small(dtype=torch.float32):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(2, 4, 5, padding=2), nn.Tanh(), pts.Recurrent1d(nn.GRU(4, 3)))
    return net.to(dtype).eval()


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize(
    "name", ["same", "strided", "skipping_padded", "transposed_long", "gru_lag", "lstm", "reflect"]
)
def test_exact_for_any_chunking(name, dtype, tolerance):
    net = copy.deepcopy(NETS[name]).to(dtype)
    stream = compiled(net, batch=2, **OPTIONS.get(name, {}))
    generator = np.random.default_rng(0)
    for n in (1, 2, 7, 65, 150):
        x = noise(2, CHANNELS[name], n, dtype=dtype, seed=n)
        try:
            expected = net(x).detach()
        except RuntimeError:
            expected = x[..., :0]
        for cuts in chunkings(n, generator):
            came, given, pieces = 0, 0, []
            for piece in x.split(cuts, -1):
                pieces.append(stream(piece))
                came, given = came + piece.shape[-1], given + (0 if pieces[-1] is None else pieces[-1].shape[-1])
                assert given == stream.output_length(came, False)
            pieces.append(stream.flush())
            if expected.numel() == 0:
                assert all(piece is None for piece in pieces)
                continue
            y = joined(pieces)
            assert y.shape == expected.shape and y.shape[-1] == stream.output_length(n)
            scale = max(float(expected.abs().max()), 1.0)
            torch.testing.assert_close(y, expected, rtol=0, atol=tolerance * scale)


def test_with_vectors_and_without_an_axis_of_rows(monkeypatch):
    monkeypatch.undo()
    net = NETS["stack"]
    stream = compiled(net, chunks=16)
    assert stream.candidates[0].backend == "native" and stream.candidates[0].error < 1e-5
    assert "native" in repr(stream)
    x = noise(8, 100)
    for final in (False, True):
        pieces = [*map(stream, x[:, :90].split(16, -1)), stream(x[:, 90:], final=final)]
        y = joined(pieces if final else [*pieces, stream.flush()])
        torch.testing.assert_close(y, net(x[None])[0].detach(), rtol=1e-5, atol=1e-5)


def test_chunks_and_outputs_are_apart():
    net, x = small(), noise(1, 2, 40)
    stream = compiled(net)
    given = x.clone()
    y = stream(given[..., :20])
    kept = y.clone()
    given[..., :20] = 5.0
    pieces = [y, stream(given[..., 20:].transpose(1, 2).contiguous().transpose(1, 2)), stream.flush()]
    assert torch.equal(y, kept)
    torch.testing.assert_close(joined(pieces), net(x).detach(), rtol=1e-5, atol=1e-5)
    with pytest.raises(pts.StreamInputError, match="channels"):
        stream(noise(1, 3, 4))
    stream(x[..., :20])
    for wrong in (x.double(), x[:, :1], x[0], x.expand(2, 2, 40)):
        with pytest.raises(pts.StreamInputError, match="invalid_chunk"):
            stream(wrong)
    torch.testing.assert_close(
        joined([kept, stream(x[..., 20:]), stream.flush()]), net(x).detach(), rtol=1e-5, atol=1e-5
    )
    with pytest.raises(TypeError, match="not_movable"):
        stream.double()
    with pytest.raises(TypeError, match="not_scriptable"):
        torch.jit.script(stream)


def test_weights_are_frozen_and_nets_of_one_structure_share_a_library(cache):
    nets = [nn.Conv1d(2, 3, 5) for _ in range(2)]
    x = noise(1, 2, 30)
    expected = [net(x).detach() for net in nets]
    streams = [compiled(net) for net in nets]
    assert len(list(cache.glob("*.so"))) == 1
    with torch.no_grad():
        nets[0].weight.zero_()
    for stream, y in zip(streams, expected, strict=True):
        torch.testing.assert_close(joined([stream(x[..., :11]), stream(x[..., 11:]), stream.flush()]), y)


def test_state_is_data():
    net, x = small(), noise(1, 2, 60)
    stream = compiled(net)
    stream(x[..., :23])
    state = stream.get_state()
    held = {name: value.clone() for name, value in state.items()}
    assert stream.state_nbytes() < 3000
    rest = joined([stream(x[..., 23:]), stream.flush()])
    assert all(torch.equal(state[name], held[name]) for name in held)
    twin, other = copy.deepcopy(stream), compiled(net, chunks=1)
    twin(x[..., :5])
    for each in (twin, other, stream):
        each.set_state(state)
        assert torch.equal(joined([each(x[..., 23:40]), each(x[..., 40:]), each.flush()]), rest)
    stream(x[..., :23])
    fork = copy.deepcopy(stream)
    stream(x[..., :7])
    assert torch.equal(joined([fork(x[..., 23:]), fork.flush()]), rest)


def test_states_stack_where_their_phases_agree():
    net = NETS["strided"]
    x = noise(2, CHANNELS["strided"], 200)
    one, both = compiled(net), compiled(net, batch=2)
    states = []
    for row, n in ((0, 120), (1, 60)):
        one.reset()
        one(x[row : row + 1, :, :n])
        states.append(one.get_state())
    both.set_state(pts.stack_states(states))
    rest = torch.stack([x[0, :, 120:180], x[1, :, 60:120]])
    y = joined([both(rest), both.flush()])
    for row, (begin, end) in enumerate([(120, 180), (60, 120)]):
        expected = net(x[row : row + 1, :, :end]).detach()[0, :, one.output_length(begin, False) :]
        torch.testing.assert_close(y[row], expected, rtol=1e-5, atol=1e-5)
    one.reset()
    one(x[:1, :, :121])
    with pytest.raises(pts.StreamInputError, match="unequal_phase"):
        pts.stack_states([states[0], one.get_state()])


def test_a_state_that_does_not_fit_is_refused():
    net, x = small(), noise(1, 2, 60)
    stream = compiled(net)
    stream(x[..., :23])
    good = stream.get_state()
    (name,) = (key for key in good if key.endswith(".rows"))
    for at, value in ((7, 255), (6, 255), (8, 1 ^ int(good[name][0, 8]))):
        bad = {key: each.clone() for key, each in good.items()}
        bad[name][0, at] = value
        with pytest.raises(pts.StreamInputError, match="invalid_state"):
            stream.set_state(bad)
    for bad in ({**good, name: good[name][:, :-1]}, {**good, name: good[name].float()}):
        with pytest.raises(pts.StreamInputError):
            stream.set_state(bad)
    with pytest.raises(pts.StreamInputError):
        compiled(nn.Conv1d(2, 4, 5)).set_state(good)
    # Numbers are numbers, whatever they are: nothing is read or written elsewhere.
    bad = {key: each.clone() for key, each in good.items()}
    bad[name][0, 16:] = torch.randint(0, 256, bad[name][0, 16:].shape, dtype=torch.uint8)
    stream.set_state(bad)
    stream(x, final=True)
    torch.testing.assert_close(stream(x, final=True), net(x).detach(), rtol=1e-5, atol=1e-5)


def test_threads_run_side_by_side():
    net, x = small(), noise(1, 2, 300)
    first = compiled(net)
    expected, wrong = joined([first(x), first.flush()]), []

    def run(stream):
        for _ in range(20):
            y = joined([*map(stream, x.split(7, -1)), stream.flush()])
            if not torch.allclose(y, expected, atol=1e-5):
                wrong.append(y)

    threads = [threading.Thread(target=run, args=(copy.deepcopy(first),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


class Attends(nn.Module):
    def forward(self, x):
        return torch.fft.rfft(x, dim=1).abs()


def test_what_cannot_be_written_is_refused_by_name_and_no_candidate_among_others(monkeypatch):
    monkeypatch.setattr("torchstreamer.deploy.compile.available", lambda device: ["native"])
    net = nn.Sequential(nn.Conv1d(2, 4, 3), Attends())
    stream, x = pts.create_stream(net, torch.randn(1, 2, 30)), noise(1, 2, 40)
    with pytest.raises(pts.UnsupportedModuleError, match="^not_native: .*fft"):
        pts.compile(stream, chunk=4, backend="native")
    found = pts.compile(stream, chunk=4)
    assert [one.backend for one in found.candidates] == ["stream"]
    torch.testing.assert_close(joined([found(x), found.flush()]), net(x).detach(), rtol=1e-5, atol=1e-5)


def test_one_of_the_candidates_where_nobody_sees_which_it_is(monkeypatch):
    monkeypatch.setattr("torchstreamer.deploy.compile.available", lambda device: ["native"])
    one = pts.compile(pts.create_stream(NETS["same"]), chunk=4)
    assert {each.backend for each in one.candidates} == {"native", "stream"}
    assert isinstance(one.stream, NativeStream) == (one.candidates[0].backend == "native")
    # A first output that needs one sample of a hop of five comes at the end of the hop in C++.
    net = pts.create_stream(nn.Conv1d(2, 3, 2, stride=5))
    late = pts.compile(net, chunk=5)
    assert [each.backend for each in late.candidates] == ["stream"]
    asked = pts.compile(net, chunk=5, backend="native")
    assert asked.output_length(2, False) == 0 < net.output_length(2, False)


@pytest.mark.parametrize("native, tried", [(3e-5, 1), (5e-5, 2)])
def test_the_search_ends_where_nothing_can_overtake_it(native, tried, monkeypatch):
    monkeypatch.setattr("torchstreamer.deploy.compile.available", lambda device: ["native", "eager"])
    monkeypatch.setattr(search, "seconds", lambda steady, program: 1e-3 if program is None else 1e-4)
    monkeypatch.setattr(search, "seconds_of_stream", lambda steady, stream: native)
    found = pts.compile(pts.create_stream(NETS["same"]), chunk=4)
    assert [one.backend for one in found.candidates] == ["native", *["eager"] * tried, "stream"]


# ---------------------------------------------------------------------- builds


def test_a_build_serves_all_processes_and_a_damaged_one_is_made_anew(cache, monkeypatch):
    net, x = nn.Conv1d(2, 3, 5), noise(1, 2, 30)
    built, run = [], subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda asked, **more: (built.append("-o" in asked), run(asked, **more))[1])
    for _ in range(2):
        compiled(net)
    assert sum(built) == 1
    (library,) = cache.iterdir()
    # In its place, as whoever has loaded it goes on with what he has.
    library.unlink()
    library.write_bytes(b"no library")
    torch.testing.assert_close(joined([(stream := compiled(net))(x), stream.flush()]), net(x).detach())
    assert sum(built) == 2 and [library] == list(cache.iterdir())
    assert cache.stat().st_mode & 0o077 == 0
    # Where others may write nothing is taken from.
    cache.chmod(0o777)
    compiled(net)
    assert sum(built) == 3 and [library] == list(cache.iterdir())


PROGRAM = """
import sys, torch, torchstreamer as pts
torch.manual_seed(0)
net = torch.nn.Conv1d(2, 3, 5)
stream = pts.compile(pts.create_stream(net), chunk=4, backend="native")
x = torch.randn(1, 2, 30)
torch.testing.assert_close(stream(x, final=True), net(x).detach())
"""


def test_processes_may_build_the_same_at_once(cache):
    where = {**os.environ, "PYTHONPATH": str(Path(pts.__file__).parents[1])}
    started = [subprocess.Popen([sys.executable, "-c", PROGRAM], env=where) for _ in range(2)]
    assert [each.wait() for each in started] == [0, 0]
    assert [each.suffix for each in cache.iterdir()] == [".so"]


def test_the_compiler_that_was_named(tmp_path, monkeypatch):
    wrapper = tmp_path / "compiler"
    wrapper.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\nexec g++ "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("CXX", f"{wrapper} -DNAMED")
    compiled(nn.Conv1d(1, 1, 2))
    assert "-DNAMED" in (tmp_path / "asked").read_text()
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(RuntimeError, match="no_backend: .*no_compiler: CXX='no-such-compiler'"):
        compiled(nn.Conv1d(1, 1, 2))
    assert "native" not in pts.deploy.backends.available(torch.device("cpu"))
    with pytest.raises(RuntimeError, match="^no_compiler: "):
        pts.export(pts.create_stream(nn.Conv1d(1, 1, 2)), tmp_path / "net.so")
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(RuntimeError, match="compiler_failed: false "):
        compiled(nn.Conv1d(1, 1, 2))
    assert not (tmp_path / "net.so").exists()


# ---------------------------------------------------------------------- files


def test_a_library_is_a_stream(tmp_path):
    net, x = small(torch.float64), noise(2, 2, 60, dtype=torch.float64)
    told = {"rate_hz": 16000, "names": ["a"]}
    path = pts.export(pts.create_stream(net), tmp_path / "net.so", metadata=told, sampling_fs=16000, name="Denoiser")
    stream = pts.load(path)
    assert stream.metadata == told and stream.sampling_fs == 16000 and stream.told["parameters"] > 0
    assert stream.output_length(60) == 60 and stream.hop == 1
    y = joined([*map(stream, x.split([1, 0, 30, 29], -1)), stream.flush()])
    torch.testing.assert_close(y, net(x).detach(), rtol=1e-10, atol=1e-10)
    stream(x[..., :20])
    fresh = pts.load(path)
    fresh.set_state(stream.get_state())
    assert torch.equal(fresh(x[..., 20:], final=True), stream(x[..., 20:], final=True))
    # For other languages.
    symbols = subprocess.run(["nm", "-D", path], capture_output=True, text=True).stdout
    assert "denoiser_process" in symbols


def test_a_library_that_does_not_fit_is_refused(tmp_path, monkeypatch):
    path = pts.export(pts.create_stream(nn.Conv1d(1, 1, 3)), tmp_path / "net.so")
    whole = path.read_bytes()
    for at in (100, len(whole) // 2, -100, -1):
        bad = bytearray(whole)
        bad[at] ^= 1
        path.write_bytes(bad)
        with pytest.raises(pts.StreamFileError, match="invalid_file"):
            pts.load(path)
    path.write_bytes(whole[:-1])
    with pytest.raises(pts.StreamFileError, match="invalid_file"):
        pts.load(path)
    path.unlink()
    path.write_bytes(whole)
    monkeypatch.setattr("torchstreamer.deploy.native_library.missing_features", lambda wanted: ["avx9"])
    with pytest.raises(pts.StreamFileError, match="this machine lacks instructions .*avx9"):
        pts.load(path)
    with pytest.raises(ValueError, match="unused_argument: chunk"):
        pts.export(pts.create_stream(nn.Conv1d(1, 1, 3)), path, chunk=4)
