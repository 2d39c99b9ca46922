"""Pictures of what the queries of attention see, and of how long each waits for it."""

from typing import TYPE_CHECKING, Any, Optional

import torch

from ..core.context import Context
from .arguments import rate, whole_number
from .drawing import BLUE, GREY, ORANGE, VERMILION, count_ticks, pyplot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_context"]


def plot_context(
    context: Context, length: Optional[int] = None, layers: int = 1, fs: Optional[float] = None
) -> "Figure":
    """Draw the mask of a context: a row for each query, a filled cell for each key that it sees; and its latency.

    A stream answers a query when the last key that it sees has come. On the right stands how many samples that is after
    the query's own, through so many layers of the same context.

    Args:
        context: the context
        length: queries to draw; by default some periods
        layers: of attention with this context, one after the other
        fs: samples per second at the attention; then latencies are in milliseconds

    Returns:
        a matplotlib figure

    Raises:
        ModuleNotFoundError: matplotlib is not installed

    Example:
        >>> import torchstreamer as pts
        >>> from torchstreamer.analysis import plot_context
        >>> figure = plot_context(pts.Context(left=4, right=1, chunk=3))
        >>> [axes.get_xlabel() for axes in figure.axes]
        ['key', 'latency, samples']
    """
    layers = whole_number(layers, "layers")
    fs = rate(fs)
    if length is None:
        span = context.lookahead + (context.left if context.left is not None else 2 * context.chunk)
        length = min(max(12, -(-(span + 2) // context.chunk) * context.chunk + context.chunk), 96)
    length = whole_number(length, "length")
    waits = _waits(context, length, layers)
    plt = pyplot()
    from matplotlib.patches import Patch, Rectangle

    side = max(3.2, min(0.24 * length, 7.0))
    size, ratios = (side + 2.6, side + 0.9), [side, 1.6]
    figure, (ax, beside) = plt.subplots(1, 2, figsize=size, width_ratios=ratios, sharey=True, layout="constrained")
    ax.set_title(f"{context}" if layers == 1 else f"{context}, {layers} layers", fontsize=11)
    mask = context.mask(length)
    _cells(ax, mask, mask & torch.eye(length, dtype=torch.bool))
    if context.chunk > 1:
        for begin in range(0, length, context.chunk):
            corner = (begin - 0.5, begin - 0.5)
            ax.add_patch(Rectangle(corner, context.chunk, context.chunk, fill=False, edgecolor=VERMILION, lw=1))
    ax.set_xlim(-0.5, length - 0.5)
    ax.set_ylim(length - 0.5, -0.5)
    ax.set_aspect("equal")
    ax.set_xlabel("key")
    ax.set_ylabel("query")
    scale = 1.0 if fs is None else 1000.0 / fs
    beside.barh(range(length), [wait * scale for wait in waits], height=0.8, color=ORANGE, edgecolor=GREY, lw=0.4)
    beside.set_xlabel("latency, samples" if fs is None else "latency, ms")
    beside.spines[["top", "right"]].set_visible(False)
    beside.set_xlim(0, max(max(waits), 1) * scale * 1.05)
    count_ticks(ax)
    count_ticks(beside, x=fs is None, y=False)
    own = Patch(facecolor=BLUE, hatch="///", edgecolor="white", label="own key")
    handles = [Patch(facecolor=BLUE, label="seen"), own]
    if context.chunk > 1:
        handles.append(Patch(facecolor="white", edgecolor=VERMILION, label="chunk"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    return figure


def _cells(ax: Any, mask: torch.Tensor, own: torch.Tensor) -> None:
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Rectangle

    edges = torch.arange(mask.size(0) + 1).numpy() - 0.5
    grid = {"edgecolors": "#cccccc", "linewidth": 0.4} if mask.size(0) <= 64 else {"rasterized": True}
    ax.pcolormesh(edges, edges, mask.int().numpy(), cmap=ListedColormap(["white", BLUE]), vmin=0, vmax=1, **grid)
    for i, j in own.nonzero().tolist():
        ax.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, hatch="///", lw=0, edgecolor="white"))


def _waits(context: Context, length: int, layers: int) -> "list[int]":
    # Samples that come after a query's own before it is answered, in a signal that goes on.
    newest = list(range(length))
    for _ in range(layers):
        newest = [at // context.chunk * context.chunk + context.lookahead for at in newest]
    return [at - i for i, at in enumerate(newest)]
