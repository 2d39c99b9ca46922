"""Handlers without a rule: their fields are measured."""

import copy
from typing import List

import torch
from torch import Tensor

from ..core.stream import BaseStream
from .dependencies import infer_dependency_matrix
from .geometry import register_unknown
from .probed import kind_of

__all__: List[str] = []

_CHANNELS = ("in_channels", "channels", "num_features", "in_features")


def _probed(stream: BaseStream, need: Tensor, n: int) -> Tensor:
    if n == 0:
        return torch.zeros(0, need.shape[1], dtype=torch.bool)
    twin = copy.deepcopy(stream)
    dtype = kind_of(twin)[0]
    problem = ""
    for channels in _candidates(twin):

        def whole(x: Tensor) -> Tensor:
            twin.reset()
            return twin(x, final=True)

        try:
            matrix = infer_dependency_matrix(whole, (1, channels, n), time_dim=2, dtype=dtype)
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
