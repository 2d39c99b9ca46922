"""The examples run as a user runs them, and print what is true."""

import itertools
import json
import os
import re
import struct
import subprocess
import sys
import wave
import zlib
from pathlib import Path

import pytest

import torchstreamer as pts

# CI runs these in a part of their own.
pytestmark = pytest.mark.examples

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(*arguments, cwd):
    command = [sys.executable, "-W", "error", *map(str, arguments)]
    paths = {**os.environ, "PYTHONPATH": str(Path(pts.__file__).parents[1])}  # this package, installed or not
    return subprocess.run(command, cwd=cwd, env=paths, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    done = run(EXAMPLES / "stream_speech.py", "voice.wav", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout, folder / "voice.wav"


def figure(outcome, pattern):
    found = re.search(pattern, outcome[0], re.MULTILINE)
    assert found, f"{pattern!r} is not in\n{outcome[0]}"
    return [float(group) for group in found.groups()]


def test_every_example_is_tested():
    assert {path.name for path in EXAMPLES.glob("*.py")} == {
        "files_with_ray.py",
        "load_audio.py",
        "load_video.py",
        "lstm_handler.py",
        "stream_any_model.py",
        "stream_speech.py",
        "train_on_streams.py",
        "train_text.py",
    }


def test_speech_is_a_small_recording():
    path = EXAMPLES / "speech.wav"
    assert path.stat().st_size < 200_000
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16000)
        assert file.getnframes() > 3 * 16000


def test_streamed_speech_equals_the_whole(outcome):
    (difference,) = figure(outcome, r"^largest difference +(\S+) of the output's scale$")
    assert 0 <= difference < 1e-5
    streamed, whole = figure(outcome, r"^output +(\d+) samples; the whole recording at once gives (\d+)$")
    assert streamed == whole > 4 * 16000


def test_latency_is_that_of_the_network(outcome):
    # How much input decides the first sample, found by the gradient of the network on the whole signal.
    sys.path.insert(0, str(EXAMPLES))
    try:
        import stream_speech
    finally:
        sys.path.remove(str(EXAMPLES))
    import torch

    x = torch.randn(1, 1, 1000, dtype=torch.float64, requires_grad=True)
    stream_speech.build_net().double()(x)[0, 0, 0].backward()
    last = int(x.grad[0, 0].nonzero().max())
    samples, ms, chunk = figure(
        outcome, r"^first output +after (\d+) samples \((\S+) ms\) of input, so with chunk (\d+)$"
    )
    assert samples >= last + 1  # not before its last input
    assert samples <= last + 1 + 32  # and less than one frame of the network later
    assert ms == pytest.approx(1000 * samples / 16000, abs=0.051)
    assert chunk == -(-samples // 160)


def test_state_and_speed(outcome):
    (nbytes,) = figure(outcome, r"^state +(\d+) bytes before the end$")
    assert 1_000 < nbytes < 100_000
    (factor,) = figure(outcome, r"^real-time factor +(\S+) \(")
    assert factor > 0


def test_the_output_is_a_recording(outcome):
    streamed, _ = figure(outcome, r"^output +(\d+) samples; .* gives (\d+)$")
    with wave.open(str(outcome[1])) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16000)
        assert file.getnframes() == streamed
        samples = memoryview(file.readframes(file.getnframes())).cast("h")
    assert max(samples) > 10_000  # as loud as fits
    assert len(set(samples)) > 1_000  # and no constant


def test_a_difference_is_an_error(tmp_path):
    # The streamed output must not pass if it is wrong: shift what the stream gives.
    code = f"""
import sys
sys.path.insert(0, {str(EXAMPLES)!r})
import stream_speech, torchstreamer as pts
flush = pts.BaseStream.flush
def wrong(self):
    y = flush(self)
    return y + 1
pts.BaseStream.flush = wrong
sys.argv = ["stream_speech.py", "voice.wav"]
sys.exit(stream_speech.main())
"""
    done = run("-c", code, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "larger than" in done.stderr


# --------------------------------------------------------------------------- a model class


@pytest.fixture(scope="module")
def captured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("any_model")
    done = run(EXAMPLES / "stream_any_model.py", "voice.wav", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout, folder / "voice.wav"


def test_a_captured_model_equals_the_whole(captured):
    (difference,) = figure(captured, r"^largest difference +(\S+) of the output's scale$")
    assert 0 <= difference < 1e-5
    streamed, whole = figure(captured, r"^output +(\d+) samples; the whole recording at once gives (\d+)$")
    assert streamed == whole > 4 * 16000
    with wave.open(str(captured[1])) as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (1, 16000, streamed)


def test_a_captured_model_has_its_latency_and_state(captured):
    samples, ms, chunk = figure(
        captured, r"^first output +after (\d+) samples \((\S+) ms\) of input, so with chunk (\d+)$"
    )
    # The features of a frame need the next one, and a frame is 64 samples.
    assert samples == 2 * 64
    assert ms == pytest.approx(1000 * samples / 16000, abs=0.051)
    assert chunk == -(-samples // 160)
    (nbytes,) = figure(captured, r"^state +(\d+) bytes before the end$")
    assert 1_000 < nbytes < 20_000


# --------------------------------------------------------------------------- loading streams


def test_a_gru_learns_more_with_its_state_carried(tmp_path):
    done = run(EXAMPLES / "train_text.py", "losses.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    losses = json.loads((tmp_path / "losses.json").read_text())
    assert losses["carried"] < losses["reset"] < 3.5
    # Drawing characters by how often they come is worth 3.3 nats; the trained networks know more.
    assert losses["carried"] < 2.6


def test_networks_trained_on_streams_use_their_memory(tmp_path):
    done = run(EXAMPLES / "train_on_streams.py", "losses.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    curves = json.loads((tmp_path / "losses.json").read_text())
    for carried, forgotten, better in ((*curves["text"].values(), 0.1), (*curves["sound"].values(), 0.05)):
        assert carried[-1] + better < forgotten[-1] < forgotten[0]
    page = (EXAMPLES.parent / "docs" / "train-on-streams.md").read_text()
    quoted = re.search(r"```text\n(.*?)```", page, re.DOTALL)[1]
    for line, told in zip(done.stdout.splitlines(), quoted.splitlines(), strict=True):
        number = re.compile(r"\d+\.\d+")
        assert number.sub("", line) == number.sub("", told)
        # The text differs a little from one version of Python to another.
        assert float(number.search(line)[0]) == pytest.approx(float(number.search(told)[0]), rel=0.05)


def test_sound_files_stream_exactly(tmp_path):
    done = run(EXAMPLES / "load_audio.py", "voice.wav", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (difference,) = figure([done.stdout], r"^largest difference +(\S+) of the output's scale$")
    assert 0 < difference < 1e-5
    with wave.open(str(tmp_path / "voice.wav")) as sound, wave.open(str(EXAMPLES / "speech.wav")) as speech:
        assert sound.getnframes() == speech.getnframes()


def test_video_frames_follow_each_other(tmp_path):
    pytest.importorskip("av")
    done = run(EXAMPLES / "load_video.py", "grid.png", "--report", "report.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    frames = [120 + 70 * number % 200 for number in range(8)]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["frames"] == frames
    clips = [-(-count // 4) for count in frames]
    assert report["batches"] == max(sum(clips[row::4]) for row in range(4))
    # A quiet machine waits less than 1 ms; this one may be busy.
    assert figure([done.stdout], r"^time for a batch +p50 (\S+) ms, p99 (\S+) ms")[0] < 50
    data = (tmp_path / "grid.png").read_bytes()
    width, height, size = *struct.unpack(">II", data[16:24]), struct.unpack(">I", data[33:37])[0]
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and data[37:41] == b"IDAT" and (width, height) == (2 * 128, 2 * 96)
    lines = zlib.decompress(data[41 : 41 + size])
    blue = [
        lines[(96 * row + 90) * (1 + 3 * width) + 1 + 3 * (128 * column + 64) + 2]
        for row in (0, 1)
        for column in (0, 1)
    ]
    assert min(abs(one - other) for one, other in itertools.combinations(blue, 2)) > 15  # each video has its ground


def test_videos_need_a_package_and_say_so(tmp_path):
    (tmp_path / "av.py").write_text("raise ImportError('none here')")
    script = f"import sys, runpy; sys.path.insert(0, {str(tmp_path)!r}); sys.argv = ['load_video.py']; "
    script += f"runpy.run_path({str(EXAMPLES / 'load_video.py')!r}, run_name='__main__')"
    done = run("-c", script, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "Videos are read with PyAV, which is not installed here: pip install av\n"


def test_files_go_through_a_pool_of_actors(tmp_path):
    pytest.importorskip("ray")
    command = [sys.executable, EXAMPLES / "files_with_ray.py", tmp_path / "outputs"]
    paths = {**os.environ, "PYTHONPATH": str(Path(pts.__file__).parents[1])}
    done = subprocess.run(command, cwd=tmp_path, env=paths, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "files               12 done, 1 failed\nfailed              missing.flac: stream_failed\n" in done.stdout
    assert len(list((tmp_path / "outputs").glob("*.npy"))) == 12


# --------------------------------------------------------------------------- a handler by hand


def test_a_handler_and_its_file_are_exact(tmp_path):
    pytest.importorskip("onnxruntime")
    done = run(EXAMPLES / "lstm_handler.py", "lstm.onnx", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for name in ("stream", "lstm.onnx"):
        (difference,) = figure([done.stdout], rf"^{name}: largest difference (\S+) of the output's scale$")
        assert 0 <= difference < 1e-5
    assert len((EXAMPLES / "lstm_handler.py").read_text().splitlines()) <= 60
