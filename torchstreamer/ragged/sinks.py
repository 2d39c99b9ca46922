"""Where outputs of files go: sound files, arrays, or memory. A file has its name only when it is whole."""

import os
from pathlib import Path
from typing import Dict, List, Optional, Protocol, Tuple, Union

import torch
from torch import Tensor

from ..audio.files import SoundWriter
from ..audio.headers import read_header, soundfile
from ..audio.part_file import PartFile
from ..errors import StreamInputError

__all__ = ["ArrayFiles", "OutputsInMemory", "Sink", "WaveFiles", "Writer"]

_Path = Union[str, Path]
_HEADER = 128  # bytes of the header of an array file, more than any needs


class Writer(Protocol):
    """Takes the output of one file. On failure ``abort()``, if it has that, is called instead of ``close()``."""

    def write(self, piece: Tensor, /) -> object:
        """Take the next samples, ``[C', t']``, on the CPU; they may be a part of larger memory."""

    def close(self) -> object:
        """Keep the output: it is whole."""


class Sink(Protocol):
    """Opens a `Writer` for each file. A method ``prepare(ratio)``, if there is one, is told outputs and inputs."""

    def __call__(self, path: str, /) -> Writer:
        """Begin the output of a file."""


class _Files:
    # Names of outputs: beside the inputs, or in a folder.
    def __init__(self, folder: Optional[_Path], suffix: str, root: Optional[_Path]) -> None:
        self.folder = None if folder is None else Path(folder)
        self.suffix = suffix
        self.root = None if root is None else Path(root)

    def target(self, path: str) -> Path:
        """Where the output of a file goes."""
        source = Path(path)
        if self.folder is None:
            return source.with_name(source.stem + self.suffix)
        within = Path(source.name) if self.root is None else source.absolute().relative_to(self.root.absolute())
        return self.folder / within.with_name(within.stem + self.suffix)


def _place_for(target: Path) -> PartFile:
    target.parent.mkdir(parents=True, exist_ok=True)
    return PartFile(target)


class ArrayFiles(_Files):
    """A sink of `stream_files`: an array ``[C', T']`` on the disk for each file, written as it comes.

    Args:
        folder: where to; ``None``: beside the input
        suffix: takes the place of the input's: it ends in ``.npy``, for ``numpy.load``, or ``.pt``, for ``torch.load``
        root: a folder that all inputs are in; below ``folder`` outputs stand as inputs do below ``root``. ``None``:
            side by side

    Raises:
        StreamInputError: ``invalid_suffix``
    """

    def __init__(self, folder: Optional[_Path] = None, suffix: str = ".npy", root: Optional[_Path] = None) -> None:
        if not suffix.endswith((".npy", ".pt")):
            raise StreamInputError(
                f"invalid_suffix: {suffix!r} came; one that ends in .npy or .pt was expected; take one"
            )
        super().__init__(folder, suffix, root)

    def __call__(self, path: str) -> "_ArrayWriter":
        return _ArrayWriter(self.target(path))


class _ArrayWriter:
    # Samples one after the other, each with all channels: that can be written without knowing how many there will be.
    def __init__(self, target: Path) -> None:
        self._place = _place_for(target)
        self._file = open(self._place.part, "wb")
        self._offset = _HEADER if target.suffix == ".npy" else 0
        self._file.write(bytes(self._offset))
        self._like = torch.empty(0, 0)
        self._samples = 0

    def write(self, piece: Tensor) -> None:
        if piece.dtype == torch.bfloat16:
            piece = piece.float()  # arrays have no such dtype
        self._like = piece[:, :0]
        self._samples += piece.shape[1]
        self._file.write(piece.mT.contiguous().numpy().data)

    def close(self) -> None:
        channels = self._like.shape[0]
        if self._offset:
            self._file.seek(0)
            told = {"descr": self._like.numpy().dtype.str, "fortran_order": True, "shape": (channels, self._samples)}
            text = repr(told).encode()
            self._file.write(b"\x93NUMPY\x01\x00" + (_HEADER - 10).to_bytes(2, "little"))
            self._file.write(text.ljust(_HEADER - 11) + b"\n")
            self._file.close()
            self._place.keep()
            return
        self._file.close()
        whole = self._like
        if self._samples:
            size = channels * self._samples
            whole = torch.from_file(str(self._place.part), shared=False, size=size, dtype=self._like.dtype)
            whole = whole.view(self._samples, channels).mT
        saved = self._place.part.with_name(self._place.part.name + ".pt")
        torch.save(whole, saved)
        os.replace(saved, self._place.part)
        self._place.keep()

    def abort(self) -> None:
        self._file.close()
        self._place.drop()


class WaveFiles(_Files):
    """A sink of `stream_files`: a WAV file for each file, written as it comes. Needs the package ``soundfile``.

    Args:
        folder: where to; ``None``: beside the input
        suffix: takes the place of the input's
        root: a folder that all inputs are in; below ``folder`` outputs stand as inputs do below ``root``. ``None``:
            side by side
        rate_hz: sampling rate of the outputs; ``None``: that of the input times the network's ratio
        subtype: how samples are stored, by soundfile's names: ``"FLOAT"`` as they are, ``"PCM_16"`` as whole numbers
            from -1 to 1, clipped beyond

    Raises:
        ModuleNotFoundError: there is no ``soundfile``
    """

    def __init__(
        self,
        folder: Optional[_Path] = None,
        suffix: str = ".out.wav",
        root: Optional[_Path] = None,
        *,
        rate_hz: Optional[int] = None,
        subtype: str = "FLOAT",
    ) -> None:
        super().__init__(folder, suffix, root)
        soundfile()
        self.rate_hz = rate_hz
        self.subtype = subtype
        self._ratio = 1, 1

    def prepare(self, ratio: Tuple[int, int]) -> None:
        """Say how many outputs there are for how many inputs."""
        self._ratio = ratio

    def __call__(self, path: str) -> SoundWriter:
        rate = self.rate_hz
        if rate is None:
            up, down = self._ratio
            given = read_header(path).rate_hz
            rate, rest = divmod(given * up, down)
            if rest:
                raise StreamInputError(
                    f"invalid_rate_hz: {given} Hz in, and {up} outputs for {down} inputs, make no whole rate; a whole "
                    "one was expected; give rate_hz="
                )
        return SoundWriter(_place_for(self.target(path)).target, rate, subtype=self.subtype, format="WAV")


class OutputsInMemory(Dict[str, Tensor]):
    """A sink of `stream_files` that is a dict: the outputs ``[C', T']`` by path, of files that are done."""

    def __call__(self, path: str) -> "_MemoryWriter":
        return _MemoryWriter(self, path)


class _MemoryWriter:
    def __init__(self, outputs: OutputsInMemory, path: str) -> None:
        self._outputs = outputs
        self._path = path
        self._pieces: List[Tensor] = []

    def write(self, piece: Tensor) -> None:
        self._pieces.append(piece.clone())  # a row of a batch keeps all of it

    def close(self) -> None:
        self._outputs[self._path] = torch.cat(self._pieces, -1) if self._pieces else torch.empty(0, 0)
