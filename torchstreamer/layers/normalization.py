"""Streams of normalisations with fixed statistics. TorchScript compiles this file."""

from typing import Optional

import torch.nn.functional as F
from torch import Tensor, nn

from ..core.fast_attributes import entry
from ..core.reach import Reach
from ..core.registry import require_plain
from ..core.stream import BaseStream
from ..errors import StreamInputError, UnsupportedModuleError

__all__ = ["BatchNorm1dStream"]


class BatchNorm1dStream(BaseStream):
    """Stream of a `torch.nn.BatchNorm1d` in eval mode, which it computes for ever.

    Args:
        net: the normalisation, with running statistics

    Shape:
        - input: ``[B, num_features, T]`` or ``[num_features, T]``, where the module itself would read a batch
        - output: the same

    Raises:
        UnsupportedModuleError: training mode, or no running statistics

    Example:
        >>> import torch, torchstreamer as pts
        >>> norm = torch.nn.BatchNorm1d(3).eval()
        >>> x = torch.randn(3, 5)
        >>> torch.testing.assert_close(pts.create_stream(norm)(x), norm(x[None])[0])
    """

    fresh = True
    net = entry("_modules")

    def __init__(self, net: nn.BatchNorm1d) -> None:
        require_plain(net, nn.BatchNorm1d)
        super().__init__(Reach())
        if net.running_mean is None or net.running_var is None:
            raise UnsupportedModuleError(
                "untracked_statistics",
                net,
                "without running statistics it normalises by those of the whole signal",
                "train it with track_running_stats=True",
            )
        if net.training:
            raise UnsupportedModuleError(
                "training_mode",
                net,
                "in training mode it normalises by the statistics of the batch",
                "call eval() first",
            )
        self.aliasing = 0
        self.keeps_dtype = True
        self.net = net

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        if x is None:
            return None
        net = self.net
        return F.batch_norm(x, net.running_mean, net.running_var, net.weight, net.bias, False, 0.0, net.eps)

    def output_channels(self, channels: int) -> int:
        """Channels out for channels in."""
        if channels != self.net.num_features and channels != -1:
            raise StreamInputError(
                f"invalid_chunk: {channels} channels came; a BatchNorm1d takes {self.net.num_features}; check the "
                "axes, a chunk is [B, C, T] or [C, T]"
            )
        return self.net.num_features

    def anchor(self) -> Optional[Tensor]:
        """The running mean says dtype and device."""
        return self.net.running_mean
