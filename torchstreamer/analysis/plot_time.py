"""Pictures of when outputs come, and how long a step takes."""

import math
import time
from statistics import median as median_of
from typing import TYPE_CHECKING, Any, List, Optional, Sequence, Union

import torch
from torch import Tensor

from ..core.describe import samples
from ..core.stream import BaseStream
from .arguments import ensure_stream, rate, tensors, whole_number
from .delay import latency
from .drawing import BLACK, BLUE, GREEN, GREY, ORANGE, VERMILION, axes, count_ticks
from .graph_geometry import output_samples
from .parts import chunks_given, example_of, new_copy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_latency", "plot_timeline"]


_MARKED = 100  # calls up to which each has a mark


def plot_timeline(
    stream: BaseStream, chunk: int = 1, *, chunks: Optional[int] = None, fs: Optional[float] = None, output: int = 0
) -> "Figure":
    """Draw how many samples are out after how many came, call by call, with the start, the look-ahead and the end.

    Args:
        stream: the stream
        chunk: samples of the (first) input per call
        chunks: how many calls; by default enough to show the start and some periods
        fs: samples of the input per second, for a second axis in milliseconds
        output: of which output, where there are several

    Returns:
        a matplotlib figure

    Raises:
        TypeError: not a stream
        ValueError: ``chunk`` or ``chunks`` below 1
        ModuleNotFoundError: matplotlib is not installed

    Example:
        >>> import torch, torchstreamer as pts
        >>> from torchstreamer.analysis import plot_timeline
        >>> stream = pts.create_stream(torch.nn.Conv1d(1, 1, 9, stride=2, padding=4))
        >>> figure = plot_timeline(stream, chunk=4)
        >>> figure.axes[0].get_ylabel()
        'samples out'
    """
    found = latency(stream, chunk, fs, output=output)
    chunk, fs = found.chunk, found.fs
    ins, outs = found.period
    if chunks is None:
        chunks = max(8, -(-(3 * found.first_output + 3 * ins) // chunk))
    count = whole_number(chunks, "chunks")
    total = count * chunk
    multiple = getattr(stream, "length_multiple", 1)
    total = -(-total // multiple) * multiple
    came = [*range(0, total, chunk), total]
    out = [output_samples(stream, output, n, False) for n in came]
    end = output_samples(stream, output, total, True)
    title = f"Samples in and out, in chunks of {chunk}"
    figure, ax = axes(7.0, 4.6, title, "samples in", "samples out")
    ax.plot(
        [0, total], [0, total * outs / ins], color=GREY, lw=1.2, ls=":", label="as many as came, at the output's rate"
    )
    marker = {"marker": "o", "ms": 3.5} if count <= _MARKED else {}
    ax.step(came, out, where="post", color=BLUE, lw=1.8, label="out after each call", **marker)
    start = min(found.first_chunk, total)
    ax.axvspan(0, start, color=ORANGE, alpha=0.18, lw=0)
    height = max(end, out[-1], 1)
    middle = start > 0.2 * total  # there is room for it; else it begins at the axis
    at = start / 2 if middle else 0.01 * total
    ax.text(at, 0.97 * height, _start(found.first_chunk), ha="center" if middle else "left", va="top", fontsize=8)
    if end > out[-1]:
        ax.annotate("", (total, end), (total, out[-1]), arrowprops={"arrowstyle": "-|>", "color": VERMILION, "lw": 1.8})
        ax.plot([total], [end], color=VERMILION, marker="s", ms=5, ls="none", label=f"flush(): {end - out[-1]} more")
    _lookahead(ax, came, out, (ins, outs), found)
    ax.set_xlim(0, 1.03 * total)
    ax.set_ylim(0, 1.06 * height)
    ax.grid(True, color="#e5e5e5", lw=0.6)
    ax.set_axisbelow(True)
    count_ticks(ax)
    ax.legend(loc="lower right", fontsize=8, framealpha=0.95)
    if fs is not None:
        top = ax.secondary_xaxis("top", functions=(lambda n: 1e3 * n / fs, lambda t: t * fs / 1e3))
        top.set_xlabel("ms")
    return figure


def _start(n: int) -> str:
    return f"start-up\n{samples(n)}"


def _lookahead(ax: Any, came: Sequence[int], out: Sequence[int], period: Any, found: Any) -> None:
    # The line on which an output stands at its own place, and how far behind it the last one was out.
    ins, outs = period
    for n, m in reversed(list(zip(came, out, strict=True))[: max(len(came) * 2 // 3, 2)]):
        at = m * ins / outs
        if m > 0 and n - at > 0:
            ax.annotate("", (at, m), (n, m), arrowprops={"arrowstyle": "<->", "color": GREEN, "lw": 1.4})
            text = f"{n - at:g} {'sample' if n - at == 1 else 'samples'} of input held\n(look-ahead {found.lookahead})"
            ax.annotate(text, (n, m), (4, -6), textcoords="offset points", va="top", fontsize=8, color="#00664B")
            return


def plot_latency(
    times: Union[BaseStream, Sequence[float]],
    chunk: int = 1,
    *,
    fs: Optional[float] = None,
    x: Union[Tensor, Sequence[Tensor], None] = None,
    calls: int = 300,
) -> "Figure":
    """Draw a histogram of step times, with the median, the worst in a hundred, and what real time allows.

    Args:
        times: a stream, whose copy is timed; or seconds, one for each call
        chunk: samples of the (first) input per call
        fs: its samples per second, for the time that a chunk lasts
        x: a chunk ``[B, C, T]``, or one of every input, to time; random by default
        calls: how many calls are timed

    Returns:
        a matplotlib figure

    Raises:
        ValueError: no times, ``chunk`` or ``calls`` below 1, or ``x`` is no chunk of this length
        ModuleNotFoundError: matplotlib is not installed

    Example:
        >>> from torchstreamer.analysis import plot_latency
        >>> figure = plot_latency([0.0011, 0.0012, 0.0011, 0.0013, 0.0030], chunk=160, fs=16000)
        >>> figure.axes[0].get_xlabel()
        'time of a call, ms'
    """
    chunk, calls, fs = whole_number(chunk, "chunk"), whole_number(calls, "calls"), rate(fs)
    measured = _timed(times, chunk, x, calls) if isinstance(times, BaseStream) else _seconds(times)
    seconds = sorted(measured)
    unit, name = (1e3, "ms") if seconds[len(seconds) // 2] >= 2e-4 or fs is not None else (1e6, "µs")
    values = [unit * t for t in seconds]
    title = f"Time of a call with {samples(chunk)} ({len(values)} call{'' if len(values) == 1 else 's'})"
    figure, ax = axes(7.0, 3.8, title, f"time of a call, {name}", "calls")
    median, late = _quantile(values, 0.5), _quantile(values, 0.99)
    top = 1.15 * max(_quantile(values, 0.995), median)
    beyond = sum(value > top for value in values)
    bins = min(60, max(10, len(values) // 5))
    ax.hist([min(value, top) for value in values], bins=bins, range=(0, top or 1), color=BLUE, alpha=0.85)
    ax.axvline(median, color=BLACK, lw=1.6, label=f"median {_short(median)} {name}")
    ax.axvline(late, color=VERMILION, lw=1.6, ls="--", label=f"99 of 100 below {_short(late)} {name}")
    period = times.hop // math.gcd(times.hop, chunk) if isinstance(times, BaseStream) else 1
    if 1 < period <= len(measured) // 2:  # only some calls have the work of all
        slow = unit * max(median_of(measured[i::period]) for i in range(period))
        label = f"the slowest of every {period} calls {_short(slow)} {name}"
        ax.axvline(slow, color=ORANGE, lw=1.6, ls="-.", label=label)
    if fs is not None:
        lasts = unit * chunk / fs
        ax.plot([], [], color=GREEN, lw=1.8, ls=":", label=f"a chunk lasts {_short(lasts)} {name}")
        if lasts <= 4 * top:
            ax.axvline(lasts, color=GREEN, lw=1.8, ls=":")
            ax.set_xlim(right=1.05 * max(top, lasts))
    if beyond:
        ax.plot([], [], ls="none", label=f"{beyond} longer, up to {_short(values[-1])} {name}")
    ax.set_xlim(left=0)
    count_ticks(ax, x=False)
    # Below, where it hides no call.
    ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, frameon=False)
    return figure


def _seconds(times: Any) -> List[float]:
    if isinstance(times, torch.nn.Module):
        ensure_stream(times)
    try:
        found = [float(t) for t in times]
    except (TypeError, ValueError):
        found = []
    if not found or not all(0 <= t < math.inf for t in found):
        raise ValueError(
            f"invalid_times: {type(times).__name__} came; seconds from 0 on, at least one of them, or a stream to time "
            "were expected; pass what time.perf_counter() says before and after calls"
        )
    return found


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _quantile(values: Sequence[float], part: float) -> float:
    return values[min(int(part * len(values)), len(values) - 1)]


def _timed(stream: BaseStream, chunk: int, x: Union[Tensor, Sequence[Tensor], None], calls: int) -> List[float]:
    twin = new_copy(stream)
    chunks: List[Any] = example_of(twin, chunk) if x is None else chunks_given(twin, chunk, tensors(x))
    ports: Any = getattr(twin, "ports", [])
    found: List[float] = []
    with torch.inference_mode():
        for turn in range(calls + max(10, -(-2 * latency(stream).first_output // chunk))):
            begin = time.perf_counter()
            twin(*chunks)
            if any(c is not None and c.is_cuda for c in chunks):
                torch.cuda.synchronize()
            found.append(time.perf_counter() - begin)
            if turn == 0:
                chunks = [None if i < len(ports) and ports[i].static else c for i, c in enumerate(chunks)]
    return found[-calls:]
