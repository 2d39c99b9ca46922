"""Where commands run, and what they find there."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

import torchstreamer as pts

sys.path.insert(0, str(Path(__file__).parent))

from processes import NETS


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
