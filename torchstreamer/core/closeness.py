"""How far two tensors are apart, for trials of a stream against its model and of one step against another."""

import torch
from torch import Tensor

__all__ = ["distance", "largest", "tolerance"]


def largest(x: Tensor) -> float:
    """The largest finite magnitude, 0 if there is none."""
    finite = x[x.isfinite()]
    finite = finite.int() if x.dtype == torch.bool else finite.abs()
    return float(finite.max()) if finite.numel() > 0 else 0.0


def distance(found: Tensor, expected: Tensor, scale: float = 1.0, relative: float = 0.0) -> float:
    """The largest difference of two tensors, in units of ``scale + relative · |expected|``.

    It is infinite for tensors of another shape or dtype, for whole numbers that differ, and where one of two values is
    nan or infinite alone.
    """
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return float("inf")
    if torch.equal(found, expected):
        return 0.0
    if not (found.is_floating_point() or found.is_complex()):
        return float("inf")
    same = (found == expected) | (found.isnan() & expected.isnan())
    difference = torch.where(same, 0, (found - expected).abs() / (scale + relative * expected.abs()))
    return float(difference.max()) if difference.isfinite().all() else float("inf")


def tolerance(dtype: torch.dtype, double: float, single: float, half: float) -> float:
    """What to allow for a dtype."""
    if dtype in (torch.float64, torch.complex128):
        return double
    return single if dtype in (torch.float32, torch.complex64) else half
