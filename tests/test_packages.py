"""What messages, docs and scripts tell people to install: packages that exist, in words that every shell takes."""

import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import torchstreamer as pts
from torchstreamer.errors import EXTRAS, missing_package

ROOT = Path(__file__).parent.parent
FOLDERS = ("torchstreamer", "docs", "examples", "benchmarks", "tests", ".ci", ".github")
KINDS = {".py", ".md", ".toml", ".yml", ".yaml", ".cff", ".txt", ""}
FOUND = [*ROOT.glob("*"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))]
TEXTS = [path for path in sorted(FOUND) if path.is_file() and path.suffix in KINDS and path != Path(__file__)]

COMMAND = re.compile(r"pip install((?: (?:'[^'\n]*'|[\w.=<>/\[\]-]+))+)")


def extras() -> dict[str, list[str]]:
    """The packages of each extra in `pyproject.toml`."""
    table = (ROOT / "pyproject.toml").read_text().split("[project.optional-dependencies]\n")[1].split("\n[")[0]
    return {name: re.findall(r'"([\w-]+)', of) for name, of in re.findall(r"^(\w+) = \[(.*?)\]$", table, re.M | re.S)}


def faults(text: str) -> list[str]:
    """What is wrong with what a text tells to install."""
    pinned = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(), re.M)
    known = {name.lower() for name in pinned} | {"build", "moshi", "sounddevice", "speechbrain", "torch-streamer"}
    found = [f"{told} is on no index" for told in re.findall(r"\btorchstreamer\[[a-z]+\]", text)]
    for command in COMMAND.findall(text):
        before = ""
        for word in re.findall(r"'[^']*'|\S+", command):
            bare = word.strip("'")
            if "{" in bare:
                continue  # filled in where the program runs
            if before == "-e":
                found += [f"no extra {name}" for name in re.findall(r"\w+", bare) if name not in extras()]
                if "[" in word and word == bare:
                    found.append(f"{word} without quotes, which zsh takes for a pattern")
            elif not word.startswith("-") and before not in ("-c", "-r", "--target"):
                name = re.split(r"[=<>]", bare.rstrip("."))[0].lower()
                found += [] if name in known else [f"no package {name} is known"]
            before = word
    return found


def test_texts_tell_to_install_what_exists():
    assert len(TEXTS) > 300
    wrong = {str(path.relative_to(ROOT)): faults(path.read_text()) for path in TEXTS}
    assert {path: found for path, found in wrong.items() if found} == {}


@pytest.mark.parametrize(
    "text",
    [
        "pip install torchstreamer",
        "needs the packages of `torchstreamer[onnx]`",
        "pip install 'torchstreamer[onnx]'",
        "pip install -c constraints.txt -e .[onnx]",
        "pip install -e '.[nothing]'",
        "`pip install soundfiles`",
    ],
)
def test_a_wrong_text_is_found(text):
    assert faults(text)


def test_every_extra_brings_the_package_that_points_to_it():
    for package, extra in EXTRAS.items():
        assert package in extras()[extra]
        error = missing_package(package, "this needs it")
        assert faults(str(error)) == [] and error.name == package
        assert str(error) == (
            f"missing_package: {package} is not installed; this needs it; pip install {package}, or from a clone of "
            f"this project: pip install -e '.[{extra}]'"
        )


def test_without_the_packages_of_onnx_files(monkeypatch, tmp_path):
    stream = pts.create_stream(nn.Conv1d(1, 1, 3))
    for missing in ("onnx", "onnxscript", "onnxruntime"):
        with monkeypatch.context() as without:
            without.setitem(sys.modules, missing, None)
            if missing != "onnxruntime":
                with pytest.raises(ModuleNotFoundError, match=f"^missing_package: {missing} is not"):
                    pts.export(stream, tmp_path / "net.onnx", chunk=4)
            else:
                with pytest.raises(ModuleNotFoundError, match="^missing_package: onnxruntime is not"):
                    pts.load(tmp_path / "net.onnx")
            with pytest.raises(RuntimeError, match=f"^no_backend: .*missing_package: {missing} is not"):
                pts.compile(stream, chunk=4, backend="onnx")
    assert torch.is_tensor(stream(torch.zeros(1, 5)))
