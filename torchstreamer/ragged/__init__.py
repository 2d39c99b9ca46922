"""Many live signals at once: rows of unequal length and age in one tensor."""

from . import axes, channels, indexing, joining, pointwise, reductions  # fill the table of rules
from .collector import StreamCollector
from .inputs import Batch, Input
from .making import as_stream_tensor, collate, stream_tensor
from .tensor import StreamTensor

__all__ = [
    "Batch",
    "Input",
    "StreamCollector",
    "StreamTensor",
    "as_stream_tensor",
    "collate",
    "stream_tensor",
]

del axes, channels, indexing, joining, pointwise, reductions
