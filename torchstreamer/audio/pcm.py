"""Raw samples, without any header, from pipes and into them."""

import re
from dataclasses import dataclass
from typing import Any, BinaryIO, Dict, Iterator, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.whole_numbers import whole_number
from ..errors import StreamFileError, StreamInputError

__all__ = ["PcmFormat", "PcmReader", "PcmWriter"]

# What a sample is, its bytes, and full scale. All are little-endian, as the machines are that torch runs on.
_ENCODINGS: Dict[str, Tuple[torch.dtype, int, float]] = {
    "s16le": (torch.int16, 2, 2.0**15),
    "s24le": (torch.int32, 3, 2.0**23),
    "s32le": (torch.int32, 4, 2.0**31),
    "f32le": (torch.float32, 4, 1.0),
    "f64le": (torch.float64, 8, 1.0),
}


@dataclass(frozen=True)
class PcmFormat:
    """What raw samples are like; those of all channels stand side by side.

    Attributes:
        encoding: ``"s16le"``, ``"s24le"``, ``"s32le"``, ``"f32le"`` or ``"f64le"``: whole numbers or floats, their
            bits, and the order of their bytes, as ffmpeg calls them
        rate_hz: samples per second; 0 where it is not said
        channels: how many
    """

    encoding: str
    rate_hz: int = 0
    channels: int = 1

    @classmethod
    def parse(cls, text: str) -> "PcmFormat":
        """Read ``encoding:rate:channels``, the last or the last two of which may be missing.

        Raises:
            StreamInputError: ``invalid_raw``: it is something else

        Example:
            >>> from torchstreamer.audio import PcmFormat
            >>> PcmFormat.parse("s16le:16000:2")
            PcmFormat(encoding='s16le', rate_hz=16000, channels=2)
        """
        found = re.fullmatch(r"([a-z0-9]+)(?::([1-9]\d{0,8}))?(?::([1-9]\d{0,3}))?", text)
        if found is None or found[1] not in _ENCODINGS:
            raise StreamInputError(
                f"invalid_raw: {text!r} came; encoding:rate:channels was expected, as s16le:16000:1, the encoding one "
                f"of {', '.join(_ENCODINGS)}; take ffmpeg -f s16le for others"
            )
        return cls(found[1], int(found[2] or 0), int(found[3] or 1))

    @property
    def frame_nbytes(self) -> int:
        """Bytes of a sample of all channels."""
        return _ENCODINGS[self.encoding][1] * self.channels

    def decode(self, data: bytes) -> Tensor:
        """Bytes as samples ``[channels, t]``, float32, or float64 for ``f64le``; full scale between -1 and 1."""
        dtype, nbytes, scale = _ENCODINGS[self.encoding]
        if nbytes < dtype.itemsize:  # three of four bytes, the high ones, of which the highest has the sign
            high = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(-1, nbytes)
            values = F.pad(high, [dtype.itemsize - nbytes, 0]).view(dtype).flatten() >> 8 * (dtype.itemsize - nbytes)
        else:
            values = torch.frombuffer(bytearray(data), dtype=dtype)
        samples = values if dtype.is_floating_point else values.to(torch.float64).div_(scale).float()
        return samples.view(-1, self.channels).mT.contiguous()

    def encode(self, piece: Tensor) -> bytes:
        """Samples ``[channels, t]`` as bytes; whole numbers are rounded, and clipped beyond full scale."""
        dtype, nbytes, scale = _ENCODINGS[self.encoding]
        samples = piece.mT
        if not dtype.is_floating_point:
            samples = samples.to(torch.float64).mul(scale).round_().clamp_(-scale, scale - 1)
        values = samples.to(dtype).contiguous().view(-1)
        if nbytes < dtype.itemsize:
            values = values.view(torch.uint8).view(-1, dtype.itemsize)[:, :nbytes]
        return bytes(values.numpy().tobytes())


class PcmReader:
    """Raw samples of a binary file that is open, as ``sys.stdin.buffer``, block by block.

    Iterate over it for blocks ``[channels, block]``; the last one is shorter.

    Args:
        file: where the bytes come from
        format: what they are
        block: samples of a block, per channel
        partial: whether bytes at the end that are no whole sample are left out; by default they are an error

    Attributes:
        cut_short: what was found missing with ``partial``, in words; '' if nothing

    Raises:
        StreamFileError: ``cut_short``, at the end

    Example:
        >>> import io
        >>> from torchstreamer.audio import PcmFormat, PcmReader
        >>> sound = PcmReader(io.BytesIO(bytes([0, 64, 0, 192])), PcmFormat("s16le", 16000), block=100)
        >>> list(sound)
        [tensor([[ 0.5000, -0.5000]])]
    """

    def __init__(self, file: BinaryIO, format: PcmFormat, block: int, *, partial: bool = False) -> None:
        self.file = file
        self.format = format
        self.block = whole_number(block, "block")
        self.partial = partial
        self.cut_short = ""

    def __iter__(self) -> Iterator[Tensor]:
        size = self.format.frame_nbytes
        while True:
            data = self.file.read(self.block * size)
            rest = len(data) % size
            if len(data) > rest:
                yield self.format.decode(data[: len(data) - rest])
            if rest:
                self.cut_short = f"{rest} bytes at the end are no sample of {size} bytes"
                if not self.partial:
                    raise StreamFileError(
                        f"cut_short: {self.cut_short}; whole samples of {self.format.channels} channels were expected; "
                        "look at the format, or take partial=True"
                    )
            if len(data) < self.block * size:
                return


class PcmWriter:
    """Writes raw samples to a binary file that is open, as ``sys.stdout.buffer``, each piece at once.

    Args:
        file: where the bytes go
        format: what they are to be

    Attributes:
        clipped: how many samples, in all channels, were beyond -1 and 1 where that is lost

    Raises:
        OSError: they cannot be written, as ``BrokenPipeError``
    """

    def __init__(self, file: Any, format: PcmFormat) -> None:
        self.file = file
        self.format = format
        self.clipped = 0

    def write(self, piece: Tensor) -> None:
        """Write samples ``[channels, t]``."""
        if self.format.encoding[0] != "f":
            self.clipped += int((piece.abs() > 1).sum())
        self.file.write(self.format.encode(piece))
        self.file.flush()

    def close(self) -> None:
        """Write what waits; the file stays open."""
        self.file.flush()
