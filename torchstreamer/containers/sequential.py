"""Layers one after the other. TorchScript compiles this file."""

# A ModuleList does not tell the type of its modules.
# mypy: disable-error-code="operator, union-attr"

from typing import Optional

import torch
from torch import Tensor, nn

from ..core.rates import chain_rates
from ..core.registry import create_stream, require_plain
from ..core.whole_numbers import require_length
from ..errors import UnsupportedModuleError
from ..layers.unknown_module import settle_doubts
from .composite import CompositeStream

__all__ = ["Sequential1dStream"]


class Sequential1dStream(CompositeStream):
    """Stream of a `torch.nn.Sequential`.

    Args:
        net: the network; each of its modules needs a stream. A module that stands in it twice gets a stream for each
            place

    Shape:
        - input: ``[B, C, T]`` or ``[C, T]``
        - output: ``[B, C', T']`` or ``[C', T']``

    Raises:
        UnsupportedModuleError: a module inside cannot be streamed exactly; the message names its path

    Example:
        >>> import torch, torchstreamer as pts
        >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 8, 3), torch.nn.GELU(), torch.nn.Conv1d(8, 1, 1))
        >>> stream = pts.Sequential1dStream(net)
        >>> x = torch.randn(1, 1, 30)
        >>> y = torch.cat([stream(x[..., :13]), stream(x[..., 13:], final=True)], dim=-1)
        >>> torch.testing.assert_close(y, net(x))
    """

    fresh = True

    def __init__(self, net: nn.Sequential) -> None:
        if not isinstance(net, nn.Sequential):
            raise UnsupportedModuleError(
                "invalid_sequential",
                net,
                "Sequential1dStream takes a torch.nn.Sequential",
                "use pts.create_stream(net)",
            )
        require_plain(net, nn.Sequential)
        try:
            streams = [create_stream(module) for module in net]
        except UnsupportedModuleError as error:
            raise error.within(net) from None
        super().__init__(streams)
        settle_doubts(net, streams)
        self.hop, self.ratio = chain_rates([(stream.hop, stream.ratio) for stream in streams])
        self.aliasing = 1
        self.keeps_dtype = all(stream.keeps_dtype for stream in streams)
        self.fresh = self.fresh and len(streams) > 0 and streams[-1].fresh
        for i, stream in enumerate(streams):
            self.bound_by(stream, streams[:i])
        for before, stream in zip(streams[:-1], streams[1:], strict=True):
            if before.fresh:
                stream.own_input()
        for stream in streams:
            self.aliasing = self.aliasing if stream.aliasing == 1 else stream.aliasing

    def own_input(self) -> None:
        """What comes in is the first stream's own."""
        for stream in self.streams[:1]:
            stream.own_input()

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        for stream in self.streams:
            x = stream.step(x, final)
        return x

    @torch.jit.export
    def output_length(self, n: int, final: bool = True) -> int:
        """Number of samples out after ``n`` samples in; see `BaseStream.output_length`."""
        require_length(n)
        for stream in self.streams:
            n = stream.output_length(n, final)
        return n

    def output_channels(self, channels: int) -> int:
        """Channels out for channels in."""
        for stream in self.streams:
            channels = stream.output_channels(channels)
        return channels
