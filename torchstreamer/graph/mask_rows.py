"""Whether a query sees any key at all: what a model asks of its mask to leave out padding."""

import math
from typing import Any, Optional

import torch
from torch import fx

from .masks import Board, Hidden, MaskError
from .refusals import operation_name
from .values import Replay, Spread

__all__ = ["seen_by_all"]

# What is true of a query, and what the mask says then; and what that is where every query sees itself.
_ASKED = {"all": ("masked", False), "any": ("seen", True)}


def seen_by_all(low: Any, node: fx.Node) -> Optional[Spread]:
    """The constant that `mask.all(-1)` or `mask.any(-1)` is, where the mask lets every query see its own key.

    Args:
        low: the lowering
        node: the operation
    """
    source = node.args[0] if node.args else None
    board = low.known(source) if isinstance(source, fx.Node) else None
    sense, value = _ASKED.get(operation_name(node), ("", False))
    if not sense or not isinstance(board, Board) or board.node.meta["val"].dtype != torch.bool:
        return None
    shape, meta = board.node.meta["val"].shape, node.meta["val"]
    rank = len(shape)
    varying = [axis for axis, size in enumerate(shape) if low.sizes.varies(size)]
    dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    if varying != [rank - 2, rank - 1] or not isinstance(dim, int) or dim % rank != rank - 1:
        return None
    n = low.lengths[0]
    if math.prod(low.sizes.at(size, n, 1) for size in shape[:-2]) != 1:
        return None  # heads that see differently
    try:
        pattern, limit = low.relating.masks.pattern([Hidden(board, sense)], shape[-1])
    except MaskError:
        return None
    if limit is not None or not bool(pattern.mask(2 * pattern.period + pattern.prefix + 1).diagonal().all()):
        return None
    axis = next(i for i, size in enumerate(meta.shape) if low.sizes.varies(size))
    size = [None if i == axis else low.resolve(item) for i, item in enumerate(meta.shape)]
    recipe = Replay(torch.ops.aten.full.default, (size, value), {"dtype": torch.bool})
    return Spread(node, tuple(meta.shape), torch.bool, axis, low.sizes.function(meta.shape[axis], 1), recipe)
