"""Masks and biases: tensors with a time axis for queries and one for keys, that depend on no signal.

They are never made for the whole signal. What a mask hides is proved by `Proof`, and read off once, at a length that is
long enough; a bias becomes a table of the period and of ``j - i``.
"""

import math
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor, fx

from ..core.context import Context, Pattern
from .hinted_masks import is_hinted, without_mark
from .lengths import Sizes
from .mask_arithmetic import MaskError, Unsettled
from .mask_numbers import Regular, regular
from .mask_proof import Proof
from .values import Replay, Static
from .weights import Weights

__all__ = ["Board", "Bound", "Hidden", "MaskError", "Masks", "Proved"]

# A key whose score is lowered by as much has no weight, if another one is seen.
_HIDES = -1e4
_LARGEST = 1 << 14  # queries of the mask that is read


@dataclass(eq=False)
class Board:
    """A tensor that depends on no signal, and that is no constant, nor one with a single time axis as others.

    Attributes:
        node: the operation that gives it
        error: why it is nothing but a mask or a bias
    """

    node: fx.Node
    error: Any


class Hidden(NamedTuple):
    """What a board hides.

    Attributes:
        board: the board
        sense: ``"add"`` if it is added to scores, ``"seen"`` if it is true where a query sees a key, ``"masked"`` if
            where not
        finite: whether hidden keys have a large negative score, instead of ``-inf``; where it is added that is seen
    """

    board: Board
    sense: str
    finite: bool = False

    def of(self, far: Optional[float]) -> Optional[bool]:
        """Whether a value of the board hides a key; ``None`` if the value is not known."""
        if far is None:
            return None
        return far <= _HIDES if self.sense == "add" else (far != 0) == (self.sense == "masked")

    def seen(self, values: Tensor) -> Tensor:
        """Where a board's values hide nothing."""
        return values > _HIDES if self.sense == "add" else (values != 0) == (self.sense == "seen")


@dataclass(frozen=True)
class Bound:
    """What hides keys by itself, without a tensor of the model.

    Attributes:
        period: queries after which it repeats itself
        left: it hides all keys further back; ``None`` if it does not
        right: the same ahead
        limit: the longest signal
        mask: what it leaves to see of so many queries and keys, ``[T, T]``
    """

    period: int
    left: Optional[int]
    right: Optional[int]
    limit: Optional[int]
    mask: Callable[[int], Tensor]

    @staticmethod
    def of(context: Context) -> "Bound":
        """What a context hides."""
        chunk, left = context.chunk, context.left
        back = None if left is None else left + chunk
        return Bound(chunk, back, context.right + chunk, context.max_length, context.mask)

    @staticmethod
    def causal() -> "Bound":
        """What comes after the query."""
        return Bound(1, None, 1, None, lambda length: torch.ones(length, length, dtype=torch.bool).tril())

    @staticmethod
    def ending(limit: Optional[int]) -> "Bound":
        """What hides nothing in signals of so many samples, of which none is longer."""
        return Bound(1, None, None, limit, lambda length: torch.ones(length, length, dtype=torch.bool))


class Proved(NamedTuple):
    """What is proved of a board.

    Attributes:
        period: queries after which it repeats itself
        first: so many first keys of a signal are special
        late: what it is at all other keys
        early: what it is at those
        limit: the longest signal for which it is made
    """

    period: int
    first: int
    late: Regular
    early: Regular
    limit: Optional[int]


class _Extent(NamedTuple):
    """How far keys can be seen, after how many queries that repeats itself, and for which signals."""

    period: int
    first: int
    left: Optional[int]
    right: Optional[int]
    limit: Optional[int]

    @staticmethod
    def of(hides: Any, masks: "Masks") -> "_Extent":
        """Of a `Bound`, or of a board that hides keys."""
        if isinstance(hides, Bound):
            return _Extent(hides.period, 0, hides.left, hides.right, hides.limit)
        proved = masks.proved(hides.board)
        sides = [proved.late.reach if hides.of(far) else None for far in (proved.late.left, proved.late.right)]
        return _Extent(proved.period, proved.first, sides[0], sides[1], proved.limit)


class Masks:
    """Proves boards, and reads what they hide.

    Args:
        weights: knows the tensors of the model
        placeholders: what stands for the placeholders of the graph
    """

    def __init__(self, weights: Weights, placeholders: Dict[fx.Node, Any]) -> None:
        self.weights = weights
        self.placeholders = placeholders
        self.sizes: Sizes = weights.capture.sizes
        self._proved: Dict[fx.Node, Proved] = {}

    # ------------------------------------------------------------------ proofs

    def proved(self, board: Board) -> Proved:
        """What is proved of a board.

        Raises:
            MaskError: nothing is
        """
        if board.node not in self._proved:
            self._proved[board.node] = self._prove(board.node)
        return self._proved[board.node]

    def _prove(self, node: fx.Node) -> Proved:
        try:
            proof = self.proof(node)
            late = self._of(proof, node)
            return Proved(proof.period, 0, late, late, proof.limit)
        except Unsettled as error:
            one, other = self.proof(node, False), self.proof(node, True)
            late, early = self._of(one, node), self._of(other, node)
            if one.firsts != {error.first} or other.firsts != {error.first}:
                raise MaskError("mask_length", "it treats the first keys of the signal in several ways", node) from None
            limits = [proof.limit for proof in (one, other) if proof.limit is not None]
            period = math.lcm(one.period, other.period)
            return Proved(period, error.first, late, early, min(limits, default=None))

    def proof(self, node: fx.Node, first: Optional[bool] = None) -> Proof:
        """What tells of the tensors that a node's is made of.

        Args:
            node: the node
            first: whether keys are assumed to stand at the start of the signal, where that matters

        Raises:
            MaskError: it has no axis of time
        """
        shape = node.meta["val"].shape
        size = next((size for size in reversed(shape) if self.sizes.varies(size)), None)
        if size is None:
            raise MaskError("mask_length", "it has no axis of time", node)
        return Proof(self.sizes, size, self._tensor, first)

    def number(self, node: fx.Node, length: Any = None) -> Any:
        """What is known of a tensor of positions.

        Args:
            node: what gives it
            length: of the signal, as a size, if that is not how long the tensor is

        Raises:
            MaskError: nothing is
        """
        proof = self.proof(node) if length is None else Proof(self.sizes, length, self._tensor)
        return proof.of(node)

    def _of(self, proof: Proof, node: fx.Node) -> Regular:
        found = regular(proof.of(node))
        if found is None:
            raise MaskError("mask_length", "it depends on where in the signal a query stands", node)
        return found

    def _tensor(self, node: fx.Node) -> Optional[Tensor]:
        thing = self.placeholders.get(node)
        return self.weights.tensor(thing) if isinstance(thing, Static) and not thing.given else None

    # ------------------------------------------------------------------ patterns

    def pattern(self, hidden: Sequence[Any], length: Any) -> Tuple[Pattern, Optional[int]]:
        """What queries see that nothing hides, and the longest signal for which that is known.

        Args:
            hidden: what hides keys, `Hidden` or `Bound`
            length: of the signal of queries and keys, as a size

        Raises:
            MaskError: that is not bounded, or not proved
        """
        known = [_Extent.of(each, self) for each in hidden]
        for each, extent in zip(hidden, known, strict=True):
            if isinstance(each, Hidden) and is_hinted(each.board.node):
                self._require_causal(each, extent, length)
        node = next((each.board.node for each in hidden if isinstance(each, Hidden)), None)
        limit = min((each.limit for each in known if each.limit is not None), default=None)
        period = math.lcm(*(each.period for each in known))
        firsts = {each.first for each in known if each.first} or {0}
        if len(firsts) > 1:
            raise MaskError("mask_length", "masks treat the first keys of the signal in several ways", node)
        first = firsts.pop()
        reach = []
        for side, way in (("left", "back"), ("right", "ahead")):
            found = [getattr(each, side) for each in known if getattr(each, side) is not None]
            if not found and limit is None:
                raise MaskError("unbounded_context", f"each query sees all keys {way} to the end of the signal", node)
            reach.append(min([*found, *([] if limit is None else [limit])]))
        whole = first + max(reach) + 2 * period + 1
        whole = whole if limit is None else min(whole, limit)
        if whole > _LARGEST:
            raise MaskError("mask_length", f"it repeats itself, but only after {whole} samples", node)
        n = self.signal(length, whole, limit)
        seen = self._seen(hidden, n, length)
        pattern = _read(seen, period, first, reach[0], reach[1])
        if pattern is None:
            raise MaskError("mask_length", "it hides all keys from all queries", node)
        for each in (n, self.signal(length, whole + period + 1, limit)):
            mask = self._seen(hidden, each, length)
            if not torch.equal(mask, pattern.mask(mask.shape[-1], device=mask.device)):
                raise MaskError("mask_length", "what it hides depends on where in the signal a query stands", node)
        self._require_own_key(hidden, n, pattern)
        return pattern, limit

    def _require_causal(self, hidden: Hidden, extent: _Extent, length: Any) -> None:
        # Whether the hint that the mask is causal is true, for all lengths: it repeats itself.
        enough = extent.first + (extent.right or 0) + 2 * extent.period + 2
        seen = self._seen([hidden], self.signal(length, min(enough, _LARGEST), extent.limit), length)
        if extent.left is not None or not torch.equal(seen, torch.ones_like(seen).tril()):
            raise MaskError("mask_and_hint", "is_causal=True comes with a mask that is another", hidden.board.node)

    def signal(self, length: Any, least: int, limit: Optional[int]) -> int:
        """The shortest signal, in samples of the input, of so many queries at least, or of as many as there can be."""
        capture = self.weights.capture
        if limit is not None and least >= limit:
            n = self.longest(length, limit)
            while n > 1 and not capture.valid(n):
                n -= 1
            return n
        n = self.longest(length, least - 1) + 1
        while not capture.valid(n):
            n += 1
        return n

    def longest(self, length: Any, limit: int) -> int:
        """The longest signal, in samples of the input, of which a length is no more than this."""
        of = self.sizes.function(length)
        high = 1
        while of(high) <= limit and high < 1 << 40:
            high *= 2
        low = high // 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if of(middle) > limit else (middle, high)
        return low

    def _seen(self, hidden: Sequence[Any], n: int, length: Any) -> Tensor:
        """Where nothing is hidden, ``[T, T]``; where several heads or rows see differently, where one does."""
        whole = self.sizes.at(length, n)
        found = torch.ones(whole, whole, dtype=torch.bool)
        for each in hidden:
            if isinstance(each, Bound):
                found = found & each.mask(whole)
            else:
                found = found & each.seen(self.values(each.board, n)).cpu()
        return found.reshape(-1, whole, whole).any(0) if found.dim() > 2 else found

    def _require_own_key(self, hidden: Sequence[Any], n: int, pattern: Pattern) -> None:
        for each in hidden:
            if not isinstance(each, Hidden):
                continue
            finite = each.finite
            if each.sense == "add":
                values = self.values(each.board, n)
                finite = bool((torch.isfinite(values) & (values <= _HIDES)).any())
            if finite and not bool(pattern.mask(pattern.period * 2).diagonal().all()):
                raise MaskError(
                    "mask_finite",
                    "it hides keys by a large number, where that of the query itself may be hidden too: then the "
                    "hidden ones count",
                    each.board.node,
                )

    # ------------------------------------------------------------------ values

    def values(self, board: Board, n: int) -> Tensor:
        """The values of a board for a signal of ``n`` samples and one row."""
        return Weights(self.weights.capture).tensor(self.static(board.node, n))

    def static(self, node: fx.Node, n: int) -> Static:
        """What a board is for a signal of ``n`` samples and one row, as a constant tensor."""
        known: Dict[fx.Node, Any] = {}

        def of(argument: Any) -> Any:
            if isinstance(argument, (list, tuple)):
                return [of(item) for item in argument]
            if isinstance(argument, fx.Node):
                return known[argument] if argument in known else made(argument)
            return self.sizes.at(argument, n, 1) if isinstance(argument, torch.SymInt) else argument

        def made(inner: fx.Node) -> Any:
            inner = without_mark(inner)
            value = inner.meta.get("val")
            if not isinstance(value, Tensor):
                return self.sizes.at(value, n, 1)
            if inner.op == "placeholder":
                return self.placeholders[inner]
            args = tuple(of(argument) for argument in inner.args)
            kwargs = {key: of(value) for key, value in inner.kwargs.items() if key not in ("device", "pin_memory")}
            things = [thing for thing in _flat([args, kwargs]) if isinstance(thing, Static)]
            recipe = Replay(inner.target, args, kwargs)
            known[inner] = Static(inner, recipe, any(t.weights for t in things), any(t.given for t in things), False)
            return known[inner]

        found = made(node)
        assert isinstance(found, Static)
        return found


def _flat(argument: Any) -> List[Any]:
    if isinstance(argument, dict):
        argument = list(argument.values())
    if isinstance(argument, (list, tuple)):
        return [item for each in argument for item in _flat(each)]
    return [argument]


def _read(seen: Tensor, period: int, first: int, left: int, right: int) -> Optional[Pattern]:
    """The pattern of a mask ``[T, T]`` that repeats itself at all keys from ``first`` on."""
    whole = seen.shape[0]
    place = torch.arange(period, device=seen.device).unsqueeze(1)
    offset = torch.arange(-left, right + 1, device=seen.device).unsqueeze(0)
    # The earliest query of each place of the period that can see so far.
    turns = torch.div((first - offset - place).clamp(min=0) + period - 1, period, rounding_mode="floor")
    i = place + turns * period
    j = i + offset
    there = (i < whole) & (j < whole)
    table = seen[i.clamp(max=whole - 1), j.clamp(max=whole - 1)] & there
    for shorter in range(1, period):
        if period % shorter == 0 and bool((table.view(-1, shorter, table.shape[1]) == table[:shorter]).all()):
            table, period = table[:shorter], shorter
            break
    rows: List[List[int]] = [row.nonzero().flatten().tolist() for row in table]
    if not any(rows):
        return None
    oldest = [place - left + row[0] if row else None for place, row in enumerate(rows)]
    newest = [place - left + row[-1] if row else None for place, row in enumerate(rows)]
    lo = [
        min(b + turn for turn in (0, period) for k, b in _there(oldest) if k + turn >= place) for place in range(period)
    ]
    hi = [
        max(b - turn for turn in (0, period) for k, b in _there(newest) if k - turn <= place) for place in range(period)
    ]
    start, width = min(lo), max(hi) - min(lo) + 1
    cells = [
        tuple(
            0 <= start + c - place + left < table.shape[1] and bool(table[place, start + c - place + left])
            for c in range(width)
        )
        for place in range(period)
    ]
    full = all(
        cell == (lo[place] <= start + c <= hi[place]) for place, row in enumerate(cells) for c, cell in enumerate(row)
    )
    return Pattern(tuple(lo), tuple(hi), None if full else tuple(cells), first)


def _there(bounds: Sequence[Optional[int]]) -> List[Tuple[int, int]]:
    return [(place, bound) for place, bound in enumerate(bounds) if bound is not None]
