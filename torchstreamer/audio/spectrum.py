"""What short-time spectra and their inverse have in common: windows and frames. TorchScript compiles this file."""

import math
from typing import Any, Callable, Dict, List, Optional, Tuple, Union

import torch
from torch import Tensor, nn

from ..core.whole_numbers import whole_number

__all__ = ["Spectrum", "made_window"]


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
        name: ``"hann"``, ``"sqrt_hann"``, ``"hamming"``, ``"blackman"`` or ``"ones"``
        length: in samples
        dtype: torch's default by default; values are computed in double precision
        periodic: whether the next value would be the first one again, as short-time spectra want it

    Raises:
        ValueError: there is no such window (``invalid_window``)
    """
    if name not in _WINDOWS:
        raise ValueError(
            f"invalid_window: window={name!r} came; one of {', '.join(map(repr, _WINDOWS))} was expected; or pass the "
            "window itself, a tensor"
        )
    turns = length if periodic else max(length - 1, 1)
    return _WINDOWS[name](torch.arange(length, dtype=torch.float64) / turns).to(dtype or torch.get_default_dtype())


class Spectrum(nn.Module):
    """Frames of samples and their spectra; the base of `STFT` and `ISTFT`.

    A frame has ``n_fft`` samples, of which a shorter window sees the middle ``win_length``. Only those are read and
    written; `left` and `right` are how far the first and last of them reach out of the signal.
    """

    __constants__ = [
        "n_fft",
        "hop_length",
        "win_length",
        "normalized",
        "onesided",
        "bins",
        "before",
        "after",
        "left",
        "right",
        "norm",
    ]

    window: Tensor

    def __init__(
        self,
        n_fft: int,
        hop_length: Optional[int],
        win_length: Optional[int],
        window: Union[str, Tensor],
        center: bool,
        normalized: bool,
        onesided: bool,
        padding: Union[None, str, Tuple[int, int]],
    ) -> None:
        super().__init__()
        self.n_fft = whole_number(n_fft, "n_fft")
        self.hop_length = self.n_fft // 4 if hop_length is None else hop_length
        whole_number(self.hop_length, "hop_length")
        self.win_length = self.n_fft if win_length is None else whole_number(win_length, "win_length")
        if self.win_length > self.n_fft:
            raise ValueError(
                f"invalid_win_length: win_length={win_length} came with n_fft={n_fft}; at most n_fft was expected; "
                "raise n_fft"
            )
        self.name: Optional[str] = window if isinstance(window, str) else None
        if isinstance(window, str):
            values = made_window(window, self.win_length)
        elif tuple(window.shape) != (self.win_length,) or not window.is_floating_point():
            raise ValueError(
                f"invalid_window: a window of shape {list(window.shape)}, {window.dtype}, came; [{self.win_length}], "
                "real numbers, was expected; make it as long as win_length"
            )
        else:
            values = window.detach().clone()
        self.register_buffer("window", values, persistent=False)
        self.center = center
        self.normalized = normalized
        self.onesided = onesided
        self.norm = "ortho" if normalized else "backward"
        self.bins = self.n_fft // 2 + 1 if onesided else self.n_fft
        self.padding = _padding(padding, center, self.n_fft, self.hop_length)
        self.before = (self.n_fft - self.win_length) // 2
        self.after = self.n_fft - self.win_length - self.before
        self.left = self.padding[0] - self.before
        self.right = self.padding[1] - self.after

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> "Spectrum":
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.name is not None and self.window.device.type != "meta":
            # What has a formula is as exact as its dtype, whatever it was before.
            self.window = made_window(self.name, self.win_length, self.window.dtype).to(self.window.device)
        return self

    def extra_repr(self) -> str:
        text = f"{self.n_fft}, hop_length={self.hop_length}"
        known: List[Tuple[str, Any, Any]] = [
            ("win_length", self.win_length, self.n_fft),
            ("window", self.name, "hann"),
            ("center", self.center, True),
            ("normalized", self.normalized, False),
            ("onesided", self.onesided, True),
        ]
        text += "".join(f", {name}={value!r}" for name, value, default in known if value != default)
        usual = (self.n_fft // 2, self.n_fft // 2) if self.center else (0, 0)
        return text if self.padding == usual else f"{text}, padding={self.padding}"


def _padding(padding: Union[None, str, Tuple[int, int]], center: bool, n_fft: int, hop_length: int) -> Tuple[int, int]:
    if padding is None:
        return (n_fft // 2, n_fft // 2) if center else (0, 0)
    if padding == "causal":
        return max(n_fft - hop_length, 0), 0
    if isinstance(padding, tuple) and len(padding) == 2:
        return whole_number(padding[0], "padding", 0), whole_number(padding[1], "padding", 0)
    raise ValueError(
        f"invalid_padding: padding={padding!r} came; 'causal', samples before and after the signal, or None was "
        "expected; with None center says it"
    )
