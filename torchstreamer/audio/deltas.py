"""Slopes of features over time."""

from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.registry import register_streamer, require_plain
from ..layers.padding import Pad1dStream
from ..layers.samples import require_signal
from ..layers.window import FramesStream
from .configuring import configured
from .tables import Tabled

__all__ = ["Deltas"]


@configured
class Deltas(Tabled):
    """The slope of every channel over time, by least squares in a window of frames; the edges are repeated.

    ``y[t] = Σ n · (x[t+n] - x[t-n]) / (2 · Σ n²)`` over ``n = 1 … (win_length - 1) / 2``, as in HTK, Kaldi and
    torchaudio. A stream gives it ``(win_length - 1) / 2`` frames late.

    Args:
        win_length: frames of the window, odd, 3 or more

    Shape:
        - input: ``[B, C, K]`` or ``[C, K]``
        - output: the same

    Raises:
        ValueError: an even window, or one of fewer than 3 frames

    Example:
        >>> import torch
        >>> from torchstreamer.audio import Deltas
        >>> Deltas(3)(torch.tensor([[0.0, 1.0, 2.0, 3.0]]))
        tensor([[0.5000, 1.0000, 1.0000, 0.5000]])
    """

    slope: Tensor

    def __init__(self, win_length: int = 5) -> None:
        super().__init__()
        if win_length < 3 or win_length % 2 == 0:
            raise ValueError(
                f"invalid_win_length: win_length={win_length} came; an odd number of frames, 3 or more, was expected"
            )
        self.win_length, self.side = win_length, win_length // 2
        places = torch.arange(-self.side, self.side + 1, dtype=torch.float64)
        self.table("slope", places / places.square().sum())

    def forward(self, x: Tensor) -> Tensor:
        """The slopes of the whole signal."""
        require_signal(x)
        rows = x.unsqueeze(0) if x.dim() == 2 else x
        if rows.size(2) == 0:
            return x
        y = self.windows(F.pad(rows, [self.side, self.side], "replicate"))
        return y.squeeze(0) if x.dim() == 2 else y

    def windows(self, x: Tensor) -> Tensor:
        """The slopes of all whole windows, ``[B, C, n]``."""
        kernel = self.slope.expand(x.size(1), 1, -1)
        return F.conv1d(x, kernel, groups=x.size(1))

    def extra_repr(self) -> str:
        return f"win_length={self.win_length}"


class DeltasStream(FramesStream):
    """Stream of `Deltas`."""

    def __init__(self, net: Deltas) -> None:
        require_plain(net, Deltas)
        super().__init__(net, net.win_length, 1, Pad1dStream(net.side, net.side, "replicate"))

    def anchor(self) -> Optional[Tensor]:
        """The table says dtype and device."""
        return self.net.slope

    def output_channels(self, channels: int) -> int:
        """Channels out for channels in."""
        return channels


register_streamer(Deltas, DeltasStream)
