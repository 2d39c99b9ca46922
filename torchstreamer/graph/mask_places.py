"""Ranges of numbers that masks are made of, taken apart and put together along time: single entries, joins, sums."""

from dataclasses import replace
from fractions import Fraction
from typing import Any, Dict, Optional, Sequence, Tuple

import torch
from torch import fx

from .mask_numbers import Known, Line, Number, lowest

__all__ = ["along", "entry", "looked_up"]


def _is_range(x: Known) -> bool:
    """Whether its entries are ``Σ rises[a] · (place on axis a)`` and a number that is known."""
    return isinstance(x, Number) and x.exact and not x.clamped and x.grow == 0 and x.low == x.high


def entry(x: Known, axis: int, place: Any, gone: bool) -> Optional[Number]:
    """The entry of a range at a place of an axis, counted from the last; ``None`` if it is not known.

    Args:
        x: what is known of the range
        axis: the axis
        place: from its start
        gone: whether the result is without the axis
    """
    if not isinstance(x, Number) or not _is_range(x) or not isinstance(place, int) or place < 0:
        return None
    by = x.rises.get(axis, Fraction(0)) * place
    rises = {at + 1 if gone and at < axis else at: rise for at, rise in x.rises.items() if at != axis}
    return replace(x, rises=rises, low=x.low + by, high=x.high + by)


def _joined(x: Known, axis: int, before: Sequence[Tuple[Known, int]]) -> Optional[Number]:
    """A range behind others that it goes on from; ``None`` if it does not.

    Args:
        x: what is known of the range
        axis: along which they are joined
        before: of each that comes before, in order, what is known, and how many entries it has
    """
    if not isinstance(x, Number) or not _is_range(x):
        return None
    rise = x.rises.get(axis, Fraction(0))
    for part, count in reversed(before):
        if not isinstance(part, Number) or not _is_range(part) or axis in part.rises or (count > 1 and rise != 0):
            return None
        x = replace(x, low=x.low - rise * count, high=x.high - rise * count)
        if {**part.rises, axis: rise} != {**x.rises, axis: rise} or part.low != x.low:
            return None
    return x


def _steps(x: Number, axis: int) -> Number:
    """What a range rises by along an axis, from entry to entry."""
    rise = x.rises.get(axis, Fraction(0))
    return Number({}, low=rise, high=rise)


def _summed(x: Known, axis: int, dtype: torch.dtype) -> Optional[Number]:
    """What sums of a constant along an axis of time are."""
    value = x.value() if isinstance(x, Number) and x.exact else None
    if value is None or value.denominator > 1 or dtype in (torch.float16, torch.bfloat16):
        return None
    return Number({axis: value} if value else {}, low=value, high=value)


def looked_up(proof: Any, node: fx.Node, a: Dict[str, Any]) -> Optional[Number]:
    """What is found in a range by indices that are numbers of positions themselves; ``None`` if that is not known.

    Args:
        proof: knows the range and its indices
        node: the operation
        a: its arguments
    """
    source = a.get("self")
    table = proof.of(source) if isinstance(source, fx.Node) else None
    if not isinstance(table, Number) or not _is_range(table):
        return None
    if table.value() is not None:
        return table
    places = a.get("indices") or ()
    if len(places) != len(source.meta["val"].shape) or not all(isinstance(each, fx.Node) for each in places):
        return None
    found = replace(table, rises={})
    for axis, rise in table.rises.items():
        index = proof.of(places[axis])
        if not isinstance(index, Number) or not index.exact or places[axis].meta["val"].dtype == torch.bool:
            return None
        least = lowest(index, proof.lengths(places[axis]))
        if least is None or not Line(Fraction(0), Fraction(0)).at_most(least):
            return None  # it may count from the end
        found = found.plus(index.times(rise))
    return found


def along(proof: Any, node: fx.Node, name: str, a: Dict[str, Any]) -> Number:
    """What is known of ranges that are joined, of differences of neighbours, or of sums so far.

    Args:
        proof: knows what they are made of
        node: the operation
        name: its name
        a: its arguments
    """
    value = node.meta["val"]
    rank = len(value.shape)
    axis = int(a.get("dim", -1 if name == "diff" else 0) or 0) % rank - rank
    found: Optional[Number] = None
    if name == "cumsum":
        found = _summed(proof.of(a["self"]), axis, value.dtype) if axis in proof.axes(node) else None
    elif name != "diff" or (a.get("n", 1) == 1 and a.get("append") is None):
        parts = a["tensors"] if name != "diff" else [each for each in (a.get("prepend"), a["self"]) if each is not None]
        sizes = [proof.sizes.settled(part.meta["val"].shape[axis]) for part in parts[:-1]]
        if axis in proof.axes(parts[-1]) and all(isinstance(size, int) for size in sizes):
            before = [(proof.of(part), size) for part, size in zip(parts, sizes, strict=False)]
            found = _joined(proof.of(parts[-1]), axis, before)
        found = _steps(found, axis) if name == "diff" and found is not None else found
    if found is None:
        refused: Exception = proof.refused(node, "it makes of positions along time what is no range of numbers")
        raise refused
    return found
