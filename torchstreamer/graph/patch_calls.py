"""Patches as wide as the signal is long, of which torch's own operation takes sizes that are numbers only."""

from typing import Any, Optional

import torch
from torch import Tensor

__all__ = ["patches_of_all_time"]


def patches_of_all_time(
    input: Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Optional[Tensor]:
    """What `torch.nn.functional.unfold` gives for a kernel with the whole of one axis, by views; else ``None``."""
    if not isinstance(kernel_size, (list, tuple)) or input.dim() < 3:
        return None
    kernels, gaps, pads, steps = (_pair(value) for value in (kernel_size, dilation, padding, stride))
    for wide in (1, 0):
        other = 1 - wide
        if not isinstance(kernels[wide], torch.SymInt) or not isinstance(kernels[other], int):
            continue
        same = kernels[wide].node.expr == getattr(getattr(input.shape[wide - 2], "node", None), "expr", None)
        if not same or gaps[wide] != 1 or pads[wide] != 0:
            return None
        x = input
        if pads[other]:
            amounts = [0, 0, pads[other], pads[other]] if wide == 1 else [pads[other], pads[other]]
            x = torch.nn.functional.pad(x, amounts)
        field = (kernels[other] - 1) * gaps[other] + 1
        y = x.unfold(other - 2, field, steps[other])[..., :: gaps[other]]
        # [.., C, H, T, kernel] to [.., C, kernel, T, H], or [.., C, T, W, kernel] to [.., C, T, kernel, W]
        y = y.movedim(-1, -3 if wide == 1 else -2)
        y = y.transpose(-1, -2) if wide == 1 else y
        return y.reshape([*input.shape[:-3], input.shape[-3] * kernels[0] * kernels[1], y.shape[-1]])
    return None


def _pair(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else [value, value]
