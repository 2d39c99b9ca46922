"""A network whose output is made as long as its input. TorchScript compiles this file."""

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["KeptLength1d", "fitted"]


def fitted(y: Tensor, length: int) -> Tensor:
    """The first ``length`` samples, and zeros after them where there are fewer."""
    there = min(y.size(-1), length)
    y = y.narrow(-1, 0, there)
    return y if there == length else F.pad(y, [0, length - there])


class KeptLength1d(nn.Module):
    """A network whose output is cropped at its end to the length of its input, or padded there with zeros.

    Args:
        net: the network; it keeps the rate

    Shape:
        - input: ``[B, C, T]`` or ``[C, T]``
        - output: ``[B, C', T]`` or ``[C', T]``
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """The output of the network, as long as ``x``."""
        return fitted(self.net(x), x.size(-1))
