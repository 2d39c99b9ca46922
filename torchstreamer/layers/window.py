"""The one rule of every layer that looks through a sliding window: convolution and pooling.

With field ``F`` (the samples one window spans), stride ``s`` and the padded signal ``P``, output ``i`` is a function of
``P[i·s : i·s + F]``. TorchScript compiles this file.
"""

from torch import Tensor

from ..core.ring import RingBuffer
from ..core.stream import BaseStream

__all__ = ["WindowStream", "unfold", "window_count"]


def window_count(n: int, field: int, stride: int) -> int:
    """Windows that fit into ``n`` samples."""
    return (n - field) // stride + 1 if n >= field else 0


def unfold(rows: Tensor, first: int, count: int, stride: int, taps: int) -> Tensor:
    """Windows of neighbouring samples as the rows of a matrix ``[B · count, taps · C]``, without a copy where one can
    do without.

    Args:
        rows: samples ``[B, m, C]``, each row contiguous; `RingBuffer.extend`
        first: row at which the first window begins
        count: windows
        stride: rows from one window to the next
        taps: rows of a window
    """
    b = rows.size(0)
    c = rows.size(2)
    place = rows.storage_offset() + first * c
    if count == 1:
        return rows.as_strided([b, taps * c], [rows.stride(0), 1], place)
    if b == 1:
        return rows.as_strided([count, taps * c], [stride * c, 1], place)
    windows = rows.as_strided([b, count, taps * c], [rows.stride(0), stride * c, 1], place)
    return windows.reshape(b * count, taps * c)


class WindowStream(BaseStream):
    """A layer that applies one operation to every window of its padded input.

    Args:
        field: samples that one window spans, ``(kernel_size - 1) · dilation + 1``
        stride: samples from one window to the next
    """

    # What a script takes as constant: it leaves out the branches that these decide.
    __constants__ = ["field", "stride"]

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
