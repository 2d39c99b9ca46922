"""Normalisations of each frame alone: by fixed statistics, or over its channels. TorchScript compiles this file."""

from typing import Optional, Union

import torch.nn.functional as F
from torch import Tensor, nn

from ..core.fast_attributes import entry
from ..core.reach import Reach
from ..core.registry import require_plain
from ..core.stream import BaseStream
from ..errors import StreamInputError, UnsupportedModuleError
from .elementwise import PointwiseStream

__all__ = ["BatchNorm1dStream", "ChannelNormStream", "LayerNorm1d", "RMSNorm1d"]


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


class LayerNorm1d(nn.LayerNorm):
    """`torch.nn.LayerNorm` over the channels of ``[B, C, T]``, frame by frame.

    Its weights are those of a `torch.nn.LayerNorm` of as many features, under the same names, so it loads a state dict
    of one. It is what asteroid and others call ``cLN``, channel-wise layer normalisation.

    Args:
        channels: number of channels
        eps: added to the variance
        elementwise_affine: whether it has a weight for each channel
        bias: whether it has a bias too

    Shape:
        - input: ``[B, channels, T]`` or ``[channels, T]``
        - output: the same

    Example:
        >>> import torch, torchstreamer as pts
        >>> norm = torch.nn.LayerNorm(4)
        >>> x = torch.randn(1, 4, 10)
        >>> y = pts.create_stream(pts.LayerNorm1d.of(norm))(x)
        >>> torch.testing.assert_close(y, norm(x.transpose(1, 2)).transpose(1, 2))
    """

    def __init__(self, channels: int, eps: float = 1e-5, elementwise_affine: bool = True, bias: bool = True) -> None:
        super().__init__(channels, eps, elementwise_affine, bias)

    @classmethod
    def of(cls, norm: nn.LayerNorm) -> "LayerNorm1d":
        """The same over the channels of ``[B, C, T]``, with the very weights of a norm over the last axis."""
        made = cls(_features(norm), norm.eps, elementwise_affine=False)
        made.elementwise_affine = norm.elementwise_affine
        made.weight, made.bias = norm.weight, norm.bias
        return made

    def forward(self, input: Tensor) -> Tensor:
        """Every frame, normalised."""
        y = F.layer_norm(input.transpose(-1, -2), self.normalized_shape, self.weight, self.bias, self.eps)
        return y.transpose(-1, -2)


class RMSNorm1d(nn.RMSNorm):
    """`torch.nn.RMSNorm` over the channels of ``[B, C, T]``, frame by frame.

    Its weight is that of a `torch.nn.RMSNorm` of as many features, under the same name.

    Args:
        channels: number of channels
        eps: added to the mean of the squares; by default the smallest difference from 1 of the input's dtype
        elementwise_affine: whether it has a weight for each channel

    Shape:
        - input: ``[B, channels, T]`` or ``[channels, T]``
        - output: the same

    Example:
        >>> import torch, torchstreamer as pts
        >>> norm = pts.RMSNorm1d(2)
        >>> norm(torch.tensor([[1.0, 0.0], [7.0, 5.0]]))[1]  # 7 / 5, then 5 / sqrt(25 / 2)
        tensor([1.4000, 1.4142], grad_fn=<SelectBackward0>)
    """

    def __init__(self, channels: int, eps: Optional[float] = None, elementwise_affine: bool = True) -> None:
        super().__init__(channels, eps, elementwise_affine)

    @classmethod
    def of(cls, norm: nn.RMSNorm) -> "RMSNorm1d":
        """The same over the channels of ``[B, C, T]``, with the very weight of a norm over the last axis."""
        made = cls(_features(norm), norm.eps, elementwise_affine=False)
        made.elementwise_affine = norm.elementwise_affine
        made.weight = norm.weight
        return made

    def forward(self, x: Tensor) -> Tensor:
        """Every frame, normalised."""
        return F.rms_norm(x.transpose(-1, -2), self.normalized_shape, self.weight, self.eps).transpose(-1, -2)


def _features(norm: Union[nn.LayerNorm, nn.RMSNorm]) -> int:
    shape = norm.normalized_shape
    if len(shape) != 1:
        raise ValueError(
            f"invalid_norm: a {type(norm).__name__} over {list(shape)} came; one over a single axis, the channels, was "
            "expected; normalise the others in a model of your own"
        )
    return int(shape[0])


class ChannelNormStream(PointwiseStream):
    """Stream of a `LayerNorm1d` or an `RMSNorm1d`.

    Args:
        net: the normalisation
    """

    def __init__(self, net: Union[LayerNorm1d, RMSNorm1d]) -> None:
        require_plain(net, LayerNorm1d, RMSNorm1d)
        super().__init__(net, _features(net))

    def anchor(self) -> Optional[Tensor]:
        """The weight says dtype and device."""
        return self.net.weight
