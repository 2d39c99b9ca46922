"""Which kernels serve a step on which device, as far as devices and dtypes alone tell. Limits were measured."""

import torch

from ..layers.weights import GEMM_COLUMNS, GPU_COLUMNS, GPU_HALF_COLUMNS

__all__ = ["full_precision", "lacks_matrix_units", "product_columns", "time_major"]


def product_columns(device: torch.device, dtype: torch.dtype) -> int:
    """Up to how many outputs, over all rows, a convolution pays as one product of unfolded windows."""
    if device.type == "cpu":
        return GEMM_COLUMNS
    return GPU_HALF_COLUMNS if dtype.itemsize == 2 else GPU_COLUMNS


def time_major(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether values ``[B, C, m]`` lie time after time in memory.

    So a GPU's matrix units take them, and what those give lies so: otherwise cuDNN transposes each value twice.
    """
    return device.type == "cuda" and dtype.itemsize == 2


def full_precision(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether torch rounds to no less than the dtype says: on a GPU it may let convolutions of float32 use TF32."""
    if device.type != "cuda" or dtype != torch.float32:
        return True
    try:
        return not torch.backends.cudnn.allow_tf32
    except RuntimeError:  # the newer settings are in use
        return False


def lacks_matrix_units(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a GPU computes convolutions without its matrix units: cuDNN is slow there."""
    return device.type == "cuda" and dtype.itemsize > 2 and full_precision(device, dtype)
