"""Spectra as frames of samples. TorchScript compiles this file."""

from typing import Optional

import torch
from torch import Tensor

__all__ = ["frames_of", "whole_inverse"]


def frames_of(x: Tensor, n_fft: int, width: int, window: Optional[Tensor], normalized: bool) -> Tensor:
    """The frames of spectra ``[…, F, K]``, of which only the samples under the window: ``[…, width, K]``."""
    frames = torch.fft.irfft(x.transpose(-1, -2), n=n_fft, norm="ortho" if normalized else "backward")
    if width < n_fft:
        frames = frames.narrow(-1, (n_fft - width) // 2, width)
    if window is not None:
        frames = frames * window
    return frames.transpose(-1, -2)


def whole_inverse(
    x: Tensor,
    n_fft: int,
    hop: int,
    width: int,
    window: Optional[Tensor],
    center: bool,
    normalized: bool,
    length: Optional[int],
) -> Tensor:
    """What the operator of a capture stands for."""
    return torch.istft(x, n_fft, hop, width, window, center, normalized, True, length)
