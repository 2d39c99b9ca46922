"""The filters of a resampler: a windowed sinc at every position that an output takes between inputs."""

import math
from fractions import Fraction
from functools import lru_cache
from typing import Tuple

import torch
from torch import Tensor

from ..core.reach import Reach

__all__ = ["METHODS", "sinc_filters"]

METHODS = ("sinc_interp_hann", "sinc_interp_kaiser")


@lru_cache(maxsize=8)
def sinc_filters(up: int, down: int, method: str, width: int, rolloff: float, beta: float) -> Tuple[Reach, Tensor]:
    """What outputs at ``up`` to ``down`` of the input's rate read, and with which weights.

    Output ``j`` stands at ``j · down / up`` among the inputs. An input that is ``d`` away from there has the weight
    ``b · sinc(b·d) · window(b·d)``, where ``b`` is the bandwidth, ``rolloff`` times the lower of the two rates, by the
    input's; it is read where ``|b·d|`` is less than ``width``.

    Args:
        up, down: outputs for inputs, without a common factor
        method: one of `METHODS`
        width: zeros of the sinc on either side
        rolloff: see above
        beta: of the Kaiser window

    Returns:
        the reach, and ``[up, taps]`` in float64; shared, so not to be written to
    """
    if up == down:
        return Reach(), torch.ones(1, 1, dtype=torch.float64)
    high = max(up, down)
    # Distances are whole numbers of up-ths of an input. Those of weight 0, at the edge of the window, are left out; the
    # edge is found in fractions of the number that was written, such as 0.99.
    edge = math.ceil(high * width / Fraction(str(rolloff))) - 1
    reach = Reach(up, down, up - 1 - edge, edge, edge)
    i = torch.arange(up).unsqueeze(1)
    oldest = torch.div(down * i + reach.first, up, rounding_mode="floor")
    distance = (oldest + torch.arange(reach.depth)) * up - down * i
    t = distance.to(torch.float64) * (rolloff / high)
    t = t.clamp(-width, width)
    if method == "sinc_interp_hann":
        window = torch.cos(t * (math.pi / 2 / width)) ** 2
    else:
        # I0(βr) / I0(β), with the growth of both taken out, which is more than float64 holds where β is large.
        root = beta * torch.sqrt((1 - (t / width) ** 2).clamp(min=0))
        scaled = torch.special.i0e(torch.cat([root.flatten(), torch.tensor([beta], dtype=torch.float64)]))
        window = scaled[:-1].view_as(root) / scaled[-1] * torch.exp(root - beta)
    weights = torch.sinc(t) * window * (rolloff * min(up, down) / down)
    return reach, torch.where(distance.abs() <= edge, weights, 0.0)
