"""Loops that need no loop of their own: they go into the one that made what they read."""

from typing import Dict, List, Optional, Sequence, Set

import torch

from .products import Product
from .program import Operation, Program, Ref, Value
from .samplewise import Apply, Epilogue, Expression, Loop, Rows, leaves

__all__ = ["fuse", "fused"]


def fuse(program: Program) -> None:
    """Let every loop that reads what nobody else reads go into the operation before it, where its numbers are those at
    the same places."""
    wanted = [each.ref.value for each in program.outputs] + [each.value for each in program.inputs]
    wanted += [value.shows.value for value in program.values if value.shows is not None]
    program.operations[:] = fused(program.operations, wanted)


def fused(operations: Sequence[Operation], wanted: Sequence[Value]) -> List[Operation]:
    """The same operations, of which the wanted values stay."""
    found = list(operations)
    kept = {id(value) for value in wanted}
    while any(_fused(found, kept, loop) for loop in list(found) if isinstance(loop, Loop)):
        pass
    return found


def _fused(operations: List[Operation], kept: Set[int], loop: Loop) -> bool:
    if not loop.whole or not torch.equal(loop.wanted, torch.arange(loop.expression.size)):
        return False
    order = {operation: place for place, operation in enumerate(operations)}
    for leaf in leaves(loop.expression):
        if not isinstance(leaf, Rows) or leaf.ref.back or leaf.ref.value.held:
            continue
        value = leaf.ref.value
        makers = [operation for operation in operations if operation.makes is value]
        if not makers or id(value) in kept or not _only_read_by(operations, value, loop):
            continue
        if all(isinstance(maker, Product) for maker in makers):
            if _into_products(operations, loop, value, makers, order):  # type: ignore[arg-type]
                return True
        elif len(makers) == 1 and isinstance(makers[0], Loop) and makers[0].whole:
            _into_loop(operations, loop, value, makers[0])
            return True
    return False


def _only_read_by(operations: List[Operation], value: Value, loop: Loop) -> bool:
    readers = {id(operation) for operation in operations for ref in operation.reads if ref.value is value}
    return readers == {id(loop)}


def _into_products(
    operations: List[Operation], loop: Loop, value: Value, makers: List[Product], order: Dict[Operation, int]
) -> bool:
    assert loop.makes is not None
    others = [leaf.ref for leaf in leaves(loop.expression) if isinstance(leaf, Rows) and leaf.ref.value is not value]
    if loop.makes.width != value.width or loop.makes.rate != value.rate:
        return False
    if not Epilogue.fits(loop.expression, value) or (others and any(maker.step > 1 for maker in makers)):
        return False
    made = {id(operation.makes): place for operation, place in order.items() if operation.makes is not None}
    if any(made.get(id(ref.value), -1) > min(order[maker] for maker in makers) for ref in others):
        return False
    loop.makes.note = f"{value.note}; {loop.makes.note}"
    for maker in makers:
        expression = loop.expression
        if maker.epilogue is not None:
            expression = _replaced(expression, value, maker.epilogue.expression)
            maker.epilogue = Epilogue(_renamed(expression, maker.epilogue.own, loop.makes), loop.makes)
        else:
            maker.epilogue = Epilogue(_renamed(expression, value, loop.makes), loop.makes)
        maker.makes = loop.makes
        maker.reads += others
    operations.remove(loop)
    return True


def _into_loop(operations: List[Operation], loop: Loop, value: Value, maker: Loop) -> None:
    inner = Apply("{0}", [(maker.expression, maker.wanted)], maker.wanted.numel())
    if torch.equal(maker.wanted, torch.arange(maker.expression.size)):
        inner = maker.expression  # type: ignore[assignment]
    loop.expression = _replaced(loop.expression, value, inner)
    loop.reads = [ref for ref in loop.reads if ref.value is not value] + maker.reads
    operations.remove(maker)


def _replaced(
    expression: Expression, value: Value, by: Expression, known: Optional[Dict[int, Expression]] = None
) -> Expression:
    # The same expression, with another one in the place of a value. What stood there once stands there once.
    known = {} if known is None else known
    if isinstance(expression, Rows) and expression.ref.value is value:
        return by
    if not isinstance(expression, Apply):
        return expression
    if id(expression) not in known:
        arguments = [(_replaced(argument, value, by, known), where) for argument, where in expression.arguments]
        known[id(expression)] = Apply(expression.template, arguments, expression.size)
    return known[id(expression)]


def _renamed(expression: Expression, value: Value, to: Value) -> Expression:
    return _replaced(expression, value, Rows(Ref(to)))
