"""Libraries of C++ as files: a stream that any machine of its kind runs, with what is told of it at the end."""

import json
import os
from pathlib import Path
from typing import Any, Dict, Union

from ..core.stream import BaseStream
from ..errors import StreamFileError
from .chunks import check_one_signal
from .exported_file import parse_library, read_sealed, refusal
from .files import LIBRARY_SEAL, seal
from .native import NativePlan, source_of_plan
from .native_build import build, features, missing_features
from .native_rows import Library
from .native_stream import NativeStream, geometry_of

__all__ = ["load_library", "save_library"]

_LENGTH = 8  # bytes of the length of what is told
_DIGEST = 64


def save_library(stream: BaseStream, place: Path, carried: Dict[str, Any], name: str = "Net", **options: Any) -> None:
    """Write a stream of one signal as a library, with its weights.

    Args:
        stream: the stream
        place: the file
        carried: metadata, and what else is told of the stream
        name: of the class, and in small letters of the functions
        options: for `StaticStream`, as ``channels`` and ``dtype``

    Raises:
        UnsupportedModuleError: ``not_native``: something in it cannot be written; or it has several signals
        RuntimeError: there is no compiler, or it failed
    """
    check_one_signal(stream)
    plan = NativePlan(stream, **options)
    program = plan.program()
    source = source_of_plan(plan, program, False, carried.get("sampling_fs"), name, rows=True)
    told = {**geometry_of(plan, program.outputs[0].most_at_end), "features": features(), **carried}
    build(source, place)
    text = json.dumps(told).encode()
    parse_library(text.decode())  # what could not be loaded is not written
    with open(place, "ab") as file:  # which loaders of libraries pass over
        file.write(text + len(text).to_bytes(_LENGTH, "little"))
    seal(place)


def load_library(path: Union[str, "os.PathLike[str]"]) -> NativeStream:
    """A stream of a library that `save_library` wrote.

    Raises:
        FileNotFoundError: there is no such file
        StreamFileError: it is no such library, or damaged, or of another kind of machine
    """
    data = read_sealed(path, LIBRARY_SEAL, StreamFileError)
    end = len(data) - len(LIBRARY_SEAL) - _DIGEST - _LENGTH
    begin = end - int.from_bytes(data[end : end + _LENGTH], "little")
    try:
        if not 0 < begin < end:
            raise ValueError("nothing is told of the net in it")
        geometry = parse_library(data[begin:end].decode())
        if missing := missing_features(geometry["features"]):
            raise ValueError(f"this machine lacks instructions that it was built with: {', '.join(missing)}")
        return NativeStream(Library(Path(os.path.abspath(path))), geometry)
    except (ValueError, OSError, AttributeError) as error:
        raise StreamFileError(refusal(path, str(error) or type(error).__name__)) from error
