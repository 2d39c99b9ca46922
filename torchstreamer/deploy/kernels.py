"""Which kernels serve a step on which device. Limits were measured."""

import sys

import torch
from torch import Tensor

from ..layers.limits import GEMM_COLUMNS, GPU_COLUMNS, GPU_HALF_COLUMNS, MOST_TAPS

__all__ = ["product_columns", "rounds", "time_major"]

# Without matrix units, one product beats a GPU's convolution of so many channels, however many columns there are.
_GPU_CHANNELS = 128


def product_columns(weight: Tensor, groups: int) -> int:
    """Up to how many outputs, over all rows, a convolution pays as one product of unfolded windows.

    Args:
        weight: ``[O, C / groups, K]``
        groups: of the convolution
    """
    if groups != 1 or weight.size(2) > MOST_TAPS:
        return 0
    if weight.device.type != "cuda":
        return GEMM_COLUMNS
    if weight.dtype.itemsize == 2 or rounds("convolutions", weight.device, weight.dtype):
        return GPU_HALF_COLUMNS
    return sys.maxsize if weight.size(0) >= _GPU_CHANNELS else GPU_COLUMNS


def time_major(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether values ``[B, C, m]`` lie time after time in memory.

    So a GPU's matrix units take them, and what those give lies so: otherwise cuDNN transposes each value twice.
    """
    return device.type == "cuda" and dtype.itemsize == 2


def rounds(what: str, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether torch, as it is set now, may round float32 to TF32 on a GPU.

    Args:
        what: ``"convolutions"`` or ``"products"``
    """
    if device.type != "cuda" or dtype != torch.float32:
        return False
    settings = torch.backends.cudnn if what == "convolutions" else torch.backends.cuda.matmul
    # From torch 2.9 on there is a setting for each operation, and to read the old one may raise.
    newer = getattr(settings, "conv", None) if what == "convolutions" else settings
    precision = getattr(newer, "fp32_precision", None)
    return bool(settings.allow_tf32) if precision is None else precision == "tf32"
