"""In which dtype sums along a signal are formed. TorchScript compiles this file."""

import torch
from torch import Tensor

__all__ = ["accumulator", "working"]


def accumulator(x: Tensor) -> torch.dtype:
    """Of what is carried along a signal: double precision, where the device has it."""
    return torch.float32 if x.device.type == "mps" else torch.float64


def working(x: Tensor) -> torch.dtype:
    """Of what is computed sample by sample: single precision for half ones, else that of the signal."""
    return torch.float32 if x.dtype == torch.float16 or x.dtype == torch.bfloat16 else x.dtype
