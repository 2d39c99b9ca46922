"""`torchstreamer bench`: how long chunks take."""

import json
import time
from typing import Any, Dict, List, Optional

import torch

from .failing import Code, blame
from .model import Model, open_model
from .quantities import chunks_of, duration
from .timing import Times

__all__ = ["bench_command"]


def bench_command(
    name: str, chunk: str, seconds: float, rate: Optional[int], example: Optional[str], threads: int, as_json: bool
) -> None:
    """Measure it; see `app.bench`."""
    torch.set_num_threads(threads)
    model = open_model(name, rate, example)
    hz = model.needed_rate()
    chunks = chunks_of(chunk, hz)
    signal = model.noise(max(round(seconds * hz), 1))
    length = signal.shape[-1] / hz
    with blame(Code.MODEL), torch.inference_mode():
        whole = _whole(model, signal)
        rows = [_measured(model, signal, told, samples, length, whole) for told, samples in chunks]
    if as_json:
        print(
            json.dumps(
                {"model": name, "rate_hz": hz, "seconds": length, "threads": threads, "whole_s": whole, "chunks": rows}
            )
        )
        return
    offline = "offline" if model.net is not None else "one call"
    print(f"{name}  {hz} Hz, {length:.3g} s of noise, {threads} thread{'s' if threads > 1 else ''}")
    print(f"{'chunk':>10s} {'p50':>10s} {'p99':>10s} {'× real time':>12s} {'of ' + offline:>12s}")
    for row in rows:
        times = f"{duration(row['p50_s']):>10s} {duration(row['p99_s']):>10s}"
        print(f"{row['chunk']:>10s} {times} {row['real_time']:>12.3g} {row['of_whole']:>12.3g}")
    print(f"{offline:>10s} {duration(whole):>10s} {'':>10s} {length / whole:>12.3g} {1:>12d}")


def _whole(model: Model, signal: Any) -> float:
    # The least of some: the first pays for what is made once.
    stream: Any = model.stream
    found = []
    for _ in range(3):
        begin = time.perf_counter()
        if model.net is not None and model.net is not stream:
            model.net(signal)
        else:
            stream(signal, True)
        found.append(time.perf_counter() - begin)
    return min(found)


def _measured(model: Model, signal: Any, told: str, samples: int, length: float, whole: float) -> Dict[str, Any]:
    stream: Any = model.stream
    pieces: List[Any] = list(signal.split(samples, -1))
    for piece in pieces[:20]:  # what is made once is not counted
        stream(piece)
    stream.reset()
    times = Times()
    for piece in pieces:
        begin = time.perf_counter()
        stream(piece)
        times.add(time.perf_counter() - begin)
    begin = time.perf_counter()
    stream.flush()
    times.total += time.perf_counter() - begin
    return {
        "chunk": told,
        "samples": samples,
        "p50_s": times.quantile(0.5),
        "p99_s": times.quantile(0.99),
        "total_s": times.total,
        "real_time": length / times.total,
        "of_whole": times.total / whole,
    }
