"""Signals for recurrences, fed in pieces, and how far what comes out is from the whole."""

from typing import Any

import torch
from torch import Tensor

__all__ = ["differs", "joined", "normal"]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def joined(stream: Any, x: Tensor, *sizes: int) -> Tensor:
    """All that a stream gives, of pieces of these sizes over and over, and at the end."""
    pieces = []
    while x.shape[-1] > 0:
        for size in sizes:
            pieces.append(stream(x[..., :size]))
            x = x[..., size:]
    pieces.append(stream.flush())
    return torch.cat([piece for piece in pieces if piece is not None], -1)


def differs(y: Tensor, whole: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    assert y.shape == whole.shape and y.dtype == whole.dtype
    return float((y - whole).detach().abs().max() / whole.detach().abs().max())
