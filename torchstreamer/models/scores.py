"""How near a signal is to the one that was meant."""

import torch
from torch import Tensor

__all__ = ["si_sdr"]


def si_sdr(estimate: Tensor, reference: Tensor) -> Tensor:
    """Scale-invariant signal-to-distortion ratio, in dB.

    The ratio of the part of the estimate that is a multiple of the reference to the rest, both without their means: Le
    Roux et al., "SDR - half-baked or well done?", 2019. Computed in float64.

    Args:
        estimate: ``[..., T]``
        reference: ``[..., T]``, the signal that was meant

    Returns:
        ``[...]``; infinite where the estimate is a multiple of the reference, nan where the reference is constant

    Example:
        >>> import torch
        >>> from torchstreamer.models import si_sdr
        >>> t = torch.arange(16000) / 16000 * 2 * torch.pi
        >>> round(si_sdr(3 * torch.sin(100 * t) + 0.3 * torch.sin(200 * t), torch.sin(100 * t)).item(), 2)
        20.0
    """
    estimate, reference = estimate.double(), reference.double()
    estimate = estimate - estimate.mean(-1, keepdim=True)
    reference = reference - reference.mean(-1, keepdim=True)
    scale = (estimate * reference).sum(-1, keepdim=True) / reference.square().sum(-1, keepdim=True)
    target = scale * reference
    return 10 * torch.log10(target.square().sum(-1) / (estimate - target).square().sum(-1))
