"""The one table: which module of torch.nn becomes which stream, and what becomes of the others."""

from typing import Any, Dict, Optional, Sequence, Tuple, Type

import torch
from torch import Tensor, nn

from .containers.contextual import with_context
from .containers.kept_length import KeptLength1dStream
from .containers.parallel import Parallel1d, Parallel1dStream
from .containers.residual import Residual1d, Residual1dStream
from .containers.sequential import Sequential1dStream
from .core.context import Context
from .core.example import Select
from .core.frozen import is_twin
from .core.registry import (
    base_with_handler,
    changed_forward,
    mark_built_in,
    register_capture,
    register_container,
    register_contexts,
    register_fallback,
    register_streamer,
)
from .core.stream import BaseStream
from .core.telling import Telling
from .errors import UnsupportedModuleError
from .layers.attention import SelfAttention1d, SelfAttentionStream, TransformerEncoderLayer1d
from .layers.chunked import Chunked1d, Chunked1dStream
from .layers.conv import Conv1dStream
from .layers.conv_transpose import ConvTranspose1dStream
from .layers.cumulative_norm import (
    CumulativeGroupNorm1d,
    CumulativeGroupNorm1dStream,
    CumulativeLayerNorm1d,
    CumulativeLayerNorm1dStream,
)
from .layers.dropout import random_stream
from .layers.elementwise import (
    DROPOUT,
    MODES,
    ActivationStream,
    IdentityStream,
    PointwiseStream,
    PReLUStream,
)
from .layers.emformer import Emformer1d, EmformerLayers, EmformerLayersStream
from .layers.encoders import ChannelNorm, CrossAttention1d, cross_attention_stream
from .layers.kept_length import KeptLength1d
from .layers.linear_recurrence import LinearRecurrence, LinearRecurrenceStream
from .layers.moving_average import ExponentialMovingAverage1d, ExponentialMovingAverage1dStream
from .layers.normalization import BatchNorm1dStream, ChannelNormStream, LayerNorm1d, RMSNorm1d
from .layers.overlap_add import OverlapAdd1d, OverlapAdd1dStream
from .layers.padding import pad_stream
from .layers.pooling import Pool1dStream
from .layers.rnn import GRUStream, LSTMStream, RNNStream, recurrent_stream, refuse_cell
from .layers.rnn_weights import Recurrent1d
from .layers.unknown_module import pointwise_stream, refuse_quantized
from .layers.upsampling import UpsampleStream

_POINTWISE: Tuple[Type[nn.Module], ...] = (
    nn.CELU,
    nn.ELU,
    nn.GELU,
    nn.Hardshrink,
    nn.Hardsigmoid,
    nn.Hardswish,
    nn.Hardtanh,
    nn.LeakyReLU,
    nn.LocalResponseNorm,
    nn.LogSigmoid,
    nn.Mish,
    nn.ReLU,
    nn.ReLU6,
    nn.SELU,
    nn.Sigmoid,
    nn.SiLU,
    nn.Softplus,
    nn.Softshrink,
    nn.Softsign,
    nn.Tanh,
    nn.Tanhshrink,
    nn.Threshold,
)

_ALONE = (nn.BatchNorm1d, nn.ChannelShuffle, nn.Identity, nn.PReLU, nn.RReLU)

_OVER_DIM = (nn.Softmax, nn.LogSoftmax, nn.Softmin, nn.GLU)

# Why a module of torch.nn has no stream, and what to use instead.
_LIVE_STATISTICS = "it normalises by statistics of the whole signal"
_WHOLE = "every output depends on the whole signal"


def _bounded(name: str) -> str:
    return (
        f"bound what its queries see: pts.{name}(net, pts.Context(left=…)), or "
        "pts.create_stream(net, context=pts.Context(left=…)); or run it on windows, which is another model: "
        "pts.Chunked1d(net, chunk, left, right)"
    )


_REFUSED: Dict[Type[nn.Module], Tuple[str, str]] = {
    nn.GroupNorm: (
        _LIVE_STATISTICS,
        "use pts.CumulativeGroupNorm1d, which takes those of what came so far, or BatchNorm1d",
    ),
    nn.modules.instancenorm._InstanceNorm: (
        _LIVE_STATISTICS,
        "use pts.CumulativeGroupNorm1d with a group for each channel, or BatchNorm1d",
    ),
    nn.LayerNorm: (
        "its last axis is time in [B, C, T]",
        "use pts.LayerNorm1d.of(norm), which normalises over the channels",
    ),
    nn.RMSNorm: (
        "its last axis is time in [B, C, T]",
        "use pts.RMSNorm1d.of(norm), which normalises over the channels",
    ),
    nn.Linear: ("it multiplies along the last axis, which is time in [B, C, T]", "use Conv1d with kernel_size=1"),
    nn.Bilinear: ("it multiplies along the last axis, which is time in [B, C, T]", "use Conv1d with kernel_size=1"),
    nn.Softmax2d: ("on [B, C, T] it normalises over the rows of the batch", "use Softmax(dim=1)"),
    nn.modules.pooling._AdaptiveAvgPoolNd: (_WHOLE, "use AvgPool1d with a fixed kernel_size"),
    nn.modules.pooling._AdaptiveMaxPoolNd: (_WHOLE, "use MaxPool1d with a fixed kernel_size"),
    nn.MaxUnpool1d: ("it needs indices into the whole signal", "use Upsample or ConvTranspose1d"),
    nn.CircularPad1d: ("it puts the end of the signal before its start", "use another padding mode"),
    nn.Flatten: ("it takes the time axis away", "leave it outside the stream"),
    nn.Unflatten: ("it changes the axes", "leave it outside the stream"),
    nn.MultiheadAttention: (_WHOLE, _bounded("SelfAttention1d")),
    nn.Transformer: (_WHOLE, "build it of pts.TransformerEncoder1d and pts.CrossAttention1d, with a pts.Context"),
    nn.TransformerEncoder: (_WHOLE, _bounded("TransformerEncoder1d")),
    nn.TransformerEncoderLayer: (_WHOLE, _bounded("TransformerEncoderLayer1d")),
    nn.TransformerDecoder: (
        _WHOLE,
        "build it of pts.TransformerEncoder1d and pts.CrossAttention1d, with a pts.Context",
    ),
    nn.TransformerDecoderLayer: (
        _WHOLE,
        "build it of pts.TransformerEncoder1d and pts.CrossAttention1d, with a pts.Context",
    ),
}


def _pointwise(net: nn.Module) -> BaseStream:
    return ActivationStream(net) if hasattr(net, "inplace") else PointwiseStream(net)


def _dropout(net: nn.Module) -> BaseStream:
    if is_twin(net):
        return random_stream(net)
    if net.training:
        raise UnsupportedModuleError(
            "training_mode", net, "in training mode it draws random numbers for the whole signal", "call eval() first"
        )
    return IdentityStream()


def _rrelu(net: nn.RReLU) -> BaseStream:
    if is_twin(net):
        return random_stream(net)
    if net.training:
        raise UnsupportedModuleError(
            "training_mode", net, "in training mode its slopes are random", "call eval() first"
        )
    # The eval form for ever, whatever mode the module is put into later.
    return PointwiseStream(nn.LeakyReLU((net.lower + net.upper) / 2))


def _over_dim(net: nn.Module) -> BaseStream:
    dim = net.dim
    half = isinstance(net, nn.GLU)
    if dim in (1, -2):
        return PointwiseStream(net, groups=2 if half else 1, halves=half)
    if dim is None:
        reason = "without dim= its axis depends on the rank of the input"
    elif dim in (-1, 2):
        reason = f"dim={dim} is time in [B, C, T]"
    else:
        reason = f"dim={dim} is not the axis of the channels in [B, C, T]"
    raise UnsupportedModuleError("time_mixing", net, reason, "use dim=1, the channels")


def _without_handler(net: nn.Module, telling: Telling) -> BaseStream:
    for net_type, (reason, remedy) in _REFUSED.items():
        if isinstance(net, net_type):
            raise UnsupportedModuleError("time_mixing", net, reason, remedy)
    refuse_quantized(net)
    base = base_with_handler(net)
    if not type(net).__module__.startswith("torch.nn.modules."):
        example = _made_up_example(net)
        if example is not None:
            return _captured(net, example, -1, 1, telling)
    if base is not None:
        raise changed_forward(net, base)
    if type(net).__module__.startswith("torch.nn.modules."):
        raise UnsupportedModuleError(
            "no_handler", net, "this module of torch.nn has no stream", "register a handler with register_streamer"
        )
    return pointwise_stream(net, (*_POINTWISE, *_OVER_DIM, *_ALONE, *DROPOUT))


# Lengths at which a model is tried, in samples.
_LENGTHS = (64, 256, 1024, 4096, 16384)


def _made_up_example(net: nn.Module) -> Optional[Tensor]:
    """An input for a module whose first layer says how many channels it takes; ``None`` if none does, or none works."""
    for layer in net.modules():
        if isinstance(layer, (nn.Conv1d, nn.ConvTranspose1d, nn.BatchNorm1d, Recurrent1d)):
            channels = layer.num_features if isinstance(layer, nn.BatchNorm1d) else layer.in_channels
            weight = next(
                (value for value in [*layer.parameters(), *layer.buffers()] if value.is_floating_point()), None
            )
            if weight is None or any(isinstance(module, MODES) and module.training for module in net.modules()):
                return None
            generator = torch.Generator().manual_seed(channels)
            for length in _LENGTHS:
                x = torch.randn(1, channels, length, generator=generator).to(weight)
                try:
                    with torch.no_grad():
                        y = net(x.clone())
                except Exception:  # too short, or not the first layer after all
                    continue
                if isinstance(y, Tensor) and y.dim() == 3:
                    return x
            return None
    return None


def _captured(
    net: nn.Module,
    example: Any,
    time_dim: Any,
    length_multiple: int,
    telling: Telling,
    context: Optional[Context] = None,
    select: Optional[Select] = None,
    taps: Sequence[str] = (),
    min_length: int = 1,
) -> BaseStream:
    # The exporter takes a while to import, and most streams need none of it.
    from .graph.creation import graph_stream

    return graph_stream(net, example, time_dim, length_multiple, telling, context, select, taps, min_length)


def _emformer(net: Emformer1d) -> BaseStream:
    weight = next(net.parameters())
    frames = 3 * net.segment_length + net.right_context_length
    return _captured(net, weight.new_zeros([1, net.input_dim, frames]), -1, 1, Telling())


def _operations(
    net: nn.Module,
    example: Any,
    time_dim: Any,
    length_multiple: int,
    select: Optional[Select] = None,
    taps: Sequence[str] = (),
) -> Any:
    from .graph.report import operation_reports

    return operation_reports(net, example, time_dim, length_multiple, select, taps)


def register_handlers() -> None:
    """Fill the registry."""
    register_streamer(nn.Conv1d, Conv1dStream)
    register_streamer(nn.ConvTranspose1d, ConvTranspose1dStream)
    for pool in (nn.AvgPool1d, nn.MaxPool1d, nn.LPPool1d):
        register_streamer(pool, Pool1dStream)
    for pad in (nn.ConstantPad1d, nn.ReflectionPad1d, nn.ReplicationPad1d):
        register_streamer(pad, pad_stream)
    register_streamer(nn.Upsample, UpsampleStream)
    register_streamer(nn.BatchNorm1d, BatchNorm1dStream)
    for norm in (LayerNorm1d, RMSNorm1d):
        register_streamer(norm, ChannelNormStream)
    register_streamer(nn.Identity, lambda net: IdentityStream())
    for dropout in DROPOUT:
        register_streamer(dropout, _dropout)
    for activation in _POINTWISE:
        register_streamer(activation, _pointwise)
    for activation in _OVER_DIM:
        register_streamer(activation, _over_dim)
    register_streamer(nn.PReLU, PReLUStream)
    register_streamer(nn.RReLU, _rrelu)
    register_streamer(nn.ChannelShuffle, lambda net: PointwiseStream(net, groups=net.groups, fresh=False))
    register_streamer(Emformer1d, _emformer)
    register_streamer(nn.RNN, RNNStream)
    register_streamer(nn.GRU, GRUStream)
    register_streamer(nn.LSTM, LSTMStream)
    register_streamer(Recurrent1d, recurrent_stream)
    for cell in (nn.RNNCell, nn.GRUCell, nn.LSTMCell):
        register_streamer(cell, refuse_cell)
    register_streamer(nn.Sequential, Sequential1dStream)
    register_streamer(Residual1d, Residual1dStream)
    register_streamer(Parallel1d, Parallel1dStream)
    register_streamer(ChannelNorm, PointwiseStream)
    register_streamer(Chunked1d, Chunked1dStream)
    for container in (nn.Sequential, Residual1d, Parallel1d):
        register_container(container)
    register_contexts(with_context)
    register_fallback(_without_handler)
    register_capture(_captured, _operations)
    mark_built_in()
    # These stay whole in captured models, as modules with a handler of the user's do.
    register_streamer(SelfAttention1d, SelfAttentionStream)
    register_streamer(TransformerEncoderLayer1d, SelfAttentionStream)
    register_streamer(CrossAttention1d, cross_attention_stream)
    register_streamer(EmformerLayers, EmformerLayersStream)
    register_streamer(CumulativeGroupNorm1d, CumulativeGroupNorm1dStream)
    register_streamer(CumulativeLayerNorm1d, CumulativeLayerNorm1dStream)
    register_streamer(LinearRecurrence, LinearRecurrenceStream)
    register_streamer(ExponentialMovingAverage1d, ExponentialMovingAverage1dStream)
    register_streamer(OverlapAdd1d, OverlapAdd1dStream)
    register_streamer(KeptLength1d, KeptLength1dStream)


register_handlers()
