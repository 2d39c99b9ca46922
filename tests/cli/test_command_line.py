"""The command line, as a process: what it writes, what it says, and every exit code."""

import dataclasses
import errno
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import NamedTuple

import pytest
import soundfile
import torch

import torchstreamer as pts
import torchstreamer.models.demo as demo
from torchstreamer.cli import benching, exporting, inspecting, run, verifying
from torchstreamer.cli.failing import guarded
from torchstreamer.cli.quantities import clock, duration, samples_in
from torchstreamer.cli.timing import Times

# Imported here, so that no process has to.
COMMANDS = (benching, exporting, inspecting, run, verifying)
ROOT = Path(pts.__file__).parent.parent

NETS = '''
"""Models for the command line."""
import torch
import torchstreamer as pts
from torch import nn

class Net(nn.Sequential):
    sampling_fs = 16000
    def __init__(self):
        torch.manual_seed(0)
        super().__init__(nn.Conv1d(1, 4, 9, padding=4), nn.Tanh(), nn.Conv1d(4, 1, 9, padding=4))

class Blind(Net):
    sampling_fs = None

class Off(nn.Module):
    """One whose stream is not exact."""
    def forward(self, x):
        return x

pts.register_streamer(Off, lambda net: pts.Elementwise1dStream(nn.Tanh()))

class Failing(nn.Module):
    sampling_fs = 16000
    def forward(self, x):
        if x.shape[-1] > 1000:
            raise ArithmeticError("too much for me")
        return x

def refused():
    return nn.Sequential(nn.Conv1d(1, 2, 3), nn.InstanceNorm1d(2))

def stereo():
    return nn.Conv1d(2, 2, 3, padding=1)

def twice():
    return nn.ConvTranspose1d(1, 1, 2, stride=2)

def number():
    return 3
'''


class Ran(NamedTuple):
    """What a process left."""

    code: int
    out: str
    err: str


def started(arguments, stdin, out, err):
    """A process that runs the command line, without the start of Python and the import of torch."""
    child = os.fork()
    if child:
        return child
    try:
        for target, file in ((0, stdin), (1, out), (2, err)):
            os.dup2(file, target)
        sys.stdin, sys.stdout, sys.stderr = (open(i, "rw"[i > 0], closefd=False) for i in range(3))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = guarded([str(argument) for argument in arguments])
        for file in (sys.stdout, sys.stderr):
            file.flush()
        os._exit(code)
    except BaseException:
        traceback.print_exc()
        os._exit(99)


def ran(*arguments, stdin=b""):
    names = [Path(f".{name}") for name in ("in", "out", "err")]
    names[0].write_bytes(stdin)
    files = [os.open(name, os.O_RDWR | os.O_CREAT | (os.O_TRUNC if i else 0)) for i, name in enumerate(names)]
    child = started(arguments, *files)
    _, status = os.waitpid(child, 0)
    for file in files:
        os.close(file)
    return Ran(os.waitstatus_to_exitcode(status), names[1].read_bytes().decode("latin1"), names[2].read_text())


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(NETS)
    return tmp_path


@pytest.fixture(scope="module")
def nets(tmp_path_factory):
    path = tmp_path_factory.mktemp("nets") / "nets_of_the_command_line.py"
    path.write_text(NETS)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def exported(nets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    stream = pts.create_stream(nets.Net().eval())
    pts.export(stream, folder / "net.pt", sampling_fs=16000)
    pts.export(stream, folder / "blind.pt")
    torch.save(torch.nn.Conv1d(1, 1, 3), folder / "pickle.pt")
    return folder


def sound(name, rate=16000, channels=1, samples=8000, subtype="FLOAT", seed=0):
    x = 0.1 * torch.randn(channels, samples, generator=torch.Generator().manual_seed(seed))
    soundfile.write(name, x.mT.numpy(), rate, subtype=subtype)
    return x


def read(name):
    return torch.from_numpy(soundfile.read(name, dtype="float32", always_2d=True)[0]).mT


# --------------------------------------------------------------------------- run


def test_sound_through_a_file(exported, nets):
    x = sound("in.wav", channels=2)
    found = ran("run", exported / "net.pt", "in.wav", "out.wav", "--chunk", "10ms")
    assert found.code == 0 and not found.err
    first, last = found.out.encode("latin1").decode().splitlines()
    assert first == "in.wav  16000 Hz, 2 channels, 0:00   channels one by one"
    assert last.startswith("0:00  ") and "× real time  p99 " in last and "per 10 ms chunk      wrote out.wav" in last
    with torch.no_grad():
        torch.testing.assert_close(read("out.wav"), nets.Net()(x[:, None])[:, 0])
    assert sorted(path.name for path in Path().glob("*.wav*")) == ["in.wav", "out.wav"]
    sound("whole.wav", subtype="PCM_16")
    assert ran("run", "nets:Net", "whole.wav", "out.wav").code == 0
    assert soundfile.info("out.wav").subtype == "PCM_16"
    assert ran("run", "nets:Net", "whole.wav", "out.flac", "--subtype", "PCM_24", "--threads", 1).code == 0
    assert soundfile.info("out.flac").subtype == "PCM_24"


@pytest.mark.parametrize("rate", [44100, 8000])
def test_sound_of_another_rate_is_resampled_and_back(nets, rate):
    from torchstreamer.audio import Resample

    for samples in (5001, 1):
        x = sound("in.wav", rate, channels=2, samples=samples)
        found = ran("run", "nets:Net", "in.wav", "out.wav", "--chunk", "7ms")
        assert found.code == 0 and "resampled to 16000 and back, channels one by one" in found.out
        with torch.no_grad():
            y = Resample(16000, rate)(nets.Net()(Resample(rate, 16000)(x[:, None])))[:, 0, :samples]
        torch.testing.assert_close(read("out.wav"), y, rtol=0, atol=2e-6)
        assert soundfile.info("out.wav").samplerate == rate


def test_a_model_of_another_rate_out():
    sound("in.wav")
    found = ran("run", "nets:twice", "in.wav", "out.wav", "--rate", 16000)
    assert found.code == 0 and "wrote out.wav, 32000 Hz" in found.out
    assert (soundfile.info("out.wav").samplerate, soundfile.info("out.wav").frames) == (32000, 16000)


def test_raw_samples(nets):
    x = sound("in.wav", channels=2, samples=5000)
    data = x.mT.contiguous().numpy().tobytes()
    found = ran("run", "nets:Net", "-", "-", "--raw", "f32le:16000:2", stdin=data)
    assert found.code == 0 and found.err.startswith("stdin  16000 Hz, 2 channels   channels one by one\n")
    y = torch.frombuffer(bytearray(found.out.encode("latin1")), dtype=torch.float32).view(-1, 2).mT
    with torch.no_grad():
        torch.testing.assert_close(y, nets.Net()(x[:, None])[:, 0])
    found = ran("run", "nets:Net", "-", "out.wav", "--raw", "s16le:16000", stdin=bytes(2001))
    assert found.code == 3 and found.err.startswith("error: cut_short: 1 bytes at the end")
    assert not Path("out.wav").exists() and not Path("out.wav.part").exists()
    found = ran("run", "nets:Net", "-", "out.wav", "--raw", "s16le:16000", "--partial", stdin=bytes(2001))
    assert found.code == 0 and found.err.startswith("warning: stdin: 1 bytes at the end")
    assert soundfile.info("out.wav").frames == 1000


def test_ctrl_c_leaves_a_valid_file(nets):
    x = 0.1 * torch.randn(1, 4000, generator=torch.Generator().manual_seed(1))
    (stdin, feed), err = os.pipe(), os.open("err", os.O_RDWR | os.O_CREAT)
    null = os.open(os.devnull, os.O_RDWR)
    arguments = ("run", "nets:Net", "-", "out.wav", "--raw", "f32le:16000", "--chunk", "1000")
    child = started(arguments, stdin, null, err)
    os.write(feed, x.numpy().tobytes())  # and nothing more: it waits for ever
    end = time.monotonic() + 60
    while not (Path("out.wav.part").exists() and Path("out.wav.part").stat().st_size > 8000):
        assert time.monotonic() < end
        time.sleep(0.01)
    time.sleep(0.2)
    os.kill(child, signal.SIGINT)
    _, status = os.waitpid(child, 0)
    for file in (stdin, feed, err, null):
        os.close(file)
    assert os.waitstatus_to_exitcode(status) == 130, Path("err").read_text()
    assert Path("err").read_text() == "stopped at 0:00 (4000 samples); out.wav is whole up to there\n"
    with torch.no_grad():
        torch.testing.assert_close(read("out.wav"), nets.Net()(x))
    assert not Path("out.wav.part").exists()


# --------------------------------------------------------------------------- what goes wrong


def wrong_files():
    sound("in.wav", subtype="PCM_16")
    sound("three.wav", channels=3)
    Path("cut.wav").write_bytes(Path("in.wav").read_bytes()[:9000])
    Path("text.wav").write_text("no sound")
    Path("full.wav").symlink_to("/dev/full")


def tells(found, code, text):
    """Whether one line says what happened, and nothing of an output is left."""
    lines = found.err.splitlines()
    return (
        found.code == code
        and len(lines) == 1
        and re.search(f"^error: .*{text}", lines[0])
        and not Path("o.wav").exists()
        and not Path("o.wav.part").exists()
    )


def test_exit_codes_of_processes(exported):
    wrong_files()
    for code, text, arguments in (
        (1, "exact: .*smallest failing chunking", ["verify", "nets:Off", "--example", "1,1,100"]),
        (2, "wrong_rate: --rate 8000 came, and .* says 16000", ["run", "nets:Net", "in.wav", "o.wav", "--rate", 8000]),
        (3, "cut_short: cut.wav: it has 9000 bytes of 16044.* --partial", ["run", "nets:Net", "cut.wav", "o.wav"]),
        (3, "invalid_sound: text.wav cannot be read", ["run", "nets:Net", "text.wav", "o.wav"]),
        (4, "No space left on device; make room", ["run", "nets:Net", "in.wav", "full.wav"]),
        (5, "invalid_file: .*pickle.pt", ["run", exported / "pickle.pt", "in.wav", "o.wav"]),
    ):
        found = ran(*arguments)
        assert tells(found, code, text), (arguments, found)
    assert os.stat("/dev/full").st_rdev  # it is a device still


def test_what_is_wrong_is_told_in_one_line(exported, capfd, monkeypatch):
    wrong_files()
    monkeypatch.setattr(sys, "path", list(sys.path))
    for code, text, arguments in (
        (2, "Missing argument 'MODEL'; see torchstreamer run --help", ["run"]),
        (2, "No such command 'walk'; see torchstreamer --help", ["walk"]),
        (2, "unknown_rate: .*give --rate", ["run", exported / "blind.pt", "in.wav", "o.wav"]),
        (2, "'soon' came as a length", ["run", "nets:Net", "in.wav", "o.wav", "--chunk", "soon"]),
        (2, "missing_raw: no --raw came", ["run", "nets:Net", "-", "o.wav"]),
        (2, "invalid_raw: 'mp3' came", ["run", "nets:Net", "-", "o.wav", "--raw", "mp3"]),
        (2, "same_file: in.wav", ["run", "nets:Net", "in.wav", "in.wav"]),
        (2, "invalid_format: 'o.xyz'", ["run", "nets:Net", "in.wav", "o.xyz"]),
        (2, "wrong_channels: the input has 3; 2 were", ["run", "nets:stereo", "three.wav", "o.wav", "--rate", 16000]),
        (2, "missing_chunk: ", ["export", "nets:Net", "o.onnx"]),
        (2, "package.module:factory was expected", ["verify", exported / "net.pt", "--example", "1,1,9"]),
        (3, "gone.wav: No such file or directory; look at the path", ["run", "nets:Net", "gone.wav", "o.wav"]),
        (4, "gone/o.wav.part: No such file or directory", ["run", "nets:Net", "in.wav", "gone/o.wav"]),
        (4, "missing_folder: ", ["export", "nets:Net", "gone/o.pt"]),
        (5, "gone.pt: No such file or directory", ["run", "gone.pt", "in.wav", "o.wav"]),
        (5, "unknown_model: in.wav came", ["inspect", "in.wav"]),
        (5, "invalid_factory: nets:number gives a int", ["inspect", "nets:number"]),
        (5, "ModuleNotFoundError: No module named 'nobody'", ["inspect", "nobody:Net"]),
        (5, "AttributeError: module 'nets' has no", ["inspect", "nets:Nobody"]),
        (5, "time_mixing: InstanceNorm1d at '1'", ["run", "nets:refused", "in.wav", "o.wav", "--rate", 16000]),
        (5, "ArithmeticError: too much for me", ["run", "nets:Failing", "in.wav", "o.wav", "--chunk", "100ms"]),
    ):
        found = Ran(guarded([str(argument) for argument in arguments]), *capfd.readouterr())
        assert tells(found, code, text), (arguments, found)
    assert guarded(["run", "nets:Net", "gone.wav", "o.wav", "--debug"]) == 3
    err = capfd.readouterr().err
    assert "Traceback" in err and "FileNotFoundError" in err
    assert guarded(["run", "nets:Net", "cut.wav", "o.wav", "--partial"]) == 0
    assert "warning: cut.wav: it has 9000 bytes of 16044" in capfd.readouterr().err
    assert soundfile.info("o.wav").frames == 4478


def test_nobody_reads_the_pipe():
    sound("in.wav", samples=200_000)
    out, write = os.pipe()
    os.close(out)
    null, err = os.open(os.devnull, os.O_RDWR), os.open("err", os.O_RDWR | os.O_CREAT)
    child = started(["run", "nets:Net", "in.wav", "-"], null, write, err)
    _, status = os.waitpid(child, 0)
    for file in (write, null, err):
        os.close(file)
    assert os.waitstatus_to_exitcode(status) == 4
    assert f"error: {os.strerror(errno.EPIPE)}; look at the program that reads\n" in Path("err").read_text()


# --------------------------------------------------------------------------- the other commands


def test_what_is_told_of_a_model(exported):
    found = ran("inspect", exported / "net.pt", "--json")
    told = json.loads(found.out)
    assert found.code == 0 and told.pop("model").endswith("net.pt")
    assert told == {
        "kind": "TorchScript",
        "dtype": "float32",
        "parameters": 77,
        "rate_hz": 16000,
        "channels": 1,
        "out_channels": 1,
        "rows": None,
        "ratio": [1, 1],
        "hop": 1,
        "first_output": 9,
        "lookahead": 8,
        "past": 8,
        "static": None,
        "state_nbytes": told["state_nbytes"],
        "streams": {"Conv1dStream": 2, "Pad1dStream": 2, "PointwiseStream": 1},
        "metadata": {},
    }
    assert 4 * 5 * 8 <= told["state_nbytes"] < 1000
    text = ran("inspect", "nets:Net", "--layers").out
    for part in (
        "nets:Net        module, float32, 77 parameters, 16000 Hz",
        "8 samples (500 ",
        "; .onnx yes",
        "MAC/s",
    ):
        assert part in text, text
    assert "rate not known" in ran("inspect", "nets:Blind").out


def test_what_is_measured(capfd, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert guarded(["bench", "nets:Net", "--chunk", "10ms,320", "--seconds", "0.2", "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert [(row["chunk"], row["samples"]) for row in told["chunks"]] == [("10ms", 160), ("320", 320)]
    assert all(0 < row["p50_s"] <= row["p99_s"] and row["real_time"] > 0 for row in told["chunks"])
    assert guarded(["bench", "nets:Net", "--chunk", "10ms", "--seconds", "0.2"]) == 0
    text = capfd.readouterr().out
    assert text.startswith("nets:Net  16000 Hz, 0.2 s of noise, 1 thread\n") and "offline" in text


@pytest.mark.slow
def test_what_is_exported_runs(nets):
    x = sound("in.wav")
    assert ran("export", "nets:Blind", "net.pt", "--rate", 16000).out.endswith("16000 Hz\n")
    assert ran("run", "net.pt", "in.wav", "out.wav").code == 0
    with torch.no_grad():
        torch.testing.assert_close(read("out.wav"), nets.Net()(x))
    assert pts.load("net.pt").sampling_fs == 16000


@pytest.mark.slow
def test_programs_of_one_row_take_the_channels_one_by_one(nets):
    pytest.importorskip("onnxruntime")
    x = sound("in.wav", channels=2)
    assert ran("export", "nets:Net", "net.onnx", "--chunk", "10ms").code == 0
    told = json.loads(ran("inspect", "net.onnx", "--json").out)
    assert (told["kind"], told["hop"], told["rows"], told["rate_hz"]) == ("ONNX", 160, 1, 16000)
    assert (told["past"], told["parameters"], told["streams"]["Conv1dStream"]) == (8, 77, 2)
    assert ran("run", "net.onnx", "in.wav", "out.wav").code == 0
    with torch.no_grad():
        torch.testing.assert_close(read("out.wav"), nets.Net()(x[:, None])[:, 0])


@pytest.mark.slow
def test_every_rule_is_checked():
    found = ran("verify", "nets:Net", "--example", "1,1,60", "--json")
    told = json.loads(found.out)
    assert found.code == 0 and told["ok"] and {"exact", "prompt", "final"} <= {each["rule"] for each in told["checks"]}


def test_the_demo_has_a_bar(monkeypatch):
    report = demo.DemoReport(1, 10, 0.1, 7.1, 1e-6, 1, 2, 30, (Path("a"), Path("b"), Path("c")))
    for changed, code in (({}, 0), ({"difference": 1e-3}, 1), ({"si_sdr_after_db": 5.5}, 1)):
        monkeypatch.setattr(demo, "demo", lambda folder, changed=changed: dataclasses.replace(report, **changed))
        assert ran("demo", "here").code == code


# --------------------------------------------------------------------------- the program


def test_help_comes_without_torch():
    code = (
        "import sys\nfrom torchstreamer.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n"
        "    heavy = {'torch', 'numpy', 'soundfile', 'rich'} & set(sys.modules)\n"
        "    sys.exit(f'{heavy} came' if heavy else end.code)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for program in (["-c", code, "run", "--help"], ["-m", "torchstreamer", "--version"]):
        found = subprocess.run([sys.executable, *program], env=environment, capture_output=True, text=True, timeout=120)
        assert found.returncode == 0 and not found.stderr, found.stderr
        assert "Stream sound through a model." in found.stdout or found.stdout == f"torchstreamer {pts.__version__}\n"


def test_the_page_is_that_of_the_program():
    spec = importlib.util.spec_from_file_location("docs_command_line", ROOT / "docs" / "command_line.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text() == module.page(), "run python docs/command_line.py"


def test_quantities():
    assert [samples_in(text, 16000) for text in ("10ms", "1s", "0.5 s", "480", "0.01ms")] == [160, 16000, 8000, 480, 1]
    assert [clock(seconds) for seconds in (0, 192.9, 3723)] == ["0:00", "3:12", "1:02:03"]
    assert [duration(seconds) for seconds in (2, 0.0125, 3e-5)] == ["2 s", "12.5 ms", "30 µs"]
    times = Times()
    for i in range(1, 1001):
        times.add(i / 1000)
    assert times.quantile(0.5) == pytest.approx(0.5, rel=0.01) and times.quantile(0.99) == pytest.approx(0.99, rel=0.01)
