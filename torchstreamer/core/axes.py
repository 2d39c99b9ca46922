"""How the forward of a module lays out its signals."""

from dataclasses import dataclass
from typing import Any, Callable, Iterator, List, Tuple, Union

from torch import Tensor
from torch.utils import _pytree as pytree

__all__ = ["Axes"]

Gives = Union[str, Tuple[Any, ...]]


@dataclass(frozen=True)
class Axes:
    """How the forward of a module lays out its signals, where its stream, as all streams, has ``[B, C, T]``.

    A handler says so in its attribute ``axes``; then its module may stand in a captured model as it is. Axes are
    letters: ``b`` the rows, ``c`` the channels, ``t`` time; any others in what holds no signal.

    Args:
        takes: axes of the input
        gives: axes of the output; of several outputs a tuple, in the structure of the module's own. One of them has
            time: it is what the stream gives. The others, such as ``"lbc"``, are known at the end of a signal only, so
            a captured model must not use them
        state: axes of inputs that may come after the first: an initial state, which in a captured model must be zeros.
            Those of torch's own layers may be others

    Raises:
        ValueError: axes that say nothing of rows, channels and time

    Example:
        >>> import torchstreamer as pts
        >>> axes = pts.Axes("btc", ("btc", "lbc"), ("lbc",))  # as of nn.GRU(…, batch_first=True)
        >>> axes.signal
        0
    """

    takes: str = "bct"
    gives: Gives = "bct"
    state: Tuple[str, ...] = ()

    def __post_init__(self) -> None:
        signals = [axes for axes in self.outputs() if "t" in axes]
        if sorted(self.takes) != list("bct") or len(signals) != 1 or sorted(signals[0]) != list("bct"):
            raise ValueError(
                f"invalid_axes: {self!r} came; the letters b, c and t, each once, were expected of the input and of "
                "one output; name the axes in their order"
            )

    def outputs(self) -> List[str]:
        """Axes of all outputs, in order."""
        return list(_leaves(self.gives))

    @property
    def signal(self) -> int:
        """Which output has time."""
        return next(i for i, axes in enumerate(self.outputs()) if "t" in axes)

    def call(self, net: Callable[..., Any], x: Tensor) -> Tensor:
        """The signal that a module gives for another, both ``[B, C, T]``."""
        taken = x.permute(["bct".index(axis) for axis in self.takes])
        return self.turned(pytree.tree_leaves(net(taken))[self.signal])

    def turned(self, y: Tensor) -> Tensor:
        """The signal that a module gives, as ``[B, C, T]``."""
        axes = self.outputs()[self.signal]
        return y.permute([axes.index(axis) for axis in "bct"])

    @property
    def plain(self) -> bool:
        """Whether the module takes and gives ``[B, C, T]`` alone."""
        return self.takes == "bct" and self.gives == "bct" and not self.state


def _leaves(gives: Gives) -> Iterator[str]:
    if isinstance(gives, str):
        yield gives
    else:
        for each in gives:
            yield from _leaves(each)
