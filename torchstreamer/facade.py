"""The names of ``import torchstreamer as pts``, which are loaded when the first of them is used."""

from . import handlers as _handlers  # fills the registry
from .containers.parallel import Parallel1d, Parallel1dStream
from .containers.residual import Residual1d, Residual1dStream
from .containers.sequential import Sequential1dStream
from .core.axes import Axes
from .core.cell import Cell
from .core.checkpoint import checkpoint_step
from .core.context import Context, ContextSampler, band_mask, chunk_mask
from .core.counter import Counter
from .core.reach import Reach
from .core.registry import create_stream, register_streamer
from .core.ring import RingBuffer
from .core.rows import RowPiece, RowStream
from .core.state import stack_states, unstack_state
from .core.state_file import load_state, save_state
from .core.state_size import estimate_state_size
from .core.stream import BaseStream
from .core.streamability import is_streamable
from .core.telling import ProgressCallback
from .data.audio import AudioStreamDataset
from .data.batch import StreamBatch
from .data.dataset import StreamDataset
from .data.loader import StreamDataLoader
from .data.sampling import LengthBatchSampler
from .deploy.compile import CompiledStream, compile
from .deploy.export import export
from .deploy.loading import load
from .deploy.static import StaticStream
from .errors import (
    PointwiseError,
    StreamError,
    StreamFileError,
    StreamInputError,
    StreamOnlineError,
    StreamReadError,
    StreamStateError,
    UnsupportedModuleError,
    WorkerError,
)
from .graph.graph_stream import GraphStream
from .layers.attention import SelfAttention1d, SelfAttentionStream, TransformerEncoderLayer1d
from .layers.attention_positions import AlibiBias, Rotary, ShawBias, T5Bias, TransformerXLBias
from .layers.chunked import Chunked1d, Chunked1dStream
from .layers.conv import Conv1dStream
from .layers.conv_transpose import ConvTranspose1dStream
from .layers.cumulative_norm import (
    CumulativeGroupNorm1d,
    CumulativeGroupNorm1dStream,
    CumulativeLayerNorm1d,
    CumulativeLayerNorm1dStream,
)
from .layers.elementwise import Elementwise1dStream
from .layers.emformer import Emformer1d
from .layers.encoders import CrossAttention1d, TransformerEncoder1d
from .layers.grouped_queries import GroupedQueryAttention
from .layers.linear_recurrence import LinearRecurrence, LinearRecurrenceStream
from .layers.moving_average import ExponentialMovingAverage1d, ExponentialMovingAverage1dStream
from .layers.normalization import BatchNorm1dStream, LayerNorm1d, RMSNorm1d
from .layers.padding import Pad1dStream, without_padding
from .layers.pooling import Pool1dStream
from .layers.recurrent import RecurrentStream
from .layers.replacing import replace_modules
from .layers.rnn import GRUStream, LSTMStream, RNNStream
from .layers.rnn_weights import Recurrent1d
from .layers.upsampling import UpsampleStream
from .ragged.chunked import ChunkModule
from .ragged.collector import StreamCollector
from .ragged.files import stream_files
from .ragged.files_progress import FilesProgress
from .ragged.files_run import FilesReport
from .ragged.inputs import Batch, Input
from .ragged.making import as_stream_tensor, collate, stream_tensor
from .ragged.online import is_online, patch_module, unpatch_module
from .ragged.sinks import ArrayFiles, OutputsInMemory, WaveFiles
from .ragged.stream_module import StreamModule
from .ragged.stream_state import StreamState, stream_state
from .ragged.tensor import StreamTensor

__all__ = [
    "AlibiBias",
    "ArrayFiles",
    "AudioStreamDataset",
    "Axes",
    "BaseStream",
    "Batch",
    "BatchNorm1dStream",
    "Cell",
    "ChunkModule",
    "Chunked1d",
    "Chunked1dStream",
    "CompiledStream",
    "Context",
    "ContextSampler",
    "Conv1dStream",
    "ConvTranspose1dStream",
    "Counter",
    "CrossAttention1d",
    "CumulativeGroupNorm1d",
    "CumulativeGroupNorm1dStream",
    "CumulativeLayerNorm1d",
    "CumulativeLayerNorm1dStream",
    "Elementwise1dStream",
    "Emformer1d",
    "ExponentialMovingAverage1d",
    "ExponentialMovingAverage1dStream",
    "FilesProgress",
    "FilesReport",
    "GRUStream",
    "GraphStream",
    "GroupedQueryAttention",
    "Input",
    "LSTMStream",
    "LayerNorm1d",
    "LengthBatchSampler",
    "LinearRecurrence",
    "LinearRecurrenceStream",
    "OutputsInMemory",
    "Pad1dStream",
    "Parallel1d",
    "Parallel1dStream",
    "PointwiseError",
    "Pool1dStream",
    "ProgressCallback",
    "RMSNorm1d",
    "RNNStream",
    "Reach",
    "Recurrent1d",
    "RecurrentStream",
    "Residual1d",
    "Residual1dStream",
    "RingBuffer",
    "Rotary",
    "RowPiece",
    "RowStream",
    "SelfAttention1d",
    "SelfAttentionStream",
    "Sequential1dStream",
    "ShawBias",
    "StaticStream",
    "StreamBatch",
    "StreamCollector",
    "StreamDataLoader",
    "StreamDataset",
    "StreamError",
    "StreamFileError",
    "StreamInputError",
    "StreamModule",
    "StreamOnlineError",
    "StreamReadError",
    "StreamState",
    "StreamStateError",
    "StreamTensor",
    "T5Bias",
    "TransformerEncoder1d",
    "TransformerEncoderLayer1d",
    "TransformerXLBias",
    "UnsupportedModuleError",
    "UpsampleStream",
    "WaveFiles",
    "WorkerError",
    "as_stream_tensor",
    "band_mask",
    "checkpoint_step",
    "chunk_mask",
    "collate",
    "compile",
    "create_stream",
    "estimate_state_size",
    "export",
    "is_online",
    "is_streamable",
    "load",
    "load_state",
    "patch_module",
    "register_streamer",
    "replace_modules",
    "save_state",
    "stack_states",
    "stream_files",
    "stream_state",
    "stream_tensor",
    "unpatch_module",
    "unstack_state",
    "without_padding",
]

del _handlers
