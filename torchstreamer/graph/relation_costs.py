"""Multiply-adds of what is computed between queries and keys."""

import math
from typing import Any, Dict, List, Optional, Sequence, Set, Tuple

from torch import fx

from .distances import Shifted
from .lengths import Sizes
from .values import Relation, Replay, Value, things_in

__all__ = ["products_of", "relations_in"]


def relations_in(recipe: Replay) -> List[Relation]:
    """The relations that an operation needs, and those that they are made of, after them."""
    found: Dict[Relation, None] = {}
    for thing in things_in([recipe.args, recipe.kwargs]):
        inner = getattr(thing, "scores", getattr(thing, "weights", thing))
        if isinstance(inner, Relation):
            found[inner] = None
            found.update(dict.fromkeys(relations_in(inner.recipe)))
    return list(found)


def products_of(node: fx.Node, recipe: Replay, sizes: Sizes, given: Optional[Relation] = None) -> Tuple[int, int]:
    """Multiply-adds of one row.

    Args:
        node: the operation that gives the answers
        recipe: how they are computed, of relations and sides
        sizes: of the capture
        given: a relation that comes from outside

    Returns:
        those for each key that a query sees, and for each distance of a query
    """
    counted = _Products(sizes)
    if given is not None:
        counted.known.add(id(given.recipe))
    counted.count(node, recipe)
    return counted.pairs, counted.distances


class _Products:
    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes
        self.pairs = 0
        self.distances = 0
        self.known: Set[int] = set()

    def count(self, node: fx.Node, recipe: Replay) -> None:
        """Add the products of an operation, and of those that it needs."""
        if id(recipe) in self.known:
            return
        self.known.add(id(recipe))
        for thing in things_in([recipe.args, recipe.kwargs]):
            inner = getattr(thing, "scores", getattr(thing, "weights", thing))
            if isinstance(inner, Relation):
                self.count(inner.node, inner.recipe)
            elif isinstance(thing, Shifted):
                head = thing.skew.head
                made = head.recipe(thing.side, thing.side)
                shapes = [thing.side.shape, head.board.node.meta["val"].shape]
                self.distances += self._of(head.node, made, shapes)
        shapes = [_shape(thing) for thing in things_in(recipe.args) if isinstance(thing, Value) or _is_relation(thing)]
        self.pairs += self._of(node, recipe, shapes)

    def _of(self, node: fx.Node, recipe: Replay, shapes: Sequence[Sequence[Any]]) -> int:
        name = getattr(recipe.target, "__name__", "").split(".")[0]
        made = node.meta["val"].shape
        if name == "einsum":
            terms = recipe.args[0].replace(" ", "").split("->")[0].split(",")
            letters: Dict[str, int] = {}
            for term, shape in zip(terms, shapes, strict=True):
                for letter, size in zip(term, shape, strict=True):
                    letters[letter] = max(letters.get(letter, 1), self._entries([size]))
            return math.prod(letters.values())
        if name == "scaled_dot_product_attention":
            return self._entries(shapes[0]) + self._entries(made)
        if name in ("matmul", "bmm"):
            return self._entries(made) * self._entries(shapes[0][-1:])
        return 0

    def _entries(self, shape: Sequence[Any]) -> int:
        """Entries of one row, for each sample of all axes of time."""
        return math.prod(self.sizes.at(size, 1, 1) for size in shape if not self.sizes.varies(size))


def _is_relation(thing: Any) -> bool:
    return isinstance(getattr(thing, "scores", getattr(thing, "weights", thing)), Relation)


def _shape(thing: Any) -> Sequence[Any]:
    inner = getattr(thing, "scores", getattr(thing, "weights", thing))
    shape: Sequence[Any] = inner.node.meta["val"].shape if isinstance(inner, Relation) else inner.shape
    return shape
