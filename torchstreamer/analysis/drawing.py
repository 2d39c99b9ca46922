"""How all pictures look: colours for colour-blind readers, marks that a black and white print tells apart."""

from typing import Any, Tuple

from ..errors import missing_package

__all__ = ["BLACK", "BLUE", "GREEN", "GREY", "MAYBE", "ORANGE", "VERMILION", "axes", "count_ticks", "pyplot"]

# Okabe and Ito's colours.
BLACK, GREY = "#000000", "#999999"
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
MAYBE = "#F5D78E"  # a light orange


def pyplot() -> Any:
    """matplotlib's pyplot.

    Raises:
        ModuleNotFoundError: matplotlib is not installed
    """
    try:
        from matplotlib import pyplot as plt
    except ImportError as error:
        raise missing_package("matplotlib", "pictures are drawn with it") from error
    return plt


def axes(width: float, height: float, title: str, x: str, y: str) -> Tuple[Any, Any]:
    """A new figure, in inches, and its axes, with what stands at them."""
    figure, ax = pyplot().subplots(figsize=(width, height), layout="constrained")
    ax.set_title(title, fontsize=11)
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.spines[["top", "right"]].set_visible(False)
    return figure, ax


def count_ticks(ax: Any, x: bool = True, y: bool = True) -> None:
    """Ticks at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    for axis, wanted in ((ax.xaxis, x), (ax.yaxis, y)):
        if wanted:
            axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
