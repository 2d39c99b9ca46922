"""Fourier transforms of real samples that also take no rows, and halves in single precision. A script compiles them."""

from typing import Tuple

import torch
from torch import Tensor
from torch.jit import is_scripting

from ..layers.accumulating import working
from .few_frames import parts_of_few, products_pay

__all__ = ["fft", "irfft", "rfft", "rfft_parts"]


def rfft(x: Tensor, n: int, norm: str = "backward") -> Tensor:
    """The bins up to half the sampling rate of ``[…, m]``, of samples padded to ``n``."""
    if x.numel() == 0:  # of which the library knows nothing
        return _none(x, n // 2 + 1)
    return torch.fft.rfft(x.to(working(x)), n, norm=norm)


def rfft_parts(x: Tensor, n: int, norm: str = "backward") -> Tuple[Tensor, Tensor]:
    """The same, real parts and imaginary parts."""
    if not is_scripting():
        if products_pay(x, n):
            return parts_of_few(x.to(working(x)), n, norm)
    bins = rfft(x, n, norm)
    return bins.real, bins.imag


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
