"""Per-channel energy normalization. TorchScript compiles this file."""

# Parameters or plain numbers, as the module is made.
# mypy: disable-error-code="operator, arg-type"

import math
from typing import List, Optional, Tuple

import torch
from torch import Tensor, nn

from ..core.registry import register_streamer, require_plain
from ..layers.channelwise import ChannelwiseRecurrence, ChannelwiseRecurrenceStream
from ..layers.moving_average import ExponentialMovingAverage1d
from .configuring import configured

__all__ = ["PCEN"]


@configured
class PCEN(ChannelwiseRecurrence):
    r"""Per-channel energy normalization: an automatic gain and a root, in place of the logarithm.

    ``y = (x / (eps + m) ** gain + bias) ** power - bias ** power`` with the smoothed energy ``m[t] = (1 - smooth) ·
    m[t-1] + smooth · x[t]``, which begins with the first frame. Wang et al., "Trainable Frontend For Robust and
    Far-Field Keyword Spotting", 2017.

    Args:
        smooth: share of a new frame in the smoothed energy; `smoothing` gives it for a time in seconds
        gain: exponent of the smoothed energy
        bias: added before the root
        power: exponent of the root, above 0
        eps: added to the smoothed energy
        channels: with it, ``gain``, ``bias`` and ``power`` are parameters of so many values each, to be trained
        initial: ``"first"`` or ``"zero"``: whether the smoothed energy begins with the first frame or with silence

    Shape:
        - input: energies or magnitudes, 0 or more, ``[B, C, K]`` or ``[C, K]``
        - output: the same

    Raises:
        ValueError: numbers out of range

    Example:
        >>> import torch
        >>> from torchstreamer.audio import PCEN
        >>> PCEN()(torch.full((1, 3), 4.0))  # (4 / 4 ** 0.98 + 2) ** 0.5 - 2 ** 0.5
        tensor([[0.3259, 0.3259, 0.3259]])
    """

    def __init__(
        self,
        smooth: float = 0.025,
        gain: float = 0.98,
        bias: float = 2.0,
        power: float = 0.5,
        eps: float = 1e-6,
        channels: Optional[int] = None,
        initial: str = "first",
    ) -> None:
        super().__init__()
        if not (gain >= 0 and bias >= 0 and power > 0 and eps > 0):
            raise ValueError(
                f"invalid_pcen: gain={gain}, bias={bias}, power={power}, eps={eps} came; gain and bias of 0 or more, "
                "power and eps above 0 were expected"
            )
        self.average = ExponentialMovingAverage1d(smooth, initial)
        self.eps = float(eps)
        self.channels = -1 if channels is None else int(channels)
        for name, value in (("gain", gain), ("bias", bias), ("power", power)):
            self._hold(name, float(value))

    def _hold(self, name: str, value: float) -> None:
        if self.channels == -1:
            setattr(self, name, value)
        else:
            setattr(self, name, nn.Parameter(torch.full([self.channels, 1], value)))

    @staticmethod
    def smoothing(seconds: float, frame_rate: float) -> float:
        """The share of a new frame for a time constant, as in librosa.

        Args:
            seconds: the time constant
            frame_rate: frames a second, in Hz
        """
        frames = seconds * frame_rate
        return (math.sqrt(1 + 4 * frames**2) - 1) / (2 * frames**2)

    def normalised(self, x: Tensor, smoothed: Tensor) -> Tensor:
        """Energies normalised by the smoothed ones."""
        gain = torch.exp(-self.gain * torch.log(smoothed + self.eps))
        return (x * gain + self.bias) ** self.power - self.bias**self.power

    def initial(self, x: Tensor) -> List[Tensor]:
        """What the smoothed energy begins with, ``[B, C, 1]``."""
        return self.average.initial(x)

    def advance(self, x: Tensor, state: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        """The normalised energies of a chunk, and the smoothed energy after it."""
        smoothed, state = self.average.advance(x, state)
        return self.normalised(x, smoothed), state

    def extra_repr(self) -> str:
        if self.channels != -1:
            return f"channels={self.channels}, eps={self.eps}"
        return f"gain={self.gain}, bias={self.bias}, power={self.power}, eps={self.eps}"


class PCENStream(ChannelwiseRecurrenceStream):
    """Stream of a `PCEN`."""

    def __init__(self, net: PCEN) -> None:
        require_plain(net, PCEN)
        super().__init__(net, ["smoothed"])


register_streamer(PCEN, PCENStream)
