"""Logarithms and decibels, and what bounds their range."""

import math
from typing import Dict, List, Tuple, Union

import torch
from torch import Tensor, nn

from ..core.registry import register_streamer, require_plain
from ..core.stream import BaseStream
from ..layers.elementwise import PointwiseStream
from ..layers.recurrent import ModuleRecurrenceStream
from ..layers.samples import require_real
from .configuring import configured

__all__ = ["DynamicRange", "Logarithm"]

# The factor of the natural logarithm: of base 10, and of powers and amplitudes in decibels.
_UNITS: Dict[str, float] = {
    "ln": 1.0,
    "log10": 1 / math.log(10),
    "db_power": 10 / math.log(10),
    "db_amplitude": 20 / math.log(10),
}


@configured
class Logarithm(nn.Module):
    """The logarithm of every value, kept from that of 0.

    Args:
        unit: ``"ln"``, ``"log10"``; ``"db_power"``, ``10 · log10(x / reference)``; or ``"db_amplitude"``, ``20 ·
            log10(x / reference)``
        floor: the least value, above 0
        guard: ``"clamp"`` raises smaller values to the floor; ``"add"`` adds it to all, as NeMo and MFCC do
        reference: the value of which the logarithm is 0

    Shape:
        - input: ``[B, C, T]`` or ``[C, T]``
        - output: the same

    Raises:
        ValueError: another unit or guard, a floor or a reference that is not above 0

    Example:
        >>> import torch
        >>> from torchstreamer.audio import Logarithm
        >>> Logarithm("db_power")(torch.tensor([[1.0, 100.0, 0.0]]))
        tensor([[   0.,   20., -100.]])
    """

    def __init__(
        self, unit: str = "db_power", floor: float = 1e-10, guard: str = "clamp", reference: float = 1.0
    ) -> None:
        super().__init__()
        if unit not in _UNITS:
            raise ValueError(
                f"invalid_unit: unit={unit!r} came; one of {', '.join(map(repr, _UNITS))} was expected; choose one"
            )
        if guard not in ("clamp", "add"):
            raise ValueError(f"invalid_guard: guard={guard!r} came; 'clamp' or 'add' was expected; choose one")
        if not (floor > 0 and reference > 0):
            raise ValueError(
                f"invalid_floor: floor={floor} and reference={reference} came; numbers above 0 were expected, as the "
                "logarithm of 0 is infinite"
            )
        self.unit, self.floor, self.guard, self.reference = unit, float(floor), guard, float(reference)
        self.factor = _UNITS[unit]
        self.decadic = unit != "ln"
        self.offset = self.factor * math.log(reference)
        self.adds = guard == "add"

    def forward(self, x: Tensor) -> Tensor:
        """The logarithms."""
        x = x + self.floor if self.adds else x.clamp(min=self.floor)
        if not self.decadic:
            return x.log() - self.offset
        return x.log10() * (self.factor * math.log(10.0)) - self.offset

    def extra_repr(self) -> str:
        return f"{self.unit!r}, floor={self.floor}, guard={self.guard!r}, reference={self.reference}"


@configured
class DynamicRange(nn.Module):
    """Raises values to at most ``range`` below a maximum.

    Whisper's log-mel and decibels with ``top_db`` take the maximum of the whole recording, which no stream can know.
    These two stand in for it, offline and streamed alike.

    Args:
        range: how far below the maximum the least value is, in the units of the input
        maximum: a number, the same for all signals; or ``"running"``, the largest value of all channels so far

    Shape:
        - input: ``[B, C, T]`` or ``[C, T]``
        - output: the same

    Raises:
        ValueError: ``maximum="whole"``, or another that is no number; a negative range

    Example:
        >>> import torch
        >>> from torchstreamer.audio import DynamicRange
        >>> x = torch.tensor([[-20.0, 0.0, -20.0, 5.0]])
        >>> DynamicRange(8.0, "running")(x), DynamicRange(8.0, 1.5)(x)
        (tensor([[-20.,   0.,  -8.,   5.]]), tensor([[-6.5000,  0.0000, -6.5000,  5.0000]]))
    """

    def __init__(self, range: float, maximum: Union[float, str]) -> None:
        super().__init__()
        if maximum == "whole":
            raise ValueError(
                "whole_maximum: maximum='whole' came; a number or 'running' was expected, as the maximum of the whole "
                "signal is not known before its end; give the maximum of your recordings, or 'running'"
            )
        if not isinstance(maximum, (int, float)) and maximum != "running":
            raise ValueError(
                f"invalid_maximum: maximum={maximum!r} came; a number or 'running' was expected; choose one"
            )
        if not range >= 0:
            raise ValueError(f"invalid_range: range={range} came; 0 or more was expected; it counts downwards")
        self.range = float(range)
        self.running = isinstance(maximum, str)
        self.maximum = 0.0 if isinstance(maximum, str) else float(maximum)

    def forward(self, x: Tensor) -> Tensor:
        """The values, raised."""
        if not self.running:
            return x.clamp(min=self.maximum - self.range)
        if x.size(-1) == 0:
            return x
        rows = x.unsqueeze(0) if x.dim() == 2 else x
        y, _ = self.advance(rows, self.initial(rows))
        return y.squeeze(0) if x.dim() == 2 else y

    def initial(self, x: Tensor) -> List[Tensor]:
        """The maximum of no values, ``[B, 1, 1]``."""
        require_real(x)
        return [torch.full([x.size(0), 1, 1], -math.inf, dtype=x.dtype, device=x.device)]

    def advance(self, x: Tensor, state: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        """The values of a chunk, raised, and the maximum after it."""
        largest = torch.maximum(x.amax(1, keepdim=True).cummax(2)[0], state[0])
        return torch.maximum(x, largest - self.range), [largest[:, :, -1:]]

    def extra_repr(self) -> str:
        return f"{self.range}, {'running' if self.running else self.maximum}"


class DynamicRangeStream(ModuleRecurrenceStream):
    """Stream of a `DynamicRange` of the running maximum."""

    fresh = True

    def __init__(self, net: DynamicRange) -> None:
        super().__init__(net, names=["maximum"])
        self.aliasing = 0
        self.keeps_dtype = True


def _range_stream(net: DynamicRange) -> BaseStream:
    require_plain(net, DynamicRange)
    return DynamicRangeStream(net) if net.running else PointwiseStream(net)


register_streamer(Logarithm, PointwiseStream)
register_streamer(DynamicRange, _range_stream)
