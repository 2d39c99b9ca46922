"""`torchstreamer run`, as a process: what it writes, what it says, and every exit code."""

import errno
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest
import soundfile
import torch
from processes import Ran, ran, read, sound, started

from torchstreamer.cli.failing import guarded

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
