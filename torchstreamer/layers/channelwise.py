"""Modules that run along time channel by channel, and their streams. TorchScript compiles this file."""

# A submodule's methods are not known to the type checker.
# mypy: disable-error-code="operator"

from typing import List, Sequence, Tuple

from torch import Tensor, nn

from ..errors import StreamInputError
from .recurrent import ModuleRecurrenceStream
from .samples import require_axes, require_fraction

__all__ = ["ChannelwiseRecurrence", "ChannelwiseRecurrenceStream"]


class ChannelwiseRecurrence(nn.Module):
    """A module that carries a state along time and gives as many channels as came, of the same dtype.

    A subclass gives `initial` and `advance`, as a `RecurrentStream` does, and sets `channels`: how many it has numbers
    for, -1 for any.
    """

    channels: int

    def forward(self, x: Tensor) -> Tensor:
        """The whole signal."""
        require_axes(x)
        require_fraction(x)
        self.check(x.size(-2))
        rows = x.unsqueeze(0) if x.dim() == 2 else x
        if rows.size(2) > 0:
            rows, _ = self.advance(rows, self.initial(rows))
        return rows.squeeze(0) if x.dim() == 2 else rows

    def check(self, channels: int) -> None:
        """Refuse another number of channels than there are numbers for."""
        if channels != -1 and self.channels != -1 and channels != self.channels:
            raise StreamInputError(
                f"invalid_chunk: {channels} channels came; {self.channels} were expected; check the axes, a chunk is "
                "[B, C, T] or [C, T]"
            )

    def initial(self, x: Tensor) -> List[Tensor]:
        """The state before the first sample, ``[B, …]`` each."""
        raise NotImplementedError

    def advance(self, x: Tensor, state: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        """What becomes of a chunk, and the state after it."""
        raise NotImplementedError


class ChannelwiseRecurrenceStream(ModuleRecurrenceStream):
    """Stream of a `ChannelwiseRecurrence`.

    Args:
        net: the module
        names: of the state's tensors
    """

    fresh = True

    def __init__(self, net: ChannelwiseRecurrence, names: Sequence[str]) -> None:
        super().__init__(net, names=names)
        self.aliasing = 0
        self.keeps_dtype = True

    def output_channels(self, channels: int) -> int:
        """Channels out for channels in."""
        self.net.check(channels)
        return channels
