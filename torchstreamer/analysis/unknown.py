"""Handlers without a rule: their fields are measured."""

import copy
from typing import List

import torch
from torch import Tensor

from ..core.stream import BaseStream
from ..errors import PointwiseError
from .dependencies import infer_dependency_matrix
from .geometry import register_unknown
from .probed import kind_of

__all__ = ["ensure_pointwise"]

_CHANNELS = ("in_channels", "out_channels", "channels", "num_features", "in_features")


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
            problem = next(iter(str(error).splitlines()), type(error).__name__)
            continue
        return (matrix.float() @ need.float()) > 0
    raise ValueError(
        f"no_field_rule: {type(stream).__name__} has no rule for its receptive field and cannot be probed ({problem}); "
        "a rule was expected; give one with field_rule"
    )


def ensure_pointwise(stream: BaseStream) -> None:
    """Try the modules that a stream takes as pointwise, as their first chunk would.

    Raises:
        PointwiseError: one of them is not
    """
    trusted = [part for part in stream.modules() if isinstance(part, BaseStream) and not getattr(part, "checked", True)]
    for part in trusted:
        dtype, device = kind_of(stream)
        twin = copy.deepcopy(part)
        for channels in dict.fromkeys([*_candidates(part), *_candidates(stream)]):
            twin.reset()
            try:
                with torch.no_grad():
                    twin(torch.zeros(1, channels, 1, dtype=dtype or torch.get_default_dtype(), device=device))
                break
            except (PointwiseError, Warning):
                raise
            except Exception:  # other channels, perhaps; if none fit, it is trusted as it is in a stream
                continue


def _candidates(stream: BaseStream) -> List[int]:
    found = [getattr(module, name, None) for module in stream.modules() for name in _CHANNELS]
    return list(dict.fromkeys([*(value for value in found if isinstance(value, int) and value > 0), 1, 2]))


register_unknown(_probed)
