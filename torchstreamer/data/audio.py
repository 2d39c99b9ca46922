"""Streams of sound files, read in chunks from the disk."""

from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Union

import torch

from ..audio.headers import soundfile
from ..errors import StreamInputError
from .dataset import StreamDataset
from .recordings import Opener

__all__ = ["AudioStreamDataset"]


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
        rate_hz: the sampling rate that all files must have; ``None``: that of the first file of the list that can be
            read; ``"any"``: files may differ
        channels: how many channels all files must have, ``None`` and ``"any"`` as for ``rate_hz``; with ``mono`` files
            may differ
        dtype: of the samples: ``torch.float32`` or ``torch.float64``
        options: as for `StreamDataset`. ``on_error="skip"`` leaves out each file that is unreadable or cut short, or
            has another rate or other channels, and no other.

    Raises:
        StreamInputError: an argument does not fit, or there are no files
        StreamReadError: while batches are read, or lengths for ``balance``: a file cannot be read, is cut short, or has
            another rate or other channels; the message names it
        ModuleNotFoundError: there is no ``soundfile``

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
        rate_hz: Union[int, str, None] = None,
        channels: Union[int, str, None] = None,
        dtype: torch.dtype = torch.float32,
        **options: Any,
    ) -> None:
        for name, value in (("chunk", chunk), ("cut_length", cut_length)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise StreamInputError(
                    f"invalid_{name}: {value!r}; expected a whole number of samples, at least 1; give one"
                )
        for name, of_all in (("rate_hz", rate_hz), ("channels", channels)):
            whole = isinstance(of_all, int) and not isinstance(of_all, bool) and of_all >= 1
            if not (whole or of_all is None or of_all == "any"):
                raise StreamInputError(
                    f"invalid_{name}: {of_all!r}; expected a whole number of at least 1, None for that of the first "
                    "file, or 'any'; give one of these"
                )
        if dtype not in (torch.float32, torch.float64):
            raise StreamInputError(
                f"invalid_dtype: {dtype}; expected torch.float32 or torch.float64; convert the batches to others"
            )
        if isinstance(files, (str, Path)):
            raise StreamInputError(f"invalid_files: one path, {str(files)!r}; expected several; give a list of paths")
        paths = list(map(str, files))
        if not paths:
            raise StreamInputError("invalid_files: no files came; expected at least one; look at where they should be")
        soundfile()
        self.opener = Opener(
            paths, chunk, cut_length, mono, rate_hz, "any" if mono else channels, str(dtype).removeprefix("torch.")
        )
        if options.get("balance") and options.get("lengths") is None:
            options["lengths"] = self.opener.count(options.get("on_error") == "skip")
        super().__init__(paths, self.opener, batch_size, padding_mode, padding_value, **options)
        self.opener.files = self.streams

    def measure(self) -> List[int]:
        """The number of chunks of every file, by their headers, kept as ``lengths``.

        Then ``len`` of a loader works, and several ranks give the same number of batches. ``balance="length"`` does
        it by itself. With ``on_error="skip"`` a file that will be left out has none.
        """
        self.lengths = self.opener.count(self.on_error == "skip")
        return list(self.lengths)

    def settings(self) -> Dict[str, Any]:
        """What a saved state depends on, in plain values."""
        return {**super().settings(), "chunk": self.opener.chunk, "cut_length": self.opener.cut_length}

    def _told(self) -> str:
        how = self.opener
        return f"{len(self.streams)} files, chunk={how.chunk}, rate_hz={how.rate_hz!r}, channels={how.channels!r}"
