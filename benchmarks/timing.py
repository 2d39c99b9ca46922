"""Times of several contenders, taken in turns, so that a busy moment of the machine falls on all of them."""

import gc
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

__all__ = ["interleave", "machine", "quartiles", "tail"]


def interleave(
    contenders: dict[str, Callable[[], object]],
    rounds: int,
    span_s: float,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, list[float]]:
    """Seconds per call of each contender, one number per round.

    In every round each contender is called often enough to fill about ``span_s`` seconds, one contender after the
    other, and the order moves on by one from round to round.

    Args:
        contenders: functions without arguments, already warm
        rounds: rounds to take
        span_s: seconds that one contender gets in a round, at least one call
        clock: gives seconds; the processor's time, not the wall clock's, is on one thread the same but for what other
            programs take
    """
    calls = {name: max(1, round(span_s / _seconds(contender, 1, clock))) for name, contender in contenders.items()}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for contender in contenders.values():
        contender()
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                times[name].append(_seconds(contenders[name], calls[name], clock))
    finally:
        gc.enable()
    return times


def _seconds(contender: Callable[[], object], calls: int, clock: Callable[[], float]) -> float:
    begin = clock()
    for _ in range(calls):
        contender()
    return (clock() - begin) / calls


def tail(step: Callable[[], object], count: int) -> tuple[float, float]:
    """The 99.9th percentile and the maximum of so many single steps, in seconds of the wall clock."""
    spans = []
    for _ in range(count):
        begin = time.perf_counter()
        step()
        spans.append(time.perf_counter() - begin)
    spans.sort()
    return spans[int(0.999 * (count - 1))], spans[-1]


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def machine() -> dict[str, str | int]:
    """What the numbers depend on."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"
