"""Whatever is no export of ours is one error that names it, before anything in it is unpacked or run."""

import io
import json
import os
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any, Callable, Dict

import pytest
import torch
from damaged_files import CHUNK, damage_many, outputs, small_net, written
from runner_calls import ONNX, needs_onnx
from torch import nn

import torchstreamer as pts
from torchstreamer.deploy import exported_file, runners
from torchstreamer.deploy.files import seal

pytestmark = [needs_onnx, pytest.mark.timeout(300)]

SUFFIXES = (".pt", ".pt2", ".onnx")


@pytest.fixture(scope="module")
def files(tmp_path_factory: Any) -> Dict[str, bytes]:
    return written(tmp_path_factory.mktemp("whole"), compiled=False)


def refused(path: Path, reason: str = "") -> None:
    with pytest.raises(pts.StreamFileError, match=f"(?s)^invalid_file: .*{reason}") as caught:
        pts.load(path)
    assert str(path) in str(caught.value) and isinstance(caught.value, ValueError)
    assert caught.value.code == "invalid_file"


# ---------------------------------------------------------------------- bytes


class Plain(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


def saved(save: Callable[[Any], Any]) -> bytes:
    file = io.BytesIO()
    save(file)
    return file.getvalue()


class Opens:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> Any:
        return open, ("unpickled", "w")


ANY = {
    "empty": lambda files, suffix: b"",
    "one_byte": lambda files, suffix: b"P",
    "half": lambda files, suffix: files[suffix][: len(files[suffix]) // 2],
    "last_byte_gone": lambda files, suffix: files[suffix][:-1],
    "first_byte_gone": lambda files, suffix: files[suffix][1:],
    "a_byte_more": lambda files, suffix: files[suffix] + b"0",
    "a_byte_before": lambda files, suffix: b"0" + files[suffix],
    "a_byte_changed": lambda files, suffix: b"%c" % (files[suffix][0] ^ 1) + files[suffix][1:],
    "checksum_changed": lambda files, suffix: files[suffix][:-64] + b"0" * 64,
    "checksum_in_capitals": lambda files, suffix: files[suffix][:-64] + files[suffix][-64:].upper(),
    "twice": lambda files, suffix: files[suffix] * 2,
    "text": lambda files, suffix: b"hello " * 500,
    "noise": lambda files, suffix: random.Random(0).randbytes(5000),
    "seal_alone": lambda files, suffix: files[suffix][-100:],
    "script": lambda files, suffix: saved(lambda file: torch.jit.save(torch.jit.script(Plain()), file)),
    "state_dict": lambda files, suffix: saved(lambda file: torch.save(small_net().state_dict(), file)),
    "pickle": lambda files, suffix: pickle.dumps(Opens()),
    "torch_pickle": lambda files, suffix: saved(lambda file: torch.save(Opens(), file)),
    "renamed": lambda files, suffix: files[SUFFIXES[SUFFIXES.index(suffix) - 1]],
    "renamed_again": lambda files, suffix: files[SUFFIXES[SUFFIXES.index(suffix) - 2]],
}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", ANY)
def test_what_is_no_export(files: Any, name: str, suffix: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"net{suffix}"
    path.write_bytes(ANY[name](files, suffix))
    refused(path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]  # nothing was unpickled


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_no_file(files: Any, suffix: str, tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / f"net{suffix}"
    with pytest.raises(FileNotFoundError, match=path.name):
        pts.load(path)
    path.symlink_to(tmp_path / "gone")
    with pytest.raises(FileNotFoundError):
        pts.load(path)
    path.unlink()
    path.mkdir()
    refused(path, "it is no file")
    path.rmdir()
    path.write_bytes(files[suffix])
    refused(path / f"inner{suffix}", "cannot be read")
    refused(Path(f"a\0b{suffix}"), "cannot be read")

    def locked(*args: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(exported_file, "open", locked, raising=False)
        refused(path, "Permission denied")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / f"pipe{suffix}")
        refused(tmp_path / f"pipe{suffix}", "it is no file")
        (tmp_path / f"endless{suffix}").symlink_to("/dev/zero")
        refused(tmp_path / f"endless{suffix}", "it is no file")


# ---------------------------------------------------------------------- archives with the right checksum


def archive(data: bytes, entries: Any = (), leave_out: str = "no such") -> bytes:
    """The archive once more, some entries left out and some added."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        for entry in old.infolist():
            if leave_out not in entry.filename:
                new.writestr(entry.filename, old.read(entry))
        for name, value in entries:
            new.writestr(name, value, zipfile.ZIP_DEFLATED)
    return file.getvalue()


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o120777 << 16
    return info


INSIDE = "whole/data/aotinductor/model/"
NAMES: Dict[str, Any] = {
    "parents": [(INSIDE + "../" * 12 + "tmp/escaped", "x")],
    "parent": [("../escaped", "x")],
    "parents_at_the_end": [(INSIDE + "..", "x")],
    "root": [("/tmp/escaped", "x")],
    "backslashes": [(INSIDE + "..\\..\\escaped", "x")],
    "drive": [("C:escaped", "x")],
    "link": [(link(INSIDE + "link"), "/")],
    "bomb": [(INSIDE + "zeros", bytes(2**24))],
}


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize("suffix", [".pt", ".pt2"])
@pytest.mark.parametrize("name", [*NAMES, "twice"])
def test_names_that_lead_out(files: Any, name: str, suffix: str, tmp_path: Path, monkeypatch: Any) -> None:
    def unpacks(*args: Any, **options: Any) -> Any:
        raise AssertionError("unpacked")

    monkeypatch.setattr("torch.jit.load", unpacks)
    monkeypatch.setattr("torch._inductor.aoti_load_package", unpacks)
    path = tmp_path / f"net{suffix}"
    entries = NAMES.get(name, [("whole/version", "1"), ("whole/version", "2")])
    path.write_bytes(archive(files[suffix], entries))
    seal(path)
    refused(path, "unpack|name")


@pytest.mark.parametrize("about", [None, "", "no JSON", "[]", "{}", '{"version": 2, "metadata": {}}', "[" * 100_000])
def test_scripts_with_the_right_checksum(files: Any, about: Any, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    entries = [] if about is None else [(f"whole/extra/{exported_file.KEY}", about)]
    path.write_bytes(archive(files[".pt"], entries, "extra/"))
    seal(path)
    refused(path)
    with zipfile.ZipFile(io.BytesIO(files[".pt"])) as whole:  # the same way, nothing changed
        (about,) = (whole.read(name) for name in whole.namelist() if "extra/" in name)
    path.write_bytes(archive(files[".pt"], [(f"whole/extra/{exported_file.KEY}", about)], "extra/"))
    seal(path)
    pts.load(path)


@pytest.mark.parametrize("gone", ["data.pkl", "constants.pkl", "code/"])
def test_scripts_that_lack_a_part(files: Any, gone: str, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    path.write_bytes(archive(files[".pt"], leave_out=gone))
    seal(path)
    refused(path)


def test_another_script_with_the_right_checksum(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    about = json.dumps({"version": 1, "metadata": {}})
    torch.jit.save(torch.jit.script(Plain()), str(path), _extra_files={exported_file.KEY: about})
    seal(path)
    refused(path, "it holds no stream")


# ---------------------------------------------------------------------- geometries with the right checksum


@pytest.fixture(scope="module")
def geometry(files: Any) -> Dict[str, Any]:
    import onnx

    (text,) = (entry.value for entry in onnx.load_from_string(files[".onnx"]).metadata_props if "sha" not in entry.key)
    return json.loads(text)


def with_geometry(data: bytes, text: Any) -> bytes:
    import onnx

    model = onnx.load_from_string(data)
    del model.metadata_props[:]
    if text is not None:
        model.metadata_props.add(key=exported_file.KEY, value=text)
    return model.SerializeToString()


HOSTILE: Dict[str, Callable[[Any], Any]] = {
    "none": lambda geometry: None,
    "no_json": lambda geometry: "hello",
    "a_list": lambda geometry: "[]",
    "deep": lambda geometry: "[" * 100_000,
    "long_number": lambda geometry: "9" * 100_000,
    "infinite": lambda geometry: json.dumps({**geometry, "lag": float("inf")}),
    "huge_state": lambda geometry: json.dumps({**geometry, "states": {"ring.0": [[2**40], "float32"]}}),
    "huge_states": lambda geometry: json.dumps(
        {**geometry, "states": geometry["states"] | {f"more.{i}": [[2**20, 2**8], "float32"] for i in range(4)}}
    ),
    "huge_chunk": lambda geometry: json.dumps({**geometry, "chunk": 2**40}),
    "huge_batch": lambda geometry: json.dumps({**geometry, "batch": 2**31}),
    "another_chunk": lambda geometry: json.dumps({**geometry, "chunk": CHUNK + 1}),
    "another_dtype": lambda geometry: json.dumps({**geometry, "dtype": "float64"}),
    "no_states": lambda geometry: json.dumps({**geometry, "states": {}}),
    "more_states": lambda geometry: json.dumps({**geometry, "states": {**geometry["states"], "x2": [[1], "bool"]}}),
    "endless_flush": lambda geometry: json.dumps({**geometry, "flush_steps": 2**39}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_geometries_with_the_right_checksum(
    files: Any, geometry: Any, name: str, tmp_path: Path, monkeypatch: Any
) -> None:
    text = HOSTILE[name](geometry)
    path = tmp_path / "net.onnx"
    path.write_bytes(with_geometry(files[".onnx"], text))
    seal(path)
    refused(path)
    if name in ("another_chunk", "another_dtype", "no_states", "more_states"):
        return  # what a program takes is known of graphs alone

    class Package:
        loader: Any = type("Loader", (), {"get_metadata": lambda self: {} if text is None else {"torchstreamer": text}})

    Package.loader = Package.loader()
    monkeypatch.setattr("torch._inductor.aoti_load_package", lambda path: Package)
    path = tmp_path / "net.pt2"
    path.write_bytes(files[".pt2"])
    refused(path)


WRONG = [
    None,
    "x",
    "",
    -1,
    2**70,
    1.5,
    True,
    [],
    {},
    [1],
    [[]],
    {"a": 1},
    {"a": [[1], "float7"]},
    {"a": [[-1], "bool"]},
]
RIGHT = {
    "device": ["x", ""],
    "out_shape": [[], [1]],
    "states": [{}],
    "metadata": [{}, *(value for value in WRONG[11:])],
}


def test_a_sampling_rate_is_checked(geometry: Any) -> None:
    for value in [0, -1, True, 1.5, "16000", [16000], 2**50]:
        with pytest.raises(ValueError, match="its geometry has 'sampling_fs' as"):
            exported_file.parse_geometry(json.dumps({**geometry, "sampling_fs": value}))


def test_a_shortest_signal_is_checked(geometry: Any) -> None:
    for value in [0, -1, True, 1.5, "1", None, 2**50]:
        with pytest.raises(ValueError, match="its geometry has 'min_length' as"):
            exported_file.parse_geometry(json.dumps({**geometry, "min_length": value}))
    older = {name: value for name, value in geometry.items() if name != "min_length"}
    assert exported_file.parse_geometry(json.dumps(older)) == older


def test_what_is_told_is_checked(geometry: Any) -> None:
    given = geometry["told"]
    assert set(given) == {"past", "streams", "parameters"}
    wrong = [None, [], "x", *({**given, name: value} for name in given for value in (-1.5, "x", [1], {"a": -1}))]
    for value in wrong:
        with pytest.raises(ValueError, match="its geometry has 'told' as"):
            exported_file.parse_geometry(json.dumps({**geometry, "told": value}))
    older = {name: value for name, value in geometry.items() if name != "told"}
    assert exported_file.parse_geometry(json.dumps(older)) == older


@pytest.mark.parametrize("name", exported_file._EXPECTED)
def test_every_entry_of_a_geometry_is_checked(geometry: Any, name: str) -> None:
    assert {*exported_file._EXPECTED, "told", "min_length"} == set(geometry)
    assert exported_file.parse_geometry(json.dumps(geometry)) == geometry
    wrong = [value for value in WRONG if not any(value is right or value == right for right in RIGHT.get(name, []))]
    for value in wrong:
        with pytest.raises(ValueError, match=f"its geometry has '{name}' as"):
            exported_file.parse_geometry(json.dumps({**geometry, name: value}))
    with pytest.raises(ValueError, match=f"its geometry has '{name}' as None"):
        exported_file.parse_geometry(json.dumps({key: value for key, value in geometry.items() if key != name}))


def test_tables_of_lengths_are_whole(geometry: Any) -> None:
    values, start, period, rise = geometry["lengths"]
    for wrong in ([values[1:], start, period, rise], [values, start, 0, rise], [values, start, period, -1], [values]):
        with pytest.raises(ValueError, match="its geometry has 'lengths' as"):
            exported_file.parse_geometry(json.dumps({**geometry, "lengths": wrong}))


def test_a_graph_reads_no_other_file(files: Any, geometry: Any, tmp_path: Path, monkeypatch: Any) -> None:
    import onnx

    monkeypatch.chdir(tmp_path)
    model = onnx.load_from_string(with_geometry(files[".onnx"], json.dumps(geometry)))
    weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    Path("weights").write_bytes(weight.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights")
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    seal(path)
    refused(path)


def test_programs_that_cannot_be_opened(files: Any, tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    path.write_bytes(files[".pt2"])
    refused(path)  # it holds no program
    assert issubclass(runners.PackageRunner.file_error, pts.StreamFileError)


# ---------------------------------------------------------------------- damage


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_files_damaged_at_random(files: Any, tmp_path: Path) -> None:
    assert ONNX
    assert damage_many(files, tmp_path, count=60, seed=1, whole=[".pt", ".onnx"]) == []


def test_files_that_are_whole_load(files: Any, tmp_path: Path) -> None:
    x = torch.randn(1, 1, 20)
    for suffix in (".pt", ".onnx"):
        for name in (f"net{suffix}", f"other{suffix.upper()}"):
            (tmp_path / name).write_bytes(files[suffix])
            with torch.no_grad():
                torch.testing.assert_close(outputs(pts.load(tmp_path / name), x), small_net()(x))
