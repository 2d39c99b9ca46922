"""Tensors in words, for messages. TorchScript compiles this file."""

import torch
from torch import Tensor

__all__ = ["describe", "dtype_name", "is_plain"]


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
        (torch.int8, "torch.int8"),
        (torch.uint8, "torch.uint8"),
        (torch.bool, "torch.bool"),
        (torch.complex64, "torch.complex64"),
        (torch.complex128, "torch.complex128"),
        (torch.complex32, "torch.complex32"),
    ]
    for dtype, name in names:
        if x.dtype == dtype:
            return name
    return "another dtype"


def describe(x: Tensor) -> str:
    """Shape, dtype and device of a tensor."""
    if x.is_nested:
        return f"no single shape, {dtype_name(x)}, on {x.device}"
    kind = "" if is_plain(x) else ", not a plain tensor"
    return f"shape {list(x.size())}, {dtype_name(x)}, on {x.device}{kind}"


def is_plain(x: Tensor) -> bool:
    """Whether a tensor has one shape and strides: it is not sparse, nested, mkldnn's or quantized."""
    return x.layout == torch.strided and not x.is_nested and not x.is_quantized
