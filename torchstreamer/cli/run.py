"""`torchstreamer run`: sound through a model."""

import sys
import time
from typing import Any, Optional

import torch

from .ends import Sink, Source, open_sink, open_source
from .failing import Code, Failure, blame
from .line import Line
from .model import open_model
from .progress import Progress
from .quantities import clock, duration
from .stopping import Stopping
from .timing import Times

__all__ = ["run_command"]


def run_command(
    name: str,
    given: str,
    wanted: str,
    chunk: str,
    rate: Optional[int],
    raw: Optional[str],
    subtype: Optional[str],
    partial: bool,
    example: Optional[str],
    threads: Optional[int],
) -> None:
    """Run it; see `app.run`."""
    if threads is not None:
        torch.set_num_threads(threads)
    said: Any = sys.stderr if wanted == "-" else sys.stdout  # where stdout is sound, words go elsewhere
    with Stopping() as stopping:
        model = open_model(name, rate, example)
        source = open_source(given, raw, chunk, partial, model.rate_hz)
        line = Line(model, source.rate_hz, source.channels)
        frames = None if source.frames is None else int(source.frames * line.ratio)
        sink = open_sink(wanted, raw, line.rate_out_hz, subtype, frames, source)
        print(_told(source, line), file=said)
        try:
            times, progress = Times(), Progress(source)
            done = 0
            for block in stopping.blocks(source):
                begin = time.perf_counter()
                y = line(block)
                times.add(time.perf_counter() - begin)
                done += block.shape[1]
                if y is not None:
                    with blame(Code.OUTPUT):
                        sink.write(y)
                progress.show(done, times)
            begin = time.perf_counter()
            y = line(None, final=True)
            times.total += time.perf_counter() - begin
            with blame(Code.OUTPUT):
                if y is not None:
                    sink.write(y)
                sink.close()
        except BaseException:
            sink.abort()
            raise
        finally:
            source.close()
        progress.end()
    print(_summary(source, line, times, done, sink, wanted), file=said)
    for warning in (*source.warnings(), *sink.warnings()):
        print(f"warning: {warning}", file=sys.stderr)
    if stopping.asked:
        raise Failure(
            Code.STOPPED, f"stopped at {clock(done / source.rate_hz)} ({done} samples); {wanted} is whole up to there"
        )


def _told(source: Source, line: Line) -> str:
    channels = f"{source.channels} channel" + ("s" if source.channels > 1 else "")
    length = "" if source.frames is None else f", {clock(source.frames / source.rate_hz)}"
    how = []
    if line.resampled:
        how.append(f"resampled to {line.model.rate_hz} and back")
    if line.apart:
        how.append("channels one by one")
    return f"{source.name}  {source.rate_hz} Hz, {channels}{length}   {', '.join(how)}".rstrip()


def _summary(source: Source, line: Line, times: Times, done: int, sink: Sink, wanted: str) -> str:
    seconds = done / source.rate_hz
    speed = seconds / times.total if times.total else 0.0
    chunk = duration(source.block / source.rate_hz)
    kind = f", {line.rate_out_hz} Hz" if line.rate_out_hz != source.rate_hz else ""
    told = f"{clock(seconds)}  {speed:.3g}× real time  p99 {duration(times.quantile(0.99))} per {chunk} chunk"
    return f"{told}      wrote {sink.name}{kind}"
