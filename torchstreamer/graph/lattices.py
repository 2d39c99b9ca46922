"""Positions in a signal that move on by a constant from one frame to the next: ``offset + step · frame``.

They are proved from the operations that make them: sums and products with constants of one range of numbers, whatever
views are taken between. So they hold for every length.
"""

from typing import Any, NamedTuple, Optional

import torch
from torch import Tensor

from .refusals import operation_name
from .values import Spread, Static, things_in

__all__ = ["Lattice", "lattice"]

_VIEWS = frozenset(
    "view _unsafe_view reshape unsqueeze squeeze expand permute transpose flatten unflatten clone alias".split()
)
_SUMS = frozenset(["add", "sub", "neg", "rsub"])
_CASTS = frozenset(["to", "_to_copy"])


class Lattice(NamedTuple):
    """Positions ``offsets[i] + step · j`` of entry ``i`` of frame ``j``.

    Attributes:
        offsets: of the entries, in their order without the axis of frames
        step: from one frame to the next
        outer: whether all frames of an entry stand side by side where both are one axis; else all entries of a frame;
            ``None`` where frames have an axis of their own
    """

    offsets: Tensor
    step: int
    outer: Optional[bool] = None


def lattice(low: Any, spread: Spread) -> Optional[Lattice]:
    """What the positions of a spread are, if they are a lattice.

    Args:
        low: the lowering
        spread: whole numbers
    """
    order = _order(low, spread) if spread.dtype in (torch.int64, torch.int32) else None
    if order is None:
        return None
    one, two = (_apart(_evaluated(low, spread, n), order, spread.time, _frames(spread, n)) for n in low.lengths[:2])
    if one.shape[-1] < 2:
        return None
    entry = one.reshape(-1, one.shape[-1])[0]
    offsets, step = one[..., 0], int(entry[1] - entry[0])
    if not all(torch.equal(some, offsets.unsqueeze(-1) + step * torch.arange(some.shape[-1])) for some in (one, two)):
        return None
    return Lattice(offsets, step, _OUTER[order])


_OUTER = {"apart": None, "outer": True, "inner": False}


def _apart(places: Tensor, order: str, time: int, frames: int) -> Tensor:
    """Frames on the last axis."""
    if order == "apart":
        return places.movedim(time, -1)
    return places.view(-1, frames) if order == "outer" else places.view(frames, -1).t()


def _order(low: Any, thing: Spread) -> Optional[str]:
    """How frames stand in it, if each entry is a constant and a multiple of its frame, for every length."""
    recipe = thing.recipe
    if recipe is None:
        return "apart" if isinstance(thing.first, int) and isinstance(thing.step, int) else None
    name = operation_name(thing.node)
    parts = [part for part in things_in([recipe.args, recipe.kwargs]) if isinstance(part, (Spread, Static))]
    spreads = [part for part in parts if isinstance(part, Spread)]
    if any(isinstance(part, Static) and not _is_constant(low, part) for part in parts):
        return None
    orders = {_order(low, part) for part in spreads}
    order = orders.pop() if len(orders) == 1 else None
    if name in _SUMS or name in _CASTS or (name == "mul" and len(spreads) == 1):
        return order
    if name not in _VIEWS or len(spreads) != 1:
        return None
    source = spreads[0]
    if low.same_length(source.length, thing.length):
        return order
    if order == "apart" and len(thing.shape) == 1 and len(source.shape) == 2:
        return "outer" if source.time == 1 else "inner"
    return None


def _frames(thing: Spread, n: int) -> int:
    """How many frames there are: the length of the range that it is made of."""
    while thing.recipe is not None:
        thing = next(part for part in things_in([thing.recipe.args, thing.recipe.kwargs]) if isinstance(part, Spread))
    return thing.length(n)


def _is_constant(low: Any, thing: Static) -> bool:
    # A literal in the source is kept by the exporter alone, under a name that the model does not have.
    if thing.given or thing.sized:
        return False
    if thing.recipe is not None:
        inner = things_in([thing.recipe.args, thing.recipe.kwargs])
        return all(_is_constant(low, part) for part in inner if isinstance(part, Static))
    return low.capture.paths.get(thing.node.name, "").rpartition(".")[2].startswith("lifted_tensor")


def _evaluated(low: Any, thing: Any, n: int) -> Any:
    """The tensor that a spread is for a signal of ``n`` samples."""
    if isinstance(thing, Spread):
        if thing.recipe is None:
            return thing.first + thing.step * torch.arange(thing.length(n))
        args = [_evaluated(low, argument, n) for argument in thing.recipe.args]
        kwargs = {key: _evaluated(low, argument, n) for key, argument in thing.recipe.kwargs.items()}
        return thing.recipe.target(*args, **kwargs)
    if isinstance(thing, Static):
        return low.weights.tensor(thing)
    if isinstance(thing, (list, tuple)):
        return [_evaluated(low, item, n) for item in thing]
    return low.sizes.at(thing, n, 1) if isinstance(thing, torch.SymInt) else thing
