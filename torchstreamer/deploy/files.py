"""Exported files as they are written and taken: whole, sealed, and checked."""

import hashlib
import io
import json
import os
import re
import stat
import tempfile
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, Optional, Union

from ..errors import StreamFileError
from .exported_file import SEAL, read_sealed, refusal

__all__ = [
    "LIBRARY_SEAL",
    "checked_destination",
    "checked_metadata",
    "checked_suffix",
    "read_archive",
    "replacing",
    "seal",
    "source_suffix",
]

# What stands before the checksum at the end of a file. Archives have both as their comment, which readers pass over.
LIBRARY_SEAL = b"torchstreamer.so sha256 "
_SEALS = {
    ".pt": b"torchstreamer.pt sha256 ",
    ".pt2": b"torchstreamer.pt2 sha256 ",
    ".onnx": SEAL,
    ".so": LIBRARY_SEAL,
}
_DIGEST = 64
_END = b"PK\5\6"  # of an archive: a record of 22 bytes, the last two of which are the length of the comment
_BLOWUP = 100  # what an archive unpacks to, at most, in its own sizes


def checked_suffix(path: Union[str, "os.PathLike[str]"]) -> Optional[str]:
    """The suffix that says what a file is, in lower case; ``None`` if it says nothing."""
    suffix = Path(path).suffix.lower()
    return suffix if suffix in _SEALS else None


def source_suffix(path: Union[str, "os.PathLike[str]"]) -> Optional[str]:
    """The suffix of a file that is to be compiled, in lower case; ``None`` of any other."""
    suffix = Path(path).suffix.lower()
    return suffix if suffix in (".hpp", ".cpp") else None


# ------------------------------------------------------------------ writing


def checked_destination(path: Union[str, "os.PathLike[str]"]) -> Path:
    """Where a file is to be written, links followed.

    Raises:
        FileNotFoundError: its folder is missing
        IsADirectoryError: a folder has this name
    """
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"missing_folder: {path} came, and there is no folder {target.parent}; a folder that exists was expected; "
            "make it first"
        )
    if target.is_dir():
        raise IsADirectoryError(f"invalid_path: {path} is a folder; the name of a file was expected; give another")
    return target


def checked_metadata(metadata: Optional[Dict[str, Any]]) -> Dict[str, Any]:
    """A copy of metadata.

    Raises:
        ValueError: it would not come back from JSON as it is
    """
    if metadata is None:
        return {}
    try:
        copied = json.loads(json.dumps(metadata, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(_invalid_metadata(str(error))) from error
    if not isinstance(metadata, dict):
        raise ValueError(_invalid_metadata(f"a {type(metadata).__name__}"))
    if not _alike(metadata, copied):
        raise ValueError(_invalid_metadata("JSON gives it back as " + repr(copied)[:200]))
    return copied


def _invalid_metadata(came: str) -> str:
    return (
        f"invalid_metadata: {came}; a dict of what JSON holds was expected; give strings as keys, and lists, dicts, "
        "strings, finite numbers, booleans or None as values"
    )


def _alike(one: Any, other: Any) -> bool:
    # Types too: JSON takes tuples, and numbers as keys, and gives back others.
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(_alike(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    return bool(one == other) and type(one) is type(other)


@contextmanager
def replacing(target: Path, suffix: str) -> Iterator[Path]:
    """A place beside a file to write another to, which takes the place of the first if nothing fails.

    Args:
        target: the file
        suffix: of the other one
    """
    with tempfile.TemporaryDirectory(prefix=".torchstreamer-", dir=target.parent) as folder:
        place = Path(folder) / (target.stem + suffix)
        yield place
        os.replace(place, target)


def seal(path: Path) -> None:
    """Put the seal at the end of a file, and the SHA-256 of all that stands before."""
    mark = _SEALS[path.suffix]
    with open(path, "r+b") as file:
        if path.suffix in (".pt", ".pt2"):
            file.seek(-22, os.SEEK_END)
            end = file.read()
            assert end[:4] == _END and end[-2:] == b"\0\0"  # no comment yet
            file.seek(-2, os.SEEK_END)
            file.write((len(mark) + _DIGEST).to_bytes(2, "little"))
        file.seek(0, os.SEEK_END)
        file.write(mark)
        file.seek(0)
        digest = hashlib.sha256()
        while block := file.read(2**20):
            digest.update(block)
        file.write(digest.hexdigest().encode())
        file.flush()
        os.fsync(file.fileno())


# ------------------------------------------------------------------ reading


def read_archive(path: Union[str, "os.PathLike[str]"]) -> bytes:
    """The bytes of a ``.pt`` or ``.pt2`` file, after its checksum and the names in it were found right.

    Raises:
        FileNotFoundError: there is no such file
        StreamFileError: it is no export, or damaged, or would write outside of the folder it is unpacked to
    """
    mark = _SEALS[Path(path).suffix.lower()]
    data = read_sealed(path, mark, StreamFileError)
    try:
        if data[-(22 + len(mark) + _DIGEST) :][:4] != _END:
            raise ValueError("it is no archive")
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
        _check_entries(entries, len(data))
    except (ValueError, zipfile.BadZipFile, NotImplementedError, UnicodeError) as error:
        raise StreamFileError(refusal(path, str(error))) from error
    return data


def _check_entries(entries: "list[zipfile.ZipInfo]", size: int) -> None:
    names = [entry.orig_filename for entry in entries]
    for entry, name in zip(entries, names, strict=True):
        if (
            not name
            or re.search(r"^/|\\|\0|^[A-Za-z]:|(^|/)\.\.(/|$)", name)
            or stat.S_ISLNK(entry.external_attr >> 16)
        ):
            raise ValueError(f"the name {name[:80]!r} in it lies outside of the folder it is unpacked to")
    if len(set(names)) < len(names):
        raise ValueError("two parts of it have one name")
    if sum(entry.file_size for entry in entries) > _BLOWUP * size:
        raise ValueError("it would unpack to far more than it is")
