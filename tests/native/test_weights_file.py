"""Weights in a file beside the C++ file."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import torchstreamer as pts
from torchstreamer.deploy import native

sys.path.insert(0, str(Path(__file__).parent))

from compiled import FLAGS, Compiled, agree


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv1d(2, 9, 5, padding=2), nn.Tanh(), nn.Conv1d(9, 2, 3)).eval()


def built(folder, stream, name="net.cpp", **options):
    path = pts.export(stream, folder / name, **options)
    library = folder / f"{path.stem}.so"
    command = ["g++", *FLAGS, "-DTORCHSTREAMER_PLAIN", str(path), "-o", str(library)]
    subprocess.run(command, check=True)
    opened = ctypes.CDLL(str(library))
    opened.net_new.restype = ctypes.c_void_p
    return opened


def test_the_weights_are_found_and_shared(tmp_path):
    module = net()
    opened = built(tmp_path, pts.create_stream(module), weights_file=True)
    text = (tmp_path / "net.cpp").read_text()
    assert "static const char data" not in text and (tmp_path / "net.bin").stat().st_size > 500
    one = ctypes.c_void_p(opened.net_new())
    assert not opened.net_ready(one)
    whole = (tmp_path / "net.bin").read_bytes()
    for bad in (whole[:-1], whole + b"0", bytes([whole[0] ^ 1]) + whole[1:], b""):
        (tmp_path / "bad.bin").write_bytes(bad)
        assert not opened.net_weights_from(str(tmp_path / "bad.bin").encode())
    assert not opened.net_weights_from(str(tmp_path / "none.bin").encode())
    # Nothing comes out, and nothing is read, where there are no weights.
    x = (ctypes.c_float * 8)()
    channels = (ctypes.c_void_p * 2)(ctypes.addressof(x), ctypes.addressof(x))
    assert opened.net_process(one, channels, 8, None) == 0
    assert opened.net_flush(one, None) == -1
    assert opened.net_weights_from(str(tmp_path / "net.bin").encode())
    (tmp_path / "net.bin").unlink()
    assert opened.net_weights_from(b"none") and opened.net_ready(ctypes.c_void_p(opened.net_new()))
    for _ in range(2):
        agree(module, Compiled(opened, "net", torch.float32), torch.randn(1, 2, 50), [1, 0, 20, 29])
    opened.net_reset(one)
    assert opened.net_ready(one)


def test_the_first_instance_looks_where_the_program_runs(tmp_path, monkeypatch):
    module = net(1)
    (tmp_path / "net.bin").write_bytes(b"older")
    opened = built(tmp_path, pts.create_stream(module), weights_file=True)
    monkeypatch.chdir(tmp_path)
    agree(module, Compiled(opened, "net", torch.float32), torch.randn(1, 2, 50), [50])


def test_from_a_limit_on_they_stand_there(tmp_path, monkeypatch):
    stream = pts.create_stream(net(2))
    pts.export(stream, tmp_path / "net.hpp")
    assert os.listdir(tmp_path) == ["net.hpp"]
    monkeypatch.setattr(native, "_MOST_INSIDE", 100)
    pts.export(stream, tmp_path / "Other.HPP", name="Other")
    assert sorted(os.listdir(tmp_path)) == ["Other.HPP", "Other.bin", "net.hpp"]
    assert "#pragma once" in (tmp_path / "Other.HPP").read_text()
    pts.export(stream, tmp_path / "net.hpp", weights_file=False)
    assert len(os.listdir(tmp_path)) == 3
    with pytest.raises(ValueError, match="unused_argument: weights_file"):
        pts.export(stream, tmp_path / "net.so", weights_file=True)
