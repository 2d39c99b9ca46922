"""INPUT and OUTPUT of a run: files, pipes and devices, as one kind of thing."""

import os
import sys
from contextlib import contextmanager
from typing import Any, Iterator, List, Optional, Union

from torch import Tensor

from ..audio.devices import Microphone, Speaker
from ..audio.files import SoundReader, SoundWriter
from ..audio.pcm import PcmFormat, PcmReader, PcmWriter
from ..errors import StreamFileError, StreamInputError
from .failing import Code, Failure, blame
from .quantities import samples_in

__all__ = ["Sink", "Source", "open_sink", "open_source"]

_DEVICE = "device:"


class Source:
    """What is read: blocks ``[channels, block]``.

    Attributes:
        name: of it
        rate_hz: samples per second
        channels: how many
        block: samples of a block
        frames: how many samples there are, if that is known
    """

    def __init__(self, name: str, reader: Any, rate_hz: int, channels: int, block: int) -> None:
        self.name = name
        self.reader = reader
        self.rate_hz = rate_hz
        self.channels = channels
        self.block = block
        self.frames: Optional[int] = getattr(reader, "frames", None)

    def __iter__(self) -> Iterator[Tensor]:
        with _reading():
            yield from self.reader

    def close(self) -> None:
        """Close it."""
        if hasattr(self.reader, "close"):
            self.reader.close()

    def warnings(self) -> List[str]:
        """What is to be told of it in the end."""
        told = []
        if getattr(self.reader, "cut_short", ""):
            told.append(f"{self.name}: {self.reader.cut_short}")
        if getattr(self.reader, "overflows", 0):
            told.append(f"{self.reader.overflows} times samples of the microphone were lost: take longer chunks")
        return told


class Sink:
    """Where the output goes.

    Attributes:
        name: of it
    """

    def __init__(self, name: str, writer: Any) -> None:
        self.name = name
        self.writer = writer

    def write(self, piece: Tensor) -> None:
        """Write ``[channels, t]``."""
        self.writer.write(piece)

    def close(self) -> None:
        """Keep it."""
        self.writer.close()

    def abort(self) -> None:
        """Take it away, where that can be."""
        if hasattr(self.writer, "abort"):
            self.writer.abort()

    def warnings(self) -> List[str]:
        """What is to be told of it in the end."""
        told = []
        if getattr(self.writer, "clipped", 0):
            told.append(f"{self.name}: {self.writer.clipped} samples beyond full scale were clipped: store floats")
        if getattr(self.writer, "underflows", 0):
            told.append(f"{self.writer.underflows} times the speaker waited: take shorter chunks, or a faster model")
        return told


@contextmanager
def _reading() -> Iterator[None]:
    with blame(Code.INPUT):
        try:
            yield
        except StreamFileError as error:
            raise Failure(Code.INPUT, str(error).replace("partial=True", "--partial")) from error


def open_source(name: str, raw: Optional[str], chunk: str, partial: bool, model_rate: Optional[int]) -> Source:
    """INPUT.

    Raises:
        Failure: it cannot be read, or options do not fit it
    """
    if name != "-" and not name.startswith(_DEVICE):
        with _reading():
            reader = SoundReader(name, 1, partial=partial)
        reader.block = samples_in(chunk, reader.rate_hz)
        return Source(os.path.basename(name), reader, reader.rate_hz, reader.channels, reader.block)
    kind = PcmFormat("f32le") if raw is None else _raw(raw)
    rate = kind.rate_hz or (model_rate if name != "-" else None)
    if rate is None or (raw is None and name == "-"):
        raise Failure(
            Code.USAGE,
            f"missing_raw: {'no --raw' if raw is None else raw} came; encoding:rate:channels was expected for {name}; "
            "give them, as --raw s16le:16000:1",
        )
    block = samples_in(chunk, rate)
    with blame(Code.INPUT):
        if name == "-":
            pcm = PcmReader(sys.stdin.buffer, kind, block, partial=partial)
            return Source("stdin", pcm, rate, kind.channels, block)
        return Source("microphone", Microphone(rate, block, kind.channels, _device(name)), rate, kind.channels, block)


def open_sink(
    name: str, raw: Optional[str], rate_hz: int, subtype: Optional[str], frames: Optional[int], source: Source
) -> Sink:
    """OUTPUT.

    Raises:
        Failure: it cannot be written, or options do not fit it
    """
    if name == "-":
        return Sink("stdout", PcmWriter(sys.stdout.buffer, _raw(raw or "f32le")))
    if name.startswith(_DEVICE):
        with blame(Code.OUTPUT):
            return Sink("speaker", Speaker(rate_hz, device=_device(name)))
    read = getattr(source.reader, "path", None)
    if read is not None and os.path.exists(name) and os.path.samefile(name, read):
        raise Failure(Code.USAGE, f"same_file: {name} came as input and output; two files were expected; name another")
    with blame(Code.OUTPUT):
        try:
            return Sink(name, SoundWriter(name, rate_hz, subtype=subtype or _alike(name, source), frames=frames))
        except StreamInputError as error:
            raise Failure(Code.USAGE, str(error)) from error


def _alike(name: str, source: Source) -> Optional[str]:
    # Stored as in the input, if the output is of its format.
    if name.rpartition(".")[2].upper() == getattr(source.reader, "format", None):
        return str(source.reader.subtype)
    return None


def _raw(text: str) -> PcmFormat:
    try:
        return PcmFormat.parse(text)
    except StreamInputError as error:
        raise Failure(Code.USAGE, str(error)) from error


def _device(name: str) -> Union[int, str, None]:
    told = name[len(_DEVICE) :]
    return int(told) if told.isdigit() else told or None
