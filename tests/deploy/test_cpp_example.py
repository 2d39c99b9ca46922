"""The C++ example builds, gives what the network gives on the whole signal, and refuses bad files with a message."""

import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import torchstreamer as pts

EXAMPLES = Path(__file__).parents[2] / "examples"
COMPILER = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),  # a build takes half a minute, more on a busy machine
    pytest.mark.skipif(not shutil.which("cmake") or not COMPILER, reason="needs cmake and a C++ compiler"),
    pytest.mark.skipif(bool(torch.version.cuda) and not shutil.which("nvcc"), reason="this libtorch needs nvcc"),
]

CHANNELS, RATE_HZ = 2, 8000
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")


def chunk(name, body, size=None):
    """One chunk of a RIFF file; bodies of odd length are padded."""
    return name + struct.pack("<I", len(body) if size is None else size) + body + b"\0" * (len(body) % 2)


def wav(x, code=FLOAT, *, extensible=False, before=b"", announced=None, bits=None, frame_bytes=None):
    """The bytes of a WAV file of ``[channels, time]``, 16-bit integers or floats, written by hand."""
    size = {PCM: 2, FLOAT: 4}[code]
    channels = x.shape[0]
    tag = EXTENSIBLE if extensible else code
    frame_bytes = frame_bytes or channels * size
    head = struct.pack("<HHIIHH", tag, channels, RATE_HZ, RATE_HZ * frame_bytes, frame_bytes, bits or 8 * size)
    if extensible:
        head += struct.pack("<HHIH", 22, 8 * size, 0, code) + GUID_TAIL
    samples = x.t().contiguous() if code == FLOAT else (x.t() * 2**15).round().to(torch.int16)
    samples = samples.contiguous().numpy().tobytes()
    return riff(before, chunk(b"fmt ", head), before, chunk(b"data", samples, announced), chunk(b"LIST", b"end"))


def riff(*chunks):
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def read(path):
    """Format code, rate and ``[channels, time]`` of a plain WAV file, whose sizes must be right."""
    data = path.read_bytes()
    assert data[:4] == b"RIFF" and data[8:12] == b"WAVE" and struct.unpack_from("<I", data, 4)[0] == len(data) - 8
    position, chunks = 12, {}
    while position < len(data):
        size = struct.unpack_from("<I", data, position + 4)[0]
        chunks[data[position : position + 4]] = data[position + 8 : position + 8 + size]
        position += 8 + size + size % 2
    assert position == len(data)
    code, channels, rate_hz, rate_bytes, frame_bytes, bits = struct.unpack_from("<HHIIHH", chunks[b"fmt "])
    assert frame_bytes == channels * bits // 8 and rate_bytes == rate_hz * frame_bytes
    dtype = {(PCM, 16): torch.int16, (FLOAT, 32): torch.float32}[code, bits]
    samples = torch.frombuffer(bytearray(chunks[b"data"]), dtype=dtype).view(-1, channels).t()
    if code == FLOAT:
        assert struct.unpack("<I", chunks[b"fact"])[0] == samples.shape[1]
    return code, rate_hz, samples


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("build")
    prefix = f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}"
    for command in (["cmake", "-S", EXAMPLES / "cpp", "-B", folder, prefix], ["cmake", "--build", folder]):
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "warning:" not in done.stdout + done.stderr
    return folder / "stream_wav"


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(CHANNELS, 8, 7, padding=3),
        nn.GELU(),
        nn.Conv1d(8, 8, 4, stride=2, padding=1),
        pts.Residual1d(nn.Sequential(nn.ELU(), nn.Conv1d(8, 8, 3, padding=2, dilation=2))),
        nn.ConvTranspose1d(8, 3, 6, stride=3, padding=1),
        nn.Tanh(),
    ).eval()


@pytest.fixture(scope="module")
def stream(net, tmp_path_factory):
    path = tmp_path_factory.mktemp("stream") / "stream.pt"
    torch.jit.save(torch.jit.script(pts.create_stream(net)), path)
    return path


def run(*arguments):
    return subprocess.run(list(map(str, arguments)), capture_output=True, text=True, timeout=300)


def signal(length):
    torch.manual_seed(1)
    return torch.rand(CHANNELS, length) * 1.8 - 0.9


def whole(net, x):
    with torch.no_grad():
        return net(x[None])[0]


@pytest.mark.parametrize("block", [1, 997, 1000, 100_000])
def test_floats_equal_the_whole(program, net, stream, tmp_path, block):
    x = signal(200 if block == 1 else 10_007)
    (tmp_path / "in.wav").write_bytes(wav(x))
    done = run(program, stream, tmp_path / "in.wav", tmp_path / "out.wav", block)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    code, rate_hz, y = read(tmp_path / "out.wav")
    expected = whole(net, x)
    assert (code, rate_hz) == (FLOAT, RATE_HZ * 3 // 2)
    assert y.shape == expected.shape
    assert (y - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert f"{x.shape[1]} samples, 2 channels, 8000 Hz" in done.stdout
    assert f"{y.shape[1]} samples, 3 channels, 12000 Hz" in done.stdout
    assert float(re.search(r"^real-time factor +(\S+) \(", done.stdout, re.MULTILINE)[1]) > 0


def test_integers_equal_the_whole(program, net, stream, tmp_path):
    x = (signal(5003) * 2**15).round() / 2**15
    (tmp_path / "in.wav").write_bytes(wav(x, PCM))
    done = run(program, stream, tmp_path / "in.wav", tmp_path / "out.wav")
    assert done.returncode == 0, done.stderr
    code, rate_hz, y = read(tmp_path / "out.wav")
    expected = whole(net, x) * 2**15
    assert (code, rate_hz) == (PCM, RATE_HZ * 3 // 2)
    assert y.shape == expected.shape
    assert (y - expected).abs().max() <= 0.6  # rounded


@pytest.mark.parametrize("code", [PCM, FLOAT])
def test_unknown_chunks_and_extensible_formats_are_read(program, stream, tmp_path, code):
    x = signal(500)
    odd = chunk(b"junk", b"of odd length") + chunk(b"data"[::-1], b"") + chunk(b"LIST", b"data\1\0\0\0x")
    (tmp_path / "plain.wav").write_bytes(wav(x, code))
    (tmp_path / "other.wav").write_bytes(wav(x, code, extensible=True, before=odd))
    for name in ("plain", "other"):
        done = run(program, stream, tmp_path / f"{name}.wav", tmp_path / f"{name}_out.wav", 64)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "plain_out.wav").read_bytes() == (tmp_path / "other_out.wav").read_bytes()


def test_too_loud_is_clipped_and_said(program, tmp_path):
    stream = torch.jit.script(pts.create_stream(nn.Conv1d(1, 1, 1, bias=False)))
    with torch.no_grad():
        next(stream.parameters()).fill_(4.0)
    torch.jit.save(stream, tmp_path / "loud.pt")
    x = torch.tensor([[0.0, 0.125, 0.5, -0.5, -0.25]])
    (tmp_path / "in.wav").write_bytes(wav(x, PCM))
    done = run(program, tmp_path / "loud.pt", tmp_path / "in.wav", tmp_path / "out.wav", 2)
    assert done.returncode == 0, done.stderr
    assert read(tmp_path / "out.wav")[2].tolist() == [[0, 16384, 32767, -32768, -32768]]
    assert "2 samples were too loud" in done.stderr


GOOD = wav(torch.zeros(CHANNELS, 100))
BAD = {
    "text": (b"not a recording at all", "no WAV file"),
    "empty": (b"", "no WAV file"),
    "another RIFF": (b"RIFF" + GOOD[4:8] + b"AVI " + GOOD[12:], "no WAV file"),
    "no format": (riff(chunk(b"data", b"\0" * 8)), "no format chunk before the samples"),
    "no chunks": (riff(), "it has no format chunk"),
    "no samples": (riff(chunk(b"fmt ", GOOD[20:36])), "it has no data chunk"),
    "short format": (riff(chunk(b"fmt ", GOOD[20:30]), chunk(b"data", b"")), "format chunk is cut short"),
    "8 bits": (wav(torch.zeros(CHANNELS, 9), PCM, bits=8), "format 1 with 8 bits came; 16-bit integers"),
    "contradiction": (wav(torch.zeros(CHANNELS, 9), PCM, frame_bytes=6), "contradicts itself"),
    "cut short": (wav(torch.zeros(CHANNELS, 9), announced=7200), "7200 bytes are announced"),
    "amid a frame": (wav(torch.zeros(CHANNELS, 9), announced=70), "end amid a frame"),
    "one channel": (wav(torch.zeros(1, 100)), "invalid_chunk: 1 channels came; a Conv1d takes 2"),
    "three channels": (wav(torch.zeros(3, 100)), "invalid_chunk: 3 channels came; a Conv1d takes 2"),
    "nothing": (wav(torch.zeros(CHANNELS, 0)), "0 samples are too few"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused(program, stream, tmp_path, name):
    data, message = BAD[name]
    (tmp_path / "in.wav").write_bytes(data)
    done = run(program, stream, tmp_path / "in.wav", tmp_path / "out.wav")
    assert done.returncode == 1
    assert done.stderr.startswith("stream_wav: ") and message in done.stderr
    assert done.stderr.count("\n") == 1 and done.stdout == ""
    assert not (tmp_path / "out.wav").exists()


def test_missing_and_foreign_files_are_refused(program, net, stream, tmp_path):
    good, missing, out = tmp_path / "in.wav", tmp_path / "missing", tmp_path / "out.wav"
    good.write_bytes(GOOD)
    torch.jit.save(torch.jit.script(net[0]), tmp_path / "net.pt")
    for arguments, message in (
        ((missing, good, out), "missing: cannot be opened"),
        ((stream, missing, out), "missing: cannot be opened"),
        ((stream, good, missing / "out.wav"), "cannot be written"),
        ((stream, good, good), "is the input too"),
        ((good, good, out), "no module kept with torch.jit.save"),
        ((tmp_path / "net.pt", good, out), "no scripted stream"),
    ):
        done = run(program, *arguments)
        assert done.returncode == 1
        assert message in done.stderr and done.stderr.count("\n") == 1
        assert not out.exists()
    assert good.read_bytes() == GOOD


@pytest.mark.parametrize(
    "arguments", [[], ["a"], ["a", "b", "c", "0"], ["a", "b", "c", "1x"], ["a", "b", "c", "1", "d"]]
)
def test_usage(program, arguments):
    done = run(program, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: stream_wav ")


def test_the_saved_network_of_the_speech_example(program, tmp_path):
    paths = {**os.environ, "PYTHONPATH": str(Path(pts.__file__).parents[1])}  # this package, installed or not
    command = [sys.executable, "-W", "error", str(EXAMPLES / "cpp" / "save_stream.py"), "voice.pt"]
    done = subprocess.run(command, cwd=tmp_path, env=paths, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    done = run(program, tmp_path / "voice.pt", EXAMPLES / "speech.wav", tmp_path / "out.wav", 160)
    assert done.returncode == 0, done.stderr

    sys.path.insert(0, str(EXAMPLES))
    try:
        import stream_speech
    finally:
        sys.path.remove(str(EXAMPLES))
    speech, _ = stream_speech.read_wav(EXAMPLES / "speech.wav")
    expected = whole(stream_speech.build_net(), speech) * 2**15
    code, rate_hz, y = read(tmp_path / "out.wav")
    assert (code, rate_hz, y.shape) == (PCM, 16000, expected.shape)
    assert (y - expected).abs().max() <= 0.6
