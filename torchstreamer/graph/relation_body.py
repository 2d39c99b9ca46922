"""The computation of what comes of queries and the keys that they see, as the model's own operations."""

import math
from dataclasses import dataclass
from typing import Any, Dict, Optional, Tuple

import torch
from torch import fx

from ..core.context import Pattern
from .distances import Distances, Shifted
from .first_keys import FirstKeys
from .masks import Board, MaskError, Masks
from .ops.relating import Banded, Biased, ByDistance, Placed
from .refusals import Refusals
from .segment import Body
from .values import Relation, Replay, Skew, Static, Value, things_in
from .weights import Weights

__all__ = ["GIVEN", "Attended", "Bias", "MetBody", "Softened", "Zeroed"]

_LARGEST = 1 << 12  # queries of a bias that is made to look at its values


@dataclass(eq=False)
class Softened:
    """Scores with ``-inf`` where a query does not see a key, before a softmax."""

    scores: Relation


@dataclass(eq=False)
class Zeroed:
    """Weights with 0 where a query does not see a key, before a sum over the keys."""

    weights: Relation


@dataclass(eq=False)
class Bias:
    """A board among scores of so many axes, of which one holds the rows, ``fold`` times; -1 if none does."""

    board: Board
    rank: int
    fold: int
    rows: int


@dataclass(eq=False)
class Attended:
    """The mask of a fused attention: a board or none, and what is hidden."""

    bias: Optional[Bias]
    rank: int
    rows: int
    fold: int


@dataclass(eq=False)
class _Given:
    name: str


GIVEN = _MASK, _I, _J = _Given("mask"), _Given("i"), _Given("j")


class MetBody(Body):
    """Builds what is computed of queries and keys."""

    def set(
        self,
        masks: Masks,
        distances: Distances,
        weights: Weights,
        refuse: Refusals,
        pattern: Pattern,
        length: Value,
        plain: bool,
    ) -> None:
        """Say what it is for; ``plain`` if every query sees all the keys."""
        self.masks = masks
        self.distances = distances
        self.weights = weights
        self.refuse = refuse
        self.pattern = pattern
        self.length = length
        self.plain = plain
        self._tables: Dict[Tuple[Board, int], Tuple[Static, int, int, int]] = {}
        self._distances: Dict[Skew, Tuple[Static, int]] = {}
        self._masks: Dict[Tuple[int, int, int], fx.Node] = {}
        self._first_keys: Optional[FirstKeys] = None

    def _replay(self, recipe: Optional[Replay]) -> fx.Node:
        assert recipe is not None
        if recipe.target == "shifted":
            return self._shifted(recipe.args[0])
        idle = self._idle(recipe)
        return super()._replay(recipe) if idle is None else self.use(idle)

    def _idle(self, recipe: Replay) -> Optional[Relation]:
        """The relation that an operation leaves as it is wherever a query sees a key."""
        name = getattr(recipe.target, "__name__", "").split(".")[0]
        relations = [each for each in recipe.args if isinstance(each, Relation)]
        boards = [each for each in recipe.args if isinstance(each, Bias)]
        wanted = {"add": 0.0, "masked_fill": 0.0, "where": float(recipe.args[1:2] == tuple(relations)), "mul": 1.0}
        if len(relations) != 1 or len(boards) != 1 or recipe.kwargs or name not in wanted:
            return None
        dtype, other = relations[0].dtype, boards[0].board.node.meta["val"].dtype
        if other != torch.bool and torch.promote_types(dtype, other) != dtype:
            return None
        return relations[0] if self._same(boards[0], wanted[name]) else None

    def _same(self, bias: Bias, wanted: float) -> bool:
        """Whether a board is this number wherever a query sees a key."""
        static, period, left, right = self._banded(bias)
        if static.given or (static.weights and static.recipe is not None and self._learned(static)):
            return False
        table = Weights(self.weights.capture).tensor(static).cpu()
        place = torch.arange(period).unsqueeze(1)
        offset = torch.arange(-left, right + 1).unsqueeze(0)
        start = (left + self.pattern.prefix + 1) * period  # far from the start of the signal
        seen = self.pattern.visible(start + place, start + place + offset)
        return bool((table[..., seen] == wanted).all()) and self._same_at_first_keys(bias.board, wanted)

    def _same_at_first_keys(self, board: Board, wanted: float) -> bool:
        """The same for the first keys, which are seen from afar too."""
        proved, pattern = self.masks.proved(board), self.pattern
        if pattern.prefix == 0 or proved.limit is not None:
            return True
        if proved.early.left != wanted:
            return False
        size = self.length.shape[self.length.time]
        far = pattern.prefix + max(proved.early.reach, pattern.lookback, 0) + 2 * proved.period + 1
        if far > _LARGEST:
            return False
        values = self.masks.values(board, self.masks.signal(size, far, None)).cpu()
        near = pattern.mask(values.shape[-1])[:, : pattern.prefix]
        return bool((values[..., : pattern.prefix][..., near] == wanted).all())

    def _learned(self, static: Static) -> bool:
        # A parameter may change, a buffer of a mask does not.
        if static.recipe is None:
            return isinstance(self.weights.tensor(static), torch.nn.Parameter)
        inner = things_in([static.recipe.args, static.recipe.kwargs])
        return any(self._learned(each) for each in inner if isinstance(each, Static))

    def _banded(self, bias: Bias) -> Tuple[Static, int, int, int]:
        """The table of a board, its period, and how far it goes to the left and to the right."""
        board, rank = bias.board, bias.rank
        if (board, rank) not in self._tables:
            masks, pattern = self.masks, self.pattern
            proved = masks.proved(board)
            left, right = max(pattern.lookback, 0), max(pattern.lookahead, 0)
            if pattern.prefix > 0 and proved.limit is not None:
                left = max(left, proved.limit - 1)  # the first keys are seen to the end
            period = math.lcm(proved.period, pattern.period)
            whole = proved.first + left + right + 2 * period + 1
            size = self.length.shape[self.length.time]
            n = masks.signal(size, whole if proved.limit is None else min(whole, proved.limit), proved.limit)
            values = masks.static(board.node, n)
            lead = len(board.node.meta["val"].shape) - 2
            if lead > rank - 2:
                raise self.refuse(
                    board.node,
                    "attention_layout",
                    "it has more axes than the scores that it is added to",
                    "lay both out alike",
                )
            for _ in range(rank - 2 - lead):
                values = _computed(values, torch.ops.aten.unsqueeze.default, 0)
            table = _computed(values, Banded(period, proved.first, left, right))
            self._tables[board, rank] = table, period, left, right
        return self._tables[board, rank]

    def _bias(self, bias: Bias) -> fx.Node:
        static, _, left, _ = self._banded(bias)
        rows: Any = self._rows(1) if bias.rows >= 0 else 1
        args = [self.use(static), self.use(_I), self.use(_J), rows]
        prefix = self.pattern.prefix if self.masks.proved(bias.board).limit is None else 0
        if prefix > 0:
            args.append(self._of_first_keys(bias))
        return self.module(Biased(bias.rows, bias.fold, left, prefix), args)

    def _of_first_keys(self, bias: Bias) -> fx.Node:
        """The bias of the keys that are seen however far they are behind, for which no table is long enough."""
        if self._first_keys is None:
            self._first_keys = FirstKeys(self, self.masks, self.use(_I), self.pattern.prefix)
        try:
            found = self._first_keys.of(bias.board)
        except MaskError as error:
            raise self.refuse(
                error.node or bias.board.node,
                "attention_layout",
                f"a bias is added where the first keys are seen for ever, and of it {error.reason}",
                "make it of torch.arange by operations on single entries, or cut it from a table of the model, which "
                "ends",
            ) from None
        for _ in range(bias.rank - len(bias.board.node.meta["val"].shape)):
            found = self.call(torch.unsqueeze, (found, 0))
        return found

    def _shifted(self, shifted: Shifted) -> fx.Node:
        skew = shifted.skew
        if self.pattern.prefix > 0 and self.distances.limit(skew) is None:
            raise self.refuse(
                skew.node,
                "attention_layout",
                "relative positions are used where the first keys are seen for ever",
                "use a mask alone, or positions from a table of the model, which ends",
            )
        if skew not in self._distances:
            self._distances[skew] = self.distances.table(skew, self.pattern)
        table, left = self._distances[skew]
        product = super()._replay(skew.head.recipe(shifted.side, table))
        place = ByDistance(shifted.rank, shifted.rows, shifted.fold, left)
        return self.module(place, (product, self.use(_I), self.use(_J)))

    def _argument(self, value: Any) -> Any:
        if isinstance(value, Relation):
            return self.use(value)
        if isinstance(value, Bias):
            return self._bias(value)
        if isinstance(value, Softened):
            x = value.scores
            return self.use(x) if self.plain else self._hidden(self.use(x), self._seen(x.rank, x.rows, x.fold))
        if isinstance(value, Zeroed):
            y = value.weights
            return self.use(y) if self.plain else self._hidden(self.use(y), self._seen(y.rank, y.rows, y.fold), 0.0)
        if isinstance(value, Attended):
            return self._attended(value)
        return super()._argument(value)

    def _attended(self, value: Attended) -> Any:
        seen = None if self.plain else self._seen(value.rank, value.rows, value.fold)
        if value.bias is None:
            return seen
        truth = value.bias.board.node.meta["val"].dtype == torch.bool
        if self._same(value.bias, float(truth)):
            return seen
        bias = self._bias(value.bias)
        if seen is None:
            return bias
        return self.graph.call_function(torch.logical_and, (bias, seen)) if truth else self._hidden(bias, seen)

    def _hidden(self, scores: fx.Node, seen: fx.Node, value: float = -math.inf) -> fx.Node:
        unseen = self.graph.call_function(torch.logical_not, (seen,))
        return self.graph.call_function(torch.masked_fill, (scores, unseen, self._argument(value)))

    def _seen(self, rank: int, rows: int, fold: int) -> fx.Node:
        key = rank, rows, fold
        if key not in self._masks:
            self._masks[key] = self.module(Placed(rank, rows, fold), (self.use(_MASK),))
        return self._masks[key]


def _computed(x: Static, target: Any, *args: Any) -> Static:
    return Static(x.node, Replay(target, (x, *args)), x.weights, x.given, False)
