"""The scan of a linear recurrence, h[t] = a[t]·h[t-1] + b[t]. TorchScript compiles this file.

A short chunk is a loop over its samples. A long one is cut into blocks of ``L`` samples, which are computed at once, in
two passes over their places: the first finds what each block makes of the state before it, ``h -> A·h + H``, by halves;
then the states at the edges follow from each other; and the second pass runs the recurrence itself in every block, from
the state at its edge. So nothing is ever divided by a product that may have become 0, and no sum of logarithms is
formed; products run over ``L ≤ 64`` samples, in double precision from the fifth on.
"""

from typing import List, Tuple

import torch
from torch import Tensor
from torch.nn.functional import hardshrink

from .accumulating import accumulator, working

__all__ = ["recurred", "without_infinite", "without_smallest"]


def recurred(a: Tensor, b: Tensor, h: Tensor, paired: bool = False) -> Tuple[Tensor, Tensor]:
    """The states ``h[1] … h[t]`` of ``h[i] = a[i]·h[i-1] + b[i]``, in the dtype of ``b``, and the last of them.

    States smaller than any normal number of the dtype of ``b`` count as 0: else they would stay at the smallest number
    of all for ever, where processors are slow. From a state on that is no finite number all are ``nan``.

    Args:
        a: ``[B, C, t]``, or ``[1, C, 1]`` if it is the same for all
        b: ``[B, C, t]``
        h: the state before, ``[B, C, 1]``, in double precision
        paired: whether the channels are complex numbers, first all real parts, then all imaginary ones
    """
    t, wide = b.size(2), accumulator(b)
    if t == 1:
        h = without_infinite(without_smallest(_step(b.to(wide), a.to(wide), h.to(wide), paired, 1), b))
        return h.to(b.dtype), h
    if t < 16:
        y = without_infinite(without_smallest(_one_by_one(a.to(wide), b.to(wide), h.to(wide), paired), b))
        return y.to(b.dtype), y.narrow(2, t - 1, 1)
    size = 4
    while size < 64 and size * size < t:
        size *= 2
    whole = t // size * size
    constant = a.size(-1) == 1
    samples = _by_place(b.narrow(2, 0, whole), size)
    factors = a.to(working(b)).expand([size, -1, -1, 1]) if constant else _by_place(a.narrow(2, 0, whole), size)
    states, h = _edges(factors, samples, h.to(wide), paired)
    y = _places(factors, samples, without_smallest(states, b).to(samples.dtype), paired)
    y = without_infinite(y).permute([1, 2, 3, 0]).flatten(2).to(b.dtype)
    if whole < t:
        a = a if constant else a.narrow(2, whole, t - whole)
        rest = _one_by_one(a.to(wide), b.narrow(2, whole, t - whole).to(wide), h, paired)
        y = torch.cat([y, without_infinite(without_smallest(rest, b)).to(b.dtype)], 2)
        h = rest.narrow(2, t - whole - 1, 1)
    return y, without_infinite(without_smallest(h, b))


def _step(b: Tensor, a: Tensor, h: Tensor, paired: bool, channels: int) -> Tensor:
    """``a·h + b``; the channels stand in that axis."""
    if not paired:
        return torch.addcmul(b, a, h)
    return b + _product(a, h, paired, channels)


def _product(a: Tensor, h: Tensor, paired: bool, channels: int) -> Tensor:
    if not paired:
        return a * h
    a_real, a_imaginary = a.chunk(2, channels)
    real, imaginary = h.chunk(2, channels)
    parts = [a_real * real - a_imaginary * imaginary, a_real * imaginary + a_imaginary * real]
    return torch.cat(parts, channels)


def _one_by_one(a: Tensor, b: Tensor, h: Tensor, paired: bool) -> Tensor:
    h, factors = h.squeeze(2), a.unbind(2)
    ys: List[Tensor] = []
    for i, sample in enumerate(b.unbind(2)):
        h = _step(sample, factors[i if len(factors) > 1 else 0], h, paired, 1)
        ys.append(h)
    return torch.stack(ys, 2)


def _by_place(x: Tensor, size: int) -> Tensor:
    # [L, B, C, blocks]: the samples at one place of all blocks stand together.
    blocks = x.view([x.size(0), x.size(1), x.size(2) // size, size])
    return blocks.permute([3, 0, 1, 2]).contiguous().to(working(x))


def _edges(a: Tensor, b: Tensor, h: Tensor, paired: bool) -> Tuple[Tensor, Tensor]:
    """The states before each block, ``[B, C, blocks]``, and the one after the last."""
    halvings = 0
    while b.size(0) > 1:
        # Two neighbours make one step: h -> a2·(a1·h + b1) + b2.
        late = a[1::2]
        b = _step(b[1::2], late, b[0::2], paired, 2)
        a = _product(late, a[0::2], paired, 2)
        halvings += 1
        if halvings == 2:
            a, b = a.to(h.dtype), b.to(h.dtype)
    made, h = b[0].unbind(2), h.squeeze(2)
    factors = a[0].unbind(2)
    states: List[Tensor] = []
    for i, block in enumerate(made):
        states.append(h)
        h = _step(block, factors[i if len(factors) > 1 else 0], h, paired, 1)
    return torch.stack(states, 2), h.unsqueeze(2)


def _places(a: Tensor, b: Tensor, h: Tensor, paired: bool) -> Tensor:
    factors = a.unbind(0)
    ys: List[Tensor] = []
    for i, samples in enumerate(b.unbind(0)):
        h = _step(samples, factors[i], h, paired, 1)
        ys.append(h)
    return torch.stack(ys, 0)


def without_smallest(y: Tensor, like: Tensor) -> Tensor:
    """0 instead of values smaller than any normal number of the dtype of ``like``."""
    # The smallest normal numbers of double and of single precision.
    least = 2.2250738585072014e-308 if like.dtype == torch.float64 else 1.1754943508222875e-38
    if torch.is_grad_enabled() and y.requires_grad:
        # A state that is 0, as at the start, has a gradient nonetheless.
        return y - (y - hardshrink(y, least)).detach()
    return hardshrink(y, least)


def without_infinite(y: Tensor) -> Tensor:
    """``nan`` instead of infinite values: a scan may find nan where a loop finds inf, so both give nan."""
    nan = float("nan")
    return torch.nan_to_num(y, nan, nan, nan)
