"""`stream_files`: sound files of any length through a network, many at a time, in constant memory."""

import math
import os
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Optional, Sequence, Tuple, Union

import torch
from torch import nn

from ..core.rows import RowStream
from ..core.whole_numbers import whole_number
from ..errors import StreamInputError
from .done_list import DoneList
from .files_progress import FilesProgress, Teller
from .files_run import FilesReport, Kind, Run
from .sinks import OutputsInMemory, Sink

__all__ = ["stream_files"]


def stream_files(
    net: nn.Module,
    paths: Iterable[Union[str, Path]],
    batch: int = 16,
    chunk: int = 32_000,
    *,
    sink: Sink,
    on_error: str = "skip",
    resume: Union[str, Path, None] = None,
    progress: Union[bool, Callable[[FilesProgress], Any]] = False,
    shard: Tuple[int, int] = (0, 1),
    mono: bool = False,
    rate_hz: Optional[int] = None,
    channels: Optional[int] = None,
    workers: int = 0,
) -> FilesReport:
    """Run a network over sound files of any length, many side by side, in memory that does not grow with them.

    Each file gets what ``net`` gives on the whole of it. A batch has a row for each of ``batch`` files; as soon as one
    ends, the next takes its row. The longest come first, so that short ones are left to fill the rows at the end.
    Needs the package ``soundfile``.

    One bad file stops no other: whether it cannot be read, does not fit the network, or cannot be written, it is
    reported, and what was written of it is taken away.

    Args:
        net: a network, as for `create_stream`, or a new stream
        paths: of sound files
        batch: files side by side
        chunk: samples of each file in a step, brought to the nearest ``hop`` times a power of two
        sink: where outputs go: ``sink(path)`` opens a `Writer` for one file. `ArrayFiles`, `WaveFiles` and
            `OutputsInMemory` are sinks
        on_error: ``"skip"`` goes on with the others where a file fails, ``"raise"`` ends there
        resume: a file in which stands what is done. A run that was stopped, by whatever, goes on from it: files that
            are done, and have the size that they had, are left out; others begin anew. A file is done when its writer
            has closed. It does not know the network: begin another list for another one
        progress: ``True`` shows a bar with the speed and the time left; a function is called with `FilesProgress`
        shard: rank and number of machines that share the files by their length. All are given the same ``paths``, and
            may be given the same ``resume``
        mono: whether the mean of a file's channels is taken
        rate_hz: the sampling rate that files must have; ``None``: that of most files
        channels: how many channels files must have; ``None``: those of most files that the network takes
        workers: processes that read; 0 to read in this one

    Returns:
        what was done, and what failed

    Raises:
        UnsupportedModuleError: the network cannot be streamed
        StreamInputError: an argument does not fit; ``same_output``: two files would be written to one
        StreamReadError: with ``on_error="raise"``, a file cannot be read; as do the errors of the network and the sink
        StreamStateError: ``in_use``: another process works on the same list

    Example:
        >>> import os, tempfile, wave, torch, torchstreamer as pts
        >>> folder = tempfile.mkdtemp()
        >>> paths = [os.path.join(folder, f"{i}.wav") for i in range(3)]
        >>> for i, path in enumerate(paths):
        ...     with wave.open(path, "wb") as file:
        ...         file.setparams((1, 2, 16000, 0, "NONE", ""))
        ...         file.writeframes(bytes(2 * 4000 * (i + 1)))
        >>> outputs = pts.OutputsInMemory()
        >>> report = pts.stream_files(torch.nn.Conv1d(1, 8, 400, stride=160), paths, batch=2, sink=outputs)
        >>> [tuple(outputs[path].shape) for path in paths], report.failed
        ([(8, 23), (8, 48), (8, 73)], {})
    """
    size = whole_number(batch, "batch")
    samples = whole_number(chunk, "chunk_size")
    if on_error not in ("skip", "raise"):
        raise StreamInputError(
            f"invalid_on_error: {on_error!r} came; 'skip' or 'raise' was expected; 'skip' goes on with other files"
        )
    if not (len(shard) == 2 and 0 <= shard[0] < shard[1]):
        raise StreamInputError(
            f"invalid_shard: {shard!r} came; rank and number of machines were expected; count ranks from 0"
        )
    if isinstance(paths, (str, Path)):
        raise StreamInputError(
            f"invalid_files: one path, {str(paths)!r}; several were expected; give a list, such as "
            "sorted(Path(folder).glob('*.wav'))"
        )
    names = list(dict.fromkeys(map(str, paths)))
    rows = RowStream(net)
    _check_sink(sink, names, rows, resume)
    done_list = None if resume is None else DoneList(resume, shard)
    try:
        run = Run(rows, sink, on_error == "skip", done_list, Teller(progress))
        kind = Kind(rows.stream, names, mono, rate_hz, channels)
        run.choose(kind, names, shard)
        with torch.no_grad():
            run.go(kind.dataset(run.names, _rounded(samples, rows.stream.hop), size, on_error), workers)
        return run.report
    finally:
        if done_list is not None:
            done_list.close()


def _check_sink(sink: Any, names: Sequence[str], rows: RowStream, resume: Any) -> None:
    if not callable(sink):
        raise StreamInputError(
            f"invalid_sink: a {type(sink).__name__} came; a function that opens a writer for a path was expected; take "
            "ArrayFiles or WaveFiles, or OutputsInMemory for few files"
        )
    if resume is not None and isinstance(sink, OutputsInMemory):
        raise StreamInputError(
            "invalid_sink: outputs in memory came with resume=; a sink that outlives the program was expected; take "
            "ArrayFiles or WaveFiles"
        )
    if hasattr(sink, "target"):
        targets: Dict[str, str] = {}
        for name in names:
            target = os.path.abspath(sink.target(name))
            other = targets.setdefault(target, name)
            if other != name or target == os.path.abspath(name):
                raise StreamInputError(
                    f"same_output: {other} and {name} would both be written to {target}; a file of its own was "
                    "expected for each; give the sink root=, a folder that all are in, or another suffix"
                )
    if hasattr(sink, "prepare"):
        sink.prepare(rows.stream.ratio)


def _rounded(samples: int, hop: int) -> int:
    # A step of hops times a power of two runs as one batch.
    return hop * 2 ** max(round(math.log2(samples / hop)), 0)
