"""Every module of torch.nn that takes a signal, tried: whether it streams as it is, with an example, or not at all."""

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer.core import registry

__all__ = ["Row", "module_rows", "modules_of_torch", "tried"]

# How a module is made for its trial, if not without arguments.
_SPECTRA, _VOLUME = (1, 4, 8, 40), (1, 4, 4, 6, 40)
_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "AvgPool1d": (2,),
    "AvgPool2d": (2,),
    "AvgPool3d": (2,),
    "AdaptiveAvgPool1d": (2,),
    "AdaptiveAvgPool2d": (2,),
    "AdaptiveAvgPool3d": (2,),
    "AdaptiveMaxPool1d": (2,),
    "AdaptiveMaxPool2d": (2,),
    "AdaptiveMaxPool3d": (2,),
    "BatchNorm1d": (4,),
    "BatchNorm2d": (4,),
    "BatchNorm3d": (4,),
    "Bilinear": (4, 4, 4),
    "ChannelShuffle": (2,),
    "ConstantPad1d": (1, 0.0),
    "ConstantPad2d": (1, 0.0),
    "ConstantPad3d": (1, 0.0),
    "Conv1d": (4, 4, 3),
    "Conv2d": (4, 4, 3),
    "Conv3d": (4, 4, 3),
    "ConvTranspose1d": (4, 4, 3),
    "ConvTranspose2d": (4, 4, 3),
    "ConvTranspose3d": (4, 4, 3),
    "CrossMapLRN2d": (2,),
    "Embedding": (8, 4),
    "EmbeddingBag": (8, 4),
    "Flatten": (1, 2),
    "Fold": ((1, 40), (1, 4)),
    "FractionalMaxPool2d": (2, 3),
    "FractionalMaxPool3d": (2, 3),
    "GRU": (4, 4),
    "GRUCell": (4, 4),
    "GroupNorm": (2, 4),
    "InstanceNorm1d": (4,),
    "InstanceNorm2d": (4,),
    "InstanceNorm3d": (4,),
    "LPPool1d": (2.0, 2),
    "LPPool2d": (2.0, 2),
    "LPPool3d": (2.0, 2),
    "LSTM": (4, 4),
    "LSTMCell": (4, 4),
    "LayerNorm": (4,),
    "Linear": (4, 4),
    "LocalResponseNorm": (2,),
    "MaxPool1d": (2,),
    "MaxPool2d": (2,),
    "MaxPool3d": (2,),
    "MaxUnpool1d": (2,),
    "MaxUnpool2d": (2,),
    "MaxUnpool3d": (2,),
    "MultiheadAttention": (4, 2),
    "PixelShuffle": (2,),
    "PixelUnshuffle": (2,),
    "RMSNorm": (4,),
    "RNN": (4, 4),
    "RNNCell": (4, 4),
    "SyncBatchNorm": (4,),
    "Threshold": (0.1, 0.0),
    "Transformer": (4, 2),
    "TransformerDecoderLayer": (4, 2),
    "TransformerEncoderLayer": (4, 2),
    "Unflatten": (1, (2, 2)),
    "Unfold": ((1, 4),),
    "ZeroPad1d": (1,),
}
_ARGUMENTS |= {f"{kind}Pad{n}d": (1,) for kind in ("Circular", "Reflection", "Replication", "Zero") for n in (1, 2, 3)}
_KEYWORDS: dict[str, dict[str, Any]] = {
    "GLU": {"dim": 1},
    "LogSoftmax": {"dim": 1},
    "Softmax": {"dim": 1},
    "Softmin": {"dim": 1},
    "Upsample": {"scale_factor": 2},
    "UpsamplingBilinear2d": {"scale_factor": 2},
    "UpsamplingNearest2d": {"scale_factor": 2},
}

# Inputs of another layout than [B, C, T] with which a module may stream: how it is told, shapes, the axis of time.
_FEATURES = ("in the layout `[B, T, C]`, and `time_dim=1`", ((1, 40, 4),), 1)
_PLANES = ("in the layout `[B, C, F, T]`", (_SPECTRA,), -1)
_BLOCKS = ("in the layout `[B, C, D, H, T]`", (_VOLUME,), -1)
_TWO = ("two signals `[B, T, C]`, and `time_dim=1`", ((1, 40, 4), (1, 40, 4)), 1)
_LAYOUTS: dict[str, tuple[str, tuple[tuple[int, ...], ...], int]] = {
    "Bilinear": _TWO,
    "CosineSimilarity": ("two signals `[B, C, T]`", ((1, 4, 40), (1, 4, 40)), -1),
    "Embedding": ("whole numbers `[B, T]`", ((1, 40),), -1),
    "Flatten": ("in the layout `[B, C, F, T]`, where time stays whole", (_SPECTRA,), -1),
    "LayerNorm": _FEATURES,
    "Linear": _FEATURES,
    "PairwiseDistance": _TWO,
    "PixelShuffle": _PLANES,
    "PixelUnshuffle": _PLANES,
    "RMSNorm": _FEATURES,
    "Softmax2d": _PLANES,
    "SyncBatchNorm": ("in the layout `[B, C, T]`", ((1, 4, 40),), -1),
    "Unflatten": ("in the layout `[B, C, T]`, where time stays whole", ((1, 4, 40),), -1),
    "Unfold": ("in the layout `[B, C, 1, T]`, one row of patches", ((1, 4, 1, 40),), -1),
    "UpsamplingNearest2d": _PLANES,
}
_MULTIPLES = {"PixelUnshuffle": 2}
# torch.export cannot follow them, or they take more than a signal.
_UNTRIED = {"CrossMapLRN2d", "FractionalMaxPool2d", "FractionalMaxPool3d", "MaxUnpool2d", "MaxUnpool3d"}

# What takes no signal: containers without a forward, losses, bases of others.
_BASES = {"Container", "DataParallel", "Module", "ModuleDict", "ModuleList", "ParameterDict", "ParameterList"}
_BASES |= {"RNNBase", "RNNCellBase"}


@dataclass(frozen=True)
class Row:
    """One line of the index: a name, whether it streams ("yes", "example", "part" or "no"), and what to know."""

    name: str
    answer: str
    note: str


def modules_of_torch() -> list[str]:
    """Names of the modules of torch.nn that turn signals into signals. The lazy ones become others."""
    found = []
    for name in dir(nn):
        kind = getattr(nn, name)
        if isinstance(kind, type) and issubclass(kind, nn.Module):
            if name not in _BASES and "Loss" not in name and not name.startswith("Lazy"):
                found.append(name)
    return sorted(found, key=str.lower)


def module_rows() -> list[Row]:
    """What becomes of each module of torch.nn, and of the package's own."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = [tried(name) for name in modules_of_torch()]
    for kind in registry._factories:
        if kind.__module__.startswith("torchstreamer"):
            factory = registry._factories[kind]
            rows.append(Row(f"pts.{kind.__name__}", "yes", f"as `{getattr(factory, '__name__', '')}`"))
    return rows


def _made(name: str) -> nn.Module:
    if name == "Sequential":
        return nn.Sequential(nn.Conv1d(4, 4, 3))
    if name in ("TransformerEncoder", "TransformerDecoder"):
        layer = getattr(nn, f"{name}Layer")(4, 2)
        return getattr(nn, name)(layer, 1)  # type: ignore[no-any-return]
    made = getattr(nn, name)(*_ARGUMENTS.get(name, ()), **_KEYWORDS.get(name, {})).eval()
    assert isinstance(made, nn.Module)
    return made


def tried(name: str) -> Row:
    """What becomes of a module of torch.nn, by trial."""
    try:
        return Row(name, "yes", f"as `{type(pts.create_stream(_made(name))).__name__}`")
    except pts.UnsupportedModuleError as error:
        refusal = error
    layout = _LAYOUTS.get(name) or (_PLANES if name.endswith("2d") else _BLOCKS if name.endswith("3d") else None)
    if name in _UNTRIED:
        layout = None
    if layout is not None:
        told, shapes, time_dim = layout
        example: list[Tensor] = [torch.randn(shape) for shape in shapes]
        if name.startswith("Embedding"):
            example = [torch.randint(8, shape) for shape in shapes]
        try:
            pts.create_stream(_made(name), tuple(example), time_dim, _MULTIPLES.get(name, 1))
            multiple = f", and `length_multiple={_MULTIPLES[name]}`" if name in _MULTIPLES else ""
            return Row(name, "example", f"with `example=`, {told}{multiple}")
        except pts.UnsupportedModuleError as error:
            refusal = refusal if refusal.code != "no_handler" else error
    return Row(name, "no", f"`{refusal.code}`: {refusal.reason}; {refusal.remedy}")
