"""Microphone and speaker, by the package ``sounddevice`` where that is installed."""

from importlib import import_module
from typing import Any, Iterator, Optional, Union

import torch
from torch import Tensor

from ..core.whole_numbers import whole_number
from ..errors import missing_package

__all__ = ["Microphone", "Speaker"]

_Device = Union[int, str, None]


class Microphone:
    """Blocks ``[channels, block]`` of a microphone, float32, as they are heard. Needs the package ``sounddevice``.

    Iterate over it; it never ends by itself. The device is asked for the rate that is wanted, and refuses what it
    cannot give.

    Args:
        rate_hz: samples per second
        block: samples of a block
        channels: how many
        device: its number or a part of its name, as ``python -m sounddevice`` lists them; ``None`` for the usual one

    Attributes:
        overflows: how many blocks came after samples that were lost, as nobody took them in time

    Raises:
        OSError: ``no_device``: there is no such device, or it does not do this
        ModuleNotFoundError: there is no ``sounddevice``
    """

    def __init__(self, rate_hz: int, block: int, channels: int = 1, device: _Device = None) -> None:
        self.rate_hz = whole_number(rate_hz, "rate_hz")
        self.block = whole_number(block, "block")
        self.channels = whole_number(channels, "channels")
        self.overflows = 0
        self._stream = _opened("InputStream", rate_hz, channels, device, block)

    def __iter__(self) -> Iterator[Tensor]:
        while True:
            samples, lost = self._stream.read(self.block)
            self.overflows += bool(lost)
            yield torch.tensor(samples, dtype=torch.float32).view(-1, self.channels).mT.contiguous()

    def close(self) -> None:
        """Stop listening."""
        self._stream.close()


class Speaker:
    """Plays pieces ``[channels, t]``. Needs the package ``sounddevice``.

    Args:
        rate_hz: samples per second
        channels: how many; ``None``: those of the first piece
        device: as for `Microphone`

    Attributes:
        underflows: how many pieces came too late, so that there was silence before them

    Raises:
        OSError: ``no_device``: there is no such device, or it does not do this
        ModuleNotFoundError: there is no ``sounddevice``
    """

    def __init__(self, rate_hz: int, channels: Optional[int] = None, device: _Device = None) -> None:
        self.rate_hz = whole_number(rate_hz, "rate_hz")
        self.underflows = 0
        self._device = device
        self._stream: Any = None
        _package()
        if channels is not None:
            self._stream = _opened("OutputStream", rate_hz, channels, device, 0)

    def write(self, piece: Tensor) -> None:
        """Play samples ``[channels, t]``; comes back when there is room for more."""
        if self._stream is None:
            self._stream = _opened("OutputStream", self.rate_hz, piece.shape[0], self._device, 0)
        self.underflows += bool(self._stream.write(piece.float().mT.contiguous().numpy()))

    def close(self) -> None:
        """Play what waits, and stop."""
        if self._stream is not None:
            self._stream.stop()
            self._stream.close()

    def abort(self) -> None:
        """Stop at once."""
        if self._stream is not None:
            self._stream.abort()
            self._stream.close()


def _package() -> Any:
    try:
        return import_module("sounddevice")  # which has no types, and may not be there
    except ImportError as error:
        raise missing_package("sounddevice", "microphone and speaker are used with it") from error
    except OSError as error:  # without PortAudio
        raise OSError(
            f"no_device: sounddevice cannot be loaded ({error}); PortAudio was expected; install libportaudio2"
        ) from error


def _opened(kind: str, rate_hz: int, channels: int, device: _Device, block: int) -> Any:
    package = _package()
    try:
        stream = getattr(package, kind)(
            samplerate=rate_hz, channels=channels, device=device, blocksize=block, dtype="float32"
        )
        stream.start()
    except (package.PortAudioError, ValueError) as error:
        raise OSError(
            f"no_device: {device!r} cannot be opened for {channels} channels at {rate_hz} Hz ({error}); one that "
            "python -m sounddevice lists was expected; take another device, or another rate"
        ) from error
    return stream
