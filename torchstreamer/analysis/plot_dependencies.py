"""Pictures of what depends on what."""

import math
from typing import TYPE_CHECKING, Any, List, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor, nn

from ..core.registry import Example
from ..core.stream import BaseStream
from .arguments import rate
from .drawing import BLACK, BLUE, GREY, MAYBE, ORANGE, axes, count_ticks, pyplot
from .field import ReceptiveField, field_and_stream
from .graph_geometry import output_samples
from .phases import place
from .symbolic import needed_inputs, stream_period

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_dependency_matrix", "plot_receptive_field"]

_GRID = 64  # frames up to which every entry gets a frame of its own
_SLIM = 8  # times as long as wide, up to which the cells are squares
_CELLS = 200  # samples of a field up to which each of them is a cell
_SHOWN = 32  # outputs of a period that are drawn, at most


def plot_dependency_matrix(deps: Union[Tensor, Tuple[Tensor, Tensor]]) -> "Figure":
    """Draw a dependency matrix: outputs upward, inputs to the right, a filled cell where one depends on the other.

    Args:
        deps: a Bool matrix ``[in, out]`` as `infer_dependency_matrix` returns; or its two bounds: then what only the
            upper one holds is hatched

    Returns:
        a matplotlib figure

    Raises:
        ValueError: not a Bool matrix, an empty one, or two of unequal shape
        ModuleNotFoundError: matplotlib is not installed

    Example:
        >>> import torch
        >>> from torchstreamer.analysis import plot_dependency_matrix
        >>> figure = plot_dependency_matrix(torch.ones(6, 6, dtype=torch.bool).triu())
        >>> figure.axes[0].get_xlabel()
        'input frame'
    """
    lower, upper = _bounds(deps)
    pyplot()  # or an error that says what is missing
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch, Rectangle

    ins, outs = lower.shape
    scale = min(6.0 / max(ins, 1), 6.0 / max(outs, 1))
    width, height = max(ins * scale, 2.8), max(outs * scale, 1.2)  # room for the title
    title = "Which output depends on which input"
    figure, ax = axes(width + 1.0, height + 1.3, title, "input frame", "output frame")
    sure, maybe = lower.T.cpu().numpy(), (upper & ~lower).T.cpu().numpy()
    small = max(ins, outs) <= _GRID
    edges = torch.arange(ins + 1).numpy() - 0.5, torch.arange(outs + 1).numpy() - 0.5
    colors = ListedColormap(["white", MAYBE, BLUE])
    grid = {"edgecolors": "#cccccc", "linewidth": 0.4} if small else {"rasterized": True}
    ax.pcolormesh(*edges, 2 * sure.astype(int) + maybe, cmap=colors, vmin=0, vmax=2, **grid)
    handles = [Patch(facecolor=BLUE, label="depends")]
    if lower is not upper:
        if small:  # told apart in black and white, too
            for out, frame in zip(*maybe.nonzero(), strict=True):
                ax.add_patch(Rectangle((frame - 0.5, out - 0.5), 1, 1, fill=False, hatch="///", lw=0, color=GREY))
        handles.append(Patch(facecolor=MAYBE, hatch="///" if small else None, edgecolor=GREY, lw=0, label="may depend"))
    handles.append(Patch(facecolor="white", edgecolor=GREY, label="does not"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    if max(ins, outs) <= _SLIM * min(ins, outs):  # else it would be a line
        ax.set_aspect("equal")
    ax.spines[["top", "right"]].set_visible(True)
    count_ticks(ax)
    return figure


def _bounds(deps: Any) -> Tuple[Tensor, Tensor]:
    given = (deps, deps) if isinstance(deps, Tensor) else tuple(deps) if isinstance(deps, (tuple, list)) else (deps,)
    fits = len(given) == 2 and all(isinstance(m, Tensor) and m.dim() == 2 and m.dtype == torch.bool for m in given)
    if not fits or given[0].shape != given[1].shape or given[0].numel() == 0:
        told = [f"{list(m.shape)} of {m.dtype}" if isinstance(m, Tensor) else type(m).__name__ for m in given]
        raise ValueError(
            f"invalid_dependencies: {', '.join(dict.fromkeys(told))} came; a Bool matrix [in, out], or two of one "
            "shape and not empty, were expected; make it with infer_dependency_matrix"
        )
    return given[0], given[1]


def plot_receptive_field(
    net: Union[ReceptiveField, nn.Module],
    example: Optional[Example] = None,
    *,
    fs: Optional[float] = None,
    **options: Any,
) -> "Figure":
    """Draw the receptive field of every output of a period, relative to the output's own place.

    Of a stream, or a network that can be streamed, every input that an output really depends on is a cell, so the
    holes of a dilated network show; of a measured field, its first and last input and what lies between.

    Args:
        net: a stream, a network in its eval form, a function, or what `receptive_field` gave
        example: an input, for `receptive_field`
        fs: samples of the input per second, for a second axis in milliseconds
        **options: other arguments of `receptive_field`

    Returns:
        a matplotlib figure

    Raises:
        ValueError: the field is unbounded, or no output depends on anything
        ModuleNotFoundError: matplotlib is not installed

    Example:
        >>> import torch
        >>> from torchstreamer.analysis import plot_receptive_field
        >>> figure = plot_receptive_field(torch.nn.Conv1d(1, 1, 3, dilation=4))
        >>> figure.axes[0].get_title()
        'Receptive field: 9 samples, 0 back, 8 ahead'
    """
    fs = rate(fs)
    field, stream = (net, None) if isinstance(net, ReceptiveField) else field_and_stream(net, example, **options)
    if math.isinf(field.left) or math.isinf(field.right):
        raise ValueError("unbounded_field: the receptive field is unbounded; only a bounded one can be drawn")
    if all(phase is None for phase in field.phases):
        raise ValueError("empty_field: no output depends on any input; there is nothing to draw")
    # Of a measured field the inputs are not known one by one.
    cells = None if stream is None else _cells(stream, field, options.get("input", 0), options.get("output", 0))
    rows = min(len(field.phases), _SHOWN)
    size = f"{field.size:g} {'sample' if field.size == 1 else 'samples'}"
    title = f"Receptive field: {size}, {field.left:g} back, {field.right:g} ahead"
    label = "input sample, relative to the place of the output"
    figure, ax = axes(7.0, 1.7 + 0.32 * max(rows, 2), title, label, "output phase")
    for row in range(rows):
        phase = field.phases[row]
        if phase is None:
            ax.text(0, row, "no input", va="center", ha="center", fontsize=8)
            continue
        ax.barh(
            row, phase[0] + phase[1] + 1, left=-phase[0] - 0.5, height=0.62, color="#D6E6F2", edgecolor=GREY, lw=0.6
        )
        for begin, end in _bars(cells[row], field.size > _CELLS) if cells is not None else []:
            color, lw = (ORANGE if begin > 0 else BLUE), 0.4 if field.size <= _CELLS else 0.0
            ax.barh(row, end - begin, left=begin - 0.5, height=0.62, color=color, edgecolor="white", lw=lw)
    ax.axvline(0, color=BLACK, lw=1.0, ls="--")
    ax.set_ylim(rows - 0.4, -0.9)
    room = 0.02 * (field.left + field.right + 1) + 0.5
    ax.set_xlim(min(-field.left, 0) - room - 0.5, max(field.right, 0) + room + 0.5)
    ax.text(0, -0.62, " its place", fontsize=8, va="center")
    ax.set_yticks(range(rows))
    count_ticks(ax, y=False)
    if fs is not None:
        top = ax.secondary_xaxis("top", functions=(lambda n: 1e3 * n / fs, lambda t: t * fs / 1e3))
        top.set_xlabel("ms")
    _legend(figure, cells is not None)
    return figure


def _bars(offsets: Sequence[int], joined: bool) -> List[Tuple[int, int]]:
    """Begin and end of the bars that show some samples: one for each, or for neighbours on one side of the place."""
    bars: List[Tuple[int, int]] = []
    for offset in offsets:
        if joined and bars and offset == bars[-1][1] and (offset > 0) == (bars[-1][0] > 0):
            bars[-1] = bars[-1][0], offset + 1
        else:
            bars.append((offset, offset + 1))
    return bars


def _legend(figure: Any, known: bool) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(facecolor="#D6E6F2", edgecolor=GREY, label="first to last")]
    if known:
        handles = [
            Patch(facecolor=BLUE, label="depends, up to now"),
            Patch(facecolor=ORANGE, label="depends, ahead"),
            Patch(facecolor="#D6E6F2", edgecolor=GREY, label="does not depend"),
        ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8, frameon=False)


def _cells(stream: BaseStream, field: ReceptiveField, input: int, output: int) -> Sequence[Sequence[int]]:
    """The inputs of every phase, relative to its place."""
    hop, _ = stream_period(stream, input, output)
    ins, outs = field.period
    n = hop * max(-(-4 * int(field.size + abs(field.left) + abs(field.right) + 2 * ins) // hop), 8)
    length = output_samples(stream, output, n, True)
    begin = length // 2 // outs * outs
    mask = needed_inputs(stream, torch.arange(begin, begin + outs), n, input, output)
    return [[int(i) - place(begin + k, field.period) for i in mask[:, k].nonzero().flatten()] for k in range(outs)]
