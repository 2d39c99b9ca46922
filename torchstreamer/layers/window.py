"""The one rule of every layer that looks through a sliding window: convolution and pooling.

With field ``F`` (the samples one window spans), stride ``s`` and the padded signal ``P``, output ``i`` is a function of
``P[i·s : i·s + F]``. TorchScript compiles this file.
"""

from ..core.ring import RingBuffer
from ..core.stream import BaseStream

__all__ = ["WindowStream", "window_count"]


def window_count(n: int, field: int, stride: int) -> int:
    """Windows that fit into ``n`` samples."""
    return (n - field) // stride + 1 if n >= field else 0


class WindowStream(BaseStream):
    """A layer that applies one operation to every window of its padded input.

    Args:
        field: samples that one window spans, ``(kernel_size - 1) · dilation + 1``
        stride: samples from one window to the next
    """

    def __init__(self, field: int, stride: int) -> None:
        super().__init__()
        self.field = field
        self.stride = stride
        self.hop = stride
        self.ratio = (1, stride)
        self.aliasing = 0
        self.keeps_dtype = True
        self.ring = RingBuffer()

    def ready(self, t: int) -> int:
        """Windows that are whole with ``t`` more samples."""
        return window_count(self.ring.held - self.ring.skip + t, self.field, self.stride)
