"""The program of `examples/native` builds with one command, and writes what the network gives on the whole signal."""

import importlib
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))
build_net = importlib.import_module("stream_speech").build_net

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("filter")
    script = EXAMPLES / "native" / "save_filter.py"
    subprocess.run([sys.executable, script, "filter.hpp"], cwd=place, check=True, capture_output=True)
    source = str(EXAMPLES / "native" / "filter_wav.cpp")
    command = ["g++", "-std=gnu++17", "-O1", "-march=native", "-Wall", "-Wextra", "-Werror", "-I.", source]
    subprocess.run([*command, "-o", "filter_wav"], cwd=place, check=True)
    return place


def wav(samples: np.ndarray, channels: int = 1, rate_hz: int = 16000, bits: int = 16) -> bytes:
    data = samples.astype("<i2").tobytes()
    frame = channels * bits // 8
    head = struct.pack("<HHIIHH", 1, channels, rate_hz, rate_hz * frame, frame, bits)
    parts = b"WAVEfmt " + struct.pack("<I", len(head)) + head + b"LIST\3\0\0\0odd\0data" + struct.pack("<I", len(data))
    return b"RIFF" + struct.pack("<I", len(parts) + len(data)) + parts + data


def run(folder, *arguments):
    return subprocess.run([folder / "filter_wav", *map(str, arguments)], cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize("block", [1, 160, 100000])
def test_what_is_written_is_the_network_on_the_whole(folder, block):
    generator = np.random.default_rng(0)
    x = (generator.standard_normal(2357) * 3000).astype(np.int16)
    (folder / "in.wav").write_bytes(wav(x))
    done = run(folder, "in.wav", "out.wav", block)
    assert done.returncode == 0, done.stderr
    data = (folder / "out.wav").read_bytes()
    assert struct.unpack_from("<I", data, 4)[0] == len(data) - 8
    with torch.no_grad():
        y = build_net()(torch.from_numpy(x).float()[None, None] / 32768)[0]
    assert f"samples out       {y.shape[1]}, " in done.stdout
    expected = (y * 32768).clamp(-32768, 32767).round()
    found = torch.from_numpy(np.frombuffer(data[44:], "<i2").astype(np.float32)).reshape(-1, y.shape[0]).t()
    assert found.shape == expected.shape and float((found - expected).abs().max()) <= 1
    assert float(expected.abs().max()) > 100


@pytest.mark.parametrize(
    "content, said",
    [
        (b"no sound", "no WAV file"),
        (wav(np.zeros(8), channels=2), "2 channels; 1 are taken"),
        (wav(np.zeros(8), rate_hz=8000), "8000 Hz; the network was trained at 16000"),
        (wav(np.zeros(8), bits=24), "16-bit integers are read"),
        (wav(np.zeros(80))[:-20], "it is cut short"),
        (wav(np.zeros(8))[:40], "no samples"),
    ],
)
def test_what_is_no_such_file_is_refused(folder, content, said):
    (folder / "bad.wav").write_bytes(content)
    done = run(folder, "bad.wav", "never.wav")
    assert done.returncode == 1 and said in done.stderr
    assert not (folder / "never.wav").exists()
    assert run(folder, "bad.wav").returncode == 2
