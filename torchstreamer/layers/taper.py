"""Windows that weigh the samples of a frame. TorchScript compiles the module of this file."""

import math
from typing import Any, Callable, Dict, Optional, Union

import torch
from torch import Tensor

from .weights import WeightSource, version_of

__all__ = ["Taper", "made_window"]


def _cosines(*factors: float) -> Callable[[Tensor], Tensor]:
    return lambda turn: sum((f * torch.cos(2 * math.pi * k * turn) for k, f in enumerate(factors)), turn * 0)


# Of the place in the window, from 0 to 1.
_WINDOWS: Dict[str, Callable[[Tensor], Tensor]] = {
    "hann": _cosines(0.5, -0.5),
    "sqrt_hann": lambda turn: torch.sin(math.pi * turn),
    "hamming": _cosines(0.54, -0.46),
    "blackman": _cosines(0.42, -0.5, 0.08),
    "ones": torch.ones_like,
}


def made_window(name: str, length: int, dtype: Optional[torch.dtype] = None, periodic: bool = True) -> Tensor:
    """A window by its name, as ``torch.hann_window`` and its like make them.

    Args:
        name: ``"hann"``, ``"sqrt_hann"``, ``"hamming"``, ``"blackman"`` or ``"ones"``; with ``"symmetric_"`` before it
            not periodic
        length: in samples
        dtype: torch's default by default; values are computed in double precision
        periodic: whether the next value would be the first one again, as short-time spectra want it

    Raises:
        ValueError: there is no such window (``invalid_window``)
    """
    shape = name.removeprefix("symmetric_")
    if shape not in _WINDOWS:
        raise ValueError(
            f"invalid_window: window={name!r} came; one of {', '.join(map(repr, _WINDOWS))} was expected; or pass the "
            "window itself, a tensor"
        )
    turns = length if periodic and shape == name else max(length - 1, 1)
    return _WINDOWS[shape](torch.arange(length, dtype=torch.float64) / turns).to(dtype or torch.get_default_dtype())


class Taper(WeightSource):
    """A window ``[length]``. One with a name is as exact as the dtype it is moved to.

    Args:
        window: its name, or its values, which must be real
        length: in samples

    Raises:
        ValueError: there is no such window, or it has another length (``invalid_window``)
    """

    values: Tensor

    def __init__(self, window: Union[str, Tensor], length: int) -> None:
        super().__init__()
        self.name: Optional[str] = None
        self._given: Optional[Tensor] = None  # values that went to the meta device, which has none
        if isinstance(window, str):
            self.name = window
            values = made_window(window, length)
        else:
            if tuple(window.shape) != (length,) or not window.is_floating_point():
                raise ValueError(
                    f"invalid_window: a window of shape {list(window.shape)}, {window.dtype}, came; [{length}], real "
                    "numbers, was expected; make it as long as win_length"
                )
            values = window.detach().clone()
        self.register_buffer("values", values, persistent=False)

    def forward(self) -> Tensor:
        """The window."""
        return self.values

    def anchor(self) -> Tensor:
        """It says dtype and device."""
        return self.values

    def version(self) -> int:
        """Changes with every in-place change; -1 if that cannot be known."""
        return version_of(self.values)

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> "Taper":
        before = self.values
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.values.is_meta and not before.is_meta:
            self._given = before
        elif before.is_meta and self.name is None and self._given is not None:  # new memory has no values
            self.values = self._given.to(self.values)
        if self.name is not None and not self.values.is_meta:
            self.values = made_window(self.name, self.values.size(0), self.values.dtype).to(self.values.device)
        return self

    def extra_repr(self) -> str:
        return f"{self.values.size(0)}" if self.name is None else f"{self.name!r}, {self.values.size(0)}"
