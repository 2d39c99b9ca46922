"""What `export` promises of the file it writes: whole or not at all, with what the user gave along."""

import json
import math
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from damaged_files import CHUNK, small_net
from runner_calls import needs_onnx

import torchstreamer as pts
from torchstreamer.deploy import export as exporting

pytestmark = pytest.mark.timeout(300)

GIVEN = {"rate_hz": 16000, "labels": ["a", "ü"], "scale": {"mean": -0.25, "by": None, "log": True}, "": []}


def arguments(suffix: str) -> Any:
    return {} if suffix.lower() == ".pt" else {"chunk": CHUNK}


@pytest.fixture(scope="module")
def stream() -> Any:
    return pts.create_stream(small_net())


@pytest.fixture(scope="module")
def graph(stream: Any, tmp_path_factory: Any) -> Path:
    folder = tmp_path_factory.mktemp("graph")
    path = pts.export(stream, str(folder / "net.ONNX"), CHUNK, metadata=GIVEN, sampling_fs=16000)
    assert isinstance(path, Path) and list(folder.iterdir()) == [path]
    return path


@pytest.mark.parametrize("kind", [str, Path])
def test_metadata_travels(stream: Any, kind: Any, tmp_path: Path) -> None:
    name = kind(tmp_path / "net.Pt")
    path = pts.export(stream, name, metadata=GIVEN)
    assert isinstance(path, Path) and path == Path(name)
    assert list(tmp_path.iterdir()) == [path]
    assert not stat.S_IMODE(path.stat().st_mode) & 0o100
    assert json.dumps(pts.load(name).metadata) == json.dumps(GIVEN)
    assert pts.load(name).sampling_fs is None
    pts.export(stream, path, sampling_fs=16000)
    assert pts.load(path).metadata == {} and pts.load(path).sampling_fs == 16000


def test_metadata_of_scripts_is_there_without_this_package(stream: Any, tmp_path: Path) -> None:
    path = pts.export(stream, tmp_path / "net.pt", metadata=GIVEN)
    found = {"torchstreamer": ""}
    script = torch.jit.load(str(path), _extra_files=found)
    told = {"past": 1, "streams": {"Conv1dStream": 2, "ActivationStream": 1, "Pad1dStream": 1}, "parameters": 15}
    assert json.loads(found["torchstreamer"]) == {"version": 1, "metadata": GIVEN, "told": told}
    x = torch.randn(1, 1, 20)
    with torch.no_grad():
        torch.testing.assert_close(script(x, True), small_net()(x))


@needs_onnx
def test_graphs_are_graphs_to_others(graph: Path) -> None:
    import onnx

    assert json.dumps(pts.load(graph).metadata) == json.dumps(GIVEN)
    assert pts.load(graph).sampling_fs == 16000
    onnx.checker.check_model(onnx.load(graph))
    entries = {entry.key: entry.value for entry in onnx.load(graph).metadata_props}
    assert json.loads(entries["torchstreamer"])["metadata"] == GIVEN
    assert graph.read_bytes().endswith(entries["torchstreamer.sha256"].encode())


class Odd:
    pass


@pytest.mark.parametrize("suffix", [".pt", ".pt2", ".onnx"])
@pytest.mark.parametrize(
    "metadata",
    [
        {"a": (1, 2)},
        {1: "a"},
        {"a": {None: 1}},
        {"a": Odd()},
        {"a": torch.zeros(1)},
        {"a": math.nan},
        {"a": {1, 2}},
        [1],
        "rate",
        {"a": b"1"},
        {"a": {"b": [1, (2,)]}},
    ],
)
def test_metadata_that_is_none(stream: Any, suffix: str, metadata: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="^invalid_metadata: "):
        pts.export(stream, tmp_path / f"net{suffix}", **arguments(suffix), metadata=metadata, progress=never)
    assert not list(tmp_path.iterdir())


def never(*call: Any) -> None:
    raise AssertionError("it began")


@pytest.mark.parametrize("suffix", [".pt", ".pt2", ".onnx", ".PT"])
def test_a_missing_folder(stream: Any, suffix: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"^missing_folder: .*there is no folder {tmp_path / 'gone'};"):
        pts.export(stream, tmp_path / "gone" / f"net{suffix}", **arguments(suffix), progress=never)
    (tmp_path / f"net{suffix}").mkdir()
    with pytest.raises(IsADirectoryError, match="^invalid_path: "):
        pts.export(stream, tmp_path / f"net{suffix}", **arguments(suffix), progress=never)


@pytest.mark.parametrize(
    ("suffix", "given", "name"),
    [
        (".pt", {"chunk": 8}, "chunk"),
        (".pt", {"batch": 2}, "batch"),
        (".pt", {"autotune": True}, "autotune"),
        (".pt", {"dtype": torch.float32}, "dtype"),
        (".onnx", {"chunk": 8, "autotune": True}, "autotune"),
    ],
)
def test_arguments_of_no_use(stream: Any, suffix: str, given: Any, name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^unused_argument: {name}= came"):
        pts.export(stream, tmp_path / f"net{suffix}", **given, progress=never)


@pytest.mark.parametrize(
    ("suffix", "failing"),
    [
        (".pt", "seal"),
        (".pt", "torch.jit.save"),
        (".pt", "os.replace"),
        pytest.param(".onnx", "seal", marks=needs_onnx),
    ],
)
def test_a_failed_export_leaves_the_older_file(
    stream: Any, suffix: str, failing: str, tmp_path: Path, monkeypatch: Any
) -> None:
    path = tmp_path / f"net{suffix}"
    path.write_bytes(b"older")

    def fails(*args: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((exporting, "seal") if failing == "seal" else (failing,)), fails)
    with pytest.raises(OSError, match="No space left"):
        pts.export(stream, path, **arguments(suffix))
    assert path.read_bytes() == b"older" and len(list(tmp_path.iterdir())) == 1


def test_a_link_stays_a_link(stream: Any, tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    link = tmp_path / "net.pt"
    os.symlink(tmp_path / "to" / "real.pt", link)
    assert pts.export(stream, link) == link
    assert link.is_symlink() and (tmp_path / "to" / "real.pt").is_file()
    pts.load(link)


@needs_onnx
def test_weights_that_do_not_fit_into_one_file(stream: Any, tmp_path: Path, monkeypatch: Any) -> None:
    from torch.onnx._internal.exporter import _onnx_program

    monkeypatch.setattr(_onnx_program, "_LARGE_MODEL_THRESHOLD", 1)
    with pytest.raises(ValueError, match="^too_large: "):
        pts.export(stream, tmp_path / "net.onnx", CHUNK)
    assert not list(tmp_path.iterdir())
