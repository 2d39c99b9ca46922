"""Sound files in blocks and while they are made, raw samples, and devices, against soundfile and Python's `wave`."""

import errno
import io
import os
import struct
import sys
import types
import wave

import numpy as np
import pytest
import soundfile
import torch

import torchstreamer as pts
from torchstreamer.audio import Microphone, PcmFormat, PcmReader, PcmWriter, SoundReader, SoundWriter, Speaker
from torchstreamer.audio import files as sound_files


def noise(channels=2, samples=5000, seed=0):
    return 0.3 * torch.randn(channels, samples, generator=torch.Generator().manual_seed(seed)).clamp(-3, 3)


def written(path, x, **options):
    with SoundWriter(path, 16000, **options) as out:
        for piece in x.split(700, 1):
            out.write(piece)
    return out


# --------------------------------------------------------------------------- files


@pytest.mark.parametrize("known", [True, False], ids=["length known", "not known"])
@pytest.mark.parametrize(
    ("name", "subtype", "tolerance"),
    [
        ("a.wav", None, 0),
        ("a.wav", "PCM_16", 2**-15),
        ("a.wav", "PCM_24", 2**-23),
        ("a.flac", None, 2**-15),
        ("a.aiff", None, 0),
    ],
)
def test_what_is_written_is_read(name, subtype, tolerance, known, tmp_path):
    x = noise()
    path = tmp_path / name
    written(path, x, subtype=subtype, frames=x.shape[1] if known else None)
    assert os.listdir(tmp_path) == [name]
    found, rate = soundfile.read(path, dtype="float32", always_2d=True)
    assert rate == 16000
    torch.testing.assert_close(torch.from_numpy(found).mT, x, rtol=0, atol=tolerance)
    with SoundReader(path, block=999) as sound:
        assert (sound.rate_hz, sound.channels, sound.frames) == (16000, 2, 5000)
        blocks = list(sound)
    assert [block.shape[1] for block in blocks] == [999] * 5 + [5]
    assert torch.equal(torch.cat(blocks, 1), torch.from_numpy(found).mT)
    if subtype == "PCM_16":  # a plain WAV file, which others read
        with wave.open(str(path)) as file:
            assert file.getparams()[:4] == (2, 2, 16000, 5000)


def test_a_file_beyond_four_gigabytes_is_rf64(tmp_path, monkeypatch):
    x = noise(1, 4000)
    monkeypatch.setattr(sound_files, "_LARGEST", 10_000)
    for known in (4000, None):
        written(tmp_path / "a.wav", x, frames=known)
        assert (tmp_path / "a.wav").read_bytes()[:4] == b"RF64"
        assert torch.equal(torch.cat(list(SoundReader(tmp_path / "a.wav", block=1000)), 1), x)
    written(tmp_path / "a.wav", x[:, :1000], frames=None)
    assert (tmp_path / "a.wav").read_bytes()[:4] == b"RIFF"
    whole = (tmp_path / "a.wav").read_bytes()
    assert struct.unpack("<I", whole[4:8])[0] == len(whole) - 8


def test_until_it_is_whole_a_file_has_another_name(tmp_path):
    path = tmp_path / "a.wav"
    path.write_text("before")
    with pytest.raises(ZeroDivisionError), SoundWriter(path, 8000) as out:
        out.write(noise())
        assert sorted(os.listdir(tmp_path)) == ["a.wav", "a.wav.part"]
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == ["a.wav"] and path.read_text() == "before"
    written(path, noise(1, 10))
    assert os.listdir(tmp_path) == ["a.wav"] and soundfile.info(path).frames == 10


def test_a_full_disk_is_told(tmp_path):
    (tmp_path / "a.wav").symlink_to("/dev/full")
    for known in (10**6, None):
        with pytest.raises(OSError) as caught:
            written(tmp_path / "a.wav", noise(1, 100_000), frames=known)
        assert caught.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == ["a.wav"] and not os.path.exists("/dev/full.part")


def test_what_is_clipped_is_counted(tmp_path):
    x = torch.tensor([[0.5, 1.5, -2.0, 1.0]])
    assert written(tmp_path / "a.wav", x, subtype="PCM_16").clipped == 2
    assert written(tmp_path / "b.wav", x).clipped == 0
    assert soundfile.read(tmp_path / "a.wav")[0].max() < 1


@pytest.mark.parametrize("size", [30, 60, 3000])
def test_a_file_that_was_cut_short(size, tmp_path):
    path = tmp_path / "a.wav"
    written(path, noise(1, 4000), subtype="PCM_16")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(pts.StreamFileError, match=f"^cut_short: .* it has {size} bytes of 8"):
        SoundReader(path, block=100)
    if size == 3000:
        sound = SoundReader(path, block=100, partial=True)
        assert torch.cat(list(sound), 1).shape[1] > 1400 and "3000" in sound.cut_short


def test_what_is_no_sound(tmp_path):
    path = tmp_path / "a.flac"
    written(path, noise(1, 40_000))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(pts.StreamFileError, match="^cut_short: "):
        list(SoundReader(path, block=4096))
    path.write_text("no sound")
    with pytest.raises(pts.StreamFileError, match="^invalid_sound: .*a.flac cannot be read"):
        SoundReader(path, block=1)
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(pts.StreamFileError, match="^invalid_sound: .*it is no file"):
        SoundReader(tmp_path / "pipe.wav", block=1)
    with pytest.raises(FileNotFoundError):
        SoundReader(tmp_path / "gone.wav", block=1)
    with pytest.raises(FileNotFoundError):
        SoundWriter(tmp_path / "gone" / "a.wav", 8000)
    for name, options in (("a.xyz", {}), ("a", {}), ("a.flac", {"subtype": "FLOAT"})):
        with pytest.raises(pts.StreamInputError, match="^invalid_format: "):
            SoundWriter(tmp_path / name, 8000, **options)
    with SoundWriter(tmp_path / "a.wav", 8000) as out:
        out.write(noise(2, 10))
        for piece in (noise(1, 10), torch.zeros(10), torch.zeros(1, 2, 10)):
            with pytest.raises(pts.StreamInputError, match=r"^invalid_piece: .*\[2, t\] was expected"):
                out.write(piece)


# --------------------------------------------------------------------------- raw samples


@pytest.mark.parametrize(("encoding", "code", "scale"), [("s16le", "<i2", 2**15), ("s24le", "", 2**23),
                                                        ("s32le", "<i4", 2**31), ("f32le", "<f4", 1),
                                                        ("f64le", "<f8", 1)])  # fmt: skip
def test_raw_samples(encoding, code, scale):
    x = noise(2, 1000).clamp(-0.9, 0.9)
    file = io.BytesIO()
    out = PcmWriter(file, PcmFormat(encoding, 8000, 2))
    for piece in x.split(300, 1):
        out.write(piece)
    expected = x.mT.double().numpy() * scale
    data = file.getvalue()
    found = (
        np.frombuffer(data, code)
        if code
        else np.array([int.from_bytes(data[i : i + 3], "little", signed=True) for i in range(0, len(data), 3)])
    )
    found = found.reshape(-1, 2)
    np.testing.assert_allclose(found, np.round(expected) if scale > 1 else expected, rtol=1e-6, atol=0.5 * (scale > 1))
    file.seek(0)
    blocks = list(PcmReader(file, PcmFormat(encoding, 8000, 2), block=333))
    assert [block.shape for block in blocks] == [(2, 333)] * 3 + [(2, 1)]
    torch.testing.assert_close(torch.cat(blocks, 1).float(), x, rtol=0, atol=0.6 / scale if scale > 1 else 0)


def test_raw_samples_that_do_not_fit():
    out = PcmWriter(io.BytesIO(), PcmFormat("s16le"))
    out.write(torch.tensor([[2.0, -2.0, 1.0]]))
    assert out.file.getvalue() == struct.pack("<hhh", 32767, -32768, 32767) and out.clipped == 2
    with pytest.raises(pts.StreamFileError, match="^cut_short: 1 bytes"):
        list(PcmReader(io.BytesIO(bytes(5)), PcmFormat("s16le", 1, 2), block=10))
    sound = PcmReader(io.BytesIO(bytes(5)), PcmFormat("s16le", 1, 2), block=1, partial=True)
    assert [block.shape for block in sound] == [(2, 1)] and sound.cut_short
    assert PcmFormat.parse("f32le") == PcmFormat("f32le", 0, 1)
    for text in ("", "s16", "s16le:", "s16le:0", "s16le:8000:1:1", "s16le:8k", "S16LE:8000"):
        with pytest.raises(pts.StreamInputError, match="^invalid_raw: "):
            PcmFormat.parse(text)


# --------------------------------------------------------------------------- devices


class Device:
    """What sounddevice opens: plays back what was played."""

    played: list = []

    def __init__(self, samplerate, channels, device, blocksize, dtype):
        if device == "none":
            raise ValueError("No input device matching 'none'")
        self.channels = channels

    start = stop = abort = close = lambda self: None

    def read(self, n):
        return np.full((n, self.channels), 0.25, "float32"), True

    def write(self, samples):
        self.played.append(samples)


def test_devices(monkeypatch):
    fake = types.SimpleNamespace(InputStream=Device, OutputStream=Device, PortAudioError=RuntimeError)
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    microphone = Microphone(16000, block=160, channels=2)
    block = next(iter(microphone))
    assert block.shape == (2, 160) and microphone.overflows == 1
    speaker = Speaker(16000)
    speaker.write(block)
    speaker.close()
    assert Device.played[0].shape == (160, 2)
    with pytest.raises(OSError, match="^no_device: 'none' cannot be opened for 1 channels at 16000 Hz"):
        Microphone(16000, block=160, device="none")
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    for make in (lambda: Microphone(16000, block=160), lambda: Speaker(16000)):
        with pytest.raises(ModuleNotFoundError, match="^missing_package: sounddevice is not installed"):
            make()
