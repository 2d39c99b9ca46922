"""The rule for interpolation by cubic polynomials: a weighted sum of four neighbours, whose weights take turns."""

from fractions import Fraction
from typing import Any, Dict, List

import torch
from torch import fx

from ..core.reach import Reach
from ..layers.filter_bank import FilterBank
from ..layers.padding import Pad1dStream
from ..layers.polyphase import PolyphaseStream
from .lowering import Lowering, rule
from .ops.rates import CubicStream
from .rules_length import other_axes, rational_size
from .values import Value

__all__: List[str] = []

_A = -0.75  # torch's choice of the slope


@rule("upsample_bicubic2d", last=2)
def upsample_bicubic(low: Lowering, node: fx.Node, x: Value, a: Dict[str, Any]) -> Value:
    scales, corners = a.get("scale_factors"), bool(a.get("align_corners"))
    x = other_axes(low, node, x, 2, True, scales, corners)
    at = x.time - (len(x.shape) - 2)
    if scales is None:
        scale = rational_size(low, node, x, a["output_size"][at], corners)
    else:
        scale = Fraction(scales[at]).limit_denominator(1000)
    if scale == 1:
        return x
    if corners:
        raise low.refuse(
            node, "align_corners", "align_corners=True ties each output to the total length", "use align_corners=False"
        )
    exact = scales is None or abs(float(scale) - scales[at]) <= 4e-16 * scales[at]
    if not exact or scale.denominator > 3 * scale.numerator + 1:
        raise low.refuse(
            node, "upsample_scale", f"scale {float(scale)!r} is no ratio of integers, or below 1/4", "use another one"
        )
    return low.stream(node, x, _cubic_stream(scale.numerator, scale.denominator), True)


def _cubic_stream(p: int, q: int) -> CubicStream:
    # Output i stands at (2·q·i + q - p) / (2·p), between the second and the third of the samples that it reads. The
    # first of these is (2·q·i + q - 3·p) // (2·p).
    begin = q - 3 * p
    first = begin // 2
    reach = Reach(p, q, first, first + 3 * p, first + 3 * p - q + 1)
    part = (2 * q * torch.arange(p) + begin) % (2 * p)
    # Before and after the signal its first and last sample are repeated.
    left = -min(first // p, 0)
    moved = first + p * left
    padded = Reach(p, q, moved, moved + 3 * p, reach.end - 2 * p, shortest=left + 3)
    bank = FilterBank(padded, _weights(part.to(torch.float64) / (2 * p)))
    return CubicStream(reach, Pad1dStream(left, 2, "replicate"), PolyphaseStream(padded, bank))


def _weights(part: torch.Tensor) -> torch.Tensor:
    """Weights of the four samples around a place so far after the second of them, ``[n, 4]``."""

    def inner(x: torch.Tensor) -> torch.Tensor:
        return ((_A + 2) * x - (_A + 3)) * x * x + 1

    def outer(x: torch.Tensor) -> torch.Tensor:
        return ((_A * x - 5 * _A) * x + 8 * _A) * x - 4 * _A

    return torch.stack([outer(part + 1), inner(part), inner(1 - part), outer(2 - part)], 1)
