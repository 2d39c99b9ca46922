"""What short-time spectra and their inverse have in common: where frames stand. TorchScript compiles this file."""

from typing import Any, List, Optional, Tuple, Union

from torch import Tensor, nn

from ..core.whole_numbers import whole_number
from ..layers.taper import Taper

__all__ = ["Spectrum"]


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

    __jit_unused_properties__ = ["window"]

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
        self.taper = Taper(window, self.win_length)
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

    @property
    def window(self) -> Tensor:
        """The window, ``[win_length]``."""
        return self.taper.values

    def extra_repr(self) -> str:
        text = f"{self.n_fft}, hop_length={self.hop_length}"
        known: List[Tuple[str, Any, Any]] = [
            ("win_length", self.win_length, self.n_fft),
            ("window", self.taper.name, "hann"),
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
