"""Relative positions: products of queries with rows that stand for distances, moved until each stands at its key.

Transformer-XL multiplies queries with a table of all distances and shifts the rows of the product. However a model
writes the shift, it only moves entries, so it is run on their places; and the table is proved to be one of distances,
whatever the length of the signal, from the operations that make it.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple

import torch
from torch import Tensor, fx

from ..core.context import Pattern
from .distance_proof import VIEWS, Sliding, entries
from .mask_arithmetic import MaskError
from .masks import Board, Masks
from .refusals import operation_name
from .values import Replay, Skew, Static, Value
from .weights import Weights

__all__ = ["LIKE", "MOVES", "Distances", "Head", "Shifted"]

# What only moves entries, with what it is called on first; or puts constants beside them.
_TURNS = frozenset(["permute", "transpose", "t", "mT", "swapaxes", "movedim"])
MOVES = VIEWS | _TURNS | {"pad", "constant_pad_nd", "cat", "slice", "narrow", "as_strided", "gather", "index"}
# Constants beside them of which scores say the dtype alone.
LIKE = frozenset(["new_zeros", "new_ones", "new_full"])
_TRIED = (2, 3, 4, 5, 7, 8, 13)  # lengths at which places are looked at, besides those that the pattern asks for


class Head(NamedTuple):
    """A product of queries with rows of distances, before its entries are moved.

    Attributes:
        node: the product
        queries: the query-side value
        board: the rows
        axis: which axis of the board they stand on
        recipe: the product of a side of the queries and a table
    """

    node: fx.Node
    queries: Value
    board: Board
    axis: int
    recipe: Callable[[Value, Static], Replay]


@dataclass(eq=False)
class Shifted:
    """Scores by distance among scores of so many axes, of which one holds the rows, ``fold`` times; -1 if none does."""

    skew: Skew
    side: Value
    rank: int
    rows: int
    fold: int


class Distances:
    """Follows products of queries with rows of distances, and gives their tables.

    Args:
        masks: proves, and gives tensors that depend on no signal
    """

    def __init__(self, masks: Masks) -> None:
        self.masks = masks
        self.sizes = masks.sizes

    def table(self, skew: Skew, pattern: Pattern) -> Tuple[Static, int]:
        """The rows of the distances that a pattern shows, in order, and how many of these are of keys before the query.

        Raises:
            MaskError: the entries are not moved to where the distances are those of keys
        """
        head: Head = skew.head
        size = head.queries.shape[head.queries.time]
        proof = Sliding(self.masks, size)
        found = proof.of(head.board.node)
        assert found is not None
        left, right = max(pattern.lookback, 0), max(pattern.lookahead, 0)
        if pattern.prefix > 0 and proof.limit is not None:
            left = max(left, proof.limit - 1)  # the first keys are seen to the end
        offset = self._offset(skew, pattern, found[1], proof.limit)
        n = self._signal(size, max(left, right) + 2, proof.limit)
        assert n is not None
        rows = self.masks.static(head.board.node, n)
        whole = self.sizes.at(size, n)
        middle = int(found[1] * whole + offset)
        count = self.sizes.at(head.board.node.meta["val"].shape[found[0]], n)
        left, right = min(left, middle), min(right, count - 1 - middle)
        recipe = Replay(torch.ops.aten.slice.Tensor, (rows, found[0], middle - left, middle + right + 1))
        return Static(rows.node, recipe, rows.weights, rows.given, False), left

    def limit(self, skew: Skew) -> Optional[int]:
        """The longest signal that the table is made for."""
        proof = Sliding(self.masks, skew.head.queries.shape[skew.head.queries.time])
        proof.of(skew.head.board.node)
        return proof.limit

    def _signal(self, size: Any, least: int, limit: Optional[int]) -> Optional[int]:
        capture = self.masks.weights.capture
        n = self.masks.signal(size, least if limit is None else min(least, limit), limit)
        for more in range(4096):
            if capture.valid(n + more) and not capture.broken_guards(n + more):
                return n + more if limit is None or self.sizes.at(size, n + more) <= limit else None
        return None

    def _offset(self, skew: Skew, pattern: Pattern, slope: Fraction, limit: Optional[int]) -> Fraction:
        """Row ``slope · T + offset + j - i`` of the table stands at query ``i`` and key ``j``; here ``offset``."""
        head: Head = skew.head
        size = head.queries.shape[head.queries.time]
        offsets = set()
        wide = max(pattern.lookback, pattern.lookahead, 0)
        for least in (*_TRIED, wide + 2, wide + pattern.period + 3):
            n = self._signal(size, least, limit)
            if n is None:
                continue
            columns = self._columns(skew, n)
            whole = columns.shape[0]
            i = torch.arange(whole)
            seen = pattern.mask(whole)
            if bool((columns[seen] < 0).any()):
                raise self._moved_elsewhere(skew)
            offsets |= {column - slope * whole for column in (columns - i + i.unsqueeze(1))[seen].tolist()}
        if len(offsets) != 1:
            raise self._moved_elsewhere(skew)
        return Fraction(offsets.pop())

    @staticmethod
    def _moved_elsewhere(skew: Skew) -> MaskError:
        reason = "its entries do not come to stand where j - i is their distance, for all that a query sees"
        return MaskError("relative_positions", reason, skew.node)

    def _columns(self, skew: Skew, n: int) -> Tensor:
        """Which column of the product comes to stand at each query and key, ``[T, T]``; -1 where none of its row."""
        head: Head = skew.head
        shape = [self.sizes.at(size, n, 1) for size in head.node.meta["val"].shape]
        places = torch.arange(1, entries(shape) + 1, dtype=torch.float64).view(shape)
        known: Dict[fx.Node, Tensor] = {head.node: places}
        weights = Weights(self.masks.weights.capture)

        def of(argument: Any) -> Any:
            if isinstance(argument, (list, tuple)):
                return [of(item) for item in argument]
            if isinstance(argument, torch.SymInt):
                return self.sizes.at(argument, n, 1)
            if not isinstance(argument, fx.Node):
                return argument
            if argument in known:
                return known[argument]
            value = argument.meta.get("val")
            if not isinstance(value, Tensor):
                return self.sizes.at(value, n, 1)
            if argument in skew.moved:
                args, kwargs = of(list(argument.args)), {key: of(each) for key, each in argument.kwargs.items()}
                if operation_name(argument) == "as_strided":
                    source = argument.all_input_nodes[0].meta["val"]
                    if [self.sizes.at(stride, n, 1) for stride in source.stride()] != list(args[0].stride()):
                        raise self._moved_elsewhere(skew)
                known[argument] = argument.target(*args, **kwargs)  # type: ignore[operator]
                return known[argument]
            if operation_name(argument) in LIKE:
                return argument.target(places, *of(list(argument.args[1:])))  # type: ignore[operator]
            return weights.tensor(self.masks.static(argument, n)).cpu()

        found = of(skew.node)
        t, width = shape[-2:]
        if list(found.shape) != [*shape[:-1], t]:
            raise self._moved_elsewhere(skew)
        at = found.reshape(-1, t, t).to(torch.int64) - 1
        own = torch.arange(at.shape[0] * t).view(-1, t, 1)
        column = at - own * width
        fits = (at >= 0) & (column >= 0) & (column < width) & (column == column[:1])
        return torch.where(fits.all(0), column[0], -1)
