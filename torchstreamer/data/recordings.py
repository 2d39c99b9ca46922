"""Sound files of one kind, and the chunks in them."""

import random
from typing import Any, Iterator, List, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor

from ..audio.headers import Header, check_whole, read_header, soundfile
from ..errors import StreamReadError
from .info import stream_info

__all__ = ["Opener"]

_AHEAD = 65_536  # samples read from the disk at once, at least


class Opener:
    """Opens sound files of one kind.

    Args:
        files: all of them, of which the first that can be read says what the others must be like
        chunk: samples of a chunk
        cut_length: read a random part of so many samples
        mono: whether the mean of the channels is read
        rate_hz: of all files; ``None``: as the first one; ``"any"``: whatever
        channels: of all files, in the same way
        dtype: of the samples, by name
    """

    def __init__(
        self,
        files: Sequence[str],
        chunk: int,
        cut_length: Optional[int],
        mono: bool,
        rate_hz: Union[int, str, None],
        channels: Union[int, str, None],
        dtype: str,
    ) -> None:
        self.files = files
        self.chunk = chunk
        self.cut_length = cut_length
        self.mono = mono
        self.rate_hz = rate_hz
        self.channels = channels
        self.dtype = dtype
        self._model: Optional[Tuple[str, Header]] = None

    def __call__(self, path: str) -> "_Recording":
        return _Recording(path, self)

    def count(self, skip: bool) -> List[int]:
        """The number of chunks of every file, by their headers.

        Args:
            skip: whether a file that cannot be taken counts as empty

        Raises:
            StreamReadError: a file cannot be taken
        """
        counts = []
        for index, path in enumerate(self.files):
            frames = 0
            try:
                header = read_header(path)
                self.check(header)
                frames = header.frames
            except Exception as error:  # whatever a decoder does
                if not skip:
                    raise StreamReadError(
                        f"stream_failed: stream {index} ('{path}'): its length cannot be read ({error}); a sound file "
                        "was expected; mend it, leave it out, or give on_error='skip'",
                        index,
                    ) from error
            if self.cut_length is not None:
                frames = min(frames, self.cut_length)
            counts.append(-(-frames // self.chunk))
        return counts

    def check(self, header: Header) -> None:
        """Refuse a file of another rate, or with other channels.

        Raises:
            ValueError: it is such
        """
        for name, wanted in (("rate_hz", self.rate_hz), ("channels", self.channels)):
            came = getattr(header, name)
            like = ""
            if wanted is None:
                model = self._first()
                if model is None:
                    continue
                wanted, like = getattr(model[1], name), f", as the first file, {model[0]}"
            if wanted not in ("any", came):
                remedy = "resample it" if name == "rate_hz" else "give mono=True"
                raise ValueError(
                    f"its {name} is {came}; expected {wanted}{like}; {remedy}, leave it out, or give {name}='any'"
                )

    def _first(self) -> Optional[Tuple[str, Header]]:
        # The first file of the list that can be read, so that each process says the same of each file.
        if self._model is None:
            for path in self.files:
                try:
                    self._model = path, read_header(path)
                except Exception:  # whatever a decoder does
                    continue
                break
        return self._model


class _Recording:
    # The chunks of one file, from any of them on.
    def __init__(self, path: str, how: Opener) -> None:
        self.path = path
        self.how = how

    def __iter__(self) -> Iterator[Tensor]:
        return self.iterate_from(0)

    def iterate_from(self, chunk: int) -> Iterator[Tensor]:
        how = self.how
        check_whole(self.path)
        with soundfile().SoundFile(self.path) as file:
            how.check(Header(file.frames, file.samplerate, file.channels))
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
