"""States as files, which are whole or not there."""

import hashlib
import io
import os
import secrets
from pathlib import Path
from typing import Dict, Union

import torch
from torch import Tensor

from ..errors import StreamFileError
from .state import require_named_tensors, require_plain

__all__ = ["load_state", "save_state"]

# How a file begins; the SHA-256 of the rest follows, in hexadecimal digits, and a line end.
_MAGIC = b"torchstreamer state 1 "

PathLike = Union[str, "os.PathLike[str]"]


def save_state(path: PathLike, state: Dict[str, Tensor]) -> None:
    """Write a state to a file, so that there is the old one or the new one, whole, whatever happens meanwhile.

    It is written to a temporary file in the same folder, named ``.NAME.….tmp``, which then takes the other's place. A
    process that is killed may leave that one behind; it can be deleted.

    Args:
        path: the file; replaced if there is one
        state: what ``get_state()`` gave, of a stream, a `StaticStream` or a runner of tensors

    Raises:
        StreamInputError: ``state`` is no dictionary of names and dense tensors
        OSError: the file cannot be written; an earlier one is as it was

    Example:
        >>> import os, tempfile, torch, torchstreamer as pts
        >>> stream = pts.create_stream(torch.nn.Conv1d(1, 2, 5))
        >>> _ = stream(torch.randn(1, 20))
        >>> path = os.path.join(tempfile.mkdtemp(), "state")
        >>> pts.save_state(path, stream.get_state())
        >>> stream.set_state(pts.load_state(path))
    """
    require_named_tensors(state)
    require_plain(state)
    buffer = io.BytesIO()
    torch.save({key: value.detach().cpu() for key, value in state.items()}, buffer)
    content = buffer.getbuffer()
    target = Path(os.path.realpath(path))  # through links
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(_MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n")
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _settle(target.parent)


def load_state(path: PathLike) -> Dict[str, Tensor]:
    """Read a state that `save_state` wrote, on the CPU; ``set_state()`` moves it to where the stream is.

    The checksum is compared before anything is unpacked, and nothing in the file is run.

    Raises:
        FileNotFoundError: there is no such file
        StreamFileError: the file is damaged, cut off, or none that `save_state` wrote
    """
    with open(path, "rb") as file:
        found = file.read()
    end = len(_MAGIC) + 64
    content = memoryview(found)[end + 1 :]
    if not found.startswith(_MAGIC) or found[end : end + 1] != b"\n":
        raise StreamFileError(
            f"invalid_file: {os.fspath(path)} holds no state; a file of torchstreamer.save_state was expected; check "
            "the path, or load what torch.save wrote with torch.load"
        )
    if hashlib.sha256(content).hexdigest().encode() != found[len(_MAGIC) : end]:
        raise StreamFileError(
            f"damaged_file: {os.fspath(path)} is damaged or cut off: its checksum is not that of its {len(content)} "
            "bytes; the file as torchstreamer.save_state wrote it was expected; take a copy of it"
        )
    try:
        state: Dict[str, Tensor] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        require_named_tensors(state)
    except Exception as error:  # a foreign file with a right checksum
        raise StreamFileError(
            f"invalid_file: {os.fspath(path)} holds no state, {type(error).__name__} came; a file of "
            "torchstreamer.save_state was expected; write it anew"
        ) from error
    return state


def _settle(folder: Path) -> None:
    # The new name is on the disk, too, where a folder can be flushed.
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
