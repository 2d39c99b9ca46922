"""What the headers of sound files tell, and whether a file is as long as its header says."""

import os
import stat
from typing import Any, NamedTuple, Tuple, Union

from ..errors import missing_package

__all__ = ["Header", "check_whole", "read_header", "soundfile", "told_nbytes"]

# What stands as the size of a RIFF file by a program that could not go back to write it.
_UNKNOWN = (0, 0xFFFFFFFF, 0x7FFFF000 + 36)


class Header(NamedTuple):
    """What the header of a sound file tells."""

    frames: int
    rate_hz: int
    channels: int


def read_header(path: Union[str, "os.PathLike[str]"]) -> Header:
    """What the header of a sound file tells.

    Raises:
        Exception: it cannot be read, or is cut short: whatever the decoder says
    """
    check_whole(path)
    info = soundfile().info(os.fspath(path))
    return Header(info.frames, info.samplerate, info.channels)


def check_whole(path: Union[str, "os.PathLike[str]"]) -> None:
    """Refuse a file that is shorter than its header says.

    Raises:
        OSError: it cannot be opened
        ValueError: it is no file, or cut short
    """
    told, there = told_nbytes(path)
    if there < told:
        raise ValueError(f"it is cut short: it has {there} bytes; expected {told}, as its header says; get it whole")


def told_nbytes(path: Union[str, "os.PathLike[str]"]) -> Tuple[int, int]:
    """The size of a file as its header says, 0 where it does not, and as it is.

    Libsndfile takes what is left of a WAV or AIFF file that was cut short, and says nothing.

    Raises:
        OSError: it cannot be opened
        ValueError: it is no file
    """
    about = os.stat(path)
    if not stat.S_ISREG(about.st_mode):
        raise ValueError("it is no file; expected a sound file; leave it out")
    with open(path, "rb") as file:
        head = file.read(32)
    told = None
    if head[:4] in (b"RIFF", b"RIFX", b"FORM"):
        told = int.from_bytes(head[4:8], "little" if head[:4] == b"RIFF" else "big")
    elif head[:4] in (b"RF64", b"BW64") and head[12:16] == b"ds64":
        told = int.from_bytes(head[20:28], "little")
    return (0 if told is None or told in _UNKNOWN else told + 8), about.st_size


def soundfile() -> Any:
    """The package soundfile.

    Raises:
        ModuleNotFoundError: it is missing
    """
    try:
        import soundfile  # type: ignore[import-untyped]
    except ImportError as error:
        raise missing_package("soundfile", "sound files are read and written with it") from error
    return soundfile
