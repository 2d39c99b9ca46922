"""Streams of sound files, read in chunks from the disk."""

import random
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Union

import torch
from torch import Tensor

from ..errors import StreamInputError, StreamReadError
from .dataset import StreamDataset
from .info import stream_info

__all__ = ["AudioStreamDataset"]

_AHEAD = 65_536  # samples read from the disk at once, at least


class AudioStreamDataset(StreamDataset):
    """Sound files as streams of chunks ``[channels, chunk]``, float, full scale between -1 and 1.

    The files are read as they are needed, some seconds ahead, never as a whole. Chunk ``k`` of a file holds its samples
    ``k·chunk`` to ``(k+1)·chunk``; the last one is shorter where the file ends. Needs the package ``soundfile``
    (``pip install soundfile``), which reads WAV, FLAC, OGG, MP3 and more.

    Args:
        files: paths of sound files
        chunk: samples of a chunk, per channel
        batch_size: the number of rows
        padding_mode: as for `StreamDataset`
        padding_value: as for `StreamDataset`
        cut_length: read a random part of so many samples of each file, another one in each epoch, drawn from the
            dataset's seed; the whole file where it is shorter. ``None`` reads all of it.
        mono: whether the mean of the channels is read, as one channel
        rate_hz: the sampling rate that all files must have; ``None`` takes any
        dtype: of the samples: ``torch.float32`` or ``torch.float64``
        options: as for `StreamDataset`

    Raises:
        StreamInputError: an argument does not fit
        StreamReadError: while batches are read: a file cannot be read, or has another rate
        ImportError: there is no ``soundfile``

    Example:

        >>> import os, tempfile, wave
        >>> from torchstreamer import AudioStreamDataset, StreamDataLoader
        >>> path = os.path.join(tempfile.mkdtemp(), "tone.wav")
        >>> with wave.open(path, "wb") as file:
        ...     file.setparams((1, 2, 16000, 0, "NONE", ""))
        ...     file.writeframes(bytes(2 * 4000))
        >>> dataset = AudioStreamDataset([path], 1600, batch_size=1)
        >>> [batch.data.shape for batch in StreamDataLoader(dataset)]
        [torch.Size([1, 1, 1600]), torch.Size([1, 1, 1600]), torch.Size([1, 1, 800])]
    """

    def __init__(
        self,
        files: Sequence[Union[str, Path]],
        chunk: int,
        batch_size: int,
        padding_mode: str = "zeros",
        padding_value: Any = None,
        *,
        cut_length: Optional[int] = None,
        mono: bool = False,
        rate_hz: Optional[int] = None,
        dtype: torch.dtype = torch.float32,
        **options: Any,
    ) -> None:
        for name, value in (("chunk", chunk), ("cut_length", cut_length)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise StreamInputError(
                    f"invalid_{name}: {value!r}; expected a whole number of samples, at least 1; give one"
                )
        if dtype not in (torch.float32, torch.float64):
            raise StreamInputError(
                f"invalid_dtype: {dtype}; expected torch.float32 or torch.float64; convert the batches to others"
            )
        if isinstance(files, (str, Path)):
            raise StreamInputError(f"invalid_files: one path, {str(files)!r}; expected several; give a list of paths")
        _soundfile()
        self.opener = _Opener(chunk, cut_length, mono, rate_hz, str(dtype).removeprefix("torch."))
        if options.get("balance") and options.get("lengths") is None:
            options["lengths"] = self.opener.count(list(files))
        super().__init__(list(map(str, files)), self.opener, batch_size, padding_mode, padding_value, **options)

    def measure(self) -> List[int]:
        """The number of chunks of every file, by their headers, kept as ``lengths``.

        Then ``len`` of a loader works, and several ranks give the same number of batches. ``balance="length"`` does
        it by itself.
        """
        self.lengths = self.opener.count(self.streams)
        return list(self.lengths)

    def settings(self) -> Dict[str, Any]:
        """What a saved state depends on, in plain values."""
        return {**super().settings(), "chunk": self.opener.chunk, "cut_length": self.opener.cut_length}


class _Opener:
    def __init__(self, chunk: int, cut_length: Optional[int], mono: bool, rate_hz: Optional[int], dtype: str) -> None:
        self.chunk = chunk
        self.cut_length = cut_length
        self.mono = mono
        self.rate_hz = rate_hz
        self.dtype = dtype

    def __call__(self, path: str) -> "_Recording":
        return _Recording(path, self)

    def count(self, files: Sequence[Union[str, Path]]) -> List[int]:
        frames = []
        for index, path in enumerate(files):
            try:
                frames.append(_soundfile().info(str(path)).frames)
            except (OSError, RuntimeError) as error:
                raise StreamReadError(
                    f"stream_failed: stream {index} ('{path}'): its length cannot be read ({error}); a sound file was "
                    "expected; leave it out",
                    index,
                ) from error
        if self.cut_length is not None:
            frames = [min(length, self.cut_length) for length in frames]
        return [-(-length // self.chunk) for length in frames]


class _Recording:
    # The chunks of one file, from any of them on.
    def __init__(self, path: str, how: _Opener) -> None:
        self.path = path
        self.how = how

    def __iter__(self) -> Iterator[Tensor]:
        return self.iterate_from(0)

    def iterate_from(self, chunk: int) -> Iterator[Tensor]:
        how = self.how
        with _soundfile().SoundFile(self.path) as file:
            if how.rate_hz not in (None, file.samplerate):
                raise ValueError(
                    f"its rate is {file.samplerate} Hz; expected {how.rate_hz} Hz; resample it, or give rate_hz=None"
                )
            start, stop = 0, file.frames
            if how.cut_length is not None and how.cut_length < stop:
                info = stream_info()
                start = random.Random(info.seed if info is not None else 0).randint(0, stop - how.cut_length)
                stop = start + how.cut_length
            at = start + chunk * how.chunk
            self._go_to(file, min(at, stop))
            block = -(-_AHEAD // how.chunk) * how.chunk
            while at < stop:
                samples = file.read(min(block, stop - at), dtype=how.dtype, always_2d=True)
                if not len(samples):
                    raise ValueError(f"it ends after {at} samples; expected {stop}, as its header says; mend the file")
                at += len(samples)
                channels = torch.from_numpy(samples).mT
                if how.mono:
                    channels = channels.mean(0, keepdim=True)
                yield from torch.split(channels.contiguous(), how.chunk, dim=1)

    def _go_to(self, file: Any, at: int) -> None:
        if file.format == "MP3":  # which cannot be entered at every sample
            while file.tell() < at:
                file.read(min(_AHEAD, at - file.tell()))
        elif at:
            file.seek(at)


def _soundfile() -> Any:
    try:
        import soundfile  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError(
            "soundfile is missing: sound files are read by the package soundfile; install it: pip install soundfile"
        ) from error
    return soundfile
