"""Handlers without a rule: their fields are measured."""

from typing import List

import torch
from torch import Tensor

from ..core.stream import BaseStream
from .dependencies import infer_dependency_matrix
from .geometry import register_unknown

__all__: List[str] = []

_CHANNELS = ("in_channels", "channels", "num_features", "in_features")


def _probed(stream: BaseStream, need: Tensor, n: int) -> Tensor:
    if n == 0:
        return torch.zeros(0, need.shape[1], dtype=torch.bool)
    problem = ""
    for channels in _candidates(stream):
        try:
            matrix = infer_dependency_matrix(stream, (1, channels, n), time_dim=2)
        except Warning:
            raise
        except Exception as error:  # other channels, perhaps
            problem = str(error).splitlines()[0]
            continue
        return (matrix.float() @ need.float()) > 0
    raise ValueError(
        f"no_field_rule: {type(stream).__name__} has no rule for its receptive field and cannot be probed ({problem}); "
        "a rule was expected; give one with field_rule"
    )


def _candidates(stream: BaseStream) -> List[int]:
    found = [getattr(module, name, None) for module in stream.modules() for name in _CHANNELS]
    return list(dict.fromkeys([*(value for value in found if isinstance(value, int) and value > 0), 1, 2]))


register_unknown(_probed)
