"""What a model depends on, what it costs, and when it answers; for any callable, and for streams.

from torchstreamer.analysis import infer_dependency_matrix, receptive_field, summary

deps = infer_dependency_matrix(model, (1, 200, 80))    # rows, frames, features
print(receptive_field(net), summary(stream, chunk=160, fs=16000))
"""

from . import unknown as _unknown  # handlers without a rule are measured
from .causality import CausalityReport, Violation, check_causality
from .costs import LayerSummary, StreamSummary, summary
from .delay import Latency, latency
from .dependencies import infer_dependency_matrix
from .field import ReceptiveField, receptive_field
from .geometry import field_rule
from .plot_context import plot_context
from .plot_dependencies import plot_dependency_matrix, plot_receptive_field
from .plot_time import plot_latency, plot_timeline
from .splitting import split_fixed_chunks, split_wav_lens
from .trace import ErrorTrace, trace_error

__all__ = [
    "CausalityReport",
    "ErrorTrace",
    "Latency",
    "LayerSummary",
    "ReceptiveField",
    "StreamSummary",
    "Violation",
    "check_causality",
    "field_rule",
    "infer_dependency_matrix",
    "latency",
    "plot_context",
    "plot_dependency_matrix",
    "plot_latency",
    "plot_receptive_field",
    "plot_timeline",
    "receptive_field",
    "split_fixed_chunks",
    "split_wav_lens",
    "summary",
    "trace_error",
]

del _unknown
