"""Buffers that masks are cut from, and arguments of operations."""

from fractions import Fraction
from typing import Any, Dict, List, Optional

import torch
from torch import Tensor, fx

from .mask_numbers import Known, Number

__all__ = ["arguments_of", "order_of", "period_of", "range_of"]

_LONGEST = 128  # periods that a buffer is searched for


def range_of(tensor: Tensor, axis: int) -> Optional[Known]:
    """What is known of a whole buffer along an axis, if it counts."""
    flat = tensor.reshape(-1)
    if flat.numel() != tensor.shape[axis] or flat.numel() < 2 or tensor.dtype == torch.bool or tensor.is_complex():
        return None
    step, start = (flat[1] - flat[0]).item(), flat[0].item()
    places = torch.arange(flat.numel(), device=flat.device)
    if float(step).is_integer() and float(start).is_integer() and bool((flat == places * step + start).all()):
        return Number({axis: Fraction(int(step))}, low=Fraction(int(start)), high=Fraction(int(start)))
    return None


def order_of(name: str, a: Dict[str, Any], rank: int) -> List[int]:
    if name == "permute":
        return [axis % rank for axis in a["dims"]]
    order = list(range(rank))
    if name in ("t", "mT"):
        one, other = rank - 2, rank - 1
    else:
        one, other = (int(axis) % rank for axis in list(a.values())[1:3])
    order[one], order[other] = order[other], order[one]
    return order


def arguments_of(node: fx.Node) -> Dict[str, Any]:
    """The arguments of an operation by name, without those that were not given."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return dict(enumerate(node.args))  # type: ignore[arg-type]
    names = [argument.name for argument in schema.arguments]
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}


def period_of(table: Tensor) -> Optional[int]:
    """After how many queries a whole table repeats itself along its diagonals, if soon."""
    for period in range(1, min(table.shape[-1] // 2, _LONGEST) + 1):
        if bool((table[..., period:, period:] == table[..., :-period, :-period]).all()):
            return period
    return None
