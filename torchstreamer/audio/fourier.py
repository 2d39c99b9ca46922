"""Fourier transforms of real samples that also take no rows, and halves in single precision. A script compiles them."""

import torch
from torch import Tensor

from ..layers.accumulating import working

__all__ = ["fft", "irfft", "rfft"]


def rfft(x: Tensor, n: int, norm: str = "backward") -> Tensor:
    """The bins up to half the sampling rate of ``[…, m]``, of samples padded to ``n``."""
    if x.numel() == 0:  # of which the library knows nothing
        return _none(x, n // 2 + 1)
    return torch.fft.rfft(x.to(working(x)), n, norm=norm)


def fft(x: Tensor, n: int, norm: str = "backward") -> Tensor:
    """All bins of ``[…, m]``, of samples padded to ``n``."""
    if x.numel() == 0:
        return _none(x, n)
    return torch.fft.fft(x.to(working(x)), n, norm=norm)


def irfft(x: Tensor, n: int, norm: str = "backward") -> Tensor:
    """The ``n`` samples whose bins up to half the sampling rate are ``[…, n // 2 + 1]``."""
    if x.numel() == 0:
        return torch.view_as_real(x)[..., :1, 0].expand(list(x.shape[:-1]) + [n])
    return torch.fft.irfft(x, n, norm=norm)


def _none(x: Tensor, bins: int) -> Tensor:
    part = x.to(working(x)).new_zeros(list(x.shape[:-1]) + [bins])
    return torch.complex(part, part)
