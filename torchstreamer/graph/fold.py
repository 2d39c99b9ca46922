"""Overlap-add of frames. TorchScript compiles this file."""

# A script takes lists where the types ask for tuples.
# mypy: disable-error-code="arg-type"

from typing import List

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Fold"]


class Fold(nn.Module):
    """`torch.nn.functional.fold` of as many frames as come, without padding along time.

    Args:
        axis: which of height and width is time
        height: size of the other one
        kernel_size: height and samples of a frame
        dilation: of both
        padding: of the other one
        stride: of both
    """

    def __init__(
        self, axis: int, height: int, kernel_size: List[int], dilation: List[int], padding: int, stride: List[int]
    ) -> None:
        super().__init__()
        self.axis = axis
        self.height = height
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.padding = padding
        self.stride = stride

    def forward(self, xs: List[Tensor]) -> List[Tensor]:
        """The frames ``[B, C, n]`` added."""
        x = xs[0]
        i = self.axis
        span = (x.size(-1) - 1) * self.stride[i] + (self.kernel_size[i] - 1) * self.dilation[i] + 1
        size = [span, self.height] if i == 0 else [self.height, span]
        padding = [0, self.padding] if i == 0 else [self.padding, 0]
        return [F.fold(x, size, self.kernel_size, self.dilation, padding, self.stride)]
