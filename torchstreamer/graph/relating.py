"""Finds relations between queries and keys in a graph, up to where they become values again."""

import math
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import torch
from torch import fx

from ..core.context import Context, Pattern
from ..core.rates import chain_rates
from ..errors import UnsupportedModuleError
from .alignment import Alignment
from .clocks import Clocks
from .distances import Distances, Head, Shifted
from .masks import Bound, MaskError, Masks
from .refusals import Refusals
from .relation_body import GIVEN, Attended, Bias, MetBody, Softened, Zeroed
from .relation_costs import products_of, relations_in
from .relations import RelationNode
from .values import Clock, Relation, RelationCall, Replay, Skew, Span, Static, Value, things_in
from .weights import Weights

__all__ = ["Relating"]

_UNBOUNDED = (
    "every query sees all keys, so every output depends on the whole signal",
    "give the model a mask with an end, or name one: create_stream(model, example=…, context=pts.Context(left, right, "
    "chunk)) streams it as if it had that mask, and context=pts.Context(None, max_length=n) keeps all that came, for "
    "signals of up to n samples; or pts.Chunked1d(model, …), which is another model",
)


@dataclass(eq=False)
class _Sharing:
    """Weights of queries for keys that several parts use.

    Attributes:
        value: the answers of the part that makes them
        pattern: which query sees which key
        taken: those that other parts take, if any do
    """

    value: Value
    pattern: Pattern
    taken: Optional[Relation] = None


class Relating:
    """Makes relations, and parts of the graph that compute what comes of them.

    Args:
        clocks: of the values
        alignment: takes the parts
        weights: gives tensors without a time axis
        refuse: makes refusals
        environment: what stands for the nodes of the graph
        context: hides keys in every relation, besides the model's own masks
    """

    def __init__(
        self,
        clocks: Clocks,
        alignment: Alignment,
        weights: Weights,
        refuse: Refusals,
        environment: Dict[fx.Node, Any],
        context: Optional[Context] = None,
    ) -> None:
        self.clocks = clocks
        self.sizes = clocks.sizes
        self.alignment = alignment
        self.weights = weights
        self.refuse = refuse
        self.masks = Masks(weights, environment)
        self.distances = Distances(self.masks)
        self.context: Tuple[Any, ...] = () if context is None else (Bound.of(context),)
        self.altered = False  # whether the context hides what the model's own masks do not
        self._sides: Dict[Value, Tuple[Value, bool]] = {}
        self._shared: Dict[Relation, _Sharing] = {}

    def longest(self) -> int:
        """The longest signal that tables of the model are made for, in samples of the first input; -1 for any."""
        return min((self.masks.longest(length, limit) for length, limit in self.clocks.limits), default=-1)

    # ------------------------------------------------------------------ relations

    def side(self, value: Value, keys: bool) -> Value:
        """A value as one of the sides of a relation: of the queries of a step, or of the keys that they see."""
        if value.lifted or value.merged:
            raise self.refuse(
                value.node, "attention_layout", "it relates positions to values", "compute it sample by sample"
            )
        copy = value.like()
        self._sides[copy] = value, keys
        return copy

    def whole(self, x: Relation) -> Value:
        """The value that is as long as a relation."""
        return self._sides[x.sides[0]][0]

    def placed(self, node: fx.Node, length: Value) -> Tuple[int, int, int]:
        """Rank of a relation, its axis of rows or -1, and entries of that axis for each row.

        Raises:
            UnsupportedModuleError: queries and keys are not its last two axes
        """
        shape = node.meta["val"].shape
        rank = len(shape)
        axes = [axis for axis, size in enumerate(shape) if self.sizes.varies(size)]
        rows = [axis for axis, size in enumerate(shape) if self.sizes.has_rows(size)]
        same = all(self.clocks.same_length(self.sizes.function(shape[axis], 1), length.length) for axis in axes)
        fold = self.sizes.at(shape[rows[0]], self.clocks.lengths[0], 2) // 2 if rows else 1
        fits = len(rows) == bool(self.sizes.rows) and (rows in ([], [0]) or fold == 1)
        if axes != [rank - 2, rank - 1] or not same or not fits:
            raise self.refuse(
                node,
                "attention_layout",
                "it relates samples to each other in a layout that has no stream",
                "lay scores out as [rows, …, queries, keys]",
            )
        return rank, rows[0] if rows else -1, fold

    def product(self, node: fx.Node, one: Value, other: Value, recipe: Callable[[Value, Value], Replay]) -> Relation:
        """The relation of two values by a product."""
        q, k = self.side(one, False), self.side(other, True)
        rank, rows, fold = self.placed(node, one)
        return Relation(node, node.meta["val"].dtype, rank, rows, fold, recipe(q, k), (), None, (q, k))

    def shifted(self, skew: Skew) -> Relation:
        """The relation that a product with rows of distances has become.

        Raises:
            UnsupportedModuleError: its entries do not stand at queries and keys
        """
        if skew.relation is None:
            head: Head = skew.head
            node, q, k = skew.node, self.side(head.queries, False), self.side(head.queries, True)
            rank, rows, fold = self.placed(node, head.queries)
            recipe = Replay("shifted", (Shifted(skew, q, rank, rows, fold),))
            skew.relation = Relation(node, node.meta["val"].dtype, rank, rows, fold, recipe, (), None, (q, k))
        return skew.relation

    def like(
        self, node: fx.Node, x: Relation, recipe: Replay, hidden: Tuple[Any, ...], gone: Optional[float]
    ) -> Relation:
        """A relation made of another."""
        rank, rows, fold = self.placed(node, self.whole(x))
        kept = hidden if gone is not None else ()
        softened = x.softened and gone == 0
        return Relation(node, node.meta["val"].dtype, rank, rows, fold, recipe, kept, gone, x.sides, softened)

    def bounded(self, node: fx.Node, hidden: Tuple[Any, ...], length: Value) -> Tuple[Pattern, Optional[int]]:
        """The pattern of what several things leave to see.

        Raises:
            UnsupportedModuleError: it is not bounded, or not proved
        """
        if not hidden:
            raise self.refuse(node, "unbounded_context", *_UNBOUNDED)
        size = length.shape[length.time]
        assert not isinstance(size, int)
        try:
            found = self.masks.pattern(self._ending(hidden, length), size)
        except MaskError as error:
            raise self.refused(node, error) from None
        if self.context and not self.altered:
            own = [Bound.ending(each.limit) if each in self.context else each for each in hidden]
            try:
                self.altered = self.masks.pattern(self._ending(own, length), size) != found
            except MaskError:
                self.altered = True
        return found

    def _ending(self, hidden: Sequence[Any], length: Value) -> Sequence[Any]:
        """The same, and nothing is kept beyond the end of the model's tables where the longest signal is given."""
        if not any(isinstance(each, Bound) and each.limit is not None for each in hidden):
            return hidden
        same = self.clocks.same_length
        ends = [end for size, end in self.clocks.limits if same(self.sizes.function(size, 1), length.length)]
        return [*hidden, Bound.ending(min(ends))] if ends else hidden

    def refused(self, node: fx.Node, error: MaskError) -> UnsupportedModuleError:
        """The refusal of a mask."""
        if error.code == "unbounded_context":
            return self.refuse(
                node, error.code, error.reason + ", so its outputs depend on the whole signal", _UNBOUNDED[1]
            )
        remedy = {
            "mask_data": "leave it out: rows of a batch end by final or by lengths, each for itself",
            "mask_length": "make it of torch.arange by comparisons of j with i, in whole numbers; or leave it out, and "
            "give create_stream(…, context=pts.Context(…))",
            "relative_positions": "shift products until entry [i, j] is that with the distance j - i, whatever the "
            "length, from a table that is cut in its middle or computed of torch.arange",
            "mask_and_hint": "leave is_causal out: with it the module follows the mask without gradients, and the hint "
            "with them",
            "mask_finite": "use -inf, or let every query see its own key",
        }[error.code]
        what = "positions" if error.code == "relative_positions" else "a mask"
        reason = f"it makes {what} that {'have' if what == 'positions' else 'has'} no stream: {error.reason}"
        return self.refuse(error.node or node, error.code, reason, remedy)

    # ------------------------------------------------------------------ values again

    def answered(self, node: fx.Node, recipe: Replay, hidden: Tuple[Any, ...]) -> Value:
        """What comes of queries that have met their keys.

        Args:
            node: the operation that gives it
            recipe: how it is computed, of relations and sides
            hidden: what hides keys
        """
        sides = list(dict.fromkeys(self._sides_in(recipe)))
        sides.sort(key=lambda side: self._sides[side][1])
        sources = [self._sides[side][0] for side in sides]
        aligned = self.alignment.align(node, sources)
        pattern, limit = self.bounded(node, hidden, aligned[0])
        if limit is not None:
            self.clocks.limits.append((aligned[0].shape[aligned[0].time], limit))
        for skew in self._skews_in(recipe):
            end = self._proved(node, lambda skew=skew: self.distances.limit(skew))  # type: ignore[misc]
            if end is not None:
                self.clocks.limits.append((aligned[0].shape[aligned[0].time], end))
        if len({value.dtype for value in aligned}) > 1:
            raise self.refuse(node, "attention_layout", "it relates values of different dtypes", "convert them first")
        # A bias may repeat itself later than the mask.
        boards = [bias.board for bias in self._biases_in(recipe)]
        periods = self._proved(node, lambda: [self.masks.proved(board).period for board in boards])
        pattern = _prolonged(pattern, math.lcm(pattern.period, *periods))
        before = aligned[0].clock
        assert before is not None
        clock = self._after(before, pattern)
        level = max(value.level for value in aligned) + 1
        value = self.clocks.value(node, node.meta["val"], clock, level)
        if value is None or not self.clocks.same_length(value.length, aligned[0].length):
            raise self.refuse(node, "time_mixing", *_UNBOUNDED)
        value.fresh = True
        statics: List[Static] = []
        sharing = self._sharing(recipe, pattern, value)
        bodies = self._bodies(node, recipe, sides, statics, value, pattern)
        queries = sum(not self._sides[side][1] for side in sides)
        layouts = [each.layout() for each in aligned]
        weights = sharing.taken if sharing is not None and sharing.value is not value else None
        products = products_of(node, recipe, self.sizes, weights)
        if weights is not None:
            bodies.append(self._body(recipe, sides, statics, value, pattern, False, weights))
        self.alignment.handler = "RelationNode"

        def module(slots: Sequence[int], target: int, slot: Callable[[Any], int]) -> RelationNode:
            shared = given = -1
            if weights is not None:
                given = slot(weights)
            elif sharing is not None and sharing.taken:
                shared = slot(sharing.taken)
                bodies[:2] = self._bodies(node, recipe, sides, statics, value, pattern, sharing.taken)
            layout = value.layout()
            return RelationNode(pattern, bodies, slots, queries, layouts, target, layout, products, shared, given)

        self.alignment.calls.append(RelationCall([*aligned, *statics], [value], module))  # type: ignore[list-item]
        return value

    def _sharing(self, recipe: Replay, pattern: Pattern, value: Value) -> Optional[_Sharing]:
        """Weights that another part has made for the same queries at the same time, or that it makes for others."""
        made = [each for each in relations_in(recipe) if each.softened]
        for weights in made:
            known = self._shared.get(weights)
            if known is not None and known.pattern == pattern and known.value.clock is value.clock:
                if known.taken in (None, weights):
                    known.taken = weights
                    return _Sharing(known.value, pattern, weights)
        mine = _Sharing(value, pattern)
        for weights in made:
            self._shared.setdefault(weights, mine)
        return mine if made else None

    def _bodies(
        self,
        node: fx.Node,
        recipe: Replay,
        sides: Sequence[Value],
        statics: List[Static],
        value: Value,
        pattern: Pattern,
        shared: Optional[Relation] = None,
    ) -> List[torch.nn.Module]:
        """The computation where queries see some keys, and where they see all; besides it may give weights."""

        def built(plain: bool) -> torch.nn.Module:
            return self._body(recipe, sides, statics, value, pattern, plain, shared=shared)

        return [self._proved(node, lambda plain=plain: built(plain)) for plain in (False, True)]  # type: ignore[misc]

    def _sides_in(self, recipe: Any) -> List[Value]:
        found: List[Value] = []
        for thing in things_in([recipe.args, recipe.kwargs]):
            if isinstance(thing, Span):
                thing = thing.value
            if isinstance(thing, Softened):
                thing = thing.scores
            if isinstance(thing, Zeroed):
                thing = thing.weights
            if isinstance(thing, Relation):
                found += self._sides_in(thing.recipe)
            elif isinstance(thing, Shifted):
                found.append(thing.side)
            elif isinstance(thing, Value):
                found.append(thing)
        return found

    def _biases_in(self, recipe: Any) -> List[Bias]:
        found: List[Bias] = []
        for thing in things_in([recipe.args, recipe.kwargs]):
            inner = getattr(thing, "scores", getattr(thing, "weights", thing))
            if isinstance(inner, Relation):
                found += self._biases_in(inner.recipe)
            elif isinstance(thing, Bias):
                found.append(thing)
            elif isinstance(thing, Attended) and thing.bias is not None:
                found.append(thing.bias)
        return found

    def _skews_in(self, recipe: Any) -> List[Skew]:
        found: List[Skew] = []
        for thing in things_in([recipe.args, recipe.kwargs]):
            inner = getattr(thing, "scores", getattr(thing, "weights", thing))
            if isinstance(inner, Relation):
                found += self._skews_in(inner.recipe)
            elif isinstance(thing, Shifted):
                found.append(thing.skew)
        return found

    def _proved(self, node: fx.Node, what: Callable[[], Any]) -> Any:
        try:
            return what()
        except MaskError as error:
            raise self.refused(node, error) from None

    def _after(self, before: Clock, pattern: Pattern) -> Clock:
        def available(n: int, final: bool) -> int:
            came = before.available(n, final)
            return came if final else pattern.settled(came)

        hop, ratio = chain_rates([(before.hop, before.ratio), (pattern.period, (1, 1))])
        return self.clocks.clock(available, hop, ratio)

    # ------------------------------------------------------------------ the computation

    def _body(
        self,
        recipe: Replay,
        sides: Sequence[Value],
        statics: List[Static],
        result: Value,
        pattern: Pattern,
        plain: bool,
        weights: Optional[Relation] = None,
        shared: Optional[Relation] = None,
    ) -> torch.nn.Module:
        body = self.weights.body(lambda thing: isinstance(thing, Relation), MetBody)
        assert isinstance(body, MetBody)
        body.set(self.masks, self.distances, self.weights, self.refuse, pattern, self._sides[sides[0]][0], plain)
        for thing in [*sides, *GIVEN, *statics]:
            body.input(thing)
        if weights is not None:
            body.input(weights)
        made = result.like(recipe=recipe)
        body.compute(made)
        module = body.finish([made] if shared is None else [made, shared])
        for thing in body.inputs[len(sides) + len(GIVEN) :]:
            if thing not in statics and thing is not weights:
                statics.append(thing)
        return module


def _prolonged(pattern: Pattern, period: int) -> Pattern:
    """The same pattern, said for a longer period."""
    turns = [turn * pattern.period for turn in range(period // pattern.period)]
    if len(turns) == 1:
        return pattern
    lo, hi = ([bound + turn for turn in turns for bound in bounds] for bounds in (pattern.lo, pattern.hi))
    table = pattern.table
    if table is not None:
        behind = turns[-1]
        table = tuple((False,) * turn + row + (False,) * (behind - turn) for turn in turns for row in table)
    return Pattern(tuple(lo), tuple(hi), table, pattern.prefix)
