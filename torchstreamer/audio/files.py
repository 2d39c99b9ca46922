"""Sound files, read in blocks and written while the sound is made."""

import os
from pathlib import Path
from types import TracebackType
from typing import Any, Iterator, Optional, Type, Union

import torch
from torch import Tensor

from ..core.whole_numbers import whole_number
from ..errors import StreamFileError, StreamInputError
from .headers import soundfile, told_nbytes
from .part_file import PartFile

__all__ = ["SoundReader", "SoundWriter"]

_Path = Union[str, "os.PathLike[str]"]
_LARGEST = 2**32 - 2**16  # bytes of a WAV file, whose header has 32 bits for them
_DTYPES = {torch.float32: "float32", torch.float64: "float64"}


class SoundReader:
    """A sound file, block by block. Needs the package ``soundfile``, which reads WAV, FLAC, OGG, MP3 and more.

    Iterate over it for blocks ``[channels, block]``, full scale between -1 and 1; the last one is shorter. It closes
    itself at the end, and as a context.

    Args:
        path: the file
        block: samples of a block, per channel
        partial: whether what there is of a file that was cut short is read; by default it is refused
        dtype: of the samples: ``torch.float32`` or ``torch.float64``

    Attributes:
        rate_hz: samples per second
        channels: how many
        frames: samples per channel, as the header says
        format: of the file, by soundfile's names, as ``"WAV"``
        subtype: how samples are stored, as ``"PCM_16"``
        cut_short: what was found missing of a file that is read with ``partial``, in words; '' if nothing

    Raises:
        OSError: it cannot be opened, as ``FileNotFoundError``
        StreamFileError: ``invalid_sound``: it is no sound file, or damaged; ``cut_short``: it is shorter than its
            header says
        ModuleNotFoundError: there is no ``soundfile``

    Example:
        >>> import os, tempfile, torch
        >>> from torchstreamer.audio import SoundReader, SoundWriter
        >>> path = os.path.join(tempfile.mkdtemp(), "tone.wav")
        >>> with SoundWriter(path, rate_hz=16000) as out:
        ...     out.write(torch.zeros(1, 4000))
        >>> with SoundReader(path, block=1600) as sound:
        ...     [tuple(block.shape) for block in sound]
        [(1, 1600), (1, 1600), (1, 800)]
    """

    def __init__(self, path: _Path, block: int, *, partial: bool = False, dtype: torch.dtype = torch.float32) -> None:
        self.path = Path(path)
        self.block = whole_number(block, "block")
        self.partial = partial
        self.cut_short = ""
        if dtype not in _DTYPES:
            raise StreamInputError(
                f"invalid_dtype: {dtype}; expected torch.float32 or torch.float64; convert the blocks to others"
            )
        self._dtype = _DTYPES[dtype]
        package = soundfile()
        try:
            told, there = told_nbytes(path)  # which opens it: libsndfile does not say why it cannot
            if there < told:
                self._missing(f"it has {there} bytes of {told}, as its header says")
            self._file = package.SoundFile(os.fspath(path))
        except StreamFileError:
            raise
        except (package.LibsndfileError, TypeError, ValueError) as error:  # for some suffixes it wants to be told more
            raise StreamFileError(
                f"invalid_sound: {path} cannot be read ({str(error).split(';')[0].rstrip('.')}); a sound file was "
                "expected; convert it to WAV or FLAC"
            ) from error
        self.rate_hz: int = self._file.samplerate
        self.channels: int = self._file.channels
        self.frames: int = self._file.frames
        self.format: str = self._file.format
        self.subtype: str = self._file.subtype

    def __iter__(self) -> Iterator[Tensor]:
        package = soundfile()
        at = 0
        with self:
            while at < self.frames:
                wanted = min(self.block, self.frames - at)
                try:
                    samples = self._file.read(wanted, dtype=self._dtype, always_2d=True)
                except package.LibsndfileError as error:
                    self._missing(f"it is damaged after {at} samples ({error})")
                    return
                at += len(samples)
                if len(samples):
                    yield torch.from_numpy(samples).mT.contiguous()
                if len(samples) < wanted:
                    self._missing(f"it ends after {at} samples of {self.frames}, as its header says")
                    return

    def _missing(self, what: str) -> None:
        if not self.partial:
            raise StreamFileError(
                f"cut_short: {self.path}: {what}; all of it was expected; get it whole, or take partial=True"
            )
        self.cut_short = what

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> "SoundReader":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class SoundWriter:
    """A sound file that is written while the sound is made. Needs the package ``soundfile``.

    It has its name only when it is whole: until then it is ``NAME.part``. As a context it is kept when all went well,
    and taken away after an error. Samples beyond -1 and 1 are clipped where the file holds whole numbers.

    Args:
        path: the file; its suffix says of which format
        rate_hz: samples per second
        subtype: how samples are stored, by soundfile's names, as ``"PCM_16"``; by default ``"FLOAT"`` for WAV and AIFF,
            as they are, and what is usual for other formats
        format: by soundfile's names, where the suffix does not say
        frames: how many samples there will be, if that is known. A WAV file of 4 GiB or more becomes an RF64 file

    Attributes:
        frames_written: samples so far
        clipped: how many of them, in all channels, were beyond -1 and 1 where that is lost

    Raises:
        OSError: the file cannot be opened
        StreamInputError: ``invalid_format``: there is no such format, or it does not hold such samples
        ModuleNotFoundError: there is no ``soundfile``

    Example:
        >>> import os, tempfile, torch
        >>> from torchstreamer.audio import SoundReader, SoundWriter
        >>> path = os.path.join(tempfile.mkdtemp(), "tone.flac")
        >>> with SoundWriter(path, rate_hz=16000) as out:
        ...     for _ in range(3):
        ...         out.write(torch.zeros(2, 160))
        >>> SoundReader(path, block=480).frames
        480
    """

    def __init__(
        self,
        path: _Path,
        rate_hz: int,
        *,
        subtype: Optional[str] = None,
        format: Optional[str] = None,
        frames: Optional[int] = None,
    ) -> None:
        package = soundfile()
        self.rate_hz = whole_number(rate_hz, "rate_hz")
        self.frames_written = 0
        self.clipped = 0
        found = format or Path(path).suffix[1:]
        self.format = {"AIF": "AIFF", "OGA": "OGG", "OPUS": "OGG", "WAVE": "WAV"}.get(found.upper(), found.upper())
        if found.lower() == "opus":
            subtype = subtype or "OPUS"
        if subtype is None and self.format in ("WAV", "RF64", "AIFF", "W64"):
            subtype = "FLOAT"
        known = self.format in package.available_formats()
        if not known or not package.check_format(self.format, subtype):
            raise StreamInputError(
                f"invalid_format: {os.fspath(path)!r} with format={format!r}, subtype={subtype!r} came; a suffix of a "
                "format that soundfile writes was expected, and a subtype that it holds; take .wav or .flac"
            )
        self.subtype: str = subtype or package.default_subtype(self.format)
        self._frames = frames
        self._held: Optional[_Held] = None
        self._place = PartFile(path)
        self._raw = open(self._place.part, "wb+", buffering=0)
        self._file: Any = None

    def write(self, piece: Tensor) -> None:
        """Write the next samples.

        Args:
            piece: ``[channels, t]``, on the CPU; it may be a part of larger memory

        Raises:
            OSError: they cannot be written: the disk is full
            StreamInputError: ``invalid_piece``: it has another shape
        """
        if piece.dim() != 2 or (self._file is not None and piece.shape[0] != self._file.channels):
            wanted = "channels" if self._file is None else str(self._file.channels)
            raise StreamInputError(
                f"invalid_piece: a piece of shape {list(piece.shape)} came; [{wanted}, t] was expected; write such one"
            )
        if self._file is None:
            self._open(piece.shape[0])
        if self.subtype not in ("FLOAT", "DOUBLE", "VORBIS", "OPUS"):
            self.clipped += int((piece.abs() > 1).sum())
        samples = piece if piece.dtype == torch.float64 else piece.float()
        self._guarded(lambda: self._file.write(samples.mT.contiguous().numpy()))
        self.frames_written += piece.shape[1]

    def close(self) -> None:
        """Keep the file: it is whole.

        Raises:
            OSError: the rest cannot be written; then the file is taken away
        """
        try:
            if self._file is None:
                self._open(1)
            self._guarded(self._file.close)
            if self.format == "RF64" and self._raw.seekable():
                _as_riff(self._raw)
            self._raw.close()
            self._place.keep()
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Take the file away."""
        if self._held is not None:
            self._held.gone = True
        if self._file is not None:
            self._file.close()
        self._raw.close()
        self._place.drop()

    def __enter__(self) -> "SoundWriter":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abort()

    def _open(self, channels: int) -> None:
        package = soundfile()
        # Nobody knows how long it becomes: begin with a header that has the room, and take it back at the end.
        size = _bytes_of(self.subtype) * channels * (self._frames or 0)
        if self.format == "WAV" and (self._frames is None or size > _LARGEST):
            self.format = "RF64"
        self._held = held = _Held(self._raw)
        try:
            self._guarded(lambda: self._begin(package, held, channels))
        except package.LibsndfileError as error:
            raise StreamInputError(
                f"invalid_format: {channels} channels at {self.rate_hz} Hz came for {self._place.target.name}; what "
                f"{self.format} holds was expected ({error}); take .wav"
            ) from error

    def _begin(self, package: Any, held: "_Held", channels: int) -> None:
        self._file = package.SoundFile(held, "w", self.rate_hz, channels, self.subtype, format=self.format)

    def _guarded(self, work: Any) -> None:
        # Libsndfile says "System error.", or nothing: what really happened stands with the file.
        try:
            work()
        except Exception:
            if self._held is None or self._held.error is None:
                raise
        if self._held is not None and self._held.error is not None:
            error, self._held.error, self._held.gone = self._held.error, None, True
            raise error


class _Held:
    # A file as libsndfile wants it, which keeps the first error, as none can pass through a library in C.
    def __init__(self, raw: Any) -> None:
        self.raw = raw
        self.error: Optional[OSError] = None
        self.gone = False

    def write(self, data: Any) -> int:
        rest = memoryview(bytes(data))
        size = len(rest)
        if self.gone or self.error is not None:
            return size
        try:
            while rest:
                rest = rest[self.raw.write(rest) :]
        except OSError as error:
            self.error = error
            return 0
        return size

    def read(self, size: int = -1) -> bytes:
        return bytes(self.raw.read(size) or b"")

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self.raw.seek(offset, whence))

    def tell(self) -> int:
        return int(self.raw.tell())


def _bytes_of(subtype: str) -> int:
    return {"PCM_S8": 1, "PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "DOUBLE": 8}.get(subtype, 4)


def _as_riff(file: Any) -> None:
    """Make an RF64 file of less than 4 GiB a plain WAV file, the sizes of all chunks kept (EBU Tech 3306).

    The chunk for large sizes becomes junk, and so does what the format tells beyond the plain one.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(128)
    begins = (head[:4], head[12:16], head[48:56], head[96:100])
    if size > _LARGEST or begins != (b"RF64", b"ds64", b"fmt \x28\0\0\0", b"data"):
        return
    kind = head[80:82]  # begins the long name of the kind of samples, PCM or float
    changed = {
        0: b"RIFF" + (size - 8).to_bytes(4, "little"),
        12: b"JUNK",
        52: (16).to_bytes(4, "little") + kind,
        72: b"JUNK" + (16).to_bytes(4, "little"),
        100: head[28:32],  # of the size of the data, the lower half
    }
    for place, text in changed.items():
        file.seek(place)
        file.write(text)
