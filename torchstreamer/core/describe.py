"""Tensors in words, for messages. TorchScript compiles this file."""

import torch
from torch import Tensor

__all__ = ["describe", "dtype_name", "samples"]


def dtype_name(x: Tensor) -> str:
    """The name of a tensor's dtype, also in TorchScript, where dtypes are numbers."""
    names = [
        (torch.float32, "torch.float32"),
        (torch.float64, "torch.float64"),
        (torch.float16, "torch.float16"),
        (torch.bfloat16, "torch.bfloat16"),
        (torch.int64, "torch.int64"),
        (torch.int32, "torch.int32"),
        (torch.int16, "torch.int16"),
        (torch.uint8, "torch.uint8"),
        (torch.bool, "torch.bool"),
        (torch.complex64, "torch.complex64"),
        (torch.complex128, "torch.complex128"),
    ]
    for dtype, name in names:
        if x.dtype == dtype:
            return name
    return "another dtype"


def describe(x: Tensor) -> str:
    """Shape, dtype and device of a tensor."""
    return f"shape {list(x.size())}, {dtype_name(x)}, on {x.device}"


def samples(n: int) -> str:
    """So many samples."""
    return "1 sample" if n == 1 else f"{n} samples"
