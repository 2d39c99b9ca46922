"""What a signal must be like, for modules that ask it themselves. TorchScript compiles this file."""

from torch import Tensor

from ..core.describe import describe
from ..errors import StreamInputError

__all__ = ["require_axes", "require_fraction", "require_real", "require_signal"]


def require_real(x: Tensor) -> None:
    """Refuse samples that are no real numbers with a fraction."""
    if not x.is_floating_point():
        raise StreamInputError(
            f"invalid_chunk: a chunk came with {describe(x)}; samples of a floating dtype were expected; convert them, "
            "for instance 16-bit ones with x.to(torch.float32) / 32768"
        )


def require_fraction(x: Tensor) -> None:
    """Refuse whole numbers, to which what is computed would be cut off."""
    if not x.is_complex():
        require_real(x)


def require_axes(x: Tensor) -> None:
    """Refuse what is no signal ``[B, C, T]`` or ``[C, T]``."""
    if x.dim() != 3 and x.dim() != 2:
        raise StreamInputError(
            f"invalid_chunk: a signal came with {describe(x)}; [B, C, T] or [C, T] was expected; of one channel alone "
            "take x.unsqueeze(0)"
        )


def require_signal(x: Tensor) -> None:
    """Refuse what is no signal ``[B, C, T]`` or ``[C, T]`` of real numbers with a fraction."""
    require_axes(x)
    require_real(x)
