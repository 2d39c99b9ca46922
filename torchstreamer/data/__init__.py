"""Loading streams: batches in which every row continues the row before, for recurrent and streaming training."""

from .audio import AudioStreamDataset
from .batch import StreamBatch
from .dataset import StreamDataset
from .info import StreamInfo, stream_info
from .loader import StreamDataLoader
from .plan import Plan
from .sampling import LengthBatchSampler

__all__ = [
    "AudioStreamDataset",
    "LengthBatchSampler",
    "Plan",
    "StreamBatch",
    "StreamDataLoader",
    "StreamDataset",
    "StreamInfo",
    "stream_info",
]
