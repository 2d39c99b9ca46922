"""What a model depends on."""
from . import unknown as _unknown
from .dependencies import infer_dependency_matrix
from .splitting import split_fixed_chunks, split_wav_lens
from .field import receptive_field, ReceptiveField
from .geometry import field_rule
from .delay import latency, Latency
from .causality import check_causality
from .costs import summary
from .trace import trace_error
